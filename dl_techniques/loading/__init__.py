"""From what the user named to a model, in one call, for everybody above.

find(source)               what it is: kind, path, class, bytes; nothing is loaded
load(source)               the model
load_for_answers(source)   a vision-language model, fused and with its sampler set
"""

from __future__ import annotations

from dl_techniques.loading.for_answers import Sampling, load_for_answers, set_sampling
from dl_techniques.loading.source import Source, find, load

__all__ = ["Sampling", "Source", "find", "load", "load_for_answers", "set_sampling"]
