"""Which places of a map look at which: four kinds of attention as functions of q, k and v.

All take and give float[B, H, W, heads, D]; N = H * W is the number of places.

| kind | every place looks at | cost |
|---|---|---|
| `full` | every place | N * N |
| `window` | the places of its own window of w x w | N * w * w |
| `strided` | the means of k and v over cells of s x s | N * N / (s * s) |
| `linear` | every place, through a kernel instead of a softmax | N * D |

Reference: window: Liu et al., "Swin Transformer", arXiv:2103.14030, section 3.2 (without shifts);
strided: Wang et al., "Pyramid Vision Transformer v2", arXiv:2106.13797, section 3.1 (average
pooling of keys and values); linear: Katharopoulos et al., "Transformers are RNNs",
arXiv:2006.16236, equations 4 to 7 with elu(x) + 1.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from dl_techniques import kernels
from dl_techniques.typing import Tensor

KINDS = ("full", "window", "strided", "linear")
DEFAULT_EXTENT = {"window": 8, "strided": 2}
"""Side of a window, or of a cell, in places, where none is given."""


def check_kind(kind: str, extent: int | None) -> int:
    """The extent to use: side of a window or cell, 0 where the kind has none.

    Raises:
        ValueError: an unknown kind, or an extent that it cannot have.
    """
    if kind not in KINDS:
        raise ValueError(f"attention kind {kind!r} is unknown; use one of {', '.join(KINDS)}")
    if kind not in DEFAULT_EXTENT:
        if extent:
            raise ValueError(f"attention kind {kind!r} has no extent, got {extent}; leave it out")
        return 0
    chosen = DEFAULT_EXTENT[kind] if extent is None else extent
    if chosen < 1:
        raise ValueError(f"the extent of {kind!r} attention must be at least 1, got {extent}")
    return chosen


def attend(q: Tensor, k: Tensor, v: Tensor, kind: str = "full", extent: int = 0) -> Any:
    """Applies one kind of attention: float[B, H, W, heads, D] three times -> the same once.

    Args:
        q: queries.
        k: keys.
        v: values.
        kind: one of `KINDS`.
        extent: side of a window or cell, as `check_kind` gives it.

    Example:
        >>> import numpy as np
        >>> x = np.ones((1, 4, 6, 2, 8), "float32")
        >>> tuple(attend(x, x, x, "window", 3).shape[1:3])
        (4, 6)
    """
    if kind == "window":
        return _window(q, k, v, extent)
    if kind == "strided":
        return _unflatten(kernels.attention(_flat(q), _pooled(k, extent), _pooled(v, extent)), q)
    if kind == "linear":
        return _unflatten(_kernel_attention(_flat(q), _flat(k), _flat(v)), q)
    return _unflatten(kernels.attention(_flat(q), _flat(k), _flat(v)), q)


def _flat(x: Tensor) -> Any:
    """float[B, H, W, heads, D] -> float[B, H * W, heads, D]."""
    batch, height, width, heads, size = ops.shape(x)
    return ops.reshape(x, (batch, height * width, heads, size))


def _unflatten(x: Tensor, like: Any) -> Any:
    return ops.reshape(x, ops.shape(like))


def _kernel_attention(q: Tensor, k: Tensor, v: Tensor) -> Any:
    """phi(q) (phi(k)' v) over phi(q) sum(phi(k)), with phi = elu + 1, in float32."""
    kind = v.dtype
    q, k, v = (ops.cast(x, "float32") for x in (q, k, v))
    q, k = ops.elu(q) + 1.0, ops.elu(k) + 1.0
    context = ops.einsum("bnhd,bnhe->bhde", k, v)
    total = ops.einsum("bnhd,bhd->bnh", q, ops.sum(k, axis=1))
    return ops.cast(ops.einsum("bnhd,bhde->bnhe", q, context) / total[..., None], kind)


def _pooled(x: Tensor, side: int) -> Any:
    """Means over cells of `side` x `side`, flat; cells at the edge hold what there is of them."""
    batch, height, width, heads, size = ops.shape(x)
    counts = _cell_sums(ops.ones((1, height, width, 1), x.dtype), side)
    means = _cell_sums(ops.reshape(x, (batch, height, width, heads * size)), side) / counts
    return ops.reshape(means, (batch, -1, heads, size))


def _cell_sums(x: Tensor, side: int) -> Any:
    """Sums over cells that begin at the upper left corner: float[B, H, W, C] -> [B, cells, C]."""
    batch, height, width, channels = ops.shape(x)
    below, right = -height % side, -width % side
    x = ops.pad(x, ((0, 0), (0, below), (0, right), (0, 0)))
    rows, columns = (height + below) // side, (width + right) // side
    x = ops.sum(ops.reshape(x, (batch, rows, side, columns, side, channels)), axis=(2, 4))
    return ops.reshape(x, (batch, rows * columns, channels))


def _window(q: Tensor, k: Tensor, v: Tensor, side: int) -> Any:
    """Every window for itself; places that pad the last ones are seen by nobody."""
    batch, height, width, heads, size = ops.shape(q)
    below, right = -height % side, -width % side
    rows, columns = (height + below) // side, (width + right) // side

    def windows(x: Tensor) -> Any:
        channels = ops.shape(x)[3:]
        x = ops.pad(x, ((0, 0), (0, below), (0, right)) + ((0, 0),) * len(channels))
        x = ops.reshape(x, (-1, rows, side, columns, side, *channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, *range(5, 5 + len(channels))))
        return ops.reshape(x, (-1, side * side, *channels))

    inside = windows(ops.ones((1, height, width), "bool"))  # bool[windows, side * side]
    mask = ops.tile(inside, (batch, 1))[:, None, None, :]
    attended = kernels.attention(windows(q), windows(k), windows(v), mask)
    x = ops.reshape(attended, (-1, rows, columns, side, side, heads, size))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5, 6))
    x = ops.reshape(x, (-1, rows * side, columns * side, heads, size))
    return x[:, :height, :width]
