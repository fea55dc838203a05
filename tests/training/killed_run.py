"""What the test of a real kill starts: `python -m tests.training.killed_run FOLDER [STEPS]`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import keras

from tests.training.test_stage import compiled, stage


class Suicide(keras.callbacks.Callback):
    """Kills the process after so many steps; nothing can be tidied up."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    keras.utils.set_random_seed(5)
    callbacks = [Suicide(int(number)) for number in sys.argv[2:]]
    stage(compiled(), *callbacks).run(Path(sys.argv[1]))
