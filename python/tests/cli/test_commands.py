"""`usae extract`, `usae train` and `usae evaluate`: from pictures to figures, by flags and by a TOML file."""

import argparse
import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from conftest import WIDTHS, planted

import usae
from usae import cli
from usae.cli import recipe_flags

pytest.importorskip("torch")

DOCS = pathlib.Path(__file__).resolve().parents[3] / "docs"
SMALL = ["--n-concepts", "64", "--k", "4", "--steps", "8"]


def run(*arguments):
    assert cli.main([str(argument) for argument in arguments]) == 0


def printed(capsys, *arguments):
    """What a command prints with --json."""
    capsys.readouterr()
    run(*arguments, "--json")
    return json.loads(capsys.readouterr().out)


def refusal(capsys, *arguments):
    """The one line of a command that cannot do what it is asked to."""
    capsys.readouterr()
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith("usae")
    return err


def write_pictures(folder, split, n):
    from PIL import Image

    from usae.demo import photographs

    folder.mkdir()
    for number, image in enumerate(photographs.crops(photographs.load(), split, n, seed=0).images):
        Image.fromarray(image).save(folder / f"{number:02}.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with pictures, and a store and an autoencoder made of them by the commands. For tests that change nothing."""
    folder = tmp_path_factory.mktemp("made")
    for name, split, n in (("photographs", "train", 12), ("held-out-photographs", "held_out", 6)):
        write_pictures(folder / name, split, n)
    run("extract", "--images", folder / "photographs", "--network", "demo", "--output", folder / "acts")
    run("extract", "--images", folder / "held-out-photographs", "--network", "demo", "--output", folder / "held-out")
    run("train", "--acts", folder / "acts", "--output", folder / "model", *SMALL)
    return folder


@pytest.fixture
def pairs(tmp_path):
    """NAME=FILE.npy for three models that are not the demonstration's."""
    for name, x in planted(100, seed=0).items():
        np.save(tmp_path / f"{name}.npy", x)
    return [f"{name}={tmp_path / name}.npy" for name in WIDTHS]


# --- From pictures to figures -----------------------------------------------------------------------------------------------


def test_extract_keeps_what_the_networks_say(made, tmp_path, capsys):
    from usae.demo.networks import load_models
    from usae.torch import extract

    options = ["--network", "demo", "--grid", "4x4", "--dtype", "float32", "--batch-size", "5", "--shard-images", "8"]
    arguments = [
        "extract",
        "--images",
        made / "photographs",
        *options,
        "--device",
        "cpu",
        "--output",
        tmp_path / "new" / "acts",
    ]
    told = printed(capsys, *arguments)
    store = usae.ActivationStore(tmp_path / "new" / "acts")
    assert told == {
        "store": str(store.path),
        "models": store.models,
        "n_images": 12,
        "n_tokens": 12 * 16,
        "grid": [4, 4],
        "dtype": "float32",
    }
    assert store.n_shards == 2 and store.images[0] == "00.png"
    for name, x in extract(load_models(), made / "photographs", grid=4).items():
        np.testing.assert_allclose(store[name][:], x, rtol=1e-5, atol=1e-5)


def test_extract_goes_on_where_it_was_interrupted(made, tmp_path, monkeypatch):
    arguments = ["extract", "--images", made / "photographs", "--network", "demo", "--shard-images", "4"]
    append, shards = usae.ActivationStore.append, []

    def stopping(self, *args, **options):
        if len(shards) == 2:
            raise KeyboardInterrupt
        append(self, *args, **options)
        shards.append(self.n_shards)

    monkeypatch.setattr(usae.ActivationStore, "append", stopping)
    assert cli.main([*map(str, arguments), "--output", str(tmp_path / "acts")]) == 130
    monkeypatch.undo()
    assert not usae.ActivationStore(tmp_path / "acts").finished
    run(*arguments, "--output", tmp_path / "acts")
    run(*arguments, "--output", tmp_path / "at-once")
    files = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("acts", "at-once")]
    assert files[0] == files[1]


def test_extract_takes_the_crop_and_the_layer_that_are_asked_for(made, tmp_path, monkeypatch, capsys):
    (tmp_path / "two_nets.py").write_text(
        "from torch import nn\n"
        "from usae.torch import Model\n"
        "def plain(): return nn.Sequential(nn.Conv2d(3, 5, 32, stride=32), nn.ReLU())\n"
        "def ready(): return Model(plain().eval(), '1', size=64)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["extract", "--images", made / "photographs", "--network", "a=two_nets:ready", "--crop"]
    told = printed(capsys, *arguments, "--output", tmp_path / "acts")
    assert told["models"]["a"]["layer"] == "1" and usae.ActivationStore(tmp_path / "acts").metadata == {"crop": True}
    assert "has its layer already" in refusal(capsys, *arguments, "--layer", "a=0", "--output", tmp_path / "acts")


def test_train_does_what_fit_does(made, tmp_path, capsys):
    told = printed(
        capsys, "train", "--acts", made / "acts", "--validation", made / "held-out", "--output", tmp_path / "new" / "model",
        *SMALL, "--seed", "5", "--threads", "1", "--recipe", "matryoshka", "--learning-rate", "1e-3", "--batch-size", "100",
    )  # fmt: skip
    usae.set_num_threads(None)
    recipe = usae.recipes.matryoshka(learning_rate=1e-3, batch_size=100)
    sae = usae.UniversalSAE(64, 4, recipe=recipe, seed=5)
    held_out = usae.ActivationStore(made / "held-out")
    sae.fit(usae.ActivationStore(made / "acts"), steps=8, validation=held_out)
    saved = usae.load(tmp_path / "new" / "model")
    assert saved.recipe_ == sae.recipe_ and repr(saved.history_) == repr(sae.history_)  # NaN is not equal to itself
    for name in sae.model_names_:
        assert saved.dictionary(name).tobytes() == sae.dictionary(name).tobytes()
    assert told["recipe"] == json.loads(sae.recipe_.to_json()) and told["validation"] == sae.history_[-1]["validation"]
    whole = [entry["loss"] for entry in sae.history_ if entry["prefix"] == sae.n_concepts]
    assert (told["n_steps"], told["loss"], told["models"]) == (8, whole[-1], sae.n_features_in_)


def test_train_and_evaluate_take_files(pairs, tmp_path, capsys):
    told = printed(
        capsys, "train", "--acts", *pairs, "--output", tmp_path / "model", "--n-concepts", "16", "--k", "3", "--epochs", "2"
    )
    assert told["models"] == WIDTHS and told["n_steps"] == 2 and told["validation"] is None
    evaluated = printed(capsys, "evaluate", "--model", tmp_path / "model", "--acts", *pairs[::-1])
    assert evaluated["r2"] == usae.load(tmp_path / "model").evaluate(planted(100, seed=0)).r2.tolist()


def test_words_for_people_are_the_default(made, tmp_path, capsys):
    run("train", "--acts", made / "acts", "--validation", made / "held-out", "--output", tmp_path / "model", *SMALL)
    said = capsys.readouterr().out
    assert "8 steps" in said and "384 held-out tokens" in said and "between models" in said
    run("evaluate", "--model", tmp_path / "model", "--acts", made / "held-out")
    assert capsys.readouterr().out.startswith("R2 of 384 tokens")


def test_the_published_recipe_is_as_long_as_the_run(made, tmp_path, capsys):
    options = ["--acts", made / "acts", "--output", tmp_path / "model", "--n-concepts", "32", "--recipe", "published"]
    by_steps = printed(capsys, "train", *options, "--steps", "60")["recipe"]
    assert (by_steps["total_steps"], by_steps["warmup_steps"], by_steps["schedule"]) == (60, 2, "cosine")
    by_epochs = printed(capsys, "train", *options, "--epochs", "3", "--batch-size", "384", "--warmup-steps", "1")["recipe"]
    assert (by_epochs["total_steps"], by_epochs["warmup_steps"]) == (6, 1)


def test_evaluate_writes_arrays_numbers_and_figures(made, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    told = printed(
        capsys, "evaluate", "--model", made / "model", "--acts", made / "held-out", "--threshold", ".1", "--output", out
    )
    evaluation = usae.load(made / "model").evaluate(usae.ActivationStore(made / "held-out"), threshold=0.1)
    assert told["r2"] == evaluation.r2.tolist() and told["threshold"] == 0.1 and told["n_tokens"] == 384
    assert told["concepts_alive"] == (~evaluation.dead).sum(1).tolist()
    with np.load(out / "evaluation.npz") as arrays:
        assert tuple(arrays["model_names"]) == evaluation.model_names
        np.testing.assert_array_equal(arrays["cofire_counts"], evaluation.cofire_counts)
        np.testing.assert_array_equal(arrays["firing_entropy"], evaluation.firing_entropy)
    assert json.loads((out / "evaluation.json").read_text()) == {key: told[key] for key in told if key != "files"}
    assert sorted(told["files"]) == sorted(str(file) for file in out.iterdir())
    for name in ("cross_reconstruction", "firing_entropy", "cofire_proportion", "energy_cofires"):
        assert (out / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_evaluate_of_one_model_leaves_out_what_compares_models(pairs, tmp_path, capsys):
    run("train", "--acts", pairs[0], "--output", tmp_path / "model", "--n-concepts", "16", "--k", "3", "--steps", "2")
    told = printed(capsys, "evaluate", "--model", tmp_path / "model", "--acts", pairs[0], "--output", tmp_path / "out")
    assert not any("firing_entropy" in file for file in told["files"]) and len(told["files"]) == 5


def test_an_interrupted_training_saves_what_it_learned(made, tmp_path, monkeypatch, capsys):
    def interrupted(self, acts, **options):
        fit(self, acts, steps=3)
        raise KeyboardInterrupt

    fit = usae.UniversalSAE.fit
    monkeypatch.setattr(usae.UniversalSAE, "fit", interrupted)
    arguments = ["train", "--acts", str(made / "acts"), "--output", str(tmp_path / "model"), *SMALL]
    assert cli.main(arguments) == 130
    assert "learned in 3 steps" in capsys.readouterr().err and usae.load(tmp_path / "model").n_steps_ == 3


# --- TOML -------------------------------------------------------------------------------------------------------------------


def test_the_documents_example_runs(made, tmp_path, monkeypatch, capsys):
    page = (DOCS / "command_line.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    commands = re.findall(r"^# usae (.*)", example, re.MULTILINE)
    assert len(commands) == 4 and set(tomllib.loads(example)) == {"extract", "train", "evaluate"}
    for folder in ("photographs", "held-out-photographs"):
        shutil.copytree(made / folder, tmp_path / folder)
    (tmp_path / "run.toml").write_text(example.replace("steps = 1000", "steps = 8"))
    monkeypatch.chdir(tmp_path)
    for command in commands:
        run(*command.split())
    sae = usae.load("model")
    assert sae.n_concepts == 512 and sae.n_steps_ == 8 and sae.recipe_.learning_rate == 4e-3
    assert sae.recipe_.merge_cosine is None and sae.recipe_.prefixes == (0.25, 0.5, 0.75, 1)
    assert usae.ActivationStore("acts").grid == (8, 8) and usae.ActivationStore("held-out").n_tokens == 384
    assert pathlib.Path("evaluation/cross_reconstruction.png").exists()


def test_flags_win_over_the_file_and_replace_its_lists(made, pairs, tmp_path, capsys):
    (tmp_path / "run.toml").write_text(
        f"[train]\nacts = '{made / 'acts'}'\noutput = '{tmp_path / 'model'}'\nn_concepts = 64\nk = 4\nsteps = 3\n"
        "json = true\nrenormalize = false\nprefixes = [0.5, 1]\nseed = 1\n"
    )
    run("train", "--config", tmp_path / "run.toml", "--acts", *pairs, "--steps", "2", "--renormalize")
    told = json.loads(capsys.readouterr().out)
    assert told["models"] == WIDTHS and told["n_steps"] == 2 and told["recipe"]["renormalize"] is True
    assert told["seed"] == 1 and told["recipe"]["prefixes"] == [0.5, 1]


def test_tables_and_lists_of_the_file_are_pairs(pairs, tmp_path, capsys):
    table = ", ".join(f'{pair.partition("=")[0]} = "{pair.partition("=")[2]}"' for pair in pairs)
    (tmp_path / "run.toml").write_text(
        f"[train]\nacts = {{ {table} }}\nvalidation = {json.dumps(pairs)}\noutput = '{tmp_path / 'model'}'\n"
        "n_concepts = 16\nk = 3\nepochs = 1.5\n"
    )
    told = printed(capsys, "train", "--config", tmp_path / "run.toml")
    assert told["models"] == WIDTHS and told["n_steps"] == 2 and told["validation"]["n_tokens"] == 100


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[train]\nlearning_rat = 1\n", "unknown key 'learning_rat'; did you mean learning_rate"),
        ("[train]\nlearning-rate = 1\n", "unknown key 'learning-rate'; did you mean learning_rate"),
        ("[train]\nconfig = 'x'\n", "unknown key 'config'"),
        ("[trian]\nsteps = 1\n", "unknown table or key 'trian'; did you mean train?"),
        ("steps = 1\n", "unknown table or key 'steps'; there are extract, train, evaluate"),
        ("[extract]\n", "table [train]: is missing; there are [extract]"),
        ("", "is missing; there are no tables"),
        ("[train\n", "is not TOML"),
        ("[train]\nsteps = 1.5\n", "argument --steps: invalid int value: '1.5'"),
        ("[train]\nrenormalize = 1\n", "renormalize must be true or false, got 1"),
        ("[train]\nrecipe = 'latest'\n", "argument --recipe: invalid choice: 'latest'"),
        (
            "[train]\nmerge_cosine = 'some'\n",
            "argument --merge-cosine: must be a number, such as 3e-4 or 1/32, or none, got 'some'",
        ),
        ("[train]\nacts = 'a'\n", "--output is missing; give it, or output in the table [train] of --config"),
    ],
)
def test_a_file_that_says_something_else_is_refused(text, words, tmp_path, capsys):
    (tmp_path / "run.toml").write_text(text)
    assert words in refusal(capsys, "train", "--config", tmp_path / "run.toml")


def test_a_file_that_is_not_there_is_said_so(capsys):
    assert "--config nowhere.toml" in refusal(capsys, "evaluate", "--config", "nowhere.toml")


# --- Bad input --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("extract --network demo --output {new}", "--images is missing"),
        ("extract --images nowhere --network demo --output {new}", "--images must be a folder with picture files"),
        ("extract --images {made}/acts --network demo --output {new}", "folder with picture files"),
        ("extract --images {made}/photographs --network demo --grid 8 --output {new}", "--grid: must be ROWSxCOLUMNS"),
        ("extract --images {made}/photographs --network demo --dtype int8 --output {new}", "--dtype: invalid choice: 'int8'"),
        ("extract --images {made}/photographs --network demo --batch-size 0 --output {new}", "batch_size must be an integer"),
        ("extract --images {made}/photographs --network demo --device abacus --output {new}", "--device must be"),
        ("extract --images {made}/photographs --network demo --dtype float32 --output {made}/acts", "dtype was 'float16'"),
        ("extract --images {made}/photographs --network demo --output {made}/model", "store"),
        ("train --output {new}", "--acts is missing"),
        ("train --acts nowhere --output {new}", "--acts must be the folder of a store or NAME=FILE.npy"),
        ("train --acts {made}/model --output {new}", "store"),
        ("train --acts a=nowhere.npy --output {new}", "--acts a: cannot read 'nowhere.npy': No such file"),
        ("train --acts a={made}/photographs/00.png --output {new}", "is not a .npy file"),
        ("train --acts {made}/acts a=b.npy --output {new}", "--acts must be one store or NAME=FILE.npy for each model"),
        ("train --acts {made}/acts --steps 5 --epochs 2 --output {new}", "epochs or steps, not both"),
        ("train --acts {made}/acts --steps 5 --total-steps 600 --output {new}", "leave one of them out"),
        ("train --acts {made}/acts --recipe published --steps 5 --total-steps 6 --output {new}", "leave one of them out"),
        ("train --acts {made}/acts --k 0 --steps 1 --output {new}", "k must be"),
        ("train --acts {made}/acts --threads 0 --output {new}", "--threads must be an integer from 1"),
        ("train --acts {made}/acts --merge-cosine 2 --output {new}", "merge_cosine must be a number above 0 and at most 1"),
        ("train --acts {made}/acts --batch-size 0 --recipe published --output {new}", "batch_size must be an integer from 1"),
        ("train --acts {made}/acts --prefixes 1/2 --output {new}", "prefixes must be at most 16 shares"),
        ("train --acts {made}/acts --selection most --output {new}", "--selection: invalid choice: 'most'"),
        ("train --acts {made}/acts --lerning-rate 1 --output {new}", "'--lerning-rate'; did you mean --learning-rate"),
        ("train --acts {made}/acts --output {made}/acts", "the folder holds something that usae did not save"),
        ("train --acts {made}/acts --validation {others} --output {new}", "validation"),
        ("evaluate --model nowhere --acts {made}/acts", "--model must be the folder of a saved autoencoder, got 'nowhere'"),
        ("evaluate --model {made}/acts --acts {made}/acts", "not saved by usae"),
        ("evaluate --model {made}/model --acts {others}", "unknown model 'dinov2'; the models are 'classifier'"),
        ("evaluate --model {made}/model --acts {made}/acts --threshold -1", "threshold must be a finite number of at least 0"),
        ("evaluate --model {made}/model --acts {made}/acts --threshold low", "--threshold: invalid float value: 'low'"),
    ],
)  # fmt: skip
def test_what_a_command_cannot_do_is_one_line(arguments, words, made, tmp_path, capsys):
    if "{others}" in arguments:  # a store of other models
        with usae.ActivationStore.create(tmp_path / "others") as store:
            store.append(planted(20, seed=0))
    places = {"made": made, "new": tmp_path / "new", "others": tmp_path / "others"}
    assert words in refusal(capsys, *arguments.format(**places).split())
    assert not (tmp_path / "new").exists()


# --- Flags of the recipe ----------------------------------------------------------------------------------------------------


def another(field, kind):
    """A value of a field that differs from the default, as it is typed, and as it is meant."""
    if kind is bool:
        flag = f"--{'no-' if field.default else ''}{field.name.replace('_', '-')}"
        return [flag], not field.default
    kinds = [option for option in get_args(kind) if option is not type(None)] if type(None) in get_args(kind) else [kind]
    if get_origin(kind) is Literal:
        value = next(choice for choice in get_args(kind) if choice != field.default)
    elif get_origin(kinds[0]) is tuple:
        value = (0.25, 1.0)
    else:
        value = {str: "mine", int: 7, float: 0.5}[kinds[0]]
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return [f"--{field.name.replace('_', '-')}", text], value


@pytest.mark.parametrize("field", dataclasses.fields(usae.Recipe), ids=lambda field: field.name)
def test_each_field_of_a_recipe_has_a_flag(field):
    kind = get_type_hints(usae.Recipe)[field.name]
    flags, value = another(field, kind)
    given = {"total_steps": ["--warmup-steps", "2"]}.get(field.name, [])
    required = ["train", "--acts", "a", "--output", "b"]
    options = cli._parser().parse_args([*required, *flags, *given])
    assert getattr(recipe_flags.recipe_of(options, n_tokens=100), field.name) == value != field.default
    if type(None) in get_args(kind):
        options = cli._parser().parse_args([*required, flags[0], "none"])
        assert getattr(recipe_flags.recipe_of(options, n_tokens=100), field.name) is None


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Literal["a", "b"] | None, "b", "b"),
        (Literal["a", "b"] | None, "none", None),
        (str | None, "none", None),
        (bool | None, "True", True),
        (bool | None, "none", None),
        (float, "1/4", 0.25),
        (tuple[float, ...], "1/4,1", (0.25, 1.0)),
    ],
)
def test_a_field_of_another_type_would_have_a_flag_too(kind, text, value):
    assert recipe_flags._settings(kind)["type"](text) == value


def test_each_flag_of_the_recipe_is_explained_by_the_docstring():
    words = recipe_flags._descriptions()
    assert set(words) == {field.name for field in dataclasses.fields(usae.Recipe)}
    assert words["beta1"].startswith("beta1, beta2, epsilon, weight_decay: ")
    assert words["merge_every"].endswith("Default: 50.")


@pytest.mark.parametrize("command", ["extract", "train", "evaluate", "maximize", "demo", "info"])
def test_help_is_there(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0 and capsys.readouterr().out.startswith(f"usage: usae {command}")


def test_every_option_of_the_commands_is_explained():
    (commands,) = [action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction)]
    for name in ("extract", "train", "evaluate"):
        assert all(action.help for action in commands.choices[name]._actions)


def test_importing_the_command_line_loads_nothing_heavy():
    script = (
        "import sys, numpy; before = set(sys.modules); import usae.cli\n"
        "print([name for name in ('torch', 'matplotlib', 'scipy', 'tomllib', 'difflib') if name in set(sys.modules) - before])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"


def test_info_and_maximize_print_json_too(made, tmp_path, capsys):
    assert printed(capsys, "info") == usae.show_config()
    arguments = ["maximize", made / "model", "--concept", "3", "--network", "demo", "--steps", "1", "--views", "1"]
    (told,) = printed(capsys, *arguments, "--output", tmp_path / "out")
    assert told["concept"] == 3 and told == json.loads((tmp_path / "out" / "report.json").read_text())[0]
