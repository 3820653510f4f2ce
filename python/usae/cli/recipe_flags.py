"""Flags for the fields of `usae.Recipe`. They are made from the fields, so a new field has a flag without further code."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import inspect
import math
import re
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin, get_type_hints

from usae import recipes
from usae._core.resolved_recipe import asked_steps, step_tokens
from usae.cli.options import Parser
from usae.recipes import Recipe

RECIPES = ("default", "matryoshka", "agreeing", "published")
FIELDS = tuple(field.name for field in dataclasses.fields(Recipe))


def add_recipe(parser: Parser) -> None:
    """Add --recipe, and a flag for each field."""
    parser.option("--recipe", default="default", choices=RECIPES, help="how to train; docs/recipes.md compares the recipes")
    group = parser.add_argument_group(
        "fields of the recipe",
        "Each defaults to its value in --recipe; the defaults below are of `default`. Write none for None.",
    )
    kinds, words = get_type_hints(Recipe), _descriptions()
    for field in dataclasses.fields(Recipe):
        parser.option(
            f"--{field.name.replace('_', '-')}",
            group=group,
            default=argparse.SUPPRESS,
            help=words.get(field.name, ""),
            **_settings(kinds[field.name]),
        )


def recipe_of(options: argparse.Namespace, n_tokens: int, n_models: int) -> Recipe:
    """Return the recipe of --recipe with the fields that were given.

    The published recipe plans its own number of steps, which is replaced by that of this run.
    """
    changes = {name: getattr(options, name) for name in FIELDS if hasattr(options, name)}
    if options.recipe != "published":
        make: Callable[..., Recipe] = getattr(recipes, options.recipe)
        return make(**changes)
    of_run = {name: changes[name] for name in ("total_steps", "warmup_steps") if name in changes}
    tokens = step_tokens(recipes.published().replace(**(changes | {"total_steps": None})), n_models)
    steps = asked_steps(math.ceil(n_tokens / min(tokens, n_tokens)), options.epochs, options.steps)
    return recipes.published(**({"total_steps": steps} | of_run)).replace(**changes)


def _settings(kind: Any) -> dict[str, Any]:
    """Return argparse's settings for a field of some type."""
    read: Callable[[str], Any]
    optional = type(None) in get_args(kind)
    if optional:
        kind = get_args(kind)[0]
    if kind is bool and not optional:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if not optional:
            return {"choices": choices}
        read, metavar, expected = str, f"{{{','.join(choices)},none}}", ", ".join(choices)  # the recipe checks the choice
    else:
        read, metavar, expected = _READERS[tuple if get_origin(kind) is tuple else kind]
    return {"metavar": metavar, "type": functools.partial(_parsed, read, f"{expected}, or none" if optional else expected)}


def _parsed(read: Callable[[str], Any], expected: str, text: str) -> Any:
    if text.lower() == "none" and expected.endswith("none"):
        return None
    try:
        return read(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"must be {expected}, got {text!r}") from None


def _number(text: str) -> float:
    numerator, slash, denominator = text.partition("/")
    return float(numerator) / float(denominator) if slash else float(numerator)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(_number, text.split(",")))


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


_READERS: dict[type, tuple[Callable[[str], Any], str, str]] = {
    str: (str, "TEXT", "text"),
    bool: (_truth, "{true,false,none}", "true, false"),  # for fields that may also be None; other bools are switches
    int: (int, "N", "an integer"),
    float: (_number, "NUMBER", "a number, such as 3e-4 or 1/32"),
    tuple: (_numbers, "NUMBER,...", "numbers with commas between, such as 1/4,1"),
}


def _descriptions() -> dict[str, str]:
    """Return the description of each field in the docstring of Recipe."""
    words: dict[str, str] = {}
    parameters = inspect.cleandoc(Recipe.__doc__ or "").partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    for names, text in re.findall(r"^(\S.*?) : .*\n((?: +.*\n?)+)", parameters, re.MULTILINE):
        of_several = f"{names}: " if ", " in names else ""
        words |= dict.fromkeys(names.split(", "), of_several + " ".join(text.split()).replace("`", ""))
    return words
