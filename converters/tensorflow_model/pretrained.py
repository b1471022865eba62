"""What every Keras model class shares: calls by dict or keyword, losses in ``fit``, loading, saving."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import keras
import numpy as np
import tensorflow as tf

from lxmert_export.errors import CheckpointError, ConversionError, InputError, MissingExtra, first_line
from lxmert_export.model.outputs import ModelOutput
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Task
from lxmert_export.spec.weight_names import BACKBONE, TIED_DECODER, WORD_EMBEDDING, Weight, weight_names

if TYPE_CHECKING:
    from torch import Tensor

    from lxmert_export.checkpoint.dialects import Dialect
    from lxmert_export.checkpoint.read import Checkpoint


class PreTrainedTFLxmert(keras.Model):  # type: ignore[misc]  # Keras ships no types
    """The base of the Keras models; ``config`` is an ``LxmertConfig``, ``task`` the task that the class serves.

    Keras options are ``name`` and ``dtype``, a dtype policy such as ``"mixed_float16"``. All weights are there from the start.
    """

    task: ClassVar[Task]
    output_class: ClassVar[type[ModelOutput]]

    def __init__(self, config: LxmertConfig, **options: Any) -> None:
        super().__init__(autocast=False, **options)
        self.config = config
        self.built = True

    def __call__(self, inputs: Any = None, *arguments: Any, return_dict: bool | None = None, **keywords: Any) -> Any:
        """Calls by keyword, in the order of the PyTorch model, or with one dictionary of the same names.

        Returns an output class whose fields are those of the PyTorch model's; a tuple where ``return_dict`` is false.
        Lists of numbers become tensors. ``InputError``: an input missing, or given twice, or a list that is ragged.
        """
        if isinstance(inputs, list | tuple):
            raise InputError(
                "give inputs by keyword, in the order of call, or in one dictionary: not in a list or tuple"
            )
        if isinstance(inputs, Mapping):
            if repeated := sorted(set(inputs) & set(keywords)):
                raise InputError(f"{', '.join(repeated)} is both in the dictionary and a keyword")
            keywords = {**inputs, **keywords}
            return_dict = keywords.pop("return_dict", return_dict)
        elif inputs is not None:
            arguments = (inputs, *arguments)
        arguments = tuple(_as_tensor(f"input {place}", value) for place, value in enumerate(arguments))
        keywords = {name: _as_tensor(name, value) for name, value in keywords.items()}
        if any(isinstance(value, keras.KerasTensor) for value in (*arguments, *keywords.values())):
            raise InputError(
                "the functional API cannot hold this model's outputs: call it in a layer or model of your own"
            )
        try:
            output = self.output_class(**super().__call__(*arguments, **keywords))
        except InputError as error:
            raise _as_it_was_raised(error) from None
        wanted = self.config.return_dict if return_dict is None else return_dict
        return output if wanted else output.to_tuple()

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> tf.Tensor:
        """The model's own loss where labels are among the inputs; else the one that was given to ``compile``."""
        if y_pred is not None and "loss" in y_pred:
            if sample_weight is not None:
                raise InputError("sample weights need a loss given to compile(), and the labels as y")
            return y_pred["loss"]
        if isinstance(self.loss, Mapping) and not isinstance(y, Mapping):
            raise InputError(f"the loss was given to compile() by name: give y by name too, {', '.join(self.loss)}")
        return super().compute_loss(x, y, _compared(y_pred, y), sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Keras' metrics, over the outputs that ``y`` names, or over the only one."""
        if y is None and self._compile_metrics is not None:
            raise InputError(
                "metrics compare with y: give the labels as y, with a loss to compile(), not among the inputs"
            )
        return super().compute_metrics(x, y, _compared(y_pred, y), sample_weight)  # type: ignore[no-any-return]

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step of ``fit``."""
        return super().train_step(_asking_for_names(data))  # type: ignore[no-any-return]

    def test_step(self, data: Any) -> dict[str, Any]:
        """One step of ``evaluate``."""
        return super().test_step(_asking_for_names(data))  # type: ignore[no-any-return]

    def predict_step(self, data: Any) -> dict[str, Any]:
        """What ``predict`` returns for a batch: a dictionary of outputs by name."""
        inputs, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return dict(self(inputs, training=False, return_dict=True).items())

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        dtype: str | None = None,
        revision: str | None = None,
        num_attention_heads: int | None = None,
        fresh_heads: bool = False,
    ) -> Self:
        """Loads a checkpoint of any dialect; ``dtype`` is a Keras dtype policy, by default the global one.

        ``num_attention_heads`` is for files without a config; ``fresh_heads`` keeps the initial weights of a head that the
        checkpoint lacks. ``CheckpointError``: whatever does not fit, all of it named at once.
        """
        try:
            from lxmert_export.checkpoint.read import read_checkpoint
        except ModuleNotFoundError as error:
            raise MissingExtra("reading a checkpoint", "torch") from error
        checkpoint = read_checkpoint(
            name_or_path,
            task=cls.task,
            revision=revision,
            num_attention_heads=num_attention_heads,
            fresh_heads=fresh_heads,
        )
        return cls.from_checkpoint(checkpoint, dtype=dtype)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, *, dtype: str | None = None) -> Self:
        """The model of a checkpoint that is read already."""
        model = cls(checkpoint.config, dtype=dtype)
        model.assign_weights(checkpoint.tensors, fresh=frozenset(checkpoint.fresh))
        return model

    def assign_weights(
        self,
        tensors: Mapping[str, Tensor],
        *,
        fresh: frozenset[str] = frozenset(),
        after: Callable[[Tensor], None] = lambda tensor: None,
    ) -> None:
        """Fills the variables from PyTorch tensors by our names, the backbone's with ``lxmert.``; kernels are transposed.

        ``after`` is called with each tensor once it has been copied: a place to let go of its memory.
        ``CheckpointError``: a weight that is missing and not among ``fresh``. ``ConversionError``: one whose values the
        variable's dtype cannot hold.
        """
        for weight, variable in self.named_variables():
            if weight.ours in fresh:
                continue
            if weight.ours not in tensors:
                raise CheckpointError(f"{weight.ours} is missing")
            values = _to_numpy(tensors[weight.ours], transposed=weight.kind == "kernel")
            with np.errstate(over="ignore"):  # an overflow is told of below, by name
                cast = values.astype(variable.dtype)
            if cast.dtype != values.dtype and not np.isfinite(cast).all():
                largest = np.abs(values).max()
                raise ConversionError(
                    f"{weight.ours} does not fit {variable.dtype}: its largest magnitude is {largest:.4g}"
                )
            variable.assign(cast)
            after(tensors[weight.ours])

    def backbone(self) -> Any:
        """The ``TFLxmertModel``: this one, or the one inside. No property: Keras would walk through it without end."""
        return getattr(self, "lxmert", self)

    def named_variables(self) -> list[tuple[Weight, keras.Variable]]:
        """Every variable beside its names; a tied decoder is not among them."""
        by_path = {variable.path: variable for variable in self.variables}
        prefix = BACKBONE.replace(".", "/") if self.task == "model" else ""
        return [
            (weight, by_path[weight.variable.removeprefix(prefix)])
            for weight in weight_names(self.config, self.task)
            if not (weight.ours == TIED_DECODER and self.config.tie_word_embeddings)
        ]

    def save_pretrained(self, directory: str | Path, *, dialect: Dialect = "hf", overwrite: bool = False) -> None:
        """Writes the weights and the config as a checkpoint: Hugging Face's, the original or the TensorFlow dialect."""
        try:
            import torch
        except ModuleNotFoundError as error:
            raise MissingExtra("writing a checkpoint", "torch") from error
        from lxmert_export.checkpoint.write import write_checkpoint

        tensors = {}
        for weight, variable in self.named_variables():
            values = variable.numpy()
            brain = variable.dtype == "bfloat16"  # float32 holds every value of it, and PyTorch takes that from numpy
            tensor = torch.from_numpy(values.astype(np.float32)).bfloat16() if brain else torch.from_numpy(values)
            tensors[weight.ours] = tensor.t() if weight.kind == "kernel" else tensor
        if self.task == "pretraining" and self.config.tie_word_embeddings:
            tensors[TIED_DECODER] = tensors[WORD_EMBEDDING]
        write_checkpoint(tensors, self.config, self.task, directory, dialect=dialect, overwrite=overwrite)

    def get_config(self) -> dict[str, Any]:
        """What a ``.keras`` file says of the model; its weights lie beside it."""
        return {
            "config": self.config.to_dict(),
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Rebuilds what ``get_config`` described."""
        policy = keras.dtype_policies.deserialize(config["dtype"])
        return cls(LxmertConfig.from_dict(config["config"]), name=config["name"], dtype=policy)


def _as_tensor(name: str, value: Any) -> Any:
    """A list of numbers as a tensor, those within ``obj_labels`` too; anything else as it is."""
    if isinstance(value, Mapping):  # of pairs: (labels, confidence)
        return {
            key: tuple(_as_tensor(f"{name}['{key}']", part) for part in pair)
            if isinstance(pair, tuple | list)
            else pair
            for key, pair in value.items()
        }
    if not isinstance(value, list):
        return value
    try:
        return tf.convert_to_tensor(value)
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise InputError(f"{name} is a list that is no tensor: {first_line(error)}") from error


def _as_it_was_raised(error: InputError) -> InputError:
    """The error without the list of all arguments that Keras wraps around it: one line again."""
    while isinstance(error.__context__, InputError):
        error = error.__context__
    return InputError(str(error))


def _compared(output: Any, y: Any) -> Any:
    """What Keras' losses and metrics compare with ``y``: the outputs that it names, or the only one that there is."""
    if not isinstance(output, ModelOutput):
        return output
    named = {name: value for name, value in output.items() if name != "loss" and not isinstance(value, tuple)}
    if isinstance(y, Mapping):
        if unknown := sorted(set(y) - set(named)):
            raise InputError(f"y names {', '.join(unknown)}; the outputs are {', '.join(named)}")
        return {name: named[name] for name in y}
    return next(iter(named.values())) if len(named) == 1 else named


def _asking_for_names(data: Any) -> Any:
    """A batch whose outputs come by name, whatever the config's ``return_dict`` says."""
    inputs, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    return {**inputs, "return_dict": True}, y, sample_weight


def _to_numpy(tensor: Tensor, *, transposed: bool) -> np.ndarray[Any, Any]:
    data = tensor.detach().t() if transposed else tensor.detach()
    # numpy has no bfloat16; float32 holds every value of it.
    return (data.float() if str(data.dtype) == "torch.bfloat16" else data).numpy()
