"""What every vision network that changes its form needs: compiled functions, config, presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self

import keras

from dl_techniques.errors import FusionError, PresetError, VariantError
from dl_techniques.layers.freezing import set_flags, take_flags
from dl_techniques.layers.quantized.restore import restore
from dl_techniques.layers.reparameterization import Reparameterizable, sync_variables
from dl_techniques.models.portable_compile import PortableCompile
from dl_techniques.models.presets import hub
from dl_techniques.models.presets import vision_folder as preset_files
from dl_techniques.models.presets.readers import VISION, find_reader, reader_of
from dl_techniques.models.vision import keras_quantization
from dl_techniques.models.vision.picture_parts import PictureParts
from dl_techniques.runtime.memory import older_objects_kept
from dl_techniques.runtime.recording import recorded_predictions
from dl_techniques.runtime.traced_once import TracedOnce
from dl_techniques.typing import Tensor


class SwitchableModel(Reparameterizable, PictureParts, PortableCompile, TracedOnce, keras.Model):
    """A functional network of switchable layers.

    Subclasses call `super().__init__(inputs=..., outputs=..., name=...)`, set their sublayers and
    then call `start_in(reparameterized)`, or `start_as_built()` where their parts come in a form.

    Attributes:
        quantization: how its layers are quantized, as `dl_techniques.compression` noted it: the
            `kind`, and of each of the `layers` the scheme. None for a float network.
    """

    quantization: dict[str, Any] | None = None
    include_preprocessing: bool = False
    rescaling: Sequence[Any] = ()
    predict_function: Any  # of keras.Model

    def start_in(self, forms: bool | str | Mapping[str, bool | str]) -> None:
        """Gives every switch the form that a saved config names.

        Args:
            forms: `True` (fused), `False` (branched), "folded", or switch -> its form.

        Raises:
            VariantError: another word.
        """
        for path, switch in list(self.switches()):
            switch.declare_form(_wanted_form(forms, path, switch.is_fold))
        self.start_as_built()

    def start_as_built(self) -> None:
        """Leaves every switch in the form that it has."""
        self._compiled_form: dict[str, bool] | None = None
        self._function_forms: dict[str, dict[str, bool]] = {}
        sync_variables(self)
        self.hold_parts()

    def show_arguments(self, config: Any, hidden: Collection[str]) -> None:
        """Gives the network an attribute for every field of its config, as Keras' layers have.

        Args:
            config: dataclass.
            hidden: fields that are no arguments of the constructor.
        """
        for field in dataclasses.fields(config):
            if field.name not in hidden:
                setattr(self, field.name, getattr(config, field.name))

    def rescaled(self, images: Tensor) -> Any:
        """Pictures as the first convolution takes them, in the type that the network computes in.

        Args:
            images: float[B, H, W, 3] as the network is called with.
        """
        if self.rescaling:
            images = keras.ops.convert_to_tensor(images, "float32")
        for layer in self.rescaling:
            images = layer(images)
        return keras.ops.convert_to_tensor(images, self.compute_dtype)

    def form_config(self) -> bool | str | dict[str, bool | str]:
        """The current form in the shortest words that `start_in` understands."""
        if self.folded:
            return "folded" if any(s.is_fold for _, s in self.switches()) else True
        forms = {path: switch.form_word() for path, switch in self.switches()}
        if all(forms[path] is not switch.is_fold for path, switch in self.switches()):
            if not any(isinstance(form, str) for form in forms.values()):
                return True
        return forms if any(forms.values()) else False

    def quantization_config(self) -> dict[str, Any]:
        """What a quantized network adds to its config; nothing for a float one."""
        own = {} if self.quantization is None else {"quantization": self.quantization}
        return {**own, **keras_quantization.noted(self)}

    def quantize(
        self, mode: Any = None, config: Any = None, filters: Any = None, **kwargs: Any
    ) -> None:
        """Quantizes the dense layers as Keras does; files and presets keep them so.

        Convolutions stay in floating point: `compression.quantize_weights` takes them as well. A
        network that shall be folded is folded before.

        Args:
            mode: `"int8"`, `"int4"` or `"float8"`.
            config: `keras.quantizers.QuantizationConfig` instead of `mode`.
            filters: Further choice of layers, as in `keras.Model.quantize`.
            **kwargs: Of `keras.Model.quantize`.

        Raises:
            CompressionError: another mode.
        """
        keras_quantization.check_mode(mode, config, self.name)
        wanted = keras_quantization.layer_filter(filters)

        def chosen(layer: keras.layers.Layer) -> bool:
            return keras_quantization.able(layer) and wanted(layer)

        with older_objects_kept():  # Keras collects garbage after every kernel
            super().quantize(mode, config=config, filters=chosen, **kwargs)
        sync_variables(self)

    @property
    def _learns_rounding(self) -> bool:
        """Whether it is made for quantization-aware training, which takes the folded form."""
        return self.quantization is not None and self.quantization["kind"] == "fake_quant"

    def reparameterize(self, fold: bool = False) -> None:
        """Turns the training form into the inference form, see `Reparameterizable`."""
        before = self.form_state()
        super().reparameterize(fold)
        self._note_change(before)

    def _note_change(self, before: dict[str, bool]) -> None:
        """An optimizer that has begun knows the variables of then, even if the form comes back."""
        optimizer = getattr(self, "optimizer", None)
        if optimizer is not None and optimizer.built and before != self.form_state():
            self._compiled_form = {}

    def reset_reparameterization(self) -> None:
        """Goes back to the training form, see `Reparameterizable`.

        Raises:
            FusionError: the network is quantized, or called inside a traced function.
        """
        if self.quantization is not None:
            raise FusionError(
                f"{self.name} is quantized, and its branches are gone: go back to the network that "
                "it was made from"
            )
        before = self.form_state()
        super().reset_reparameterization()
        self._note_change(before)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Keras' `compile`; remembers in which form the network was compiled."""
        super().compile(*args, **kwargs)
        self._compiled_form = self.form_state()

    def make_train_function(self, force: bool = False) -> Any:
        """Builds the training function.

        Raises:
            FusionError: the form changed after `compile()`, or the network is folded.
        """
        if self._compiled_form is not None and self._compiled_form != self.form_state():
            raise FusionError(
                f"{self.name} changed its form after compile(), and the optimizer still holds the "
                "old variables: call compile() again, after reset_reparameterization() if the "
                "branches are to be trained"
            )
        if not self._learns_rounding and any(
            s.is_fold and s.inference_form for _, s in self.switches()
        ):
            raise FusionError(
                f"{self.name} is folded, which is for inference: call reset_reparameterization(), "
                "then compile() and fit()"
            )
        return super().make_train_function(force or self._form_changed("train"))

    def make_test_function(self, force: bool = False) -> Any:
        """Builds the evaluation function; anew when the form has changed."""
        return super().make_test_function(force or self._form_changed("test"))

    def make_predict_function(self, force: bool = False) -> Any:
        """Builds the prediction function; anew when the form has changed."""
        before = self.predict_function
        super().make_predict_function(force or self._form_changed("predict"))
        if self.predict_function is not before:
            self.predict_function = recorded_predictions(self, self.predict_function)
        return self.predict_function

    def _form_changed(self, function: str) -> bool:
        state, known = self.form_state(), self._function_forms.get(function)
        self._function_forms[function] = state
        return known is not None and known != state

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """The inverse of `get_config`."""
        config = dict(config)
        trainable, parts = take_flags(config)
        quantization = config.pop("quantization", None)
        by_keras = config.pop(keras_quantization.CONFIG_KEY, None)
        if isinstance(config.get("dtype"), dict):
            config["dtype"] = keras.dtype_policies.deserialize(config["dtype"])
        network = cls(**config)
        if quantization is not None:
            restore(network, quantization)
        if by_keras is not None:
            keras_quantization.restore(network, by_keras)
        if parts or not trainable:
            set_flags(network, trainable, parts)
        return network

    def save_to_preset(self, folder: str | Path) -> None:
        """Writes `config.json` and `model.weights.h5` into a folder, atomically.

        Args:
            folder: where to; created if needed.
        """
        preset_files.save(self, folder)

    def export_to_transformers(self, folder: str | Path) -> None:
        """Writes `model.safetensors` and `config.json` as timm and transformers' timm wrapper read.

        Args:
            folder: where to; an older one is replaced when all is written.

        Raises:
            VariantError: timm has no such network (nano to huge are this package's own).
            CheckpointError: the network is folded.
        """
        reader_of(VISION).write(self, Path(folder))

    @classmethod
    def from_preset(cls, source: str | Path, variant: str | None = None, **overrides: Any) -> Self:
        """A network with its weights: our own preset, or a published checkpoint.

        Published ones are recognised from the names in the file: timm's, Apple's (`ml-fastvit`,
        `ml-mobileclip`, `ml-mobileone`, `ml-fastvlm`) and open_clip's, in training form or fused,
        as safetensors or torch pickle. The network comes in the form that the file has.

        Args:
            source: a folder that `save_to_preset` wrote (of a FastVLMCausalLM too: its encoder), a
                `.keras` file, a weight file or a folder with one, `hf://organisation/name`, or
                "demo": the trained encoder of the shipped model, without a classifier.
            variant: which network a weight file holds; checked against its keys. Defaults to what
                the keys say.
            **overrides: constructor arguments that replace the saved ones, e.g. `dtype` or
                `include_top=False`.

        Raises:
            PresetError: nothing there, damaged, or of another class.
            CheckpointError: a weight file whose tensors make no such network.
            VariantError: an unknown `variant`.
        """
        is_handle = hub.is_hub_handle(source)
        path = hub.fetch(str(source)) if is_handle else preset_files.find(source)
        if not preset_files.is_own(path):
            reader = find_reader(VISION, cls, path, variant)
            if reader is not None:
                network: Self = reader.load(cls, path, variant, overrides)
                return network
        if variant is not None:
            raise PresetError(
                f"{source}: variant={variant!r} is for weight files, and this is none; a preset "
                "knows its network"
            )
        own: Self = preset_files.load(cls, path, overrides)
        return own


def paths_below(name: str | None) -> AbstractContextManager[Any]:
    """Inside, layers are built with the network's name before their variables' paths.

    Keras has one path for every variable of a model: on PyTorch it finds the gradients to set to
    zero by them (3.15), and of two networks with the same paths it would leave one's alone.
    """
    return nullcontext() if name is None else keras.name_scope(name)


def _wanted_form(
    forms: bool | str | Mapping[str, bool | str], path: str, is_fold: bool
) -> bool | str:
    """The form of one switch: from a saved table, or from a word for all of them."""
    if isinstance(forms, Mapping):
        return forms.get(path, False)
    if forms == "folded":
        return True
    if isinstance(forms, str):
        raise VariantError(f'reparameterized must be True, False or "folded", got {forms!r}')
    return forms and not is_fold
