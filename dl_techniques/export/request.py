"""What is asked for, in plain values: it travels to another process as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dl_techniques.errors import ExportError
from dl_techniques.export.formats import check_pair, format_of


@dataclass(frozen=True)
class ExportRequest:
    """Everything that an export depends on, but the model and the place.

    Attributes:
        format: one of `formats.FORMATS`.
        part: "classifier", "features", "encoder", "vlm", or "auto": what the source is for.
        precision: None for the format's default.
        image_size: side of the pictures in pixels; None for the source's own.
        dynamic_batch: leave the number of pictures open.
        pictures: folder with pictures to compare on; None for what is shipped.
        calibration: folder with pictures that give static int8 its ranges.
        gate: how far the file may be from Keras; None for what `gates.GATES` says.
        options: further keywords that the format knows.

    Raises:
        ExportError: the format does not exist, or cannot do this.
    """

    format: str
    part: str = "auto"
    precision: str | None = None
    image_size: int | None = None
    dynamic_batch: bool = False
    pictures: str | None = None
    calibration: str | None = None
    gate: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fills in the default precision and checks the rest."""
        form = format_of(self.format)
        if self.precision is None:
            object.__setattr__(self, "precision", form.precisions[0])
        check_pair(form, self.part, str(self.precision), self.dynamic_batch)
        for name in self.options:
            if name not in form.options:
                able = ", ".join(form.options) or "none"
                raise ExportError(f"{form.name} has no option {name!r}; it knows {able}")
        if self.image_size is not None and self.image_size < 1:
            raise ExportError(f"the image size must be at least 1 pixel, got {self.image_size}")
        if self.gate is not None and not self.gate > 0:
            raise ExportError(f"the gate must be above 0, got {self.gate}")
        if self.precision == "int8_static" and self.calibration is None:
            raise ExportError(
                "int8_static needs a folder of calibration pictures that look like those the "
                "model will see; int8 needs none"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values; `ExportRequest(**values)` is the inverse."""
        return asdict(self)
