"""Pictures and conversations to arrays: reading, checking, geometry, batches for `fit`.

Reading a picture or a record file needs Pillow and numpy only; Keras is imported when
`ConversationDataset` is first used.

Example:
    >>> import numpy as np
    >>> from dl_techniques.data import load_image
    >>> load_image(np.zeros((4, 6), "uint8")).shape
    (4, 6, 3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dl_techniques.backend import choose_backend
from dl_techniques.data.conversations import (
    parse_conversation,
    read_conversations,
    write_conversations,
)
from dl_techniques.data.images import load_image

if TYPE_CHECKING:
    from dl_techniques.data.dataset import ConversationDataset

__all__ = [
    "ConversationDataset",
    "load_image",
    "parse_conversation",
    "read_conversations",
    "write_conversations",
]


def __getattr__(name: str) -> Any:
    """Imports `ConversationDataset`, and Keras with it, when it is first used.

    Raises:
        AttributeError: the package has no such name.
    """
    if name != "ConversationDataset":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    choose_backend()
    from dl_techniques.data.dataset import ConversationDataset

    return ConversationDataset
