"""Arguments of `usae.controls`: which controls are run, and what they need."""

from __future__ import annotations

from collections.abc import Mapping

from usae._base import checks
from usae._data.activations import Activations, left_out
from usae._data.chunks import rows_per_image
from usae._data.chunks import tokens_per_image as common_tokens_per_image
from usae._estimator.universal_sae import UniversalSAE
from usae.errors import InvalidInputError

CONTROLS = (
    "tokens", "images", "concepts", "random", "linear", "initial", "agreement", "frozen_dictionary", "frozen_encoder",
    "untrained", "shuffled", "seeds",
)  # fmt: skip
"""Names of the controls, the cheapest first."""

TRAINED_AGAIN = ("initial", "frozen_dictionary", "frozen_encoder", "shuffled", "seeds")
NEED_TRAINING_ROWS = ("linear", "agreement", *TRAINED_AGAIN)
NEED_STEPS = (*TRAINED_AGAIN, "untrained")


def checked_level(level: object) -> float:
    number = checks.as_float(level)
    if not 0 < number < 1:
        raise InvalidInputError(f"level must be a number between 0 and 1, such as .95, got {checks.shown(level)}")
    return number


def checked_images(tokens_per_image: object, acts: Mapping[str, Activations]) -> int | None:
    if tokens_per_image is None:
        return common_tokens_per_image(acts)
    n_rows = next(iter(acts.values())).n_rows
    number = checks.integer(tokens_per_image, "tokens_per_image", 1, n_rows)
    if n_rows % number:
        raise InvalidInputError(
            f"tokens_per_image must divide the number of rows, {n_rows:,}, got {number}; leave out the rows of an incomplete "
            "image"
        )
    return rows_per_image(acts, number)


def why_no_images(acts: Mapping[str, Activations]) -> str:
    """Return the error of a call that includes "images" without images of equal size."""
    if left_out(acts):
        return (
            "mask must leave out the same places of all images where include has 'images', got others, or tokens_per_image is "
            "not known; give tokens_per_image, leave out whole images, or do not include 'images'"
        )
    return (
        "tokens_per_image must be given where include has 'images', got None; give arrays [images, tokens, width] instead if "
        "you have them"
    )


def checked_include(include: object, has_train: bool, has_untrained: bool, no_images: str | None) -> set[str]:
    """Return the names of the controls to run. `no_images` is the error of including "images", or None if it can be run."""
    if include is None:
        without = {"images"} if no_images else set()
        without |= set() if has_train else set(NEED_TRAINING_ROWS)
        without |= set() if has_untrained else {"untrained"}
        return set(CONTROLS) - without
    include = checks.listed(include, "include", "a list of names of controls")
    chosen = set()
    for name in include:
        name = checks.choice(name, "include", CONTROLS)
        if name in NEED_TRAINING_ROWS and not has_train:
            raise InvalidInputError(f"train must be what sae was trained on where include has {name!r}, got None")
        if name == "untrained" and not has_untrained:
            raise InvalidInputError(
                "untrained must be activations of the same networks with random weights where include has 'untrained', got None"
            )
        if name == "images" and no_images:
            raise InvalidInputError(no_images)
        chosen.add(name)
    return chosen


def check_finite(sae: UniversalSAE, train: Mapping[str, Activations]) -> None:
    try:
        sae._initialized().check_finite(train)
    except InvalidInputError as error:
        error.add_note("These activations are those of the argument 'train'.")
        raise
