"""The stages that give a trained model eyes for photographs; `photographs.yaml` names them.

`seen` shows every picture to both frozen towers once, `tags` fits what they know to names,
`telling` teaches the decoder to say it. Each leaves files in its folder, from which the next one
starts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from scipy import special

from dl_techniques import EfficientNetLite, FastVLM, FastVLMCausalLM, Towers
from dl_techniques.data.files import atomic_writer
from dl_techniques.layers.name_tags import NameTags, Tags
from dl_techniques.training import StageSettings
from dl_techniques.training.recipe import Maker
from recipes.demo.draw.records import DemoData
from recipes.demo.photos.names import all_names, class_names, imagenet_names
from recipes.demo.photos.readers import Photo, read_photos
from recipes.demo.photos.templates import NOTHING
from recipes.demo.photos.unknown import made_up, noise
from recipes.demo.stages import seeing, tagging, telling
from recipes.demo.stages.finetune import CONTEXT, Conversations

TRAINING = ("caltech", "grocery", "clothing")
TOWER = "efficientnet_lite0"
FACTS = ("photograph", "person")
UNKNOWN = "unknown"
WORDS = 2
"""Rows of a name, see `stages.name_words`."""
UNKNOWN_SEED = 77
KINDS = {**{name: name for name in TRAINING}, UNKNOWN: NOTHING}
"""What `Facts` calls the sets."""


@dataclass(frozen=True)
class SeenOptions:
    """What the towers are shown.

    Attributes:
        drawings: how many, with their conversations.
        with_tags: of these, how many are shown to the photo tower, too.
        maps: every so many-th photograph is shown to the first tower.
        noises: pictures of nothing.
        unknown: drawings of made-up things, and further noise.
        mix: share of each kind of drawing.
        short: share of the drawings with one turn.
    """

    drawings: int = 40_000
    with_tags: int = 1_600
    maps: int = 3
    noises: int = 192
    unknown: int = 900
    mix: Mapping[str, float] = field(
        default_factory=lambda: {"scenes": 0.27, "emoji": 0.30, "words": 0.33, "easy_vqa": 0.10}
    )
    short: float = 0.6


@dataclass(frozen=True)
class Nothing:
    """The tags take no options."""


@dataclass(frozen=True)
class TellingOptions:
    """How the decoder learns.

    Attributes:
        steps_per_epoch: batches between two states.
        start: an earlier stage of the same kind to go on from; None for the model's decoder.
        shares: of batches that are drawings, made-up tags, photographs.
    """

    steps_per_epoch: int = 200
    start: str | None = None
    shares: Mapping[str, float] = field(
        default_factory=lambda: {"drawings": 0.5, "made_up": 0.3, "photographs": 0.2}
    )


@dataclass(frozen=True)
class PhotoDemo:
    """Makes the stages.

    Args:
        work: folder with `raw/` and `cache/`, see `draw.fetch`.
        photos: the folder of photographs, see `photos.readers`.
        labels: what a detector says of them, written by `photos.nanodet`.
        start: preset of a model of one tower, which looks at drawings.
    """

    work: Path
    photos: Path
    labels: Path
    start: Path

    def makers(self) -> dict[str, Maker]:
        """Name -> function."""
        return {"seen": self.seen, "tags": self.tags, "telling": self.telling}

    def seen(self, settings: StageSettings, folder: Path) -> None:
        """Both towers look at drawings, photographs and noise."""
        options, place = settings.read_options(SeenOptions), folder / settings.name
        looker = seeing.Looker(self._first(), self._second())
        drawings, conversations = self._drawings(options, settings.seed)
        with atomic_writer(place / "conversations.json") as file:
            json.dump(conversations, file)
        seeing.kept(
            place / "drawings.npz",
            maps=lambda: looker.maps(drawings),
            means=lambda: looker.means(drawings[: options.with_tags]),
        )
        rng = np.random.default_rng(settings.seed)
        noises = list(seeing.noises(rng, options.noises, looker.size))
        made = [("noise", noises), (UNKNOWN, list(_unknown(options.unknown, looker.size)))]
        for name, pictures in [*made, *self._sets()]:
            every = options.maps if name in TRAINING else 1
            seeing.kept(
                place / f"{name}.npz",
                means=lambda p=pictures: looker.means(_pictures(p)),
                mirrored=lambda p=pictures: looker.means(seeing.mirrored(_pictures(p))),
                maps=lambda p=pictures, e=every: looker.maps(_pictures(p[::e])),
            )

    def _drawings(
        self, options: SeenOptions, seed: int
    ) -> tuple[list[np.ndarray], list[list[dict[str, str]]]]:
        told: dict[str, Any] = {"upper_words": True, "lookups": True}
        told |= {"long_words": 0.6, "common_words": 0.6}
        short = DemoData(self.work, None, 64, options.mix, short=True, others=0.35, **told)
        long = DemoData(self.work, None, 64, options.mix, **told)
        sources = [
            Conversations(d, options.drawings, seed + i) for i, d in enumerate((short, long))
        ]
        pictures, conversations = [], []
        for index in range(options.drawings):
            record = sources[index % 10 >= round(10 * options.short)][index]
            pictures.append(record["images"][0])
            conversations.append(record["messages"])
        return pictures, conversations

    def _sets(self) -> list[tuple[str, list[Photo]]]:
        names = (*TRAINING, "background")
        return [(name, list(read_photos(self.photos, name, "train"))) for name in names]

    def _first(self) -> FastVLM:
        return FastVLM.from_preset(self.start)

    def _second(self) -> EfficientNetLite:
        tower = EfficientNetLite.from_preset(TOWER, include_top=False, input_shape=(224, 224, 3))
        tower.reparameterize(fold=True)
        return tower

    def tags(self, settings: StageSettings, folder: Path) -> None:
        """Scores, calibration, facts; leaves both towers and the tags as one preset."""
        settings.read_options(Nothing)
        seen, place = folder / "seen", folder / settings.name
        names, trained = _ordered_names()
        place_of = {name: index for index, name in enumerate(names)}
        table, photos = class_names(), []
        for set_name, pictures in self._sets()[:-1]:
            own = np.array([place_of[table[set_name, photo.label]] for photo in pictures])
            with np.load(seen / f"{set_name}.npz") as file:
                photos.append((file["means"], file["mirrored"], own))
        means, mirrored, labels = (np.concatenate(part) for part in zip(*photos, strict=True))
        classes = np.array([place_of[name] for name in imagenet_names()])
        whole = EfficientNetLite.from_preset(TOWER)
        head = [keras.ops.convert_to_numpy(w) for w in whole.head[-1].weights]
        shares = tagging.summed(
            special.softmax(means.astype("float64") @ head[0] + head[1], axis=1),
            classes,
            len(names),
        )
        known = tagging.Labelled(means.astype("float64"), labels)
        evidence = tagging.held_out_evidence(known, shares, trained, settings.seed)
        scores = tagging.fit_scores(
            np.concatenate([means, mirrored]), np.concatenate([labels, labels]), trained
        )
        layer = NameTags(
            names,
            [int(c) for c in classes],
            trained,
            FACTS,
            self._words().shape[1],
            WORDS,
            calibration=tagging.calibrate(evidence, settings.seed),
            name="tags",
        )
        layer.build((None, 7, 7, means.shape[1]))
        layer.classes.set_weights(head)
        layer.scores.set_weights([scores.kernel, scores.bias])
        layer.fact_scores.set_weights(self._facts(seen, means))
        towers = Towers([self._first(), self._second()], layer, name="towers")
        known = self._cached(towers)
        layer.embeddings.assign(telling.name_table(layer, known))
        towers.save_to_preset(place / "preset")

    def _facts(self, seen: Path, means: np.ndarray) -> list[np.ndarray]:
        """Weights of "it is a photograph" and "a person is there"."""
        other = {name: _means(seen / f"{name}.npz") for name in ("drawings", "noise", "background")}
        photographs = np.concatenate([means, other["background"], other["noise"]])
        drawn = other["drawings"]
        kind = tagging.fit_fact(
            np.concatenate([photographs, drawn]),
            np.arange(len(photographs) + len(drawn)) < len(photographs),
            tagging.KIND_PENALTY,
        )
        told = self._people()
        sure = np.array([label is not None for label in told])
        there = np.array([bool(label) for label in told])
        nobody = np.concatenate([other["noise"], drawn[:300]])
        person = tagging.fit_fact(
            np.concatenate([means[sure], nobody]),
            np.concatenate([there[sure], np.zeros(len(nobody), bool)]),
            tagging.PERSON_PENALTY,
        )
        return [
            np.concatenate([kind.kernel, person.kernel], 1),
            np.concatenate([kind.bias, person.bias]),
        ]

    def _people(self) -> list[bool | None]:
        """Whether a person is on each training photograph; None where the detector is not sure."""
        labels = json.loads(self.labels.read_text(encoding="utf-8"))
        told: list[bool | None] = []
        for _, pictures in self._sets()[:-1]:
            for photo in pictures:
                face = photo.set == "caltech" and photo.label == "Faces"
                told.append(True if face else labels.get(photo.name, {}).get("person"))
        return told

    def telling(self, settings: StageSettings, folder: Path) -> None:
        """The decoder learns to say what the tags tell, and goes on answering about drawings."""
        options, place = settings.read_options(TellingOptions), folder / settings.name
        seen = folder / "seen"
        towers = Towers.from_preset(folder / "tags" / "preset")
        layer = towers.tags
        model = self._cached(towers)
        if options.start is not None:
            model.load_weights(folder / options.start / "told.weights.h5")
        with np.load(seen / "drawings.npz") as file:
            drawings = telling.Seen(
                file["maps"], telling.rows_of(layer, _said(layer, file["means"]))
            )
        conversations = json.loads((seen / "conversations.json").read_text(encoding="utf-8"))
        data = telling.Telling(
            model,
            layer,
            drawings,
            conversations,
            _photographs(layer, seen),
            options.steps_per_epoch,
            settings.batch_size,
            settings.seed,
            options.shares,
        )
        settings.train(place, model, data, verbose=2)
        model.save_weights(place / "told.weights.h5")
        whole = telling.whole_model(model, towers, towers.input_size[0], CONTEXT)
        whole.save_to_preset(place / "preset")

    def _cached(self, towers: Towers) -> FastVLMCausalLM:
        rows, width = int(towers.output_shape[2]), int(towers.output_shape[3])
        return telling.cached_model(self._model(), rows, width, towers.tags.names)

    def _model(self) -> FastVLMCausalLM:
        return FastVLMCausalLM.from_preset(str(self.start))

    def _words(self) -> np.ndarray:
        embeddings = self._model().backbone.token_embedding.embeddings
        words: np.ndarray = keras.ops.convert_to_numpy(embeddings)
        return words


def _ordered_names() -> tuple[tuple[str, ...], int]:
    """All names, those with photographs to learn from first, and the number of these."""
    table = class_names()
    trained = dict.fromkeys(name for (kind, _), name in table.items() if kind in TRAINING)
    return tuple(dict.fromkeys([*trained, *all_names()])), len(trained)


def _pictures(photos: Sequence[Any]) -> Any:
    return (photo.load() if isinstance(photo, Photo) else photo for photo in photos)


def _unknown(count: int, size: int) -> Iterator[np.ndarray]:
    """Two drawings of made-up things for one picture of noise: uint8[size, size, 3]."""
    for number in range(count):
        draw = noise if number % 3 == 2 else made_up
        yield draw(np.random.default_rng((UNKNOWN_SEED, number)), "train", size)


def _means(path: Path) -> np.ndarray:
    with np.load(path) as file:
        means: np.ndarray = file["means"]
    return means


def _said(layer: NameTags, means: np.ndarray) -> Tags:
    """What the tags are for averaged maps."""
    found = layer.tags(keras.ops.convert_to_tensor(means.astype("float32")[:, None, None]))
    return Tags(*(keras.ops.convert_to_numpy(part) for part in found))


def _photographs(layer: NameTags, seen: Path) -> telling.Photographs:
    """Everything that is no drawing; the pictures without a name come as often as it takes."""
    means, maps, kinds, places, before = [], [], [], [], 0
    for name, times in ((TRAINING[0], 1), (TRAINING[1], 1), (TRAINING[2], 1), ("background", 4),
                        ("noise", 1), (UNKNOWN, 2)):  # fmt: skip
        with np.load(seen / f"{name}.npz") as file:
            every = -(-len(file["means"]) // len(file["maps"]))
            for part in [file["means"], file["mirrored"]] * times:
                means.append(part)
                places.append(before + np.arange(len(part)) // every)
                kinds += [KINDS.get(name, "")] * len(part)
            maps.append(file["maps"])
            before += len(file["maps"])
    said = _said(layer, np.concatenate(means))
    return telling.Photographs(np.concatenate(maps), np.concatenate(places), said, kinds)
