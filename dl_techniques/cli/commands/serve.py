"""`fastvlm serve`: the model loaded once, behind a port, in OpenAI's form."""

from __future__ import annotations

import argparse
import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dl_techniques.cli import session
from dl_techniques.cli.options import add_preset_option, positive_int, positive_number, whole_number
from dl_techniques.errors import MissingExtraError, ServingError, install_hint

TOKEN = "FASTVLM_TOKEN"
HOST, PORT = "127.0.0.1", 5000
LOG_FOLDER = "~/ml-fastvlm-logs"
NEEDED = ("fastapi", "uvicorn", "prometheus_client", "websockets")


def port(text: str) -> int:
    """A port, for argparse; 0 is any free one."""
    return whole_number(text, 0, 65535)


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "serve",
        help="answer over HTTP, as OpenAI's service does",
        description="Load a model once and answer at /v1/chat/completions; requests that come "
        "together are answered together. See docs/serve.md.",
    )
    add_preset_option(parser)
    parser.add_argument("--host", default=HOST, help=f"address to listen on (default: {HOST})")
    parser.add_argument("--port", type=port, default=PORT, help=f"(default: {PORT})")
    parser.add_argument("--name", help="of the model, for clients (default: that of the preset)")
    _add_engine_options(parser)
    _add_guard_options(parser)
    _add_log_options(parser)
    parser.set_defaults(run=run)


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how much at once")
    for name, value, what in (
        ("--rows", 8, "answers that are written side by side"),
        ("--waiting", 64, "requests that may wait for them"),
        ("--piece", 64, "tokens of a prompt that are read between two steps of the others"),
    ):
        group.add_argument(
            name, type=positive_int, default=value, metavar="N", help=f"{what} (default: {value})"
        )
    group.add_argument(
        "--context",
        type=positive_int,
        metavar="N",
        help="most tokens of a prompt and its answer (default: the model's, up to 4096)",
    )
    group.add_argument(
        "--max-seconds",
        type=positive_number,
        default=120.0,
        metavar="S",
        help="answers end after so long, as they are (default: 120)",
    )


def _add_guard_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("who may ask, and what")
    group.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"holds the token that clients send (default: that of {TOKEN}, if it is set)",
    )
    for name, what in (
        ("--allow-host", "a name by which this service may be addressed"),
        ("--allow-origin", "pages of this origin may ask, such as https://example.org"),
        ("--allow-media-domain", "fetch pictures from https addresses of this host"),
    ):
        group.add_argument(
            name, action="append", default=[], metavar="NAME", help=f"{what}; may be repeated"
        )
    group.add_argument(
        "--max-body", type=positive_int, default=20, metavar="MB", help="(default: 20)"
    )
    group.add_argument(
        "--max-pixels",
        type=positive_int,
        default=16_000_000,
        metavar="N",
        help="of a picture (default: 16000000)",
    )
    group.add_argument("--certfile", type=Path, metavar="FILE", help="certificate, for https")
    group.add_argument("--keyfile", type=Path, metavar="FILE", help="its key")


def _add_log_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("logs")
    group.add_argument(
        "--log-dir", default=LOG_FOLDER, metavar="DIR", help=f"(default: {LOG_FOLDER})"
    )
    group.add_argument(
        "--log-content", action="store_true", help="also log questions and answers, not pictures"
    )


def token_of(options: argparse.Namespace) -> str | None:
    """The token of the file, or of the environment.

    Raises:
        ServingError: the file cannot be read, or a token is empty.
    """
    source, token = TOKEN, os.environ.get(TOKEN)
    if options.token_file is not None:
        source = f"the file {options.token_file}"
        try:
            token = options.token_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ServingError(f"{source} cannot be read: {error}; see --token-file") from error
    if token is not None and not token.strip():
        raise ServingError(f"the token of {source} is empty; write one into it")
    return None if token is None else token.strip()


def check_installed() -> None:
    """Raises:
    MissingExtraError: names the extra.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"`fastvlm serve` needs {missing[0]}: {install_hint('serve')}")


def run(options: argparse.Namespace) -> int:
    """Serves until a signal comes."""
    check_installed()
    from dl_techniques.serving.engine import Engine, EngineOptions
    from dl_techniques.serving.http import listening
    from dl_techniques.serving.http.app import create_app
    from dl_techniques.serving.http.logs import set_up_logs

    token = token_of(options)
    listening.check_exposed(options.host, token)
    amount = EngineOptions(options.rows, options.waiting, options.context, options.piece)
    tls = _tls(options)
    socket = listening.open_port(options.host, options.port)
    log = set_up_logs(options.log_dir)
    logging.getLogger("dl_techniques.serving").info(
        "%s at %s://%s:%d/v1, log in %s",
        options.preset,
        "https" if tls else "http",
        options.host,
        socket.getsockname()[1],
        log,
    )
    engine = Engine(session.load_model(options.preset), amount)
    app = create_app(engine, _service_options(options, token))
    server = listening.make_server(app, engine, **tls)
    listening.run(server, [socket], engine)
    return 0


def _tls(options: argparse.Namespace) -> dict[str, Any]:
    """uvicorn's arguments.

    Raises:
        ServingError: one of the two files is missing.
    """
    if options.certfile is None and options.keyfile is None:
        return {}
    for name in ("certfile", "keyfile"):
        path = getattr(options, name)
        if path is None or not path.is_file():
            raise ServingError(f"--{name} {path or 'is missing and'} is no file; https needs both")
    return {"ssl_certfile": str(options.certfile), "ssl_keyfile": str(options.keyfile)}


def _service_options(options: argparse.Namespace, token: str | None) -> Any:
    from dl_techniques.serving.http.app import ServiceOptions
    from dl_techniques.serving.http.guards import Guard
    from dl_techniques.serving.http.media import MediaLimits

    most = options.max_body * 2**20
    return ServiceOptions(
        options.name or Path(options.preset).name,
        Guard(token, (*options.allow_host, options.host), options.allow_origin, most),
        MediaLimits(options.max_pixels, most, options.allow_media_domain),
        options.max_seconds,
        options.log_content,
    )
