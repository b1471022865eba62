"""The base class of the Keras models: calls by dictionary or keyword, losses in ``fit``, loading, saving."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from converters.tensorflow_model.fitting import WEIGHTS_REFUSED, refuse_weights
from lxmert_export.errors import PACKAGE, CheckpointError, ConversionError, InputError, MissingExtra, first_line
from lxmert_export.files.beside_weights import Companions
from lxmert_export.model.outputs import ModelOutput
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Task
from lxmert_export.spec.weight_names import BACKBONE, TIED_DECODER, WORD_EMBEDDING, Weight, weight_names

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

    from lxmert_export.checkpoint.dialects import Dialect
    from lxmert_export.checkpoint.read import Checkpoint


class PreTrainedTFLxmert(keras.Model):  # type: ignore[misc]  # Keras ships no types
    """The base class of the Keras models. ``config`` is an ``LxmertConfig``; ``task`` is the task of the class.

    Options: ``name``, and ``dtype``, a Keras dtype policy such as ``"mixed_float16"``. All weights exist once the model
    is constructed.
    """

    task: ClassVar[Task]
    output_class: ClassVar[type[ModelOutput]]

    def __init__(self, config: LxmertConfig, **options: Any) -> None:
        super().__init__(autocast=False, **options)
        self.config = config
        self.companions = Companions()
        self.built = True

    def __call__(self, inputs: Any = None, *arguments: Any, return_dict: bool | None = None, **keywords: Any) -> Any:
        """Calls the model with inputs by keyword, by position as in PyTorch, or in one dictionary by name.

        Returns an output class with the fields of the PyTorch model's, or a tuple if ``return_dict`` is false.
        Lists of numbers become tensors. ``InputError``: an input is missing, given twice, or a ragged list.
        """
        if isinstance(inputs, list | tuple):
            raise InputError("give inputs by keyword, by position or in one dictionary, not in a list or tuple")
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
                "the functional API cannot hold this model's outputs: call it inside your own layer or model class"
            )
        try:
            output = self.output_class(**super().__call__(*arguments, **keywords))
        except InputError as error:
            raise _original_error(error) from None
        wanted = self.config.return_dict if return_dict is None else return_dict
        return output if wanted else output.to_tuple()

    def fit(
        self, x: Any = None, y: Any = None, *arguments: Any, class_weight: Any = None, sample_weight: Any = None,
        validation_data: Any = None, **options: Any,
    ) -> Any:  # fmt: skip
        """Trains as Keras does. ``InputError``: weights of samples or classes, which the model's own loss does not take."""
        refuse_weights(x, y, sample_weight, class_weight)
        if isinstance(validation_data, tuple | list):
            refuse_weights(*keras.utils.unpack_x_y_sample_weight(tuple(validation_data)))
        return super().fit(
            x, y, *arguments, class_weight=class_weight, sample_weight=sample_weight, validation_data=validation_data,
            **options,
        )  # fmt: skip

    def evaluate(self, x: Any = None, y: Any = None, *arguments: Any, sample_weight: Any = None, **options: Any) -> Any:
        """Evaluates as Keras does. ``InputError``: as ``fit``."""
        refuse_weights(x, y, sample_weight)
        return super().evaluate(x, y, *arguments, sample_weight=sample_weight, **options)

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, **options: Any
    ) -> Any:
        """Takes one step as Keras does. ``InputError``: as ``fit``."""
        refuse_weights(x, y, sample_weight, class_weight)
        return super().train_on_batch(x, y, sample_weight, class_weight, **options)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, **options: Any) -> Any:
        """Evaluates one batch as Keras does. ``InputError``: as ``fit``."""
        refuse_weights(x, y, sample_weight)
        return super().test_on_batch(x, y, sample_weight, **options)

    def export(self, filepath: str | Path, format: str = "tf_saved_model", **options: Any) -> None:
        """Refused: Keras' export checks nothing. ``ConversionError`` names the command that writes what it would, checked."""
        target = {"onnx": "onnx", "litert": "tflite"}.get(format, "tensorflow")
        raise ConversionError(
            f"{type(self).__name__} is not exported by Keras: write a checkpoint with save_pretrained(DIRECTORY), and run "
            f"{PACKAGE} {target} DIRECTORY -o {filepath}, which also checks the numbers"
        )

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> tf.Tensor:
        """Returns the model's own loss if labels are among the inputs, else the loss that was given to ``compile``."""
        if y_pred is not None and "loss" in y_pred:
            if sample_weight is not None:
                raise InputError(WEIGHTS_REFUSED.format("sample"))
            if y is not None and (self.loss is not None or self._compile_metrics is None):
                raise InputError(
                    "labels are among the inputs, so the model's own loss is used, and y and the loss given to compile() would "
                    "be ignored: give labels as y, or among the inputs without y"
                )
            return y_pred["loss"]
        if isinstance(self.loss, Mapping) and not isinstance(y, Mapping):
            raise InputError(
                f"compile() was given losses by output name: give y as a dictionary too, with {', '.join(self.loss)}"
            )
        return super().compute_loss(x, y, _compared(y_pred, y), sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Returns Keras' metrics of the outputs that ``y`` names, or of the only output."""
        if y is None and self._compile_metrics is not None:
            raise InputError(
                "metrics compare with y: give the labels as y, not among the inputs, and give compile() a loss"
            )
        return super().compute_metrics(x, y, _compared(y_pred, y), sample_weight)  # type: ignore[no-any-return]

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step of ``fit``."""
        return super().train_step(_with_named_outputs(data))  # type: ignore[no-any-return]

    def test_step(self, data: Any) -> dict[str, Any]:
        """One step of ``evaluate``."""
        return super().test_step(_with_named_outputs(data))  # type: ignore[no-any-return]

    def predict_step(self, data: Any) -> dict[str, Any]:
        """Returns the outputs of one batch of ``predict``, as a dictionary by name."""
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
        ignore_other_parts: bool = False,
    ) -> Self:
        """Loads a checkpoint of any dialect; ``dtype`` is a Keras dtype policy, by default the global one.

        ``num_attention_heads`` is for files without a config. ``fresh_heads`` keeps the initial weights of a head that
        the checkpoint lacks, ``ignore_other_parts`` leaves out other parts of a larger model. ``CheckpointError``: the
        checkpoint does not fit (the message lists every reason).
        ``MissingExtra``: PyTorch is not installed.
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
            ignore_other_parts=ignore_other_parts,
        )
        return cls.from_checkpoint(checkpoint, dtype=dtype)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, *, dtype: str | None = None) -> Self:
        """Builds the model of a checkpoint that was read; ``dtype`` is a Keras dtype policy."""
        model = cls(checkpoint.config, dtype=dtype)
        model.assign_weights(checkpoint.tensors, fresh=frozenset(checkpoint.fresh))
        model.companions = checkpoint.companions
        return model

    def assign_weights(
        self,
        tensors: Mapping[str, Tensor],
        *,
        fresh: frozenset[str] = frozenset(),
        after: Callable[[Tensor], None] = lambda tensor: None,
    ) -> None:
        """Fills the variables from PyTorch tensors by our names (backbone: with ``lxmert.``); kernels are transposed.

        ``after`` is called with each tensor once it is copied, for example to free its memory. ``CheckpointError``: a
        weight is missing and not named in ``fresh``. ``ConversionError``: a weight does not fit the variable's dtype.
        """
        for weight, variable in self.named_variables():
            if weight.ours in fresh:
                continue
            if weight.ours not in tensors:
                raise CheckpointError(f"{weight.ours} is missing")
            values = _to_numpy(tensors[weight.ours], transposed=weight.kind == "kernel")
            with np.errstate(over="ignore"):  # an overflow is reported below, by name
                cast = values.astype(variable.dtype)
            if cast.dtype != values.dtype and not np.isfinite(cast).all():
                largest = np.abs(values).max()
                raise ConversionError(
                    f"{weight.ours} does not fit {variable.dtype}: its largest magnitude is {largest:.4g}"
                )
            variable.assign(cast)
            after(tensors[weight.ours])

    def backbone(self) -> Any:
        """Returns the ``TFLxmertModel``: this model or the one inside. No property: Keras would follow it endlessly."""
        return getattr(self, "lxmert", self)

    def named_variables(self) -> list[tuple[Weight, keras.Variable]]:
        """Returns every variable with its names; a tied decoder has no variable."""
        by_path = {variable.path: variable for variable in self.variables}
        prefix = BACKBONE.replace(".", "/") if self.task == "model" else ""
        return [
            (weight, by_path[weight.variable.removeprefix(prefix)])
            for weight in weight_names(self.config, self.task)
            if not (weight.ours == TIED_DECODER and self.config.tie_word_embeddings)
        ]

    def save_pretrained(self, directory: str | Path, *, dialect: Dialect = "hf", overwrite: bool = False) -> None:
        """Writes a checkpoint in the dialect ``hf``, ``original`` or ``tf``: weights, config, tokenizer and labels.

        Tokenizer and label files are those that lay beside the weights which ``from_pretrained`` read.
        ``MissingExtra``: PyTorch is not installed.
        """
        try:
            import torch
        except ModuleNotFoundError as error:
            raise MissingExtra("writing a checkpoint", "torch") from error
        from lxmert_export.checkpoint.write import write_checkpoint

        tensors = {}
        for weight, variable in self.named_variables():
            values = variable.numpy()
            # torch.from_numpy takes no bfloat16; float32 holds all of its values
            is_bfloat16 = variable.dtype == "bfloat16"
            tensor = torch.from_numpy(values.astype(np.float32)).bfloat16() if is_bfloat16 else torch.from_numpy(values)
            tensors[weight.ours] = tensor.t() if weight.kind == "kernel" else tensor
        if self.task == "pretraining" and self.config.tie_word_embeddings:
            tensors[TIED_DECODER] = tensors[WORD_EMBEDDING]
        write_checkpoint(
            tensors, self.config, self.task, directory, dialect=dialect, companions=self.companions, overwrite=overwrite
        )

    def get_config(self) -> dict[str, Any]:
        """Returns what a ``.keras`` file stores of the model beside its weights."""
        return {
            "config": self.config.to_dict(),
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Builds a model, without its weights, from what ``get_config`` returned."""
        policy = keras.dtype_policies.deserialize(config["dtype"])
        return cls(LxmertConfig.from_dict(config["config"]), name=config["name"], dtype=policy)


def _as_tensor(name: str, value: Any) -> Any:
    """Turns a list of numbers into a tensor, inside ``obj_labels`` too; returns anything else unchanged."""
    if isinstance(value, Mapping):  # obj_labels: pairs (labels, confidence)
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
        raise InputError(f"{name} is a list that cannot become a tensor: {first_line(error)}") from error


def _original_error(error: InputError) -> InputError:
    """Returns the one-line error that was raised, without the list of arguments that Keras adds to it."""
    while isinstance(error.__context__, InputError):
        error = error.__context__
    return InputError(str(error))


def _compared(output: Any, y: Any) -> Any:
    """Returns the outputs that Keras compares with ``y``: those that ``y`` names, or the only one, or all by name."""
    if not isinstance(output, ModelOutput):
        return output
    named = {name: value for name, value in output.items() if name != "loss" and not isinstance(value, tuple)}
    if isinstance(y, Mapping):
        if unknown := sorted(set(y) - set(named)):
            raise InputError(f"y names {', '.join(unknown)}; the outputs are {', '.join(named)}")
        return {name: named[name] for name in y}
    return next(iter(named.values())) if len(named) == 1 else named


def _with_named_outputs(data: Any) -> Any:
    """Adds ``return_dict=True`` to a batch, so that outputs come by name whatever the config says."""
    inputs, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    return {**inputs, "return_dict": True}, y, sample_weight


def _to_numpy(tensor: Tensor, *, transposed: bool) -> np.ndarray[Any, Any]:
    data = tensor.detach().t() if transposed else tensor.detach()
    # numpy has no bfloat16; float32 holds every value of it.
    return (data.float() if str(data.dtype) == "torch.bfloat16" else data).numpy()
