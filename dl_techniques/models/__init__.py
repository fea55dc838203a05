"""Networks: vision models, and models that put vision and language together."""

from __future__ import annotations

from dl_techniques.backend import choose_backend

choose_backend()  # what lies in here imports Keras
