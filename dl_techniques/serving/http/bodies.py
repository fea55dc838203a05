"""What a client sends to /v1/chat/completions, and what it means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dl_techniques.errors import SamplingError
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import RowSettings
from dl_techniques.serving.http.refusals import Refusal

DEFAULT_QUESTION = "describe the picture."
MOST_ANSWERS = 8
MOST_PICTURES = 16
NO_EFFECT = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "parallel_tool_calls",
    }
)
"""Fields that change no answer. Whatever else is not known is refused: it might."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logit_bias": ({},),
    "modalities": (["text"],),
}
"""Fields that are not supported, and the values that ask for nothing."""


class StreamOptions(BaseModel):
    """What a stream says beside the answer."""

    model_config = ConfigDict(extra="ignore")
    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """A conversation whose next message is wanted."""

    model_config = ConfigDict(extra="allow")
    model: str | None = Field(None, description="may be left out: one model is served")
    messages: list[dict[str, Any]] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    min_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stop: str | list[str] | None = None
    n: int | None = Field(None, ge=1, le=MOST_ANSWERS)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    presence_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    repetition_penalty: float | None = Field(None, gt=0, allow_inf_nan=False)
    no_repeat_ngram_size: int | None = Field(None, ge=0)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def longest(self) -> int | None:
        """Most tokens of an answer, if the client says so."""
        first = self.max_completion_tokens
        return self.max_tokens if first is None else first


@dataclass(frozen=True)
class Conversation:
    """A request in the form of the preprocessor.

    Attributes:
        messages: role and parts (`prompt.content`); the parts of pictures have no source.
        urls: of the pictures, each with its place in the body.
    """

    messages: list[dict[str, Any]]
    urls: list[tuple[str, str]]


def refuse_unsupported(request: ChatRequest) -> None:
    """Refuses fields that would change the answer and cannot.

    Raises:
        Refusal: names the field.
    """
    for name, value in (request.model_extra or {}).items():
        if value is None or name in NO_EFFECT or value in NEUTRAL.get(name, ()):
            continue
        known = "is not supported" if name in NEUTRAL else "is not known"
        raise Refusal(
            400, "unsupported_parameter", f"{name!r:.100} {known} here; leave it out", name[:100]
        )


def settings_of_request(request: ChatRequest, most: int | None = None) -> list[RowSettings]:
    """How each of the `n` answers is to be written.

    A top_p, top_k or seed without a temperature means temperature 1, as in the command: a limit
    on a draw that is never made would be a field without an effect.

    Raises:
        Refusal: a value means nothing; names the field.
    """
    drawn = any(x is not None for x in (request.top_p, request.top_k, request.seed))
    default = 1.0 if drawn else 0.0
    if request.top_logprobs is not None and not request.logprobs:
        raise Refusal(400, "invalid_value", "top_logprobs needs logprobs: true", "top_logprobs")
    if isinstance(request.stop, list) and len(request.stop) > 4:
        raise Refusal(
            400, "invalid_value", f"stop: at most 4 texts, got {len(request.stop)}", "stop"
        )
    given = {
        "temperature": default if request.temperature is None else request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "repetition_penalty": _or(request.repetition_penalty, 1.0),
        "no_repeat_ngram_size": _or(request.no_repeat_ngram_size, 0),
        "presence_penalty": _or(request.presence_penalty, 0.0),
        "frequency_penalty": _or(request.frequency_penalty, 0.0),
        "min_new_tokens": _or(request.min_tokens, 0),
        "max_new_tokens": request.longest,
        "stop": _or(request.stop, ()),
        "logprobs": (request.top_logprobs or 0) if request.logprobs else None,
    }
    seeds = [None if request.seed is None else request.seed + i for i in range(request.n or 1)]
    try:
        return [RowSettings(**given, seed=seed) for seed in seeds]
    except (SamplingError, ValueError) as error:
        name = next((name for name in given if str(error).startswith(name)), "stop")
        raise Refusal(400, "invalid_value", str(error), name) from error


def conversation_of(messages: Sequence[Any]) -> Conversation:
    """Turns messages into an optional system message, then user and assistant in turns.

    Pictures stand where they stood. A picture without a text gets the default question.

    Raises:
        Refusal: a role or a content that means nothing here; names its place.
    """
    urls: list[tuple[str, str]] = []
    system: list[dict[str, str]] = []
    turns: list[dict[str, Any]] = []
    for i, message in enumerate(messages):
        role = _role(message, f"messages[{i}]")
        parts = list(_parts(message.get("content"), role, f"messages[{i}].content", urls))
        if role == "system":
            system += [*_newline(system), *parts]
        elif turns and turns[-1]["role"] == role:
            turns[-1]["content"] += [*_newline(turns[-1]["content"]), *parts]
        else:
            turns.append({"role": role, "content": parts})
    if len(urls) > MOST_PICTURES:
        message = f"at most {MOST_PICTURES} pictures a request, got {len(urls)}"
        raise Refusal(400, "too_many_images", message, "messages")
    for turn in turns:
        if _shows(turn["content"]) and not _says(turn["content"]):
            turn["content"].append(_text(DEFAULT_QUESTION))
    _refuse_empty(turns)
    lead = [{"role": "system", "content": system}] if _says(system) else []
    return Conversation([*lead, *turns], urls)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _role(message: dict[str, Any], place: str) -> Literal["system", "user", "assistant"]:
    role = message.get("role")
    if role in ("system", "developer"):
        return "system"
    if role == "assistant" and message.get("tool_calls"):
        raise Refusal(
            400, "unsupported_parameter", "tools are not supported", f"{place}.tool_calls"
        )
    if role in ("user", "assistant"):
        return role
    expected = "system, developer, user or assistant"
    raise Refusal(
        400, "invalid_value", f"{place}.role is {role!r:.100}; use {expected}", f"{place}.role"
    )


def _parts(
    content: Any, role: str, place: str, urls: list[tuple[str, str]]
) -> Iterator[dict[str, str]]:
    """The parts of a content; the addresses of its pictures are added to `urls`."""
    if isinstance(content, str):
        yield _text(content)
        return
    if not isinstance(content, list):
        what = f"{place} must be a text or a list of parts, got {content!r:.100}"
        raise Refusal(400, "invalid_value", what, place)
    for i, part in enumerate(content):
        where = f"{place}[{i}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            yield _text(part["text"])
        elif kind == "image_url" and role == "user":
            urls.append((_address(part.get("image_url"), where), f"{where}.image_url"))
            yield {"type": "image"}
        else:
            what = f"{where} must be a text, or in a user's message an image_url"
            raise Refusal(400, "invalid_value", f"{what}; got {part!r:.100}", where)


def _text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def _newline(parts: Sequence[Any]) -> list[dict[str, str]]:
    """What stands between two messages of one role."""
    return [_text("\n")] if parts else []


def _shows(parts: Sequence[dict[str, str]]) -> bool:
    return any(part["type"] == "image" for part in parts)


def _says(parts: Sequence[dict[str, str]]) -> bool:
    return any(part.get("text", "").strip() for part in parts)


def _address(given: Any, place: str) -> str:
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str) or not url:
        message = f"{place}.image_url.url must be a data: URI or an address"
        raise Refusal(400, "invalid_value", message, f"{place}.image_url")
    return url


def _refuse_empty(turns: Sequence[dict[str, Any]]) -> None:
    if not turns or turns[0]["role"] != "user" or turns[-1]["role"] != "user":
        roles = [turn["role"] for turn in turns]
        message = f"a conversation begins and ends with a user's message, got roles {roles}"
        raise Refusal(400, "invalid_value", message, "messages")
    if not all(_says(turn["content"]) for turn in turns):
        raise Refusal(400, "invalid_value", "a message has no text; write some", "messages")
