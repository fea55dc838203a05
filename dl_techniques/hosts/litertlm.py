"""A bundle in the LiteRT-LM engine: pictures as the model was trained on them, several turns.

The engine (0.18.1) resizes pictures by stretching them, and turns them by no EXIF mark. So they are
padded, resized and packed as PNG of exactly the encoder's size here.

It also has a defect in conversations: the last token of an answer enters the next turn with an
embedding of zeros, so answers after the first are not the model's. `EngineChat` opens a new
conversation for every turn and gives it all that was said (`messages=`): the engine then reads it
as text, with the true embeddings. The price is that the conversation is read anew at every turn,
its pictures included.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dl_techniques.data.geometry import crop_and_resize, pad_and_resize
from dl_techniques.data.images import load_image
from dl_techniques.errors import ExportError, MissingExtraError, PromptError, install_hint
from dl_techniques.hosts.litertlm_bundle import PICTURE_MARK, HostRule, read_bundle

IMAGE = "<image>"
Message = dict[str, Any]


class EngineChat:
    """A conversation with a `.litertlm` bundle about pictures, on the CPU.

    Args:
        path: the bundle, made by this package.
        system_prompt: instead of the bundle's own.
        max_new_tokens: longest answer; None for what the context leaves.
        threads: of the language model; None for the engine's choice.

    Attributes:
        messages: the conversation so far, as the engine takes it.

    Raises:
        ExportError: no bundle, or the engine refuses it.
        MissingExtraError: the engine is not installed.

    Example:
        >>> with EngineChat("model.litertlm") as chat:  # doctest: +SKIP
        ...     print(chat.ask("What is this?", images="cat.jpg"))
        ...     print(chat.ask("What colour is it?"))
    """

    def __init__(
        self,
        path: str | Path,
        system_prompt: str | None = None,
        max_new_tokens: int | None = None,
        threads: int | None = None,
    ) -> None:
        library = import_engine()
        bundle = read_bundle(path)
        self.rule: HostRule = bundle.host
        self.context_length = int(bundle.metadata.max_num_tokens)
        self._system, self._max_new_tokens = system_prompt, max_new_tokens
        self._greedy = library.SamplerConfig(top_k=1)
        library.set_min_log_severity(library.LogSeverity.ERROR)
        cpu = library.Backend.CPU
        try:
            self._engine = library.Engine(
                str(path), cpu(thread_count=threads), vision_backend=cpu(), cache_dir=":nocache"
            )
        except RuntimeError as error:
            raise ExportError(f"the LiteRT-LM engine refuses {path}: {error}") from error
        self.reset()

    def __enter__(self) -> EngineChat:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the engine."""
        self._engine.close()

    def reset(self) -> None:
        """Forgets the conversation."""
        self.messages: list[Message] = []
        if self._system:
            self.messages.append({"role": "system", "content": self._checked(self._system)})

    def ask(self, question: str, images: Any = None, max_new_tokens: int | None = None) -> str:
        """The greedy answer to the next question.

        Args:
            question: text. Pictures go in front of it, unless it has `<image>` marks.
            images: new pictures, one or a list, of any kind and size; earlier ones are remembered.
            max_new_tokens: longest answer; None for the chat's own.

        Raises:
            PromptError: an empty question, a wrong number of marks, a text that spells a control
                token, or a conversation that no longer fits. The conversation stays as it was.
            ImageError: a picture that cannot be read.
            ExportError: the engine failed.
        """
        message = self.message(question, images)
        with self._conversation() as conversation:
            left = self.context_length - len(self._ids(conversation, message))
            if left < 1:
                raise PromptError(
                    f"the conversation leaves no room for an answer in the context of "
                    f"{self.context_length} tokens; start a new one"
                )
            limit = min(left, max_new_tokens or self._max_new_tokens or left)
            try:
                reply = conversation.send_message(message, max_output_tokens=limit)
            except RuntimeError as error:
                raise ExportError(f"the LiteRT-LM engine failed: {error}") from error
        answer = str(reply.contents)
        self.messages += [message, {"role": "assistant", "content": answer}]
        return answer

    def message(self, question: str, images: Any = None) -> Message:
        """A message of the user as the engine takes it."""
        sources = list(images) if isinstance(images, (list, tuple)) else [images]
        pictures = [self._picture(source) for source in sources if source is not None]
        if not question.replace(IMAGE, "").strip():
            raise PromptError("the question is empty; write some text")
        marks = question.count(IMAGE)
        if marks and marks != len(pictures):
            raise PromptError(
                f"the question has {marks} {IMAGE} mark(s) but {len(pictures)} picture(s) came "
                "with it; give one picture per mark, or leave the marks out"
            )
        texts = [{"type": "text", "text": self._checked(t)} for t in question.split(IMAGE)]
        if not marks:
            return {"role": "user", "content": [*pictures, *texts]}
        content = [texts[0]]
        for picture, text in zip(pictures, texts[1:], strict=True):
            content += [picture, text]
        return {"role": "user", "content": content}

    def prompt_ids(self, question: str, images: Any = None) -> list[int]:
        """What the model would read if `ask` were called: ids, -1 for each row of a picture."""
        with self._conversation() as conversation:
            return self._ids(conversation, self.message(question, images))

    def _ids(self, conversation: Any, message: Message) -> list[int]:
        """As the engine does it: each text between the pictures is tokenized alone."""
        ids: list[int] = []
        rendered = conversation.render_message_to_string(message)
        for number, piece in enumerate(rendered.split(PICTURE_MARK)):
            ids += [-1] * (self.rule.image_tokens if number else 0)
            ids += self._engine.tokenize(piece) if piece else []
        return ids

    def _conversation(self) -> Any:
        """A new conversation that begins with what was said."""
        return self._engine.create_conversation(
            messages=self.messages or None,
            sampler_config=self._greedy,
            automatic_tool_calling=False,
        )

    def _picture(self, source: Any) -> dict[str, str]:
        """Any picture as a PNG of exactly the encoder's size."""
        rule, image = self.rule, load_image(source, self.rule.max_pixels)
        if rule.mode == "crop":
            pixels = crop_and_resize(image, rule.height, rule.interpolation)
        else:
            fill = (rule.fill[0], rule.fill[1], rule.fill[2])
            pixels = pad_and_resize(image, rule.height, fill, rule.interpolation)
        return {"type": "image", "blob": base64.b64encode(to_png(pixels)).decode("ascii")}

    def _checked(self, text: str) -> str:
        """A text without control tokens: the engine could not tell them from ours."""
        spelled = [token for token in (*self.rule.special, PICTURE_MARK) if token in text]
        if spelled:
            raise PromptError(
                f"the text spells {spelled[0]!r}, which the engine would take for a control token; "
                "leave it out"
            )
        return text


def to_png(pixels: np.ndarray) -> bytes:
    """uint8[H, W, 3] as the bytes of a PNG file."""
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def import_engine() -> Any:
    """The LiteRT-LM engine.

    Raises:
        MissingExtraError: not installed.
    """
    try:
        import litert_lm
    except ImportError as error:
        raise MissingExtraError(
            f"running a .litertlm bundle needs litert-lm: {install_hint('litertlm')}",
            name="litert_lm",
        ) from error
    return litert_lm
