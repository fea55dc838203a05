"""What a `.litertlm` file holds: read back from its own header.

A bundle is a header and sections: the metadata of the language model, a tokenizer, and LiteRT
models, each told by its type. Beside what the engine reads, our bundles say how a picture is to be
brought to the size of the encoder, for the engine itself would stretch it.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dl_techniques.data.geometry import Interpolation
from dl_techniques.errors import ExportError, MissingExtraError, install_hint

HOST_KEY = "dl_techniques.host"
"""Entry of the system metadata that holds a `HostRule` as JSON."""

PICTURE_MARK = "<image_soft_token>"
"""Where the engine puts a picture into a rendered prompt; in 0.18.1 its only name for it."""

END_OFFSET_FIELD = 8  # of `SectionObject` in the schema of the header, third of its fields
METADATA, TOKENIZER = "llm_metadata", "hf_tokenizer"
# The files of `litert_vlm.write_parts` and what the engine calls them, in the order of a bundle:
# the embedder in front of the decoder, whose table it may share.
MODEL_TYPES: Mapping[str, str] = {
    "embedder": "tf_lite_embedder",
    "language_model": "tf_lite_prefill_decode",
    "vision_encoder": "tf_lite_vision_encoder",
    "vision_adapter": "tf_lite_vision_adapter",
}


@dataclass(frozen=True)
class HostRule:
    """What the program around the engine has to know.

    Attributes:
        height: pixels of the pictures that the encoder takes.
        width: the same, across.
        mode: "pad" to a square with `fill`, or "crop" the middle.
        fill: colour of the border, 0 to 255.
        interpolation: filter of the resizing.
        max_pixels: larger pictures are refused.
        image_tokens: positions that a picture takes in the context.
        layout: where the chat template puts pictures, "apple" or "transformers".
        special: texts that the tokenizer takes for control tokens.
    """

    height: int
    width: int
    mode: str
    fill: tuple[int, ...]
    interpolation: Interpolation
    max_pixels: int
    image_tokens: int
    layout: str
    special: tuple[str, ...]

    def to_json(self) -> str:
        """Text for the bundle."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> HostRule:
        """From the text of a bundle."""
        values: dict[str, Any] = json.loads(text)
        for name in ("fill", "special"):
            values[name] = tuple(values[name])
        return cls(**values)


@dataclass(frozen=True)
class Bundle:
    """The header of a `.litertlm` file.

    Attributes:
        metadata: `LlmMetadata` message of the engine.
        system: texts of the system metadata by name.
        sections: name or model type -> (first byte, one behind the last).
    """

    metadata: Any
    system: Mapping[str, str]
    sections: Mapping[str, tuple[int, int]]

    @property
    def host(self) -> HostRule:
        """How to feed the engine.

        Raises:
            ExportError: the bundle was not made by this package.
        """
        if HOST_KEY not in self.system:
            raise ExportError(
                f"the bundle does not say how pictures are prepared (no {HOST_KEY!r} in its "
                "system metadata); make it with fastvlm export --format litertlm"
            )
        return HostRule.from_json(self.system[HOST_KEY])


def read_bundle(path: str | Path) -> Bundle:
    """Reads the header and the metadata of a bundle.

    Raises:
        ExportError: the file is no bundle.
        MissingExtraError: the engine's file library is not installed.
    """
    peek = import_builder().litertlm_peek
    try:
        header = peek.read_litertlm_header(str(path), io.StringIO())
        found = [
            header.SectionMetadata().Objects(i)
            for i in range(header.SectionMetadata().ObjectsLength())
        ]
        sections = {_name(peek, s): (s.BeginOffset(), s.EndOffset()) for s in found}
        system = _entries(peek, header.SystemMetadata())
        metadata = _metadata(Path(path), sections)
    except Exception as error:  # a damaged header fails anywhere, with any kind of error
        reason = " ".join(str(error).split())[:160]
        raise ExportError(f"{path} is no LiteRT-LM bundle ({reason}); export it again") from error
    return Bundle(metadata, system, sections)


def move_end(path: str | Path, name: str, end: int) -> None:
    """Lets a section end elsewhere, in place.

    Args:
        path: the bundle.
        name: model type of the section.
        end: one behind its last byte.
    """
    peek = import_builder().litertlm_peek
    found = peek.read_litertlm_header(str(path), io.StringIO()).SectionMetadata()
    sections = [found.Objects(i) for i in range(found.ObjectsLength())]
    table = next(section._tab for section in sections if _name(peek, section) == name)
    start = import_builder().litertlm_core.HEADER_BEGIN_BYTE_OFFSET
    with Path(path).open("r+b") as file:
        file.seek(start + table.Pos + table.Offset(END_OFFSET_FIELD))
        file.write(struct.pack("<Q", end))


def import_builder() -> Any:
    """The library that reads and writes bundles.

    Raises:
        MissingExtraError: not installed.
    """
    try:
        import litert_lm_builder
        from litert_lm_builder import litertlm_core as litertlm_core
        from litert_lm_builder import litertlm_peek as litertlm_peek
    except ImportError as error:
        raise MissingExtraError(
            f"LiteRT-LM bundles need litert-lm-builder: {install_hint('litertlm')}",
            name="litert_lm_builder",
        ) from error
    return litert_lm_builder


def _name(peek: Any, section: Any) -> str:
    """The type of a model, or what else the section is."""
    schema = peek.schema
    kinds = {
        schema.AnySectionDataType.LlmMetadataProto: METADATA,
        schema.AnySectionDataType.HF_Tokenizer_Zlib: TOKENIZER,
    }
    kind = section.DataType()
    return kinds.get(kind) or peek.get_model_type(section) or f"section type {kind}"


def _entries(peek: Any, system: Any) -> dict[str, str]:
    """The texts of the system metadata by name."""
    schema, result = peek.schema, {}
    for i in range(system.EntriesLength()):
        entry = system.Entries(i)
        if entry.ValueType() == schema.VData.StringValue:
            text = schema.StringValue()
            text.Init(entry.Value().Bytes, entry.Value().Pos)
            result[entry.Key().decode("utf-8")] = text.Value().decode("utf-8")
    return result


def _metadata(path: Path, sections: Mapping[str, tuple[int, int]]) -> Any:
    from litert_lm_builder.runtime.proto import llm_metadata_pb2

    begin, end = sections[METADATA]
    with path.open("rb") as file:
        file.seek(begin)
        return llm_metadata_pb2.LlmMetadata.FromString(file.read(end - begin))
