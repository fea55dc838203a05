"""Our FastVLM against transformers' `FastVlmForConditionalGeneration`, on random weights."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch

from dl_techniques.models.vlm.fast_vlm import FastVLMCausalLM
from tests.parity import fast_vlm_models as theirs

TOLERANCE = 1e-4
NEW_TOKENS = 64
TEXTS = ([3, 4, 5], [6, 7, 8, 9, 10])


class Pair:
    """A model of transformers, ours loaded from what it saved, and the same inputs for both."""

    def __init__(self, model: Any, folder: Any, size: Any, tokens: Any, **options: Any) -> None:
        self.theirs, self.size, self.tokens = model, size, tokens
        self.ours = FastVLMCausalLM.from_preset(
            theirs.save_transformers(model, folder, **options), preprocessor=None
        )

    def prompt(self, text: Any = TEXTS) -> Any:
        """Ids of one prompt: text, a picture, text."""
        return [*text[0], *[self.theirs.config.image_token_index] * self.tokens, *text[1]]

    def picture(self, seed: int = 0) -> Any:
        """Patches of noise in colours: noise alone looks the same to a network every time."""
        rng = np.random.default_rng(seed)
        colors = np.kron(rng.integers(0, 2, (4, 4, 3)), np.ones((self.size // 4,) * 2 + (1,)))
        return (rng.uniform(0.5, 1, colors.shape) * colors).astype("float32")

    def our_inputs(self, rows: Any, pictures: Any, length: Any) -> Any:
        ids = np.zeros((len(rows), length), "int32")
        mask = np.zeros((len(rows), length), bool)
        slots = max(len(p) for p in pictures)
        places = np.full((len(rows), slots * self.tokens), length, "int32")
        images = np.zeros((len(rows), slots, self.size, self.size, 3), "float32")
        for i, (row, own) in enumerate(zip(rows, pictures, strict=True)):
            ids[i, : len(row)], mask[i, : len(row)] = row, True
            found = np.flatnonzero(np.array(row) == self.theirs.config.image_token_index)
            places[i, : len(found)] = found
            for j, picture in enumerate(own):
                images[i, j] = picture
        return {"token_ids": ids, "padding_mask": mask, "images": images, "vision_indices": places}

    def their_inputs(self, rows: Any, pictures: Any) -> Any:
        length = max(len(row) for row in rows)
        padded = [[0] * (length - len(row)) + list(row) for row in rows]
        mask = [[0] * (length - len(row)) + [1] * len(row) for row in rows]
        flat = np.stack([p for own in pictures for p in own]).transpose(0, 3, 1, 2)
        return {
            "input_ids": torch.tensor(padded),
            "attention_mask": torch.tensor(mask),
            "pixel_values": torch.tensor(np.ascontiguousarray(flat)),
        }


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    model = theirs.make_model(tied=request.param)
    return Pair(model, tmp_path_factory.mktemp("small"), theirs.SIZE, theirs.TOKENS)


def difference(ours: Any, their: Any) -> Any:
    ours = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(ours, "float32")))
    their = their.detach().float().numpy()
    assert ours.shape == their.shape
    return float(np.abs(ours - their).max() / np.abs(their).max())


@torch.no_grad()
def check_outputs(pair: Any) -> None:
    """Rows of the projector, last hidden states, logits."""
    row, picture = pair.prompt(), pair.picture()
    out = pair.theirs(**pair.their_inputs([row], [[picture]]), output_hidden_states=True)
    inputs = pair.our_inputs([row], [[picture]], len(row))
    rows = pair.ours.encode_images(inputs["images"])
    hidden = pair.ours.backbone(inputs)
    figures = {
        "projector": difference(rows, out.image_hidden_states),
        "hidden": difference(hidden, out.hidden_states[-1]),
        "logits": difference(pair.ours.backbone.decoder.logits(hidden), out.logits),
    }
    print(figures)
    assert max(figures.values()) < TOLERANCE, figures


def greedy(pair: Any, rows: Any, pictures: Any, new_tokens: Any = NEW_TOKENS) -> Any:
    """The new tokens of both."""
    inputs = pair.our_inputs(rows, pictures, max(map(len, rows)) + new_tokens)
    ours = pair.ours.generate(
        inputs, max_new_tokens=new_tokens, sampler="greedy", stop_token_ids=None
    )
    pair.theirs.generation_config.eos_token_id = None
    with torch.no_grad():
        found = pair.theirs.generate(
            **pair.their_inputs(rows, pictures), max_new_tokens=new_tokens, do_sample=False
        )
    longest = max(map(len, rows))
    return ours["token_ids"][:, :new_tokens].tolist(), found[:, longest:].tolist()


def test_rows_hidden_states_and_logits(small: Any) -> None:
    check_outputs(small)
    row, picture = small.prompt(), small.picture(8)
    with torch.no_grad():
        expected = small.theirs(**small.their_inputs([row], [[picture]])).logits
    logits = small.ours(small.our_inputs([row], [[picture]], len(row)))
    assert difference(logits, expected) < TOLERANCE


def test_64_greedy_tokens_of_unequal_prompts(small: Any) -> None:
    rows = [small.prompt(), small.prompt(([9], [7, 3])), [5, 6, 7, 8]]
    pictures = [[small.picture(1)], [small.picture(2)], []]
    ours, their = greedy(small, rows, pictures)
    assert len(ours[0]) == NEW_TOKENS and ours == their
    # Pictures matter, and answers are no single token over and over.
    assert len(set(ours[0])) > 3
    other = greedy(small, rows, [[small.picture(5)], [small.picture(6)], []])[0]
    assert other[0] != ours[0]


def test_two_pictures_in_one_prompt(small: Any) -> None:
    row = [*small.prompt(), *small.prompt(([4], [9, 9]))]
    ours, their = greedy(small, [row], [[small.picture(3), small.picture(4)]], 8)
    assert ours == their


def test_transformers_opens_what_we_write(small: Any, tmp_path: Path) -> None:
    small.ours.export_to_transformers(tmp_path / "out", image_token_id=theirs.IMAGE_ID)
    again, info = theirs.t.FastVlmForConditionalGeneration.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(info.values()), info
    left, right = again.state_dict(), small.theirs.state_dict()
    assert list(left) == list(right)
    for name, tensor in right.items():
        assert name.endswith("tracked") or torch.equal(left[name], tensor), name
    inputs = small.their_inputs([small.prompt()], [[small.picture()]])
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, small.theirs(**inputs).logits)


def test_sharded_bfloat16_folders(tmp_path: Path) -> None:
    """As transformers shards and stores them; computed in float32 on both sides."""
    model = theirs.make_model().to(torch.bfloat16)
    pair = Pair(model, tmp_path, theirs.SIZE, theirs.TOKENS, max_shard_size="30KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    # Read anew: a model that was bfloat16 once keeps rounded rotary frequencies.
    pair.theirs = type(model).from_pretrained(tmp_path, dtype=torch.float32).eval()
    check_outputs(pair)


@pytest.mark.full
def test_the_published_tower_at_256_pixels(tmp_path: Path) -> None:
    model = theirs.make_model(tower={"inference_mode": True}, size=256)
    pair = Pair(model, tmp_path, 256, 16)
    assert pair.ours.backbone.image_size == (256, 256)
    check_outputs(pair)
    ours, their = greedy(pair, [pair.prompt()], [[pair.picture()]], 8)
    assert ours == their


@pytest.mark.full
def test_the_half_billion_shape_at_1024_pixels(tmp_path: Path) -> None:
    """The whole shape of FastVLM-0.5B as converted, one forward pass."""
    text = {
        "vocab_size": 152000,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    }
    model = theirs.make_model({"inference_mode": True}, text, size=1024)
    pair = Pair(model, tmp_path, 1024, 256)
    check_outputs(pair)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"both models in float32 on {keras.backend.backend()}: peak {peak:.1f} GiB")
