"""Saves that are stopped midway, and files of JSON that are changed by somebody who also knows how to sign them."""

import json
import pathlib
import shutil

import usae
from support.autoencoders import RECIPE
from support.refusals import refuses
from usae._files import checksummed_json, disk
from usae._saved import saved_folder
from usae._saved.header import fields_since

FILES = {"model.safetensors", "usae.json"}


def two_saves(acts):
    old = usae.UniversalSAE(8, 2, recipe=RECIPE).fit(acts, steps=1)
    new = usae.UniversalSAE(8, 2, recipe=RECIPE).fit(acts, steps=2)
    return old, new


class Stop(BaseException):
    """As if the computer stopped."""


def steps_of_a_save(monkeypatch, stop_at):
    """Make the process stop at the given call that changes the disk. A list tells how many there were."""
    done = []

    def counted(function):
        def wrapper(*arguments, **named):
            if len(done) == stop_at:
                raise Stop
            done.append(function.__name__)
            return function(*arguments, **named)

        return wrapper

    monkeypatch.setattr(saved_folder, "write_tensors", counted(saved_folder.write_tensors))
    monkeypatch.setattr(disk, "write_text", counted(disk.write_text))
    monkeypatch.setattr(pathlib.Path, "rename", counted(pathlib.Path.rename))
    monkeypatch.setattr(pathlib.Path, "replace", counted(pathlib.Path.replace))
    # A computer that stops does not clean up either.
    monkeypatch.setattr(pathlib.Path, "unlink", lambda self: None)
    monkeypatch.setattr(shutil, "rmtree", lambda *arguments, **named: None)
    return done


def refuses_to_load(folder, name):
    """Loading fails with a CheckpointError that names the folder, and in it a file or a key."""
    with refuses(name, error=usae.CheckpointError) as caught:
        usae.load(folder)
    assert str(folder) in str(caught.value)


def without_later_fields(header, version):
    """Make the header one of an older format, whose recipes lack the fields that were added since."""
    header["format_version"] = version
    if version < 3:
        del header["mean_rest"]
    for key in ("recipe", "resolved_recipe"):
        for field in fields_since(version):
            if header[key] is not None:
                del header[key][field]


def rewrite_json(file, change, sign=True):
    """Change a file of JSON by a function of its content, and sign it again."""
    content = json.loads(file.read_text())
    content.pop("sha256", None)
    content = change(content) or content
    text = json.dumps(content, indent=2) + "\n"
    file.write_text(checksummed_json.with_checksum(text) if sign and isinstance(content, dict) and content else text)
