"""Exported files in their runtimes: onnxruntime, OpenVINO, LiteRT."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from tools.compare_peers.job import Job
from tools.compare_peers.peers.engine_files import needed


class FileRunner:
    """A file that computes float[B, S, S, 3] (ours) or float[B, 3, S, S] (timm's)."""

    def __init__(self, folder: Path, file: str, **options: Any) -> None:
        self.job = Job.read(folder)
        if self.job.device != "cpu":
            raise RuntimeError(f"exported files are run on the CPU alone, not on {self.job.device}")
        self.channels_first = file.startswith("timm")
        pictures = self.job.pictures()
        if self.channels_first:
            pictures = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
        self.pictures = pictures
        self.threads = self.job.threads or len(os.sched_getaffinity(0))
        self.open(str(needed(folder, file)), **options)

    def open(self, path: str, **options: Any) -> None:
        """Loads the file."""
        raise NotImplementedError(type(self).__name__)

    def run(self) -> Any:
        """Computes the one output."""
        raise NotImplementedError(type(self).__name__)

    def times(self) -> dict[str, float]:
        """Seconds of one run."""
        start = time.perf_counter()
        self.run()
        return {"forward": time.perf_counter() - start}

    def output(self) -> np.ndarray:
        """float32[B, h, w, C]."""
        values = np.asarray(self.run()).astype("float32")
        return np.ascontiguousarray(values.transpose(0, 2, 3, 1)) if self.channels_first else values


class OnnxRunner(FileRunner):
    """onnxruntime on the CPU."""

    def open(self, path: str, **options: Any) -> None:
        """Starts a session."""
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = self.threads
        self.session = onnxruntime.InferenceSession(
            path, settings, providers=["CPUExecutionProvider"]
        )
        self.name = self.session.get_inputs()[0].name

    def run(self) -> Any:
        """Runs the session."""
        return self.session.run(None, {self.name: self.pictures})[0]


class OpenVinoRunner(FileRunner):
    """OpenVINO on the CPU, for shortest latency."""

    def open(self, path: str, precision: str = "f32", **options: Any) -> None:
        """Compiles the file; `precision` is OpenVINO's word for its arithmetic."""
        import openvino

        self.request = openvino.compile_model(
            path,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": precision,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": self.threads,
            },
        ).create_infer_request()

    def run(self) -> Any:
        """Runs the compiled model."""
        return self.request.infer([self.pictures], share_inputs=True)[0]


class LiteRunner(FileRunner):
    """LiteRT with XNNPACK."""

    def open(self, path: str, **options: Any) -> None:
        """Allocates the interpreter."""
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(model_path=path, num_threads=self.threads)
        (self.input,) = self.interpreter.get_input_details()
        if tuple(self.input["shape"]) != self.pictures.shape:
            self.interpreter.resize_tensor_input(self.input["index"], self.pictures.shape)
        self.interpreter.allocate_tensors()
        (self.result,) = self.interpreter.get_output_details()

    def run(self) -> Any:
        """Copies the pictures in, invokes, copies the features out."""
        self.interpreter.set_tensor(self.input["index"], self.pictures)
        self.interpreter.invoke()
        return self.interpreter.get_tensor(self.result["index"])
