"""FastVLMCausalLM as a KerasHub task: train, quantize, fuse, save, load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import pytest

from dl_techniques.data import ConversationDataset
from dl_techniques.errors import FusionError, PromptError
from dl_techniques.layers import dense as int8_projection
from dl_techniques.layers.reparameterization import quantization_mode
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vlm.fast_vlm import FastVLMBackbone, FastVLMCausalLM
from dl_techniques.models.vlm.fast_vlm.answer.alignment import align_prompts
from dl_techniques.models.vlm.fast_vlm.answer.phases import Phases
from dl_techniques.models.vlm.fast_vlm.prompt.records import to_records
from tests.models.vlm.fast_vlm.small_model import (
    CONTEXT,
    make_decoder,
    make_model,
    make_preprocessor,
    pictures,
    randomize,
)

ASK = {"prompts": ["Why?", "what is this red cube?"], "images": [pictures(1, 3), None]}
RECORDS = {**ASK, "responses": ["a red cube", "the cat"]}
NEW = 6


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


def logits(model: Any) -> Any:
    """What the model says about a fixed batch, prompts and their pictures."""
    inputs = model.preprocessor.generate_preprocess(ASK)
    out, _ = model.prefill(inputs, model.encode_images(inputs["images"]), 2)
    return keras.ops.convert_to_numpy(out)


def test_it_is_a_keras_hub_causal_lm(model: Any) -> None:
    assert isinstance(model, keras_hub.models.CausalLM)
    assert isinstance(model.sampler, keras_hub.samplers.GreedySampler)
    assert model.context_length == 192
    inputs = model.preprocessor.generate_preprocess({"prompts": "Why?", "images": pictures(1)})
    inputs["padding_mask"] = inputs["padding_mask"].astype("int32")
    size = model.preprocessor.tokenizer.vocabulary_size()
    assert model.predict(inputs, verbose=0).shape == (1, 192, size)


def test_compile_chooses_the_sampler(model: Any) -> None:
    other = FastVLMCausalLM(model.backbone, model.preprocessor)
    other.compile(sampler="top_k")
    assert isinstance(other.sampler, keras_hub.samplers.TopKSampler)


def test_fit_learns_the_answers() -> None:
    model = make_model()
    randomize(model, scale=0.1)
    model.compile(keras.optimizers.Adam(0.02))
    history = model.fit(
        RECORDS, batch_size=2, epochs=12, validation_data=RECORDS, validation_freq=12, verbose=0
    )
    losses = history.history["loss"]
    assert losses[-1] < 0.3 * losses[0] and history.history["val_loss"][0] < losses[-2]
    with pytest.raises(PromptError, match="responses"):
        model.fit(RECORDS, y=np.zeros(2))


def test_fit_takes_batches_of_several_lengths() -> None:
    """Keras takes the first two batches for the shape of all on TensorFlow; the third is longer."""
    model = make_model()
    model.compile("sgd")
    short = {"prompts": "Why?", "responses": "a red cube"}
    long = {**short, "prompts": "Why? " * 10}
    lengths = [len(r.token_ids) for r in model.preprocessor.encode([short, long], learn=True)]
    dataset = ConversationDataset(
        [short] * 4 + [long] * 2, model.preprocessor, 2, shuffle=False, length_buckets=(lengths[0],)
    )
    assert lengths[0] < lengths[1]
    assert dataset[1][1].shape[1] < dataset[2][1].shape[1]
    assert np.isfinite(model.fit(dataset, shuffle=False, verbose=0).history["loss"]).all()


def test_batches_of_an_update_learn_as_one_large_batch() -> None:
    """In rows of several lengths, with answers of several lengths: the same weights."""
    records = [
        {"prompts": "Why? " * (1 + 9 * (i % 2)), "responses": "a red cube " * (1 + i)}
        for i in range(4)
    ]
    rows = make_model().preprocessor.encode(records, learn=True)
    short, *_, longest = sorted(len(row.token_ids) for row in rows)
    assert short < longest
    start, moved = None, []
    for size, accumulate in ((4, 1), (1, 4)):
        model = make_model()
        model.backbone.vision_encoder.trainable = False
        start = model.get_weights() if start is None else start
        model.set_weights(start)
        steps = {} if accumulate == 1 else {"gradient_accumulation_steps": accumulate}
        model.compile(keras.optimizers.SGD(0.1, **steps))
        dataset = ConversationDataset(
            records, model.preprocessor, size, shuffle=False, length_buckets=(short,),
            accumulate=accumulate,
        )  # fmt: skip
        model.fit(dataset, shuffle=False, verbose=0)
        pairs = zip(model.get_weights(), start, strict=True)
        moved.append(np.concatenate([np.ravel(new - old) for new, old in pairs]))
    assert len({dataset[i][2].shape[1] for i in range(4)}) > 1
    step = np.abs(moved[0]).max()
    assert step > 1e-3 and np.abs(moved[1] - moved[0]).max() < 1e-4 * step


def test_logits_of_the_answers_alone_train_alike() -> None:
    records = [
        {"prompts": "Why? " * (1 + i), "responses": "a red cube " * (1 + i % 3)} for i in range(4)
    ]
    begun = np.concatenate([np.ravel(w) for w in make_model().get_weights()])
    kept = []
    for most in (None, 32):
        model = make_model()
        model.compile("sgd")
        dataset = ConversationDataset(
            records, model.preprocessor, 2, shuffle=False, max_answer_tokens=most
        )
        said = keras.ops.convert_to_numpy(model(dataset[1][0]))
        history = model.fit(dataset, shuffle=False, verbose=0).history
        weights = np.concatenate([np.ravel(w) for w in model.get_weights()])
        kept.append((said, [value[0] for value in history.values()], weights))
    (everywhere, numbers, weights), (alone, *same) = kept
    positions = dataset[1][0]["answer_positions"]
    assert everywhere.shape[:2] == (2, CONTEXT) and alone.shape[:2] == positions.shape == (2, 32)
    expected = np.take_along_axis(everywhere, positions[..., None], 1)
    assert np.abs(alone - expected).max() < 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(same[0], numbers, rtol=1e-5)
    step = np.abs(weights - begun).max()
    assert step > 1e-3 and np.abs(same[1] - weights).max() < 1e-4 * step


def test_the_preprocessor_can_be_taken_off_and_put_back() -> None:
    model = make_model()
    preprocessor, model.preprocessor = model.preprocessor, None
    with pytest.raises(ValueError, match="preprocessor"):
        model.stream({})
    model.preprocessor = preprocessor
    assert len(model.generate(["Why?"], max_new_tokens=2)) == 1
    inputs = preprocessor.generate_preprocess("Why?")
    inputs["images"] = np.zeros((1, 1, 32, 32, 3), "float32")
    inputs["vision_indices"] = np.full((1, 4), 192, "int32")
    assert model.predict(inputs, verbose=0).ndim == 3


def test_lora_trains_and_is_heard() -> None:
    model = make_model()
    before = logits(model)
    frozen = [np.array(w) for w in model.backbone.vision_encoder.get_weights()]
    model.backbone.enable_lora(2)
    model.compile(keras.optimizers.SGD(1.0))
    np.testing.assert_allclose(logits(model), before, atol=1e-5)
    model.fit(RECORDS, batch_size=2, epochs=3, verbose=0)
    assert np.abs(logits(model) - before).max() > 1e-3
    for a, b in zip(model.backbone.vision_encoder.get_weights(), frozen, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("alone", [False, True])
def test_a_ready_batch_trains_as_fit_does(alone: bool) -> None:
    dataset_options = {"max_answer_tokens": 32} if alone else {}
    start, results = make_model().get_weights(), []
    for by_hand in (False, True):
        model = make_model()
        model.set_weights(start)
        model.compile(keras.optimizers.SGD(0.1))
        dataset = ConversationDataset(
            to_records(RECORDS), model.preprocessor, 2, shuffle=False, **dataset_options
        )
        if by_hand:
            model.train_on_batch(*dataset[0])
        else:
            model.fit(dataset, shuffle=False, verbose=0)
        results.append(np.concatenate([np.ravel(w) for w in model.get_weights()]))
    np.testing.assert_allclose(results[1], results[0], atol=1e-6)
    assert np.abs(results[0] - np.concatenate([np.ravel(w) for w in start])).max() > 1e-4
    x, y, weight = dataset[0]
    assert model.predict_on_batch(x).shape[:2] == y.shape
    assert np.isfinite(model.test_on_batch((x, y, weight))[0])


def test_conversations_are_a_batch_as_well() -> None:
    model = make_model()
    model.compile(keras.optimizers.SGD(0.0))
    whole = model.evaluate(RECORDS, batch_size=8, verbose=0)
    np.testing.assert_allclose(model.test_on_batch(RECORDS), whole, rtol=1e-5)
    assert model.predict_on_batch(RECORDS).shape[1] == CONTEXT
    with pytest.raises(PromptError, match="not into y"):
        model.train_on_batch(RECORDS, np.zeros(2))


def movement_of_adapters(model: Any) -> Any:
    """What one step moves every adapter by, all of them beginning with random values."""
    model.backbone.enable_lora(2, ["query", "value", "feedforward_output_dense"])
    adapters = [v for v in model.backbone.trainable_variables if "lora_kernel" in v.path]
    rng = np.random.default_rng(0)
    start = [rng.normal(0, 0.1, v.shape).astype("float32") for v in adapters]
    for variable, value in zip(adapters, start, strict=True):
        variable.assign(value)
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(RECORDS, batch_size=2, verbose=0)
    after = [keras.ops.convert_to_numpy(v) for v in adapters]
    return [np.ravel(a - s) for a, s in zip(after, start, strict=True)]


def test_adapters_on_an_int8_decoder_learn_as_on_floats() -> None:
    """The table of the logits is in int8 too, and no gradient may end at its rounding."""
    floats, whole = make_model(), make_model()
    whole.quantize("int8")
    assert quantization_mode(whole.backbone.text_backbone.token_embedding) == "int8"
    pairs = list(zip(movement_of_adapters(floats), movement_of_adapters(whole), strict=True))
    assert len(pairs) == 12
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
    assert np.median(cosines) > 0.95


def test_int8_is_close_and_survives_saving(tmp_path: Path) -> None:
    model = make_model()
    before = logits(model)
    model.quantize("int8")
    after = logits(model)
    assert 0 < np.std(after - before) < 0.15 * np.std(before)
    assert "int8" in {str(w.dtype) for w in model.weights}
    assert {str(w.dtype) for w in model.backbone.vision_encoder.weights} == {"float32"}
    model.save_to_preset(tmp_path / "p")
    again = FastVLMCausalLM.from_preset(tmp_path / "p")
    np.testing.assert_array_equal(logits(again), after)


def steps_of(phases: Any, inputs: Any, tokens: Any) -> Any:
    """Logits of a prompt and of the tokens that follow, read one by one."""
    rows = phases.encode_images(inputs["images"])
    prompts = align_prompts(inputs, phases.backbone.num_image_tokens)
    said, state = phases.prefill(prompts, rows, prompts.length + len(tokens))
    found = [keras.ops.convert_to_numpy(said)]
    for token in tokens:
        said, state = phases.decode_step(np.full(len(found[0]), token, "int32"), state)
        found.append(keras.ops.convert_to_numpy(said))
    return np.stack(found)


@pytest.mark.parametrize("rows", [1, 2])
def test_int8_steps_are_those_of_keras(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    model.quantize("int8")
    ask = {"prompts": ASK["prompts"][:1] * rows, "images": ASK["images"][:1] * rows}
    inputs = model.preprocessor.generate_preprocess(ask)
    ours = steps_of(model.phases, inputs, [3, 5, 7])
    monkeypatch.setattr(int8_projection, "_is_ours", lambda *a, **k: False)
    keras_own = steps_of(Phases(model.backbone), inputs, [3, 5, 7])
    np.testing.assert_allclose(ours, keras_own, rtol=0, atol=1e-6 * np.abs(keras_own).max())
    assert np.std(keras_own) > 1e-3


@pytest.mark.skipif(keras.config.backend() != "jax", reason="JAX keeps transposed kernels")
def test_transposed_kernels_follow_the_weights() -> None:
    model = make_model()
    model.quantize("int8")
    ask = {"prompts": ASK["prompts"][:1], "images": ASK["images"][:1]}
    inputs = model.preprocessor.generate_preprocess(ask)
    before = steps_of(model.phases, inputs, [3, 5])
    layers = model.backbone.text_backbone.transformer_layers
    kernel = layers[0]._self_attention_layer._output_dense._kernel
    kernel.assign(-kernel.value)
    after = steps_of(model.phases, inputs, [3, 5])
    assert np.abs(after - before)[1:].max() > 1e-4 * np.abs(before).max()
    np.testing.assert_array_equal(after, steps_of(Phases(model.backbone), inputs, [3, 5]))


def test_keras_file(model: Any, tmp_path: Path) -> None:
    model.compile(keras.optimizers.SGD(0.25), sampler=keras_hub.samplers.TopKSampler(k=3, seed=1))
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert type(again) is FastVLMCausalLM
    assert (again.sampler.k, again.sampler.seed) == (3, 1)
    assert float(again.optimizer.learning_rate) == 0.25
    np.testing.assert_array_equal(logits(again), logits(model))
    loaded = FastVLMCausalLM.from_preset(tmp_path / "m.keras")
    assert loaded.generate(ASK, max_new_tokens=NEW) == model.generate(ASK, max_new_tokens=NEW)


def fused_pair() -> Any:
    """A model around a real, very small vision network, and its logits before fusing."""
    preprocessor = make_preprocessor(image_size=8)
    encoder = FastVLM(
        include_top=False,
        embed_dims=(8,),
        depths=(1,),
        mixers=("repmixer",),
        mlp_ratio=1.0,
        input_shape=(8, 8, 3),
        layer_scale_init=0.5,
    )
    decoder = make_decoder("qwen", preprocessor.tokenizer.vocabulary_size(), num_layers=1)
    model = FastVLMCausalLM(FastVLMBackbone(encoder, decoder), preprocessor)
    randomize(model)
    return model, logits(model)


@pytest.mark.parametrize("fold", [False, True])
def test_fusing_changes_nothing_and_is_kept(fold: bool, tmp_path: Path) -> None:
    model, before = fused_pair()
    variables = len(model.weights)
    model.reparameterize(fold=fold)
    assert model.reparameterized and len(model.weights) < variables
    np.testing.assert_allclose(logits(model), before, atol=1e-4 * np.abs(before).max())
    model.save_to_preset(tmp_path / "p")
    again = FastVLMCausalLM.from_preset(tmp_path / "p")
    assert again.reparameterized and len(again.weights) == len(model.weights)
    np.testing.assert_allclose(logits(again), logits(model), atol=1e-6)
    model.reset_reparameterization()
    assert not model.reparameterized and len(model.weights) == variables
    np.testing.assert_allclose(logits(model), before, atol=1e-4 * np.abs(before).max())


def test_training_a_fused_model_is_right_or_refused() -> None:
    model, _ = fused_pair()
    model.reparameterize(fold=True)
    with pytest.raises(FusionError, match="compile"):
        model.fit(RECORDS, batch_size=2, verbose=0)
    model.compile()
    with pytest.raises(FusionError, match="folded"):
        model.fit(RECORDS, batch_size=2, verbose=0)
    model.backbone.vision_encoder.trainable = False
    model.compile(keras.optimizers.SGD(0.1))
    before = [np.array(w) for w in model.backbone.vision_encoder.get_weights()]
    said = logits(model)
    model.fit(RECORDS, batch_size=2, verbose=0)
    for a, b in zip(model.backbone.vision_encoder.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(logits(model) - said).max() > 1e-4
