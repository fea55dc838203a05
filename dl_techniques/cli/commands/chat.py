"""`fastvlm chat [IMAGE]`: several questions about a picture, one after the other."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dl_techniques.cli import session
from dl_techniques.cli.answering import BAD_INPUT
from dl_techniques.cli.notes import complain, note
from dl_techniques.cli.options import (
    add_model_options,
    add_sampling_options,
    add_writing_options,
    question,
    sampling_of,
    writing_of,
)
from dl_techniques.errors import DLTechniquesError, PromptError

if TYPE_CHECKING:
    import keras

HELP = (
    "a question, or /image FILE for another picture, /clear to start again, /help for this line, "
    "/quit to leave"
)


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "chat", help="talk about a picture", description=f"Talk about a picture: {HELP}."
    )
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="a picture file")
    add_model_options(parser)
    add_sampling_options(parser)
    add_writing_options(parser)
    parser.set_defaults(run=run)


class Conversation:
    """The state of one `fastvlm chat`: the chat object and the picture that waits for its turn.

    Args:
        model: a `FastVLMCausalLM`.
        options: max_pixels, max_new_tokens, json and what the answer is to obey.
    """

    def __init__(self, model: keras.Model, options: argparse.Namespace) -> None:
        import keras

        from dl_techniques import Chat

        self.options = options
        self.chat = Chat(
            model,
            max_new_tokens=options.max_new_tokens,
            return_certainty=options.json,
            **writing_of(options),
        )
        self.waiting: list[Any] = []
        self.tally = session.Tally("answer", str(keras.backend.backend()))

    def clear(self) -> None:
        """Forgets every turn and the picture."""
        self.chat.reset()
        self.waiting = []

    def show_picture(self, path: str) -> None:
        """Puts a picture in front of the next question.

        Raises:
            ImageError: it cannot be read.
            DLTechniquesError: no file is named.
        """
        if path in ("", session.STDIN):
            raise DLTechniquesError("name a picture file: /image FILE")
        self.waiting += session.read_pictures([path], self.options.max_pixels)

    def ask(self, line: str) -> None:
        """Answers one question and prints the answer."""
        asked, forgotten = session.as_taught(line, self.options.preset), self.chat.forgotten
        stream = self.chat.ask(asked, images=self.waiting or None)
        if self.chat.forgotten > forgotten:
            note(
                f"the chat no longer fits the model's {self.chat.model.context_length} tokens: its "
                f"{self.chat.forgotten - forgotten} oldest turns left"
            )
        timing = session.show(stream, visible=not self.options.json)
        self.waiting = []
        self.tally.add(timing)
        if self.options.json:
            turn = {
                "question": line,
                "text": stream.text,
                "certainty": stream.certainty,
                "forgotten_turns": self.chat.forgotten,
                "tokens": timing.tokens,
                "first_token_seconds": timing.first_token_seconds,
                "tokens_per_second": timing.tokens_per_second,
            }
            print(json.dumps(turn, ensure_ascii=False), flush=True)

    def obey(self, line: str) -> bool:
        """Carries out one line; False when it asks to leave."""
        command, _, argument = line.partition(" ")
        if command == "/quit":
            return False
        if command == "/help":
            print(HELP, file=sys.stderr)
        elif command == "/clear":
            self.clear()
        elif command == "/image":
            self.show_picture(argument.strip())
        elif command.startswith("/"):
            raise DLTechniquesError(f"unknown command {command}; type {HELP}")
        else:
            self.ask(line)
        return True


def read_lines(interactive: bool) -> Iterator[str]:
    """The non-empty lines of stdin, with a prompt on stderr for a person.

    A byte that is not UTF-8 becomes a lone surrogate, whatever the terminal is set to.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape")
    while True:
        if interactive:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def check_text(line: str) -> str:
    """A line that can be tokenized.

    Raises:
        PromptError: it is not UTF-8.
    """
    try:
        return question(line)
    except argparse.ArgumentTypeError as error:
        raise PromptError(f"a line of stdin is {error}") from error


def run(options: argparse.Namespace) -> int:
    """Holds the conversation; a line that cannot be carried out is named, and the next one read.

    Returns:
        The exit code: 0, or 2 if a script's line could not be carried out.

    Raises:
        DLTechniquesError: the first picture was to come from stdin, as the questions do.
    """
    if options.image == session.STDIN:
        raise DLTechniquesError("chat reads questions from stdin; name the picture's file")
    pictures = session.read_pictures([options.image] if options.image else [], options.max_pixels)
    model = session.load_model(options.preset)
    session.set_sampling(model, sampling_of(options))
    conversation = Conversation(model, options)
    conversation.waiting = list(pictures)
    interactive, failed = sys.stdin.isatty(), False
    if interactive:
        note(HELP)
    for line in read_lines(interactive):
        try:
            if not conversation.obey(check_text(line) if line[0] != "/" else line):
                break
        except DLTechniquesError as error:
            complain(error)
            failed = True
    if not options.json:
        conversation.tally.report()
    return BAD_INPUT if failed and not interactive else 0
