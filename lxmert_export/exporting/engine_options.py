"""All options of ``lx.build_engine`` in one value, which refuses options that do not fit together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lxmert_export.artifact.directory import Artifact
from lxmert_export.engines.devices import EngineDevice, resolve
from lxmert_export.engines.options import BuildOptions
from lxmert_export.engines.profiles import check_counts, parse_range
from lxmert_export.errors import ConversionError, InputError
from lxmert_export.exporting.options import ExportOptions
from lxmert_export.option_names import option
from lxmert_export.spec.signature import ATTENTION_OPSET, Precision


@dataclass(frozen=True)
class EngineOptions:
    """The options of ``lx.build_engine``, named as its keywords and documented there.

    ``ranges`` holds the texts given for batch, text and objects (``min:opt:max`` or one number); ``onnx`` holds the keywords
    given for the ONNX graph. Raises ``ConfigError`` if a text is not a range, or if the numbers of ranges do not fit.
    """

    precision: Precision | None
    target: str
    compute_capability: str | None
    build: BuildOptions
    ranges: Mapping[str, Sequence[str]]
    calibration: str | Path | None
    bundle: bool
    onnx: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.onnx.get("optimize_for") is not None:
            raise ConversionError(
                f"{option('optimize_for', self.onnx['optimize_for'])}: is for onnxruntime; TensorRT does not know its operators "
                "and fuses standard ones itself: leave it out"
            )
        check_counts(self.ranges)
        for axis, texts in self.ranges.items():
            for text in texts:
                parse_range(text, option(axis))

    @property
    def fixed(self) -> dict[str, int]:
        """The size of each axis that has one size in all profiles: the ONNX graph is exported with that size."""
        parsed = {axis: [parse_range(text, option(axis)) for text in texts] for axis, texts in self.ranges.items()}
        return {
            axis: sizes[0].min for axis, sizes in parsed.items() if len(sizes) == 1 and sizes[0].min == sizes[0].max
        }

    def find_device(self, graph: Artifact | None) -> EngineDevice:
        """Returns the device that is to run the engine. ``graph`` is the ONNX artifact to build from, if it exists already.

        Raises ``ConversionError`` for options that the target cannot fulfil. Raises ``InputError`` if the calibration file does
        not exist or the timing cache cannot be written.
        """
        options: Mapping[str, Any] = graph.manifest.options if graph else self.onnx
        device = resolve(
            self.target,
            precision=self.precision or (graph.manifest.precision if graph else "fp32"),
            compute_capability=self.compute_capability,
            options=self.build,
            opset=options.get("opset") or (ATTENTION_OPSET if options.get("attention") == "operator" else None),
            attention=options.get("attention", "decomposed"),
        )
        self._check_files(device)
        return device

    def of_graph(self, device: EngineDevice) -> ExportOptions:
        """Returns the options for exporting the ONNX graph of a device's engine."""
        given = {name: value for name, value in self.onnx.items() if name != "providers"}
        fixed = None if given.get("signature") is not None else self.fixed
        calibration = self.calibration if device.precision == "int8" else None
        return ExportOptions("onnx", device.precision, fixed=fixed, calibration=calibration, **given)

    def _check_files(self, device: EngineDevice) -> None:
        if (file := self.calibration) is not None:
            if device.precision not in ("fp16", "int8"):
                raise ConversionError(
                    f"{option('calibration')}: only the fp16 linter and int8 use it, and this engine is {device.precision}: "
                    "leave it out"
                )
            if not (Path(file).exists() if self.onnx.get("questions") else Path(file).is_file()):
                raise InputError(
                    f"{file}: no such file; calibration inputs are a .npz, .safetensors or Polygraphy .json file"
                )
        if (cache := self.build.timing_cache) is not None and (Path(cache).is_dir() or not Path(cache).parent.is_dir()):
            raise InputError(
                f"{option('timing_cache')} {cache}: must be a file in an existing directory; the file itself may be new"
            )
