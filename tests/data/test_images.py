"""Every kind of picture that people bring, and every kind of damage."""

from __future__ import annotations

import base64
import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dl_techniques.data.images import load_image
from dl_techniques.errors import DLTechniquesError, ImageError

pytestmark = pytest.mark.once


def noise(height: int = 6, width: int = 9, channels: int = 3, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype="uint8")


def encoded(image: Any, fmt: str = "PNG", **options: Any) -> Any:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def test_sources_agree(tmp_path: Path) -> None:
    pixels = noise()
    data = encoded(Image.fromarray(pixels))
    path = tmp_path / "a.png"
    path.write_bytes(data)
    sources = [path, str(path), data, bytearray(data), io.BytesIO(data), Image.open(path), pixels]
    with path.open("rb") as file:
        for source in [*sources, file]:
            loaded = load_image(source)
            np.testing.assert_array_equal(loaded, pixels)
            assert loaded.dtype == np.uint8 and loaded.flags.c_contiguous


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: Any) -> None:
    upright = noise()
    # What a camera stores so that the viewer's turn gives `upright`.
    stored = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(load_image(data), upright)


def test_alpha_shows_white() -> None:
    pixels = np.zeros((2, 2, 4), "uint8")
    pixels[..., 0] = 200
    pixels[0, 0, 3], pixels[0, 1, 3], pixels[1, 0, 3] = 255, 0, 51
    for source in (pixels, Image.fromarray(pixels, "RGBA"), encoded(Image.fromarray(pixels))):
        loaded = load_image(source)
        assert loaded[0, 0].tolist() == [200, 0, 0]
        assert loaded[0, 1].tolist() == [255, 255, 255]
        np.testing.assert_allclose(loaded[1, 0], [244, 204, 204], atol=1)
    grey_alpha = np.dstack([np.zeros((2, 2)), [[255, 0], [0, 255]]]).astype("uint8")
    assert load_image(grey_alpha)[:, :, 1].tolist() == [[0, 255], [255, 0]]


def test_palette_with_and_without_transparency() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert load_image(encoded(palette)).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    see_through = load_image(encoded(palette, transparency=1))
    assert see_through.tolist() == [[[10, 20, 30], [255, 255, 255]]]
    assert load_image(encoded(palette, "GIF", transparency=0))[0, 0].tolist() == [255] * 3


def test_colour_key_transparency_of_rgb_and_16_bit_grey() -> None:
    rgb = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], "uint8"))
    assert load_image(encoded(rgb, transparency=(4, 5, 6)))[0, 1].tolist() == [255] * 3
    grey = Image.fromarray(np.array([[0, 700]], "uint16"))
    grey.info["transparency"] = 700
    assert load_image(grey)[0, :, 0].tolist() == [0, 255]


def test_grey_modes() -> None:
    grey = noise(4, 5, 1)[:, :, 0]
    for source in (grey, grey[:, :, None], encoded(Image.fromarray(grey))):
        np.testing.assert_array_equal(load_image(source), np.repeat(grey[..., None], 3, 2))
    bits = np.array([[True, False]])
    for source in (bits, encoded(Image.fromarray(bits))):
        assert load_image(source)[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(fmt: str) -> None:
    deep = np.array([[0, 257, 32768, 65535]], "uint16")
    expected = [0, 1, 128, 255]
    assert load_image(deep)[0, :, 0].tolist() == expected
    assert load_image(encoded(Image.fromarray(deep), fmt))[0, :, 2].tolist() == expected


def test_cmyk_and_other_modes() -> None:
    pixels = np.array([[[255, 0, 0], [0, 0, 255]]], "uint8")
    image = Image.fromarray(pixels)
    np.testing.assert_array_equal(load_image(image.convert("CMYK")), pixels)
    jpeg = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")
    np.testing.assert_allclose(load_image(jpeg)[8, 8], [255, 0, 0], atol=4)
    for mode in ("YCbCr", "HSV", "LAB", "RGBX"):
        assert load_image(image.convert(mode) if mode != "LAB" else Image.new("LAB", (2, 1))).shape
    np.testing.assert_array_equal(
        load_image(Image.fromarray(np.array([[0.0, 1.0]], "float32")))[0, :, 0], [0, 255]
    )


def test_float_and_integer_arrays() -> None:
    assert load_image(np.array([[0.0, 0.5, 1.0]]))[0, :, 0].tolist() == [0, 128, 255]
    assert load_image(np.array([[0, 200]]))[0, :, 0].tolist() == [0, 200]
    for wrong in (
        np.array([[0.0, 200.0]]),
        np.array([[np.nan]]),
        np.array([[-1, 3]]),
        np.array([[300]]),
        np.array([[1 + 2j]]),
    ):
        with pytest.raises(ImageError, match="shape"):
            load_image(wrong)


def test_backend_tensor() -> None:
    from keras import ops

    pixels = noise()
    np.testing.assert_array_equal(load_image(ops.convert_to_tensor(pixels)), pixels)


def test_torch_tensors_with_a_gradient_and_sparse_ones() -> None:
    torch = pytest.importorskip("torch")
    pixels = torch.rand(2, 4, 5, 3)
    expected = load_image(pixels[0].numpy())
    batch = pixels.clone().requires_grad_()
    for tensor in (batch, batch.to_sparse(), torch.nn.Parameter(pixels)):
        np.testing.assert_array_equal(load_image(tensor[0]), expected)
    grey = torch.eye(3)
    for tensor in (grey.to_sparse(), grey.to_sparse_csr(), grey.bfloat16().to_sparse()):
        np.testing.assert_array_equal(load_image(tensor)[..., 0], 255 * np.eye(3))
    fails(torch.empty(2, 2, device="meta"), "cannot be read as an array")


class Upload:
    """An upload of a web framework: read and seek, and no more."""

    def __init__(self, data: Any) -> None:
        self.file = io.BytesIO(data)

    def read(self, size: int = -1) -> Any:
        return self.file.read(size)

    def seek(self, *place: Any) -> Any:
        return self.file.seek(*place)


class Stream(io.BytesIO):
    """A pipe: it cannot go back."""

    def seek(self, *place: Any) -> None:
        raise io.UnsupportedOperation("seek")


class Awaited:
    async def read(self) -> Any:
        return b""


def test_an_open_file_is_read_from_its_start_each_time(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(noise()))
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        for source in (file, io.BytesIO(data), Upload(data)):
            source.read(3)
            for _ in range(2):
                np.testing.assert_array_equal(load_image(source), noise())
    fails(file, "closed file")
    stream = Stream(data)
    np.testing.assert_array_equal(load_image(stream), noise())
    fails(stream, "read before")
    fails(Awaited(), "await")


def test_data_uris() -> None:
    data = encoded(Image.fromarray(noise()))
    code = base64.b64encode(data).decode()
    for uri in (
        f"data:image/png;base64,{code}",
        f"DATA:;base64,{code.rstrip('=')}",
        "data:image/png;name=a;base64,\n" + "\n".join(code[i : i + 76] for i in range(0, 400, 76)),
        "data:image/png;base64," + code.translate(str.maketrans("+/", "-_")),
        "data:," + "".join(f"%{byte:02x}" for byte in data),
    ):
        np.testing.assert_array_equal(load_image(uri), noise())
    fails("data:image/png;base64", "comma")
    fails("data:image/png;base64,(((", "base64")
    fails("data:image/png;base64,", "empty")


def test_messages_show_the_ends_of_long_names(tmp_path: Path) -> None:
    for source in (
        "data:image/png;base64," + "A" * 3_000_000,
        "x" * 3_000_000 + ".png",
        str(tmp_path / ("y y " * 50_000)),
        "a\nb.png",
    ):
        with pytest.raises(ImageError) as caught:
            load_image(source)
        assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "L", "1", "I;16", "F", "CMYK"])
@pytest.mark.parametrize("turn", [1, 6])
def test_strips_give_the_pixels_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, mode: str, turn: int
) -> None:
    pixels = noise(23, 11, 4)
    if mode in ("I;16", "F"):
        grey = pixels[..., 0]
        image = Image.fromarray(
            grey.astype("uint16") * 200 if mode == "I;16" else np.float32(grey / 255)
        )
    else:
        image = Image.fromarray(pixels, "RGBA").convert(mode)
    if mode == "P":
        image.info["transparency"] = 3
    image.getexif()[0x0112] = turn
    whole, array = load_image(image), load_image(pixels)
    monkeypatch.setattr("dl_techniques.data.pixels._STRIP", 40)
    np.testing.assert_array_equal(load_image(image), whole)
    np.testing.assert_array_equal(load_image(pixels), array)
    assert whole.shape == ((23, 11, 3) if turn == 1 else (11, 23, 3))
    assert whole.flags.c_contiguous


def test_a_jpeg_above_the_limit_may_be_read_at_half_its_size() -> None:
    smooth = Image.fromarray(noise(4, 5)).resize((161, 121), Image.Resampling.BICUBIC)
    data = encoded(smooth, "JPEG", quality=95)
    fails(data, "max_pixels=5000", max_pixels=5000)
    halved = load_image(data, 5000, enough=60)
    assert halved.shape == (61, 81, 3)
    expected = np.asarray(smooth.resize((81, 61), Image.Resampling.BOX), "float32")
    assert abs(halved - expected).mean() < 3
    assert load_image(data, 161 * 121, enough=8).shape == (121, 161, 3)  # it fits as it is
    fails(data, "max_pixels=5000", max_pixels=5000, enough=61)
    fails(data, "max_pixels=4900", max_pixels=4900, enough=8)
    progressive = encoded(smooth, "JPEG", progressive=True)
    for other in (progressive, encoded(smooth)):  # as much memory as the whole
        fails(other, "max_pixels=5000", max_pixels=5000, enough=8)


MEASURE = r"""
import resource, sys, zlib, struct
import numpy as np
from PIL import Image
from dl_techniques.data.images import MAX_PIXELS, load_image

def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

side = int(MAX_PIXELS ** 0.5)
press = zlib.compressobj()
rows = b"".join(press.compress(bytes(1 + 4 * side)) for _ in range(side)) + press.flush()
header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert load_image(png)[0, 0].tolist() == [255, 255, 255]
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.full
def test_the_largest_picture_takes_the_memory_that_is_promised() -> None:
    out = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True)
    assert int(out.stdout) < 400, out.stderr  # MB; an alpha channel is the worst case


def test_first_frame_of_an_animation() -> None:
    red, blue = (Image.new("RGB", (4, 4), c) for c in ("red", "blue"))
    gif = encoded(red, "GIF", save_all=True, append_images=[blue])
    assert load_image(gif)[0, 0].tolist() == [255, 0, 0]


def test_one_pixel() -> None:
    assert load_image(np.full((1, 1, 3), 7, "uint8")).tolist() == [[[7, 7, 7]]]


def fails(source: Any, match: Any, **options: Any) -> None:
    """The error is typed, of one line, and no warning comes beside it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=match) as caught:
            load_image(source, **options)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, DLTechniquesError) and isinstance(caught.value, ValueError)


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("just words")
    empty = tmp_path / "empty.png"
    empty.touch()
    fails(tmp_path / "absent.png", "absent.png.*does not exist")
    fails("https://host/a.png", "not fetched")
    fails(tmp_path, "folder")
    fails(text, "text.jpg.*not in a known picture format")
    fails(empty, "empty.png.*empty")
    fails(b"", "empty")
    fails("a\0b", "cannot be read")
    fails(io.StringIO("text"), "binary")
    fails(3, "not a picture")
    fails(None, "not a picture")


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_files_that_are_cut_short(fmt: str) -> None:
    data = encoded(Image.fromarray(noise(64, 64)), fmt)
    for part in (0.9, 0.5, 0.05):
        fails(data[: int(len(data) * part)], "damaged|known picture format")


def test_decompression_bomb() -> None:
    def chunk(kind: Any, body: Any) -> Any:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0"))
    before = Image.MAX_IMAGE_PIXELS
    fails(bomb, "2500000000 pixels, more than max_pixels=50331648")
    assert load_image(noise(), max_pixels=10).shape == (6, 9, 3)  # in memory already
    fails(Image.fromarray(noise()), "max_pixels=10", max_pixels=10)
    assert Image.MAX_IMAGE_PIXELS == before
    small = encoded(Image.fromarray(noise()))
    fails(small, "max_pixels=53", max_pixels=53)
    assert load_image(small, max_pixels=54).shape == (6, 9, 3)


def test_the_limit_can_be_raised_above_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    data = encoded(Image.fromarray(noise()))
    assert load_image(data).shape == (6, 9, 3)


def test_wrong_shapes() -> None:
    fails(np.zeros((4, 5, 7), "uint8"), "shape")
    fails(np.zeros((3, 8, 9), "uint8"), "transpose")
    fails(np.zeros((0, 5, 3), "uint8"), "no pixels")
    fails(Image.new("RGB", (0, 5)), "no pixels")
    fails(np.zeros(5, "uint8"), "shape")
    fails(np.zeros((1, 2, 3, 3), "uint8"), "shape")
