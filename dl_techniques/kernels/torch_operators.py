"""What PyTorch computes best by functions of its own: convolutions, GELU, grouped attention.

Keras' torch backend copies the map of every convolution to NCHW and back, transposes the kernel
and pads beforehand. But a map float[B, H, W, C] in memory *is* PyTorch's channels-last NCHW, so a
view is enough; a 1x1 convolution is a matrix product on it as it lies; and padding, bias and the
whole GELU are part of PyTorch's own functions. So is attention that leaves keys unrepeated (one
core, 14 query and 2 key heads of 64, 320 slots: 0.14 ms a token for 0.49, 288 rows 5.5 for 10.7).
Variables and numbers stay the same.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from dl_techniques.compat import torch_own
from dl_techniques.kernels.machine import may_run_elsewhere, onednn_multiplies
from dl_techniques.kernels.reference import HIDDEN


def torch_conv(x: Any, kernel: Any, bias: Any = None, stride: int = 1) -> Any:
    """Dense convolution with `k // 2` zeros on each side.

    Args:
        x: float[B, H, W, C].
        kernel: float[k, k, C, F], Keras' layout.
        bias: float[F] or None.
        stride: int. Same stride for both axes.

    Returns:
        float[B, ceil(H / stride), ceil(W / stride), F].
    """
    x, kernel = ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)
    bias = None if bias is None else ops.convert_to_tensor(bias)
    if kernel.shape[0] == 1 and stride == 1:
        return torch_dense(x, kernel[0, 0], bias)
    return _convolve(x, kernel, bias, stride, 1)


def torch_dense(x: Any, kernel: Any, bias: Any = None, with_gelu: bool = False) -> Any:
    """A dense layer and, if wanted, its GELU.

    oneDNN adds the bias and computes the GELU while a piece of the product is in the cache. It is
    asked where no gradient is wanted and nothing is exported or compiled, whose tools do not know
    it (two cores with AVX-512: 65536 x 96 times 96 x 384 in 55 ms for 82, in bfloat16 32 for 46).

    Args:
        x: float[..., K].
        kernel: float[K, N].
        bias: float[N] or None.
        with_gelu: whether `torch_gelu` follows.

    Returns:
        float[..., N].
    """
    import torch

    x, kernel = ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)
    bias = None if bias is None else ops.convert_to_tensor(bias)
    wants_gradients = torch.is_grad_enabled() and (x.requires_grad or kernel.requires_grad)
    if wants_gradients or x.dtype != kernel.dtype or may_run_elsewhere(x):
        outputs = torch.nn.functional.linear(x, kernel.T, bias)
        return torch_gelu(outputs) if with_gelu else outputs
    rows = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
    # A single row: oneDNN reads units that lie side by side no faster.
    if onednn_multiplies(x.dtype) and (len(rows) > 1 or kernel.stride(-1) != 1):
        activation = "gelu" if with_gelu else "none"
        outputs = torch_own.linear_with_activation(rows, kernel.T, bias, activation)
    else:
        outputs = rows @ kernel if bias is None else torch.addmm(bias, rows, kernel)
        outputs = torch_gelu(outputs) if with_gelu else outputs
    return outputs if x.ndim == 2 else outputs.reshape(*x.shape[:-1], kernel.shape[1])


def torch_depthwise_conv(x: Any, kernel: Any, bias: Any = None, stride: int = 1) -> Any:
    """Depthwise convolution with `k // 2` zeros on each side.

    Args:
        x: float[B, H, W, C].
        kernel: float[k, k, C, m], Keras' layout.
        bias: float[C * m] or None.
        stride: int. Same stride for both axes.

    Returns:
        float[B, ceil(H / stride), ceil(W / stride), C * m]; channel `c * m + i` is of input `c`.
    """
    import torch

    x, kernel = ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)
    bias = None if bias is None else ops.convert_to_tensor(bias)
    size, _, channels, multiplier = kernel.shape
    if multiplier == 1 or may_run_elsewhere(x):
        kernel = kernel.reshape(size, size, 1, channels * multiplier)
        return _convolve(x, kernel, bias, stride, channels)
    # oneDNN has vector instructions for one output of a channel only: 7x7, stride 2, two outputs
    # of 96 channels, 256 x 256 places: 5 ms for 14, in bfloat16 4 for 24.
    biases = [None] * multiplier if bias is None else bias.reshape(channels, multiplier).T
    each = [
        _convolve(x, kernel[..., i : i + 1].transpose(2, 3), biases[i], stride, channels)
        for i in range(multiplier)
    ]
    return torch.stack(each, dim=-1).flatten(-2)


def _convolve(x: Any, kernel: Any, bias: Any, stride: int, groups: int) -> Any:
    import torch

    outputs = torch.nn.functional.conv2d(
        x.permute(0, 3, 1, 2),
        kernel.permute(3, 2, 0, 1),
        bias,
        stride,
        kernel.shape[0] // 2,
        groups=groups,
    )
    return outputs.permute(0, 2, 3, 1)


def torch_scores(visible: Any, dtype: str) -> Any:
    """What PyTorch's fused attention adds to its scores, once for all layers.

    Args:
        visible: bool[B, L, S].
        dtype: of queries and keys, as in Keras.

    Returns:
        float[B, L, S].
    """
    import torch

    visible = ops.convert_to_tensor(visible)
    scores = ops.zeros(visible.shape, dtype)
    return scores.masked_fill(~visible, max(HIDDEN, torch.finfo(scores.dtype).min))


def torch_grouped_attention(query: Any, keys: Any, values: Any, scores: Any) -> Any:
    """Attention of H * G queries over H keys and values in PyTorch's fused kernel.

    Args:
        query: float[B, L, H * G, size].
        keys: float[B, S, H, size].
        values: float[B, S, H, size].
        scores: float[B, L, S] of `torch_scores`.

    Returns:
        float[B, L, H * G, size].
    """
    import torch

    query, keys, values = (ops.convert_to_tensor(x) for x in (query, keys, values))
    batch, length, heads, size = query.shape
    single = length == 1
    if single:  # The queries of a group as so many positions: the fused kernel shares their work.
        query = query.reshape(batch, keys.shape[2], -1, size)
    else:
        query = query.transpose(1, 2)
    attended = torch.nn.functional.scaled_dot_product_attention(
        query,
        keys.transpose(1, 2),
        values.transpose(1, 2),
        attn_mask=scores[:, None],
        enable_gqa=not single,
    )
    return attended.reshape(batch, 1, heads, size) if single else attended.transpose(1, 2)


def torch_rotate(x: Any, cosines: Any, signed_sines: Any) -> Any:
    """Rotary embedding in four operators: float[B, L, H, size], same shape and numbers.

    Args:
        x: queries or keys.
        cosines: float[1, L, 1, size].
        signed_sines: float[1, L, 1, size], the first half negated.
    """
    return x * cosines + x.roll(x.shape[-1] // 2, -1) * signed_sines


def torch_write(cache: Any, places: Any, rows: Any) -> Any:
    """A copy of a cache with new rows: Keras' `slice_update` takes some thirty operators for that.

    Args:
        cache: float[B, S, H, size].
        places: int64[L], the slots that are written, or the first of them as a plain number.
        rows: float[B, L, H, size].
    """
    if isinstance(places, int):
        return ops.slice_update(cache, (0, places, 0, 0), rows)
    return cache.index_copy(1, places, rows)


def torch_write_slots(cache: Any, rows: Any, slots: Any, new: Any) -> Any:
    """The cache itself, written in place: a copy of all rows for one token each is what costs.

    Args:
        cache: float[R, S, H, size].
        rows: int[B].
        slots: int[B, L].
        new: float[B, L, H, size].
    """
    chosen, slots = (ops.convert_to_tensor(x).long() for x in (rows, slots))
    return cache.index_put_((chosen[:, None].expand_as(slots), slots), new)


def torch_rms_norm(x: Any, scale: Any, epsilon: float) -> Any:
    """RMS normalization of the last axis in float32, as KerasHub computes it.

    Its `ops.power(x, 2)` raises to the power of a tensor, which takes PyTorch twenty times as long
    as a product.

    Args:
        x: float[..., D].
        scale: float[D].
        epsilon: added to the mean square.

    Returns:
        float[..., D] in the dtype of `x`.

    Reference: Zhang and Sennrich, "Root Mean Square Layer Normalization", arXiv:1910.07467.
    """
    wide = x.float()
    shares = (wide * wide).mean(dim=-1, keepdim=True).add(epsilon).rsqrt()
    return (wide * shares * scale).to(x.dtype)


def torch_gelu(x: Any) -> Any:
    """The exact GELU in one pass over memory: same shape, same dtype."""
    import torch

    return torch.nn.functional.gelu(ops.convert_to_tensor(x))


def torch_silu(x: Any) -> Any:
    """SiLU, which widens by itself: same shape, same dtype."""
    import torch

    return torch.nn.functional.silu(ops.convert_to_tensor(x))


def torch_row_places(index: Any, length: int) -> Any:
    """The slots `index .. index + length`, once for all layers; a plain number as it is."""
    return index if isinstance(index, int) else ops.arange(length, dtype="int64") + index
