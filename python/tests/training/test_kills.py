"""Runs with checkpoints in processes that are ended from outside, at whatever moment."""

import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

import usae
from support.autoencoders import planted

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="sends signals")]

STEPS = 80

# The same program whatever came before. At step `stop` it waits for a line of the one who sends signals.
PROGRAM = """
import sys
import numpy as np
import usae
from usae._data import shuffled_blocks
from support.autoencoders import RECIPE

folder, form, checkpoints, stop, steps = *sys.argv[1:4], *map(int, sys.argv[4:])
shuffled_blocks.BLOCK_ROWS, shuffled_blocks.GROUP_BLOCKS = 32, 4  # several groups in a small store
if form == "store":
    acts, held_out = usae.ActivationStore(f"{folder}/acts"), None
else:
    acts = {name: np.load(f"{folder}/{name}.npy", mmap_mode="r") for name in ("dinov2", "siglip", "vit")}
    held_out = {name: x[:100] for name, x in acts.items()}

def tell(report):
    print(report.step, flush=True)
    if report.step == stop:
        sys.stdin.readline()

sae = usae.UniversalSAE(24, 3, recipe=RECIPE.replace(dead_tokens=50), seed=3)
if checkpoints == "with":
    options = {"checkpoint": usae.Checkpoints(f"{folder}/run", every_steps=3), "resume": True}
else:
    options = {}
sae.fit(acts, steps=steps, validation=held_out, callbacks=[tell], **options)
sae.save(f"{folder}/{checkpoints}", training_state=True)
"""


@pytest.fixture(params=["array", "store"])
def place(request, tmp_path):
    """A folder with activations, and the form that they have."""
    acts = planted(600, seed=0)
    if request.param == "array":
        for name, x in acts.items():
            np.save(tmp_path / f"{name}.npy", x)
    else:
        with usae.ActivationStore.create(tmp_path / "acts", dtype="float32") as store:
            for start in range(0, 600, 150):
                store.append({name: x[start : start + 150] for name, x in acts.items()})
    return tmp_path, request.param


def started(folder, form, checkpoints="with", stop=0):
    command = [sys.executable, "-c", PROGRAM, *map(str, (folder, form, checkpoints, stop, STEPS))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment(), text=True, **pipes)


def environment():
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def result(folder, form, checkpoints="with"):
    """The bytes that a run comes to which nobody stops, and its first step."""
    process = started(folder, form, checkpoints)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    saved = {path.name: path.read_bytes() for path in (folder / checkpoints).iterdir()}
    return saved, int(output.split()[0]) if output else STEPS + 1


def test_a_run_that_is_killed_ten_times_comes_to_the_bytes_of_one_that_is_not(place):
    folder, form = place
    expected, _ = result(folder, form, "without")
    moments, reached = random.Random(0), 0
    for _ in range(10):
        process = started(folder, form)
        for _ in range(moments.randint(1, 9)):
            line = process.stdout.readline()
            if line:
                reached = max(reached, int(line))
        for _ in range(moments.randrange(100_000)):  # of ours, in which it goes into the next step, or a checkpoint
            pass
        process.kill()
        process.communicate()
        assert process.returncode in (0, -signal.SIGKILL)
    found, first = result(folder, form)
    assert found == expected
    assert reached - 3 < first <= STEPS + 1  # what was lost are the steps since a checkpoint


def test_sigterm_ends_the_process_as_always_but_after_a_checkpoint(place):
    folder, form = place
    expected, _ = result(folder, form, "without")
    for step in (7, 35):
        process = started(folder, form, stop=step)
        while process.stdout.readline() != f"{step}\n":
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate("\n", timeout=600)
        assert process.returncode == -signal.SIGTERM and errors == ""
        assert usae.Checkpoints(folder / "run").load().n_steps_ == step
    assert result(folder, form) == (expected, 36)


@pytest.mark.skipif(sys.platform != "linux", reason="limits files as Linux does")
def test_files_that_may_not_grow_leave_the_last_whole_checkpoint(tmp_path):
    script = """
import errno, os, resource, sys, warnings
import usae
from support.autoencoders import RECIPE, planted

def limit(report):
    if report.step == 8:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))

warnings.simplefilter("ignore")
acts, checkpoint = planted(600, seed=0), usae.Checkpoints(sys.argv[1], every_steps=3)
sae = usae.UniversalSAE(24, 3, recipe=RECIPE, seed=3)
try:
    sae.fit(acts, steps=20, checkpoint=checkpoint, callbacks=[limit])
except usae.CheckpointFileError as error:
    assert os.strerror(errno.EFBIG) in str(error)  # of safetensors, which has no number
    print(sae.n_steps_, checkpoint.load().n_steps_)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
again = usae.UniversalSAE(24, 3, recipe=RECIPE, seed=3).fit(acts, steps=20, checkpoint=checkpoint, resume=True)
whole = usae.UniversalSAE(24, 3, recipe=RECIPE, seed=3).fit(acts, steps=20)
print([again.dictionary(name).tobytes() == whole.dictionary(name).tobytes() for name in acts])
"""
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["20 6", "[True, True, True]"]
