"""Short runs of the fuzzers of public functions and of the command line; ``python python/fuzz/functions.py`` runs longer."""

import pathlib
import re
import subprocess
import sys

import pytest

import usae

FUZZERS = pathlib.Path(__file__).parents[2] / "fuzz"
sys.path.insert(0, str(FUZZERS))
pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")


@pytest.mark.slow
@pytest.mark.parametrize(("fuzzer", "cases"), [("functions", 600), ("cli", 150)])
def test_no_hostile_argument_is_a_fault(fuzzer, cases):
    command = [sys.executable, FUZZERS / f"{fuzzer}.py", "--seed", "7", "--cases", str(cases), "--seconds", "240"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    succeeded, refused = (
        int(re.search(rf"(\d+) {word}", done.stdout.splitlines()[-1])[1]) for word in ("succeeded", "refused")
    )
    assert succeeded > 0 and refused > cases / 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_worst_value_for_each_argument_of_each_function_is_refused(tmp_path, monkeypatch):
    import functions
    import hostile
    import targets

    monkeypatch.chdir(tmp_path)
    faults, worst = {}, hostile.worst()
    for name, make in targets.all_of(targets.Context(tmp_path)).items():
        for argument in make()[1]:
            for what in worst:
                function, arguments = make()
                arguments[argument] = worst[what]
                try:
                    function(**arguments)
                except Exception as error:
                    if functions.fault_of(error, arguments):
                        faults[name, argument, what] = repr(error)
    usae.set_num_threads(None)
    assert faults == {}


def test_every_public_function_is_called():
    import targets

    results = {
        "CofireNull",
        "Controls",
        "EnergyFit",
        "Evaluation",
        "Export",
        "Firing",
        "LatentScaling",
        "LinearBaseline",
        "Matching",
    }
    results |= {"Maximization", "Screening", "SeedCeiling", "ShuffledPairing", "StepReport", "StreamReport", "TopExamples"}
    results |= {"DroppedTokens", "Explorer", "Label", "Labels", "TextContext", "TokenAlignment"}
    results |= {"AgreementCeiling", "Consistency", "Partners", "StandardizationReport", "__version__", "show_config"}
    results |= {"LabelScores", "VisionMeasures"}
    modules = {"demo", "errors", "plot", "recipes", "synthetic"}
    errors = {
        name for name in usae.__all__ if isinstance(getattr(usae, name), type) and issubclass(getattr(usae, name), Exception)
    }
    assert set(usae.__all__) - results - modules - errors <= targets.covered()


def bad(error):
    def function(**arguments):
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "is_fault"),
    [
        (usae.InvalidInputError("steps must be 1, got 2"), False),
        (ValueError("steps is bad"), False),
        (ValueError("something is bad"), True),
        (KeyError("steps"), True),
        (MemoryError(), True),
        (RecursionError("steps"), True),
    ],
)
def test_the_fuzzer_sees_what_a_fault_is(error, is_fault):
    import random

    import functions
    import hostile
    import targets

    made = lambda: (bad(error), {"steps": 1})  # noqa: E731
    outcome, words = functions.case(made, random.Random(0), hostile, targets)
    assert (outcome == "fault") == is_fault, words


def test_the_fuzzer_sees_a_changed_argument_and_a_changed_object():
    import functions
    import hostile
    import numpy as np
    import targets

    class Draw:
        """Replaces nothing that matters."""

        random = staticmethod(lambda: 0.9)
        choice = staticmethod(lambda pool: pool[0])
        sample = staticmethod(lambda pool, n: [])

    def changes(x):
        x[0] = 5

    assert functions.case(lambda: (changes, {"x": np.zeros(3)}), Draw, hostile, targets)[0] == "fault"

    class Changing(usae.UniversalSAE):
        def call(self, x):
            self.k = 3
            raise usae.InvalidInputError("x must be another, got this")

    sae = Changing(8, 2).initialize({"a": 3})
    assert "changed its object" in functions.case(lambda: (sae.call, {"x": 1}), Draw, hostile, targets)[1]
