"""Files for the engines, written once, each by a process with the backend that it needs.

Run as `python -m tools.compare_peers.peers.engine_files FOLDER FILE`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tools.compare_peers.job import Job
from tools.compare_peers.peers.table import LIMITS

OURS = {
    "ours.onnx": ("onnx", "float32"),
    "ours.tflite": ("litert", "float32"),
    "ours_int8.tflite": ("litert", "int8"),
}


def needed(folder: Path, file: str) -> Path:
    """The path of a file, which is written if it is not there yet."""
    path = folder / file
    if not path.exists():
        backend = "torch" if file.startswith("timm") else "tensorflow"
        subprocess.run(
            [sys.executable, "-m", "tools.compare_peers.peers.engine_files", str(folder), file],
            env={**os.environ, "KERAS_BACKEND": backend},
            check=True,
            stdout=sys.stderr,
        )
    return path


def write(folder: Path, file: str) -> None:
    """Writes one of the files."""
    job = Job.read(folder)
    if file in OURS:
        write_ours(folder, file, job)
        return
    writers: dict[str, Callable[[Path, Job], None]] = {
        "timm.onnx": write_timm_onnx,
        "timm.tflite": write_timm_litert,
        "ours_int8.onnx": write_int8_onnx,
    }
    writers[file](folder, job)


def write_ours(folder: Path, file: str, job: Job) -> None:
    """`fastvlm export`, which folds, checks the file in its runtime and refuses a wrong one."""
    from dl_techniques.export import export_model

    format_name, precision = OURS[file]
    export_model(
        folder / "fused",
        folder / file,
        format_name,
        part="encoder",
        image_size=job.image_size,
        precision=precision,
        gate=None if precision == "float32" else LIMITS[precision],  # of random weights
        dynamic_batch=job.batch_size > 1,
    )


def write_timm_onnx(folder: Path, job: Job) -> None:
    """What timm's own `onnx_export.py` does: `torch.onnx.export` of the fused network."""
    import torch

    network, images = _timm(folder, job)
    with torch.no_grad():
        torch.onnx.export(
            network, (images,), folder / "timm.onnx", dynamo=False, input_names=["image"]
        )


def write_timm_litert(folder: Path, job: Job) -> None:
    """The fused network through litert-torch."""
    import litert_torch

    network, images = _timm(folder, job)
    litert_torch.convert(network, (images,)).export(str(folder / "timm.tflite"))


def _timm(folder: Path, job: Job):  # type: ignore[no-untyped-def]
    import torch

    from tools.compare_peers.peers.torch_peers import timm_network

    network = timm_network(folder, job)
    network.forward = network.forward_features
    shape = (job.batch_size, 3, job.image_size, job.image_size)
    return network, torch.zeros(shape)


def write_int8_onnx(folder: Path, job: Job) -> None:
    """Static int8 by onnxruntime: weights by channel, activations by tensor."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Pictures(CalibrationDataReader):
        """The comparison's own pictures, one at a time."""

        def __init__(self) -> None:
            self.rows = iter(job.pictures())

        def get_next(self) -> dict | None:
            row = next(self.rows, None)
            return None if row is None else {"image": row[None]}

    quantize_static(
        needed(folder, "ours.onnx"),
        folder / "ours_int8.onnx",
        Pictures(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
    )


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2])
