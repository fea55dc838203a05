"""Archives of tiny photographs, laid out as the real ones."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

from PIL import Image

CALTECH = ("airplanes", "Faces", "dalmatian", "buddha")
GROCERY = ("Fruit/Apple/Golden-Delicious", "Vegetables/Carrots/Carrots")
CLOTHING = ("t-shirt", "shoes")
COCO = {"000000000001.jpg": ["dog", "person"], "000000000002.jpg": ["tv", "couch"]}


def picture(number: int, side: int = 40) -> bytes:
    """A JPEG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (side + 8, side), (40 * number % 256, 99, 7)).save(file, "JPEG")
    return file.getvalue()


def write_archives(folder: Path) -> Path:
    """Writes all four archives, names out of order."""
    with zipfile.ZipFile(folder / "photos_caltech101.zip", "w") as archive:
        for split in ("validation", "train"):
            for label in CALTECH:
                for number in (2, 1):
                    name = f"caltech/{split}/{label}/image_{number:04d}.jpg"
                    archive.writestr(name, picture(number))
        for number in range(4):
            archive.writestr(f"caltech/background/image_{number:04d}.jpg", picture(number))
    with zipfile.ZipFile(folder / "photos_grocery.zip", "w") as archive:
        for split in ("train", "validation"):
            for number, path in enumerate(GROCERY):
                archive.writestr(f"grocery/{split}/{path}/a_{number}.jpg", picture(number, 400))
    with tarfile.open(folder / "clothing.tar", "w") as tar:
        for split in ("train", "validation"):
            for number, label in enumerate(CLOTHING):
                data = picture(number)
                member = tarfile.TarInfo(f"{split}/{label}/{number}.jpg")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    entries = [
        {
            "file": name,
            "captions": ["A thing."],
            "flickr_url": f"http://example.org/{name}",
            "objects": [[thing, [0, 0, 1, 1], 0] for thing in things],
        }
        for name, things in COCO.items()
    ]
    with zipfile.ZipFile(folder / "photos_coco_ccby.zip", "w") as archive:
        archive.writestr("coco_ccby/annotations.json", json.dumps(entries))
        for number, name in enumerate(COCO):
            archive.writestr(f"coco_ccby/photos/{name}", picture(number))
    return folder
