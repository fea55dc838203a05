"""Handles of the hub, without a network."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from dl_techniques.errors import PresetError
from dl_techniques.models.presets import hub


@pytest.mark.parametrize("handle", ["hf://apple", "hf://", "hf://a/b/c", "hf:///x"])
def test_malformed_handles(handle: str) -> None:
    with pytest.raises(PresetError, match="organisation/name"):
        hub.fetch(handle)


def test_first_download_says_the_licence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cached: list[str] = []

    def download(repository: str, local_files_only: bool = False, **options: object) -> str:
        if local_files_only and repository not in cached:
            raise FileNotFoundError("not in the cache")
        cached.append(repository)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hub.fetch("hf://apple/FastVLM-0.5B") == tmp_path
    assert "research purposes only" in capsys.readouterr().err
    assert hub.fetch("hf://apple/FastVLM-0.5B") == tmp_path
    assert capsys.readouterr().err == ""
    hub.fetch("hf://somebody/else")
    assert capsys.readouterr().err == ""


def test_no_network_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repository: str, **options: object) -> str:
        raise OSError("name or service\nnot known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(PresetError, match="cannot be downloaded .name or service not known") as e:
        hub.fetch("hf://somebody/else")
    assert "\n" not in str(e.value)
