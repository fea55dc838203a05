"""The plot of the benchmark: an encoder's time against the size of its pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dl_techniques.data.files import atomic_writer
from dl_techniques.errors import DLTechniquesError, MissingExtraError, install_hint
from dl_techniques.evaluation.speed_encoder import EncoderTime, growth

FORMATS = (".pdf", ".png", ".svg")
INCHES = (6.4, 4.4)


def check_plot(path: str | Path) -> Path:
    """Finds out before a long measurement whether its plot can be written.

    Raises:
        DLTechniquesError: an ending that is no format of a plot, or no folder.
        MissingExtraError: matplotlib is not installed.
    """
    target = Path(path)
    if target.suffix not in FORMATS:
        raise DLTechniquesError(
            f"--plot {target}: expected a name that ends in {', '.join(FORMATS)}"
        )
    if not target.parent.is_dir():
        raise DLTechniquesError(f"--plot {target}: there is no folder {target.parent}")
    _figure_class()
    return target


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"a plot needs matplotlib, which is not installed: {install_hint('notebooks')}",
            name="matplotlib",
        ) from error
    return Figure


def plot_encoder_times(times: Sequence[EncoderTime], path: str | Path, title: str) -> None:
    """Writes latency against resolution, both on logarithmic axes, a line for each form and batch.

    Args:
        times: of `encoder_times`.
        path: a file that ends in `.png`, `.svg` or `.pdf`; replaced when the new one is whole.
        title: what was measured, and where.

    Raises:
        DLTechniquesError: an ending that is no format of a plot, or no folder.
        MissingExtraError: matplotlib is not installed.
    """
    target = check_plot(path)
    figure = _figure_class()(figsize=INCHES, layout="constrained")
    axes = figure.add_subplot()
    exponents = growth(times)
    for form, batch in dict.fromkeys((c.form, c.batch_size) for c in times):
        line = [c for c in times if (c.form, c.batch_size) == (form, batch)]
        label = f"{form}, batch {batch}"
        if (form, batch) in exponents:
            label += f", pixels^{exponents[form, batch]:.2f}"
        axes.plot([c.resolution for c in line], [1000 * c.seconds for c in line], "o-", label=label)
    sizes = sorted({c.resolution for c in times})
    axes.set(xscale="log", yscale="log", xlabel="side of the picture (pixels)", title=title)
    axes.set_ylabel("median time (ms)")
    axes.set_xticks(sizes, labels=[str(size) for size in sizes], minor=False)
    axes.set_xticks([], minor=True)
    axes.grid(True, which="both", alpha=0.3)
    axes.legend(fontsize="small")
    drawn = io.BytesIO()
    figure.savefig(drawn, format=target.suffix[1:], dpi=150)
    with atomic_writer(target, binary=True) as file:
        file.write(drawn.getvalue())
