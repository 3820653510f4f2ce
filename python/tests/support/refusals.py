"""Errors as tests see them: by their type, the argument that they name, and what came. Their words are held to rules.

The rules are `faults_of`. `refuses` applies them to each error that a test provokes, and project/test_error_texts.py to each
text in the sources, so that no test needs to repeat the words of one.
"""

import contextlib
import re

import pytest

import usae


@contextlib.contextmanager
def refuses(argument, got="", remedy="", error=usae.InvalidInputError):
    """Fails unless the block raises exactly this type of error, with a text that keeps the rules and names the argument.

    `argument` is what the text begins with; of a `usae.CheckpointError`, a file or a key that occurs in it. `got` is what
    stands behind "got", or the beginning of it, `remedy` a name or a piece of code that the text proposes behind a semicolon;
    by default they do not matter.
    """
    with pytest.raises(error) as caught:
        yield caught
    text = str(caught.value)
    assert caught.type is error, f"{caught.type.__name__}: {text}"
    assert names(argument, text, anywhere=issubclass(error, usae.CheckpointError)), f"does not name {argument}: {text}"
    assert not got or re.search(rf"\bgot {re.escape(str(got))}", text), f"does not say that {got} came: {text}"
    assert not remedy or re.search(rf";.*{re.escape(remedy)}", text), f"does not propose {remedy}: {text}"
    assert not faults_of(error, text), f"lacks {faults_of(error, text)}: {text}"


@contextlib.contextmanager
def refuses_place(place, number):
    """Fails unless the block raises a `usae.CheckpointFileError` with this file or folder and this number of the system."""
    with refuses(place, error=usae.CheckpointFileError) as caught:
        yield caught
    assert (caught.value.errno, caught.value.filename) == (number, str(place))


def names(argument, text, anywhere=False):
    """Whether the text begins with the argument, or has it anywhere, as a whole word."""
    start = r"(?<!\w)" if anywhere else "^"
    return re.search(rf"{start}{re.escape(str(argument))}(?!\w)", text) is not None


def faults_of(error, text):
    """Which of its parts an error text lacks: what was expected, what came, what to do.

    What must be says what to do; where a text says what must not be, a remedy follows. Of something unknown the known are
    listed, or the closest. A file that is not as it must be is one to be replaced, for which a text says how.
    """
    remedy = re.search(r"; \S", text) or "{hint}" in text or "did_you_mean" in text
    if issubclass(error, OSError):
        return [] if remedy or re.search(r"\bcannot \w+", text) else ["what cannot be done"]
    says = re.search(r"\b(must|expected)\b(?! not).*\bgot\b", text, re.DOTALL)
    if issubclass(error, usae.CheckpointError):
        return [] if remedy or says else ["a remedy behind a semicolon"]
    if issubclass(error, ImportError):
        return [] if "pip install" in text or "{remedy}" in text else ["what to install"]
    faults, unknown = [], re.search(r"\bunknown \w+ ", text)
    if not unknown and not re.search(r"\b(must|expected)\b", text):
        faults.append('what was expected, behind "must" or "expected"')
    if not unknown and not re.search(r"\bgot\b", text):
        faults.append('what came, behind "got"')
    if (unknown or "must not" in text) and not remedy:
        faults.append("a remedy behind a semicolon")
    if " object at 0x" in text:
        faults.append("a value that means something to a reader")
    return faults
