"""The package as a newcomer installs and imports it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import dl_techniques
from dl_techniques.errors import MissingExtraError, install_hint

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = ("tensorflow", "jax", "torch")


def run_python(code: str, *flags: str) -> str:
    """Runs code in a fresh interpreter and returns what it printed."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_light() -> None:
    heavy = ("keras", "keras_hub", "tokenizers", "numpy", "PIL", *BACKENDS)
    code = f"import sys, dl_techniques; print([m for m in {heavy!r} if m in sys.modules])"
    assert run_python(code) == "[]"


def test_vision_needs_no_keras_hub_and_no_other_backend() -> None:
    import keras

    others = [name for name in BACKENDS if name != keras.backend.backend()]
    code = (
        "import sys\n"
        f"absent = {[*others, 'keras_hub', 'tokenizers', 'tensorflow_text']!r}\n"
        "sys.modules.update(dict.fromkeys(absent))\n"
        "from dl_techniques import FastVLM\n"
        "m = FastVLM.from_variant('nano', include_top=False, input_shape=(32, 32, 3))\n"
        "print(m.feature_dim)\n"
        "from dl_techniques.errors import PresetError\n"
        "try:\n"
        "    FastVLM.from_preset('nowhere')\n"
        "except PresetError:\n"
        "    print('asked the reader of vision weights alone')\n"
    )
    assert run_python(code).splitlines()[-2:] == ["96", "asked the reader of vision weights alone"]


@pytest.mark.parametrize("name", [n for n in dl_techniques.__all__ if n != "__version__"])
def test_every_export_exists(name: str) -> None:
    assert getattr(dl_techniques, name).__name__ == name
    assert name in dir(dl_techniques)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'FastVLN'"):
        _ = dl_techniques.FastVLN


def test_a_missing_extra_is_named() -> None:
    needs_none = ["__version__", "FastVLM", "MobileOne", "EfficientNetLite", "Towers"]
    needs_none += ["keep_compiled_programs", "keep_freed_memory"]
    names = [name for name in dl_techniques.__all__ if name not in needs_none]
    code = (
        "import sys, dl_techniques\n"
        "sys.modules.update(dict.fromkeys(['keras_hub', 'tokenizers']))\n"
        f"for name in {names!r}:\n"
        "    try:\n        getattr(dl_techniques, name)\n"
        "    except ImportError as error:\n        print(type(error).__name__, name, error)"
    )
    said = run_python(code).splitlines()
    assert len(said) == len(names)
    for name, line in zip(names, said, strict=True):
        assert line.startswith(f"{MissingExtraError.__name__} {name} ")
        assert install_hint("vlm") in line


def test_the_hint_is_a_command_that_works_in_a_checkout() -> None:
    hint = install_hint("vlm")
    assert hint == f"pip install -e '{ROOT}[vlm]'" and (ROOT / "pyproject.toml").is_file()


def test_no_message_or_page_names_the_distribution_to_pip() -> None:
    """It is on no index."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "notebooks").glob("*")]
    files = [*pages, *(ROOT / "dl_techniques").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    wrong = re.compile(r"pip install\s[^\n]*dl.techniques\[")
    found = [f for f in files if f.is_file() and wrong.search(f.read_text(encoding="utf-8"))]
    assert not found


def test_version_is_one_number() -> None:
    from importlib.metadata import version

    assert dl_techniques.__version__ == version("dl-techniques")


def test_extras_exist_for_what_the_messages_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {*BACKENDS, "vlm", "demo", "dev"} <= set(project["optional-dependencies"])


def test_the_demo_environment_is_closed_and_without_tensorflow() -> None:
    lines = (ROOT / "requirements" / "demo.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert not [name for name in pinned if "tensorflow" in name or "nvidia" in name]
    tested = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    constraints = dict(line.split("==") for line in tested if line and not line.startswith("#"))
    assert {name: constraints[name] for name in pinned} == pinned


@pytest.mark.full
def test_wheel_holds_variants_and_presets(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in sorted((ROOT / "variants").glob("*.yaml")):
        assert f"dl_techniques/variants/{path.name}" in names
    for path in sorted((ROOT / "dl_techniques" / "presets").rglob("*")):
        assert path.is_dir() or path.relative_to(ROOT).as_posix() in names
    assert {"dl_techniques/variants/nano.yaml", "dl_techniques/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests/", "tools/"))]
