"""`UniversalSAE.push_to_hub`: a saved autoencoder with its model card, and each model as SAELens has it beside it."""

from __future__ import annotations

import itertools
import pathlib
import re
import tempfile
from collections.abc import Mapping
from typing import Any

from usae._base import checks
from usae._core.autoencoder import Autoencoder
from usae._data.activations import check_known
from usae._data.store import ActivationStore
from usae._exchange import hub, model_card
from usae._exchange.exporting import export
from usae._files import disk
from usae._saved import saved_folder
from usae.errors import InvalidInputError

CARD = "README.md"


def push(
    autoencoder: Autoencoder,
    repo: str,
    *,
    license: str,
    networks: Mapping[str, str] | None,
    store: ActivationStore | None,
    data: str | None,
    evaluation: Any,
    saelens: bool,
    private: bool,
    token: str | None,
    message: str | None,
) -> str:
    """Upload; see `UniversalSAE.push_to_hub`."""
    repo = hub.checked_repo(repo)
    license = model_card.checked_line(license, "license", "mit")
    known = _checked_networks(autoencoder, networks)
    described = _described(autoencoder, store)
    data = None if data is None else model_card.checked_line(data, "data", "50,000 images of ImageNet")
    if evaluation is not None:
        model_card.check_evaluation(evaluation, autoencoder)
    saelens, private = checks.boolean(saelens, "saelens"), checks.boolean(private, "private")
    if token is not None and not isinstance(token, str):
        raise InvalidInputError(f"token must be text, or None for that of huggingface_hub, got a {type(token).__name__}")
    message = f"Upload {repo}" if message is None else model_card.checked_line(message, "message", "Upload")
    hub.client()  # an error before the files are written
    with tempfile.TemporaryDirectory(prefix="usae-") as name:
        folder = pathlib.Path(name, "repository")
        saved_folder.save(autoencoder, folder, False)
        folders = _for_saelens(autoencoder, folder) if saelens else {}
        card = model_card.text(
            autoencoder, repo, license=license, networks=known, described=described, data=data, evaluation=evaluation,
            folders=folders,
        )  # fmt: skip
        disk.write_text(folder / CARD, card)
        return hub.uploaded(folder, repo, private=private, token=token, message=message)


def _for_saelens(autoencoder: Autoencoder, folder: pathlib.Path) -> dict[str, str]:
    """Export each model, and return the folders in the repository."""
    folders: dict[str, str] = {}
    for name in autoencoder.names:
        plain = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII).lstrip(".")[:100] or "model"
        candidates = (f"saelens/{plain}" + (f"_{number}" if number else "") for number in itertools.count())
        taken = {other.lower() for other in folders.values()}  # some file systems do not tell A from a
        inside = next(candidate for candidate in candidates if candidate.lower() not in taken)
        export(autoencoder, folder / inside, "saelens", name, None, False, None)
        folders[name] = inside
    return folders


def _checked_networks(autoencoder: Autoencoder, networks: object) -> dict[str, str]:
    if networks is None:
        return {}
    if not isinstance(networks, Mapping):
        raise InvalidInputError(
            f"networks must be a mapping from names of models to their networks on the Hub, got {checks.shown(networks)}"
        )
    for name in networks:
        check_known(name, autoencoder.names, "networks")
    return {
        name: model_card.checked_line(value, f"networks[{name!r}]", "facebook/dinov2-small") for name, value in networks.items()
    }


def _described(autoencoder: Autoencoder, store: object) -> dict[str, Any]:
    if store is None:
        return {}
    if not isinstance(store, ActivationStore):
        raise InvalidInputError(f"store must be a usae.ActivationStore that was trained on, got {checks.shown(store)}")
    return {name: store.models[name] for name in autoencoder.names if name in store.models}
