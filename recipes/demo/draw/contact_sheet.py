"""Sheets of pictures with their questions, to be looked at.

`python -m recipes.demo.draw.contact_sheet --work DIR --clothing TAR --out DIR`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from recipes.demo.draw.records import KINDS, DemoData
from recipes.demo.draw.words import load_font


def sheet(data: DemoData, kind: str, split: str, columns: int = 5, rows: int = 7) -> Image.Image:
    """Draws records of one kind with what is asked and answered beside each picture."""
    width, height = 330, 138
    page = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(page)
    for i in range(columns * rows):
        record = data.make_record(kind, split, i * 37 if split == "test" else i, seed=0)
        x, y = (i % columns) * width, (i // columns) * height
        page.paste(Image.fromarray(record["image"]).resize((128, 128), 0), (x + 2, y + 5))
        texts = [message["content"] for message in record["messages"]]
        pairs = zip(texts[::2], texts[1::2], strict=True)
        lines = [line for pair in pairs for line in (pair[0][:44], "   " + pair[1][:46])]
        draw.multiline_text((x + 134, y + 5), "\n".join(lines), "black", load_font("DejaVuSans", 9))
    return page


def augmented(data: DemoData, count: int = 240, columns: int = 20) -> Image.Image:
    """Draws many training pictures of emoji without words."""
    images = [data.make_record("emoji", "train", i, 5)["image"] for i in range(count)]
    rows = [np.concatenate(images[i : i + columns], 1) for i in range(0, count, columns)]
    return Image.fromarray(np.concatenate(rows, 0))


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="the work folder")
    parser.add_argument("--clothing", type=Path, help="the tar of clothing photos")
    parser.add_argument("--out", type=Path, required=True, help="folder of the sheets")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    data = DemoData(options.work, options.clothing)
    for kind in KINDS:
        for split in ("train", "test"):
            sheet(data, kind, split).save(options.out / f"{kind}_{split}.png")
    augmented(data).save(options.out / "emoji_many.png")
    print(f"sheets in {options.out}")


if __name__ == "__main__":
    main()
