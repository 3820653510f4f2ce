"""The Hugging Face Hub: addresses such as ``hf://user/repo``, and what is downloaded from them and uploaded to them.

huggingface_hub is imported when something is to be downloaded or uploaded. It is not a dependency.
"""

from __future__ import annotations

import errno
import pathlib
import re
from typing import Any, NamedTuple

from usae._base import checks
from usae.errors import CheckpointFileError, InvalidInputError

PREFIX = "hf://"

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_ADDRESS = re.compile(rf"({_NAME}/{_NAME})(?:@([^/@\s]+))?(?:/([^@]+?))?/?")


class Address(NamedTuple):
    """What an address names: a repository, perhaps a revision, and perhaps a folder."""

    repo: str
    revision: str | None
    folder: str | None


def is_address(path: object) -> bool:
    return isinstance(path, str) and path.startswith(PREFIX)


def parsed(address: str) -> Address:
    """Return the parts of ``hf://user/repo@revision/folder``."""
    found = _ADDRESS.fullmatch(address.removeprefix(PREFIX))
    if found is None or any(part in ("", ".", "..") for part in (found[3] or "folder").split("/")):
        raise InvalidInputError(
            f"path must be hf://user/repo, perhaps with @revision and /folder behind it, got {checks.shown(address)}"
        )
    return Address(found[1], found[2], found[3])


def checked_repo(repo: object) -> str:
    name = repo.removeprefix(PREFIX) if isinstance(repo, str) else ""
    if re.fullmatch(f"{_NAME}/{_NAME}", name) is None:
        raise InvalidInputError(f"repo must be the name of a repository, such as 'user/name', got {checks.shown(repo)}")
    return name


def client() -> Any:
    """Import huggingface_hub."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError("the Hugging Face Hub needs huggingface_hub: pip install 'usae[hub]'") from error
    return huggingface_hub


def downloaded_folder(address: str, files: tuple[str, ...] | None = None) -> pathlib.Path:
    """Download a folder of a repository, or these files of it, and return where they are."""
    where = parsed(address)
    inside = "" if where.folder is None else f"{where.folder}/"
    patterns = [inside + name for name in files] if files is not None else [f"{inside}*"]
    hub = client()
    try:
        root = hub.snapshot_download(where.repo, revision=where.revision, allow_patterns=patterns)
    except Exception as error:  # of the library, or of what it downloads with
        raise _refused(error, "download", address) from error
    return pathlib.Path(root, where.folder or ".")


def uploaded(folder: pathlib.Path, repo: str, *, private: bool, token: str | None, message: str) -> str:
    """Upload a folder to a repository, which is made if there is none. Returns its address on the web."""
    hub = client()
    try:
        api = hub.HfApi(token=token)
        made = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=str(folder), commit_message=message)
    except Exception as error:  # as above
        raise _refused(error, "upload", f"{PREFIX}{repo}") from error
    return str(made)


def _refused(error: Exception, verb: str, address: str) -> CheckpointFileError:
    words = " ".join(str(error).split())[:300]
    return CheckpointFileError(
        getattr(error, "errno", None) or errno.EIO,
        f"cannot use the Hub to {verb} it: {type(error).__name__}: {words}; look at its name, the token and the connection",
        address,
    )
