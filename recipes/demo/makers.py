"""What the stages of the recipe make: an encoder from labels, one that reads, a model that answers.

Each stage leaves `WORK/NAME/preset`. Where an option names a preset, it is an earlier stage, a
folder, or START, what the command was given with `--start`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dl_techniques import FastVLM, FastVLMCausalLM
from dl_techniques.checkpoints.folders import replacing_folder
from dl_techniques.errors import TrainingError
from dl_techniques.training import StageSettings
from dl_techniques.training.recipe import Maker
from recipes.demo.draw.records import MIX, DemoData
from recipes.demo.stages import finetune, pretrain, reading
from recipes.demo.stages.branching import branch
from recipes.demo.stages.deepen import deepen
from recipes.demo.stages.finer import with_finer_map
from recipes.demo.stages.legible import make_legible

START = "START"


@dataclass(frozen=True)
class Pictures:
    """What a stage sees.

    Attributes:
        mix: share of each kind of picture.
        size: side of the pictures in pixels.
        long_words: of the words read, the share that is made long.
        common_words: share that is common English; of the others, half are made up.
    """

    mix: Mapping[str, float] = field(default_factory=lambda: dict(MIX))
    size: int = 64
    long_words: float = 0.0
    common_words: float = 0.0


@dataclass(frozen=True)
class EncoderOptions(Pictures):
    """Of a stage in which an encoder learns from labels.

    Attributes:
        pictures: of an epoch.
        start: a preset to go on from, an encoder or a whole model; None for a fresh one.
        branch: give a folded encoder its branches back, with the statistics of these pictures.
        network: fields of a fresh encoder that differ from the demo's.
    """

    pictures: int = 16_000
    start: str | None = None
    branch: bool = False
    network: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadingOptions(Pictures):
    """Of a stage in which an encoder learns to read smaller print; its mix is that of the others.

    Attributes:
        encoder: the preset that goes on.
        kept_from: the preset whose maps of other pictures are kept; None for the same.
        whole: the whole encoder, or all stages but the last.
        words: pictures of a batch that are words.
        kept: weight of the other pictures' maps.
    """

    encoder: str = START
    kept_from: str | None = None
    whole: bool = True
    words: int = 88
    kept: float = 4.0


@dataclass(frozen=True)
class RowsOptions(Pictures):
    """Of a stage in which encoder and projector make rows that a trained decoder reads.

    Attributes:
        start: the whole model whose rows are known.
        encoder: a preset whose encoder takes its place; None for the model's own.
        finer: hidden units that show the projector the map before the last; None for none.
        words: pictures of a batch that are words.
        kept: weight of the other pictures' rows.
    """

    start: str = START
    encoder: str | None = None
    finer: int | None = None
    words: int = 88
    kept: float = 4.0


@dataclass(frozen=True)
class LanguageOptions(Pictures):
    """Of a stage in which a model learns to answer.

    Attributes:
        start: the whole model that goes on; None for a fresh projector and decoder.
        encoder: the preset of a fresh model's encoder; with `start`, an encoder that takes the
            place of the model's own, whose outputs the projector is then fitted to.
        train_encoder: let it learn too, fused, with its statistics as they are.
        layers: of the decoder, where `start`'s has fewer.
        finer: as in `RowsOptions`.
        decoder: fields of a fresh decoder that differ from the demo's.
        dtype: of the model's sums.
        records: of an epoch.
        short: one turn a record.
        others: share of short records that ask for something else than the name.
        buckets: lengths of a batch's rows.
    """

    start: str | None = None
    encoder: str | None = None
    train_encoder: bool = False
    layers: int | None = None
    finer: int | None = None
    decoder: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    records: int = 8_000
    short: bool = False
    others: float = 0.0
    buckets: tuple[int, ...] = finetune.BUCKETS


@dataclass(frozen=True)
class Demo:
    """Makes the stages.

    Args:
        work: folder with `raw/` and `cache/`, see `fetch`; None leaves what needs no download.
        clothing: the tar of clothing photos.
        start: what START stands for.
    """

    work: Path | None = None
    clothing: Path | None = None
    start: Path | None = None

    def makers(self) -> dict[str, Maker]:
        """Name -> function."""
        return {
            "encoder": self.encoder,
            "reading": self.reading,
            "rows": self.rows,
            "language": self.language,
        }

    def encoder(self, settings: StageSettings, folder: Path) -> None:
        """An encoder learns names, places, colours, letters and clothes from labels."""
        options = settings.read_options(EncoderOptions)
        data = self._data(options)
        if options.start is None:
            shape = (options.size, options.size, 3)
            encoder = FastVLM.from_variant(
                "demo", include_top=False, input_shape=shape, **options.network
            )
        else:
            encoder = load_encoder(self.preset(options.start, folder))
            if options.branch:
                pictures = pretrain.LabelledPictures(data, 512, 1, seed=settings.seed + 2)
                branch(encoder, pretrain.as_floats(pictures.batch(0, 0)[0]))
        place, steps = folder / settings.name, options.pictures // settings.batch_size
        warm = options.start is not None
        pretrain.pretrain(encoder, data, settings, place, steps, warm)
        encoder.save_to_preset(place / "preset")

    def reading(self, settings: StageSettings, folder: Path) -> None:
        """An encoder learns to read smaller print and sees other pictures as before."""
        options = settings.read_options(ReadingOptions)
        encoder = load_encoder(self.preset(options.encoder, folder))
        before = reading.copy_of(encoder)
        if options.kept_from is not None:
            kept = load_encoder(self.preset(options.kept_from, folder))
            before.set_weights(kept.get_weights())
        taught = reading.Reading(options.whole, options.words, options.kept)
        place = folder / settings.name
        reading.read(encoder, before, self._data(options), taught, settings, place)
        encoder.save_to_preset(place / "preset")

    def rows(self, settings: StageSettings, folder: Path) -> None:
        """Encoder and projector make rows that a trained decoder reads."""
        options = settings.read_options(RowsOptions)
        before = load_model(self.preset(options.start, folder))
        model = load_model(self.preset(options.start, folder))
        if options.encoder is not None:
            encoder = load_encoder(self.preset(options.encoder, folder))
            model.backbone.vision_encoder.set_weights(encoder.get_weights())
        data, place = self._data(options), folder / settings.name
        if options.finer is not None:
            model = with_finer_map(model, options.finer, data)
        taught = reading.Reading(True, options.words, options.kept)
        make_legible(model, before, data, taught, settings, place)
        save(model, place / "preset")

    def language(self, settings: StageSettings, folder: Path) -> None:
        """A model learns to answer: projector and decoder, or everything."""
        options, place = settings.read_options(LanguageOptions), folder / settings.name
        data = self._data(
            options, upper_words=True, lookups=True, short=options.short, others=options.others
        )
        model = self._model(options, data, settings, folder)
        encoder = model.backbone.vision_encoder
        if options.train_encoder and encoder.folded:
            encoder.reset_reparameterization()
            encoder.reparameterize()
        encoder.trainable = options.train_encoder
        if options.train_encoder:
            # batches are of one group of kinds: their statistics would mislead BatchNorm
            finetune.freeze_batch_norms(encoder)
        finetune.train_stage(model, data, settings, place, options.records, options.buckets)
        save(model, place / "preset")

    def _model(
        self, options: LanguageOptions, data: DemoData, settings: StageSettings, folder: Path
    ) -> FastVLMCausalLM:
        """The model that goes on, or a fresh one."""
        if options.encoder is None and options.start is None:
            raise TrainingError(f"stage {settings.name}: give `start`, or the `encoder` of a model")
        encoder = options.encoder and load_encoder(self.preset(options.encoder, folder))
        if options.start is None:
            model = finetune.build_model(data, encoder, options.dtype, **options.decoder)
            model.reparameterize()
        else:
            model = load_model(self.preset(options.start, folder), options.dtype)
            model.preprocessor.sequence_length = finetune.SEQUENCE_LENGTH
            if encoder:
                encoder.reparameterize(fold=model.backbone.vision_encoder.folded)
                pictures = pretrain.LabelledPictures(data, 64, 400, seed=settings.seed + 3)
                place = folder / settings.name / "exchanged"
                finetune.exchange_encoder(model, encoder, pictures, place)
        if options.finer is not None:
            model = with_finer_map(model, options.finer, data)
        return model if options.layers is None else deepen(model, options.layers)

    def _data(self, options: Pictures, **more: Any) -> DemoData:
        data = DemoData(
            self.work,
            self.clothing,
            options.size,
            options.mix,
            long_words=options.long_words,
            common_words=options.common_words,
            **more,
        )
        if self.work is not None:
            data.load()
        return data

    def preset(self, name: str, folder: Path) -> Path:
        """Where a preset lies: START, an earlier stage's, or a folder.

        Raises:
            TrainingError: there is none.
        """
        if name == START and self.start is None:
            raise TrainingError("the recipe goes on from a model: name it with --start")
        path = self.start if name == START else folder / name / "preset"
        for found in (path, Path(name)):
            if found is not None and (found / "config.json").is_file():
                return found
        raise TrainingError(
            f"{name!r} is neither {START}, nor an earlier stage of {folder}, nor a preset's folder"
        )


def is_whole_model(preset: Path | None) -> bool:
    """Whether a preset holds encoder, projector and decoder."""
    return preset is not None and (preset / "task.json").is_file()


def load_encoder(preset: Path) -> FastVLM:
    """The encoder of a preset, which may be that of a whole model."""
    if is_whole_model(preset):
        return load_model(preset).backbone.vision_encoder
    return FastVLM.from_preset(preset)


def load_model(preset: Path, dtype: str = "float32") -> FastVLMCausalLM:
    """A whole model, its sums in a dtype."""
    if not is_whole_model(preset):
        raise TrainingError(f"{preset} holds an encoder alone; a whole model is needed")
    return FastVLMCausalLM.from_preset(str(preset), dtype=dtype)


def save(model: FastVLMCausalLM, folder: Path) -> None:
    """Writes a preset that appears when it is whole."""
    with replacing_folder(folder) as partial:
        model.save_to_preset(partial)
