"""The types that the whole package shares.

Example:
    >>> import numpy as np
    >>> def double(x: Tensor) -> Tensor:
    ...     return x + x
    >>> double(np.ones((2,), "float32")).shape
    (2,)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

Shape: TypeAlias = tuple[int | None, ...]
"""Of a tensor; None where a side is not known yet."""
Sides: TypeAlias = tuple[int, ...]
"""Of an array, all of them known."""


class Tensor(Protocol):
    """What Keras' operations take and give: a tensor of the backend in use, a symbolic one of a
    functional model, a variable, or a NumPy array. Its class depends on the backend."""

    @property
    def shape(self) -> Any:
        """The sides; None where one is not known yet."""

    @property
    def dtype(self) -> Any:
        """The data type, as the backend names it."""

    @property
    def ndim(self) -> int:
        """How many sides."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: Any, /) -> Any: ...
    def __neg__(self) -> Any: ...
    def __add__(self, other: Any, /) -> Any: ...
    def __radd__(self, other: Any, /) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...
    def __rsub__(self, other: Any, /) -> Any: ...
    def __mul__(self, other: Any, /) -> Any: ...
    def __rmul__(self, other: Any, /) -> Any: ...
    def __truediv__(self, other: Any, /) -> Any: ...
    def __rtruediv__(self, other: Any, /) -> Any: ...
    def __matmul__(self, other: Any, /) -> Any: ...
    def __lt__(self, other: Any, /) -> Any: ...
    def __le__(self, other: Any, /) -> Any: ...
    def __gt__(self, other: Any, /) -> Any: ...
    def __ge__(self, other: Any, /) -> Any: ...
