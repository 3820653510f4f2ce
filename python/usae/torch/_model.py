"""`usae.torch.Model`: one layer of a vision network as a function from images to tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from usae._base import checks
from usae._base.warning import warn
from usae.errors import InvalidInputError
from usae.torch import _layer_output, _preprocessing, _transforms
from usae.torch._evaluation_mode import EvaluationMode
from usae.torch._images import pictures
from usae.torch._inputs import all_finite, as_array, checked_gradient, checked_images, in_float32, where
from usae.torch._layer_output import Grid, TokenReader, images_first
from usae.torch._model_arguments import (
    as_pair,
    autocast_type,
    checked_device,
    chosen_channels,
    move,
    renamed_tokens,
    scale,
    short,
    thread_number,
)
from usae.torch._network_errors import errors_of_backward, errors_of_memory
from usae.torch._passes import one_pass
from usae.torch._preprocessing import Crop, Preprocessing
from usae.torch._preset import Preset
from usae.torch._presets import find_preset
from usae.torch._threads import using_threads
from usae.torch._trial import disagreement
from usae.torch._unmasked import unmasked
from usae.torch._wrappers import unwrapped, without_wrapper


class Model:
    """A vision network whose activations are taken at one layer, as [n_images, tokens, width] without class tokens.

    For networks of timm, transformers and torchvision, arguments that are not given are found from the module, also within
    wrappers such as `torch.nn.DataParallel` and what `torch.compile` returns; docs/extraction.md has a table. The module is not
    copied and not changed, except that `device` moves it.

    Parameters
    ----------
    module : torch.nn.Module
        Network in evaluation mode that takes normalised images, [n, channels, height, width].
    layer : str, optional
        Dotted name of the submodule whose output is taken; "" is the module itself. The output of its first call is taken, and
        later layers are not computed. It is [n, tokens, width], [n, width, rows, columns] or [n, rows, columns, width], or a
        tuple or mapping whose first tensor is that. Default: None, which takes the last layer of a known network.
    n_prefix_tokens : int, optional
        Number of leading tokens without a place in the image, class and register tokens, which are dropped. Default: None,
        which takes the number of a known network, or 0.
    tokens : callable, optional
        Function from the layer's output to the tensor that is taken instead, in one of the shapes above. A number is
        deprecated: it is what `n_prefix_tokens` was called in version 0.1. Default: None.
    grid : (int, int), optional
        Rows and columns of the tokens. Default: None, which takes the patches of a known network; otherwise rows and columns of
        the map, or a grid with the proportions of the image.
    mean, std : float or a float for each channel, optional
        Mean and standard deviation of each channel of images in 0..1. Default: None, which takes those of `preprocessing` or of
        a known network. If the network itself does not say them (timm's do), those of its family are taken, and a warning says
        which. If these are not known either, they must be given before pictures can be converted.
    size : int or (int, int), optional
        Height and width of the images that the module takes, in pixels. Default: None, which takes the size of
        `preprocessing` or of a known network.
    preprocessing : optional
        What says how the network's images are made: an image processor of transformers, ``weights.transforms()`` of
        torchvision, or a transform or data config of timm. `mean`, `std`, `size` and its filter are taken from it. It is tried
        on a picture, and a warning says what in it is not done here; random steps and a transform without Normalize are
        refused. Default: None, which takes what the network itself says; networks of timm do.
    channels : int, optional
        Number of channels of the images. Default: None, which takes that of a known network, or 3.
    device : torch.device or str, optional
        Device on which to compute. The module is moved there. Default: None, which takes the device of its parameters.
    autocast : torch.dtype, optional
        ``torch.bfloat16`` or ``torch.float16``, to compute in that type where it is safe (`torch.autocast`). Default: None,
        which computes in the type of the parameters.
    channels_last : bool, optional
        Whether a map is [n, rows, columns, width]. Default: None. If it is not known from the network, the two dimensions that
        equal `grid`, or have the proportions of the image, are rows and columns; if that is ambiguous, it is an error.
    threads : int, optional
        Number of PyTorch's threads with which the network computes on the CPU, from 1 to 1024. It is set for each pass
        (`torch.set_num_threads`), and afterwards, or after an error, PyTorch has the number that it had. A thread of yours
        that computes with PyTorch for the first time during a pass starts with this number. Default: None, which leaves
        PyTorch's number as it is; docs/extraction.md says when another one is faster.

    Raises
    ------
    InvalidInputError
        For arguments that cannot be used. For an unknown layer the message has names that are spelled similarly.

    Examples
    --------
    >>> model = usae.torch.Model(timm.create_model("vit_small_patch14_dinov2", pretrained=True).eval())
    >>> model(model.preprocess(["cat.jpg", "dog.jpg"])).shape
    (2, 1369, 384)
    """

    def __init__(
        self,
        module: nn.Module,
        layer: str | None = None,
        *,
        n_prefix_tokens: int | None = None,
        tokens: Callable[[Tensor], Tensor] | int | None = None,
        grid: Grid | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        size: int | tuple[int, int] | None = None,
        device: torch.device | str | None = None,
        autocast: torch.dtype | None = None,
        channels_last: bool | None = None,
        preprocessing: Any = None,
        channels: int | None = None,
        threads: int | None = None,
    ):
        if not isinstance(module, nn.Module):
            raise InvalidInputError(f"module must be a torch.nn.Module, got {type(module).__name__}")
        target = None if device is None else checked_device(device)
        inside = unwrapped(module)
        preset = find_preset(inside.network)
        said, told = preset.preprocessing, Preprocessing()
        if preprocessing is not None:
            told = _transforms.of(preprocessing, [name for name, value in (("mean", mean), ("std", std)) if value is not None])
            said = told.or_else(said)
        self.module = inside.network
        self._runner = unmasked(inside.runner)
        self.layer = without_wrapper(self._chosen_layer(layer, preset), module, self.module)
        self.size = said.size if size is None else as_pair(size, "size")
        self.channels = chosen_channels(channels, preset.channels)
        self.mean = scale(mean, said.mean, "mean", self.channels, told.mean)
        self.std = scale(std, said.std, "std", self.channels, told.std)
        if self.std is not None and not (self.std > 0).all():
            raise InvalidInputError(f"std must be above 0, got {checks.shown(std)}")
        self.preprocessing = said
        is_told = (mean is not None or told.mean is not None) and (std is not None or told.std is not None)
        self._assumed = "" if is_told or self.mean is None else preset.assumed
        self._is_assumption_told = False
        self.autocast = autocast_type(autocast)
        self.threads = thread_number(threads)
        self.source = preset.source
        self._layer = _layer_output.find_layer(self.module, self.layer)
        if tokens is not None and not callable(tokens):
            n_prefix_tokens, tokens = renamed_tokens(tokens, n_prefix_tokens), None
        self._reader = self._chosen_reader(n_prefix_tokens, tokens, grid, channels_last, preset)
        self._evaluation = EvaluationMode(self.module, self._label)
        self._probed: tuple[Grid | None, int, int] | None = None
        if target is not None:
            move(module, target)
        if told.not_done:
            warn(
                f"preprocessing of {type(self.module).__name__} {'; '.join(told.not_done)}; if that changes images, give "
                f"pictures to which it was done before, or mean= and std= that do it too"
            )
        elif difference := disagreement(preprocessing, told):
            warn(
                f"preprocessing of {type(self.module).__name__} makes other images than Model.preprocess, which does what "
                f"it says: a picture differs by {difference:.2g} of 0..1 on average; compare one of yours, and give mean=, "
                f"std= and size="
            )

    def __repr__(self) -> str:
        what = type(self.module).__name__
        parts = [f"layer={self.layer!r}", f"n_prefix_tokens={self._reader.n_prefix_tokens}"]
        parts += ["tokens=a function"] if self._reader.tokens not in (None, images_first) else []
        grid = self._reader.grid or (self._probed[0] if self._probed else None)
        parts += [f"grid={grid[0]}x{grid[1]}"] if grid else []
        parts += [f"size={self.size[0]}x{self.size[1]}" if self.size else "size=any"]
        parts += [f"channels={self.channels}"] if self.channels != 3 else []
        parts += [f"mean={short(self.mean)}", f"std={short(self.std)}"]
        parts += [f"which are those of {self._assumed}"] if self._assumed else []
        parts += [f"filter={self.preprocessing.filter}"]
        parts += [f"autocast={self.autocast}"] if self.autocast else []
        parts += [f"threads={self.threads}"] if self.threads else []
        differences = self.preprocessing.differences
        return f"Model({what} [{self.source}], {', '.join(parts)}{f'; {differences}' if differences else ''})"

    def __setstate__(self, state: dict[str, Any]) -> None:
        reader = state["_reader"]
        if callable(reader.n_prefix_tokens):  # in version 0.1 one field held either a number or a function
            state = state | {"_reader": reader._replace(n_prefix_tokens=0, tokens=reader.n_prefix_tokens)}
        # That version had no wrappers, took three channels, resized bilinearly and left PyTorch's threads alone.
        since = {"_runner": state["module"], "channels": 3, "preprocessing": Preprocessing(), "threads": None}
        since |= {"_assumed": "", "_is_assumption_told": False}
        self.__dict__.update(since | state)
        if "_evaluation" not in state:
            self._evaluation = EvaluationMode(self.module, self._label)

    # --- Activations -------------------------------------------------------------------------------------------------

    @property
    def grid(self) -> Grid | None:
        """Rows and columns of the tokens, or None if they have no grid. It may run the network once."""
        return self._reader.grid or self._probe()[0]

    @property
    def n_tokens(self) -> int:
        """Number of tokens of an image. It may run the network once."""
        return self._probe()[1]

    @property
    def width(self) -> int:
        """Dimensions of a token. It may run the network once."""
        return self._probe()[2]

    @property
    def device(self) -> torch.device:
        """Device on which the network computes, that of its parameters."""
        return where(self.module)[0]

    @property
    def known_size(self) -> Grid:
        """`size`, or an InvalidInputError that asks for it if it is None."""
        if self.size is None:
            raise InvalidInputError(
                f"size must be the height and width of the images of {type(self.module).__name__}, which does not tell them, "
                f"got None; write Model(..., size=224)"
            )
        return self.size

    @property
    def known_scale(self) -> tuple[np.ndarray, np.ndarray]:
        """`mean` and `std`, or an InvalidInputError that asks for them if they are None. It warns once if they are assumed."""
        if self.mean is None or self.std is None:
            missing = "mean" if self.mean is None else "std"
            raise InvalidInputError(
                f"{missing} must be that of the images with which {type(self.module).__name__} was trained, which does not "
                f"tell it, got None; write Model(..., mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)) for ImageNet's, "
                f"mean=0.5, std=0.5 for -1..1, mean=0, std=1 for 0..1, or preprocessing= its image processor"
            )
        if self._assumed and not self._is_assumption_told:
            self._is_assumption_told = True
            warn(
                f"{type(self.module).__name__} does not say the mean and standard deviation of its images, so those of "
                f"{self._assumed} are taken, mean={short(self.mean)} and std={short(self.std)}; give preprocessing= its image "
                f"processor or transform, or mean= and std="
            )
        return self.mean, self.std

    def preprocess(self, images: Any, *, crop: Crop = False) -> np.ndarray:
        """Convert pictures to the input of the module: resize (antialiased), then ``(x - mean) / std``.

        The filter is that of the network's own preprocessing if that is bilinear or bicubic, and bilinear if it is not known.

        Parameters
        ----------
        images : array, path, PIL image, contents of a file, data set, or a sequence or iterable of these
            Pictures: uint8 [n, H, W, 3], floats [n, 3, H, W] in 0..1, files, or a folder of files. Sizes may differ.
        crop : bool or "own"
            Whether the largest centre with the proportions of `size` is cut out. "own" cuts as the network's own preprocessing
            does, for example a smaller centre. Otherwise whole pictures are stretched to these proportions. Default: False.

        Returns
        -------
        ndarray of float32, [n, channels, height, width]
            Normalised images.

        Raises
        ------
        InvalidInputError
            For pictures that cannot be used, and if the size, mean or standard deviation is not known, or `crop` is "own" and
            the network's own cut is not.
        """
        crop = _preprocessing.checked_crop(crop)
        self.known_scale  # noqa: B018  # before pictures are read
        rows = [self.resized(picture, crop) for picture in pictures(images, (self.channels,))[0]]
        if not rows:
            raise InvalidInputError("images must hold at least one picture, got none")
        return self.normalized(torch.stack(rows)).numpy()

    def resized(self, picture: Tensor, crop: Crop) -> Tensor:
        """Resize a picture, [channels, H, W] in 0..1, to the input of the module."""
        with errors_of_memory(f"a picture resized to {self.known_size}"):
            return _preprocessing.resized(picture, self.known_size, crop, self.preprocessing, self.channels)

    @property
    def input_kind(self) -> tuple[Any, ...]:
        """What `resized` depends on. It makes the same of a picture for all models that have this in common."""
        return self.known_size, self.channels, self.preprocessing.filter, self.preprocessing.cut

    def normalized(self, images: Tensor) -> Tensor:
        """Normalise images, [n, channels, height, width] in 0..1, for the module: ``(images - mean) / std``."""
        mean, std = (torch.from_numpy(x).to(images)[:, None, None] for x in self.known_scale)
        return (images - mean).div_(std)

    def __call__(self, images: Any) -> np.ndarray:
        """Compute activations of normalised images.

        Parameters
        ----------
        images : ndarray or Tensor
            Floats, [n, channels, height, width], as `preprocess` returns them.

        Returns
        -------
        ndarray of float32, [n, tokens, width]
            Activations, with tokens row by row over the grid.

        Raises
        ------
        InvalidInputError
            For images of another shape or type or with NaN, a module in training mode, a layer whose output cannot be
            read, activations that are not finite, and what the network itself raises, which is the ``__cause__``.
        """
        with _layer_output.without_graph():
            return as_array(self.activations(images)[0])

    def activations(self, images: Any) -> tuple[Tensor, Grid | None]:
        """Return activations as a tensor on its device, in its own type and with its graph, and the grid."""
        tokens, grid = self._forward(self._as_input(images))
        self._check_finite(tokens)
        return tokens, grid

    def vjp(self, images: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """Compute activations, and return with them their vector-Jacobian product with respect to the images.

        Only images get a gradient: ``.grad`` and ``requires_grad`` of parameters stay as they are.

        Parameters
        ----------
        images : ndarray
            Normalised images, floats [n, channels, height, width].

        Returns
        -------
        activations : ndarray of float32, [n, tokens, width]
            Activations.
        pull : callable
            Function from the gradient of a number with respect to `activations`, [n, tokens, width], to its gradient with
            respect to `images`, float32 [n, channels, height, width]. It can be called many times. It keeps the network's graph
            in memory until it is deleted.

        Raises
        ------
        InvalidInputError
            As for calling the model, and if PyTorch has no gradient from the output to the images. `pull` raises it for a
            gradient of another shape, and if that gradient or the result is not finite.
        """
        with torch.inference_mode(False), torch.enable_grad():
            leaf = self._as_input(images).requires_grad_()
            tokens, _ = self._forward(leaf.clone())  # a clone, because some networks change their input in place
            self._check_finite(tokens)
        if not tokens.requires_grad:
            raise self._without_gradient()

        def pull(gradient: np.ndarray) -> np.ndarray:
            with torch.inference_mode(False):
                given = checked_gradient(gradient, tokens)
                with errors_of_backward(self._label), using_threads(self.threads):
                    (result,) = torch.autograd.grad(tokens, leaf, given, retain_graph=True, allow_unused=True)
            if result is None:
                raise self._without_gradient()
            if not all_finite(in_float32(result)):
                raise InvalidInputError(
                    f"gradient of {self._label} with respect to the images must be finite, got NaN or infinity; "
                    f"{self._remedy_for_overflow()}"
                )
            return as_array(result)

        return as_array(tokens.detach()), pull

    # --- Private -----------------------------------------------------------------------------------------------------

    @property
    def _label(self) -> str:
        return f"layer {self.layer!r} of {type(self.module).__name__}"

    def _chosen_layer(self, layer: str | None, preset: Preset) -> str:
        layer = preset.layer if layer is None else layer
        if layer is None:
            raise InvalidInputError(
                f"layer must be given for {type(self.module).__name__}, whose layers are not known here, got None; it starts "
                f"with one of {_layer_output.children(self.module)}; named_modules() lists all"
            )
        return layer

    def _chosen_reader(
        self,
        n_prefix_tokens: object,
        tokens: Callable[[Tensor], Tensor] | None,
        grid: Any,
        channels_last: bool | None,
        preset: Preset,
    ) -> TokenReader:
        if n_prefix_tokens is not None:
            n_prefix = checks.integer(n_prefix_tokens, "n_prefix_tokens", 0, 2**31)
        else:
            n_prefix = preset.n_prefix_tokens if tokens is None else 0
        if grid is not None:
            grid = as_pair(grid, "grid")
        elif preset.patch is not None and self.size is not None:
            grid = self.size[0] // preset.patch[0], self.size[1] // preset.patch[1]
        channels_last = (
            preset.channels_last if channels_last is None else checks.boolean(channels_last, "channels_last", " or None")
        )
        if tokens is None and preset.gives_tokens_first(self.layer):
            tokens = images_first
        return TokenReader(self._label, n_prefix, grid, channels_last, tokens)

    def _probe(self) -> tuple[Grid | None, int, int]:
        """Return grid, number of tokens and width, which a black image shows."""
        if self._probed is None:
            with _layer_output.without_graph():
                tokens, grid = self._forward(self._as_input(np.zeros((1, self.channels, *self.known_size), np.float32)))
            self._probed = grid, tokens.shape[1], tokens.shape[2]
        return self._probed

    def _as_input(self, images: object) -> Tensor:
        return checked_images(images, self.module, self.channels, self.size)

    def _forward(self, images: Tensor) -> tuple[Tensor, Grid | None]:
        return one_pass([self], self._evaluation, images)[0]

    def _check_finite(self, tokens: Tensor) -> None:
        if not all_finite(in_float32(tokens)):
            raise InvalidInputError(
                f"activations of {self._label} must be finite, got NaN or infinity; {self._remedy_for_overflow()}"
            )

    def _remedy_for_overflow(self) -> str:
        if torch.float16 in (self.autocast, where(self.module)[1]):
            return "float16 ends at 65504: compute in bfloat16, which has the range of float32, or in float32"
        return "look for NaN in its parameters"

    def _without_gradient(self) -> InvalidInputError:
        return InvalidInputError(
            f"{self._label} must depend on the images by differentiable operations, got no gradient from PyTorch: the "
            f"network detaches its tokens or computes under torch.no_grad(); choose an earlier layer or remove that"
        )
