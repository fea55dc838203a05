"""What is seen of a training between its steps: figures, answers, the best weights so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques.data.conversations import Conversation
from dl_techniques.data.records.record_forms import IMAGE_MARK
from dl_techniques.evaluation.metrics import exact_match
from dl_techniques.training.callbacks import Logs, StatefulCallback
from dl_techniques.training.fine_tune.conversation_batches import CountedBatches
from dl_techniques.training.state import MetricsLog, Position, write_state

ANSWERS, BEST = "answers.jsonl", "best"
BATCH = 16


@dataclass(frozen=True)
class Question:
    """One question with its pictures and the right answer.

    Attributes:
        text: of the question.
        pictures: paths or data URIs.
        answer: the right one; None where it is only looked at.
    """

    text: str
    pictures: tuple[str, ...]
    answer: str | None = None


def questions_of(records: Sequence[Conversation], limit: int) -> list[Question]:
    """The first question of each of the first records."""
    made = []
    for record in records[:limit]:
        turns = [turn for turn in record["messages"] if turn["role"] != "system"]
        text = turns[0]["content"].replace(IMAGE_MARK, "").strip()
        made.append(Question(text, tuple(record["images"]), turns[1]["content"]))
    return made


def answers_of(model: Any, questions: Sequence[Question], max_new_tokens: int) -> list[str]:
    """A model's answers, `BATCH` at a time."""
    answers: list[str] = []
    for start in range(0, len(questions), BATCH):
        few = questions[start : start + BATCH]
        inputs = {"prompts": [q.text for q in few], "images": [list(q.pictures) for q in few]}
        answers += list(model.generate(inputs, max_new_tokens=max_new_tokens))
    return answers


class Watch(StatefulCallback):
    """Measures after each segment, tells a line, and keeps the best weights.

    Args:
        batches: of the training.
        steps: of it; None where the clock ends it.
        minutes: of it; None where the steps end it.
        folder: of the training.
        validation: questions with answers; none are asked where there are none.
        looked_at: questions whose answers go to `answers.jsonl`.
        max_new_tokens: of an answer.
        patience: segments without a better validation that end the training.
        say: called with each line.
    """

    def __init__(
        self,
        batches: CountedBatches,
        steps: int | None,
        minutes: float | None,
        folder: Path,
        validation: Sequence[Question] = (),
        looked_at: Sequence[Question] = (),
        max_new_tokens: int = 32,
        patience: int | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        super().__init__()
        self.batches, self.steps, self.minutes, self.folder = batches, steps, minutes, folder
        self.validation, self.looked_at = list(validation), list(looked_at)
        self.max_new_tokens, self.patience, self.say = max_new_tokens, patience, say
        self.log = MetricsLog(folder / ANSWERS)
        self._step = self._begun_at = 0
        self._state: keras.Variable | None = None
        self._first = self._start = monotonic()

    def build(self, model: keras.Model) -> None:
        """Creates the variable of step, best rate and validations since then."""
        self._state = keras.Variable([0.0, -1.0, 0.0], trainable=False, name="watch")

    @property
    def variables(self) -> Sequence[keras.Variable]:
        """float32[3]."""
        return [] if self._state is None else [self._state]

    @property
    def values(self) -> np.ndarray:
        """Step, best rate of right answers (-1 for none yet), validations since then."""
        assert self._state is not None
        return np.asarray(ops.convert_to_numpy(self._state.value)).copy()

    def on_train_begin(self, logs: Logs = None) -> None:
        """Goes on from what was restored; later answers are cut."""
        self._step = self._begun_at = int(self.values[0])
        self.log.cut(self._step)
        self._first = monotonic()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """The clock of the segment starts."""
        self._start, self._from = monotonic(), self._step

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """One step more."""
        self._step += 1

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Measures; what it finds goes to the line of the segment."""
        found = logs if isinstance(logs, dict) else {}
        seconds = max(monotonic() - self._start, 1e-9)
        tokens = self.batches.take_count(range(self._from, self._step))
        found["tokens"], found["tokens_per_second"] = tokens, round(tokens / seconds, 1)
        state = self.values
        state[0] = self._step
        model: Any = self.model
        if self.validation:
            answers = answers_of(model, self.validation, self.max_new_tokens)
            right = exact_match(answers, [str(q.answer) for q in self.validation])
            found["exact_match"] = right / len(self.validation)
            rate = np.float32(found["exact_match"])
            if rate >= state[1]:  # of equal ones the last, which has learned more
                state[1:] = rate, (0 if rate > state[1] else state[2] + 1)
                place = Position(self._step, settings={"exact_match": found["exact_match"]})
                write_state(self.folder / BEST, model.trainable_variables, place)
            else:
                state[2] += 1
            if self.patience is not None and state[2] >= self.patience:
                self.model.stop_training = True
        if self.looked_at:
            told = answers_of(model, self.looked_at, self.max_new_tokens)
            pairs = [
                {"question": q.text, "answer": a} for q, a in zip(self.looked_at, told, strict=True)
            ]
            self.log.append({"step": self._step, "answers": pairs})
        assert self._state is not None
        self._state.assign(state)
        self.say(self._line(found))

    def _line(self, found: dict[str, Any]) -> str:
        of = "" if self.steps is None else f"/{self.steps}"
        parts = [f"step {self._step}{of}", f"loss {found.get('loss', float('nan')):.3f} a token"]
        parts += [f"{found['tokens_per_second']:.0f} tokens/s", f"{self._left():.1f} minutes left"]
        parts.append(f"{100 * found.get('waiting', 0.0):.0f} % waiting for data")
        if "exact_match" in found:
            parts.append(f"{100 * found['exact_match']:.1f} % of validation right")
        return ", ".join(parts)

    def _left(self) -> float:
        """Minutes that are left, at the pace so far."""
        passed = (monotonic() - self._first) / 60
        if self.steps is None:
            return max(0.0, (self.minutes or 0.0) - passed)
        done = max(1, self._step - self._begun_at)
        return passed / done * max(0, self.steps - self._step)
