"""Training in real processes over torch.distributed, started with torchrun as users start it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from support.refusals import refuses

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.slow

PROGRAM = pathlib.Path(__file__).with_name("distributed_program.py")


def launched(folder, scenario, size):
    """What each of `size` processes saw, by rank."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*command, str(PROGRAM), str(folder), scenario], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert sorted(path.name for path in folder.glob("*.json")) == sorted(f"{rank}.json" for rank in range(size))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(size)]


@pytest.fixture(scope="module", params=[2, 4])
def correct(request, tmp_path_factory):
    return launched(tmp_path_factory.mktemp(f"correct{request.param}"), "correctness", request.param)


@pytest.mark.parametrize("recipe, tensors", [("default", 4), ("published", 2), ("two", 5)])
def test_the_gradients_of_a_step_are_those_of_one_process(correct, recipe, tensors):
    for seen in correct:
        errors = seen[f"step {recipe}"]["errors"]
        assert sum("gradient" in what for what in errors) == 3 * tensors, "of three encoders"
        assert sum("encoder_bias" in what for what in errors) == (6 if recipe == "two" else 3)
        assert all(error < 1e-5 for error in errors.values()), errors
    assert len({seen[f"step {recipe}"]["digest"] for seen in correct}) == 1


@pytest.mark.parametrize("recipe", ["default", "published", "two"])
def test_fifty_steps_have_the_losses_of_one_process_and_the_same_bits_everywhere(correct, recipe):
    for seen in correct:
        together, alone = seen[f"run {recipe}"]["losses"]
        assert len(together) == len(alone) == 50
        assert max(abs(a - b) / b for a, b in zip(together, alone, strict=True)) < 1e-3
        assert alone[-1] < 0.95 * alone[0], "there is something to agree on"
        assert seen[f"run {recipe}"]["validated"] == [10, 20, 30, 40, 50]
    assert recipe != "default" or max(correct[0]["run default"]["dead"]) > 0, "the auxiliary loss was trained too"
    assert len({seen[f"run {recipe}"]["digest"] for seen in correct}) == 1


def test_processes_share_the_steps_of_parts_that_have_different_models(tmp_path):
    seen = launched(tmp_path, "weakly_paired", 2)
    for one in seen:
        for run in one.values():
            together, alone = run["losses"]
            assert len(together) == 50 and max(abs(a - b) / b for a, b in zip(together, alone, strict=True)) < 1e-2
            assert run["present"][0] == run["present"][1]
            assert {len(names) for names in run["present"][0]} == {1, 3}
    assert seen[0] == seen[1]


def test_what_goes_wrong_in_one_process_is_an_error_in_all_and_training_goes_on(tmp_path):
    seen = launched(tmp_path, "user_loop", 2)
    first, second = (one["errors"] for one in seen)
    assert len(first) == len(second) == 9
    assert first[0].startswith("OtherProcessError") and "rank 1: InvalidInputError" in first[0] and "'vit'" in first[0]
    assert second[0].startswith("InvalidInputError: activations of 'vit'")
    assert first[1] == second[1] and first[1].startswith("InvalidInputError: encoder ")
    assert all("'gpt'" in errors[2] for errors in (first, second))
    assert first[3] == second[3] and first[3].startswith("InvalidInputError: steps done ") and "synchronize()" in first[3]
    assert first[4] == second[4] and first[4].startswith("InvalidInputError: sae ")
    assert all(errors[5].startswith("InvalidInputError: recipe: batch_size ") for errors in (first, second))
    for place in (6, 7):  # in the middle, and in the last step
        assert second[place] == "ValueError: rank 1 has had enough"
        assert first[place].startswith("OtherProcessError") and "rank 1: ValueError: rank 1 has had enough" in first[place]
    assert first[8] == second[8] and first[8].startswith("InvalidInputError: acts['dinov2']: rows ")
    assert seen[0]["digest"] == seen[1]["digest"] and seen[0]["steps"] == 5
    assert seen[0]["losses"] == seen[1]["losses"] and seen[0]["first"] == seen[1]["first"]


def test_processes_out_of_step_are_told_and_those_that_run_out_end_all(tmp_path):
    seen = launched(tmp_path, "out_of_step", 2)
    for one in seen:
        remade, synchronized, failing, checkpoint = one["errors"]
        assert remade.startswith("DifferentCallsError") and synchronized.startswith("DifferentCallsError")
        assert one["after"] == 2, "after an error all begin alike"
        assert one["uneven"] == [3, 4, 5], "rank 1 had three"
        assert one["left"] == [6, 7], "rank 0 left its loop"
        assert "OSError: no such disk" in failing
        assert one["numpy"] == 1
        assert checkpoint.startswith("InvalidInputError: checkpoint ")
    assert seen[0]["digest"] == seen[1]["digest"] and seen[0]["steps"] == 8
    assert seen[0]["errors"][2].startswith("OtherProcessError") and seen[1]["errors"][2].startswith("OSError")


def test_a_run_goes_on_where_it_stopped_to_the_same_bits(tmp_path):
    seen = launched(tmp_path, "resume", 2)
    for one in seen:
        assert one["stopped"] == 20, "a callback of one process ended all"
        assert one["whole"] == one["resumed"] == one["again"] == one["store"] == seen[0]["whole"]
        assert one["then"] == one["whole"]
    assert seen[1]["interrupted"].startswith("KeyboardInterrupt"), "Ctrl-C reached one process"
    assert seen[0]["interrupted"].startswith("OtherProcessError") and "rank 1: KeyboardInterrupt" in seen[0]["interrupted"]
    assert seen[0]["left"] == ["step-000000007", "step-000000050"], "which was kept, and gone on from"
    assert "resume=True" in seen[0]["refused"] and seen[0]["refused"].startswith("InvalidInputError")
    assert seen[1]["refused"].startswith("OtherProcessError") and "resume=True" in seen[1]["refused"]


def test_rows_that_do_not_count_are_left_out_in_every_process(tmp_path):
    seen = launched(tmp_path, "masked", 2)
    assert (
        len({one for each in seen for one in each["runs"]}) == 1 and len({one for each in seen for one in each["loops"]}) == 1
    )
    first, second = (one["errors"] for one in seen)
    assert first[0].startswith("OtherProcessError") and second[0].startswith("InvalidInputError: mask ")
    assert first[1] == second[1] and first[1].startswith("InvalidInputError: acts['dinov2']: mask ")


def test_the_loss_of_a_process_is_an_error_soon_and_leaves_the_others_whole(tmp_path):
    seen = launched(tmp_path, "loss_of_a_peer", 2)
    assert seen[0]["error"] != "nothing"
    assert seen[0]["before"] == seen[0]["after"] and seen[0]["steps"] == 2


def test_without_torch_distributed_the_remedy_is_said():
    import usae
    import usae.torch

    with refuses("group", "none yet"):
        usae.torch.DistributedTrainer(usae.UniversalSAE())
    with refuses("group", "none yet"):
        usae.torch.fit_distributed(usae.UniversalSAE(), {})
    with refuses("sae", "str"):
        usae.torch.DistributedTrainer("sae")
