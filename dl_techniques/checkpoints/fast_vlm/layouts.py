"""The two published layouts of FastVLM: where tower, projector, decoder and head stand in a file.

| part | Apple (`llava_qwen2`) | Hugging Face (`fast_vlm`) |
|---|---|---|
| tower | `model.vision_tower.vision_tower.model.` | `model.vision_tower.timm_model.` |
| projector | `model.mm_projector.{0,2}` | `model.multi_modal_projector.linear_{1,2}` |
| decoder | `model.` | `model.language_model.` |
| logits | `lm_head.weight` | `lm_head.weight` |

In Apple's layout the decoder shares its prefix with the other two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dl_techniques.checkpoints.language import DecoderSpec, decoder_map
from dl_techniques.checkpoints.weight_map import DENSE, Rule, WeightMap, build_map
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone

if TYPE_CHECKING:
    import keras

HEAD = "lm_head.weight"
COUNTERS = r".*\.num_batches_tracked"
"""Counters of batch norms, which no inference reads."""


@dataclass(frozen=True)
class Layout:
    """One way to name the tensors of a FastVLM.

    Args:
        name: "apple" or "transformers".
        tower_names: how the tower's own names are written: "apple" or "timm".
        tower: prefix of the tower.
        projector: prefixes of the projector's two layers.
        body: prefix of the decoder.
        ignored: regular expressions of names that may stay unread.
    """

    name: str
    tower_names: str
    tower: str
    projector: tuple[str, str]
    body: str
    ignored: tuple[str, ...]

    def weight_map(self, backbone: FastVLMBackbone, decoder: DecoderSpec) -> WeightMap:
        """Name in the file -> variable, for the whole model.

        Raises:
            CheckpointError: a variable that this layout has no name for.
        """
        from dl_techniques.checkpoints.vision import tower_map

        tower = tower_map(backbone.vision_encoder, self.tower_names)
        return {
            **{self.tower + name: entry for name, entry in tower.items()},
            **self._projector_map(backbone),
            **decoder_map(backbone.text_backbone, decoder, body=self.body, head=HEAD),
        }

    def _projector_map(self, backbone: FastVLMBackbone) -> WeightMap:
        rules = []
        for number, source in enumerate(self.projector, start=1):
            rules.append(Rule(f"dense_{number}/kernel", f"{source}.weight", DENSE))
            rules.append(Rule(f"dense_{number}/bias", f"{source}.bias"))
        return build_map(((_short(v), v) for v in backbone.projector.weights), rules)


def _short(variable: keras.Variable) -> str:
    """The last two parts of a path: what stands before depends on where the layer was built."""
    return "/".join(str(variable.path).split("/")[-2:])


_APPLE_TOWER = "model.vision_tower.vision_tower.model."
APPLE = Layout(
    name="apple",
    tower_names="apple",
    tower=_APPLE_TOWER,
    projector=("model.mm_projector.0", "model.mm_projector.2"),
    body="model.",
    # The projection into CLIP's space is stored, and FastVLM never computes it.
    ignored=(COUNTERS, _APPLE_TOWER.replace(".", r"\.") + r"head\.proj"),
)
TRANSFORMERS = Layout(
    name="transformers",
    tower_names="timm",
    tower="model.vision_tower.timm_model.",
    projector=("model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_2"),
    body="model.language_model.",
    ignored=(COUNTERS,),
)
MODEL_TYPES = {"llava_qwen2": APPLE, "fast_vlm": TRANSFORMERS}
"""`model_type` of `config.json` -> layout."""
