"""FastVLM in Apple's and Hugging Face's layouts: read, planned, written.

`FastVLMCausalLM.from_preset` and `export_to_transformers` are the doors; this package stands
behind them, as the reader that `dl_techniques.models.presets.readers` names.

The place of a picture is marked by `<image>`: id 151646, which the Hugging Face conversion adds and
we add where Apple's tokenizer lacks it. Apple's own code marks it by -200, which is no id; here it
never comes up, for `vision_indices` says where the rows of a picture go.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dl_techniques.checkpoints.fast_vlm.export import export
from dl_techniques.checkpoints.fast_vlm.plan import LoadPlan, estimate
from dl_techniques.checkpoints.fast_vlm.reader import check_processing, load, recognises

__all__ = ["LoadPlan", "check_processing", "estimate", "load", "recognises", "write"]


def write(what: Any, folder: Path, **options: Any) -> None:
    """Writes an object in the Hugging Face layout: `export`."""
    export(what, folder, **options)
