"""``usae completion``: a script with which a shell completes commands, flags, their choices, and names of files.

shtab writes it from the parsers. A script of it needs neither usae nor Python when Tab is pressed; argcomplete, the other
library in use, would start Python and import the package each time.
"""

from __future__ import annotations

import argparse
from typing import Any

from usae.cli.options import Parser

SHELLS = ("bash", "zsh", "fish")

FOLDERS = ("FOLDER", "MODEL")
FILES = ("FILE", "PATH", "ACTS")
"""What values of an option with such a metavar are. Stores, among activations, are folders, which complete as files do too."""


def add_to(commands: Any, parser: Parser) -> None:
    own = commands.add_parser(
        "completion",
        help="print a script with which a shell completes what is typed after usae",
        description='Prints a script for Tab: eval "$(usae completion bash)" in ~/.bashrc; usae completion zsh > _usae in a '
        "folder of $fpath; usae completion fish > ~/.config/fish/completions/usae.fish.",
    )
    own.add_argument("shell", choices=SHELLS, help=", ".join(SHELLS))
    own.set_defaults(run=lambda options: print(script(parser, options.shell)))


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script. ImportError if shtab is not installed."""
    try:
        import shtab
    except ImportError as error:
        raise ImportError(f"usae completion needs shtab: pip install 'usae[completion]' ({error})") from error
    for action in _actions(parser):
        if action.metavar in FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.metavar in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the actions of a parser and of its commands."""
    found = list(parser._actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                found += _actions(command)
    return found
