"""Asks an exported vision-language model about a photo, on LiteRT alone.

    python host.py FOLDER PICTURE QUESTION

`FOLDER` is what `fastvlm export --format litert --part vlm` wrote: `manifest.json`,
`tokenizer.json`, and the LiteRT files. Needs numpy, Pillow, tokenizers and ai_edge_litert, and
nothing else: this one file can be copied beside the exported ones. It is also the program that the
Android page is written from, step by step:

1. `read_picture`, `to_square`   a photo -> uint8[S, S, 3]
2. `picture_rows`                pixels 0..1 -> vision encoder -> adapter -> float32[T, D]
3. `prompt_rows`                 tokens -> embedder; the pictures' rows stand among them
4. `read_rows`                   all rows but the last, in chunks, through `prefill_N`
5. `tokens`                      the last row, then each chosen token, through `decode`

The answer is greedy: always the likeliest token.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

Array = np.ndarray
Picture = str | Path | Array  # a file, or its pixels as uint8[H, W, 3]
INCOMPLETE = "\ufffd"  # what the bytes of half a character decode to
MAX_EXACT_SIDE = 16384  # pictures with a longer side are resized first and padded then
MAX_GROWN = 4096 * 4096  # pixels; longer strips than this are cropped first and resized then
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class HostError(Exception):
    """What the user has to know, in one line."""


# A photo becomes pixels.


def read_picture(path: str | Path, max_pixels: int) -> Array:
    """A picture file as uint8[H, W, 3]: upright, first frame, white where transparent.

    Raises:
        HostError: no picture, or one with more than `max_pixels`.
    """
    Image.MAX_IMAGE_PIXELS = None  # our own limit stands three lines below
    try:
        image = Image.open(path)
        if image.width * image.height <= max_pixels:
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # damaged files raise whatever their parser stumbles over
        raise HostError(f"{path} cannot be read as a picture: {error}") from error
    raise HostError(f"{path} has {image.width} x {image.height} pixels, more than {max_pixels}")


def _to_rgb(image: Image.Image) -> Array:
    if image.mode == "F":
        raise ValueError("its pixels are floating point numbers; save it with 8 or 16 bit")
    if image.mode.startswith("I"):  # grey of 16 bit
        return _grey_16_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _grey_16_bit(image: Image.Image) -> Array:
    grey = np.asarray(image)
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError("its grey values are beyond 16 bit")
    grey = grey.astype("uint32")
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[grey == transparent] = 65535
    return np.repeat(((grey + 128) // 257).astype("uint8")[:, :, None], 3, axis=2)


def to_square(image: Array, rule: dict[str, Any]) -> Array:
    """uint8[H, W, 3] -> uint8[S, S, 3], as the manifest's `picture` says.

    Mode "pad": centred on a square of the colour `fill`, then resized. Mode "crop": the shorter
    side resized to S, then the middle.
    """
    size, (height, width) = rule["size"], image.shape[:2]
    shortest, longest = min(height, width), max(height, width)
    if rule["mode"] == "crop":
        if longest * size * size > MAX_GROWN * shortest:
            return _resize(_middle(image, shortest), size, size, rule)
        new_height = int(size * height / width) if width <= height else size
        new_width = size if width <= height else int(size * width / height)
        return _middle(_resize(image, new_height, new_width, rule), size)
    if height != width and longest > MAX_EXACT_SIDE:
        new_height, new_width = (max(1, round(n * size / longest)) for n in (height, width))
        return _pad(_resize(image, new_height, new_width, rule), rule["fill"])
    return _resize(_pad(image, rule["fill"]), size, size, rule)


def _resize(image: Array, height: int, width: int, rule: dict[str, Any]) -> Array:
    if image.shape[:2] == (height, width):
        return image
    resized = Image.fromarray(image).resize((width, height), FILTERS[rule["interpolation"]])
    return np.asarray(resized)


def _pad(image: Array, fill: Sequence[int]) -> Array:
    height, width = image.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.empty((side, side, 3), "uint8")
    square[...] = fill
    square[top : top + height, left : left + width] = image
    return square


def _middle(image: Array, size: int) -> Array:
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


# The files.


class LiteRTFile:
    """A LiteRT file whose signatures are called by name, with arrays in and out."""

    def __init__(self, path: Path, threads: int | None) -> None:
        try:
            self.interpreter = Interpreter(str(path), num_threads=threads)
        except (ValueError, RuntimeError) as error:
            raise HostError(f"{path} cannot be loaded: {str(error)[:200]}") from error
        self.runners: dict[str, Any] = {}

    def __call__(self, signature: str, **inputs: Array) -> dict[str, Array]:
        if signature not in self.runners:
            self.runners[signature] = self.interpreter.get_signature_runner(signature)
        outputs: dict[str, Array] = self.runners[signature](**inputs)
        return outputs


class Host:
    """A model that answers questions about pictures.

    Args:
        folder: the exported folder.
        threads: of LiteRT; None for its own choice.

    Raises:
        HostError: the folder is no export, or incomplete.
    """

    def __init__(self, folder: str | Path, threads: int | None = None) -> None:
        folder = Path(folder)
        try:
            self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            files = self.manifest["files"]
            text = (folder / files["tokenizer"]).read_text(encoding="utf-8")
        except (OSError, ValueError, KeyError) as error:
            raise HostError(f"{folder} is no exported model: {error}") from error
        self.tokenizer = tokenizers.Tokenizer.from_str(text)
        opened = {name: LiteRTFile(folder / name, threads) for name in sorted(_models(files))}
        self.encoder, self.adapter = opened[files["encoder"]], opened[files["adapter"]]
        self.embedder, self.language = opened[files["embedder"]], opened[files["language"]]

    def picture_pixels(self, picture: Picture) -> Array:
        """float32[1, S, S, 3] in 0..1; the encoder normalizes."""
        rule = self.manifest["picture"]
        if not isinstance(picture, np.ndarray):
            picture = read_picture(picture, rule["max_pixels"])
        image = to_square(picture, rule)
        return np.divide(image[None], np.float32(255))

    def picture_rows(self, picture: Picture) -> Array:
        """float32[T, D]: what the decoder reads in the place of a picture.

        Raises:
            HostError: no picture, or its features are not finite.
        """
        features = self.encoder("encode", image=self.picture_pixels(picture))
        name = "a picture" if isinstance(picture, np.ndarray) else str(picture)
        return _finite(self.adapter("adapt", **features)["rows"][0], f"the features of {name}")

    def token_rows(self, ids: Sequence[int]) -> Array:
        """float32[len(ids), D]: the embeddings of tokens."""
        rows = [self._embed(np.array([[i]], "int32")) for i in ids]
        return np.concatenate(rows) if rows else np.zeros((0, self.manifest["width"]), "float32")

    def _embed(self, token: Array) -> Array:
        return self.embedder("embed", token_ids=token)["embeddings"][0]

    def tokenize(self, text: str) -> list[int]:
        """The ids of a text in which no special token counts: each is cut after one character."""
        special = sorted(self.manifest["special_tokens"], key=len, reverse=True)
        spelled = re.finditer(f"(?={'|'.join(re.escape(token) for token in special)})", text)
        cuts = [0, *(match.start() + 1 for match in spelled), len(text)]
        pieces = [text[start:stop] for start, stop in pairwise(cuts)]
        encoded = self.tokenizer.encode_batch(pieces, add_special_tokens=False)
        return [number for piece in encoded for number in piece.ids]

    def prompt_rows(self, pictures: Sequence[Picture], question: str) -> Array:
        """float32[n, D]: the whole prompt, pictures and text in their places.

        Raises:
            HostError: too many pictures, or a question that is empty or cannot be UTF-8.
        """
        question = question.strip() if self.manifest["trim"] else question
        layouts = self.manifest["prompts"]
        if not question.strip() or self.manifest["picture_mark"] in question:
            raise HostError(f"a question of some words is needed, without marks; got {question!r}")
        if re.search("[\ud800-\udfff]", question):  # bytes that could not be read
            raise HostError(f"the question is no UTF-8: {question!r:.80}")
        if len(pictures) >= len(layouts):
            raise HostError(f"{len(pictures)} pictures; this export takes up to {len(layouts) - 1}")
        waiting, rows = iter(pictures), []
        for piece in layouts[len(pictures)]:
            if "picture" in piece:
                rows.append(self.picture_rows(next(waiting)))
            elif "ids" in piece:
                rows.append(self.token_rows(piece["ids"]))
            else:
                text = piece["before"] + question + piece["after"]
                rows.append(self.token_rows(self.tokenize(text)))
        return np.concatenate(rows)

    def empty_caches(self) -> dict[str, Array]:
        """The caches before the first row."""
        shape = tuple(self.manifest["cache_shape"])
        names = [f"kv_cache_{part}_{i}" for i in range(self.manifest["layers"]) for part in "kv"]
        return {name: np.zeros(shape, "float32") for name in names}

    def read_rows(self, rows: Array, caches: dict[str, Array]) -> dict[str, Array]:
        """Reads all rows into the caches, in chunks; rows of zeros fill up the last one."""
        done = 0
        for length, count in chunks(
            len(rows), self.manifest["prefill_lengths"], self.manifest["cache_length"]
        ):
            part = np.zeros((1, length, rows.shape[1]), "float32")
            part[0, :count] = rows[done : done + count]
            places = np.arange(done, done + length, dtype="int32")
            name = "decode" if length == 1 else f"prefill_{length}"
            caches = self.language(name, embeddings=part, input_pos=places, **caches)
            caches.pop("logits", None)
            done += count
        return caches

    def next_logits(self, row: Array, place: int, caches: dict[str, Array]) -> tuple[Array, Any]:
        """Reads one row; returns float32[V] for what comes next, and the caches."""
        place_of_row = np.array([place], "int32")
        out = self.language("decode", embeddings=row[None], input_pos=place_of_row, **caches)
        return out.pop("logits")[0, 0], out

    def tokens(self, rows: Array, max_new_tokens: int | None = None) -> Iterator[int]:
        """The tokens of the answer to a prompt, a stop token included.

        Raises:
            HostError: the prompt fills the cache, or logits are not finite.
        """
        place, slots = len(rows) - 1, self.manifest["cache_length"]
        if len(rows) >= slots:
            raise HostError(f"the prompt has {len(rows)} rows, the cache {slots}: ask less")
        room = min(slots - len(rows), max_new_tokens or self.manifest["max_new_tokens"] or slots)
        caches, row = self.read_rows(rows[:-1], self.empty_caches()), rows[-1:]
        for step in range(room):
            logits, caches = self.next_logits(row, place + step, caches)
            part = f"step {step}" if step else "prefill"
            token = int(_finite(logits, f"the logits of {part}").argmax())
            yield token
            if token in self.manifest["stop_ids"]:
                return
            row = self._embed(np.array([[token]], "int32"))

    def stream(
        self, pictures: Sequence[Picture], question: str, max_new_tokens: int | None = None
    ) -> Iterator[str]:
        """The answer's text as it comes; a piece never ends inside a character.

        Args:
            pictures: files, or uint8[H, W, 3].
            question: text.
            max_new_tokens: longest answer; None for what the export says.
        """
        waiting: list[int] = []
        for token in self.tokens(self.prompt_rows(pictures, question), max_new_tokens):
            waiting.append(token)
            piece = self.tokenizer.decode(waiting, skip_special_tokens=True)
            if not piece.endswith(INCOMPLETE):
                waiting = []
                yield piece
        if waiting:
            yield self.tokenizer.decode(waiting, skip_special_tokens=True)


def _models(files: dict[str, str]) -> set[str]:
    return {name for part, name in files.items() if part != "tokenizer"}


def _finite(numbers: Array, what: str) -> Array:
    if not np.isfinite(numbers).all():
        raise HostError(f"{what} are not finite (NaN or infinite): export the model again")
    return numbers


def chunks(rows: int, lengths: Sequence[int], slots: int) -> Iterator[tuple[int, int]]:
    """(length of the signature, real rows) until all rows are read.

    The smallest length that takes the rest, or else the longest; 1 stands for `decode`, where
    not even padding fits in front of the last slot.
    """
    done = 0
    while done < rows:
        possible = [length for length in lengths if done + length <= slots] or [1]
        enough = [length for length in possible if length >= rows - done]
        length = min(enough) if enough else max(possible)
        count = min(length, rows - done)
        yield length, count
        done += count


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the answer; 2 if something given is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="the exported folder")
    parser.add_argument("picture", help="a photo; '-' for none")
    parser.add_argument("question")
    parser.add_argument("--max-new-tokens", type=int, help="longest answer")
    parser.add_argument("--threads", type=int, help="of LiteRT")
    given = parser.parse_args(arguments)
    try:
        host = Host(given.folder, given.threads)
        pictures = [] if given.picture == "-" else [given.picture]
        for piece in host.stream(pictures, given.question, given.max_new_tokens):
            print(piece, end="", flush=True)
    except HostError as error:
        print(f"host.py: {error}", file=sys.stderr)
        return 2
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
