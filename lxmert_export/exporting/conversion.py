"""All that a converter needs: a model, the options, the resulting signature, and inputs to calibrate on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from lxmert_export.artifact.targets import TARGETS
from lxmert_export.demo.words import is_demo_world
from lxmert_export.errors import ConversionError, InputError
from lxmert_export.exporting.calibration import Calibration, demo_calibration, pictured_calibration, read_calibration
from lxmert_export.exporting.given_signature import check_signature
from lxmert_export.exporting.model_to_export import ModelToExport
from lxmert_export.exporting.options import ExportOptions
from lxmert_export.exporting.refusal import check_keep_failed
from lxmert_export.exporting.signature_by_running import check_by_running
from lxmert_export.extras import PICTURES, require
from lxmert_export.option_names import option
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import Signature, Task, task_signature

BYTES_OF_A_WEIGHT = {"fp32": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True)
class Conversion:
    """All that one conversion needs; ``calibration`` is None unless activations are quantised."""

    model: ModelToExport
    options: ExportOptions
    signature: Signature
    calibration: Calibration | None = None

    @property
    def module(self) -> nn.Module:
        """The module to convert."""
        return self.model.module

    @property
    def least_size(self) -> int:
        """The bytes that any file of one of our models has at least.

        Half of its weights: a graph leaves out what its outputs do not need, the last cross layer's visual half for example.
        """
        if self.model.task is None:
            return 0
        values = sum(parameter.numel() for parameter in self.module.parameters())
        return values * BYTES_OF_A_WEIGHT.get(self.options.precision, 1) // 2

    @property
    def limits(self) -> InputLimits:
        """The ids and lengths that the model's embedding tables allow."""
        return InputLimits.of(self.model.config)

    @property
    def lxmert_task(self) -> Task:
        """The task of one of our models, which the converters of targets without ``own_modules`` need."""
        assert self.model.task is not None, "plan_conversion refuses modules of others for such a target"
        return self.model.task


def plan_conversion(model: ModelToExport, options: ExportOptions) -> Conversion:
    """Returns the conversion of a model with these options.

    Raises ``InputError`` if calibration inputs are needed, and are missing or do not fit, and ``ConversionError`` for a
    user's own module if the target does not take one, or a signature that the model cannot honour.
    """
    if model.task is None and not options.row.own_modules:
        takers = ", ".join(row.name for row in TARGETS.values() if row.own_modules)
        raise ConversionError(
            f"{model.name} is a module of your own: target {options.target} takes the classes of lxmert_export; export yours to "
            f"{takers}"
        )
    check_keep_failed(options)
    signature = options.signature or signature_of(model, options)
    if options.signature is not None:
        check_signature(signature, model, options)
        signature = replace(signature, own_module=model.task is None)
        check_by_running(model, signature, options.precision, parity=options.parity, without=options.without_families)
    calibration = _calibration(model, signature, options) if options.calibrates else None
    return Conversion(model, options, signature, calibration)


def signature_of(model: ModelToExport, options: ExportOptions) -> Signature:
    """Returns the signature of a model's task with these options.

    Raises ``ConversionError`` for a user's own module, which has no task.
    """
    if model.task is None:
        raise ConversionError(
            f"{model.name} is a module of your own: pass its signature, which names inputs and outputs"
        )
    return task_signature(
        model.config,
        model.task,
        hidden_states=options.hidden_states,
        attentions=options.attentions,
        object_heads=options.object_heads,
        fixed=options.fixed,
        float_dtype=options.io_dtype,
        integer_dtype=options.row.integers,
    )


def _calibration(model: ModelToExport, signature: Signature, options: ExportOptions) -> Calibration:
    if options.calibration is not None and options.questions is not None:
        if signature.lxmert_task is None:
            raise InputError(f"{option('questions')}: {model.name} is a module of your own; give it inputs alone")
        return pictured_calibration(options.calibration, options.questions, model, signature)
    if options.calibration is not None:
        return read_calibration(options.calibration, signature, InputLimits.of(model.config))
    if not is_demo_world(model.config.extra) or signature.task == "nlvr2":
        raise InputError(
            f"{option('full_integer') if options.full_integer else option('precision', 'int8')}: measures ranges on real inputs: "
            f"give yours as {option('calibration')} (.npz, .safetensors or .json; or features, with {option('questions')})"
        )
    require("drawing scenes to calibrate on", *PICTURES)
    return demo_calibration(signature)
