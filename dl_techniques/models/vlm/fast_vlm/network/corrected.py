"""KerasHub decoders that lose some of their arguments, with them.

keras-hub 0.32 takes these arguments and does not hand them on:

| decoder | argument | what comes instead |
|---|---|---|
| Qwen3 | `layer_norm_epsilon`, in the norms of queries and keys | 1e-5 (published weights: 1e-6) |
| Gemma3 | `layer_norm_epsilon`, in all norms but the last | 1e-6 |
| Gemma3 | `query_head_dim_normalize=False` (the 27B) | True |
| Llama3 | `tie_word_embeddings`, in the saved config | False, so a tied one cannot be loaded |

The classes here are those of KerasHub otherwise: same weights, same names.
"""

from __future__ import annotations

from typing import Any

import keras
import keras_hub

from dl_techniques.compat import keras_hub_decoders as parts
from dl_techniques.compat.keras_layers import all_parts


@keras.saving.register_keras_serializable(package="dl_techniques")
class Qwen3Decoder(keras_hub.models.Qwen3Backbone):
    """`keras_hub.models.Qwen3Backbone` whose epsilon reaches the norms of queries and keys.

    Args:
        **kwargs: as there.

    Example:
        >>> decoder = Qwen3Decoder(
        ...     vocabulary_size=16, num_layers=1, num_query_heads=2, num_key_value_heads=1,
        ...     head_dim=4, hidden_dim=8, intermediate_dim=8, layer_norm_epsilon=1e-6)
        >>> query_norm, _ = parts.query_key_norms(parts.attention_of(decoder.transformer_layers[0]))
        >>> query_norm.epsilon
        1e-06
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for layer in self.transformer_layers:
            attention = parts.attention_of(layer)
            attention.layer_norm_epsilon = self.layer_norm_epsilon
            for norm in parts.query_key_norms(attention) or ():
                norm.epsilon = self.layer_norm_epsilon


@keras.saving.register_keras_serializable(package="dl_techniques")
class Gemma3Decoder(keras_hub.models.Gemma3Backbone):
    """`keras_hub.models.Gemma3Backbone` whose epsilon and scale of queries reach its layers.

    Args:
        **kwargs: as there.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for block in self.transformer_layers:
            block.layer_norm_epsilon = self.layer_norm_epsilon
            block.query_head_dim_normalize = self.query_head_dim_normalize
            block.attention.layer_norm_epsilon = self.layer_norm_epsilon
            block.attention.query_head_dim_normalize = self.query_head_dim_normalize
            for part in all_parts(block):
                if type(part) is type(self.layer_norm):
                    part.epsilon = self.layer_norm_epsilon


@keras.saving.register_keras_serializable(package="dl_techniques")
class Llama3Decoder(keras_hub.models.Llama3Backbone):
    """`keras_hub.models.Llama3Backbone` whose config says whether its logits are tied.

    Args:
        tie_word_embeddings: whether logits come from the embedding table.
        **kwargs: as there.
    """

    def __init__(self, tie_word_embeddings: bool = False, **kwargs: Any) -> None:
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)
        self.tie_word_embeddings = tie_word_embeddings

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, all of them."""
        return {**super().get_config(), "tie_word_embeddings": self.tie_word_embeddings}
