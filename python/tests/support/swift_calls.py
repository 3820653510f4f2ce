"""Calls in Swift sources: their arguments, and the words of string literals in them."""

import re


def calls(source, pattern):
    """Yields the line of each call whose name matches, and its arguments as text by label."""
    for found in re.finditer(rf"{pattern}\(", source):
        arguments = split_arguments(source[found.end() :])
        yield source[: found.start()].count("\n") + 1, dict(argument.split(": ", 1) for argument in arguments)


def scan(text):
    """Yields each letter with the number of brackets and of literals that are open after it."""
    depth, literals = 0, []
    for before, letter in zip(" " + text, text, strict=False):
        quoted = bool(literals) and literals[-1] == depth
        if letter == '"' and quoted:
            literals.pop()
        elif letter == '"':
            literals.append(depth)
        elif quoted:
            depth += letter == "(" and before == "\\"  # an interpolation
        else:
            depth += (letter in "([{") - (letter in ")]}")
        yield letter, depth, len(literals)


def split_arguments(text):
    """The arguments of a call, from what follows its opening parenthesis."""
    arguments = [""]
    for letter, depth, literals in scan(text):
        if depth < 0:
            break
        if letter == "," and not depth and not literals:
            arguments.append("")
        else:
            arguments[-1] += letter
    return [argument.strip() for argument in arguments]


def words_of(value):
    """The words of the literals in an expression, with each part that is computed as {code}; without a literal, {all}."""
    words, outside, last = [], None, 0
    for letter, depth, literals in scan(value):
        if outside is None:
            if letter == '"':
                outside = depth
                words.append("")
        elif not literals:
            outside = None
        elif letter == "(" and (last, depth) == (outside, outside + 1):
            words[-1] = words[-1][:-1] + "{"
        else:
            words[-1] += "}" if letter == ")" and (last, depth) == (outside + 1, outside) else letter
        last = depth
    return " or ".join(filter(None, words)) or f"{{{value}}}"
