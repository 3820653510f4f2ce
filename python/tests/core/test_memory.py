"""Peak memory of training and evaluating at the published size: a formula, and no array of all tokens by all concepts."""

import json
import subprocess
import sys
import textwrap

import pytest

import usae
from support.kernels import SCREENING_KERNELS

pytestmark = pytest.mark.slow

N_TOKENS, N_CONCEPTS, K, WIDTHS = 6272, 6144, 32, {"siglip": 768, "dinov2": 384, "vit": 768}
MIB = 2**20

ENCODED = ("siglip", "dinov2")  # one of each width

SCRIPT = """
import json
import numpy as np
import usae

def peak():  # ru_maxrss would start at what the parent process had
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

recipe = {recipe}
random = np.random.default_rng(0)
batch = {{j: random.standard_normal(({n_tokens}, width), dtype=np.float32) for j, width in {widths!r}.items()}}
# Starts threads and fills the buffers of BLAS.
tiny = usae.UniversalSAE(64, 4, recipe=recipe, n_threads=2).initialize({{"a": 32, "b": 16}})
tiny.partial_fit({{"a": batch["siglip"][:256, :32], "b": batch["siglip"][:256, :16]}})
before = peak()
sae = usae.UniversalSAE({n_concepts}, {k}, recipe=recipe, seed=0, n_threads=2)
sae.initialize({widths!r})
for name in {encoded!r}:
    sae.partial_fit(batch, encoder=name)
print(json.dumps([before, peak()]))
"""


def expected_bytes(recipe, n_tokens):
    """What training holds, in float32 numbers; m x d of all models is written `tables`."""
    total, encoded = sum(WIDTHS.values()), sum(WIDTHS[name] for name in ENCODED)
    tables = N_CONCEPTS * total
    numbers = 3 * 2 * tables  # encoders and dictionaries, and two moments of each
    numbers += (n_tokens + N_TOKENS) * total  # the standardised batch, and residuals of all encodings
    screens = usae.show_config()["kernels"] in SCREENING_KERNELS
    packed = N_CONCEPTS * encoded  # encoders packed for the product
    numbers += 3 * packed // 4 if screens else packed  # for screening: the high int8 parts twice, the low ones once
    if recipe.startswith("published"):
        numbers += 2 * N_CONCEPTS * encoded  # gradients of encoded pairs, whose norm is asked for
        # BatchNorm: a thousand tokens centred and packed, W C, and C with its packed form.
        numbers += (2 * 1024 + N_CONCEPTS) * encoded + 2 * sum(WIDTHS[name] ** 2 for name in ENCODED)
        numbers += packed if screens else 0  # AuxK wants every pre-activation
        numbers += tables  # dictionaries with unit rows, for AuxK
        numbers += 960 * (N_CONCEPTS + 2 * total + encoded)  # AuxK's codes, slopes and tokens, for a tile of 960 tokens
    return 4 * numbers


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("recipe", "n_tokens"),
    [
        ("default(encoded_models='one')", N_TOKENS),
        ("published(total_steps=100, warmup_steps=10)", N_TOKENS),
        ("default(encoded_models='two', agreement=0.05)", N_TOKENS // 2),  # as many encodings
    ],
)
def test_training_at_the_published_size_allocates_no_tokens_by_concepts(recipe, n_tokens):
    script = textwrap.dedent(SCRIPT).format(
        recipe=f"usae.recipes.{recipe}", n_tokens=n_tokens, n_concepts=N_CONCEPTS, k=K, widths=WIDTHS, encoded=ENCODED
    )
    result = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True, timeout=600)
    before, peak = json.loads(result.stdout)
    dense = 4 * N_TOKENS * N_CONCEPTS
    allowance = dense / 3  # for all that is small; so no such array can hide in it
    used, expected = peak - before, expected_bytes(recipe, n_tokens)
    print(f"{recipe}: peak {peak / MIB:.0f} MiB, of which {used / MIB:.0f} for training, {expected / MIB:.0f} by the formula")
    assert used < expected + allowance, f"{used / MIB:.0f} MiB used, {expected / MIB:.0f} MiB expected"
    assert used > 0.8 * expected, "the formula promises too little"


EVALUATION = """
import json
import numpy as np
import usae

def peak():
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

random = np.random.default_rng(0)
sae = usae.UniversalSAE({n_concepts}, {k}, seed=0, n_threads=2).initialize({widths!r})
few = {{name: random.standard_normal((1, 4096, width), dtype=np.float32) for name, width in {widths!r}.items()}}
before = peak()
sae.evaluate(few)
usae.top_examples(sae, few)
once = peak()
many = {{name: np.broadcast_to(x, (5, *x.shape[1:])) for name, x in few.items()}}  # the same memory five times
sae.evaluate(many)
usae.top_examples(sae, many)
print(json.dumps([before, once, peak()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_evaluating_takes_little_memory_and_no_more_for_more_tokens():
    script = textwrap.dedent(EVALUATION).format(n_concepts=N_CONCEPTS, k=K, widths=WIDTHS)
    result = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True, timeout=600)
    before, once, many = json.loads(result.stdout)
    print(f"{(once - before) / MIB:.0f} MiB for 4,096 tokens, {(many - before) / MIB:.0f} for 20,480")
    assert once - before < 250 * MIB
    # What the allocator keeps, and the buffers of a thread that came too late for the first tokens (18 MiB); a float for each
    # token and concept would be 480.
    assert many - once < 32 * MIB


WIDE = """
import resource
import numpy as np
import usae
from usae._data.activations import as_aligned

sae = usae.UniversalSAE(1, 1, n_threads=1).initialize({"a": 2**20})
with open("/proc/self/statm") as status:
    pages = int(status.read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**29,) * 2)
sae._autoencoder.check_finite(as_aligned({"a": np.zeros((3, 2**20), np.float16)}, "acts"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what is allocated is read from /proc")
def test_a_look_at_a_few_wide_rows_allocates_those_and_not_thousands():
    subprocess.run([sys.executable, "-c", WIDE], check=True, timeout=600)
