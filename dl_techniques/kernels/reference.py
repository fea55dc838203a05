"""Every kernel as `keras.ops` computes it: what the others are held against.

Shapes and dtypes are those of `dl_techniques.kernels`, whose docstrings say what each is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import keras
from keras import ops

from dl_techniques.typing import Tensor

SQRT_HALF = 0.7071067811865476
# The longest float32 row for which XLA's CPU backend widens a kernel while it reads it: 16 kB.
LONGEST = 4095
HIDDEN = -1e9
"""Score of a place that must not be seen: its share is 0, and a row that sees none stays finite."""


def pad_symmetrically(x: Tensor, kernel_size: int) -> Tensor:
    """Zero-pads `float[B, H, W, C]` by `kernel_size // 2` on all four sides."""
    margin = kernel_size // 2
    return ops.pad(x, [[0, 0], [margin, margin], [margin, margin], [0, 0]]) if margin else x


def conv(x: Tensor, kernel: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    """The library's convolution of the padded map."""
    padded = pad_symmetrically(x, kernel.shape[0])
    outputs = ops.conv(padded, kernel, strides=stride, padding="valid", data_format="channels_last")
    return outputs if bias is None else ops.add(outputs, bias)


def depthwise_conv(
    x: Tensor, kernel: Tensor, bias: Tensor | None = None, stride: int = 1
) -> Tensor:
    """The library's depthwise convolution of the padded map."""
    padded = pad_symmetrically(x, kernel.shape[0])
    outputs = ops.depthwise_conv(
        padded, kernel, strides=stride, padding="valid", data_format="channels_last"
    )
    return outputs if bias is None else ops.add(outputs, bias)


def gelu(x: Tensor) -> Tensor:
    """The exact GELU, in words that every exporter can read."""
    return 0.5 * x * (1.0 + ops.erf(x * SQRT_HALF))


def dense(x: Tensor, kernel: Tensor, bias: Tensor | None = None, with_gelu: bool = False) -> Tensor:
    """A product, a sum, and the GELU."""
    outputs = ops.matmul(x, kernel)
    outputs = outputs if bias is None else ops.add(outputs, bias)
    return gelu(outputs) if with_gelu else outputs


def to_vocabulary(x: Tensor, table: Tensor) -> Tensor:
    """A product with the transposed table."""
    return ops.matmul(x, ops.transpose(table))


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """`ops.matmul`."""
    return ops.matmul(left, right)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """`ops.dot_product_attention`."""
    return ops.dot_product_attention(q, k, v, mask=mask)


def attention_mask(visible: Tensor, dtype: str) -> Tensor:
    """What is visible, as it is."""
    return visible


def grouped_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    product: Callable[[Tensor, Tensor], Tensor] = ops.matmul,
) -> Tensor:
    """The queries of a group as so many rows of one product."""
    batch, length, slots = ops.shape(query)[0], query.shape[1], keys.shape[1]
    heads, size = keys.shape[2], keys.shape[3]
    groups = query.shape[2] // heads
    query = ops.reshape(query, (batch, length, heads, groups, size))
    query = ops.reshape(
        ops.transpose(query, (0, 2, 3, 1, 4)), (batch, heads, groups * length, size)
    )
    scores = product(query * size**-0.5, ops.transpose(keys, (0, 2, 3, 1)))
    scores = ops.reshape(ops.cast(scores, "float32"), (batch, heads, groups, length, slots))
    shares = ops.softmax(ops.where(mask[:, None, None], scores, HIDDEN), axis=-1)
    shares = ops.reshape(ops.cast(shares, values.dtype), (batch, heads, groups * length, slots))
    mixed = product(shares, ops.transpose(values, (0, 2, 1, 3)))
    mixed = ops.reshape(ops.cast(mixed, values.dtype), (batch, heads, groups, length, size))
    return ops.reshape(ops.transpose(mixed, (0, 3, 1, 2, 4)), (batch, length, heads * groups, size))


def rms_norm(x: Tensor, scale: Tensor, epsilon: float) -> Tensor:
    """The mean square in float32, rounded once."""
    wide = ops.cast(x, "float32")
    shares = ops.rsqrt(ops.mean(ops.square(wide), axis=-1, keepdims=True) + epsilon)
    return ops.cast(wide * shares * ops.cast(scale, "float32"), x.dtype)


def rotate(x: Tensor, cosines: Tensor, signed_sines: Tensor) -> Tensor:
    """Both halves change places."""
    first, second = ops.split(x, 2, axis=-1)
    # Not concatenated: XLA once compiled that wrongly, which KerasHub avoids in the same way.
    swapped = ops.reshape(ops.stack((second, first), axis=-2), ops.shape(x))
    return x * cosines + swapped * signed_sines


def row_places(index: Tensor | int, length: int) -> Tensor | int:
    """The first place alone."""
    return index


def write_rows(cache: Tensor, places: Tensor | int, rows: Tensor) -> Tensor:
    """`ops.slice_update`."""
    return ops.slice_update(cache, (0, places, 0, 0), rows)


def write_slots(cache: Tensor, rows: Tensor, slots: Tensor, new: Tensor) -> Tensor:
    """`ops.scatter_update`, one slot after the other."""
    chosen = ops.broadcast_to(ops.cast(rows, "int32")[:, None], ops.shape(slots))
    places = ops.stack([chosen, ops.cast(slots, "int32")], axis=-1)
    return ops.scatter_update(
        cache, ops.reshape(places, (-1, 2)), ops.reshape(new, (-1, *new.shape[2:]))
    )


def silu(x: Tensor) -> Tensor:
    """SiLU in float32, rounded once."""
    return ops.cast(ops.silu(ops.cast(x, "float32")), x.dtype)


def quantize_rows(x: Tensor, value_range: tuple[int, int], epsilon: float) -> tuple[Tensor, Tensor]:
    """Keras' own quantizer, along the last axis."""
    numbers, scale = keras.quantizers.abs_max_quantize(
        x, axis=-1, value_range=value_range, dtype="int8", epsilon=epsilon
    )
    return numbers, scale


def int8_matmul(numbers: Tensor, kernel: Tensor, transposed: bool = False) -> Tensor:
    """As floats: sums of fewer than 1040 products are exact, longer ones as good as any."""
    numbers = ops.cast(numbers, "float32")
    if not transposed:
        return ops.matmul(numbers, ops.cast(kernel, "float32"))
    depth = kernel.shape[1]
    parts = -(-depth // LONGEST)
    ends = [depth * i // parts for i in range(parts + 1)]
    return sum(
        ops.matmul(numbers[:, start:end], ops.transpose(ops.cast(kernel[:, start:end], "float32")))
        for start, end in itertools.pairwise(ends)
    )


def rescale(sums: Tensor, divisor: Tensor) -> Tensor:
    """A quotient."""
    return sums / divisor
