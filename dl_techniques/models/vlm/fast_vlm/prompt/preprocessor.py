"""Pictures and conversations to the arrays that FastVLM reads, in plain Python and numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras_hub import models as hub_models

from dl_techniques.compat.keras_hub_pipeline import in_tf_function
from dl_techniques.errors import PromptError
from dl_techniques.models.presets.vlm_folder import PresetMixin
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import (
    DEFAULT_SYSTEM_PROMPT,
    Message,
    Segment,
)
from dl_techniques.models.vlm.fast_vlm.prompt.encoding import ConversationEncoder
from dl_techniques.models.vlm.fast_vlm.prompt.image_converter import FastVLMImageConverter
from dl_techniques.models.vlm.fast_vlm.prompt.packing import (
    EncodedConversation,
    cut,
    image_slots,
    pack_indices,
    pack_targets,
    pack_text,
)
from dl_techniques.models.vlm.fast_vlm.prompt.records import to_records
from dl_techniques.models.vlm.fast_vlm.prompt.template_variants import TEMPLATES, Template
from dl_techniques.models.vlm.fast_vlm.prompt.tokenizer import FastVLMTokenizer

TrainingBatch = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]


@keras.saving.register_keras_serializable(package="dl_techniques")
class FastVLMCausalLMPreprocessor(PresetMixin, hub_models.CausalLMPreprocessor):
    """Turn questions, pictures and answers into padded arrays.

    Inputs, alone or as a list: a question (str); `{"prompts", "images", "responses"}` with one
    entry or a list of entries each; a conversation `{"messages": [{"role", "content"}, ...],
    "images": [...]}`, whose contents may be lists of parts (`prompt.content`). A question is
    wrapped in ChatML with its pictures in front, unless the text has `<image>` marks, which then
    say where they go. Text that spells control tokens
    stays text. Rows are padded on the right.

    Args:
        tokenizer: `FastVLMTokenizer`.
        image_converter: `FastVLMImageConverter`.
        sequence_length: int. Positions of a row, placeholders included.
        num_image_tokens: int. Positions that one picture takes (T), e.g. (S / stride) ** 2.
        system_prompt: str or None. None or "" for none.
        max_images_per_prompt: int or None. If set, every batch has this many picture slots,
            so that shapes never change; else as many as its fullest row.
        template: "apple" (Apple's `predict.py`) or "transformers" (the Hugging Face conversion:
            a message's pictures first, and a newline in front of every text).
        **kwargs: `name`, `dtype`, `config_file` of a KerasHub preprocessor.

    Call arguments:
        x: Inputs as above, with answers (`responses`, or assistant messages).

    Returns:
        `(x, y, sample_weight)`: x as from `generate_preprocess`; y int32[B, L], the next token
        of each position; sample_weight float32[B, L], 1 where y is part of an answer or the
        `<|im_end|>` that closes it.

    Raises:
        PromptError: empty question, wrong number of pictures, text that does not fit.
        ImageError: a picture cannot be read.

    Example:
        >>> tokenizer = FastVLMTokenizer.from_texts(["what is this?"], vocabulary_size=300)
        >>> preprocessor = FastVLMCausalLMPreprocessor(
        ...     tokenizer, FastVLMImageConverter(32), sequence_length=160, num_image_tokens=4
        ... )
        >>> picture = np.zeros((20, 30, 3), "uint8")
        >>> batch = preprocessor.generate_preprocess({"prompts": "Why?", "images": picture})
        >>> batch["images"].shape, batch["vision_indices"].shape
        ((1, 1, 32, 32, 3), (1, 4))
    """

    backbone_cls = FastVLMBackbone
    tokenizer_cls = FastVLMTokenizer
    image_converter_cls = FastVLMImageConverter

    def __init__(
        self,
        tokenizer: FastVLMTokenizer,
        image_converter: FastVLMImageConverter,
        sequence_length: int = 1024,
        num_image_tokens: int = 256,
        system_prompt: str | None = DEFAULT_SYSTEM_PROMPT,
        max_images_per_prompt: int | None = None,
        template: Template = "apple",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            tokenizer=tokenizer,
            sequence_length=sequence_length,
            add_start_token=False,
            add_end_token=False,
            **kwargs,
        )
        if num_image_tokens < 1:
            raise ValueError(f"num_image_tokens={num_image_tokens} must be at least 1.")
        if template not in TEMPLATES:
            raise ValueError(f"template={template!r} is unknown; use one of {list(TEMPLATES)}.")
        self.image_converter = image_converter
        self.template = template
        self.num_image_tokens = int(num_image_tokens)
        self.system_prompt = system_prompt
        self.max_images_per_prompt = max_images_per_prompt

    def build(self, input_shape: Any = None) -> None:
        """Nothing to build: rows are packed in numpy, without the parent's packer."""
        self.built = True

    def encode(
        self, x: Any, learn: bool, names: Sequence[str] | None = None
    ) -> list[EncodedConversation]:
        """Tokenize conversations and read their pictures.

        Args:
            x: Inputs as in the class description.
            learn: True for training (the last message is the answer), False for generation.
            names: What errors call the conversations; None for their place in a list.

        Returns:
            One encoded conversation per row, not yet cut or padded.
        """
        records = to_records(x, names)
        if names is None:
            names = [f"prompt {i}" if len(records) > 1 else "" for i in range(len(records))]
        return self._encoder().encode(records, learn, names)

    def render(
        self,
        messages: Sequence[Message],
        num_images: int = 0,
        system_prompt: str | None = None,
        answer_next: bool = True,
    ) -> list[Segment]:
        """A conversation in typed pieces, as `chat_template.render` with this template.

        Args:
            messages: As there.
            num_images: As there.
            system_prompt: None or "" for none; not replaced by the preprocessor's own.
            answer_next: As there.
        """
        return self._encoder().render(messages, num_images, system_prompt, answer_next)

    def encode_segments(self, segments: Sequence[Segment]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids int32[n] and learn mask bool[n] of a rendered conversation."""
        return self._encoder().encode_segments(segments)

    def pack(
        self,
        rows: Sequence[EncodedConversation],
        sequence_length: int,
        num_images: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Pad encoded conversations to one batch.

        Args:
            rows: B conversations, none longer than `sequence_length`.
            sequence_length: Length L of every row.
            num_images: Picture slots N of every row; None for `max_images_per_prompt`, or else
                the largest number present.

        Returns:
            `token_ids` int32[B, L], `padding_mask` bool[B, L], `images` float32[B, N, S, S, 3],
            `vision_indices` int32[B, N * T], where an unused slot points to L: one past the
            end, the row that the model throws away.
        """
        slots = image_slots(rows, self.max_images_per_prompt if num_images is None else num_images)
        token_ids, mask = pack_text(rows, sequence_length, self.tokenizer.pad_token_id)
        images = np.zeros((len(rows), slots, *self.image_converter.image_size, 3), "float32")
        for i, row in enumerate(rows):
            self.image_converter.scale_pixels(row.images, out=images[i, : len(row.images)])
        return {
            "token_ids": token_ids,
            "padding_mask": mask,
            "images": images,
            "vision_indices": pack_indices(rows, sequence_length, slots * self.num_image_tokens),
        }

    def pack_for_training(
        self,
        rows: Sequence[EncodedConversation],
        sequence_length: int,
        num_images: int | None = None,
    ) -> TrainingBatch:
        """Cut to `sequence_length`, pad, and shift: `(x, y, sample_weight)` as in `call`.

        The text may be cut at its end, a picture never.
        """
        inputs = [cut(row, sequence_length) for row in rows]
        if num_images is None and self.max_images_per_prompt is None:
            # One slot at least: some backends cannot run the encoder on zero pictures.
            num_images = max(1, image_slots(rows, None))
        x = self.pack(inputs, sequence_length, num_images)
        return x, *pack_targets(rows, sequence_length, self.tokenizer.pad_token_id)

    def __call__(
        self, x: Any, y: Any = None, sample_weight: Any = None, **kwargs: Any
    ) -> TrainingBatch:
        # Not through Keras' call, which would wrap an error of one line into a page.
        return self.call(x, y, sample_weight, **kwargs)

    def call(
        self, x: Any, y: Any = None, sample_weight: Any = None, sequence_length: int | None = None
    ) -> TrainingBatch:
        if y is not None or sample_weight is not None:
            raise PromptError(
                "FastVLM makes targets and weights from the conversation itself: put answers "
                "into `responses` or assistant messages and pass no `y` or `sample_weight`."
            )
        _refuse_graph()
        rows = self.encode(x, learn=True)
        return self.pack_for_training(rows, sequence_length or self.sequence_length)

    def generate_preprocess(
        self, x: Any, sequence_length: int | None = None
    ) -> dict[str, np.ndarray]:
        """Prompts to arrays, ready for an answer to be written behind them.

        Args:
            x: Inputs as in the class description, the last message being the user's.
            sequence_length: Length L of the rows; None for `self.sequence_length`.

        Returns:
            The dict of `pack`; with no picture in the batch N is 0 (or
            `max_images_per_prompt`).

        Raises:
            PromptError: also if a prompt leaves no room for an answer.
        """
        _refuse_graph()
        length = sequence_length or self.sequence_length
        rows = self.encode(x, learn=False)
        for i, row in enumerate(rows):
            if len(row.token_ids) >= length:
                raise PromptError(
                    f"prompt {i} has {len(row.token_ids)} tokens ({len(row.image_positions)} of "
                    f"them for {len(row.images)} picture(s)), which leaves no room for an answer "
                    f"in {length}; shorten it, use fewer pictures or a larger length."
                )
        return self.pack(rows, length)

    def generate_postprocess(self, x: Mapping[str, Any]) -> list[str]:
        """Token ids to texts, without padding, control tokens and picture placeholders.

        Args:
            x: `token_ids` int[B, L] and `padding_mask` bool[B, L].

        Returns:
            B texts.
        """
        _refuse_graph()
        ids = np.atleast_2d(keras.ops.convert_to_numpy(x["token_ids"]))
        mask = np.atleast_2d(keras.ops.convert_to_numpy(x["padding_mask"])).astype("bool")
        rows = [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]
        return self.tokenizer.detokenize(rows, skip_special_tokens=True)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["add_start_token"], config["add_end_token"]  # the chat template decides
        config.update(
            num_image_tokens=self.num_image_tokens,
            system_prompt=self.system_prompt,
            max_images_per_prompt=self.max_images_per_prompt,
            template=self.template,
        )
        return config

    def _encoder(self) -> ConversationEncoder:
        """Made anew each time: every part of it may be exchanged by its attribute."""
        return ConversationEncoder(
            self.tokenizer,
            self.image_converter,
            self.num_image_tokens,
            self.system_prompt,
            self.template,
        )


def _refuse_graph() -> None:
    if in_tf_function():
        raise PromptError(
            "FastVLMCausalLMPreprocessor runs in Python and cannot be part of a tf.data graph; "
            "feed the model from dl_techniques.data.ConversationDataset instead."
        )
