"""The stages that give a model eyes for photographs, on tiny networks and made-up photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras_hub
import numpy as np
import pytest
from scipy import special

from dl_techniques import (
    EfficientNetLite,
    FastVLM,
    FastVLMBackbone,
    FastVLMCausalLM,
    FastVLMCausalLMPreprocessor,
    FastVLMImageConverter,
    FastVLMTokenizer,
    Towers,
)
from dl_techniques.layers.name_tags import NameTags, Tags
from dl_techniques.training import Recipe
from recipes.demo import __main__ as command
from recipes.demo import photo_makers
from recipes.demo.photos import templates
from recipes.demo.stages import name_words, seeing, tagging, telling
from tests.helpers import numbers, random_array, randomize, relative_difference

pytestmark = pytest.mark.once
NAMES = ("dog", "face", "cup", "sun", "tree")


def tags(width: int = 8) -> NameTags:
    layer = NameTags(NAMES, (0, 1, 2, 3, 4, 0), 3, ("photograph", "person"), width, 2)
    layer.build((None, 6, 6, 16))
    randomize(layer)
    return layer


@pytest.fixture(scope="module")
def model() -> FastVLMCausalLM:
    """A model of one tower that looks at pictures of 32 px."""
    tower = FastVLM(
        embed_dims=(8, 8, 16), depths=(1, 1, 1), num_heads=(1, 1, 1), include_top=False,
        input_shape=(32, 32, 3), name="first",
    )  # fmt: skip
    said = "what is this? I am not sure what this is. It may be a photo of"
    texts = [*NAMES, said, "yes no maybe"]
    tokenizer = FastVLMTokenizer.from_texts(20 * texts, vocabulary_size=330)
    decoder = keras_hub.models.QwenBackbone(
        vocabulary_size=tokenizer.vocabulary_size(), num_layers=1, num_query_heads=2,
        num_key_value_heads=1, hidden_dim=8, intermediate_dim=16, tie_word_embeddings=True,
    )  # fmt: skip
    backbone = FastVLMBackbone(tower, decoder, projector_dim=12)
    randomize(backbone)
    places = backbone.num_image_tokens or 1
    preprocessor = FastVLMCausalLMPreprocessor(
        tokenizer, FastVLMImageConverter((32, 32)), 128, places, system_prompt=None
    )
    return FastVLMCausalLM(backbone, preprocessor)


def second() -> EfficientNetLite:
    network = EfficientNetLite(
        embed_dims=(8, 12), depths=(1, 1), kernel_sizes=(3, 5), strides=(1, 2), expansions=(1, 2),
        stem_dim=8, head_dim=16, include_top=False, input_shape=(48, 48, 3), name="second",
    )  # fmt: skip
    randomize(network)
    return network


def test_the_grown_projector_lets_old_rows_and_words_through(model: FastVLMCausalLM) -> None:
    old = model.backbone.projector
    channels, layer = int(old.dense_1.kernel.shape[0]), tags()
    grown = telling.cached_model(model, 6, channels + layer.width).backbone.projector
    rows = np.zeros((1, 2, channels + layer.width), "float32")
    rows[0, 0, :channels] = random_array(channels)
    words = random_array(8, seed=3)
    rows[0, 1, channels : channels + 8] = words
    got = numbers(grown(rows))
    assert relative_difference(got[0, 0], numbers(old(rows[:, 0, :channels]))[0]) < 1e-5
    # a row of words alone: what the old projector makes of nothing, and the words, louder
    nothing = numbers(old(np.zeros((1, channels), "float32")))[0]
    assert relative_difference(got[0, 1], nothing + telling.LOUD * words) < 1e-5
    rows[0, 1, channels + 8] = 1.0  # and a number behind them, with a direction of its own
    told = numbers(grown(rows))[0, 1] - got[0, 1]
    assert 0.3 < np.linalg.norm(told) / (telling.LOUD * telling.NUMBER_LENGTH) < 3


def test_what_the_towers_see_is_what_the_network_sees(model: FastVLMCausalLM) -> None:
    tower, other = model.backbone.vision_encoder, second()
    towers = Towers([tower, other], tags())
    pictures = [
        np.random.default_rng(i).integers(0, 256, (40 + 9 * i, 52, 3), "uint8") for i in range(3)
    ]
    looker = seeing.Looker(tower, other)
    maps, means = looker.maps(pictures), looker.means(pictures)
    shown = next(looker._batches(pictures))
    rows = numbers(towers(shown))[:, 0]
    own = maps.shape[1]
    assert relative_difference(maps, rows[:, :own, : maps.shape[2]]) < 2e-3  # kept in half floats
    told = telling.rows_of(towers.tags, photo_makers._said(towers.tags, means))
    np.testing.assert_allclose(told, rows[:, own:, maps.shape[2] :], atol=2e-2)


def test_noise_is_of_all_kinds_and_files_are_kept(tmp_path: Path) -> None:
    made = list(seeing.noises(np.random.default_rng(0), 8, 16))
    assert all(picture.shape == (16, 16, 3) and picture.dtype == np.uint8 for picture in made)
    assert len({picture.tobytes() for picture in made}) == 8
    first = seeing.kept(tmp_path / "a.npz", x=lambda: np.arange(3))
    again = seeing.kept(tmp_path / "a.npz", x=lambda: pytest.fail("made twice"))
    np.testing.assert_array_equal(first["x"], again["x"])


def test_scores_and_calibration_know_what_they_know() -> None:
    """Ten kinds in clouds of their own: six with a name in the classifier, all with photographs."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1.0, (10, 24))
    labels = rng.integers(10, size=900)
    features = centres[labels] + rng.normal(0, 0.5, (900, 24))
    guess = np.where(labels < 6, labels, rng.integers(6, size=900))
    classes = special.softmax(3.0 * np.eye(6)[guess] + rng.normal(0, 0.5, (900, 6)), axis=1)
    shares = tagging.summed(classes, np.arange(6), 10)
    fit = tagging.fit_scores(features, labels, 10)
    assert (fit(features).argmax(1) == labels).mean() > 0.95
    evidence = tagging.held_out_evidence(tagging.Labelled(features, labels), shares, 10)
    assert 900 < len(evidence.names) < 1200 and (evidence.names == -1).any()
    numbers_found = tagging.calibrate(evidence)
    layer = NameTags(
        [str(i) for i in range(10)], range(6), 10, ("a", "b"), 4, 1, calibration=numbers_found
    )
    assert all(np.isfinite(list(layer.calibration.values())))
    order = ("trained", "trained_classes", "classes", "offset")
    told = evidence.logits(
        np.array([*(numbers_found[k] for k in order), np.log(numbers_found["floor"])])
    )
    named = evidence.names >= 0
    assert (told[named].argmax(1) == evidence.names[named]).mean() > 0.85


def test_a_fact_is_found() -> None:
    x = random_array(400, 6).astype("float64")
    fit = tagging.fit_fact(x, x[:, 2] > 0.1, 1e-3)
    assert ((fit(x)[:, 0] > 0) == (x[:, 2] > 0.1)).mean() > 0.97


def test_made_up_tags_are_of_every_certainty() -> None:
    layer = tags()
    few = np.array([[0.9, 0.1], [0.99, 0.8]])
    found = telling.made_up(layer, few, 200, np.random.default_rng(1))
    best = found.names.max(1) * found.known
    assert found.names.shape == (200, 5) and (found.names.sum(1) < 1.001).all()
    assert (best > 0.7).any() and ((best > 0.4) & (best < 0.7)).any() and (best < 0.4).any()
    facts = [telling.facts_of(layer, found, row) for row in range(200)]
    for row, told in enumerate(facts):
        assert told.names[0][0] == NAMES[int(found.names[row].argmax())]
        assert told.person or told.names[0][0] != "face"


def test_nothing_is_known_of_what_shows_nothing() -> None:
    layer = tags()
    sure = Tags(np.eye(5, dtype="float32")[:1], np.ones(1), np.ones((1, 2)))
    assert telling.facts_of(layer, sure, 0).names[0] == ("dog", 1.0)
    told = telling.facts_of(layer, sure, 0, templates.NOTHING)
    assert templates.manner_of(told) == "refused" and not told.person


def test_photographs_stand_beside_their_own_maps(tmp_path: Path) -> None:
    """Every third photograph of a training set has a map; what shows nothing has its own each."""
    first, every = {}, {name: 3 for name in photo_makers.TRAINING}
    for number, name in enumerate([*photo_makers.TRAINING, "background", "noise", "unknown"]):
        first[name], step = 100 * number, every.get(name, 1)
        maps = np.arange(first[name], first[name] + 7, step)[:, None, None]
        means = random_array(7, 16)
        np.savez(tmp_path / f"{name}.npz", means=means, mirrored=means, maps=maps)
    photos = photo_makers._photographs(tags(), tmp_path)
    shown = photos.maps[photos.places][:, 0, 0]
    assert len(shown) == len(photos.kinds) == len(photos.tags.known) == 7 * 2 * (3 + 4 + 1 + 2)
    told = {"caltech": "caltech", "unknown": templates.NOTHING}
    for name, kind in told.items():
        own = shown[np.array(photos.kinds) == kind][:7]
        step = every.get(name, 1)
        np.testing.assert_array_equal(own, first[name] + np.arange(7) // step * step)


def test_a_batch_of_each_kind_and_the_model_that_takes_pictures(model: FastVLMCausalLM) -> None:
    towers = Towers([model.backbone.vision_encoder, second()], tags())
    layer = towers.tags
    rows, width = int(towers.output_shape[2]), int(towers.output_shape[3])
    cached = telling.cached_model(model, rows, width, NAMES)
    layer.embeddings.assign(telling.name_table(layer, cached))
    maps = random_array(4, rows - layer.num_rows, width - layer.width).astype("float16")
    said = Tags(*(np.asarray(p) for p in photo_makers._said(layer, random_array(4, 16))))
    data = telling.Telling(
        cached,
        layer,
        telling.Seen(maps, telling.rows_of(layer, said)),
        [[{"role": "user", "content": "what is it?"}, {"role": "assistant", "content": "sun"}]] * 4,
        telling.Photographs(maps, np.arange(4) % len(maps), said, ["caltech"] * 4),
        steps=2,
        batch_size=3,
        buckets=(128,),
    )
    for kind in ("drawings", "made_up", "photographs"):
        data.shares = {kind: 1.0}
        x, y, weight = data.batch(0, 1)
        assert x["images"].shape == (3, 1, 1, rows, width)
        assert (weight > 0).any(1).all() and y.shape == weight.shape
    whole = telling.whole_model(cached, towers, 48, 128)
    picture = np.random.default_rng(2).integers(0, 256, (48, 48, 3), "uint8")
    given = numbers(towers(picture[None].astype("float32") / 255))
    inputs = whole.preprocessor.generate_preprocess({"prompts": "what is this?", "images": picture})
    same = {**inputs, "images": given[:, None].astype("float32")}
    ours, theirs = numbers(whole.backbone(inputs)), numbers(cached.backbone(same))
    assert relative_difference(ours, theirs) < 1e-4


def test_a_name_is_one_token_that_only_marks_write(model: FastVLMCausalLM) -> None:
    old, names = model.preprocessor.tokenizer, ("hot dog", "dog", "sun")
    new = name_words.with_names(old, names)
    ids = name_words.name_ids(new, names)
    assert new.detokenize([int(ids[0, 0])]) == "hot dog"
    assert new.detokenize([int(ids[0, 1])]) == " hot dog"
    for text in ("a hot dog and a dog", "sun", "is it a dog?"):
        assert new.tokenize_plain(text) == old.tokenize_plain(text)
    said = name_words.marked("hot dog, a hot dog or a dogma of a dog.", names, (0, 1, 2))
    marking = name_words.MarkingTokenizer(new, names)
    (written,) = marking.tokenize_plain_batch([said])
    assert new.detokenize(written) == "hot dog, a hot dog or a dogma of a dog."
    added = [number for number in written if number >= old.vocabulary_size()]
    assert added == [ids[0, 0], ids[0, 1], ids[1, 1]]
    decoder = model.backbone.text_backbone
    longer = name_words.longer_decoder(decoder, old, new)
    rows = numbers(longer.token_embedding.embeddings)
    assert len(rows) == new.vocabulary_size() > old.vocabulary_size()
    np.testing.assert_allclose(
        rows[: old.vocabulary_size()], numbers(decoder.token_embedding.embeddings)
    )
    layers = [longer.transformer_layers, [*decoder.transformer_layers]]
    assert len(layers[0]) == len(layers[1]) + 1
    for ours, theirs in zip(layers[0][0].weights, layers[1][0].weights, strict=True):
        np.testing.assert_array_equal(numbers(ours), numbers(theirs))


def test_the_last_layer_begins_with_copying(model: FastVLMCausalLM) -> None:
    old = model.preprocessor.tokenizer
    new = name_words.with_names(old, NAMES)
    layer = name_words.longer_decoder(model.backbone.text_backbone, old, new).transformer_layers[-1]
    x = np.random.default_rng(0).normal(size=(2, 1, 8)).astype("float32")
    said = numbers(layer(x, decoder_padding_mask=np.ones((2, 1), bool))) - x  # looks at itself
    directions = name_words.copied_directions(8, 4)
    scaled = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6)
    expected = name_words.COPY_GAIN * scaled @ directions @ directions.T
    assert relative_difference(said, expected) < 1e-5


def test_the_recipe_says_what_the_stages_know(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe.from_file(Path(command.__file__).with_name("photographs.yaml"))
    kinds: dict[str, Any] = {
        "seen": photo_makers.SeenOptions,
        "tags": photo_makers.Nothing,
        "telling": photo_makers.TellingOptions,
    }
    folder = Path("nowhere")
    makers = photo_makers.PhotoDemo(folder, folder, folder, folder).makers()
    assert kinds.keys() == makers.keys()
    for settings in recipe.stages.values():
        settings.read_options(kinds[settings.uses])
    assert sum((settings.minutes or 0) for settings in recipe.stages.values()) < 240
    with pytest.raises(SystemExit):
        command.main(["--work", "w", "--out", "o", "--photos", "p"])
    assert "--photos is taken with --labels" in capsys.readouterr().err


def test_names_with_photographs_come_first() -> None:
    names, trained = photo_makers._ordered_names()
    assert len(set(names)) == len(names) and 100 < trained < len(names)
    assert {"motorcycle", "banana", "dress"} <= set(names[:trained])
