"""A recipe's fields stand in usae.h, in the core and in `usae.Recipe`: all three say the same, and each field arrives."""

import dataclasses
import inspect
import re
import typing
from pathlib import Path

import pytest

import usae
from usae import Recipe, _usae, recipes
from usae._core import resolved_recipe

HEADERS = Path(__file__).parents[2] / "Sources/CUSAE/include"
HEADER = (HEADERS / "usae.h").read_text()
KINDS = typing.get_type_hints(Recipe)
FIELDS = _usae.recipe_fields()
DEFAULT = _usae.recipe_preset(_usae.PRESET_DEFAULT)
NONE_OF_PYTHON = {"dead_tokens", "input_noise", "learning_rate"}
"""Where None lets Python derive the number that the core is given: from `dead_share`, the rows, and what suits every width."""

TYPES_IN_C = {"choice": "int32_t", "switch": "int32_t", "count": "int64_t", "number": "double", "shares": "double"}


def fields_in_c(struct):
    """Type, and comment, of each field of a struct, in order."""
    lines = HEADER.partition(f"typedef struct {struct} {{")[2].partition(f"}} {struct};")[0]
    found = re.findall(r"^  (\w+) ([\w, ]+)(?:\[\w+\])?; *(?:/\*(.*?)\*/)?$", lines, re.MULTILINE | re.DOTALL)
    return {name: (kind, " ".join(comment.split())) for kind, name, comment in found if name not in ("size", "reserved")}


def default_in_c(struct, name):
    """What the comment says behind "Default:": words in lower case, or numbers."""
    told = fields_in_c(struct)[name][1].rpartition("Default: ")[2].rstrip(".").lower().split(", ")
    return tuple(float(word) if word[0].isdigit() else word for word in told)


def test_the_header_has_the_fields_of_the_core_in_their_order_and_types():
    assert [(name, kind) for name, (kind, _) in fields_in_c("usae_recipe").items()] == [
        (name, TYPES_IN_C[field["kind"]]) for name, field in FIELDS.items()
    ]


@pytest.mark.parametrize("name", FIELDS)
def test_the_header_tells_the_default(name):
    default = DEFAULT[name] or 0
    assert default_in_c("usae_recipe", name) == (default if isinstance(default, tuple) else (default,))


def test_python_and_the_header_have_the_same_defaults_for_images():
    signature = inspect.signature(usae.Maximizer)
    python = {name: parameter.default for name, parameter in signature.parameters.items()}
    python["first_crop"], python["last_crop"] = python["crops"]
    same = (
        "parametrization",
        "decorrelate",
        "contrast",
        "seed",
        "views",
        "first_crop",
        "last_crop",
        "noise",
        "optimizer",
        "steps",
    )
    for name in (*same, "total_variation", "l2"):
        assert default_in_c("usae_image_options", name) == (python[name],), name


def test_the_header_numbers_choices_as_the_core_names_them():
    enums = [dict(re.findall(r"(USAE_\w+) = (\d+)", line)) for line in re.findall(r"^enum \{(.*)\};$", HEADER, re.MULTILINE)]
    numbered = [[(name.rpartition("_")[2].lower(), int(number)) for name, number in enum.items()] for enum in enums]
    for name, field in FIELDS.items():
        if field["kind"] == "choice":
            assert [(choice, number) for number, choice in enumerate(field["choices"])] in numbered, name


def test_python_has_the_fields_of_the_core_and_three_of_its_own():
    assert set(KINDS) - set(FIELDS) == {"name", "dead_share", "batch_size"}
    assert set(FIELDS) <= set(KINDS)


@pytest.mark.parametrize("name", FIELDS)
def test_python_has_the_type_and_the_choices_of_the_core(name):
    field, kind = FIELDS[name], KINDS[name]
    optional = type(None) in typing.get_args(kind)
    assert optional == (field["zero_is_none"] or name in NONE_OF_PYTHON)
    kind = typing.get_args(kind)[0] if optional else kind
    if field["kind"] == "choice":
        assert typing.get_args(kind) == field["choices"]
    else:
        assert (typing.get_origin(kind) or kind) is {"switch": bool, "count": int, "number": float, "shares": tuple}[
            field["kind"]
        ]


@pytest.mark.parametrize("preset", ["default", "published"])
def test_python_has_the_presets_of_the_core(preset):
    core = _usae.recipe_preset(getattr(_usae, f"PRESET_{preset.upper()}"))
    run = {"total_steps": None}  # planned by whoever trains
    if preset == "published":
        run["dead_tokens"] = 0  # nothing depends on it there but a number in reports
    assert resolved_recipe.for_core(resolved_recipe.resolved(getattr(recipes, preset)().replace(**run), 1)) == core


def another(name):
    """A value that the field does not have by default."""
    default, field = getattr(Recipe(), name), FIELDS[name]
    if field["kind"] == "choice":
        return next(choice for choice in field["choices"] if choice != default)
    return {
        "switch": lambda: not default,
        "count": lambda: (default or 300) + 1,
        "number": lambda: (default or 0.25) / 2,
        "shares": lambda: (0.125, 1.0),
    }[field["kind"]]()


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_arrives_in_the_core_and_comes_back(name):
    recipe = resolved_recipe.resolved(Recipe(**{name: another(name)}), 1)
    sae = usae.UniversalSAE(8, 2, recipe=recipe).initialize({"a": 3})
    derived = {field: getattr(recipe, field) for field in ("dead_tokens", "learning_rate", "step_limit")}
    assert sae._autoencoder.core.recipe == DEFAULT | derived | {name: another(name)}
    assert sae.recipe_ == recipe


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if field["kind"] in ("count", "number")])
def test_python_and_the_core_have_the_same_limits(name):
    smallest, largest = FIELDS[name]["smallest"], FIELDS[name]["largest"]
    below, above = (smallest - 1, largest + 1) if FIELDS[name]["kind"] == "count" else (-1e-9, largest * 1.001)

    def core_with(value):
        return _usae.Core(n_concepts=8, k=2, seed=0, n_threads=1, recipe=DEFAULT | {name: value})

    for value in (smallest, largest):
        assert core_with(value).recipe[name] == (value or (None if FIELDS[name]["zero_is_none"] else 0))
        if value != 0 or not FIELDS[name]["zero_is_none"]:
            assert getattr(Recipe(**{name: value}), name) == value
    for value in (below, above):
        for make in (core_with, lambda value: Recipe(**{name: value})):
            with pytest.raises(usae.InvalidInputError) as caught:
                make(value)
            assert name in str(caught.value)
    if FIELDS[name]["zero_is_none"]:
        with pytest.raises(usae.InvalidInputError) as caught:  # None says it
            Recipe(**{name: 0})
        assert name in str(caught.value)


def test_every_function_of_the_headers_is_called_by_the_program_in_c():
    program = "".join(path.read_text() for path in (HEADERS.parents[2] / "Tests/CABI").glob("*.c"))
    for header in HEADERS.glob("*.h"):
        text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)
        for function in re.findall(r"\b(usae_\w+)\(", text):
            assert re.search(rf"\b{function}\(", program), f"{function} of {header.name}"


def test_every_function_of_usae_h_is_called_at_random():
    program = "".join(path.read_text() for path in (HEADERS.parents[2] / "Tests/FuzzCABI").glob("*.c"))
    text = re.sub(r"/\*.*?\*/", "", (HEADERS / "usae.h").read_text(), flags=re.DOTALL)
    for function in re.findall(r"\b(usae_\w+)\(", text):
        assert re.search(rf"\b(CALL|NOTE)\({function}\b", program), function


def test_the_fields_of_python_are_all_documented():
    entries = re.findall(r"^(\w.*) : ", inspect.getdoc(Recipe), re.MULTILINE)
    documented = {name for names in entries for name in names.split(", ")}
    assert documented == {field.name for field in dataclasses.fields(Recipe)}
