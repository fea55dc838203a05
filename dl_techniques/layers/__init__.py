"""Building blocks: one block a file, written in `keras.ops`, knowing nothing of the models."""

from __future__ import annotations

from dl_techniques.backend import choose_backend

choose_backend()  # what lies in here imports Keras
