"""The small environment that `make demo` makes, for tests that run what a newcomer runs.

It is made once a checkout, under `.pytest_cache`, and named by the hash of its requirements.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from filelock import FileLock

from dl_techniques.runtime.programs import CACHE_BYTES

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements" / "demo.txt"
CACHE = ROOT / ".pytest_cache"
COMMAND = """#!{python}
import sys
from dl_techniques.cli.main import main
sys.exit(main())
"""


def demo_environment() -> Path:
    """The `bin` folder of the environment, which is made if it is not there yet."""
    mark = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = CACHE / f"demo-env-{mark}"
    CACHE.mkdir(exist_ok=True)
    with FileLock(CACHE / "demo-env.lock"):
        if not (folder / ".whole").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder)
    return folder / "bin"


def _make(folder: Path) -> None:
    """As the Makefile's rule, but for the package itself: this tree is put on the path."""
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "-r", str(REQUIREMENTS)], check=True)
    variables = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", variables))
    (packages / "dl_techniques.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    command = folder / "bin" / "fastvlm"
    command.write_text(COMMAND.format(python=python), encoding="utf-8")
    command.chmod(0o755)
    (folder / ".whole").touch()


def newcomers_variables(home: Path, programs: Path, page: dict[str, str]) -> dict[str, str]:
    """The variables of somebody's first shell: an empty home, and what the page sets.

    Args:
        home: an empty folder.
        programs: the folder whose `python` and `fastvlm` come first.
        page: the variables of the page.
    """
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        # not the page's: compiled programs are kept, and compiled quickly, for the suite's time
        "JAX_COMPILATION_CACHE_DIR": str(CACHE / "demo-programs"),
        # the command bounds its folder, and JAX warns where others wrote to it without a bound
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(CACHE_BYTES),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "OMP_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **page,
    }
