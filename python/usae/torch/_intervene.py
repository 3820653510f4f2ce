"""`intervene`: the user's own network runs on with edited tokens."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from usae._base import checks
from usae._data.activations import check_known
from usae._estimator.universal_sae import UniversalSAE
from usae.errors import InvalidInputError
from usae.torch._autoencoder import Autoencoder
from usae.torch._edits import Edit, Editor, checked_place
from usae.torch._model import Model
from usae.torch._modules_of import modules_of, names_of
from usae.torch._token_hook import EditFunction, editing


def intervene(
    models: Model | Mapping[str, Model],
    sae: UniversalSAE | Autoencoder,
    edits: Any = (),
    *,
    name: str | None = None,
    error: bool = True,
    mask: Any = None,
) -> AbstractContextManager[None]:
    """Return a context in which networks run on with edited tokens.

    Whenever the layer of a model runs within the block, its tokens are encoded, the code is edited, and the difference that the
    edits make is added to the tokens. What the autoencoder does not explain of them stays, so tokens that no edit changes keep
    their bits. Prefix tokens pass through. The module that is run is the user's own, and has no hook of this left after the
    block, also if the block ends in an error or by Ctrl-C.

    Parameters
    ----------
    models : Model or mapping of str to Model
        The models by name: which layer of which network. All of them are edited.
    sae : UniversalSAE or Autoencoder
        The autoencoder. Its parameters are copied to the devices of the networks; an `Autoencoder` is used where it is, with
        gradients for its parameters, and saves the copying where a block is entered often.
    edits : Edit, sequence of Edit, or mapping of str to these
        What is done, in this order. A mapping has the edits of each model. Default: (), which changes nothing.
    name : str, optional
        The name in `sae` of the model if `models` is a single one. Default: None, for an autoencoder of one model.
    error : bool
        Whether the part of the tokens stays that the autoencoder does not explain. Otherwise all tokens become the
        reconstruction from their edited codes. Default: True.
    mask : array or Tensor of bool, optional
        Tokens that may change at all: [tokens], [rows, columns], [images, tokens] or [images, rows, columns]. Edits may have
        masks too. Default: None, which means all.

    Returns
    -------
    context manager
        For one ``with`` block. It edits the passes of the thread that enters it.

    Raises
    ------
    InvalidInputError
        For arguments that cannot be used; within the block for codes and masks that do not fit the images, and for a layer
        whose tokens cannot be put back where they come from.

    Notes
    -----
    Tokens are encoded in float32 also under `torch.autocast`, so that codes are those of `UniversalSAE.encode`. Gradients pass
    through the edits. Of a layer that runs several times in a pass the first call is edited, which is the one that `Model`
    reads. Compiled networks run as plain Python within the block. A layer that has not run in it is a warning. Without edits
    (and with `error`) there are no hooks at all; a hook by itself makes `torch.nn.TransformerEncoderLayer` compute without its
    fused kernel, which rounds differently.

    Examples
    --------
    >>> with usae.torch.intervene({"vit": model}, sae, usae.torch.Edit.ablate(1530)):
    ...     logits = network(images)
    """
    given = _by_name(models, sae, name)
    wanted = _edits_by_name(edits, given)
    error = checks.boolean(error, "error")
    mask = checked_place(mask)
    editors: list[tuple[Model, EditFunction]] = []
    for model_name, model in given.items():
        encoder, decoder = modules_of(sae, model_name, model.device)
        _check_concepts(wanted[model_name], encoder.n_concepts)
        editor = Editor(encoder, decoder, wanted[model_name], error, mask)
        if not editor.changes_nothing:
            editors.append((model, editor.__call__))
    return editing(editors)


def _by_name(models: Any, sae: object, name: object) -> dict[str, Model]:
    names = names_of(sae)
    if isinstance(models, Model):
        if name is None and len(names) > 1:
            raise InvalidInputError(
                f"name must be that of the model, one of {', '.join(map(checks.shown, names))}, got None; or give models= as a "
                f"mapping from names"
            )
        name = names[0] if name is None else name
        check_known(name, names, "name")
        return {str(name): models}
    if name is not None:
        raise InvalidInputError(f"name must be None unless models is a single usae.torch.Model, got {checks.shown(name)}")
    if not isinstance(models, Mapping) or not models:
        raise InvalidInputError(
            f"models must be a usae.torch.Model or a mapping from names to such, got {checks.shown(models)}"
        )
    for each, model in models.items():
        check_known(each, names, "models")
        if not isinstance(model, Model):
            raise InvalidInputError(
                f"models[{each!r}] must be a usae.torch.Model, got {type(model).__name__}; usae.torch.Model(module) makes one"
            )
    return dict(models)


def _edits_by_name(edits: Any, models: Mapping[str, Model]) -> dict[str, tuple[Edit, ...]]:
    if isinstance(edits, Mapping):
        for name in edits:
            check_known(name, list(models), "edits")
        return {name: _as_edits(edits.get(name, ()), f"edits[{name!r}]") for name in models}
    return dict.fromkeys(models, _as_edits(edits, "edits"))


def _as_edits(edits: Any, label: str) -> tuple[Edit, ...]:
    given = [edits] if isinstance(edits, Edit) else checks.listed(edits, label, "usae.torch.Edit or a sequence of them")
    for edit in given:
        if not isinstance(edit, Edit):
            raise InvalidInputError(
                f"{label} must be usae.torch.Edit or a sequence of them, got {checks.shown(edit)}; for example "
                f"usae.torch.Edit.ablate(1530)"
            )
    return tuple(given)


def _check_concepts(edits: tuple[Edit, ...], n_concepts: int) -> None:
    for edit in edits:
        for concept in edit.concepts:
            checks.integer(concept, "concepts", 0, n_concepts - 1)
