"""A vision-language model ready for questions: no random numbers made, fused, its sampler set.

Heavy imports stand inside the functions: a command that finds a bad option must not wait for Keras.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_techniques.loading.source import ARCHIVE_SUFFIX, load

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; temperature 0 takes the most likely one.

    Attributes:
        temperature: divisor of the logits; 0 is greedy.
        top_k: keep the k most likely tokens, or None.
        top_p: keep the smallest set with this probability, or None.
        seed: seed of the draw, or None.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None

    @property
    def greedy(self) -> bool:
        """True where nothing is drawn."""
        return self.temperature == 0.0


def load_for_answers(
    source: str | Path, *, fuse: bool = True, sampling: Sampling | None = None
) -> Any:
    """Loads a vision-language model for questions, not for training.

    Not for use in threads that build other models meanwhile.

    Args:
        source: name of a shipped preset, a folder, a `.keras` file, or `hf://organisation/name`.
        fuse: fuse the encoder for inference, where it has such a form and is not fused yet.
        sampling: how tokens are chosen. Defaults to what the preset says.

    Returns:
        A `FastVLMCausalLM`.

    Raises:
        PresetError: there is no such preset.
        SamplingError: a number of `sampling` means nothing.

    Example:
        >>> load_for_answers("demo").reparameterized
        True
    """
    from dl_techniques import FastVLMCausalLM
    from dl_techniques.runtime.quick_load import loaded_on_the_host

    with loaded_on_the_host():
        archived = Path(source).suffix == ARCHIVE_SUFFIX
        model = load(source) if archived else FastVLMCausalLM.from_preset(source)
    if fuse and model.forms and not model.reparameterized:
        model.reparameterize()
    if sampling is not None:
        set_sampling(model, sampling)
    return model


def set_sampling(model: keras.Model, sampling: Sampling) -> None:
    """Compiles a model with a sampler; a top-k of the vocabulary or more is all of it.

    Args:
        model: a `FastVLMCausalLM`.
        sampling: how tokens are chosen.
    """
    from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import RowSettings, sampler_of

    settings = RowSettings(sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed)
    vocabulary = model.backbone.text_backbone.token_embedding.input_dim
    model.compile(sampler=sampler_of(settings, vocabulary))
