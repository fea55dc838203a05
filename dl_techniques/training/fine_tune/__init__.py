"""`fastvlm train`: a vision-language model learns from the user's own pictures and answers."""

from dl_techniques.training.fine_tune.fine_tune_settings import FineTune, from_file, from_values
from dl_techniques.training.fine_tune.fine_tuning import fine_tune, look_ahead

__all__ = ["FineTune", "fine_tune", "from_file", "from_values", "look_ahead"]
