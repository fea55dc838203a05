"""A fast hybrid vision backbone and a vision-language model on Keras 3.

Nothing is imported until it is asked for (PEP 562): `import dl_techniques` costs
milliseconds, and the vision side never touches keras-hub.

Example:
    >>> import dl_techniques
    >>> "FastVLM" in dir(dl_techniques)
    True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dl_techniques.backend import choose_backend
from dl_techniques.errors import MissingExtraError, install_hint
from dl_techniques.registration import register_with_keras
from dl_techniques.version import __version__

if TYPE_CHECKING:
    from dl_techniques.models.vision.efficientnet_lite.model import (
        EfficientNetLite as EfficientNetLite,
    )
    from dl_techniques.models.vision.fast_vlm.model import FastVLM as FastVLM
    from dl_techniques.models.vision.mobile_one.model import MobileOne as MobileOne
    from dl_techniques.models.vision.towers.model import Towers as Towers
    from dl_techniques.models.vlm.fast_vlm import FastVLMBackbone as FastVLMBackbone
    from dl_techniques.models.vlm.fast_vlm import FastVLMCausalLM as FastVLMCausalLM
    from dl_techniques.models.vlm.fast_vlm import (
        FastVLMCausalLMPreprocessor as FastVLMCausalLMPreprocessor,
    )
    from dl_techniques.models.vlm.fast_vlm import FastVLMImageConverter as FastVLMImageConverter
    from dl_techniques.models.vlm.fast_vlm import FastVLMTokenizer as FastVLMTokenizer
    from dl_techniques.models.vlm.fast_vlm import RowSettings as RowSettings
    from dl_techniques.models.vlm.fast_vlm.chat import Chat as Chat
    from dl_techniques.runtime.memory import keep_freed_memory as keep_freed_memory
    from dl_techniques.runtime.programs import keep_compiled_programs as keep_compiled_programs

_VLM = "dl_techniques.models.vlm.fast_vlm"
_EXPORTS = {
    "FastVLM": "dl_techniques.models.vision.fast_vlm.model",
    "MobileOne": "dl_techniques.models.vision.mobile_one.model",
    "EfficientNetLite": "dl_techniques.models.vision.efficientnet_lite.model",
    "Towers": "dl_techniques.models.vision.towers.model",
    "FastVLMBackbone": _VLM,
    "FastVLMCausalLM": _VLM,
    "FastVLMCausalLMPreprocessor": _VLM,
    "FastVLMImageConverter": _VLM,
    "FastVLMTokenizer": _VLM,
    "Chat": f"{_VLM}.chat",
    "RowSettings": _VLM,
    "keep_compiled_programs": "dl_techniques.runtime.programs",
    "keep_freed_memory": "dl_techniques.runtime.memory",
}
_EXTRA_OF_MODULE = {"keras_hub": "vlm", "tokenizers": "vlm"}

__all__ = ["__version__", *_EXPORTS]  # noqa: PLE0604 - the names of the table above


def __getattr__(name: str) -> Any:
    """Imports an exported name when it is first used, and chooses Keras' backend before it.

    Raises:
        AttributeError: the package has no such name.
        MissingExtraError: the name needs an extra, or a backend, that is not installed.
    """
    if name not in _EXPORTS:
        raise AttributeError(f"module 'dl_techniques' has no attribute {name!r}")
    choose_backend()
    try:
        # A saved vision-language model names the class of its encoder, so that must be known too.
        importlib.import_module(_EXPORTS["FastVLM"])
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in _EXTRA_OF_MODULE:
            raise
        extra = _EXTRA_OF_MODULE[missing]
        raise MissingExtraError(
            f"dl_techniques.{name} needs {missing}, which is not installed: {install_hint(extra)}",
            name=missing,
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The names that exist, imported or not."""
    return sorted({*globals(), *_EXPORTS})


register_with_keras()
