"""Measures a vision-language model on sets of questions, beside baselines that know less."""

from __future__ import annotations

from dl_techniques.evaluation.manner import Told, manner
from dl_techniques.evaluation.metrics import exact_match, normalise, wilson_interval
from dl_techniques.evaluation.records import (
    QuestionRecord,
    QuestionSet,
    find_sets,
    load_set,
    load_sets,
)
from dl_techniques.evaluation.runner import SetResult, evaluate_set

__all__ = [
    "QuestionRecord",
    "QuestionSet",
    "SetResult",
    "Told",
    "evaluate_set",
    "exact_match",
    "find_sets",
    "load_set",
    "load_sets",
    "manner",
    "normalise",
    "wilson_interval",
]
