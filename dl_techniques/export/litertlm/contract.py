"""What the LiteRT-LM engine needs of a bundle and does not check itself.

Some of these mistakes run without a word and give wrong answers; each is an `ExportError` here.

| mistake | what the engine (0.18.1) does |
|---|---|
| the language model takes `tokens`, not `embeddings` | ignores the pictures |
| the metadata are not of the type `fast_vlm` | ignores the pictures |
| the metadata's picture is smaller than the encoder's | reads part of a buffer: wrong pictures |
| the metadata's picture is larger | fails at the first picture |
| the encoder takes channels first, or has several inputs or outputs | fails at the first picture |
| no embedder, encoder or adapter | fails at the start or at the first prompt |
| the caches are laid out (1, S, heads, size) | takes the number of heads for the longest text |
| the last, padded chunk of a prompt lies beyond the cache | fails late in a conversation |
| an id that the tokenizer does not know | fails when the model writes it |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dl_techniques.errors import ExportError
from dl_techniques.export.litertlm.signatures import (
    Signatures,
    SignatureSpec,
    TensorSpec,
    caches_of,
    only,
    prefill_lengths,
)
from dl_techniques.hosts.litertlm_bundle import METADATA, MODEL_TYPES, TOKENIZER, Bundle

MODEL_KIND = "fast_vlm"


@dataclass(frozen=True)
class Facts:
    """What the parts and the metadata must agree on.

    Attributes:
        height: pixels of a picture.
        width: pixels of a picture.
        image_tokens: rows of a picture, T.
        tokens: number of ids that the tokenizer knows.
        cache_length: slots of the caches, S.
        stop_ids: ids that end an answer.
    """

    height: int
    width: int
    image_tokens: int
    tokens: int
    cache_length: int
    stop_ids: tuple[int, ...]


def check_parts(parts: Mapping[str, Signatures], facts: Facts) -> None:
    """Holds the LiteRT files of a bundle against each other and against the facts.

    Args:
        parts: name of a part (`MODEL_TYPES`) -> its signatures.
        facts: the model's numbers.

    Raises:
        ExportError: the first thing that is wrong.
    """
    for name in MODEL_TYPES:
        if not parts.get(name):
            raise ExportError(f"the bundle lacks {name}.tflite; the engine needs it")
    width = check_language_model(parts["language_model"], facts)
    check_embedder(parts["embedder"], width)
    features = check_encoder(parts["vision_encoder"], facts)
    check_adapter(parts["vision_adapter"], features, width, facts)


def check_language_model(signatures: Signatures, facts: Facts) -> int:
    """The decoder's file; returns the width of its embeddings.

    Raises:
        ExportError: see the table of this module.
    """
    lengths = prefill_lengths(signatures)
    if "decode" not in signatures or not lengths:
        raise ExportError(
            f"language_model.tflite has the signatures {sorted(signatures)}; it needs decode and "
            "at least one prefill_N"
        )
    width = _embedding_width(signatures["decode"])
    caches = caches_of(signatures["decode"].inputs)
    for name, length in [("decode", 1), *((f"prefill_{n}", n) for n in lengths)]:
        _check_step(name, signatures[name], length, width, caches)
    _check_caches(caches, facts.cache_length)
    check_chunks(lengths, facts.cache_length, facts.image_tokens)
    logits = signatures["decode"].outputs.get("logits")
    if logits is None or logits.dtype != "float32" or logits.shape[:2] != (1, 1):
        raise ExportError(f"decode must give logits float32[1, 1, V]; it gives {logits}")
    if logits.shape[2] != facts.tokens:
        raise ExportError(
            f"the model chooses among {logits.shape[2]} ids and the tokenizer knows {facts.tokens}"
            "; they must be the same, or the engine fails at an id that it cannot write"
        )
    return width


def _embedding_width(decode: SignatureSpec) -> int:
    rows = decode.inputs.get("embeddings")
    if rows is None:
        given = sorted(name for name in decode.inputs if not name.startswith("kv_cache_"))
        raise ExportError(
            f"the language model takes {given} and no embeddings; the engine would ignore every "
            "picture"
        )
    return rows.shape[-1]


def _check_step(
    name: str, signature: SignatureSpec, length: int, width: int, caches: Mapping[str, TensorSpec]
) -> None:
    """Inputs and caches of `decode` or of a `prefill_N`."""
    wanted = {
        "embeddings": TensorSpec("float32", (1, length, width)),
        "input_pos": TensorSpec("int32", (length,)),
        **caches,
    }
    for tensor, spec in wanted.items():
        if signature.inputs.get(tensor) != spec:
            raise ExportError(
                f"{name} must take {tensor} as {spec}; it takes {signature.inputs.get(tensor)}"
            )
    if caches_of(signature.outputs) != dict(caches):
        raise ExportError(f"{name} must give the caches back under the names that it takes")


def _check_caches(caches: Mapping[str, TensorSpec], slots: int) -> None:
    """Names, and the layout (1, heads, S, head size)."""
    layers = len(caches) // 2
    names = {f"kv_cache_{part}_{i}" for i in range(layers) for part in "kv"}
    if not caches or set(caches) != names:
        raise ExportError(f"caches must be kv_cache_k_i and kv_cache_v_i, got {sorted(caches)}")
    for name, spec in caches.items():
        if spec.dtype != "float32" or len(spec.shape) != 4 or spec.shape[2] != slots:
            raise ExportError(
                f"{name} must be float32[1, heads, {slots}, head size], as long as the metadata "
                f"say; it is {spec}"
            )


def check_chunks(lengths: Sequence[int], cache_length: int, image_tokens: int) -> None:
    """A padded last chunk always fits, and a picture with a question does too.

    Raises:
        ExportError: a length does not divide the cache, or the cache is too short.
    """
    for length in lengths:
        if cache_length % length:
            raise ExportError(
                f"cache_length={cache_length} is no multiple of the prefill length {length}, so "
                "the last chunk of a long prompt would not fit; give a multiple"
            )
    least = image_tokens + 2 * min(lengths)
    if cache_length < least:
        raise ExportError(
            f"cache_length={cache_length} leaves no room for an answer about a picture of "
            f"{image_tokens} tokens; give at least {least}"
        )


def check_embedder(signatures: Signatures, width: int) -> None:
    """One token in, one row out.

    Raises:
        ExportError: other inputs or outputs.
    """
    inputs, outputs = only(signatures, "embedder")
    if inputs != TensorSpec("int32", (1, 1)) or outputs != TensorSpec("float32", (1, 1, width)):
        raise ExportError(
            f"embedder.tflite must turn int32[1, 1] into float32[1, 1, {width}]; it turns {inputs} "
            f"into {outputs}"
        )


def check_encoder(signatures: Signatures, facts: Facts) -> TensorSpec:
    """One picture in, channels last, as large as the metadata say; returns the output.

    Raises:
        ExportError: see the table of this module.
    """
    picture, features = only(signatures, "vision_encoder")
    if len(picture.shape) != 4 or picture.shape[-1] != 3 or picture.dtype != "float32":
        raise ExportError(
            f"vision_encoder.tflite must take a picture float32[1, H, W, 3], channels last; it "
            f"takes {picture}"
        )
    if picture.shape != (1, facts.height, facts.width, 3):
        raise ExportError(
            f"vision_encoder.tflite takes {picture.shape[1]}x{picture.shape[2]} pixels, and the "
            f"metadata say {facts.height}x{facts.width}; the engine would read wrong pictures"
        )
    return features


def check_adapter(signatures: Signatures, features: TensorSpec, width: int, facts: Facts) -> None:
    """The encoder's output in, one row per placeholder out.

    Raises:
        ExportError: it does not follow the encoder, or gives other rows.
    """
    taken, rows = only(signatures, "vision_adapter")
    if taken != features:
        raise ExportError(
            f"vision_adapter.tflite takes {taken}, and the encoder gives {features}; export both "
            "from one model"
        )
    good = [(1, facts.image_tokens, width), (1, 1, facts.image_tokens, width)]
    if rows.dtype != "float32" or rows.shape not in good:
        raise ExportError(
            f"vision_adapter.tflite must give float32{list(good[0])}, a row per placeholder; it "
            f"gives {rows}"
        )


def check_bundle(bundle: Bundle, facts: Facts) -> None:
    """Holds a written bundle against the facts.

    Raises:
        ExportError: a section is missing, or the metadata say something else.
    """
    missing = {METADATA, TOKENIZER, *MODEL_TYPES.values()} - set(bundle.sections)
    if missing:
        raise ExportError(f"the bundle lacks the sections {sorted(missing)}; the engine needs them")
    metadata = bundle.metadata
    kind = metadata.llm_model_type.WhichOneof("model_type")
    if kind != MODEL_KIND:
        raise ExportError(
            f"the metadata are of the type {kind}, not {MODEL_KIND}; the engine would ignore every "
            "picture"
        )
    picture = metadata.llm_model_type.fast_vlm
    size = (picture.image_tensor_height, picture.image_tensor_width)
    if size != (facts.height, facts.width):
        raise ExportError(
            f"the metadata say a picture of {size[0]}x{size[1]} pixels, and the encoder takes "
            f"{facts.height}x{facts.width}; the engine would read wrong pictures"
        )
    if metadata.max_num_tokens != facts.cache_length:
        raise ExportError(
            f"the metadata say max_num_tokens={metadata.max_num_tokens}, and the caches have "
            f"{facts.cache_length} slots; they must be the same"
        )
    stops = {i for stop in metadata.stop_tokens for i in stop.token_ids.ids}
    if not stops or stops != set(facts.stop_ids):
        raise ExportError(
            f"the metadata stop at {sorted(stops)}, and the model at {sorted(facts.stop_ids)}; "
            "an answer would not end"
        )
