"""`hf://organisation/name`: a repository of the Hugging Face hub as a local folder.

The first download of Apple's weights prints their licence notice: they are for research only.
What was downloaded once is found again without a network (`HF_HUB_OFFLINE=1`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from dl_techniques.errors import MissingExtraError, PresetError, install_hint

SCHEME = "hf://"
WANTED = (
    "*.json", "*.safetensors", "*.bin", "*.pt", "*.pth", "*.pth.tar", "merges.txt", "*.jinja",
    "*.h5", "*.keras", "LICENSE*",
)  # fmt: skip
RESEARCH_ONLY = {
    "apple": (
        "Apple's weights are licensed for research purposes only (Apple Machine Learning Research "
        "Model License): read the LICENSE in their repository, and do not redistribute them or "
        "what is made from them."
    )
}


def is_hub_handle(source: str | Path) -> bool:
    """Whether a source names a repository of the hub."""
    return str(source).startswith(SCHEME)


def repository_of(handle: str) -> str:
    """`hf://organisation/name` -> `organisation/name`.

    Raises:
        PresetError: another form.
    """
    repository = handle.removeprefix(SCHEME).strip("/")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise PresetError(f"{handle!r} is no hub handle; expected hf://organisation/name")
    return repository


def fetch(handle: str) -> Path:
    """Downloads a repository's configs, tokenizer and weights, or finds them in the cache.

    Args:
        handle: `hf://organisation/name`.

    Returns:
        The local folder.

    Raises:
        PresetError: no such repository, or no network and nothing in the cache.
        MissingExtraError: `huggingface_hub` is not installed.
    """
    repository = repository_of(handle)
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError as error:
        raise MissingExtraError(f"{handle} needs huggingface_hub: {install_hint('vlm')}") from error
    try:
        return Path(hub.snapshot_download(repository, local_files_only=True, allow_patterns=WANTED))
    except OSError:  # not in the cache, or not whole
        notice(repository)
    try:
        return Path(hub.snapshot_download(repository, allow_patterns=WANTED))
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise PresetError(
            f"{handle} cannot be downloaded ({reason}); check the name and the network, or give a "
            "folder with the files"
        ) from error


def notice(repository: str) -> None:
    """Says on stderr under what licence the weights about to be downloaded stand."""
    said = RESEARCH_ONLY.get(repository.split("/")[0].lower())
    if said is not None:
        print(f"notice: {repository}: {said}", file=sys.stderr)
