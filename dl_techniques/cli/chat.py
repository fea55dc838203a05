"""`fastvlm chat [IMAGE]`: several questions about a picture, one after the other."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from dl_techniques.cli import session
from dl_techniques.cli.options import add_model_options, add_sampling_options, sampling_of
from dl_techniques.errors import DLTechniquesError

HELP = "a question, or /image FILE for another picture, /clear to start again, /quit to leave"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "chat", help="talk about a picture", description=f"Talk about a picture: {HELP}."
    )
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="a picture file")
    add_model_options(parser)
    add_sampling_options(parser)
    parser.set_defaults(run=run)


class Conversation:
    """The state of one `fastvlm chat`: the chat object and the picture that waits for its turn.

    Args:
        model: a `FastVLMCausalLM`.
        options: max_pixels, max_new_tokens and json.
    """

    def __init__(self, model: Any, options: argparse.Namespace) -> None:
        from dl_techniques import Chat

        self.options = options
        self.chat = Chat(model, max_new_tokens=options.max_new_tokens)
        self.waiting: list[Any] = []

    def clear(self) -> None:
        """Forgets every turn and the picture."""
        self.chat.reset()
        self.waiting = []

    def show_picture(self, path: str) -> None:
        """Puts a picture in front of the next question."""
        self.waiting += session.read_pictures([path], self.options.max_pixels)

    def ask(self, question: str) -> None:
        """Answers one question and prints the answer and its times."""
        stream = self.chat.ask(question, images=self.waiting or None)
        timing = session.show(stream, visible=not self.options.json)
        self.waiting = []
        if self.options.json:
            turn = {
                "question": question,
                "text": stream.text,
                "tokens": timing.tokens,
                "first_token_seconds": timing.first_token_seconds,
                "tokens_per_second": timing.tokens_per_second,
            }
            print(json.dumps(turn, ensure_ascii=False), flush=True)
        else:
            session.report_timing(timing)

    def obey(self, line: str) -> bool:
        """Carries out one line; False when it asks to leave."""
        command, _, argument = line.partition(" ")
        if command == "/quit":
            return False
        if command == "/clear":
            self.clear()
        elif command == "/image":
            self.show_picture(argument.strip())
        elif command.startswith("/"):
            raise DLTechniquesError(f"unknown command {command}; type {HELP}")
        else:
            self.ask(line)
        return True


def read_lines(interactive: bool) -> Iterator[str]:
    """The non-empty lines of stdin, with a prompt on stderr for a person."""
    while True:
        if interactive:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def run(options: argparse.Namespace) -> int:
    """Holds the conversation; a person's mistakes are reported, a script's end it."""
    pictures = session.read_pictures([options.image] if options.image else [], options.max_pixels)
    model = session.load_model(options.preset)
    session.set_sampling(model, sampling_of(options))
    conversation = Conversation(model, options)
    conversation.waiting = list(pictures)
    interactive = sys.stdin.isatty()
    if interactive:
        print(HELP, file=sys.stderr)
    for line in read_lines(interactive):
        try:
            if not conversation.obey(line):
                break
        except DLTechniquesError as error:
            if not interactive:
                raise
            print(f"error: {error}", file=sys.stderr)
    return 0
