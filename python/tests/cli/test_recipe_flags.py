"""The fields of a recipe as flags of `usae train`."""

import dataclasses
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

import usae
from usae import cli
from usae.cli import recipe_flags

pytest.importorskip("torch")


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
    assert getattr(recipe_flags.recipe_of(options, n_tokens=100, n_models=3), field.name) == value != field.default
    if type(None) in get_args(kind):
        options = cli._parser().parse_args([*required, flags[0], "none"])
        assert getattr(recipe_flags.recipe_of(options, n_tokens=100, n_models=3), field.name) is None


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
