"""Progress of what takes long: a bar in a terminal, lines elsewhere, the same in every function."""

import inspect
import logging
import re
import sys

import numpy as np
import pytest

import usae
from support.autoencoders import planted, small
from support.refusals import refuses
from support.stores import written
from usae._base.progress import Lines, LoggedLines
from usae._core.autoencoder import Autoencoder
from usae._core.evaluation import PART

ROWS = PART + 2000


@pytest.fixture(scope="module")
def acts():
    return {name: np.repeat(x, ROWS // 100, 0) for name, x in planted(100, seed=0).items()}


@pytest.fixture(scope="module")
def sae(acts):
    return small().fit({name: x[::50] for name, x in acts.items()}, steps=4)


@pytest.fixture(scope="module")
def store(acts, tmp_path_factory):
    images = {name: x.reshape(-1, 2, x.shape[1]) for name, x in acts.items()}
    return written(tmp_path_factory.mktemp("stores") / "store", images, grid=(1, 2))


def texts(n_rows):
    return usae.TextRows(["word"] * (n_rows // 4), np.repeat(np.arange(n_rows // 4), 4), np.tile([[0, 4]], (n_rows, 1)))


def few(acts):
    return {name: x[::60] for name, x in acts.items()}


CASES = {
    "fit": lambda sae, acts, store, to, **p: small().fit(acts, steps=3, **p),
    "add_model": lambda sae, acts, store, to, **p: (
        small().fit(dict(list(acts.items())[:2]), steps=2, progress=False).add_model(list(acts)[2], acts, steps=2, **p)
    ),
    "evaluate": lambda sae, acts, store, to, **p: sae.evaluate(acts, **p),
    "evaluate a store": lambda sae, acts, store, to, **p: sae.evaluate(store, **p),
    "partners": lambda sae, acts, store, to, **p: sae.evaluate(few(acts), partners=True, **p),
    "top_examples": lambda sae, acts, store, to, **p: usae.top_examples(sae, acts, 3, **p),
    "top_examples of a store": lambda sae, acts, store, to, **p: usae.top_examples(sae, store, 3, one_per_image=True, **p),
    "top_examples of texts": lambda sae, acts, store, to, **p: usae.top_examples(
        sae, acts, 3, one_per_text=True, text_rows=texts(len(acts["vit"])), **p
    ),
    "controls": lambda sae, acts, store, to, **p: usae.controls(sae, few(acts), include=["tokens"], n_draws=5, **p),
    "consistency": lambda sae, acts, store, to, **p: usae.consistency(sae, sae, **p),
    "fit_independent": lambda sae, acts, store, to, **p: usae.fit_independent(few(acts), like=sae, steps=2, **p),
    "latent_scaling": lambda sae, acts, store, to, **p: usae.latent_scaling(sae, few(acts), [1, 2], **p),
    "explorer": lambda sae, acts, store, to, **p: usae.explorer(sae, few(acts), None, to / "page", grid=(1, 1), **p),
}


@pytest.fixture
def case(request, sae, acts, store, tmp_path):
    return lambda **p: CASES[request.param](sae, acts, store, tmp_path, **p)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, indirect=True)
def test_lines_come_to_the_end_where_asked_for_and_not_otherwise(case, capsys):
    capsys.readouterr()
    case(progress=False)
    case()
    assert capsys.readouterr() == ("", "")
    with refuses("progress", "'yes'"):
        case(progress="yes")
    case(progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    done = [tuple(number.replace(",", "") for number in found) for found in re.findall(r"([\d,]+) of ([\d,]+),", err)]
    assert done and done[-1][0] == done[-1][1], err
    assert all(int(number) <= int(total) for number, total in done)
    assert all(line.count("|") == 0 for line in err.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_bar_is_shown_in_a_terminal(case, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    capsys.readouterr()
    case()
    assert "100%" in capsys.readouterr().err
    case(progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_log_at_level_info_has_a_line_now_and_then(case, capsys, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "usae")
    case()
    assert not [record for record in caplog.records if " of " in record.getMessage() and "left" in record.getMessage()]
    monkeypatch.setattr(Lines, "SECONDS", 0)
    case()
    assert [record for record in caplog.records if re.search(r"[\d,]+ of [\d,]+", record.getMessage())]
    assert capsys.readouterr().err == ""


def test_results_do_not_depend_on_who_is_told(sae, acts, capsys):
    one, other = (sae.evaluate(acts, progress=progress) for progress in (True, False))
    for name in ("r2", "firing_counts", "code_products", "mean_activation"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    one, other = (usae.top_examples(sae, acts, 3, progress=progress) for progress in (True, False))
    np.testing.assert_array_equal(one.tokens, other.tokens)


def test_few_rows_are_not_told_of(sae, acts, capsys):
    sae.evaluate(few(acts), progress=True)
    usae.top_examples(sae, few(acts), progress=True)
    assert capsys.readouterr().err == ""


def test_what_progress_raises_ends_the_call(sae, acts):
    core, native = sae._autoencoder.core, [acts[name] for name in sae.model_names_]

    def stop(rows):
        seen.append(rows)
        raise KeyError(rows)

    for call in (
        lambda: core.evaluate(native, 0.0, {}, stop),
        lambda: core.top_examples(0, native[0], 1, np.empty((32, 2), np.float32), np.empty((32, 2), np.int64), stop),
    ):
        seen = []
        with pytest.raises(KeyError):
            call()
        assert len(seen) == 1 and 0 < seen[0] < ROWS
    assert isinstance(sae._autoencoder, Autoencoder) and sae.evaluate(few(acts)).n_tokens


def test_lines_of_a_log_are_for_what_takes_long(caplog):
    caplog.set_level(logging.INFO, "usae")
    bar = LoggedLines(10, "evaluating", "row", 0)
    for _ in range(10):
        bar.update()
    assert not caplog.records
    bar._told -= 31
    bar.update()
    assert len(caplog.records) == 1


def test_without_a_stderr_nothing_is_shown(monkeypatch, sae, acts, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    sae.evaluate(acts, progress=True)
    assert capsys.readouterr().out == ""


def test_every_function_takes_the_same_argument():
    functions = [getattr(usae, name) for name in usae.__all__] + [
        member for name, member in inspect.getmembers(usae.UniversalSAE, inspect.isfunction) if not name.startswith("_")
    ]
    if pytest.importorskip("torch"):
        functions += [getattr(usae.torch, name) for name in usae.torch.__all__]
    taking = {}
    for function in functions:
        parameters = inspect.signature(function).parameters if inspect.isfunction(function) else {}
        if "progress" in parameters:
            taking[function.__name__] = parameters["progress"]
    assert {"fit", "fit_stream", "evaluate", "controls", "consistency", "top_examples", "explorer", "maximize"} <= set(taking)
    assert {"extract", "extract_texts", "faithfulness", "fit_distributed", "import_published", "fit_independent"} <= set(taking)
    for name, parameter in taking.items():
        assert parameter.default is None and parameter.kind is parameter.KEYWORD_ONLY, name
        assert parameter.annotation == "bool | None", name
