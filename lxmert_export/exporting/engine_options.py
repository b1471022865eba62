"""What an engine is asked for: every option of ``lx.build_engine`` in one value, which refuses what does not fit together."""

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
from lxmert_export.spec.signature import ATTENTION_OPSET, Precision


@dataclass(frozen=True)
class EngineOptions:
    """The options of ``lx.build_engine``, named as its keywords and documented there.

    ``ranges`` are those of batch, text and objects; ``onnx`` holds the keywords that were given for the graph.
    ``ConfigError``: ranges that are none. ``InputError``: a timing cache that cannot be written.
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
        check_counts(self.ranges)
        for axis, texts in self.ranges.items():
            for text in texts:
                parse_range(text, f"--{axis}")

    @property
    def fixed(self) -> dict[str, int]:
        """Axes that all profiles have one size of: the graph itself is written for it."""
        parsed = {axis: [parse_range(text, f"--{axis}") for text in texts] for axis, texts in self.ranges.items()}
        return {
            axis: found[0].min for axis, found in parsed.items() if len(found) == 1 and found[0].min == found[0].max
        }

    def find_device(self, graph: Artifact | None) -> EngineDevice:
        """Where the engine is to run; ``graph`` is the ONNX artifact that it is built from, if there is one already.

        ``ConversionError``: what the target cannot do.
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
        """The options of the ONNX graph that is exported for a device."""
        given = {name: value for name, value in self.onnx.items() if name != "providers"}
        fixed = None if given.get("signature") is not None else self.fixed or None
        return ExportOptions("onnx", device.precision, fixed=fixed, **given)

    def _check_files(self, device: EngineDevice) -> None:
        if (file := self.calibration) is not None:
            if device.precision != "fp16":
                raise ConversionError(
                    f"calibration: is for the linter of fp16, and this engine is {device.precision}: leave it out"
                )
            if not Path(file).is_file():
                raise InputError(f"{file}: no such file; calibration inputs are a .npz or .safetensors file")
        if (cache := self.build.timing_cache) is not None and (Path(cache).is_dir() or not Path(cache).parent.is_dir()):
            raise InputError(
                f"--timing-cache {cache}: must be a file in a directory that is there; the file itself may be new"
            )
