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
from tools.demo_model.deadline import stage_callbacks
from tools.demo_model.drawn_ahead import IN_PLACE, Drawing
from tools.demo_model.optimizers import build_optimizer
from tools.demo_model.pretrain import LabelledPictures, as_floats, completed_epochs
from tools.demo_model.records import DemoData
from tools.demo_model.scene_questions import OPEN_TYPES
from tools.demo_model.tokenizer_corpus import tokenizer_corpus

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


def build_model(data: DemoData, encoder: FastVLM, dtype: str = "float32") -> FastVLMCausalLM:
    """A fresh decoder and projector of a dtype policy, and a tokenizer, for a trained encoder."""
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
        vocabulary_size=tokenizer.vocabulary_size(), dropout=0.0, dtype=dtype, **DECODER
    )
    return FastVLMCausalLM(FastVLMBackbone(encoder, decoder, dtype=dtype), preprocessor)


def exchange_encoder(
    model: FastVLMCausalLM,
    encoder: FastVLM,
    data: DemoData,
    steps: int = 400,
    batch_size: int = 64,
    drawing: Drawing = IN_PLACE,
) -> None:
    """Gives a trained model another encoder, and fits its projector to the old one's outputs.

    The decoder then understands the new encoder from its first step on.

    Args:
        model: its encoder takes over the weights of `encoder`.
        encoder: of the same form.
        data: the recipe's pictures.
        steps: batches that the projector is fitted on.
        batch_size: pictures of a batch.
        drawing: who draws the pictures.
    """
    vision, projector = model.backbone.vision_encoder, model.backbone.projector
    old = projector_copy(model)
    before = FastVLM.from_config(vision.get_config())
    before.set_weights(vision.get_weights())
    vision.set_weights(encoder.get_weights())
    vision.trainable = False
    fitted = keras.Sequential([keras.Input(vision.input_shape[1:]), vision, projector])
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, steps, alpha=0.01)
    fitted.compile(keras.optimizers.Adam(schedule), loss="mse")
    teacher = keras.Sequential([keras.Input(vision.input_shape[1:]), before, old])
    with drawing.drawn(LabelledPictures(data, batch_size, steps, seed=5)) as pictures:
        for step in range(steps):
            images = as_floats(pictures[step][0])
            loss = fitted.train_on_batch(images, teacher.predict_on_batch(images))
            if step % 100 == 99:
                print(f"projector, step {step + 1}: mean squared error {loss:.4f}", flush=True)


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
    folder: Path,
    epochs: int,
    records_per_epoch: int,
    learning_rate: float,
    seed: int,
    batch_size: int = 32,
    drawing: Drawing = IN_PLACE,
    buckets: tuple[int, ...] = BUCKETS,
    minutes: float | None = None,
) -> None:
    """Fits the model on fresh records; resumes from `folder` after a kill.

    Args:
        model: its trainable flags say what is trained.
        data: the recipe's pictures and questions.
        folder: backups and the log of this stage.
        epochs: each draws other records.
        records_per_epoch: a kill loses at most this many.
        learning_rate: peak of the cosine.
        seed: of the records.
        batch_size: rows of a batch.
        drawing: who draws the records.
        buckets: lengths of a batch's rows.
        minutes: end by the clock instead of after so many epochs; keeps no backups.
    """
    folder.mkdir(parents=True, exist_ok=True)
    total = epochs * records_per_epoch // batch_size
    schedule: Any = keras.optimizers.schedules.CosineDecay(
        0.0, total, alpha=0.02, warmup_target=learning_rate, warmup_steps=min(200, total // 10)
    )
    rate = schedule if minutes is None else learning_rate
    model.compile(build_optimizer("adamw", rate, beta_2=0.98))
    done = completed_epochs(folder)
    callbacks = stage_callbacks(folder, learning_rate, minutes)
    slices = EpochSlices(
        data, model.preprocessor, records_per_epoch, seed, batch_size, done, buckets
    )
    with drawing.drawn(slices, done - 1) as batches:
        model.fit(batches, epochs=epochs, callbacks=callbacks, shuffle=False, verbose=2)


class EpochSlices(keras.utils.PyDataset):
    """Epoch e sees the e-th slice of the records: every record once in the whole run.

    Args:
        data: the recipe's pictures and questions.
        preprocessor: the model's.
        count: records of an epoch.
        seed: of the records.
        batch_size: rows of a batch.
        done: epochs that earlier runs have completed.
        buckets: lengths of a batch's rows, to choose from.
        threads: that prepare batches in this process.
    """

    def __init__(
        self,
        data: DemoData,
        preprocessor: Any,
        count: int,
        seed: int,
        batch_size: int,
        done: int,
        buckets: tuple[int, ...] = BUCKETS,
        threads: int = 1,
    ) -> None:
        super().__init__()
        self.data, self.preprocessor, self.count = data, preprocessor, count
        self.seed, self.batch_size, self.buckets = seed, batch_size, buckets
        self.threads = threads
        # Keras ends one epoch extra when `fit` starts.
        self.epoch = done - 1
        self.slice = self._slice(self.epoch)

    def __reduce__(self) -> tuple[type[EpochSlices], tuple[Any, ...]]:
        """A copy in another process prepares what it is asked for, and nothing ahead."""
        made_of = (self.data, self.preprocessor, self.count, self.seed, self.batch_size)
        return type(self), (*made_of, self.epoch + 1, self.buckets, 0)

    def _slice(self, epoch: int) -> tuple[int, ConversationDataset]:
        start = max(epoch, 0) * self.count
        records = Conversations(self.data, self.count, self.seed, self.batch_size, start)
        return epoch, ConversationDataset(
            records,
            self.preprocessor,
            self.batch_size,
            shuffle=False,
            length_buckets=self.buckets,
            drop_remainder=True,
            workers=self.threads,
        )

    def __len__(self) -> int:
        return self.count // self.batch_size

    def on_epoch_end(self) -> None:
        """Goes on to the next slice."""
        self.epoch += 1

    def __getitem__(self, index: int) -> Any:
        return self.batch(self.epoch, index)

    def batch(self, epoch: int, index: int) -> Any:
        """One batch of any epoch."""
        if self.slice[0] != epoch:
            self.slice = self._slice(epoch)
        made = self.slice[1][index]
        return with_answers_alone(made) if keras.config.backend() == "torch" else made


def with_answers_alone(batch: Any) -> Any:
    """A batch whose logits are computed where answers are learnt alone.

    For PyTorch: there are as many places as the batch's longest answer has, which a backend that
    compiles would compile for.
    """
    x, y, weight = batch
    positions, y, weight = answers_alone(y, weight, int((weight > 0).sum(1).max()))
    return {**x, "answer_positions": positions}, y, weight
