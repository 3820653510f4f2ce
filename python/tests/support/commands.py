"""The command ``usae``, called as a function."""

import json

from usae import cli

SMALL = ["--n-concepts", "64", "--k", "4", "--steps", "8"]


def run(*arguments):
    assert cli.main([str(argument) for argument in arguments]) == 0


def printed(capsys, *arguments):
    """What a command prints with --json."""
    capsys.readouterr()
    run(*arguments, "--json")
    return json.loads(capsys.readouterr().out)


def refusal(capsys, *arguments):
    """The one line of a command that cannot do what it is asked to."""
    capsys.readouterr()
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith("usae")
    return err
