"""What `import usae` brings along. benchmarks/waiting.py says how long it takes."""

import json
import subprocess
import sys

import usae

HEAVY = ("scipy", "torch", "safetensors", "tqdm", "matplotlib", "pandas", "sklearn", "skimage", "difflib", "pickle", "asyncio")

SCRIPT = """
import json, sys
import numpy
before = set(sys.modules)
import usae
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_importing_brings_few_modules_beyond_numpy_and_none_that_is_heavy():
    modules = json.loads(subprocess.check_output([sys.executable, "-c", SCRIPT]))
    others = [name for name in modules if name.partition(".")[0] != "usae"]
    assert not set(others) & set(HEAVY)
    assert {name.partition(".")[0] for name in others} <= sys.stdlib_module_names
    assert len(others) <= 40  # small ones of the standard library, about a millisecond each


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
