"""Pictures to compare on and to calibrate with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dl_techniques.errors import ExportError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
COMPARED = 16
CALIBRATED = 200
DRAWN = 4
PHOTOGRAPHS = Path(__file__).parent / "photographs"
"""What files are compared on if no pictures are given; NOTICE says whose they are."""


def picture_files(folder: str | Path, most: int) -> list[Path]:
    """Files of pictures in a folder and below, evenly chosen where there are more than `most`.

    Args:
        folder: where they are.
        most: how many to take.

    Raises:
        ExportError: no such folder, or no picture in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ExportError(f"{folder} is no folder; give one with pictures")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS)
    if not files:
        raise ExportError(
            f"{folder} holds no pictures; expected files that end in {', '.join(ENDINGS)}"
        )
    chosen = np.linspace(0, len(files) - 1, min(most, len(files))).round().astype(int)
    return [files[i] for i in chosen]


def shipped_photographs() -> list[Path]:
    """Photographs that come with the package, of animals, rooms, food and a street.

    Most networks are trained on photographs, and rounding costs them more on anything else.

    Example:
        >>> [path.stem for path in shipped_photographs()][:3]
        ['bear', 'bedroom', 'fruit']
    """
    return picture_files(PHOTOGRAPHS, COMPARED)


def compared_on(folder: str | Path | None, count: int) -> str:
    """The note of a report: what was compared on, and how to choose.

    Args:
        folder: the pictures that were given, None for the shipped photographs.
        count: how many were compared.
    """
    if folder is not None:
        return f"compared on {count} pictures of {folder}"
    return (
        f"compared on {count} photographs that come with the package; give pictures of your own "
        "(--pictures FOLDER) for figures that mean more"
    )


def drawn_pictures(side: int = 320) -> Iterator[np.ndarray]:
    """Four pictures that are the same everywhere: what a whole model's files are compared on.

    A ramp of colours, discs, a checkerboard that grows finer, and noise that has the spectrum of
    photographs (amplitude falls as 1 / frequency; Field, 1987).

    Args:
        side: pixels of the longer side; the pictures are 4 : 3.

    Yields:
        uint8[side * 3 / 4, side, 3].
    """
    height = side * 3 // 4
    y, x = np.mgrid[0:height, 0:side].astype("float64") / side
    ramp = np.stack([x, y / 0.75, 1 - x], axis=-1)
    discs = np.full((height, side, 3), 0.9)
    for row, column, radius, colour in (
        (0.3, 0.3, 0.2, (0.8, 0.1, 0.1)),
        (0.5, 0.7, 0.15, (0.1, 0.3, 0.8)),
    ):
        discs[(y - row) ** 2 + (x - column) ** 2 < radius**2] = colour
    board = ((np.floor(4 * (1 + 3 * x) * x) + np.floor(8 * y)) % 2)[..., None] * [1.0, 0.9, 0.6]
    for picture in (ramp, discs, board, _photo_like_noise(height, side)):
        yield np.round(255 * picture).clip(0, 255).astype("uint8")


def _photo_like_noise(height: int, width: int) -> np.ndarray:
    """float64[H, W, 3] in [0, 1]: coloured noise with a 1 / f spectrum."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1.0
    spectrum = np.fft.fft2(rng.normal(size=(3, height, width))) / frequency
    noise = np.fft.ifft2(spectrum).real.transpose(1, 2, 0)
    low, high = noise.min(axis=(0, 1)), noise.max(axis=(0, 1))
    scaled: np.ndarray = (noise - low) / (high - low)
    return scaled
