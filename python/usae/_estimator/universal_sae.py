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
from usae._base.float_types import widened
from usae._base.progress import checked as checked_progress
from usae._base.progress import progress_bar
from usae._base.tensors import on_cpu
from usae._core import resolved_recipe, rounding, standardization
from usae._core.autoencoder import Autoencoder
from usae._core.dictionary_rows import used_rows
from usae._core.evaluation import evaluate
from usae._core.reports import StepReport, StreamReport
from usae._core.standardization import StandardizationReport
from usae._core.tensors import OF_COLUMNS, PARAMETERS, RESTS
from usae._data.activations import (
    Activations,
    as_aligned,
    as_float_array,
    as_one_model,
    check_columns,
    check_known,
    check_names,
    columns_of,
    left_out,
)
from usae._data.columns import labels_of
from usae._data.read_ahead import ReadAhead
from usae._data.shuffle_buffer import ShuffleBuffer, check_repeatable
from usae._data.weakly_paired import as_batch, as_parts
from usae._estimator import constructor
from usae._estimator.codes import Codes
from usae._training import derived_noise, exclusive, loop, run_identity, watch
from usae._training.checkpoint_schedule import CheckpointSchedule, as_schedule
from usae.errors import InvalidInputError, NotInitializedError
from usae.recipes import Recipe

if TYPE_CHECKING:
    import pandas

    from usae._data.store import ActivationStore
    from usae._data.weakly_paired import Parts
    from usae._exchange.exporting import Export
    from usae._training.freezing import Keeping
    from usae.analysis.controls import Controls
    from usae.analysis.evaluation import Evaluation

logger = logging.getLogger("usae")

LARGEST_PREACTIVATIONS = 2**30
"""Bytes of the largest dense array that `UniversalSAE.preactivations` makes."""


class UniversalSAE:
    """One sparse code for the activations of several models (Thasarathan et al., ICML 2025).

    Each model has an encoder and a dictionary. A code from any encoder can be decoded by any dictionary: the result predicts
    that model's activations at the same place of the same image.

    The class follows scikit-learn's conventions: arguments are stored and checked when they are first used, `fit` trains from
    the beginning and returns the object, and learned attributes end in an underscore. It can be cloned and be the last step of
    a pipeline; subclasses may add arguments. Activations are mappings, so cross-validation cannot split them.

    Parameters
    ----------
    n_concepts : int
        Number of concepts, which is the dimension of the code. Default: 6144.
    k : int or float
        Largest number of concepts that are active in a token, an integer. With ``recipe.selection="batchtopk"`` it is the mean
        number, which may be fractional: a batch keeps ``int(k * n_tokens)`` concepts. Default: 32.
    recipe : Recipe, optional
        How to train. Default: None, which takes `usae.recipes.default()`.
    seed : int
        Seed of everything random, from 0 to 2**64 - 1. The same seed and data give the same bits. Default: 0.
    n_threads : int, optional
        Number of threads. Results do not depend on it. Default: None, which takes the number of `usae.set_num_threads`, or all
        cores.

    Attributes
    ----------
    model_names_ : tuple of str
        Names of the models, in the order of the mapping that was first given.
    n_features_in_ : dict of str to int
        Width of each model.
    feature_names_in_ : dict of str to list
        Labels of the columns of each model that was given as data frames or labelled arrays (pandas, Polars, xarray). Whatever
        takes activations of the model later refuses other labels, or another order of them; arrays without labels are taken
        as they are. Labels other than text and integers are kept as text.
    recipe_ : Recipe
        The recipe, in which fields that depend on the data are filled in.
    n_steps_ : int
        Number of training steps done.
    history_ : list of dict
        `StepReport.to_dict` of each of the first 10,000 steps and of every hundredth after them. The list is a new one each
        time. Where `fit` evaluated held-out activations, "validation" holds "n_tokens", "r2" [M][M] and "l0" [M] for M models.
    standardization_ : dict of str to StandardizationReport, or None
        What was found in each model's activations when `fit` computed their mean and scale: outlying and equal rows, dominating
        and constant dimensions. What calls for it was a warning, too. It is not saved.
    stream_report_ : StreamReport or None
        How the last `fit_stream` spent its time; None after other training. It is not saved.

    Examples
    --------
    >>> sae = usae.UniversalSAE(n_concepts=6144, k=32).fit({"dinov2": a, "siglip": b, "vit": c})
    >>> codes = sae.encode(a[:1000], "dinov2")
    >>> sae.decode(codes, "vit")  # predicts the activations of the ViT for these rows
    """

    def __init__(
        self,
        n_concepts: int = 6144,
        k: float = 32,
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
        """Return the arguments of the constructor, those of a subclass included.

        Parameters
        ----------
        deep : bool
            Whether to add the arguments of arguments that have such themselves, as "argument__name". Default: True.
        """
        params = {name: getattr(self, name) for name in constructor.names_of(type(self))}
        return constructor.with_nested(params) if deep else params

    def set_params(self, **params: Any) -> UniversalSAE:
        """Change arguments of the constructor for the next `fit`. Returns the object.

        Raises
        ------
        InvalidInputError
            For a name that is not one of the arguments, and while `fit` trains the object.
        """
        with exclusive.run(self, "set_params"):
            constructor.assign(self, constructor.names_of(type(self)), params)
        return self

    def __repr__(self) -> str:
        params = self.get_params(deep=False)
        arguments = [f"n_concepts={self.n_concepts!r}", f"k={self.k!r}"]
        arguments += [f"recipe={self.recipe.name!r}"] if isinstance(self.recipe, Recipe) else []
        arguments += [f"seed={self.seed!r}"]
        arguments += [f"{name}={value!r}" for name, value in params.items() if name not in constructor.names_of(UniversalSAE)]
        name = type(self).__name__
        if self._autoencoder is None:
            return f"{name}({', '.join(arguments)})"
        widths = ", ".join(f"{name}: {width}" for name, width in self._autoencoder.widths.items())
        return f"{name}({', '.join(arguments)}; {widths}; {self.n_steps_} steps)"

    # --- Learned attributes ------------------------------------------------------------------------------------------

    @property
    def model_names_(self) -> tuple[str, ...]:
        return self._initialized().names

    @property
    def n_features_in_(self) -> dict[str, int]:
        return self._initialized().widths

    @property
    def feature_names_in_(self) -> dict[str, list[str | int]]:
        return {name: list(labels) for name, labels in self._initialized().column_labels.items()}

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
    def standardization_(self) -> dict[str, StandardizationReport] | None:
        return self._initialized().standardization

    @property
    def stream_report_(self) -> StreamReport | None:
        return self._initialized().stream_report

    def __sklearn_is_fitted__(self) -> bool:
        return self._autoencoder is not None

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags  # only scikit-learn calls this

        inputs = InputTags(two_d_array=False, dict=True)
        return Tags(estimator_type=None, target_tags=TargetTags(required=False), input_tags=inputs)

    # --- Training ----------------------------------------------------------------------------------------------------

    @exclusive.training
    def fit(
        self,
        acts: Mapping[str, Any],
        y: object = None,
        *,
        epochs: float | None = None,
        steps: int | None = None,
        validation: Mapping[str, Any] | None = None,
        callbacks: Iterable[Callable[[StepReport], object]] = (),
        checkpoint: str | os.PathLike[str] | CheckpointSchedule | None = None,
        resume: bool = False,
        progress: bool | None = None,
        mask: Any = None,
        frozen: Iterable[str] = (),
    ) -> UniversalSAE:
        """Train on aligned activations from the beginning.

        Parameters
        ----------
        acts : mapping of str to array, each [n_tokens, width] or [images, tokens, width]; or WeaklyPaired
            Activations of each model. Row t of every model is the same place in the same image. They can be NumPy arrays,
            memory maps or PyTorch CPU tensors of float16, bfloat16, float32 or float64, with any strides; they are read without
            a copy and never modified. Or they are an `ActivationStore`, which is read block by block in the background. If only
            some rows are aligned, they are a `WeaklyPaired`.
        y : optional
            Not used. scikit-learn's pipelines pass labels here. Default: None.
        epochs : float, optional
            Number of passes over the rows. The seed decides the order of the rows. Default: None, see `steps`.
        steps : int, optional
            Number of batches, instead of epochs. Default: None, which takes ``recipe.total_steps``; if that is None, one epoch
            or 1,000 steps, whichever is longer.
        validation : mapping of str to array, optional
            Held-out activations of the same models, all of them aligned. They are checked at the start and evaluated during
            training, with results in `history_`: 2,048 of their rows at each fifth of the run, and all rows at its end.
            Default: None.
        callbacks : iterable of callables
            Each is called with the `StepReport` after every step. The result True ends the training, and no other does.
            Default: ().
        checkpoint : path-like or Checkpoints, optional
            Folder in which the state of training is saved: every ten minutes, or as `usae.Checkpoints` says, and at the end,
            and before an exception or a signal such as SIGTERM ends the training. Default: None, which saves nothing.
        resume : bool
            Whether to resume the run in `checkpoint`. The result has the same bits as without the interruption. If there is no
            run, training starts from the beginning. Default: False.
        progress : bool, optional
            Whether to show a progress bar. With True, where stderr is no terminal, as in the log of a scheduler, a line is
            printed there after the first step, every half minute and at the end. Default: None, which shows the bar in a
            terminal and in a notebook, and elsewhere gives a line every half minute to the logger "usae", at level INFO.
        mask : array of bool, or mapping of str to array of bool, optional
            Rows of `acts` that count, with shapes as for `MaskedActivations`. The others are never read, and the result has the
            bits of training on arrays without them. Default: None, which means all, or those that count by the mask that `acts`
            carries. `validation` can be a `MaskedActivations`.
        frozen : iterable of str
            Names of models that this object has and that stay as they are now, to the bit: parameters, standardisation and
            training state. All other models of `acts` are trained from the beginning, into the code of these. Without a
            `recipe` of the constructor, the steps are those of `add_model`. Default: (), which trains all.

        Returns
        -------
        UniversalSAE
            This object.

        Raises
        ------
        InvalidInputError
            For arguments and data that cannot be used; if `checkpoint` holds a run with other data, recipe, sizes or seed; if
            `checkpoint` holds a run and `resume` is False; or if the object is in training already, as in a callback of its
            own `fit` or in another thread. The object is as it was before the call.
        CheckpointError
            If the run in `checkpoint` is damaged.
        CheckpointFileError
            Also an OSError: `checkpoint` cannot be read, holds something else, or cannot be written at the end of the run. If
            it cannot be written earlier, that is a warning, and training continues.

        Notes
        -----
        A batch has ``recipe.batch_size`` rows divided by the number of models that a step encodes, or all rows if there are
        fewer. All of `acts` is read once before training, so
        that a NaN in the last row is found at once and not after hours. A store has only finite activations, so for a store
        every file is compared with its checksum instead. Rows of a store are shuffled by blocks (docs/stores.md). A store of
        at most 65,536 rows gives the same bits as the same rows in arrays. A loss or a validation that is worse than that of
        predicting the mean, or than at its start, is a warning that names the remedy (docs/training.md). After Ctrl-C, an
        exception in a callback, or a loss that overflows, the object keeps what it has learned. With checkpoints, Ctrl-C,
        SIGTERM and SIGHUP wait for the end of the step, but a second one does not if it comes some seconds later.
        docs/long_runs.md says more.
        """
        schedule = as_schedule(checkpoint, resume)
        if isinstance(y, Mapping):
            raise InvalidInputError("y must be labels, which are not used, or None, got a mapping; use validation=... for it")
        given = as_parts(acts, "acts", mask)
        held_out = None if validation is None else as_aligned(validation, "validation", given.columns)
        checked, progress = loop.checked_callbacks(callbacks), checked_progress(progress)
        keeping = self._keeping(frozen, given)
        plan = keeping.recipe if keeping else self._checked_recipe()
        recipe = resolved_recipe.resolved_for_fit(plan, len(given.columns), given.sizes, epochs, steps, given.shares)
        recipe = derived_noise.filled_in(recipe, plan, given.parts)
        total, tokens = int(recipe.total_steps or 0), resolved_recipe.part_tokens(recipe, given.sizes)

        autoencoder = Autoencoder(self._arguments(), recipe)
        autoencoder.initialize_from(*given.parts)
        loop.check_parts(autoencoder, given)  # before training, which may take hours
        if keeping:
            keeping.apply(autoencoder, given)
        reports = autoencoder.standardization or {}
        standardization.warn_of({name: reports[name] for name in reports if name not in autoencoder.frozen}, recipe)
        loop.check_validation(autoencoder, held_out)
        logger.info(
            "training %d concepts on %d tokens of %s%s: %d steps of %s tokens; a concept is dead in a model after %d "
            "tokens without firing", autoencoder.n_concepts, given.n_tokens, ", ".join(autoencoder.names),
            f" ({given.n_left_out} rows left out)" if given.n_left_out else "", total, " or ".join(map(str, tokens)),
            recipe.dead_tokens,
        )  # fmt: skip

        more = ({"acts.shares": given.shares} if given.shares else {}) | (keeping.described() if keeping else {})
        data = {"acts": given.arrays, "validation": held_out}
        run = functools.partial(run_identity.describe_run, "fit", autoencoder, data, more=more)
        with loop.checkpoint_writer(autoencoder, schedule, resume, run) as checkpoints:
            done = autoencoder.core.step_count
            bar = progress_bar(total, progress, initial=done)
            self._autoencoder = autoencoder
            try:
                with bar, contextlib.closing(loop.batches_of_parts(given, recipe, autoencoder.seed, done)) as batches:
                    loop.train(autoencoder, batches, total, held_out, checked, bar, checkpoints)
            finally:
                autoencoder.unfreeze()
        return self

    @exclusive.training
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
        """Train from the beginning on batches as they arrive. Only a bounded buffer of rows is kept in memory.

        A background thread takes the next batch while this one trains, so `batches` may compute them, for example on a GPU.

        Parameters
        ----------
        batches : iterable of mappings of str to array
            Batches of activations, each as for `fit`, with any number of images or rows; `usae.torch.batches` yields such. A
            list, or another object that can be iterated over again, starts again when it ends. A generator cannot. If it ends
            early, training continues with the rows in the buffer, until too few are left, which is an error. A batch may be a
            `MaskedActivations`; then only the rows that count are taken, and there may be none.
        steps : int, optional
            Number of training steps. Default: None, which takes ``recipe.total_steps``; one of the two must be given.
        buffer_tokens : int
            Number of rows in the buffer. Every batch is drawn at random from the whole buffer. The buffer is filled before the
            first step. Standardisation and initial dictionaries come from these first rows, so they should be varied.
            Default: 65_536.
        validation : mapping of str to array, optional
            Held-out activations, as for `fit`. Default: None.
        callbacks : iterable of callables
            Callbacks, as for `fit`. Default: ().
        checkpoint : path-like or Checkpoints, optional
            Folder of checkpoints, as for `fit`. Default: None.
        resume : bool
            Whether to resume the run in `checkpoint`, as for `fit`. `batches` must support iterating over them again, and must
            be the same each time: the batches of steps that are done are read again, without training. Default: False.
        progress : bool, optional
            Whether to show a progress bar, as for `fit`. Default: None.

        Returns
        -------
        UniversalSAE
            This object. `stream_report_` has its speed, and the times in which training and data waited for each other.

        Raises
        ------
        InvalidInputError
            For arguments that cannot be used, and for batches before the first step that cannot be used; the object is then as
            it was before the call. Also for later batches that cannot be used, and if rows run out; the object then keeps what
            it has learned.
        CheckpointError, CheckpointFileError
            As for `fit`.

        Notes
        -----
        The same batches and seed give the same bits, whatever the timing. Each row of an epoch is trained on once, except
        those that are still in the buffer at the end.
        """
        schedule = as_schedule(checkpoint, resume)
        checked, progress = loop.checked_callbacks(callbacks), checked_progress(progress)
        recipe = self._checked_recipe()
        if resume:
            check_repeatable(batches)
        if steps is None and recipe.total_steps is None:
            raise InvalidInputError("steps must be given, because a stream does not tell its length, got None")
        buffer_tokens = checks.integer(buffer_tokens, "buffer_tokens", recipe.batch_size, 2**40, ", recipe.batch_size at least")
        buffer = ShuffleBuffer(batches, buffer_tokens)
        sample = buffer.sample
        widths = {name: x.width for name, x in sample.items()}
        held_out = None if validation is None else as_aligned(validation, "validation", columns_of(sample))
        n_tokens = next(iter(sample.values())).n_tokens
        plan = recipe
        recipe = resolved_recipe.resolved_for_fit(plan, len(widths), [(len(widths), n_tokens)], None, steps)
        total, batch_size = int(recipe.total_steps or 0), resolved_recipe.step_tokens(recipe, len(widths))
        recipe = derived_noise.filled_in(recipe, plan, [sample], total * batch_size)
        autoencoder = Autoencoder(self._arguments(), recipe)
        autoencoder.initialize_from(sample)
        standardization.warn_of(autoencoder.standardization or {}, recipe)
        loop.check_validation(autoencoder, held_out)
        logger.info("training on a stream of %s: %d steps of %d tokens", ", ".join(widths), total, batch_size)

        run = functools.partial(
            run_identity.describe_run, "fit_stream", autoencoder, {"batches": sample, "validation": held_out}, buffer_tokens
        )  # fmt: skip
        with loop.checkpoint_writer(autoencoder, schedule, resume, run) as checkpoints:
            before = autoencoder.core.step_count
            bar = progress_bar(total, progress, initial=before)
            self._autoencoder = autoencoder
            start = time.perf_counter()
            with bar, ReadAhead(buffer.draw(autoencoder.seed, batch_size, total)) as drawn:
                try:
                    if before < total:
                        loop.skip(drawn, before, checkpoints)
                    loop.train(autoencoder, drawn, total, held_out, checked, bar, checkpoints)
                finally:
                    done = autoencoder.core.step_count - before
                    autoencoder.stream_report = StreamReport(
                        done, done * batch_size, buffer.tokens_read, buffer.epochs, time.perf_counter() - start,
                        drawn.waited_for_items, drawn.waited_for_reader, buffer.rows_left_out,
                    )  # fmt: skip
        return self

    def initialize(self, widths: Mapping[str, int]) -> UniversalSAE:
        """Allocate the parameters and initialise them from the seed, without data. Returns the object.

        Parameters
        ----------
        widths : mapping of str to int
            Width of each model's activations.

        Raises
        ------
        InvalidInputError
            For widths, or arguments of the constructor, that cannot be used, and while `fit` trains the object.

        Notes
        -----
        Without data, standardisation has mean 0 and scale 1 until `set_parameters` changes them, the initialisation "data"
        becomes "tied". Until then no row is outlying, because nothing tells how long a typical token is.
        """
        if not isinstance(widths, Mapping):
            raise InvalidInputError(f"widths must be a mapping from model names to integers, got {type(widths).__name__}")
        check_names(widths, "widths")
        for name, width in widths.items():
            checks.integer(width, f"widths[{name!r}]", 1, 2**20)
        widths = {name: int(width) for name, width in widths.items()}
        with exclusive.run(self, "initialize"):
            autoencoder = Autoencoder(self._arguments(), resolved_recipe.resolved(self._checked_recipe(), len(widths)))
            autoencoder.initialize(widths)
            self._autoencoder = autoencoder
        return self

    def partial_fit(self, batch: Mapping[str, Any], *, encoder: str | None = None, mask: Any = None) -> StepReport:
        """Do one training step on all rows of a batch, from the present state on.

        Parameters
        ----------
        batch : mapping of str to array
            Activations, as for `fit`. If the object has no parameters yet, the batch also decides the models, the
            standardisation and the initial dictionaries, so it should be large and varied. Rows that are all equal, such as a
            single one, are refused. A later batch may lack models if it is a `WeaklyPaired` of one part.
        encoder : str, optional
            Name of the model to encode, or of the first where the recipe encodes several (`Recipe.encoded_models`). Default:
            None, which draws it.
        mask : array of bool, or mapping of str to array of bool, optional
            Rows of `batch` that count, as for `fit`. Default: None.

        Returns
        -------
        StepReport
            Losses and counts of the step.

        Raises
        ------
        InvalidInputError
            For a batch that cannot be used, and while `fit` trains the object. Nothing is changed then.

        Notes
        -----
        Without ``recipe.total_steps`` the learning rate stays constant after the warm-up. If the planned steps are over, for
        example those of an earlier `fit`, and the learning rate is 0, a warning says so; `set_total_steps` plans more.
        """
        if self._autoencoder is None:
            with exclusive.run(self, "partial_fit"):  # another thread's first step would replace this one
                if self._autoencoder is None:  # still
                    return self._first_step(batch, encoder, mask)
        autoencoder = self._initialized()
        exclusive.check(self, "partial_fit")
        given = as_batch(batch, "batch", autoencoder.columns, mask)
        index = _index(encoder, autoencoder.names)
        rounding.check(autoencoder, given)
        loop.warn_of_lost_optimizer(autoencoder, stacklevel=3)
        report = autoencoder.step(given, None, index)
        loop.warn_of_end(autoencoder, report, stacklevel=3)
        watch.after_step(autoencoder, report, (given, None))
        return report

    def _first_step(self, batch: Mapping[str, Any], encoder: str | None, mask: Any) -> StepReport:
        """Do the step of `partial_fit` that also makes the parameters."""
        given = as_aligned(batch, "batch", mask=mask)
        index = _index(encoder, given)
        autoencoder = Autoencoder(self._arguments(), resolved_recipe.resolved(self._checked_recipe(), len(given)))
        autoencoder.initialize_from(given)
        standardization.warn_of(autoencoder.standardization or {}, autoencoder.recipe)
        report = autoencoder.step(given, None, index)
        loop.warn_of_end(autoencoder, report, stacklevel=4)
        self._autoencoder = autoencoder
        watch.after_step(autoencoder, report, (given, None))
        return report

    @exclusive.training
    def add_model(
        self,
        name: str,
        acts: Mapping[str, Any],
        *,
        epochs: float | None = None,
        steps: int | None = None,
        recipe: Recipe | None = None,
        callbacks: Iterable[Callable[[StepReport], object]] = (),
        progress: bool | None = None,
        mask: Any = None,
    ) -> UniversalSAE:
        """Train an encoder and a dictionary of one more model into the code, and leave all other models as they are.

        The rows of one of the other models are enough, and those of several are better: their codes say which concepts are
        active where. docs/training.md has an example, and what it costs.

        Parameters
        ----------
        name : str
            Name of the new model, which becomes the last one.
        acts : mapping of str to array
            Aligned activations of the new model and of one or more of the others, each as for `fit`. The others' are
            standardised as those that they were trained on.
        epochs : float, optional
            Number of passes over the rows. Default: None, see `steps`.
        steps : int, optional
            Number of batches, instead of epochs. Default: None, which takes a third of `n_steps_`. If that is 0, as for an
            autoencoder that was imported, it takes one epoch or 1,000 steps, whichever is longer.
        recipe : Recipe, optional
            How to train the new model. It must have the encoder, selection, k_max, dictionary_epsilon and dictionary_norm of
            `recipe_`, and encode two models or all. Default: None, which takes `recipe_` with two models in each step, the
            agreement term from the first step on (with weight 0.03, or that of `recipe_` if it is smaller and not 0), twice the
            learning rates that `fit` derives (if the constructor's recipe has none), and no merging of concepts.
        callbacks : iterable of callables
            Callbacks, as for `fit`. `StepReport` names the models of `acts` alone. Default: ().
        progress : bool, optional
            Whether to show a progress bar, as for `fit`. Default: None.
        mask : array of bool, or mapping of str to array of bool, optional
            Rows of `acts` that count, as for `fit`. Default: None.

        Returns
        -------
        UniversalSAE
            This object, with the new model.

        Raises
        ------
        InvalidInputError
            For a name that is taken; for `acts` without the new model, without any other, with unknown models, other widths or
            rows that are not aligned; and for other arguments and data that cannot be used. The object is then as it was.
            So it is after Ctrl-C, an exception in a callback, or a loss that overflows.

        Notes
        -----
        Parameters, and the optimiser's state, of the other models keep their bits. So do `n_steps_` and `history_`, in which
        the new model has no losses. Results do not depend on the number of threads. Later training, as by `partial_fit`, trains
        all models.
        """
        from usae._training import joining

        autoencoder = self._initialized()
        given = joining.checked(autoencoder, name, acts, mask)
        checked, progress = loop.checked_callbacks(callbacks), checked_progress(progress)
        steps = joining.steps_of_joining(autoencoder, epochs, steps)
        plan = joining.checked_recipe(autoencoder, recipe)
        n_tokens = given[name].n_tokens
        plan = resolved_recipe.resolved_for_fit(plan, len(given), [(len(given), n_tokens)], epochs, steps)
        self._autoencoder = joining.join(autoencoder, name, given, plan, checked, progress, self.n_threads)
        return self

    def set_total_steps(self, total_steps: int | None) -> UniversalSAE:
        """Change the planned number of steps of the whole run, on which the learning rate's decay depends. Returns the object.

        Parameters
        ----------
        total_steps : int or None
            Number of steps, those done included. None: unknown, so that the learning rate stays constant after the warm-up.

        Raises
        ------
        InvalidInputError
            For a number smaller than the steps done, and while `fit` or `fit_stream` trains the object: their number of steps
            is fixed when they start.
        """
        autoencoder = self._initialized()
        exclusive.check(self, "set_total_steps")  # after the line above: a run that starts now has an autoencoder of its own
        if total_steps is not None:
            total_steps = checks.integer(total_steps, "total_steps", max(1, autoencoder.core.step_count), 2**53)
        recipe = dataclasses.replace(autoencoder.recipe, total_steps=total_steps)  # checks that the warm-up is not longer
        autoencoder.core.set_plan(recipe.total_steps or 0, recipe.dead_tokens or 0)
        return self

    def gradients(
        self, batch: Mapping[str, Any], *, encoder: str, mask: Any = None
    ) -> tuple[StepReport, dict[str, dict[str, np.ndarray]]]:
        """Compute the gradients that a step on this batch would use, before clipping. Changes nothing.

        Parameters
        ----------
        batch : mapping of str to array
            Activations, as for `partial_fit`.
        encoder : str
            Name of the model to encode, or of the first where the recipe encodes several; the report names the others.
        mask : array of bool, or mapping of str to array of bool, optional
            Rows of `batch` that count, as for `fit`. Default: None.

        Returns
        -------
        StepReport
            The report that the step would have.
        dict of str to dict of str to ndarray
            Gradients by model and tensor ("encoder_weight", "encoder_bias", "bn_weight", "bn_bias", "dictionary"), with shapes
            as in `parameters`. Only the tensors that the step would change are in it.
        """
        autoencoder = self._initialized()
        given = as_batch(batch, "batch", autoencoder.columns, mask)
        index = autoencoder.index(encoder, "encoder")
        rounding.check(autoencoder, given)
        report, gradients = autoencoder.gradients(given, index)
        result: dict[str, dict[str, np.ndarray]] = {}
        for (number, tensor), array in gradients.items():
            result.setdefault(autoencoder.names[number], {})[tensor] = array
        return report, result

    # --- Use ---------------------------------------------------------------------------------------------------------

    def encode(self, x: Any, model: str, *, mask: Any = None) -> Codes:
        """Encode activations of a model.

        Parameters
        ----------
        x : array, [n_tokens, width] or [images, tokens, width]
            Activations in the model's own units. The codes of a 3-D array are those of its rows, image by image. Without rows
            the codes are empty. A tensor may be on any device: it is copied to the CPU's memory, where codes are computed;
            `usae.torch.Encoder` computes where the tensor is.
        model : str
            Name of the model that the activations are of.
        mask : array of bool, [n_tokens] or [images, tokens], optional
            Rows that count, with shapes as for `MaskedActivations`. The others are not read; they have empty codes, so that
            code t belongs to row t, and ``codes[mask.ravel()]`` are the codes of the rows that count. Default: None, which
            means all, or those that count by the mask of the store that `x` is from.

        Returns
        -------
        Codes
            Codes of all tokens, with the most active concept first (ties: lower index first). A token has k slots, or
            ``recipe.k_max`` with "batchtopk". Its code does not depend on the other rows.

        Raises
        ------
        InvalidInputError
            For an unknown model, a wrong width, and activations that are not finite, or whose code is not.
        """
        autoencoder = self._initialized()
        index, activations = self._one_model(x, model, mask)
        values = np.empty((activations.n_tokens, autoencoder.core.slots), np.float32)
        indices = np.empty((activations.n_tokens, autoencoder.core.slots), np.int32)
        if activations.n_tokens:
            autoencoder.core.encode(index, activations.native, values, indices)
        return Codes._trusted(_spread(values, activations, 0), _spread(indices, activations, -1), autoencoder.n_concepts)

    def decode(self, codes: Codes, model: str) -> np.ndarray:
        """Decode codes to activations of a model.

        Parameters
        ----------
        codes : Codes or usae.torch.TensorCodes
            Codes of n_tokens tokens, from any model's encoder or made by yourself. Tensors may be on any device: they are
            copied to the CPU's memory, where the result is computed; `usae.torch.Decoder` computes where the tensors are.
        model : str
            Name of the model whose dictionary decodes.

        Returns
        -------
        ndarray of float32, [n_tokens, width]
            The model's activations that the codes predict, in the model's own units. It is float64 if float32 cannot hold the
            model's mean well enough, that is, if `parameters` has a mean_rest.

        Raises
        ------
        InvalidInputError
            For an unknown model, for codes with another number of concepts, and for codes so large that float32 cannot hold the
            activations.
        """
        autoencoder = self._initialized()
        index = autoencoder.index(model)
        if hasattr(codes, "flattened"):  # tensors, of a class that only those have who have PyTorch
            codes = Codes(*codes.flattened())
        if not isinstance(codes, Codes):
            raise InvalidInputError(
                f"codes must be usae.Codes, as encode makes them or usae.Codes(values, indices, n_concepts), got "
                f"{type(codes).__name__}"
            )
        if codes.n_concepts != autoencoder.n_concepts:
            raise InvalidInputError(
                f"codes must be of {autoencoder.n_concepts} concepts, as this autoencoder's are, got {codes.n_concepts}"
            )
        out = np.empty((len(codes), autoencoder.widths[model]), np.float32)
        if codes.k == 0:
            out[:] = autoencoder.read(index, "mean")
        elif len(codes):
            autoencoder.core.decode(index, codes.values, codes.indices, out)
        return self._decoded_about_huge_mean(codes, index, model) if autoencoder.read(index, "mean_rest").any() else out

    def _decoded_about_huge_mean(self, codes: Codes, index: int, model: str) -> np.ndarray:
        """Decode in float64: as float32, activations so far from 0 would be rounded to a few values."""
        mean, rows = self._initialized().exact_mean(index), self.dictionary(model, units="model").astype(float)
        return np.asarray(codes.to_csr().astype(float) @ rows) + mean

    def reconstruct(self, x: Any, source: str, target: str, *, mask: Any = None) -> np.ndarray:
        """Predict the activations of `target` from the activations `x` of `source`: ``decode(encode(x, source), target)``.

        Parameters
        ----------
        x : array, [n_tokens, width] or [images, tokens, width]
            Activations of `source`, as for `encode`.
        source, target : str
            Names of the models.
        mask : array of bool, [n_tokens] or [images, tokens], optional
            Rows that count, as for `encode`. The others become the mean of `target`, to which an empty code is decoded.
            Default: None.
        """
        self._initialized().index(source, "source")
        self._initialized().index(target, "target")
        return self.decode(self.encode(x, source, mask=mask), target)

    def preactivations(self, x: Any, model: str, *, mask: Any = None) -> np.ndarray:
        """Compute dense pre-activations, the input of ReLU and of the selection, float32 [n_tokens, n_concepts].

        Parameters
        ----------
        x : array, [n_tokens, width] or [images, tokens, width]
            Activations, as for `encode`.
        model : str
            Name of the model that the activations are of.
        mask : array of bool, [n_tokens] or [images, tokens], optional
            Rows that count, as for `encode`. The others are 0. Default: None.

        Raises
        ------
        InvalidInputError
            As for `encode`, and if the result would be larger than 1 GiB.
        """
        autoencoder = self._initialized()
        index, activations = self._one_model(x, model, mask)
        shape = activations.n_rows, autoencoder.n_concepts
        if 4 * shape[0] * shape[1] > LARGEST_PREACTIVATIONS:
            raise InvalidInputError(
                f"x must have at most {max(1, LARGEST_PREACTIVATIONS // (4 * shape[1])):,} rows at a time, got {shape[0]:,}, "
                f"whose pre-activations would take {4 * shape[0] * shape[1] / 2**30:.1f} GiB; give fewer, or use encode"
            )
        out = np.empty((activations.n_tokens, autoencoder.n_concepts), np.float32)
        if activations.n_tokens:
            autoencoder.core.preactivations(index, activations.native, out)
            if not (np.isfinite(out.min()) and np.isfinite(out.max())):
                row, concept = np.argwhere(~np.isfinite(out))[0].tolist()
                row = row if activations.rows is None else int(activations.rows[row])
                raise InvalidInputError(
                    f"x must have activations whose pre-activations float32 holds, got infinity or NaN for row {row}, concept "
                    f"{concept}; repair that row, or look at the model's mean, scale and encoder"
                )
        return _spread(out, activations, 0)

    def evaluate(
        self,
        acts: Mapping[str, Any],
        *,
        threshold: float = 0.0,
        partners: bool = False,
        vision: bool = False,
        grid: tuple[int, int] | None = None,
        embeddings: Any = None,
        labels: Any = None,
        mask: Any = None,
        progress: bool | None = None,
    ) -> Evaluation:
        """Evaluate aligned activations: encode each model, and decode each code to every model.

        It reads the rows once (without `partners`), and memory does not grow with their number.

        Parameters
        ----------
        acts : mapping of str to array
            Activations of every model, as for `fit`, preferably of rows that were not trained on.
        threshold : float
            A concept fires in a token if its code is larger than this. With 0 it fires if it was selected. The published
            numbers use 0.1. Default: 0.0.
        partners : bool
            Whether to look for the partner of each concept in every other model: the one whose code correlates most with it, at
            any index (`Evaluation.partners`). It encodes all models once more, or a few times if n_concepts^2 numbers for each
            pair of models take more than 256 MB. Default: False.
        vision : bool
            Whether to measure where in images concepts fire (`Evaluation.vision`): how smooth their maps are, and how much of
            an image they take. It encodes all models once more, as the next three arguments do, which ask for it too. It needs
            activations [images, tokens, width], or `grid`. Default: False.
        grid : (int, int), optional
            Rows and columns of tokens in an image. Default: None, which takes that of a store, or a square.
        embeddings : array [images, width], optional
            Embeddings of the images, for example CLIP's, which tell how alike a concept's strongest images are. Default: None.
        labels : array of int, or mapping of str to array of bool, optional
            What the images or tokens show, to find each concept's best F1 and AUROC: a class for each image, [images], or for
            each token, [images, tokens], [n_tokens] or [images, height, width] of pixels, of which a token has the most
            frequent class. A number below 0 is no class. A mapping has for each label which images, tokens or pixels have it.
            All models are encoded once more for every 16,777,216 codes above the threshold. Default: None.
        mask : array of bool, or mapping of str to array of bool, optional
            Rows that count, as for `fit`. The result has the bits of an evaluation of arrays without the others.
            Default: None.
        progress : bool, optional
            Whether to show progress over more than 16,384 rows. Default: None, as for `fit`.

        Returns
        -------
        Evaluation
            R2 between all models, and firing counts, energy and correlation of every concept.

        Raises
        ------
        InvalidInputError
            For missing models, wrong widths, and activations that are not finite.
        """
        autoencoder = self._initialized()
        threshold = checks.real(threshold, "threshold", "a finite number of at least 0")
        progress = checked_progress(progress)
        partners, vision = checks.boolean(partners, "partners"), checks.boolean(vision, "vision")
        given = as_aligned(acts, "acts", autoencoder.columns, mask)
        asked = None
        if vision or not (grid is None and embeddings is None and labels is None):
            from usae.analysis import vision_measures

            asked = vision_measures.asked(given, grid, embeddings, labels)
        evaluation = self._evaluated(given, threshold, progress)
        if partners:
            from usae.analysis.partners import find

            evaluation = dataclasses.replace(evaluation, partners=find(self, given, evaluation, progress))
        if asked is not None:
            measured = vision_measures.measure(self, given, evaluation, asked, progress)
            evaluation = dataclasses.replace(evaluation, vision=measured)
        return evaluation

    # --- Parameters of the models ------------------------------------------------------------------------------------

    def dictionary(self, model: str, units: Literal["standardized", "model"] = "standardized") -> np.ndarray:
        """Return the vectors that concepts with code 1 add to a model's activations, float32 [n_concepts, width].

        Parameters
        ----------
        model : str
            Name of the model.
        units : "standardized" or "model"
            "standardized": in standardised units, rows of norm at most 1, the less, the less of the concept the model has, or
            of norm 1, where the recipe has ``dictionary_norm="unit"``. "model": the same rows multiplied by the model's scale,
            in the model's own units. Default: "standardized".
        """
        autoencoder = self._initialized()
        index = autoencoder.index(model)
        units = checks.choice(units, "units", ("standardized", "model"))  # type: ignore[assignment]
        (dictionary, scale), _ = autoencoder.read_all([(index, "dictionary"), (index, "scale")])
        dictionary = used_rows(dictionary, autoencoder.recipe)
        if units == "model":
            dictionary *= scale
        return dictionary

    def parameters(self, model: str) -> dict[str, np.ndarray]:
        """Return copies of a model's parameters, float32.

        Parameters
        ----------
        model : str
            Name of the model.

        Returns
        -------
        dict of str to ndarray
            mean, scale [width]; encoder_weight, dictionary [n_concepts, width]; encoder_bias [n_concepts]. With the
            "batchnorm" encoder also bn_weight, bn_bias, bn_running_mean, bn_running_var [n_concepts]. With "batchtopk"
            selection also threshold [1], which is 0 before the first step, and if concepts have thresholds of their own, as
            after `usae.import_sae`, threshold_rest [n_concepts], what these have above it. If the mean of a model is more than
            16,384 times its scale, also mean_rest [width], what float32 cannot hold of the mean. Dictionary rows have the norms
            that training left; the method `dictionary` returns them as they are used.
        """
        return self._initialized().parameters(model)

    def set_parameters(self, model: str, parameters: Mapping[str, Any]) -> None:
        """Replace some or all of a model's parameters.

        Parameters
        ----------
        model : str
            Name of the model.
        parameters : mapping of str to array
            New values, with the names and shapes that the method `parameters` uses.

        Raises
        ------
        InvalidInputError
            For an unknown name, a wrong shape, a value that is not finite, a scale that is not positive, or a negative
            variance; for columns with other labels than were trained on; and while `fit` trains the object. Nothing is changed
            then.
        """
        autoencoder = self._initialized()
        exclusive.check(self, "set_parameters")
        index = autoencoder.index(model)
        if not isinstance(parameters, Mapping):
            raise InvalidInputError(f"parameters must be a mapping from names to arrays, got {type(parameters).__name__}")
        for name in parameters:
            if name not in autoencoder.parameter_names(RESTS):
                raise InvalidInputError(
                    f"parameters: unknown name {name!r}; this recipe has {', '.join(autoencoder.parameter_names(RESTS))}"
                )
        new = {
            (index, name): _checked_parameter(value, f"parameters[{name!r}]", autoencoder.shape(index, name))
            for name, value in parameters.items()
        }
        columns = autoencoder.columns[model]
        for name, value in parameters.items():  # such as frame.mean(), which has the labels of columns
            if name in OF_COLUMNS:
                columns.check(labels_of(value, columns.width), f"parameters[{name!r}]")
        # A new mean resets mean_rest, which so comes after it.
        autoencoder.write_all({(index, name): new[index, name] for name in PARAMETERS if (index, name) in new})

    # --- Files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, training_state: bool = False) -> None:
        """Save to a folder, as ``model.safetensors`` and ``usae.json``. `usae.load` reads it.

        Parameters
        ----------
        path : path-like
            The folder. Its parents are made. If it holds a save already, that one is replaced. At any moment of the
            replacement, even if the computer stops, `usae.load` finds the old save or the new one, whole.
        training_state : bool
            Whether to save the state of the optimiser too, so that `partial_fit` continues to the same bits as without the
            interruption. The file is then three times as large. Default: False.

        Raises
        ------
        CheckpointFileError
            Also an OSError: the folder cannot be written, or holds something else.
        """
        from usae._saved import saved_folder

        saved_folder.save(self._initialized(), path, training_state)

    def export(
        self,
        path: str | os.PathLike[str],
        format: str,
        *,
        model: str | None = None,
        target: str | None = None,
        unit_rows: bool = False,
        acts: Mapping[str, Any] | None = None,
    ) -> Export:
        """Write one model, or a pair of models, in the files of another library. docs/exchange.md has the details.

        The other library then encodes and decodes activations in the model's own units: standardisation and BatchNorm are
        folded into the weights. `usae.import_sae` reads the folder. What the files cannot hold is in the result, and what
        would be wrong there is refused.

        Parameters
        ----------
        path : path-like
            The folder. It may be new, empty, or an earlier export for the same library, which is replaced.
        format : str
            "saelens", "sparsify", "visaebench", "dictionary_learning" (its file is written by PyTorch), "overcomplete" (a
            state_dict, in standardised units), or "crosscoder" (those of science-of-finetuning, with BatchTopK).
        model : str, optional
            Name of the model that is encoded. Default: None, for an autoencoder of one model.
        target : str, optional
            Name of the model that is decoded, which makes a transcoder: "saelens" has them with BatchTopK, and "sparsify" with
            TopK and equal widths. Default: None, which means `model`. A "crosscoder" decodes all models.
        unit_rows : bool
            Whether dictionary rows have norm 1 in own units, as some tools expect. Codes are then multiplied by the norms.
            Default: False.
        acts : mapping of str to array, optional
            Activations, as for `fit`, of at least `model`: the result then has the share of their tokens whose codes the cap
            `k_max` of BatchTopK shortens here, and not there. Default: None.

        Returns
        -------
        Export
            What was written, how the library loads it, and what is lost.

        Raises
        ------
        InvalidInputError
            If the library cannot compute such codes, as with BatchTopK for "sparsify"; if `unit_rows` would change which
            concepts are selected; if float32 cannot hold the mean; and for arguments that cannot be used.
        CheckpointFileError
            Also an OSError: the folder cannot be written, or holds something else.
        ImportError
            If "dictionary_learning" is to be written and PyTorch is not installed.
        """
        from usae._exchange import exporting

        return exporting.export(self._initialized(), path, format, model, target, unit_rows, acts)

    def push_to_hub(
        self,
        repo: str,
        *,
        license: str,
        networks: Mapping[str, str] | None = None,
        store: ActivationStore | None = None,
        data: str | None = None,
        evaluation: Evaluation | Controls | None = None,
        saelens: bool = True,
        private: bool = False,
        token: str | None = None,
        message: str | None = None,
    ) -> str:
        """Upload to the Hugging Face Hub, with a model card. ``usae.load("hf://user/repo")`` loads it.

        The repository has what `save` writes, ``README.md``, and for SAELens each model in ``saelens/MODEL``. Files that are in
        the repository already stay, unless they have the same names. It needs huggingface_hub, which usae does not install.

        Parameters
        ----------
        repo : str
            "user/name". It is made if there is none.
        license : str
            Licence of the weights, by its name on the Hub, such as "mit" or "cc-by-4.0".
        networks : mapping of str to str, optional
            For some or all models, the name of their network on the Hub, such as "facebook/dinov2-small". Default: None.
        store : ActivationStore, optional
            The activations that were trained on, from which the card takes sources, layers and preprocessing. Default: None.
        data : str, optional
            A line about the images or texts that were trained on, for the card. Default: None.
        evaluation : Evaluation or Controls, optional
            What `evaluate` or `usae.controls` said of this autoencoder, for the card. Controls have nulls beside the numbers.
            Default: None.
        saelens : bool
            Whether to add the models in the files of SAELens. Default: True.
        private : bool
            Whether a repository that is made is private. Default: False.
        token : str, optional
            Token of the Hub. Default: None, which takes the one that huggingface_hub finds.
        message : str, optional
            Message of the commit. Default: None, which says that it is an upload.

        Returns
        -------
        str
            Address of the repository.

        Raises
        ------
        InvalidInputError
            For arguments that cannot be used. Nothing is uploaded then.
        CheckpointFileError
            Also an OSError: it cannot be uploaded, or the files cannot be written.
        ImportError
            If huggingface_hub is not installed.
        """
        from usae._exchange import publishing

        return publishing.push(
            self._initialized(), repo, license=license, networks=networks, store=store, data=data, evaluation=evaluation,
            saelens=saelens, private=private, token=token, message=message,
        )  # fmt: skip

    def save_history(self, path: str | os.PathLike[str]) -> None:
        """Write `history_` as a CSV file with a row for each entry.

        Columns are named as in `StepReport`. "losses.vit" is the loss of the model "vit". "validation.n_tokens",
        "validation.l0.vit" and "validation.r2.dinov2->vit" (encoded from dinov2, decoded to vit) are empty except for steps
        with an evaluation. "nan" is a number that the recipe does not need.

        Parameters
        ----------
        path : path-like
            The file. Its parents are made. An existing file is replaced.

        Raises
        ------
        CheckpointFileError
            Also an OSError: the file cannot be written.
        """
        from usae._training import history_table

        autoencoder = self._initialized()
        history_table.save_csv(autoencoder.history, autoencoder.names, path)

    def history_frame(self) -> pandas.DataFrame:
        """Return `history_` as a pandas DataFrame, with a row for each entry and the columns of `save_history`.

        The index is the step. NaN is a number that the recipe does not need, or an evaluation that the step does not have.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        from usae._training import history_table

        autoencoder = self._initialized()
        return history_table.frame(autoencoder.history, autoencoder.names)

    def __getstate__(self) -> object:
        """Return all attributes, a subclass's and those that users added too, with the autoencoder as a header and tensors."""
        state: Any = super().__getstate__()
        if self._autoencoder is None:
            return dict(state) if isinstance(state, dict) else state  # another thread may add to the attributes
        from usae._saved.state import snapshot

        attributes, *slots = state if isinstance(state, tuple) else (state,)  # slots are those of a subclass
        attributes = {name: value for name, value in (attributes or {}).items() if name != "_autoencoder"}
        attributes["_saved"] = snapshot(self._autoencoder, training_state=True)
        attributes["_stream_report"] = self._autoencoder.stream_report
        return (attributes, *slots) if slots else attributes

    def __setstate__(self, state: Any) -> None:
        exclusive.check(self, "__setstate__")
        attributes, slots = state if isinstance(state, tuple) else (state, {})
        attributes = dict(attributes or {})
        saved, stream_report = attributes.pop("_saved", None), attributes.pop("_stream_report", None)
        self.__dict__.update(attributes)
        for name, value in slots.items():
            setattr(self, name, value)
        if saved is not None:
            from usae._saved.state import restored

            header, tensors = saved
            self._autoencoder = restored(header, tensors, self.n_threads)
            self._autoencoder.stream_report = stream_report

    # --- Private -----------------------------------------------------------------------------------------------------

    _autoencoder: Autoencoder | None = None

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments of this class's constructor, which a subclass's constructor need not have."""
        return {name: getattr(self, name) for name in constructor.names_of(UniversalSAE)}

    @classmethod
    def _of(cls, autoencoder: Autoencoder, n_threads: int | None) -> UniversalSAE:
        sae = cls(
            autoencoder.n_concepts, autoencoder.k, recipe=autoencoder.given_recipe, seed=autoencoder.seed, n_threads=n_threads
        )
        sae._autoencoder = autoencoder
        return sae

    def _initialized(self) -> Autoencoder:
        if self._autoencoder is None:
            raise NotInitializedError(
                "this UniversalSAE has no parameters yet; call fit(acts), partial_fit(batch) or initialize(widths) first, "
                "or use usae.load(path)"
            )
        return self._autoencoder

    def _evaluated(self, acts: Mapping[str, Activations], threshold: float, progress: bool | None) -> Evaluation:
        """Evaluate activations that were checked before."""
        from usae.analysis.evaluation import Evaluation

        autoencoder, n_tokens = self._initialized(), next(iter(acts.values())).n_tokens
        rounding.check(autoencoder, acts)
        numbers = evaluate(autoencoder, acts, threshold, progress)
        norms = None
        if autoencoder.recipe.dictionary_norm == "bounded":
            norms = np.stack([np.linalg.norm(self.dictionary(name).astype(float), axis=1) for name in autoencoder.names])
        return Evaluation(
            autoencoder.names, n_tokens, threshold, **numbers, n_left_out=left_out(acts), partners=None,
            dictionary_norms=norms, vision=None,
        )  # fmt: skip

    def _keeping(self, frozen: object, given: Parts) -> Keeping | None:
        """Return the models that `fit` keeps as they are; None if there are none."""
        if isinstance(frozen, tuple) and not frozen:
            return None
        from usae._training import freezing  # like `joining`, few need it

        names = freezing.names_of(frozen)
        if not names:
            return None
        recipe = None if self.recipe is None else self._checked_recipe()
        return freezing.checked(names, self._initialized(), self._arguments(), recipe, given)

    def _checked_recipe(self) -> Recipe:
        if self.recipe is None:
            return Recipe()
        if not isinstance(self.recipe, Recipe):
            raise InvalidInputError(
                f"recipe must be a usae.Recipe or None, got {type(self.recipe).__name__}; see usae.recipes and "
                f"usae.Recipe.from_dict"
            )
        return self.recipe

    def _one_model(self, x: object, model: str, mask: object) -> tuple[int, Activations]:
        autoencoder = self._initialized()
        index = autoencoder.index(model)
        activations = as_one_model(on_cpu(x), "x", mask)
        check_columns(activations, model, autoencoder.columns[model])
        rounding.check(autoencoder, {model: activations})
        return index, activations


def _index(encoder: object, names: Iterable[str]) -> int:
    """Return the number of the model to encode, as the core takes it: -1 means that it is drawn."""
    names = list(names)
    if encoder is None:
        return -1
    check_known(encoder, names, "encoder")
    return names.index(encoder)  # type: ignore[arg-type]


def _spread(kept: np.ndarray, x: Activations, filling: int) -> np.ndarray:
    """Return results of the rows that count, [n_tokens, ...], as those of all rows. The others have `filling`."""
    if x.rows is None:
        return kept
    result = np.full((x.n_rows, *kept.shape[1:]), filling, kept.dtype)
    result[x.rows] = kept
    return result


def _checked_parameter(value: object, label: str, shape: tuple[int, ...]) -> np.ndarray:
    array, bfloat16 = as_float_array(value, label)
    if array.shape != shape:
        raise InvalidInputError(f"{label} must have shape {list(shape)}, got {list(array.shape)}")
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite, and is refused below
        array = np.ascontiguousarray(widened(array, bfloat16), np.float32)
    if not np.isfinite(array).all():
        position = np.argwhere(~np.isfinite(array))[0].tolist()
        raise InvalidInputError(f"{label} must be finite as float32, got {array[tuple(position)]} at {position}")
    return array


def checked_sae(sae: object, argument: str = "sae") -> UniversalSAE:
    """Return an autoencoder that has parameters. InvalidInputError, or NotInitializedError, for anything else."""
    if not isinstance(sae, UniversalSAE):
        raise InvalidInputError(f"{argument} must be a usae.UniversalSAE, got {type(sae).__name__}")
    sae._initialized()
    return sae


def load(path: str | os.PathLike[str], *, n_threads: int | None = None) -> UniversalSAE:
    """Load an autoencoder that `UniversalSAE.save` or `UniversalSAE.push_to_hub` wrote.

    Parameters
    ----------
    path : path-like
        The folder, or ``"hf://user/repo"`` for a repository of the Hugging Face Hub. ``"hf://user/repo@revision/folder"`` names
        a branch, tag or commit, and a folder in it. It is downloaded by huggingface_hub, which usae does not install.
    n_threads : int, optional
        Number of threads, as for `UniversalSAE`. It is not saved, because it depends on the computer. Default: None.

    Returns
    -------
    UniversalSAE
        The autoencoder, with its recipe and history, and with the state of the optimiser if that was saved.

    Raises
    ------
    CheckpointError
        If the folder is damaged, was not written by usae, or was written by a newer version.
    CheckpointFileError
        Also an OSError: the folder cannot be read, or not be downloaded.
    """
    from usae._saved import saved_folder

    if isinstance(path, str) and path.startswith("hf://"):
        from usae._exchange import hub

        path = hub.downloaded_folder(path, (saved_folder.HEADER, saved_folder.TENSORS))
    autoencoder = saved_folder.load(path, n_threads)
    return UniversalSAE._of(autoencoder, n_threads)
