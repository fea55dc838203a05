"""Changing a built layer between its training form and its inference form.

Two depths exist. *Fusing* is what the published networks do: parallel branches become one
convolution. *Folding* goes on from there, still exactly: a BatchNorm into the convolution before
or after it, a layer scale into the matrix before it. A `SwitchableLayer` has one such switch, of
either kind, and stands in its training form or its inference form; a container hands
`reparameterize()` down to all switches inside it. `fused` and `folded` are words of a network.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from dl_techniques.compat.keras_layers import (
    all_parts,
    drop_part,
    in_stateless_scope,
    list_torch_parameters,
    name_scope_of,
    named_parts,
    parts_of,
    sort_parts,
    unlocked,
)
from dl_techniques.errors import FusionError
from dl_techniques.layers.folding import Fold
from dl_techniques.layers.freezing import Flags, LayerOfParts, part_flags, set_flags
from dl_techniques.layers.fusion import Array, Linear, as_float64

_HALF = ("float16", "bfloat16")


class Reparameterizable:
    """Mixin for layers and models: the three words, applied to every switch inside."""

    name: str

    def switches(self) -> Iterator[tuple[str, SwitchableLayer]]:
        """All switches in or below this layer, parents first, with their paths."""
        yield from _walk(self, "")

    def reparameterize(self, fold: bool = False) -> None:
        """Turns the training form into the inference form, in place. Calling it twice is harmless.

        Args:
            fold: bool. Also fold what the published networks leave unfused: BatchNorms beside
                convolutions, layer scales. Exact as well. Defaults to `False`.

        Raises:
            FusionError: called inside a traced or stateless function, `fold` with adapters of LoRA
                inside, or Keras has quantized a layer that folding would change.
        """
        _refuse_inside_trace(self.name)
        if fold:
            _refuse_adapters(self)
            _refuse_quantized(self, True)
        for _, switch in self.switches():
            if fold or not switch.is_fold:
                switch.set_form(True)
        sync_variables(self)

    def reset_reparameterization(self) -> None:
        """Goes back to the training form.

        A layer that fused itself gets its branches back exactly. One that was trained while fused,
        or loaded fused, gets branches that compute the same function at inference.

        Raises:
            FusionError: called inside a traced or stateless function, or the network is folded and
                Keras has quantized a layer that holds what was folded.
        """
        _refuse_inside_trace(self.name)
        _refuse_quantized(self, False)
        for _, switch in self.switches():
            switch.set_form(False)
        sync_variables(self)

    @property
    def reparameterized(self) -> bool:
        """Whether every block that the published networks fuse is fused."""
        return all(switch.inference_form for _, switch in self.switches() if not switch.is_fold)

    @property
    def folded(self) -> bool:
        """Whether the deeper, also exact, step is done everywhere."""
        return all(switch.inference_form for _, switch in self.switches())

    def hold_parts(self) -> None:
        """Lets all parts know this network, whose variables change when a part's form does."""
        for inner in all_parts(self):
            inner._holder = weakref.ref(self)

    def form_state(self) -> dict[str, bool]:
        """Path of every switch -> whether it stands in its inference form."""
        return {path: switch.inference_form for path, switch in self.switches()}


class SwitchableLayer(Reparameterizable, LayerOfParts):
    """A layer that exists in a training form and in an inference form.

    Subclasses set `is_fold`, declare in `folds` which parts become which layer, and create the
    parts of either form in `create_parts`. Both directions are done here.

    Args:
        inference_form: bool. Start in the inference form.
        **kwargs: name, dtype.
    """

    is_fold = False
    part_order: tuple[str, ...] = ()
    """Names of all sublayers in the order in which a fresh layer creates them, where a change of
    form would otherwise leave another order: optimizers number their variables by it."""

    def __init__(self, inference_form: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inference_form = inference_form
        self._branch_values: tuple[Array, ...] | None = None
        self._built_shape: tuple[int | None, ...] | None = None

    def folds(self) -> tuple[Fold, ...]:
        """What the inference form has folded; a way back runs through them in this order."""
        raise FusionError(f"{type(self).__name__} does not declare its folds")

    def form_parts(self, inference: bool) -> tuple[str, ...]:
        """Names of the sublayers that only this form has."""
        return tuple(name for fold in self.folds() for name in fold.parts(inference))

    def create_parts(self) -> None:
        """Creates the sublayers of the current form."""

    def build_parts(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds the sublayers of the current form."""
        for name in self.form_parts(self.inference_form):
            part = getattr(self, name, None)
            if part is not None and not part.built:
                part.build(input_shape)

    def inference_arrays(self) -> tuple[Array, ...]:
        """float64 values of the inference form's variables, computed from the training form."""
        return tuple(array for fold in self.folds() for array in fold.linear(self))

    def inference_variables(self) -> tuple[Any, ...]:
        """The variables that `inference_arrays` fills, in order."""
        targets = [fold.target(self) for fold in self.folds()]
        return tuple(v for target in targets for v in (target.kernel, target.bias))

    def branch_variables(self) -> tuple[Any, ...]:
        """The training form's variables that fusing replaces or changes, in order."""
        replaced = [v for n in self.form_parts(False) for v in _weights(getattr(self, n))]
        changed = [v for fold in self.folds() for v in fold.changed(self)]
        return tuple({id(v): v for v in (*replaced, *changed)}.values())

    def neutral_branches(self) -> None:
        """Prepares freshly created branches so that `absorb` can reach any function."""
        for fold in self.folds():
            fold.neutral(self)

    def absorb(self, wanted: tuple[Array, ...]) -> None:
        """Changes the training form so that it computes what `wanted` computes."""
        for fold, kernel, bias in zip(self.folds(), wanted[::2], wanted[1::2], strict=True):
            fold.absorb(self, Linear(kernel, bias))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds what the current form consists of."""
        self._built_shape = tuple(input_shape)
        self.build_parts(self._built_shape)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape, unless a subclass says otherwise."""
        return input_shape

    def set_form(self, inference: bool) -> None:
        """Switches to the inference form (`True`) or the training form, keeping the function."""
        if inference == self.inference_form:
            return
        if not self.built:
            self._replace_parts(inference)
        elif inference:
            self._to_inference()
        else:
            self._to_branches()

    def form_word(self) -> bool | str:
        """The current form as a saved config names it; `declare_form` takes the same."""
        return self.inference_form

    def declare_form(self, form: bool | str) -> None:
        """Switches the structure only: for a model that is about to receive its weights.

        Args:
            form: `True` (inference form), `False` (training form), or a layer's own word.

        Raises:
            FusionError: a word that this layer does not know.
        """
        if isinstance(form, str):
            raise FusionError(f"{self.name} has no form {form!r}, only True and False")
        if form != self.inference_form:
            self._replace_parts(form)

    def _to_inference(self) -> None:
        for part in [getattr(self, name) for name in self.form_parts(False)]:
            for _, inner in list(_walk(part, "")):
                inner.set_form(False)
        arrays = self.inference_arrays()
        branches = tuple(np.array(keras.ops.convert_to_numpy(v)) for v in self.branch_variables())
        self._replace_parts(True)
        _assign(self.inference_variables(), arrays)
        self._branch_values = branches

    def _to_branches(self) -> None:
        wanted = tuple(as_float64(v) for v in self.inference_variables())
        kept, self._branch_values = self._branch_values, None
        dtypes = [keras.backend.standardize_dtype(v.dtype) for v in self.inference_variables()]
        self._replace_parts(False)
        if kept is not None:
            _assign(self.branch_variables(), kept)
        else:
            self.neutral_branches()
        if not _same_after_cast(self.inference_arrays(), wanted, dtypes):
            self._absorb_or_stay(wanted)

    def _absorb_or_stay(self, wanted: tuple[Array, ...]) -> None:
        """Goes back to the inference form if the training form cannot hold its function."""
        try:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                self.absorb(wanted)
                now = self.inference_arrays()
            if not _about_equal(wanted, now, self.variable_dtype in _HALF):
                raise FusionError(
                    f"{self.name}: its fused weights were trained to what its branches cannot "
                    "compute; keep it fused, or train its branches and fuse afterwards"
                )
        except FusionError:
            self._replace_parts(True)
            _assign(self.inference_variables(), wanted)
            raise

    def _replace_parts(self, inference: bool) -> None:
        left = _PartFlags.of(self)
        with unlocked(self):
            for name in self.form_parts(self.inference_form):
                drop_part(self, name)
            self.inference_form = inference
            self.create_parts()
            if self.built and self._built_shape is not None:
                with name_scope_of(self):
                    self.build_parts(self._built_shape)
            order = {name: rank for rank, name in enumerate(self.part_order)}
            sort_parts(self, lambda part: order.get(part.name, len(order)))
        left.hand_on(self)


@dataclasses.dataclass
class _PartFlags:
    """Which parts of a form are frozen, while a layer stands in another form.

    Args:
        inference: the form.
        frozen: whether nothing of it was trainable; its successor is then frozen as well.
        parts: name of a part -> its flag, and the flags below it.
    """

    inference: bool
    frozen: bool
    parts: dict[str, tuple[bool, Flags]]

    @classmethod
    def of(cls, layer: SwitchableLayer) -> _PartFlags:
        """Those of the form that a layer stands in."""
        names = layer.form_parts(layer.inference_form)
        parts = {n: part for n in names if (part := getattr(layer, n, None)) is not None}
        weights = [v for part in parts.values() for v in part.variables]
        frozen = not any(v.trainable for v in weights) if weights else not layer.trainable
        flags = {name: (bool(part.trainable), part_flags(part)) for name, part in parts.items()}
        return cls(layer.inference_form, frozen, flags)

    def hand_on(self, layer: SwitchableLayer) -> None:
        """Gives the parts of the other form, which are new, their flags.

        They come back as they were, unless the layer has been frozen or made trainable since.
        Without such a memory parts of the same name keep their flags, and the others are frozen
        where nothing was trainable.
        """
        earlier = layer.__dict__.get("_flags_of_form", {}).get(layer.inference_form)
        known = {} if earlier is None or earlier.frozen != self.frozen else earlier.parts
        for name in layer.form_parts(layer.inference_form):
            part = getattr(layer, name, None)
            if part is not None:
                set_flags(part, *known.get(name, self.parts.get(name, (not self.frozen, {}))))
        memory = {**layer.__dict__.get("_flags_of_form", {}), self.inference: self}
        object.__setattr__(layer, "_flags_of_form", memory)


def sync_variables(layer: Any) -> None:
    """Makes the torch backend's parameter lists equal to the variables that exist now.

    The lists of a network that called `hold_parts` hold their parts' parameters, and follow.
    Inside a stateless scope new variables have no value yet; Keras makes their lists later.
    """
    if in_stateless_scope():
        return
    holder = getattr(layer, "_holder", None)
    network = holder() if holder is not None else None
    for inner in all_parts(network if network is not None else layer, include_self=True):
        list_torch_parameters(inner)


def quantization_mode(layer: Any) -> str | None:
    """Keras' mode of a layer that it has quantized; None of any other."""
    return getattr(layer, "quantization_mode", None)


def _walk(layer: Any, path: str) -> Iterator[tuple[str, SwitchableLayer]]:
    if isinstance(layer, SwitchableLayer):
        yield path, layer
    for part in parts_of(layer):
        yield from _walk(part, f"{path}/{part.name}" if path else part.name)


def _weights(part: Any) -> list[Any]:
    return [] if part is None else list(part.weights)


def _assign(variables: tuple[Any, ...], arrays: tuple[Array, ...]) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array.reshape(variable.shape).astype(variable.dtype))


def _same_after_cast(new: tuple[Array, ...], old: tuple[Array, ...], dtypes: list[str]) -> bool:
    """Whether the kept branches still give what the inference form's variables hold."""
    return all(
        np.array_equal(keras.ops.convert_to_numpy(keras.ops.cast(a, d)).astype(np.float64), b)
        for a, b, d in zip(new, old, dtypes, strict=True)
    )


def _about_equal(wanted: tuple[Array, ...], now: tuple[Array, ...], half: bool) -> bool:
    """Whether two inference forms are one function, up to rounding of the branches."""
    largest = max(float(np.max(np.abs(array))) for array in wanted)
    limit = (0.05 if half else 1e-3) * largest
    return all(bool(np.all(np.abs(a - b) <= limit)) for a, b in zip(wanted, now, strict=True))


def _refuse_adapters(layer: Any) -> None:
    """Folding writes into kernels, which layers with adapters only compute."""
    for inner in all_parts(layer, include_self=True):
        if getattr(inner, "lora_enabled", False):
            raise FusionError(
                f"{layer.name}: {inner.path} has LoRA adapters and cannot be folded; save and load "
                "the network, which merges them, or leave fold=True out"
            )


def _refuse_quantized(layer: Any, inference: bool) -> None:
    """Folding multiplies into dense kernels, which are none where Keras keeps integers."""
    for path, switch in layer.switches():
        if switch.is_fold and switch.inference_form is not inference:
            for below, part in named_parts(switch):
                if quantization_mode(part) is not None:
                    raise FusionError(
                        f"{layer.name}: {path}/{below} was quantized by Keras and can neither be "
                        "folded nor unfolded; fold the float network first, then quantize it"
                    )


def _refuse_inside_trace(name: str) -> None:
    if in_stateless_scope():
        raise FusionError(
            f"{name}: cannot change form inside a compiled function, the new weights would be "
            "lost; call reparameterize() or reset_reparameterization() outside of it"
        )
