"""FastVLM, the vision-language model: what a user needs, in KerasHub's terms.

Example:
    >>> from dl_techniques.models.vlm.fast_vlm import FastVLMCausalLM
    >>> model = FastVLMCausalLM.from_preset("demo")  # doctest: +SKIP
    >>> model.generate({"prompts": "What is this?", "images": "cat.jpg"})  # doctest: +SKIP
"""

# Presets name the vision network's classes: importing it registers them.
import dl_techniques.models.vision.fast_vlm  # noqa: F401
from dl_techniques.models.vlm.fast_vlm.answer.answers import Answer
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import RowSettings
from dl_techniques.models.vlm.fast_vlm.causal_lm import FastVLMCausalLM
from dl_techniques.models.vlm.fast_vlm.chat import Chat
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone
from dl_techniques.models.vlm.fast_vlm.prompt.image_converter import FastVLMImageConverter
from dl_techniques.models.vlm.fast_vlm.prompt.json_tokenizer import FastVLMJsonTokenizer
from dl_techniques.models.vlm.fast_vlm.prompt.preprocessor import FastVLMCausalLMPreprocessor
from dl_techniques.models.vlm.fast_vlm.prompt.tokenizer import FastVLMTokenizer

__all__ = [
    "Answer",
    "Chat",
    "FastVLMBackbone",
    "FastVLMCausalLM",
    "FastVLMCausalLMPreprocessor",
    "FastVLMImageConverter",
    "FastVLMJsonTokenizer",
    "FastVLMTokenizer",
    "RowSettings",
]
