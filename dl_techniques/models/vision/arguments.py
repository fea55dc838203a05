"""Checks of what both vision networks take, each of which gives one clear error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, SupportsFloat, SupportsIndex

import keras

from dl_techniques.errors import VariantError

COLOURS = (1, 3, 4)
HALF = ("float16", "mixed_float16")


def check_input_shape(input_shape: Sequence[int | None]) -> None:
    """Refuses what is no (H, W, channels).

    Args:
        input_shape: as given to the constructor; H and W may be None.

    Raises:
        VariantError: another number of entries, no channels, no whole numbers, or channels first.
    """
    shape = tuple(input_shape)
    if len(shape) == 3 and shape[0] in COLOURS and shape[2] not in COLOURS:
        raise VariantError(
            f"input_shape {shape} puts the channels first; these networks take channels last on "
            f"every backend, whatever keras.config.image_data_format() says: give "
            f"{(shape[1], shape[2], shape[0])} and pictures float[B, H, W, {shape[0]}]"
        )
    whole = all(side is None or is_whole(side, 1) for side in shape)
    if len(shape) != 3 or shape[-1] is None or not whole:
        raise VariantError(
            f"input_shape must be (H, W, channels), whole numbers of at least 1 (H and W may be "
            f"None); got {shape}"
        )


def is_whole(value: Any, least: int) -> bool:
    """Whether a value is a whole number of at least so much; `True` is none."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return False
    return int(value) >= least


def check_whole(field: str, values: Any, least: int) -> None:
    """Refuses a field that is no whole number, or a sequence that holds another.

    Raises:
        VariantError: names the field, what came and what was expected.
    """
    several = isinstance(values, Sequence) and not isinstance(values, str)
    if not all(is_whole(value, least) for value in (values if several else [values])):
        shown = list(values) if several else values
        raise VariantError(f"{field} is {shown!r}; expected whole numbers of at least {least}")


def check_number(field: str, value: Any, low: float, high: float = math.inf) -> None:
    """Refuses a field that is no finite number from `low` to `high`.

    Raises:
        VariantError: names the field, what came and what was expected.
    """
    # NumPy's numbers have `__float__`, texts have not; NaN is in no range.
    number = float(value) if isinstance(value, SupportsFloat) else math.nan
    if isinstance(value, bool) or not (math.isfinite(number) and low <= number <= high):
        upper = "" if high == math.inf else f" to {high:g}"
        raise VariantError(f"{field} is {value!r}; expected a number from {low:g}{upper}")


def refuse_float16(dtype: Any) -> None:
    """Refuses a type whose range the tower leaves.

    Raises:
        VariantError: the policy (the global one where `dtype` is None) computes in float16.
    """
    name = keras.dtype_policies.get(dtype or keras.config.dtype_policy()).name
    if name in HALF:
        raise VariantError(
            f"dtype {name!r} is refused: at 1024 pixels the late stages of the tower reach about "
            '6e4, where float16 ends at 65504 and answers become NaN; use "bfloat16" or "float32"'
        )
