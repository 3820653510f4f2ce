"""What a transform, an image processor or a data config says of how a network's images are made.

Nothing is half read: what a picture would need and is not done here is among `Preprocessing.more`, of which `Model` warns, and
what has no meaning here, such as a random step, is refused.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from usae._base import checks
from usae.errors import InvalidInputError
from usae.torch._pixels import kind_of
from usae.torch._preprocessing import Cut, Pair, Preprocessing
from usae.torch._readings import Unreadable, as_sides, name_of_filter, numbers_of
from usae.torch._transform_steps import flat, of_steps, steps_within

MODES = ("center", "squash", "border")
"""What `Cut.mode` may be."""

CONFIG_OF_PICTURES = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
"""Entries of a data config of timm that say how its images are made."""

CONFIG_OF_OTHERS = (
    *("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "architecture", "tag", "custom_load"),
    *("num_classes", "test_input_size", "min_input_size", "fixed_input_size", "test_crop_pct", "label_offset", "label_names"),
    *("pool_size", "label_descriptions", "test_pool_size", "first_conv", "classifier", "license", "description", "origin_url"),
    *("paper_name", "paper_ids", "notes"),
)
"""Its entries that say something else."""

DONE_BY_PROCESSORS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
"""Switches of image processors of transformers that are honoured here."""

NOT_OF_PIXELS = ("do_convert_annotations", "do_reduce_labels", "do_remove_padding")
"""Their switches that change no picture."""


def of(given: Any, told: Sequence[str] = ()) -> Preprocessing:
    """From what a user gives as `preprocessing`. InvalidInputError for anything that cannot be honoured.

    Parameters
    ----------
    given : object
        See `usae.torch.Model`.
    told : sequence of "mean" and "std"
        What the user gives beside it, so that it need not say it.
    """
    if isinstance(given, Preprocessing):
        return given
    try:
        found = _found(given, told)
        if found is not None:
            return checked(found, told)
    except MemoryError:
        raise
    except Exception as error:  # of the object's own attributes and methods
        reason = str(error) if isinstance(error, Unreadable) else f"{type(error).__name__}: {error}"
        raise InvalidInputError(
            f"preprocessing must be that of evaluation and say sizes and scales as its library does, got {kind_of(given)}: "
            f"{reason}; or give mean=, std= and size= instead"
        ) from error
    raise InvalidInputError(
        f"preprocessing must be an image processor of transformers, weights.transforms() of torchvision, a transform or a data "
        f"config of timm, got {kind_of(given)}; give mean=, std= and size= instead"
    )


def of_timm(cfg: Mapping[str, Any]) -> Preprocessing:
    """From `pretrained_cfg` of a network of timm, or what `timm.data.resolve_model_data_config` makes of it."""
    size = tuple(cfg.get("input_size") or ())[1:]
    share, mode = cfg.get("crop_pct"), cfg.get("crop_mode") or "center"
    mean, std = cfg.get("mean"), cfg.get("std")
    return Preprocessing(
        mean=None if mean is None else numbers_of(mean),
        std=None if std is None else numbers_of(std),
        size=as_sides(size) if size else None,
        interpolation=cfg.get("interpolation") or None,
        cut=Cut(mode, float(share)) if share else None,
    )


def checked(found: Preprocessing, told: Sequence[str] = ()) -> Preprocessing:
    """Return it. ValueError for numbers that no preprocessing has, and for one half of a scale, unless these are told."""
    for name, other in (("mean", "std"), ("std", "mean")):
        if getattr(found, name) is None and getattr(found, other) is not None and name not in told:
            raise Unreadable(f"it says {other} and not {name}; give {name}= beside it")
    for name, values in (("mean", found.mean), ("std", found.std)):
        if values is None or name in told:
            continue
        if not (values and all(map(math.isfinite, values)) and (name == "mean" or min(values) > 0)):
            raise Unreadable(f"{name} is {checks.shown(values)}")
        if max(values) > 1:
            raise Unreadable(
                f"{name} is {checks.shown(values)}, which is of pictures in 0..255, while those here are in 0..1; divide mean "
                f"and std by 255"
            )
    if found.size is not None and min(found.size) < 1:
        raise Unreadable(f"the size is {checks.shown(found.size)}")
    if found.interpolation is not None and not isinstance(found.interpolation, str):
        raise Unreadable(f"interpolation is {checks.shown(found.interpolation)}")
    if found.interpolation == "random":
        raise Unreadable("its interpolation is drawn at random, so images would differ each time")
    if found.cut is None:
        return found
    if found.cut.mode not in MODES or not found.cut.share > 0:
        raise Unreadable(f"what it cuts is {found.cut.mode!r}, {found.cut.share}")
    if found.cut.share > 1 and found.cut.mode != "border":  # the picture is smaller than what is cut out, which pads it
        found = found._replace(cut=found.cut._replace(mode="border"))
    return found


# --- Private ----------------------------------------------------------------------------------------------------------


def _found(given: Any, told: Sequence[str]) -> Preprocessing | None:
    given = getattr(given, "image_processor", given)  # a processor for pictures and text
    if any(cls.__name__ in ("WeightsEnum", "Weights") for cls in type(given).__mro__):
        given = given.transforms()
    if dataclasses.is_dataclass(given) and not isinstance(given, type) and hasattr(given, "crop_pct"):
        given = dataclasses.asdict(given)  # timm's PretrainedCfg
    if isinstance(given, Mapping):
        return _of_config(given)
    if hasattr(given, "image_mean"):
        return _of_processor(given, told)
    if hasattr(given, "resize_size") and hasattr(given, "crop_size"):
        return _of_torchvision(given)
    if steps_within(given) is not None:
        return of_steps(list(flat(given)), told)
    return None


def _of_config(config: Mapping[Any, Any]) -> Preprocessing | None:
    if not any(name in config for name in ("input_size", "crop_pct", "mean")):
        return None
    others = [str(name) for name in config if name not in (*CONFIG_OF_PICTURES, *CONFIG_OF_OTHERS)]
    return of_timm(config)._replace(more=tuple(f"{name} (an entry of the mapping)" for name in others))


def _of_processor(processor: Any, told: Sequence[str]) -> Preprocessing:
    """From an image processor of transformers."""

    def said(name: str, default: Any = None) -> Any:
        value = getattr(processor, name, None)
        return default if value is None else value

    def does(name: str) -> bool:
        return bool(getattr(processor, f"do_{name}", True))  # what an early version lacks was always done

    # The processor multiplies 0..255 by a factor, may subtract 1, and then normalises; mean and std here are of 0..1.
    factor = 255 * (said("rescale_factor", 1 / 255) if does("rescale") else 1)
    normalizes = does("normalize")
    mean, std = (said("image_mean"), said("image_std")) if normalizes else (0.0, 1.0)
    mean, std = ([x / factor for x in numbers_of(y, 3)] for y in (mean, std))
    if not does("rescale") and max(*mean, *std) * factor <= 1 and not {"mean", "std"} <= set(told):
        raise Unreadable(
            "it does not rescale pictures (do_rescale), and does not say whether it takes them in 0..255 or in 0..1; give "
            "mean= and std= of those in 0..1"
        )
    if (said("rescale_offset", False) or said("offset", False)) and does("rescale"):  # EfficientNet and ViViT
        mean = [x + 1 / factor for x in mean]
    if said("include_top", False):  # EfficientNet divides by the standard deviation once more
        std = [x * y for x, y in zip(std, numbers_of(said("image_std"), 3), strict=True)]
    size = _sides_of(said("size", {})) if does("resize") else {}
    crop = _sides_of(said("crop_size", {})) if said("do_center_crop", False) else {}
    sides, cut = _cut_of_processor(size, crop, said("crop_pct"))
    number = said("resample")
    flags = [name for name in dir(type(processor)) + list(vars(processor)) if name.startswith("do_")]
    flags = [name for name in dict.fromkeys(flags) if name not in (*DONE_BY_PROCESSORS, *NOT_OF_PIXELS)]
    more = [name for name in flags if not callable(said(name)) and said(name, False)]
    if size and sides is None:
        more.append(f"size {', '.join(f'{name}={side}' for name, side in size.items())}, which keeps proportions,")
    return Preprocessing(
        mean=mean,
        std=std,
        size=sides,
        interpolation=None if number is None else name_of_filter(number),
        cut=cut,
        more=tuple(more),
    )


def _cut_of_processor(size: dict[str, int], crop: dict[str, int], share: Any) -> tuple[Pair | None, Cut | None]:
    sides = (crop["height"], crop["width"]) if crop else None
    if "shortest_edge" in size:
        edge = size["shortest_edge"]
        if share:  # ConvNeXt
            return (edge, edge), Cut("center", float(share), True) if edge < 384 else Cut("squash", 1.0)
        return sides, Cut("center", sides[0] / edge, True) if sides and sides[0] == sides[1] else None
    if "height" in size and "width" in size:
        height, width = size["height"], size["width"]
        sides = sides or (height, width)
        return sides, Cut("squash", sides[0] / height, True) if sides[0] * width == sides[1] * height else None
    return sides, None


def _sides_of(size: Any) -> dict[str, int]:
    if isinstance(size, int):
        return {"height": size, "width": size}
    if isinstance(size, (tuple, list)):
        return {"height": int(size[0]), "width": int(size[1])}
    names = ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width")
    found = {name: size.get(name) if isinstance(size, Mapping) else getattr(size, name, None) for name in names}
    return {name: int(value) for name, value in found.items() if value is not None}


def _of_torchvision(preset: Any) -> Preprocessing:
    """From ``weights.transforms()`` of torchvision."""
    resized_to, size = preset.resize_size, as_sides(preset.crop_size)
    edge = resized_to[0] if isinstance(resized_to, (list, tuple)) else resized_to
    return Preprocessing(
        mean=numbers_of(preset.mean),
        std=numbers_of(preset.std),
        size=size,
        interpolation=name_of_filter(preset.interpolation),
        cut=Cut("center", size[0] / edge) if size[0] == size[1] else None,
    )
