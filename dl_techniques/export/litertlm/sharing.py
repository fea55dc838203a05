"""One table of embeddings for two sections of a bundle.

The engine opens EMBEDDER and PREFILL_DECODE each on its own, and a decoder whose table also makes
the logits has it in both: half a gigabyte twice for 0.5 B parameters in float32. But a LiteRT file
may keep the bytes of a tensor behind itself, told by an offset, and the sections of a bundle are
places in one file. So EMBEDDER is written without its table, in front of PREFILL_DECODE, its
section reaches to the end of that one, and the offset leads to the table in there.

    | EMBEDDER: operators | PREFILL_DECODE: operators ... table ... |
    '------------- section EMBEDDER -------------------------------'
                          '------- section PREFILL_DECODE ---------'

Reference: `Buffer.offset` in the LiteRT schema (`schema.fbs`), made for models above 2 GB.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

ABSENT = -1


def table_place(embedder: Path, language_model: Path) -> int | None:
    """First byte of the embedder's table in the decoder's file; None if its bytes are not there.

    Args:
        embedder: LiteRT file.
        language_model: LiteRT file.
    """
    table = _largest_buffer(_read(embedder)).data.tobytes()
    with language_model.open("rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            place = content.find(table)
    return None if place == ABSENT else place


def write_without_table(embedder: Path, target: Path, place: int, block: int) -> None:
    """Writes the embedder with its table somewhere behind it.

    Args:
        embedder: LiteRT file.
        target: the smaller one.
        place: first byte of the table in the file that comes next.
        block: size that both files are rounded up to where they stand together.
    """
    model = _read(embedder)
    buffer = _largest_buffer(model)
    buffer.size, buffer.data = buffer.data.nbytes, None
    buffer.offset = 2**32  # the field's own size does not depend on its value
    length = len(_packed(model))
    buffer.offset = -(-length // block) * block + place
    target.write_bytes(_packed(model))


def _read(path: Path) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)


def _largest_buffer(model: keras.Model) -> Any:
    return max(model.buffers, key=lambda buffer: 0 if buffer.data is None else len(buffer.data))


def _packed(model: keras.Model) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
