"""Several networks on one picture: rows, forms, files, and networks of other people."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from dl_techniques import EfficientNetLite, FastVLM, FastVLMBackbone, Towers
from dl_techniques.errors import VariantError
from dl_techniques.layers.name_tags import NameTags
from dl_techniques.models.picture_network import PictureNetwork
from dl_techniques.models.vision.towers.certainty import certainty_of_tags, mentioned
from tests.helpers import numbers, random_array, randomize, relative_difference


def first(side: int = 32, **options: object) -> FastVLM:
    """float[B, 32, 32, 3] -> float[B, 1, 1, 32]."""
    network = FastVLM(
        embed_dims=(8, 8, 16, 32), depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 2), include_top=False,
        input_shape=(side, side, 3), name="first", **options,
    )  # fmt: skip
    randomize(network)
    return network


def second() -> EfficientNetLite:
    """float[B, 48, 48, 3] -> float[B, 12, 12, 16]."""
    network = EfficientNetLite(
        embed_dims=(8, 12), depths=(1, 1), kernel_sizes=(3, 5), strides=(1, 2), expansions=(1, 2),
        stem_dim=8, head_dim=16, include_top=False, input_shape=(48, 48, 3), name="second",
    )  # fmt: skip
    randomize(network)
    return network


def tags() -> NameTags:
    layer = NameTags(("cat", "dog", "sofa"), (0, 1, 1, 2), 2, ("photograph", "person"), 6, 2)
    layer.build((None, 12, 12, 16))
    randomize(layer)
    layer.embeddings.assign(random_array(3, 12, seed=4))
    return layer


@pytest.fixture(scope="module")
def pair() -> Towers:
    return Towers([first(), second()], tags(), name="pair")


def test_each_tower_has_channels_of_its_own(pair: Towers) -> None:
    picture = np.random.default_rng(0).random((2, 48, 48, 3)).astype("float32")
    rows = numbers(pair(picture))
    assert rows.shape == (2, 1, 1 + 7, 32 + 19) == (2, *pair.output_shape[1:])
    assert not rows[:, :, :1, 32:].any() and not rows[:, :, 1:, :32].any()
    one, two = pair.networks
    small = numbers(pair.get_layer("first_resize")(picture)).astype("float32")
    assert relative_difference(rows[:, 0, :1, :32], numbers(one(small))[:, 0]) < 1e-5
    rule = two.picture_rule((48, 48))
    scaled = ((picture - np.array(rule.mean)) / np.array(rule.std)).astype("float32")
    assert relative_difference(rows[:, :, 1:, 32:], pair.tags(two(scaled))) < 1e-5


def test_it_is_a_picture_network(pair: Towers) -> None:
    assert isinstance(pair, PictureNetwork)
    assert pair.input_size == (48, 48) and pair.total_stride is None
    picture = np.random.default_rng(1).random((1, 48, 48, 3)).astype("float32")
    np.testing.assert_allclose(
        numbers(pair.copy((48, 48))(picture)), numbers(pair(picture)), atol=1e-5
    )
    with pytest.raises(VariantError, match="takes pictures of"):
        pair.copy((64, 64))


def test_both_change_their_form_and_nothing_else(tmp_path: Path) -> None:
    towers = Towers([first(), second()], tags())
    picture = np.random.default_rng(2).random((2, 48, 48, 3)).astype("float32")
    before = numbers(towers(picture))
    towers.reparameterize(fold=True)
    assert towers.folded and all(network.folded for network in towers.networks)
    assert relative_difference(towers(picture), before) < 1e-5
    towers.save(tmp_path / "towers.keras")
    loaded = keras.saving.load_model(tmp_path / "towers.keras")
    np.testing.assert_array_equal(numbers(loaded(picture)), numbers(towers(picture)))
    assert loaded.folded and loaded.get_config()["networks"] == towers.get_config()["networks"]
    towers.save_to_preset(tmp_path / "preset")
    np.testing.assert_array_equal(
        numbers(Towers.from_preset(tmp_path / "preset")(picture)), numbers(towers(picture))
    )
    towers.reset_reparameterization()
    assert not any(network.folded for network in towers.networks)
    assert relative_difference(towers(picture), before) < 1e-5


def test_each_tower_of_a_whole_models_preset(tmp_path: Path) -> None:
    keras_hub = pytest.importorskip("keras_hub")
    decoder = keras_hub.models.QwenBackbone(
        vocabulary_size=32, num_layers=1, num_query_heads=2, num_key_value_heads=1,
        hidden_dim=8, intermediate_dim=16,
    )  # fmt: skip
    towers = Towers([first(), second()], tags(), name="pair")
    FastVLMBackbone(towers, decoder).save_to_preset(tmp_path / "preset")
    picture = np.random.default_rng(3).random((1, 48, 48, 3)).astype("float32")
    for network in towers.networks:
        loaded = type(network).from_preset(tmp_path / "preset")
        x = picture[:, : network.input_shape[1], : network.input_shape[2]]
        np.testing.assert_array_equal(numbers(loaded(x)), numbers(network(x)))
    whole = Towers.from_preset(tmp_path / "preset")
    np.testing.assert_array_equal(numbers(whole(picture)), numbers(towers(picture)))


def test_a_shorter_prompt_keeps_the_tags() -> None:
    keras_hub = pytest.importorskip("keras_hub")
    decoder = keras_hub.models.QwenBackbone(
        vocabulary_size=32, num_layers=1, num_query_heads=2, num_key_value_heads=1,
        hidden_dim=8, intermediate_dim=16,
    )  # fmt: skip
    towers = Towers([first(64), second()], tags(), input_shape=(64, 64, 3))
    model = FastVLMBackbone(towers, decoder)
    picture = np.random.default_rng(5).random((1, 1, 64, 64, 3)).astype("float32")
    whole = numbers(model.image_embedding(picture))
    assert model.num_image_tokens == 4 + 7 == whole.shape[-2]
    with pytest.raises(ValueError, match=r"image_tokens=7: expected 8 to 11 \(7 of them tell"):
        model.select_tokens(7)
    model.select_tokens(9)
    fewer = numbers(model.image_embedding(picture))
    assert model.num_image_tokens == 9 == fewer.shape[-2]
    np.testing.assert_array_equal(fewer[..., 2:, :], whole[..., 4:, :])


def test_networks_of_other_people() -> None:
    """A KerasHub encoder beside ours, without tags: its map is read as well."""
    keras_hub = pytest.importorskip("keras_hub")
    other = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[7], stackwise_num_filters=[64, 8],
        stackwise_num_blocks=[1, 1], stackwise_num_strides=[1, 2], block_type="basic_block",
        image_shape=(64, 64, 3), data_format="channels_last",
    )  # fmt: skip
    towers = Towers([first(), other])
    picture = np.random.default_rng(5).random((2, 64, 64, 3)).astype("float32")
    rows = numbers(towers(picture))
    theirs = numbers(other(picture))
    height, width, channels = theirs.shape[1:]
    assert rows.shape == (2, 1, 1 + height * width, 32 + channels)
    expected = theirs.reshape(2, height * width, channels)
    assert relative_difference(rows[:, 0, 1:, 32:], expected) < 1e-5


def test_refusals() -> None:
    with pytest.raises(VariantError, match="two or more"):
        Towers([first()])
    with pytest.raises(VariantError, match="of any size"):
        Towers([first(), EfficientNetLite.from_variant("efficientnet_lite0", include_top=False)])


def test_what_it_knows_of_photographs(pair: Towers) -> None:
    picture = np.random.default_rng(6).random((2, 48, 48, 3)).astype("float32")
    found = [numbers(part) for part in pair.tags_of(picture)]
    best = pair.names_of(picture, 2)
    order = found[0][1].argsort()[::-1]
    assert [name for name, _ in best[1]] == [pair.tags.names[i] for i in order[:2]]
    assert abs(best[1][0][1] - found[0][1].max() * found[1][1]) < 1e-6
    with pytest.raises(LookupError, match="no name tags"):
        Towers([first(), second()]).tags_of(picture)


def test_certainty_of_an_answer() -> None:
    layer = tags()
    names = np.array([0.7, 0.2, 0.1])

    def certainty(question: str, answer: str, photograph: float = 0.9) -> float | None:
        facts = np.array([photograph, 0.3])
        return certainty_of_tags(layer, names, 0.5, facts, question, answer)

    assert certainty("what is this?", "cat") == pytest.approx(0.35)
    assert certainty("describe", "It may be a cat or a dog.") == pytest.approx(0.45)
    assert certainty("what is it", "I am not sure what this is.") == pytest.approx(0.35)
    assert certainty("is there a person?", "no") == pytest.approx(0.7)
    assert certainty("is there a sofa?", "yes") == pytest.approx(0.05)
    assert certainty("how many?", "two") is None
    assert certainty("what is this?", "cat", photograph=0.2) is None


def test_longer_names_come_first() -> None:
    names = ("dog", "hot dog", "cat")
    assert mentioned(names, "a hot dog and a cat.") == [1, 2]
    assert mentioned(names, "a dogma") == []
