"""``manifest.json``: what an artifact is, where it came from, the hash of each of its files, and a hash of itself."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lxmert_export.errors import PACKAGE, ArtifactError, ConfigError
from lxmert_export.files.converted_files import MANIFEST_FILE
from lxmert_export.files.hashing import sha256
from lxmert_export.files.json_files import check_schema, parse_json, read_text
from lxmert_export.files.limits import LARGEST_MANIFEST
from lxmert_export.files.listing import files_below
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import Precision, Signature, Task

if TYPE_CHECKING:
    from typing_extensions import Self

LOGGER = logging.getLogger(__name__)

# Format 2 adds `digest`: the hash of the file's own text without the digest. What earlier versions wrote is read too.
FORMAT_VERSION = 2
SCHEMA = "artifact/manifest.schema.json"

TOOLS = (
    PACKAGE, "torch", "onnx", "onnxscript", "onnx_ir", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorflow",
    "tensorflow-cpu", "keras", "ai-edge-litert", "tensorrt-rtx", "tensorrt", "polygraphy", "numpy",
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
    | ``flops`` | {sizes, file, checkpoint}: counted operations at the usual sizes; None in earlier versions' manifests |
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
    flops: Mapping[str, Any] | None = None

    @property
    def limits(self) -> InputLimits:
        """The largest ids and lengths that its model takes."""
        return InputLimits.of(self.config)

    def to_dict(self) -> dict[str, Any]:
        """Returns what ``manifest.json`` holds."""
        return {
            "format": FORMAT_VERSION,
            "digest": "",
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
            **({} if self.flops is None else {"flops": dict(self.flops)}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads what ``to_dict`` returned; the digest is not compared.

        ``ArtifactError``: it is something else, of a version that is not known here, or its fields are not those of the schema.
        """
        version = values.get("format") if isinstance(values, Mapping) else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise ArtifactError(f"was written by a later version of {PACKAGE} (manifest format {version}): upgrade it")
        try:
            check_schema(values, SCHEMA)
        except ValueError as error:
            raise ArtifactError(f"cannot be read as a manifest: {error}") from error
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
            flops=values.get("flops"),
        )


def write_manifest(directory: Path, manifest: Manifest) -> Manifest:
    """Writes ``manifest.json`` into a directory, and returns it with the hashes of all files and the tools' versions added."""
    names = sorted(path.relative_to(directory).as_posix() for path in files_below(directory))
    facts = {
        name: {"sha256": sha256(directory / name), "bytes": (directory / name).stat().st_size}
        for name in names
        if name != MANIFEST_FILE
    }
    values = {**manifest.to_dict(), "files": facts, "tools": tool_versions(TOOLS)}
    (directory / MANIFEST_FILE).write_text(sealed(values), encoding="utf-8")
    return Manifest.from_dict(values)


def sealed(values: Mapping[str, Any]) -> str:
    """Returns the text of ``manifest.json`` for these values, with its digest."""
    text = json.dumps({**values, "digest": ""}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.replace('"digest": ""', f'"digest": "{_digest(text)}"', 1)


def read_manifest(file: Path) -> Manifest:
    """Reads ``manifest.json``, and compares its digest with its text.

    Format 1 has no digest: changes to such a manifest cannot be noticed, and a line is logged.
    ``ArtifactError``: it cannot be read, holds what the schema does not know, or has changed since it was written.
    """
    try:
        text = read_text(file, largest=LARGEST_MANIFEST)
        values = parse_json(text)
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ArtifactError(f"{file}: cannot be read as a manifest: {error}") from error
    try:
        manifest = Manifest.from_dict(values)
    except (ArtifactError, ConfigError) as error:
        raise ArtifactError(f"{file}: {error}") from error
    if values["format"] == 1:
        LOGGER.warning(
            "%s: is of format 1, which has no digest: changes to it cannot be noticed; export it again", file
        )
    elif _digest(text.replace(f'"digest": "{values["digest"]}"', '"digest": ""', 1)) != values["digest"]:
        raise ArtifactError(
            f"{file}: has changed since it was written (its digest differs). Export it again, or copy it again from its source"
        )
    return manifest


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def tool_versions(names: Iterable[str]) -> dict[str, str]:
    """Returns the versions of the distributions among ``names`` that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
