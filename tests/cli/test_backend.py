"""What the command prepares for its backend."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.once


def test_set_up_leaves_other_backends_out() -> None:
    """In a process of its own: the choice must be made before Keras is imported."""
    code = (
        "import sys; from dl_techniques.cli.backend import set_up_backend; "
        "assert 'keras' not in sys.modules; name = set_up_backend(); "
        "import keras; assert keras.backend.backend() == name == set_up_backend(); "
        "assert name == 'tensorflow' or not sys.modules.get('tensorflow'); print(name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    import keras

    assert done.stdout.strip() == keras.backend.backend()  # the suite sets KERAS_BACKEND


@pytest.mark.parametrize("plots", [False, True])
def test_matplotlib_is_there_where_plots_are_wanted(plots: bool) -> None:
    """In a process of its own, as above; Keras looks for it when it is imported."""
    code = (
        "import sys; from dl_techniques.cli.backend import set_up_backend; "
        f"set_up_backend(plots={plots}); import keras; "
        "print(sys.modules.get('matplotlib') is not None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(plots)


def test_reading_the_command_chooses_no_backend() -> None:
    """Else the package would choose one before the command does, and say so in spite of --quiet."""
    code = (
        "import os, sys; before = os.environ.pop('KERAS_BACKEND', None); "
        "import dl_techniques.cli.main; "
        "assert not {'keras', 'dl_techniques.models'} & sys.modules.keys(); "
        "assert 'KERAS_BACKEND' not in os.environ"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
