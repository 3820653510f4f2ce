"""The universal sparse autoencoder."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from usae._base import checks
from usae._base.progress import progress_bar
from usae._core import resolved_recipe
from usae._core.evaluation import evaluate
from usae._core.fitted import Fitted
from usae._core.reports import StepReport, StreamReport
from usae._core.tensors import TRAINED
from usae._data.activations import (
    Activations,
    as_activations,
    as_aligned,
    as_float_array,
    check_known,
    check_names,
    check_width,
)
from usae._data.read_ahead import ReadAhead
from usae._data.shuffle_buffer import ShuffleBuffer, check_repeatable
from usae._estimator.codes import Codes
from usae._training import loop, run_identity
from usae._training.checkpoint_schedule import CheckpointSchedule, as_schedule
from usae.errors import InvalidInputError, NotInitializedError
from usae.recipes import Recipe

if TYPE_CHECKING:
    from usae.analysis.evaluation import Evaluation

logger = logging.getLogger("usae")

LARGEST_PREACTIVATIONS = 2**30
"""Bytes of a dense array that `UniversalSAE.preactivations` is willing to make."""


class UniversalSAE:
    """One sparse code for the activations of several models (Thasarathan et al., ICML 2025).

    Each model has an encoder and a dictionary. A code made by any encoder can be decoded by any dictionary: to what that
    model should have computed at the same place of the same image.

    Follows scikit-learn's conventions: arguments are stored and first checked when they are used, `fit` starts anew and
    returns the object, learned attributes end in an underscore.

    Parameters
    ----------
    n_concepts : int
        Dimensions of the code.
    k : int
        Most concepts that can be active in a token; with ``recipe.selection="batchtopk"`` how many are on average.
    recipe : Recipe, optional
        How to learn. Left out: `usae.recipes.default()`.
    seed : int
        Of everything random, from 0 to 2**64 - 1. The same seed and data give the same bits.
    n_threads : int, optional
        Left out: that of `usae.set_num_threads`, or all cores. Results do not depend on it.

    Attributes
    ----------
    model_names_ : tuple of str
        The models, in the order of the mapping that was first given.
    n_features_in_ : dict of str to int
        Width of each model.
    recipe_ : Recipe
        The recipe with what depends on the data filled in.
    n_steps_ : int
        Training steps done.
    history_ : list of dict
        `StepReport.to_dict` of each of the first 10,000 steps and every hundredth after them, in a list of its own each time.
        Where `fit` evaluated held-out activations, "validation" holds "n_tokens", "r2" [M][M] and "l0" [M].
    stream_report_ : StreamReport or None
        How the last `fit_stream` spent its time; None after other training. Not saved.

    Examples
    --------
    >>> sae = usae.UniversalSAE(n_concepts=6144, k=32).fit({"dinov2": a, "siglip": b, "vit": c})
    >>> codes = sae.encode(a[:1000], "dinov2")
    >>> sae.decode(codes, "vit")  # what the ViT should have computed for these rows
    """

    def __init__(
        self,
        n_concepts: int = 6144,
        k: int = 32,
        *,
        recipe: Recipe | None = None,
        seed: int = 0,
        n_threads: int | None = None,
    ):
        self.n_concepts = n_concepts
        self.k = k
        self.recipe = recipe
        self.seed = seed
        self.n_threads = n_threads

    # --- Parameters of the estimator ---------------------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor; `deep` is there for scikit-learn."""
        return {name: getattr(self, name) for name in _PARAMS}

    def set_params(self, **params: Any) -> UniversalSAE:
        """Change arguments of the constructor, for the next `fit`. Returns the object."""
        for name in params:
            if name not in _PARAMS:
                raise InvalidInputError(f"unknown parameter {name!r}; the parameters are {', '.join(_PARAMS)}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        arguments = [f"n_concepts={self.n_concepts!r}", f"k={self.k!r}"]
        arguments += [f"recipe={self.recipe.name!r}"] if isinstance(self.recipe, Recipe) else []
        arguments += [f"seed={self.seed!r}"]
        if self._fitted is None:
            return f"UniversalSAE({', '.join(arguments)})"
        widths = ", ".join(f"{name}: {width}" for name, width in self._fitted.widths.items())
        return f"UniversalSAE({', '.join(arguments)}; {widths}; {self.n_steps_} steps)"

    # --- What was learned --------------------------------------------------------------------------------------------

    @property
    def model_names_(self) -> tuple[str, ...]:
        return self._initialized().names

    @property
    def n_features_in_(self) -> dict[str, int]:
        return self._initialized().widths

    @property
    def recipe_(self) -> Recipe:
        return self._initialized().recipe

    @property
    def n_steps_(self) -> int:
        return self._initialized().core.step_count

    @property
    def history_(self) -> list[dict[str, Any]]:
        return self._initialized().history

    @property
    def stream_report_(self) -> StreamReport | None:
        return self._initialized().stream_report

    def __sklearn_is_fitted__(self) -> bool:
        return self._fitted is not None

    # --- Learning ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        acts: Mapping[str, Any],
        *,
        epochs: float | None = None,
        steps: int | None = None,
        validation: Mapping[str, Any] | None = None,
        callbacks: Iterable[Callable[[StepReport], object]] = (),
        checkpoint: str | os.PathLike[str] | CheckpointSchedule | None = None,
        resume: bool = False,
        progress: bool | None = None,
    ) -> UniversalSAE:
        """Learn from aligned activations, starting anew.

        Parameters
        ----------
        acts : mapping of str to array, each [n_tokens, width] or [images, tokens, width]
            Row t of every model is the same place in the same image. NumPy arrays, memory maps or PyTorch CPU tensors of
            float16, bfloat16, float32 or float64, with any strides; read where they lie and never modified. Or an
            `ActivationStore`, which is read block by block, in the background.
        epochs : float, optional
            Passes over the rows, in an order that the seed decides.
        steps : int, optional
            Batches instead of epochs. Left out both: what the recipe plans; without such a plan one epoch, but at least
            1,000 steps.
        validation : mapping of str to array, optional
            Held-out activations of the same models. Checked at the start, then evaluated into `history_`: at each fifth
            of the run on 2,048 of their rows, and at the end on all.
        callbacks : iterable of callables
            Each is given the `StepReport` after every step; a true result ends the training.
        checkpoint : path-like or Checkpoints, optional
            A folder in which the state of training is kept: every ten minutes, or as `usae.Checkpoints` says, at the end, and
            before an exception, Ctrl-C or SIGTERM ends the training.
        resume : bool
            Go on with the run in `checkpoint`, to the bits of one that was never stopped; start anew where there is none.
        progress : bool, optional
            Show a bar. Left out: where stderr is a terminal, or in a notebook.

        Returns
        -------
        UniversalSAE
            This object.

        Raises
        ------
        InvalidInputError
            For arguments and data that cannot be used, and for a run in `checkpoint` that has other data, recipe, sizes or
            seed, or that nobody asked to resume. The object is as it was before the call.
        CheckpointError
            For a run in `checkpoint` that is damaged.
        CheckpointFileError
            Also an OSError: `checkpoint` cannot be read, holds something else, or cannot be written at the end of the run. In
            the middle that is a warning, and training goes on.

        Notes
        -----
        A batch has ``recipe.batch_size`` rows, or all rows if there are fewer. All of `acts` is looked at once before
        training, so that a NaN in the last row is an error now and not hours from now; of a store, whose activations are
        finite, every file is compared with its checksum. Rows of a store are shuffled by blocks (docs/stores.md); one of at
        most 65,536 rows gives the bits of the same rows in arrays. After Ctrl-C, an exception in a callback, or a loss that
        overflows, the object has what was learned so far. With checkpoints, Ctrl-C and SIGTERM wait for the end of the step; a
        second one does not. docs/long_runs.md says more.
        """
        schedule = as_schedule(checkpoint, resume)
        given = as_aligned(acts, "acts")
        widths = {name: x.width for name, x in given.items()}
        held_out = None if validation is None else as_aligned(validation, "validation", widths)
        checked = loop.checked_callbacks(callbacks)
        n_tokens = next(iter(given.values())).n_tokens
        recipe = resolved_recipe.resolved_for_fit(self._checked_recipe(), len(given), n_tokens, epochs, steps)
        total, batch_size = int(recipe.total_steps or 0), recipe.batch_size

        fitted = Fitted(self.get_params(), recipe)
        fitted.initialize_from(given)
        fitted.check_finite(given)  # before hours of training, not after
        loop.check_validation(fitted, held_out)
        logger.info(
            "training %d concepts on %d tokens of %s: %d steps of %d tokens; a concept is dead in a model after %d "
            "tokens without firing", fitted.n_concepts, n_tokens, ", ".join(widths), total, batch_size, recipe.dead_tokens
        )  # fmt: skip

        run = functools.partial(run_identity.described, "fit", fitted, {"acts": given, "validation": held_out})
        with loop.kept(fitted, schedule, resume, run) as keeper:
            done = fitted.core.step_count
            bar = progress_bar(total, progress, initial=done)
            self._fitted = fitted
            with bar, contextlib.closing(loop.batches_of(given, fitted.seed, batch_size, done)) as batches:
                loop.train(fitted, batches, total, held_out, checked, bar, keeper)
        return self

    def fit_stream(
        self,
        batches: Iterable[Mapping[str, Any]],
        *,
        steps: int | None = None,
        buffer_tokens: int = 65_536,
        validation: Mapping[str, Any] | None = None,
        callbacks: Iterable[Callable[[StepReport], object]] = (),
        checkpoint: str | os.PathLike[str] | CheckpointSchedule | None = None,
        resume: bool = False,
        progress: bool | None = None,
    ) -> UniversalSAE:
        """Learn from batches as they come, starting anew; nothing but a bounded buffer of rows is kept.

        A background thread takes the next batch while this one trains, so `batches` may compute them, on a GPU for one.

        Parameters
        ----------
        batches : iterable of mappings of str to array
            Each as for `fit`, of any number of images or rows; `usae.torch.batches` makes such. A list, or another object
            that can be gone through again, is begun anew when it ends. A generator cannot be: if it ends early, training
            goes on with what is in the buffer, and what is lacking then is an error.
        steps : int, optional
            Left out: those that the recipe plans.
        buffer_tokens : int
            Rows in which tokens mix: every batch is drawn from all of them, at random. It is filled before the first step;
            standardisation and initial dictionaries come from these first rows, so they should be varied.
        validation, callbacks, checkpoint, progress
            As for `fit`.
        resume : bool
            As for `fit`, for batches that can be gone through again and are the same each time: those of the steps that are
            done are taken once more, without training.

        Returns
        -------
        UniversalSAE
            This object. `stream_report_` tells its speed, and who waited for whom.

        Raises
        ------
        InvalidInputError
            For arguments, or batches before the first step, that cannot be used; the object is as before. For such batches
            later, and where rows run out; the object has what was learned so far.
        CheckpointError, CheckpointFileError
            As `fit`.

        Notes
        -----
        The same batches and seed give the same bits, whatever the timing. Each row of an epoch is trained on once, but for
        those that are in the buffer at the end.
        """
        schedule = as_schedule(checkpoint, resume)
        checked = loop.checked_callbacks(callbacks)
        recipe = self._checked_recipe()
        if resume:
            check_repeatable(batches)
        if steps is None and recipe.total_steps is None:
            raise InvalidInputError("steps must be given, because a stream does not tell its length, got None")
        buffer_tokens = checks.integer(buffer_tokens, "buffer_tokens", recipe.batch_size, 2**40, ", recipe.batch_size at least")
        buffer = ShuffleBuffer(batches, buffer_tokens)
        sample = buffer.sample
        widths = {name: x.width for name, x in sample.items()}
        held_out = None if validation is None else as_aligned(validation, "validation", widths)
        n_tokens = next(iter(sample.values())).n_tokens
        recipe = resolved_recipe.resolved_for_fit(recipe, len(widths), n_tokens, None, steps)
        total, batch_size = int(recipe.total_steps or 0), recipe.batch_size
        fitted = Fitted(self.get_params(), recipe)
        fitted.initialize_from(sample)
        loop.check_validation(fitted, held_out)
        logger.info("training on a stream of %s: %d steps of %d tokens", ", ".join(widths), total, batch_size)

        run = functools.partial(
            run_identity.described, "fit_stream", fitted, {"batches": sample, "validation": held_out}, buffer_tokens
        )  # fmt: skip
        with loop.kept(fitted, schedule, resume, run) as keeper:
            before = fitted.core.step_count
            bar = progress_bar(total, progress, initial=before)
            self._fitted = fitted
            start = time.perf_counter()
            with bar, ReadAhead(buffer.draw(fitted.seed, batch_size, total)) as drawn:
                try:
                    if before < total:
                        loop.skip(drawn, before, keeper)
                    loop.train(fitted, drawn, total, held_out, checked, bar, keeper)
                finally:
                    done = fitted.core.step_count - before
                    fitted.stream_report = StreamReport(
                        done, done * batch_size, buffer.tokens_read, buffer.epochs, time.perf_counter() - start,
                        drawn.waited_for_items, drawn.waited_for_room,
                    )  # fmt: skip
        return self

    def initialize(self, widths: Mapping[str, int]) -> UniversalSAE:
        """Allocate and seed parameters without data, starting anew. Returns the object.

        Parameters
        ----------
        widths : mapping of str to int
            Width of each model's activations.

        Notes
        -----
        Nothing is known about the data: standardisation has mean 0 and scale 1 until `set_parameters` changes it, and
        "data" initialisation becomes "tied".
        """
        if not isinstance(widths, Mapping):
            raise InvalidInputError(f"widths must be a mapping from model names to integers, got {type(widths).__name__}")
        check_names(widths, "widths")
        for name, width in widths.items():
            checks.integer(width, f"widths[{name!r}]", 1, 2**20)
        widths = {name: int(width) for name, width in widths.items()}
        fitted = Fitted(self.get_params(), resolved_recipe.resolved(self._checked_recipe(), len(widths)))
        fitted.initialize(widths)
        self._fitted = fitted
        return self

    def partial_fit(self, batch: Mapping[str, Any], *, encoder: str | None = None) -> StepReport:
        """Do one training step on all rows of a batch, going on from where the object is.

        Parameters
        ----------
        batch : mapping of str to array
            As for `fit`. The first one, on an object without parameters, also decides models, standardisation and initial
            dictionaries, so it should be large and varied.
        encoder : str, optional
            The model to encode. Left out: drawn.

        Returns
        -------
        StepReport

        Notes
        -----
        Without ``recipe.total_steps`` the learning rate stays constant after the warm-up. Where a plan, that of an earlier
        `fit` for one, has run out and has left a rate of 0, a warning says so: `set_total_steps` makes a new one. A bad
        batch raises InvalidInputError and changes nothing.
        """
        fitted = self._fitted
        if fitted is None:
            given = as_aligned(batch, "batch")
            index = _index(encoder, given)
            fitted = Fitted(self.get_params(), resolved_recipe.resolved(self._checked_recipe(), len(given)))
            fitted.initialize_from(given)
        else:
            given = as_aligned(batch, "batch", fitted.widths)
            index = _index(encoder, fitted.names)
        loop.warn_of_lost_optimizer(fitted, stacklevel=3)
        report = fitted.step(given, None, index, False)
        loop.record_single(fitted, report, stacklevel=3)
        self._fitted = fitted
        return report

    def set_total_steps(self, total_steps: int | None) -> UniversalSAE:
        """Change how many steps the run is planned to have, those done included. Returns the object.

        Parameters
        ----------
        total_steps : int or None
            What the learning rate's decay is laid out for; None: unknown, so that the rate stays constant after warm-up.
        """
        fitted = self._initialized()
        if total_steps is not None:
            total_steps = checks.integer(total_steps, "total_steps", max(1, fitted.core.step_count), 2**53)
        recipe = dataclasses.replace(fitted.recipe, total_steps=total_steps)  # which looks at it beside the warm-up
        fitted.core.set_plan(recipe.total_steps or 0, recipe.dead_tokens or 0)
        return self

    def gradients(self, batch: Mapping[str, Any], *, encoder: str) -> tuple[StepReport, dict[str, dict[str, np.ndarray]]]:
        """The raw gradients that a step on this batch would use, before clipping. Changes nothing.

        Parameters
        ----------
        batch : mapping of str to array
            As for `partial_fit`.
        encoder : str
            The model to encode.

        Returns
        -------
        StepReport
            Of the step that was not done.
        dict of str to dict of str to ndarray
            By model and tensor ("encoder_weight", "encoder_bias", "bn_weight", "bn_bias", "dictionary"), shapes as in
            `parameters`; only the tensors that the step would change.
        """
        fitted = self._initialized()
        given = as_aligned(batch, "batch", fitted.widths)
        index = fitted.index(encoder, "encoder")
        report = fitted.step(given, None, index, True)
        of_encoder = [name for name in fitted.parameter_names() if name in TRAINED]
        result = {}
        for number, name in enumerate(fitted.names):
            if number == index or fitted.recipe.update == "all":
                tensors = of_encoder if number == index else ["dictionary"]
                result[name] = {tensor: fitted.read(number, f"{tensor}_gradient") for tensor in tensors}
        return report, result

    # --- Use ---------------------------------------------------------------------------------------------------------

    def encode(self, x: Any, model: str) -> Codes:
        """Codes of a model's activations.

        Parameters
        ----------
        x : array, [n_tokens, width] or [images, tokens, width]
            In the model's own units; 3-D input counts as its rows one after the other.
        model : str
            Whose activations they are.

        Returns
        -------
        Codes
            Most active first (ties: lower index first), with k slots, or ``recipe.k_max`` with "batchtopk". A token's code
            does not depend on the other rows.
        """
        fitted = self._initialized()
        index, activations = self._one_model(x, model)
        values = np.empty((activations.n_tokens, fitted.core.slots), np.float32)
        indices = np.empty((activations.n_tokens, fitted.core.slots), np.int32)
        fitted.core.encode(index, activations.native, values, indices)
        return Codes._trusted(values, indices, fitted.n_concepts)

    def decode(self, codes: Codes, model: str) -> np.ndarray:
        """What a model should have computed, float32 [n_tokens, width], in its own units."""
        fitted = self._initialized()
        index = fitted.index(model)
        if not isinstance(codes, Codes):
            raise InvalidInputError(
                f"codes must be usae.Codes, as encode makes them or usae.Codes(values, indices, n_concepts), got "
                f"{type(codes).__name__}"
            )
        if codes.n_concepts != fitted.n_concepts:
            raise InvalidInputError(
                f"codes must be of {fitted.n_concepts} concepts, as this autoencoder's are, got {codes.n_concepts}"
            )
        out = np.empty((len(codes), fitted.widths[model]), np.float32)
        if codes.k == 0:
            out[:] = fitted.read(index, "mean")
        elif len(codes):
            fitted.core.decode(index, codes.values, codes.indices, out)
        return out

    def reconstruct(self, x: Any, source: str, target: str) -> np.ndarray:
        """What `target` should have computed where `source` computed `x`: ``decode(encode(x, source), target)``."""
        self._initialized().index(source, "source")
        self._initialized().index(target, "target")
        return self.decode(self.encode(x, source), target)

    def preactivations(self, x: Any, model: str) -> np.ndarray:
        """What ReLU and TopK are given, dense float32 [n_tokens, n_concepts].

        For looking at few tokens: an array above 1 GiB is refused.
        """
        fitted = self._initialized()
        index, activations = self._one_model(x, model)
        shape = activations.n_tokens, fitted.n_concepts
        if 4 * shape[0] * shape[1] > LARGEST_PREACTIVATIONS:
            raise InvalidInputError(
                f"pre-activations of {shape[0]:,} tokens would take {4 * shape[0] * shape[1] / 2**30:.1f} GiB; give at most "
                f"{max(1, LARGEST_PREACTIVATIONS // (4 * shape[1])):,} rows at a time, or use encode"
            )
        out = np.empty(shape, np.float32)
        fitted.core.preactivations(index, activations.native, out)
        return out

    def evaluate(self, acts: Mapping[str, Any], *, threshold: float = 0.0) -> Evaluation:
        """Encode and decode aligned activations through every pair of models.

        One pass; memory does not grow with the number of rows.

        Parameters
        ----------
        acts : mapping of str to array
            As for `fit`, best rows that were not trained on; every model has to be there.
        threshold : float
            A concept fires in a token when its code is above it. 0: whenever TopK chose it; published numbers use 0.1.
        """
        fitted = self._initialized()
        threshold = checks.real(threshold, "threshold", "a finite number of at least 0")
        return self._evaluated(as_aligned(acts, "acts", fitted.widths), threshold)

    # --- Parameters of the models ------------------------------------------------------------------------------------

    def dictionary(self, model: str, units: Literal["standardized", "model"] = "standardized") -> np.ndarray:
        """What each concept adds to a model's activations when its code is 1, float32 [n_concepts, width].

        Parameters
        ----------
        model : str
        units : "standardized" or "model"
            Rows of norm 1 in standardised units, or those multiplied by the model's scale.
        """
        fitted = self._initialized()
        index = fitted.index(model)
        if units not in ("standardized", "model"):
            raise InvalidInputError(f'units must be "standardized" or "model", got {units!r}')
        dictionary = fitted.read(index, "dictionary")
        norms = np.linalg.norm(dictionary, axis=1, keepdims=True)
        dictionary /= norms + np.float32(fitted.recipe.dictionary_epsilon)
        if units == "model":
            dictionary *= fitted.read(index, "scale")
        return dictionary

    def parameters(self, model: str) -> dict[str, np.ndarray]:
        """Copies of a model's parameters, float32.

        Returns
        -------
        dict of str to ndarray
            mean, scale [width]; encoder_weight, dictionary [n_concepts, width]; encoder_bias [n_concepts]; with the
            "batchnorm" encoder also bn_weight, bn_bias, bn_running_mean, bn_running_var [n_concepts]; with
            "batchtopk" selection also threshold [1], 0 before the first step. The dictionary is as trained; `dictionary`
            has its rows at norm 1.
        """
        fitted = self._initialized()
        index = fitted.index(model)
        return {name: fitted.read(index, name) for name in fitted.parameter_names()}

    def set_parameters(self, model: str, parameters: Mapping[str, Any]) -> None:
        """Replace some or all of a model's parameters.

        Parameters
        ----------
        model : str
        parameters : mapping of str to array
            By the names that `parameters` uses, in the same shapes.

        Raises
        ------
        InvalidInputError
            For an unknown name, a wrong shape, a value that is not finite, a scale that is not positive, or a negative
            variance. Nothing is changed then.
        """
        fitted = self._initialized()
        index = fitted.index(model)
        if not isinstance(parameters, Mapping):
            raise InvalidInputError(f"parameters must be a mapping from names to arrays, got {type(parameters).__name__}")
        for name in parameters:
            if name not in fitted.parameter_names():
                raise InvalidInputError(
                    f"parameters: unknown name {name!r}; this recipe has {', '.join(fitted.parameter_names())}"
                )
        new = {
            name: _checked_parameter(value, f"parameters[{name!r}]", fitted.shape(index, name))
            for name, value in parameters.items()
        }
        old = {name: fitted.read(index, name) for name in new}
        try:
            for name, values in new.items():
                fitted.write(index, name, values)
        except BaseException:
            for name, values in old.items():
                fitted.write(index, name, values)
            raise

    # --- Files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, training_state: bool = False) -> None:
        """Write a folder with ``model.safetensors`` and ``usae.json``, for `usae.load`.

        Parameters
        ----------
        path : path-like
            The folder. Its parent has to exist. If it holds a save already, that one is replaced, and at each moment of
            the replacement, even if the computer stops, `usae.load` finds the old one or the new one, whole.
        training_state : bool
            Also write the state of the optimiser, for going on with `partial_fit` to the same bits as without a stop. The
            file is then three times as large.

        Raises
        ------
        CheckpointFileError
            Also an OSError: the folder cannot be written, or holds something else.
        """
        from usae._saved import saved_folder

        saved_folder.save(self._initialized(), path, training_state)

    def save_history(self, path: str | os.PathLike[str]) -> None:
        """Write `history_` as a CSV file, a row for each entry, for pandas or a spreadsheet.

        Parameters
        ----------
        path : path-like
            The file; one that is there is replaced. Columns are named as in `StepReport`, with "losses.vit" for the loss of the
            model "vit" and, empty but for the steps with an evaluation, "validation.n_tokens", "validation.l0.vit" and
            "validation.r2.dinov2->vit", which is encoded from DINOv2. "nan" is a number that the recipe does not need.

        Raises
        ------
        CheckpointFileError
            Also an OSError: the file cannot be written.
        """
        from usae._training import history_table

        fitted = self._initialized()
        history_table.save_csv(fitted.history, fitted.names, path)

    def __getstate__(self) -> dict[str, Any]:
        state = self.get_params()
        if self._fitted is not None:
            from usae._saved.state import snapshot

            state["_saved"] = snapshot(self._fitted, training_state=True)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        saved = state.pop("_saved", None)
        self.__init__(**state)  # type: ignore[misc]
        if saved is not None:
            from usae._saved.state import restored

            header, tensors = saved
            self._fitted = restored(header, tensors, self.n_threads)

    # --- Private -----------------------------------------------------------------------------------------------------

    _fitted: Fitted | None = None

    @classmethod
    def _of(cls, fitted: Fitted, n_threads: int | None) -> UniversalSAE:
        sae = cls(fitted.n_concepts, fitted.k, recipe=fitted.given_recipe, seed=fitted.seed, n_threads=n_threads)
        sae._fitted = fitted
        return sae

    def _initialized(self) -> Fitted:
        if self._fitted is None:
            raise NotInitializedError(
                "this UniversalSAE has no parameters yet; call fit(acts), partial_fit(batch) or initialize(widths) first, "
                "or use usae.load(path)"
            )
        return self._fitted

    def _evaluated(self, acts: Mapping[str, Activations], threshold: float) -> Evaluation:
        """`evaluate`, of activations that were checked."""
        from usae.analysis.evaluation import Evaluation

        fitted, n_tokens = self._initialized(), next(iter(acts.values())).n_tokens
        return Evaluation(fitted.names, n_tokens, threshold, **evaluate(fitted, acts, threshold))

    def _checked_recipe(self) -> Recipe:
        if self.recipe is None:
            return Recipe()
        if not isinstance(self.recipe, Recipe):
            raise InvalidInputError(
                f"recipe must be a usae.Recipe or None, got {type(self.recipe).__name__}; see usae.recipes and "
                f"usae.Recipe.from_dict"
            )
        return self.recipe

    def _one_model(self, x: object, model: str) -> tuple[int, Activations]:
        fitted = self._initialized()
        index = fitted.index(model)
        activations = as_activations(x, "x")
        check_width(activations, model, fitted.widths[model])
        return index, activations


_PARAMS = ("n_concepts", "k", "recipe", "seed", "n_threads")


def _index(encoder: object, names: Iterable[str]) -> int:
    """What the core takes for the model to encode: -1 for one that is drawn."""
    names = list(names)
    if encoder is None:
        return -1
    check_known(encoder, names, "encoder")
    return names.index(encoder)  # type: ignore[arg-type]


def _checked_parameter(value: object, label: str, shape: tuple[int, ...]) -> np.ndarray:
    array, bfloat16 = as_float_array(value, label)
    if array.shape != shape:
        raise InvalidInputError(f"{label} must have shape {list(shape)}, got {list(array.shape)}")
    if bfloat16:  # the upper half of a float32
        array = (array.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite, and is refused as that
        array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        position = np.argwhere(~np.isfinite(array))[0].tolist()
        raise InvalidInputError(f"{label} must be finite as float32, got {array[tuple(position)]} at {position}")
    return array


def load(path: str | os.PathLike[str], *, n_threads: int | None = None) -> UniversalSAE:
    """Read an autoencoder that `UniversalSAE.save` wrote.

    Parameters
    ----------
    path : path-like
        The folder.
    n_threads : int, optional
        As for `UniversalSAE`; it belongs to the computer and is not saved.

    Raises
    ------
    CheckpointError
        For a folder that is damaged, foreign, or from a newer version.
    CheckpointFileError
        Also an OSError: the folder cannot be read.
    """
    from usae._saved import saved_folder

    fitted = saved_folder.load(path, n_threads)
    return UniversalSAE._of(fitted, n_threads)
