"""Docstrings of public callables: every argument is described, and its default is the one in the signature."""

import ast
import importlib
import inspect
import itertools
import re

import pytest

MODULES = ("usae", "usae.plot", "usae.recipes", "usae.synthetic", "usae.torch")
LITERAL = re.compile(r'None|True|False|"[^"]*"|\([^()]*\)|\d[\d_]*(\.\d+)?(e-?\d+)?( / \d+)?')


def public(module):
    """Every public function, class and method of a module, by name."""
    for name in module.__all__:
        value = getattr(module, name)
        if callable(value):
            yield name, value
            for method in vars(value) if inspect.isclass(value) else ():
                if not method.startswith("_") and callable(getattr(value, method)):
                    yield f"{name}.{method}", getattr(value, method)


def described(docstring):
    """What a docstring says of each argument. None: it has no list of arguments."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=\n\n\S|\Z)", docstring, re.MULTILINE | re.DOTALL)
    if section is None:
        return None
    words = {}
    for names, text in re.findall(r"^(\S.*?)(?: : .*)?\n((?:(?: {4}.*)?\n?)+)", section[1], re.MULTILINE):
        words |= dict.fromkeys(re.split(r", ?", names.replace("*", "")), (names, " ".join(text.split())))
    return words


def defaults_in(text):
    """The values after "Default:", of which an entry for several arguments has several."""
    values, found = text.partition("Default: ")[2], []
    while literal := LITERAL.match(values):
        numerator, slash, denominator = literal[0].partition(" / ")
        found.append(int(numerator) / int(denominator) if slash else ast.literal_eval(literal[0]))
        values = re.sub(r"^(, | and )", "", values[literal.end() :])
    return found


def problems(value):
    """What is missing or wrong in the docstring of a function or class."""
    docstring = inspect.getdoc(value) or ""
    if not docstring:
        yield "it has no docstring"
    words = described(docstring)
    if words is None and inspect.isclass(value):  # exceptions, and results that users do not make
        return
    for argument in inspect.signature(value).parameters.values():
        names, text = (argument.name, docstring) if words is None else words.get(argument.name, ("", ""))
        if argument.name == "self":
            continue
        if not text:
            yield f"{argument.name} is not described"
        elif argument.default is not argument.empty and not text.startswith("As for "):
            found = defaults_in(text)
            place = re.split(r", ?", names).index(argument.name) if len(found) > 1 else 0
            if not found or found[place] != argument.default:
                yield f"{argument.name}={argument.default!r} is described otherwise: {text}"


@pytest.mark.parametrize("name", MODULES)
def test_public_docstrings_describe_every_argument_with_its_default(name):
    found = {of: list(problems(value)) for of, value in public(importlib.import_module(name))}
    assert len(found) >= 4 and {of: wrong for of, wrong in found.items() if wrong} == {}


def entries(docstring):
    """The unindented lines of the sections that list names, each with the line behind it."""
    for section in re.findall(r"^(?:Parameters|Attributes)\n-+\n(.*?)(?=^\S.*\n-+$|\Z)", docstring, re.MULTILINE | re.DOTALL):
        lines = [line for line in section.splitlines() if line.strip()]
        yield from (pair for pair in itertools.pairwise([*lines, ""]) if not pair[0].startswith(" "))


@pytest.mark.parametrize("name", MODULES)
def test_every_entry_of_a_list_is_a_name_with_a_description(name):
    """The site shows a sentence there as a name, and a name without a description with a dash and nothing behind it."""
    for of, value in public(importlib.import_module(name)):
        for line, after in entries(inspect.getdoc(value) or ""):
            assert re.match(r"[\w*, .]+( : .+)?$", line) and after.startswith(" "), f"{name}.{of}: {line}"


def test_a_wrong_or_missing_default_is_found():
    def function(one, two=2, three=1 / 32, four=None):
        """Do nothing.

        Parameters
        ----------
        one, two : int
            Numbers. Default: 3.
        three : float
            A share. Default: 1 / 32.
        """

    wrong = list(problems(function))
    assert wrong == ["two=2 is described otherwise: Numbers. Default: 3.", "four is not described"]
