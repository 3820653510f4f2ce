"""Pictures that an explorer shows: whatever a user has them in, as small WebP files. Pillow is the extra ``usae[explore]``."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from usae._base import checks
from usae._base.warning import warn
from usae._data.store import ActivationStore
from usae.errors import InvalidInputError

QUALITY = 75
SUFFIXES = (".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif",
            ".tiff", ".webp")  # fmt: skip
_KEYS = ("image", "img", "pixel_values", "jpg", "jpeg", "png", "webp")
_EXPECTED = (
    "an array [images, height, width, 3], a folder of the pictures, or a sequence of arrays, files or PIL images, one for each "
    "image of acts"
)


class Pictures:
    """Pictures by the numbers of their images. `names` are those of files, or empty."""

    def __init__(self, load: Callable[[int], Any], names: Sequence[str], n: int):
        self._load, self.names, self._n = load, tuple(names), n
        self._tried, self._problems = 0, list[str]()

    def __len__(self) -> int:
        return self._n

    def encoded(self, numbers: Sequence[int], size: tuple[int, int], crop: bool) -> Iterator[bytes]:
        """Yield pictures as WebP of this (height, width). One that cannot be read is empty bytes, and kept for `tell`."""
        for image in self._images(numbers, size, crop):
            yield b"" if image is None else _webp(image)

    def arrays(self, numbers: Sequence[int], size: tuple[int, int], crop: bool) -> Iterator[np.ndarray | None]:
        """Yield pictures as uint8 [height, width, 3]. One that cannot be read is None, and kept for `tell`."""
        for image in self._images(numbers, size, crop):
            yield None if image is None else np.asarray(image)

    def _images(self, numbers: Sequence[int], size: tuple[int, int], crop: bool) -> Iterator[Any]:
        for number in map(int, numbers):
            self._tried += 1
            try:
                yield _resized(_as_image(self._load(number)), size, crop)
            except MemoryError:
                raise
            except Exception as error:  # a damaged picture is one of many kinds of errors in Pillow, or of a data set
                reason = type(error).__name__ if " at 0x" in str(error) else f"{type(error).__name__}: {error}"
                self._problems.append(f"{self.name(number)} ({reason})")
                yield None

    def tell(self) -> None:
        """Warn of pictures that could not be read. InvalidInputError if none could."""
        if self._problems and len(self._problems) == self._tried:
            raise InvalidInputError(f"pictures must be {_EXPECTED}, got none that can be read: {self._problems[0]}")
        if self._problems:
            listed = ", ".join(self._problems[:5])
            warn(f"pictures: {len(self._problems)} of {self._tried} cannot be read and are left blank: {listed}")

    def name(self, number: int) -> str:
        return self.names[number] if self.names else f"image {number}"


def as_pictures(pictures: Any, acts: object, n_images: int) -> Pictures | None:
    """Check the argument `pictures`, for so many images."""
    if pictures is None:
        return None
    _need_pillow()
    try:
        found = _found(pictures, acts)
    except (InvalidInputError, MemoryError, OSError):
        raise
    except Exception as error:  # of the caller's own object
        raise InvalidInputError(
            f"pictures must be {_EXPECTED}, got an object of type {type(pictures).__name__} that cannot be asked for them: "
            f"{type(error).__name__}; give arrays or files"
        ) from error
    if found is None:
        raise InvalidInputError(f"pictures must be {_EXPECTED}, got {checks.shown(pictures)}")
    if len(found) != n_images:
        raise InvalidInputError(
            f"pictures must be one for each of the {n_images} images of acts, got {len(found)}; they must be those that the "
            f"activations are of, in the same order"
        )
    return found


def _found(pictures: Any, acts: object) -> Pictures | None:
    names: Sequence[str] = acts.images if isinstance(acts, ActivationStore) else ()
    if isinstance(pictures, (str, os.PathLike)):
        folder = pathlib.Path(pictures)
        if not folder.is_dir():
            raise InvalidInputError(f"pictures must be {_EXPECTED}, got {str(folder)!r}, which is no folder")
        names = names or _files(folder)
        files = [folder / name for name in names]
        return Pictures(lambda number: files[number], names, len(files))
    array = _array_of(pictures)
    if array is not None:
        return Pictures(lambda number: array[number], names if len(names) == len(array) else (), len(array))
    if not hasattr(pictures, "__getitem__") or not hasattr(pictures, "__len__") or isinstance(pictures, (Mapping, bytes)):
        return None
    n = len(pictures)
    return Pictures(lambda number: pictures[number], names if len(names) == n else _names_of(pictures, n), n)


def _files(folder: pathlib.Path) -> list[str]:
    """Return picture files in a folder and its subfolders in the order of `usae.torch.extract`: that of the parts of names."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    return ["/".join(path.parts) for path in sorted(found, key=lambda path: path.parts) if not path.name.startswith(".")]


def _names_of(pictures: Any, n: int) -> list[str]:
    """Names of files in a sequence of paths or a data set such as torchvision's `ImageFolder`."""
    items = getattr(pictures, "samples", None) or (pictures if isinstance(pictures, (list, tuple)) else ())
    with contextlib.suppress(TypeError, ValueError, IndexError):
        names = [os.fsdecode(item[0] if isinstance(item, tuple) else item) for item in items]
        return names if len(names) == n else []
    return []


def _array_of(pictures: Any) -> np.ndarray | None:
    """Return arrays and tensors of all pictures as an array [images, height, width(, channels)]."""
    if hasattr(pictures, "detach"):
        pictures = pictures.detach().cpu().numpy()
    if not isinstance(pictures, np.ndarray) or pictures.dtype.kind not in "uifb":
        return None
    if pictures.ndim not in (3, 4) or not pictures.size:
        raise InvalidInputError(f"pictures must be {_EXPECTED}, got an array of shape {list(pictures.shape)}")
    return pictures


def _as_image(item: Any) -> Any:
    """Return a PIL image in RGB of an item: an array, a file, the contents of one, a PIL image, or an example that has one."""
    from PIL import Image

    if isinstance(item, Mapping):
        key = next((key for key in ("bytes", "path", *_KEYS) if item.get(key) is not None), None)
        return _as_image(item[key] if key else None)
    if isinstance(item, (tuple, list)) and item:
        return _as_image(item[0])
    if isinstance(item, (str, os.PathLike)):
        with Image.open(item) as image:
            return _rgb(image)
    if isinstance(item, (bytes, bytearray, memoryview)):
        with Image.open(io.BytesIO(item)) as image:
            return _rgb(image)
    if isinstance(item, Image.Image):
        return _rgb(item)
    if hasattr(item, "detach"):
        item = item.detach().cpu().numpy()
    if isinstance(item, np.ndarray):
        return Image.fromarray(_pixels(item))
    raise TypeError(f"{type(item).__name__} is no picture")


def _rgb(image: Any) -> Any:
    """Return a PIL image of any mode in RGB, as the camera was held, with the pixels that `usae.torch` gives to networks."""
    from PIL import Image, ImageOps

    from_png = image.format == "PNG"
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and from_png):  # older Pillows give 16 bits of PNG as 32
        return Image.fromarray(_pixels(np.asarray(image).astype(np.uint16)))
    if image.mode == "I" or (image.mode == "F" and image.getextrema()[1] <= 1):  # Pillow would clip these
        return Image.fromarray(_pixels(np.asarray(image)))
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode[:-1] + "A")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _pixels(array: np.ndarray) -> np.ndarray:
    """Return uint8 [height, width, 3]. Floats are from 0 to 1, uint16 to 65,535; channels may come first, as in PyTorch."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3:
        raise ValueError(f"a picture has height, width and channels, not shape {list(array.shape)}")
    if array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.shape[-1] not in (1, 3, 4):
        raise ValueError(f"a picture has 1, 3 or 4 channels, not shape {list(array.shape)}")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or array.min() < -1e-3 or array.max() > 1 + 1e-3:
            raise ValueError("a picture of floats is from 0 to 1: undo the network's normalisation")
        array = np.rint(np.clip(array, 0, 1) * 255)
    elif array.dtype.kind == "b":
        array = array * 255
    elif array.dtype == np.uint16:
        array = (array / 257).round()
    elif array.dtype != np.uint8 and (array.min(initial=0) < 0 or array.max(initial=0) > 255):
        raise ValueError(f"a picture of integers is from 0 to 255, not {array.min()} to {array.max()}")
    return np.ascontiguousarray(np.broadcast_to(array[..., :3], (*array.shape[:2], 3)).astype(np.uint8))


def _resized(image: Any, size: tuple[int, int], crop: bool) -> Any:
    from PIL import Image, ImageOps

    height, width = size
    if crop:
        return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)


def _webp(image: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=QUALITY, method=4)
    return stream.getvalue()


def webp_of(array: np.ndarray, side: int) -> bytes:
    """Return one picture as WebP, at most `side` pixels wide and high."""
    _need_pillow()
    image = _as_image(array)
    scale = min(1.0, side / max(image.size))
    width, height = (max(1, round(length * scale)) for length in image.size)
    return _webp(_resized(image, (height, width), crop=False))


def size_of(pictures: Pictures, side: int, grid: tuple[int, int] | None) -> tuple[int, int]:
    """Return (height, width) in the proportions of the grid, of at most `side` pixels and not above the first picture's own."""
    rows, columns = grid or (1, 1)
    with contextlib.suppress(Exception):  # told when it is drawn
        side = min(side, max(_as_image(pictures._load(0)).size))
    scale = side / max(rows, columns)
    return max(1, round(rows * scale)), max(1, round(columns * scale))


def _need_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ImportError("pictures need Pillow, which is missing; run: pip install 'usae[explore]'") from error
