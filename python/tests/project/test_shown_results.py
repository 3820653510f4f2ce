"""Every public result that has a table is shown as one in notebooks."""

import importlib
import inspect

import pytest

MODULES = ("usae", "usae.synthetic", "usae.torch")

TABLES = ("to_frame", "history_frame", "table", "summary", "report")
"""Methods that return a table."""

ONE_LINE = {
    "StreamReport": "its summary is a line of text",
    "StandardizationReport": "its report is sentences about dimensions",
    "UniversalSAE": "scikit-learn shows an estimator by its repr; its history is a frame",
}


def results():
    for module in MODULES:
        names = importlib.import_module(module).__all__
        for name in names:
            value = getattr(importlib.import_module(module), name)
            if inspect.isclass(value):
                yield name, value


@pytest.mark.parametrize(("name", "value"), sorted(results(), key=lambda pair: pair[0]))
def test_what_has_a_table_shows_it_in_notebooks(name, value):
    has = [method for method in TABLES if callable(getattr(value, method, None))]
    if has and name not in ONE_LINE:
        assert callable(getattr(value, "_repr_html_", None)), f"{name} has {', '.join(has)} and no _repr_html_"


def test_what_is_left_out_is_there():
    assert set(ONE_LINE) <= {name for name, _ in results()}
