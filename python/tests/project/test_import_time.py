import json
import subprocess
import sys

import usae

HEAVY = ("scipy", "torch", "safetensors", "tqdm", "matplotlib", "pandas", "sklearn", "skimage", "difflib", "pickle", "asyncio")

SCRIPT = f"""
import json, sys, time
import numpy
before = set(sys.modules)
start = time.perf_counter()
import usae
seconds = time.perf_counter() - start
print(json.dumps([seconds, [name for name in {HEAVY} if name in set(sys.modules) - before]]))
"""


def test_importing_takes_less_than_a_fifth_of_a_second_beyond_numpy_and_nothing_heavy():
    runs = [json.loads(subprocess.check_output([sys.executable, "-c", SCRIPT])) for _ in range(5)]
    assert all(heavy == [] for _, heavy in runs)
    assert min(seconds for seconds, _ in runs) < 0.2  # the fastest: others may share the machine


def test_training_and_encoding_without_a_bar_or_files_need_no_other_package():
    script = f"""
import sys
import numpy
before = set(sys.modules)
import usae
x = numpy.random.default_rng(0).standard_normal((20, 3))
sae = usae.UniversalSAE(4, 2).fit({{"a": x}}, steps=2)
sae.evaluate({{"a": x}}), sae.encode(x, "a").to_dense()
print([name for name in {HEAVY} if name in set(sys.modules) - before])
"""
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"


def test_the_public_list_is_complete_and_sorted():
    assert usae.__all__ == sorted(usae.__all__)
    assert all(hasattr(usae, name) for name in usae.__all__)
    assert set(usae.__all__) <= set(dir(usae)) and not hasattr(usae, "load_publisher")
    namespace = {}
    exec("from usae import *", namespace)
    assert set(usae.__all__) <= set(namespace)
