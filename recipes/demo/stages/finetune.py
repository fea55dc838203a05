"""Stages 2 and 3: the whole model learns to answer, through the package's public API.

Stage 2 trains projector and decoder on a frozen, fused encoder; stage 3 trains the fused encoder
as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np

from dl_techniques import (
    FastVLM,
    FastVLMBackbone,
    FastVLMCausalLM,
    FastVLMCausalLMPreprocessor,
    FastVLMImageConverter,
    FastVLMTokenizer,
)
from dl_techniques.data import ConversationDataset
from dl_techniques.data.dataset import answers_alone
from dl_techniques.training import Stage, StageSettings, cosine
from recipes.demo.draw.records import DemoData
from recipes.demo.draw.scene_questions import OPEN_TYPES
from recipes.demo.draw.tokenizer_corpus import tokenizer_corpus
from recipes.demo.stages.pretrain import LabelledPictures
from recipes.demo.stages.reading import MeanSquare, Untracked

VOCABULARY = 2048
SEQUENCE_LENGTH = 128
CONTEXT = 512
BUCKETS = (48, 64, 72, 96, SEQUENCE_LENGTH)
DECODER = {
    "num_layers": 5,
    "num_query_heads": 6,
    "num_key_value_heads": 2,
    "hidden_dim": 192,
    "intermediate_dim": 512,
    "rope_max_wavelength": 10_000,
    "tie_word_embeddings": True,
}


SHORT, LONG = ("emoji", "words", "clothing"), ("scenes", "easy_vqa")
ORDERED = 0.75  # share of LONG conversations where what tells most comes last
MOST_TURNS = {"emoji": 2, "words": 2, "clothing": 2, "scenes": 3, "easy_vqa": 3}


class Conversations:
    """Records made on demand: record i of the mix, always the same for the same seed.

    Kinds with long conversations and kinds with short ones come in separate blocks of one batch
    each, so that short ones need not be padded to the length of long ones.

    Args:
        data: the recipe's pictures and questions.
        count: how many.
        seed: of the draws; stages use different ones, so that no picture comes twice.
        block: records of a block, the batch size.
        start: number of the first record.
    """

    def __init__(
        self, data: DemoData, count: int, seed: int, block: int = 32, start: int = 0
    ) -> None:
        self.data, self.count, self.seed, self.block = data, count, seed, block
        self.start = start

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        index += self.start
        kind = self._kind(index)
        image, turns = self.data.typed_record(kind, "train", index, self.seed)
        rng = np.random.default_rng((self.seed, 7, index))
        turns = turns[: MOST_TURNS[kind]]
        if kind in LONG and rng.random() < ORDERED:
            turns = sorted(turns, key=_told)
        messages = []
        for _, question, answer in turns:
            messages.append({"role": "user", "content": _as_typed(question, rng)})
            messages.append({"role": "assistant", "content": answer})
        return {"images": [image], "messages": messages}

    def _kind(self, index: int) -> str:
        """The block's group, in proportion to the mix, then a kind of that group."""
        mix = self.data.mix
        block = np.random.default_rng((self.seed, 8, index // self.block))
        share = sum(mix.get(kind, 0.0) for kind in SHORT) / sum(mix.values())
        group = SHORT if block.random() < share else LONG
        shares = np.array([mix.get(kind, 0.0) for kind in group])
        rng = np.random.default_rng((self.seed, 9, index))
        return group[int(rng.choice(len(group), p=shares / shares.sum()))]


def _told(turn: tuple[str, str, str]) -> int:
    """How much a turn tells of the answers to others: a yes or no, one thing, everything."""
    kind, _, answer = turn
    return 0 if answer in ("yes", "no") else 2 if kind in OPEN_TYPES else 1


def _as_typed(question: str, rng: np.random.Generator) -> str:
    """Questions as people type them: half with a capital, some without the final mark."""
    if rng.random() < 0.5:
        question = question[:1].upper() + question[1:]
    if rng.random() < 0.15:
        question = question.rstrip("?.")
    return question


def build_model(
    data: DemoData, encoder: FastVLM, dtype: str = "float32", **decoder_fields: Any
) -> FastVLMCausalLM:
    """A fresh decoder and projector, and a tokenizer, for a trained encoder.

    Args:
        data: the recipe's pictures and questions.
        encoder: trained.
        dtype: policy of decoder and projector.
        **decoder_fields: that differ from `DECODER`.
    """
    tokenizer = FastVLMTokenizer.from_texts(tokenizer_corpus(data), vocabulary_size=VOCABULARY)
    side = data.size
    preprocessor = FastVLMCausalLMPreprocessor(
        tokenizer,
        FastVLMImageConverter((side, side)),
        sequence_length=SEQUENCE_LENGTH,
        num_image_tokens=(side // encoder.total_stride) ** 2,
        system_prompt=None,
    )
    decoder = keras_hub.models.QwenBackbone(
        vocabulary_size=tokenizer.vocabulary_size(),
        dropout=0.0,
        dtype=dtype,
        **{**DECODER, **decoder_fields},
    )
    return FastVLMCausalLM(FastVLMBackbone(encoder, decoder, dtype=dtype), preprocessor)


def exchange_encoder(
    model: FastVLMCausalLM,
    encoder: FastVLM,
    pictures: LabelledPictures,
    folder: Path,
) -> None:
    """Gives a trained model another encoder, and fits its projector to the old one's outputs.

    The decoder then understands the new encoder from its first step on.

    Args:
        model: its encoder takes over the weights of `encoder`.
        encoder: of the same form.
        pictures: that the projector is fitted on.
        folder: of the training.
    """
    vision, projector = model.backbone.vision_encoder, model.backbone.projector
    before = FastVLM.from_config(vision.get_config())
    before.set_weights(vision.get_weights())
    teacher = keras.Sequential([keras.Input(vision.input_shape[1:]), before, projector_copy(model)])
    vision.set_weights(encoder.get_weights())
    vision.trainable = False
    inputs = keras.Input(vision.input_shape[1:], dtype="uint8", name="pictures")
    floats = keras.layers.Rescaling(1 / 255)(inputs)
    stray = keras.ops.subtract(projector(vision(floats)), Untracked(teacher)(floats))
    fitted = keras.Model(inputs, stray, name="exchanged")
    steps = len(pictures)
    adam = keras.optimizers.Adam(cosine(2e-3, steps, 0, first=1.0, last=0.01))
    batches = WithoutTargets(pictures)
    Stage(fitted, batches, adam, steps=steps, compiling={"loss": MeanSquare()}, verbose=2).run(
        folder
    )


class WithoutTargets:
    """Pictures alone, for a loss that looks at no targets."""

    def __init__(self, pictures: LabelledPictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Pictures uint8[B, S, S, 3] and a zero."""
        return self.pictures.batch(epoch, index)[0], np.zeros((1, 1))


def projector_copy(model: FastVLMCausalLM) -> keras.Model:
    """A model's projector as it is now, apart from the model: float[B, h, w, C] -> rows."""
    projector = model.backbone.projector
    copy = keras.models.clone_model(keras.Sequential([projector]))
    copy.build((None, *model.backbone.vision_encoder.output.shape[1:]))
    copy.set_weights(projector.get_weights())
    return copy


def freeze_batch_norms(model: keras.Model) -> None:
    """Lets every BatchNorm work with the statistics that it has."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def widen_context(model: FastVLMCausalLM) -> None:
    """Lets conversations of several turns in: training rows are shorter than what is allowed."""
    model.preprocessor.sequence_length = CONTEXT


def train_stage(
    model: FastVLMCausalLM,
    data: DemoData,
    settings: StageSettings,
    folder: Path,
    records_per_epoch: int,
    buckets: tuple[int, ...] = BUCKETS,
) -> None:
    """Fits the model on fresh records; goes on after a kill.

    Args:
        model: its trainable flags say what is trained.
        data: the recipe's pictures and questions.
        settings: of the stage.
        folder: of the training.
        records_per_epoch: each epoch draws other records.
        buckets: lengths of a batch's rows.
    """
    slices = EpochSlices(
        data, model.preprocessor, records_per_epoch, settings.seed, settings.batch_size, buckets
    )
    encoder = model.backbone.vision_encoder
    frozen = [] if encoder.trainable_variables else [encoder]
    settings.train(folder, model, slices, frozen=frozen, preload=[__name__], verbose=2)


class EpochSlices:
    """Epoch e sees the e-th slice of the records: every record once in the whole run.

    Args:
        data: the recipe's pictures and questions.
        preprocessor: the model's.
        count: records of an epoch.
        seed: of the records.
        batch_size: rows of a batch.
        buckets: lengths of a batch's rows, to choose from.
    """

    def __init__(
        self,
        data: DemoData,
        preprocessor: Any,
        count: int,
        seed: int,
        batch_size: int,
        buckets: tuple[int, ...] = BUCKETS,
    ) -> None:
        self.data, self.preprocessor, self.count = data, preprocessor, count
        self.seed, self.batch_size, self.buckets = seed, batch_size, buckets

    def __len__(self) -> int:
        return self.count // self.batch_size

    def slice(self, epoch: int) -> ConversationDataset:
        """The records of an epoch."""
        start = epoch * self.count
        return ConversationDataset(
            Conversations(self.data, self.count, self.seed, self.batch_size, start),
            self.preprocessor,
            self.batch_size,
            shuffle=False,
            length_buckets=self.buckets,
            drop_remainder=True,
            workers=0,
        )

    def batch(self, epoch: int, index: int) -> Any:
        """One batch of any epoch."""
        made = self.slice(epoch)[index]
        return with_answers_alone(made) if keras.config.backend() == "torch" else made


def with_answers_alone(batch: Any) -> Any:
    """A batch whose logits are computed where answers are learnt alone.

    For PyTorch: there are as many places as the batch's longest answer has, which a backend that
    compiles would compile for.
    """
    x, y, weight = batch
    positions, y, weight = answers_alone(y, weight, int((weight > 0).sum(1).max()))
    return {**x, "answer_positions": positions}, y, weight
