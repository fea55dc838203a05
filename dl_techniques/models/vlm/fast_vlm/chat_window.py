"""What leaves a conversation that no longer fits: its oldest turns, but not the picture in view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import (
    IMAGE,
    Message,
    Segment,
    count_pictures,
    segments_of,
)


@dataclass(frozen=True)
class Window:
    """The part of a conversation that stays.

    Attributes:
        messages: the turns that stay, and the new question behind them.
        pictures: which of the conversation's pictures stay, by their places.
        ids: its tokens.
        turns: how many turns left.
    """

    messages: list[Message]
    pictures: list[int]
    ids: list[int]
    turns: int = 0


def fitting(
    messages: Sequence[Message],
    num_pictures: int,
    tokens_of: Callable[[Sequence[Message], int], list[int]],
    context: int | None,
    wanted: int,
) -> Window:
    """As much of a conversation as fits.

    Where all of it fits, all of it stays. Else the oldest turns leave until half of the context is
    free: what stays is read anew, and that should not happen with every question.

    Args:
        messages: turns of a question and an answer, and a question.
        num_pictures: of all of them.
        tokens_of: messages and their number of pictures -> tokens.
        context: most tokens of a conversation and its next answer; None for no limit.
        wanted: tokens of the next answer.
    """
    kept, pictures = list(messages), list(range(num_pictures))
    ids = tokens_of(kept, len(pictures))
    if context is None or len(ids) + wanted <= context:
        return Window(kept, pictures, ids)
    turns = 0
    while len(kept) > 1 and (len(ids) > context // 2 or len(ids) + wanted > context):
        kept, pictures = without_oldest_turn(kept, pictures)
        ids = tokens_of(kept, len(pictures))
        turns += 1
    return Window(kept, pictures, ids, turns)


def without_oldest_turn(
    messages: Sequence[Message], pictures: Sequence[int]
) -> tuple[list[Message], list[int]]:
    """A conversation without its first question and answer.

    Their pictures leave with them; if no other is left, the last of them stays, in front of the
    first question that stays.

    Example:
        >>> first = {"role": "user", "content": "<image>\\nWhat?"}
        >>> talk = [first, {"role": "assistant", "content": "A cat."}]
        >>> kept, pictures = without_oldest_turn([*talk, {"role": "user", "content": "Why?"}], [0])
        >>> "".join(piece.text for piece in kept[0]["content"]), pictures
        ('<image>\\nWhy?', [0])
    """
    gone = count_pictures(messages[:1])
    kept, left = list(messages[2:]), list(pictures[gone:])
    if gone and not left:
        front = [Segment(IMAGE, "image"), Segment("\n")]
        kept[0] = {**kept[0], "content": [*front, *segments_of(kept[0]["content"])]}
        left = [pictures[gone - 1]]
    return kept, left
