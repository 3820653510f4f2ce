"""Every error text in the sources, held to the same rules: a name, what was expected, what came, and what to do.

Tests of single errors match the type, the name and the value (`support.refusals`), so words can be improved without them.
"""

import argparse
import ast
import builtins
import dataclasses
import pathlib
import re

import pytest

import usae
from support import swift_calls
from support.refusals import faults_of

TESTS = pathlib.Path(__file__).resolve().parents[1]
PYTHON = pathlib.Path(usae.__file__).parent
EXTENSION = PYTHON.parent / "src" / "_usae"
CORE = (TESTS.parents[1] / "Sources" / "USAE", TESTS.parents[1] / "Sources" / "USAECABI")
ERRORS = {
    "InvalidInputError": usae.InvalidInputError,
    "CheckpointError": usae.CheckpointError,
    "CheckpointFileError": usae.CheckpointFileError,
    "ArgumentTypeError": argparse.ArgumentTypeError,
    "ImportError": builtins.ImportError,
}


@dataclasses.dataclass(frozen=True)
class Text:
    """The words of an error, with each part that is computed as {code}, and where they are."""

    place: str
    error: type[Exception]
    words: str


def trees():
    for file in sorted(PYTHON.rglob("*.py")):
        yield str(file.relative_to(PYTHON)), ast.parse(file.read_text(encoding="utf-8"))


def words_of(node):
    match node:
        case ast.Constant():
            return str(node.value)
        case ast.JoinedStr():
            return "".join(map(words_of, node.values))
        case ast.FormattedValue():
            return f"{{{ast.unparse(node.value)}}}"
        case _:
            return f"{{{ast.unparse(node)}}}"


def parts_of(node):
    """Of a text in the source; none of one that is passed on."""
    return node.values if isinstance(node, ast.JoinedStr) else [node]


def texts_of_python():
    for file, tree in trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            error = usae.CheckpointError if name == "refuse" else ERRORS.get(name)
            if error is not None:
                words = node.args[1 if issubclass(error, OSError) else 0]
                if any(isinstance(part, ast.Constant) and re.search(r"[a-z]", part.value) for part in parts_of(words)):
                    yield Text(f"{file}:{node.lineno}", error, words_of(words))


def texts_of_the_extension():
    """Those of InvalidInputError."""
    for file in sorted(EXTENSION.glob("*.c")):
        for found in re.finditer(r'PyErr_Format\(state->invalid_input,\s*((?:"[^"]*"\s*)+)', file.read_text()):
            yield Text(file.name, usae.InvalidInputError, "".join(re.findall(r'"([^"]*)"', found[1])))


def texts_of_the_core():
    for folder in CORE:
        for file in sorted(folder.rglob("*.swift")):
            source = file.read_text(encoding="utf-8")
            for line, arguments in swift_calls.calls(source, r"throw \.(?:invalidArgument|shapeMismatch)"):
                parts = {label: swift_calls.words_of(value) for label, value in arguments.items()}
                words = f"{parts['name']}: expected {parts['expected']}, got {parts['got']}"
                yield Text(f"{file.name}:{line}", usae.InvalidInputError, words + f"; {parts.get('remedy', '')}".rstrip("; "))


CORE_TEXTS = list(texts_of_the_core())
TEXTS = [*texts_of_python(), *texts_of_the_extension(), *CORE_TEXTS]


def test_there_are_texts_to_read():
    kinds = [text.error for text in TEXTS]
    assert kinds.count(usae.InvalidInputError) > 300 and kinds.count(usae.CheckpointError) > 50
    assert len(CORE_TEXTS) > 55


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_each_text_says_what_was_expected_what_came_and_what_to_do(error):
    faults = {text: faults_of(error, text.words) for text in TEXTS if text.error is error}
    assert not [f"{text.place}: {text.words!r} lacks {lacking}" for text, lacking in faults.items() if lacking]


def test_each_text_of_an_argument_begins_with_its_name():
    """A parameter, a field, a flag, or what is computed; in the extension and the core whatever stands before "expected"."""
    nodes = [node for _, tree in trees() for node in ast.walk(tree)]
    functions = [node.args for node in nodes if isinstance(node, ast.FunctionDef)]
    known = {argument.arg for each in functions for argument in (*each.posonlyargs, *each.args, *each.kwonlyargs)}
    known |= {each.kwarg.arg for each in functions if each.kwarg is not None}
    known |= {node.target.id for node in nodes if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    for text in TEXTS:
        if text.error is usae.InvalidInputError:
            name = re.match(r"[^:]+(?=: expected)|\{|--[\w-]+|\w+", text.words)[0]
            assert name in known or not name.isidentifier() or ": expected" in text.words, f"{text.place}: {text.words}"


def test_texts_of_the_core_name_nothing_as_swift_does_and_say_how_much():
    """A caller of C or Python knows no camelCase; and "fewer" without a number does not say what is possible."""
    for text in CORE_TEXTS:
        literal = re.sub(r"\{[^}]*\}", "{}", text.words)
        assert not re.search(r"\b[a-z]+[A-Z]", literal), f"{text.place}: {text.words}"
        assert not re.search(r"\b(fewer|more|less|larger|smaller|higher|lower)\b(?! than)", literal.partition(", got")[0]), text


def test_no_test_pins_the_words_of_one():
    pinned = []
    for file in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.raises":
                name = ast.unparse(node.args[0]).rpartition(".")[2]
                if hasattr(usae, name) and any(keyword.arg == "match" for keyword in node.keywords):
                    pinned.append(f"{file.name}:{node.lineno}: use support.refusals")
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In) and isinstance(node.left, ast.Constant):
                shown = re.search(r"\bstr\(|err\b|\.stdout\b", ast.unparse(node.comparators[0]))
                if shown and re.search(r"[a-z]{2,}:? [a-z]{2,}", str(node.left.value)):
                    pinned.append(f"{file.name}:{node.lineno}: look for a name or a value")
    assert pinned == []


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("k is too large", usae.InvalidInputError),
        ("k must be from 1 to 9", usae.InvalidInputError),
        ("a bad k, got 3", usae.InvalidInputError),
        ("concepts must not be given twice, got [1, 1]", usae.InvalidInputError),
        ("model: unknown model 'wit'", usae.InvalidInputError),
        ("k must be an integer, got <object object at 0x7f>", usae.InvalidInputError),
        ("usae.json is damaged", usae.CheckpointError),
        ("the disk is full", usae.CheckpointFileError),
        ("torch is missing", ImportError),
    ],
)
def test_a_text_without_one_of_its_parts_is_found(words, error):
    assert faults_of(error, words)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ('name: "rows", expected: "0", got: "\\(n)")', ['name: "rows"', 'expected: "0"', 'got: "\\(n)"']),
        (
            'name: n, expected: "a (b, \\(f(x, "c")))", got: g(1, 2))',
            ["name: n", 'expected: "a (b, \\(f(x, "c")))"', "got: g(1, 2)"],
        ),
        ('name: a.map { "x, \\($0)" } ?? "y") else', ['name: a.map { "x, \\($0)" } ?? "y"']),
    ],
)
def test_arguments_of_swift_are_split_where_they_end(call, words):
    assert swift_calls.split_arguments(call) == words


def test_a_part_that_swift_computes_is_not_read_as_words():
    assert swift_calls.words_of('"a \\(x.y) b"') == "a {x.y} b" and swift_calls.words_of("name") == "{name}"
    assert swift_calls.words_of('n.map { "the sum of \\($0)" } ?? "none"') == "the sum of {$0} or none"
