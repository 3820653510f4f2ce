"""Arguments of constructors as scikit-learn sees them: their names, their values, and those of their own arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from usae._base import checks
from usae.errors import InvalidInputError


def names_of(kind: type) -> tuple[str, ...]:
    """Return the names of the arguments of a class's constructor.

    If the constructor takes any other keywords (`**keywords`), they are taken to be those of the next class, as a subclass has
    it that passes them on. InvalidInputError if it takes arguments without names.
    """
    names: dict[str, None] = {}
    for owner in (owner for owner in kind.__mro__ if "__init__" in vars(owner) and owner is not object):
        given = list(inspect.signature(vars(owner)["__init__"]).parameters.values())[1:]
        passes_on = any(each.kind is each.VAR_KEYWORD for each in given)
        if not passes_on and any(each.kind is each.VAR_POSITIONAL for each in given):
            raise InvalidInputError(
                f"params: every argument of {kind.__name__}.__init__ must have a name, got *arguments; write them out, or pass "
                "**keywords on"
            )
        names |= dict.fromkeys(each.name for each in given if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL))
        if not passes_on:
            break
    return tuple(names)


def with_nested(params: Mapping[str, Any]) -> dict[str, Any]:
    """Add the arguments of values that have such themselves, as "name__argument"."""
    result = dict(params)
    for name, value in params.items():
        if hasattr(value, "get_params") and not isinstance(value, type):
            result |= {f"{name}__{key}": item for key, item in value.get_params().items()}
    return result


def assign(target: Any, names: tuple[str, ...], params: Mapping[str, Any]) -> None:
    """Set arguments by name, and arguments of arguments by "name__argument". All names are checked first."""
    nested: dict[str, dict[str, Any]] = {}
    for given, value in params.items():
        name, inner, key = given.partition("__")
        if name not in names or (inner and not hasattr(params.get(name, getattr(target, name)), "set_params")):
            hint = checks.did_you_mean(given, names)
            raise InvalidInputError(f"params: unknown parameter {given!r}; the parameters are {', '.join(names)}{hint}")
        if inner:
            nested.setdefault(name, {})[key] = value
    for name in params:
        if name in names:
            setattr(target, name, params[name])
    for name, inner_params in nested.items():
        getattr(target, name).set_params(**inner_params)
