"""CoreML packages: what the file says of itself; its numbers cannot be run here."""

from __future__ import annotations

from pathlib import Path

import pytest

from dl_techniques.errors import ExportError
from dl_techniques.export.writers import coreml_package
from dl_techniques.export.writers.job import Job
from tests.export.small_exports import backend_is, small, subject_of, wider

pytestmark = pytest.mark.skipif(not backend_is("torch"), reason="written by PyTorch")


def test_the_package_says_what_it_takes_and_gives(tmp_path: Path) -> None:
    import coremltools as ct

    network = subject_of(small(), "features").deployed
    job = Job("float16", None, tuple(network.output))
    path = tmp_path / "m.mlpackage"
    notes = coreml_package.write(network, path, job)
    assert notes[0] == coreml_package.UNCHECKED and "not" in notes[0]
    spec = ct.models.utils.load_spec(str(path))
    assert spec.description.input[0].shortDescription == "RGB in [0, 1]"
    kind = spec.description.input[0].type.imageType
    assert (kind.height, kind.width) == (32, 32)
    assert kind.colorSpace == kind.ColorSpace.Value("RGB")
    operators = coreml_package.check_structure(path, network, job)
    assert operators["conv"] > 4 and operators["gelu"] > 2 and operators["softmax"] == 1
    with pytest.raises(ExportError, match="'logits'.*it is not kept"):
        coreml_package.check_structure(path, subject_of(small()).deployed, job)
    with pytest.raises(ExportError, match="bytes of weights"):
        coreml_package.check_structure(path, network, Job("float32", None, job.outputs))
    with pytest.raises(ExportError, match="it is not kept"):
        coreml_package.check_structure(path, subject_of(wider(), "features").deployed, job)
    assert coreml_package.open_file(path, job) is None and coreml_package.runtime() is None
