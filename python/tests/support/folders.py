"""What is in a folder."""

import pathlib


def files(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}
