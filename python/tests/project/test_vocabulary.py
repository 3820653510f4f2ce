"""docs/vocabulary.md has every term once, and the words that it replaced are gone."""

import ast
import io
import json
import pathlib
import re
import tokenize

import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[3]
VOCABULARY = ROOT / "docs" / "vocabulary.md"

# What is read, as files or folders.
CHECKED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "examples", "python", "Sources", "Tests", "benchmarks")
EXCEPT = ("benchmarks/results", "python/tests/project/test_vocabulary.py")

# Whole words of prose; names in code are not looked at.
REPLACED = {
    "twins": r"twins?\b",
    "unchosen": r"unchosen\b",
    "spare": r"spares?\b",
    "room": r"room\b",
    "quads": r"quads?\b",
    "digits": r"digits?\b",
    "chain": r"chains?\b",
    "floor": r"floors?\b",
    "anew": r"(?:anew|afresh)\b",
    "exemplars": r"exemplars?\b",
    "left out": r"left out(?=:| both:| all:)",
}

# How often a file may still use one. These numbers only fall; a file or word that is not here may not use it at all.
ALLOWED: dict[str, dict[str, int]] = {}

SUFFIXES = (".md", ".py", ".ipynb", ".swift", ".c", ".h")


def files():
    for place in CHECKED:
        path = ROOT / place
        assert path.exists(), f"CHECKED names {place}, which is not there"
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            name = file.relative_to(ROOT).as_posix()
            if file.suffix in SUFFIXES and file != VOCABULARY and not file.is_symlink() and not name.startswith(EXCEPT):
                yield file


def prose_of_python(text):
    """Comments, docstrings, and what users are shown: every literal of more than one word."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    found = [token.string for token in tokens if token.type == tokenize.COMMENT]
    literals = [
        node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return "\n".join(found + [literal for literal in literals if " " in literal.strip()])


def prose_of_c_or_swift(text):
    """Comments, and what users are shown: every literal of more than one word."""
    found = re.findall(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', text, re.DOTALL)
    return "\n".join(each[1:-1] if each[0] == '"' else each for each in found if each[0] != '"' or " " in each)


def prose_of_markdown(text):
    """What is neither a block of code nor between code marks."""
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)


def prose_of_notebook(text):
    cells = json.loads(text)["cells"]
    kinds = {"markdown": prose_of_markdown, "code": lambda source: prose_of_python(source)}
    return "\n".join(kinds[cell["cell_type"]]("".join(cell["source"])) for cell in cells)


def prose(file):
    of_kind = {".md": prose_of_markdown, ".py": prose_of_python, ".ipynb": prose_of_notebook}
    return of_kind.get(file.suffix, prose_of_c_or_swift)(file.read_text(encoding="utf-8"))


def count(text):
    """How often each replaced word occurs; not in `code marks`, "quotes", as of a recipe's value, or NAMES of C."""
    text = re.sub(r'`[^`\n]*`|"[^"\n]*"|\b[A-Z_]{2,}\b', "", text)
    found = {word: len(re.findall(rf"\b(?:{pattern})", text, re.IGNORECASE)) for word, pattern in REPLACED.items()}
    return {word: n for word, n in found.items() if n}


def test_every_term_stands_once_with_its_meaning():
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.*?) \| (.*?) ?\|$", VOCABULARY.read_text(encoding="utf-8"), re.MULTILINE)
    terms = [term for term, _, _ in rows]
    assert len(terms) > 100 and len(set(terms)) == len(terms)
    for term, meaning, _ in rows:
        assert meaning.endswith((".", ".)")), f"{term}: the meaning is a sentence"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/design.md"])
def test_the_vocabulary_is_linked(page):
    assert re.search(r"\]\((docs/)?vocabulary\.md\)", (ROOT / page).read_text(encoding="utf-8"))


def test_replaced_words_are_gone():
    found = {file.relative_to(ROOT).as_posix(): count(prose(file)) for file in files()}
    found = {name: words for name, words in found.items() if words}
    assert found == ALLOWED, "docs/vocabulary.md says what to write instead; lower ALLOWED where a file now has fewer"


@pytest.mark.parametrize(
    ("suffix", "text", "words"),
    [
        (".md", 'Twins merge.\n`twins`\n```\ntwins\n```\nA chain of `aux="unchosen"`.', {"twins": 1, "chain": 1}),
        (
            ".py",
            '"""Left out: all. None left out."""\nspare = "room"  # a spare digit',
            {"spare": 1, "digits": 1, "left out": 1},
        ),
        (".swift", "let spare = 1 // the floor\n/* quads */", {"floor": 1, "quads": 1}),
        (".py", 'raise E(f"no room in {spare}, got {n}", help="a floor")\nwarn("room")', {"room": 1, "floor": 1}),
        (".swift", 'f("no room", "spare") // a "floor"', {"room": 1}),
    ],
)
def test_only_prose_is_read(tmp_path, suffix, text, words):
    file = tmp_path / f"file{suffix}"
    file.write_text(text, encoding="utf-8")
    assert count(prose(file)) == words
