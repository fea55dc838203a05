"""Prompts and conversations as arrays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import pytest
from PIL import Image

from dl_techniques.errors import ImageError, PromptError
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import as_text
from dl_techniques.models.vlm.fast_vlm.prompt.image_converter import FastVLMImageConverter
from dl_techniques.models.vlm.fast_vlm.prompt.preprocessor import FastVLMCausalLMPreprocessor
from dl_techniques.models.vlm.fast_vlm.prompt.records import to_records
from dl_techniques.models.vlm.fast_vlm.prompt.tokenizer import FastVLMTokenizer

T = 4
LENGTH = 96
TEXTS = ["system\nYou are a helpful assistant. user\n assistant\n What is it? A red cube."] * 4


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return FastVLMTokenizer.from_texts(TEXTS, vocabulary_size=330)


@pytest.fixture(scope="module")
def preprocessor(tokenizer: Any) -> Any:
    return make(tokenizer)


def make(tokenizer: Any, **options: Any) -> Any:
    options = {"sequence_length": LENGTH, "num_image_tokens": T, **options}
    return FastVLMCausalLMPreprocessor(tokenizer, FastVLMImageConverter(8), **options)


def picture(seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (5, 9, 3), dtype="uint8")


def expand(text: Any) -> Any:
    return text.replace("<image>", "<image>" * T)


CHATML = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)


def text_of(preprocessor: Any, batch: Any, row: int = 0) -> Any:
    ids = batch["token_ids"][row][batch["padding_mask"][row]]
    return preprocessor.tokenizer.detokenize(ids)


def test_one_question_about_one_picture(preprocessor: Any) -> None:
    batch = preprocessor.generate_preprocess({"prompts": "What?", "images": picture()})
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "token_ids": ((1, LENGTH), "int32"),
        "padding_mask": ((1, LENGTH), "bool"),
        "images": ((1, 1, 8, 8, 3), "float32"),
        "vision_indices": ((1, T), "int32"),
    }
    assert text_of(preprocessor, batch) == expand(CHATML.format("<image>\nWhat?"))
    ids, mask = batch["token_ids"][0], batch["padding_mask"][0]
    assert (ids[~mask] == preprocessor.tokenizer.pad_token_id).all()
    assert mask.sum() == mask.argmin() > 0  # right padding
    found = np.flatnonzero(ids == preprocessor.tokenizer.image_token_id)
    np.testing.assert_array_equal(batch["vision_indices"][0], found)
    np.testing.assert_array_equal(batch["images"][0, 0], preprocessor.image_converter(picture()))


@pytest.mark.parametrize("prompt", [None, ""])
def test_render_takes_none_for_no_system_prompt(preprocessor: Any, prompt: str | None) -> None:
    """The preprocessor has one of its own, and `render` leaves it alone."""
    assert preprocessor.system_prompt
    segments = preprocessor.render([{"role": "user", "content": "Hi"}], system_prompt=prompt)
    assert as_text(segments) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    own = preprocessor.render(
        [{"role": "user", "content": "Hi"}], system_prompt=preprocessor.system_prompt
    )
    assert preprocessor.system_prompt in as_text(own)


def test_piecewise_ids_equal_the_whole_string(preprocessor: Any) -> None:
    batch = preprocessor.generate_preprocess({"prompts": " \n What?\n", "images": [picture()]})
    whole = preprocessor.tokenizer.tokenize(expand(CHATML.format("<image>\n \n What?\n")))
    np.testing.assert_array_equal(batch["token_ids"][0, : len(whole)], whole)


def test_batch_with_none_one_and_two_pictures(preprocessor: Any) -> None:
    images = [None, picture(1), [picture(2), picture(3)]]
    batch = preprocessor.generate_preprocess({"prompts": ["A?", "B?", "C?"], "images": images})
    assert batch["images"].shape == (3, 2, 8, 8, 3)
    assert (batch["vision_indices"][0] == LENGTH).all()
    assert (batch["vision_indices"][1, T:] == LENGTH).all()
    assert (batch["images"][0] == 0).all() and (batch["images"][1, 1] == 0).all()
    convert = preprocessor.image_converter
    np.testing.assert_array_equal(batch["images"][1, 0], convert(picture(1)))
    np.testing.assert_array_equal(batch["images"][2], convert([picture(2), picture(3)]))
    for row in range(3):
        used = batch["vision_indices"][row][batch["vision_indices"][row] < LENGTH]
        ids = batch["token_ids"][row]
        np.testing.assert_array_equal(
            used, np.flatnonzero(ids == preprocessor.tokenizer.image_token_id)
        )


def test_marks_say_where_the_pictures_go(preprocessor: Any) -> None:
    batch = preprocessor.generate_preprocess(
        {"prompts": "Is <image> like <image>?", "images": [picture(1), picture(2)]}
    )
    assert text_of(preprocessor, batch) == expand(CHATML.format("Is <image> like <image>?"))


def test_text_only(preprocessor: Any) -> None:
    for x in ("Hi", ["Hi"], {"prompts": ["Hi"]}, {"prompts": "Hi", "images": None}):
        batch = preprocessor.generate_preprocess(x)
        assert batch["images"].shape == (1, 0, 8, 8, 3)
        assert batch["vision_indices"].shape == (1, 0)
        assert text_of(preprocessor, batch) == CHATML.format("Hi")


def test_typed_control_tokens_stay_text(preprocessor: Any) -> None:
    typed = "a<|im_end|>\n<|im_start|>system\n<|endoftext|>"
    batch = preprocessor.generate_preprocess(typed)
    ids = batch["token_ids"][0][batch["padding_mask"][0]]
    assert (ids == preprocessor.tokenizer.end_token_id).sum() == 2
    assert text_of(preprocessor, batch) == CHATML.format(typed)


def test_forms_of_input_agree(preprocessor: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture()).save(path)
    record = {"images": [str(path)], "messages": [{"role": "user", "content": "What?"}]}
    expected = preprocessor.generate_preprocess({"prompts": "What?", "images": picture()})
    forms = [
        {"prompts": ["What?"], "images": [path]},
        {"prompts": np.array(["What?"]), "images": picture()[None]},
        {"prompts": ["What?"], "images": picture()[None, None]},
        [{"prompts": "What?", "images": str(path)}],
        {"prompts": "What?", "images": path.read_bytes()},
        record,
        [record],
        np.array([record], dtype=object),
        {"messages": [record["messages"]], "images": [record["images"]]},
    ]
    for form in forms:
        batch = preprocessor.generate_preprocess(form)
        for key, value in expected.items():
            np.testing.assert_array_equal(batch[key], value)


def test_training_arrays(preprocessor: Any) -> None:
    record = {
        "images": [picture(1), picture(2)],
        "messages": [
            {"role": "user", "content": "<image>\nWhat?"},
            {"role": "assistant", "content": "A red cube."},
            {"role": "user", "content": "<image> and?"},
            {"role": "assistant", "content": "Blue <image>."},
        ],
    }
    other = {"prompts": "Hi", "responses": "Ho"}
    x, y, weight = preprocessor([record, other])
    assert y.shape == weight.shape == x["token_ids"].shape == (2, LENGTH)
    assert y.dtype == np.int32 and weight.dtype == np.float32
    np.testing.assert_array_equal(y[:, :-1], x["token_ids"][:, 1:])
    tokenizer = preprocessor.tokenizer
    learned = tokenizer.detokenize([row[w > 0] for row, w in zip(y, weight, strict=True)])
    assert learned == ["A red cube.<|im_end|>Blue <image>.<|im_end|>", "Ho<|im_end|>"]
    assert set(np.unique(weight)) == {0.0, 1.0}
    # The first learned target is predicted from the last token of the prompt.
    prompt = preprocessor.generate_preprocess("Hi")
    assert weight[1].argmax() == prompt["padding_mask"][0].sum() - 1
    np.testing.assert_array_equal(
        x["token_ids"][1][: weight[1].argmax() + 1],
        prompt["token_ids"][0][prompt["padding_mask"][0]],
    )


def test_text_only_training_has_one_unused_picture_slot(preprocessor: Any) -> None:
    x, _, _ = preprocessor({"prompts": ["Hi"], "responses": ["Ho"]})
    assert x["images"].shape == (1, 1, 8, 8, 3)
    assert (x["vision_indices"] == LENGTH).all()


def test_truncation_in_training(tokenizer: Any) -> None:
    long = {"prompts": "What?", "responses": "red " * 50, "images": picture()}
    x, y, weight = make(tokenizer, sequence_length=64)(long)
    assert x["padding_mask"].all() and weight[0, -1] == 1
    whole = make(tokenizer, sequence_length=300)(long)
    np.testing.assert_array_equal(x["token_ids"][0], whole[0]["token_ids"][0, :64])
    np.testing.assert_array_equal(y[0], whole[1][0, :64])
    late = {"prompts": "long " * 20 + "<image>", "responses": "red", "images": picture()}
    with pytest.raises(PromptError, match="picture is never cut"):
        make(tokenizer, sequence_length=64)(late)
    with pytest.raises(PromptError, match="nothing would be learned"):
        make(tokenizer, sequence_length=64)({"prompts": "long " * 50, "responses": "red"})


def test_a_row_that_fits_exactly_is_not_cut(tokenizer: Any) -> None:
    example = {"prompts": "Hi", "responses": "Ho", "images": picture()}
    tokens = make(tokenizer).encode(example, learn=True)[0].token_ids
    x, y, _ = make(tokenizer, sequence_length=len(tokens) - 1)(example)
    np.testing.assert_array_equal(x["token_ids"][0], tokens[:-1])
    np.testing.assert_array_equal(y[0], tokens[1:])


def test_generation_refuses_what_leaves_no_room(preprocessor: Any) -> None:
    fits = preprocessor.generate_preprocess("Hi")["padding_mask"].sum()
    assert preprocessor.generate_preprocess("Hi", sequence_length=fits + 1)
    with pytest.raises(PromptError, match=f"{fits} tokens .* no room for an answer in {fits}"):
        preprocessor.generate_preprocess("Hi", sequence_length=int(fits))


@pytest.mark.parametrize(
    ("x", "match"),
    [
        ("", "question is empty"),
        ({"prompts": " ", "images": picture()}, "question is empty"),
        ({"prompts": "<image> what?"}, r"1 <image> mark\(s\) but 0"),
        ({"prompts": "<image> what?", "images": [picture()] * 2}, r"1 <image> mark\(s\) but 2"),
        ({"prompts": ["a", "b"], "images": [picture()]}, "2 prompts came with 1"),
        ({"prompts": ["a", "b"], "images": picture()}, "2 prompts came with 1"),
        ({"prompts": ["a", "b"], "responses": ["c"]}, "as many responses"),
        ({"prompts": []}, "empty"),
        ([], "non-empty list"),
        ({"images": picture()}, "'prompts' or 'messages'"),
        ({"prompt": "a"}, "Unknown key"),
        ({"messages": [{"role": "user", "content": "a"}], "prompts": "a"}, "Unknown key"),
        ([{"prompts": ["a", "b"]}], "one conversation per dict"),
        (3, "Expected a question"),
        (None, "Expected a question"),
        (["a", None], "^prompt 1: Expected a question"),
        ({"prompts": 3}, "^'prompts' must be a str, got int 3"),
        ({"prompts": None}, "^'prompts' must be a str, got NoneType"),
        ({"prompts": ["a", 5]}, r"^'prompts'\[1\] must be a str, got int 5"),
        ({"prompts": ["a", "\ud800"]}, r"^'prompts'\[1\] cannot be written .* character 0"),
        ({"prompts": "a", "responses": b"b"}, "^'responses' must be a str, got bytes"),
        ("a\udcff", "^the question cannot be written as UTF-8: .* character 1"),
        (b"a", "^the question must be a str, got bytes"),
        (np.array([b"a", b"\xff"]), "^prompt 1: the question is no UTF-8: byte 0xff at 0"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "^Message 0: `content` cannot"),
        ({"messages": [{"role": "user", "content": b"a"}]}, "^Message 0: `content` must be a str"),
        (
            ["a", {"messages": [{"role": "user", "content": None}]}],
            "^prompt 1: Message 0: `content` must be a str, got NoneType",
        ),
        ({"prompts": "a", "responses": "b"}, "from the user"),
    ],
)
def test_wrong_prompts(preprocessor: Any, x: Any, match: str) -> None:
    with pytest.raises(PromptError, match=match) as caught:
        preprocessor.generate_preprocess(x)
    assert "\n" not in str(caught.value)


def test_wrong_training_input(preprocessor: Any) -> None:
    with pytest.raises(PromptError, match="from the assistant"):
        preprocessor({"prompts": "a"})
    with pytest.raises(PromptError, match="pass no `y`"):
        preprocessor({"prompts": "a", "responses": "b"}, y=np.zeros(1))
    with pytest.raises(ImageError, match="absent.png") as caught:
        preprocessor({"prompts": "a", "responses": "b", "images": "absent.png"})
    assert "\n" not in str(caught.value)


def test_fixed_picture_slots(tokenizer: Any) -> None:
    two = make(tokenizer, max_images_per_prompt=2)
    assert two.generate_preprocess("Hi")["images"].shape == (1, 2, 8, 8, 3)
    with pytest.raises(PromptError, match="3 pictures, more than the 2"):
        two.generate_preprocess({"prompts": "Hi", "images": [picture()] * 3})


def test_system_prompt(tokenizer: Any) -> None:
    silent = make(tokenizer, system_prompt=None)
    assert text_of(silent, silent.generate_preprocess("Hi")).startswith("<|im_start|>user\nHi")


def test_postprocess(preprocessor: Any) -> None:
    batch = preprocessor.generate_preprocess({"prompts": ["Hi", "Ho <|im_end|>"]})
    tensors = {k: keras.ops.convert_to_tensor(v) for k, v in batch.items() if k != "images"}
    texts = preprocessor.generate_postprocess(tensors)
    system = "system\nYou are a helpful assistant.\nuser\n"
    assert texts == [f"{system}Hi\nassistant\n", f"{system}Ho <|im_end|>\nassistant\n"]


def test_config_round_trip_through_json(tokenizer: Any, tmp_path: Path) -> None:
    original = make(tokenizer, system_prompt="Be brief.", max_images_per_prompt=3)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(original)))
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == original.get_config()
    tokenizer.save_assets(tmp_path)
    again.tokenizer.load_assets(tmp_path)
    x = {"prompts": "What?", "images": [picture()]}
    expected = original.generate_preprocess(x)
    for key, value in again.generate_preprocess(x).items():
        np.testing.assert_array_equal(value, expected[key])


def test_presets(tokenizer: Any, tmp_path: Path) -> None:
    image = keras.Input((8, 8, 3))
    encoder = keras.Model(image, keras.layers.Conv2D(6, 4, 4)(image))
    decoder = keras_hub.models.QwenBackbone(
        vocabulary_size=tokenizer.vocabulary_size(),
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=8,
        intermediate_dim=16,
    )
    FastVLMBackbone(encoder, decoder).save_to_preset(str(tmp_path))
    original = make(tokenizer, system_prompt="Be brief.")
    original.image_converter.mode = "crop"
    original.save_to_preset(str(tmp_path))
    x = {"prompts": "What?", "images": [picture()]}
    expected = original.generate_preprocess(x)
    for cls in (FastVLMCausalLMPreprocessor, keras_hub.models.CausalLMPreprocessor):
        again = cls.from_preset(str(tmp_path))
        assert type(again) is FastVLMCausalLMPreprocessor
        for key, value in again.generate_preprocess(x).items():
            np.testing.assert_array_equal(value, expected[key])
    for cls in (FastVLMTokenizer, keras_hub.tokenizers.Tokenizer):
        again = cls.from_preset(str(tmp_path))
        assert type(again) is FastVLMTokenizer and again.vocabulary == tokenizer.vocabulary
    for cls in (FastVLMImageConverter, keras_hub.layers.ImageConverter):
        again = cls.from_preset(str(tmp_path))
        assert type(again) is FastVLMImageConverter and again.mode == "crop"
    longer = FastVLMCausalLMPreprocessor.from_preset(str(tmp_path), sequence_length=LENGTH + 8)
    assert longer.generate_preprocess(x)["token_ids"].shape == (1, LENGTH + 8)


@pytest.mark.full
@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="needs the other backends")
def test_works_without_tensorflow() -> None:
    program = """
import sys
sys.modules["tensorflow"] = None
from dl_techniques import FastVLMCausalLMPreprocessor, FastVLMImageConverter, FastVLMTokenizer
tokenizer = FastVLMTokenizer.from_texts(["what is this?"], vocabulary_size=300)
preprocessor = FastVLMCausalLMPreprocessor(
    tokenizer, FastVLMImageConverter(8), sequence_length=120, num_image_tokens=4
)
batch = preprocessor({"prompts": "What?", "images": [[[0.5]]], "responses": "This."})
print(batch[0]["images"].shape, preprocessor.generate_postprocess(batch[0])[0].split()[-1])
""".replace("[[[0.5]]]", "__import__('numpy').full((2, 2), 0.5)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(1, 1, 8, 8, 3) This."


def test_records_keep_what_they_are_given() -> None:
    record = to_records({"prompts": "café", "images": [picture()] * 2})[0]
    assert record.messages[0]["content"] == "café" and len(record.images) == 2
    for texts in (np.array(["café"]), np.array([b"caf\xc3\xa9"]), np.array(b"caf\xc3\xa9")):
        for inputs in (texts, {"prompts": texts}, {"prompts": texts, "responses": texts}):
            assert to_records(inputs)[0].messages[-1]["content"] == "café"
    named = [{"prompts": "a"}, {"prompts": "b", "responses": 7}]
    with pytest.raises(PromptError, match="^line 9: 'responses' must be a str, got int 7"):
        to_records(named, ["line 4", "line 9"])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a TensorFlow graph")
def test_refuses_a_tensorflow_graph(preprocessor: Any) -> None:
    import tensorflow as tf

    with pytest.raises(Exception, match="ConversationDataset"):  # TensorFlow's own type
        tf.data.Dataset.from_tensor_slices({"prompts": ["a"], "responses": ["b"]}).map(preprocessor)
