"""Options of commands, on the command line or in a TOML file, with errors of one line."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import usae
from usae._base import checks
from usae._base.config import thread_count
from usae._base.json import plain
from usae.cli.process import one_line
from usae.errors import InvalidInputError


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line on stderr, with the exit code 2.

    After `configurable` was called, options that `option` adds may also be in a table of a TOML file, by the names of their
    flags. The command line overrides the file, and the file overrides the default.
    """

    def __init__(self, **settings: Any):
        super().__init__(**settings, allow_abbrev=False)
        self._source = ""  # for messages, the file whose options are being parsed; empty for the command line
        self._fallbacks: dict[str, Any] = {}
        self._required: dict[str, str] = {}

    @property
    def table(self) -> str:
        """Name of the command's table in a TOML file."""
        return self.prog.split()[-1]

    def error(self, message: str) -> NoReturn:
        self.exit(2, one_line(f"{self.prog}: {self._source}{message} (usage: {self.prog} --help)") + "\n")

    def configurable(self) -> None:
        """Add --config and --json."""
        self.usage = f"{self.prog} [--config FILE] [options]"
        self.option(
            "--config",
            metavar="FILE",
            help=f"TOML file with options in its table [{self.table}], such as batch_size for --batch-size; flags override it",
        )
        self.option("--json", default=False, help="print the result as JSON, for programs")

    def option(
        self, flag: str, *, default: Any = None, required: bool = False, help: str, group: Any = None, **settings: Any
    ) -> None:
        """Add an option with a default that --help shows. If the default is True or False, the option is a switch.

        With the default `argparse.SUPPRESS`, the result has no such attribute if the option is not given.
        """
        if isinstance(default, bool):
            settings["action"] = argparse.BooleanOptionalAction
        elif default not in (None, [], argparse.SUPPRESS):
            help = f"{help} ({default})"
        help = help.replace("%", "%%")
        action = (group or self).add_argument(flag, help=help, default=argparse.SUPPRESS, **settings)
        if default is argparse.SUPPRESS:
            return
        if required:
            self._required[action.dest] = flag
        else:
            self._fallbacks[action.dest] = default

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        given, extra = super().parse_known_args(args, namespace)
        if extra:
            flags = [flag for action in self._actions for flag in action.option_strings]
            self.error(f"unknown argument {extra[0]!r}{checks.closest_or_all(extra[0].partition('=')[0], flags)}")
        values: dict[str, Any] = {**vars(given)}
        if "config" in values and "config" in self._fallbacks:  # the main parser has "config" too, but only from this one
            of_file = vars(self._of_file(values["config"]))
            if "folder" in values:  # see add_model
                of_file.pop("model", None)
            values = {**of_file, **values}
        for name, flag in self._required.items():
            if name not in values:
                self.error(f"{flag} is missing; give it, or {name} in the table [{self.table}] of --config")
        return argparse.Namespace(**{**self._fallbacks, **values}), []

    def _of_file(self, file: str) -> argparse.Namespace:
        """Return the options in the command's table of a TOML file."""
        self._source = f"--config {file}, table [{self.table}]: "
        actions = {
            action.dest: action for action in self._actions if action.option_strings and action.dest not in ("help", "config")
        }
        arguments: list[str] = []
        for key, value in self._table_of(file).items():
            if key not in actions:
                self.error(f"unknown key {key!r}{checks.closest_or_all(key, actions)}")
            arguments += self._as_arguments(actions[key], key, value)
        options, _ = super().parse_known_args(arguments)
        self._source = ""
        return options

    def _table_of(self, file: str) -> dict[str, Any]:
        import tomllib  # imported here, because few commands read a file

        try:
            with open(file, "rb") as stream:
                tables = tomllib.load(stream)
        except OSError as error:
            self.error(f"cannot be read: {error.strerror or error}")
        except ValueError as error:  # bytes that are not UTF-8 raise this too
            self.error(f"is not TOML: {error}")
        for name in tables:
            if name not in CONFIGURED:
                self.error(f"unknown table or key {name!r}{checks.closest_or_all(name, CONFIGURED)}")
        table = tables.get(self.table)
        if not isinstance(table, dict):
            self.error(f"is missing; there are {', '.join(f'[{name}]' for name in tables) or 'no tables'}")
        return table

    def _as_arguments(self, action: argparse.Action, key: str, value: Any) -> list[str]:
        """Return the arguments that a user would type for a value of the file, so that the same code checks both."""
        flag = action.option_strings[0]
        if isinstance(action, argparse.BooleanOptionalAction):
            if not isinstance(value, bool):
                self.error(f"{key} must be true or false, got {value!r}")
            return [flag if value else action.option_strings[1]]
        if isinstance(value, Mapping):
            values = [f"{name}={item}" for name, item in value.items()]
        elif isinstance(value, list):
            values = [str(item) for item in value]
        else:
            values = [str(value)]
        if action.nargs == "+":
            return [flag, *values]
        if isinstance(action, argparse._AppendAction):  # repeated on the command line
            return [f"{flag}={item}" for item in values]
        return [f"{flag}={','.join(values)}"]  # with "=", so that -1 is not taken for a flag


CONFIGURED = (
    "extract", "train", "evaluate", "controls", "consistency", "top-examples", "maximize", "explore", "export", "import",
)  # fmt: skip
"""Commands that take --config."""

# What several commands take is added here, by `activations.add_to` and by `networks.add_to`, so that it is the same in all.


def add_model(parser: Parser) -> None:
    """Add --config, and --model, which can be given without the flag too."""
    parser.configurable()
    parser.usage = f"{parser.prog} [MODEL] [--config FILE] [options]"
    parser.option("--model", metavar="FOLDER", help="folder of a saved autoencoder (usae train), or hf://user/repo")
    parser.add_argument("folder", nargs="?", metavar="MODEL", help="the same, without the flag", default=argparse.SUPPRESS)


def load_model(options: argparse.Namespace) -> usae.UniversalSAE:
    """Load the autoencoder of --model, or of the argument in its place."""
    folder = getattr(options, "folder", None)
    if (options.model is None) == (folder is None):
        got = "none" if folder is None else f"{options.model!r} and {folder!r}"
        raise InvalidInputError(f"--model must be the folder of one saved autoencoder, got {got}")
    return load_saved(str(options.model or folder), "--model")


def load_saved(folder: str, option: str) -> usae.UniversalSAE:
    """Load an autoencoder from a folder, or from the Hugging Face Hub."""
    if not folder.startswith("hf://") and not Path(folder).is_dir():
        raise InvalidInputError(
            f"{option} must be the folder of a saved autoencoder, got {folder!r}, which is none; usae train makes one"
        )
    return usae.load(folder)


def add_threads(parser: Parser) -> None:
    parser.option("--threads", type=int, metavar="N", help="number of threads; results do not depend on it; default: all cores")


def add_device(parser: Parser) -> None:
    parser.option("--device", metavar="DEVICE", help="device of PyTorch for the networks, such as cuda or cuda:1; default: cpu")


def use_threads(options: argparse.Namespace) -> None:
    if options.threads is not None:
        usae.set_num_threads(thread_count(options.threads, "--threads"))


def make_folder(folder: str | Path, option: str) -> None:
    """Make a folder and its parents, unless there is one."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (
            "which is a file" if isinstance(error, FileExistsError) else f"where none can be made: {error.strerror or error}"
        )
        raise InvalidInputError(
            f"{option} must be a folder, or a place where one can be made, got {str(folder)!r}, {reason}; choose another"
        ) from error


def print_json(value: Any) -> None:
    """Print a result as JSON. NaN becomes null."""
    print(json.dumps(plain(value), indent=1, allow_nan=False))


def as_mean(text: str) -> float:
    """Return a mean number from an option: an int if it is whole."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}")
    return int(number) if number.is_integer() else number


def as_grid(text: str) -> tuple[int, int]:
    """Return the rows and columns of a token grid from an option."""
    numbers = re.fullmatch(r"([1-9]\d*)[x,]([1-9]\d*)", text)  # a list in a TOML file becomes "ROWS,COLUMNS"
    if numbers is None:
        raise argparse.ArgumentTypeError(f"must be ROWSxCOLUMNS, such as 16x16, got {text!r}")
    return int(numbers[1]), int(numbers[2])
