"""``manifest.json``: what an artifact is, where it came from, and the hash of each of its files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lxmert_export.errors import PACKAGE, ArtifactError
from lxmert_export.files.converted_files import MANIFEST_FILE
from lxmert_export.files.hashing import sha256
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import Precision, Signature, Task

if TYPE_CHECKING:
    from typing_extensions import Self

FORMAT_VERSION = 1


TOOLS = (
    PACKAGE, "torch", "onnx", "onnxscript", "onnx_ir", "onnxruntime", "tensorflow", "tensorflow-cpu", "keras",
    "ai-edge-litert", "tensorrt-rtx", "tensorrt", "polygraphy", "numpy",
)  # fmt: skip


@dataclass(frozen=True)
class Manifest:
    """The contents of ``manifest.json``.

    | field | contents |
    |---|---|
    | ``checkpoint`` | {dialect, name, sha256, unused_heads}; if so, also {guessed_attention_heads, stripped, other_parts} |
    | ``options`` | the choices of the conversion, such as the opset |
    | ``files`` | {name: {sha256, bytes}} |
    | ``tools`` | {distribution: version} |
    | ``parity`` | the verdict and figures of the parity gate; None if the gate was skipped |
    """

    target: str
    precision: Precision
    task: Task | str
    config: LxmertConfig
    signature: Signature
    checkpoint: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    parity: Mapping[str, Any] | None = None

    @property
    def limits(self) -> InputLimits:
        """The largest ids and lengths that its model takes."""
        return InputLimits.of(self.config)

    def to_dict(self) -> dict[str, Any]:
        """Returns what ``manifest.json`` holds."""
        return {
            "format": FORMAT_VERSION,
            "target": self.target,
            "precision": self.precision,
            "task": self.task,
            "config": self.config.to_dict(),
            "checkpoint": dict(self.checkpoint),
            "signature": self.signature.to_dict(),
            "options": dict(self.options),
            "files": {name: dict(facts) for name, facts in sorted(self.files.items())},
            "tools": dict(self.tools),
            "parity": None if self.parity is None else dict(self.parity),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads what ``to_dict`` returned.

        ``KeyError``, ``TypeError`` or ``ConfigError``: it is something else. ``ArtifactError``: it is of another version.
        """
        if values["format"] != FORMAT_VERSION:
            raise ArtifactError(
                f"manifest format {values['format']!r} is not {FORMAT_VERSION}: use the version of {PACKAGE} that wrote it"
            )
        if values["precision"] not in get_args(Precision):
            raise ArtifactError(f"this version does not know the precision {values['precision']!r}")
        return cls(
            target=values["target"],
            precision=values["precision"],
            task=values["task"],
            config=LxmertConfig.from_dict(values["config"]),
            signature=Signature.from_dict(values["signature"]),
            checkpoint=values["checkpoint"],
            options=values["options"],
            files={name: {"sha256": str(f["sha256"]), "bytes": int(f["bytes"])} for name, f in values["files"].items()},
            tools=values["tools"],
            parity=values["parity"],
        )


def write_manifest(directory: Path, manifest: Manifest) -> Manifest:
    """Writes ``manifest.json`` into a directory, and returns it with the hashes of all files and the tools' versions added."""
    names = sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())
    facts = {
        name: {"sha256": sha256(directory / name), "bytes": (directory / name).stat().st_size}
        for name in names
        if name != MANIFEST_FILE
    }
    values = {**manifest.to_dict(), "files": facts, "tools": tool_versions(TOOLS)}
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    (directory / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
    return Manifest.from_dict(json.loads(text))


def tool_versions(names: Iterable[str]) -> dict[str, str]:
    """Returns the versions of the distributions among ``names`` that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
