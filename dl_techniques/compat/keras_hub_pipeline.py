"""KerasHub's way from data to batches, and around it.

Needed for `fit` and for every prompt: ours runs in Python, KerasHub's in TensorFlow or Grain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_hub.src.utils.pipeline_model import PipelineModel
from keras_hub.src.utils.tensor_utils import in_tf_function

if TYPE_CHECKING:
    import keras

__all__ = [
    "PipelineModel",
    "add_special_token",
    "check_vocabulary",
    "find_special_tokens",
    "in_tf_function",
]


def add_special_token(tokenizer: keras.layers.Layer, token: str, name: str) -> None:
    """Lets a tokenizer know a special token by the name of an attribute, `end_token` or so."""
    tokenizer._add_special_token(token, name)


def find_special_tokens(tokenizer: keras.layers.Layer) -> None:
    """Looks up the ids of the special tokens in the vocabulary that a tokenizer has now."""
    tokenizer._update_special_token_ids()


def check_vocabulary(tokenizer: keras.layers.Layer) -> None:
    """Raises a ValueError where a tokenizer has no vocabulary yet."""
    tokenizer._check_vocabulary()
