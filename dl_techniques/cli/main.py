"""Entry point of `fastvlm`: the parser, and what happens to errors.

Exit codes: 0 done, 2 bad input (one line on stderr), 130 interrupted. Anything else that goes
wrong is a bug and keeps its traceback.

Example:
    $ fastvlm ask examples/scene.png "How many cats are there?"
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from dl_techniques.cli.backend import set_up_backend
from dl_techniques.cli.commands import (
    ask,
    benchmark,
    chat,
    convert,
    describe,
    evaluate,
    export,
    optimize,
    presets,
    serve,
    train,
)
from dl_techniques.cli.notes import complain, printable, set_quiet
from dl_techniques.errors import DLTechniquesError
from dl_techniques.version import __version__

BAD_INPUT = 2
INTERRUPTED = 130
COMMANDS = (
    describe, ask, chat, presets, convert, evaluate, benchmark, train, export, optimize, serve,
)  # fmt: skip


class Parser(argparse.ArgumentParser):
    """argparse, with errors like all others of this command: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Prints what is wrong with the arguments and leaves."""
        message = printable(" ".join(message.split()))
        self.exit(BAD_INPUT, f"error: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser with all its commands."""
    parser = Parser(prog="fastvlm", description="Look at pictures and answer questions about them.")
    parser.add_argument("--version", action="version", version=f"fastvlm {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of any error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for module in COMMANDS:
        module.add_parser(commands)
    for command in commands.choices.values():
        command.add_argument("--quiet", action="store_true", help="nothing on stderr but errors")
    return parser


def fail(message: str) -> int:
    """Prints one line on stderr and returns the exit code of bad input."""
    complain(message)
    return BAD_INPUT


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments; those of the process if None.

    Returns:
        The exit code.
    """
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.command is None:
        parser.print_help()
        return 0
    set_quiet(options.quiet)
    try:
        set_up_backend(plots=getattr(options, "plot", None) is not None)
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except DLTechniquesError as error:
        if options.debug:
            raise
        return fail(str(error))
    except KeyboardInterrupt:
        if options.debug:
            raise
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader went away (`fastvlm ... | head`): leave quietly, without the interpreter's
        # own complaint when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13


if __name__ == "__main__":
    sys.exit(main())
