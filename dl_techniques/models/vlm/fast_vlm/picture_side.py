"""What a vision-language model says of its pictures as `PictureNetwork`."""

from __future__ import annotations

from typing import Any

from dl_techniques.models.picture_network import WITHOUT_SIZE, PictureRule, Size, encoder_network
from dl_techniques.typing import Tensor


class PictureSide:
    """The answers of a model of a `backbone` that embeds pictures and a `preprocessor`."""

    backbone: Any
    preprocessor: Any

    @property
    def input_size(self) -> Size:
        """Height and width of the encoder's input; where that is open, of the image converter."""
        height, width = self.backbone.vision_encoder.input_shape[1:3]
        converter = getattr(self.preprocessor, "image_converter", None)
        side = WITHOUT_SIZE if converter is None else int(converter.image_size[0])
        return (height or side, width or side)

    @property
    def total_stride(self) -> int | None:
        """The encoder's; None where it takes pictures of one size only."""
        return encoder_network(self.backbone.vision_encoder).total_stride

    @property
    def forms(self) -> tuple[str, ...]:
        """The encoder's."""
        return encoder_network(self.backbone.vision_encoder).forms

    def parts(self) -> tuple[str, ...]:
        """All of it, and what makes rows of pictures."""
        return ("vlm", "encoder")

    def picture_encoder(self) -> Any:
        """The vision encoder."""
        return self.backbone.vision_encoder

    def picture_rule(self, size: Size) -> PictureRule:
        """As its image converter makes them."""
        converter = getattr(self.preprocessor, "image_converter", None)
        if converter is None:
            return self.backbone.image_embedding.picture_rule(size)
        config = {**converter.get_config(), "image_size": list(size)}
        to_bytes = type(converter).from_config(config).to_uint8
        return PictureRule(to_bytes, converter.mean, converter.std)

    def copy(self, size: Size, dtype: str = "float32") -> Any:
        """A copy of its `ImageEmbedding`."""
        return self.backbone.image_embedding.copy(size, dtype)

    def fold(self) -> None:
        """Fuses and folds the encoder."""
        model: Any = self
        model.reparameterize(fold=True)

    def part_outputs(self, part: str, images: Tensor) -> dict[str, Tensor]:
        """Those of its `ImageEmbedding`."""
        outputs: dict[str, Tensor] = self.backbone.image_embedding.part_outputs(part, images)
        return outputs
