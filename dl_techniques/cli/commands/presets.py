"""`fastvlm presets`: the models that come with the package, and what else --preset takes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dl_techniques.cli.options import PRESET_HELP

MEGABYTE = 1_000_000


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "presets",
        help="list the models that can be asked",
        description="Lists the models that come with the package.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def describe_preset(name: str, folder: Path) -> dict[str, Any]:
    """Name, parameters, bytes and folder of a shipped preset."""
    facts = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {
        "name": name,
        "parameters": facts["parameter_count"],
        "bytes": size,
        "folder": str(folder),
    }


def run(options: argparse.Namespace) -> int:
    """Prints the shipped presets."""
    from dl_techniques.models.presets.vlm_folder import shipped_presets

    presets = [describe_preset(name, folder) for name, folder in shipped_presets().items()]
    if options.json:
        print(json.dumps(presets))
        return 0
    for preset in presets:
        size, parameters = preset["bytes"] / MEGABYTE, preset["parameters"] / MEGABYTE
        print(f"{preset['name']}  {parameters:.1f} M parameters, {size:.1f} MB, Apache-2.0")
    print(f"--preset takes {PRESET_HELP}")
    print("Apple's (hf://apple/FastVLM-0.5B, -1.5B, -7B) are for research only")
    return 0
