"""The manifest vouches for every file that is opened, and for itself."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from lxmert_export.api.inspect import summary_rows
from lxmert_export.artifact.directory import Artifact, open_artifact
from lxmert_export.artifact.golden import read_golden
from lxmert_export.artifact.manifest import FORMAT_VERSION, MANIFEST_FILE, SCHEMA, Manifest, read_manifest, sealed
from lxmert_export.errors import ArtifactError, LxmertExportError
from lxmert_export.files.json_files import parse_json
from lxmert_export.files.json_schema import first_problem
from lxmert_export.parity.prediction import predicted_by_manifest
from lxmert_export.runners.tensorrt.opening import find_engine
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Signature
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.manifests import edit_manifest, list_files
from parity_tests.fixtures.odd_values import changed_values
from parity_tests.fixtures.package_files import schema_of
from parity_tests.fixtures.random_models import TINY

pytestmark = pytest.mark.quick

FLIPS = 1500  # of the about 40,000 bits of a small artifact's manifest


@pytest.fixture
def copy(exports: Exports, tmp_path: Path) -> Path:
    artifact = exports.lively("onnx", "question-answering", TINY)
    return Path(shutil.copytree(artifact.path, tmp_path / "copy"))


def values_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / MANIFEST_FILE).read_text())
    return found


def test_every_flipped_bit_of_a_manifest_is_noticed(copy: Path) -> None:
    file = copy / MANIFEST_FILE
    content = file.read_bytes()
    places = np.random.default_rng(0).choice(8 * len(content), FLIPS, replace=False)
    unnoticed = []
    for place in map(int, places):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        file.write_bytes(flipped)
        try:
            read_manifest(file)
        except ArtifactError:
            continue
        unnoticed.append(place)
    assert unnoticed == []


def test_a_value_that_was_edited_is_noticed_even_if_it_is_sound(copy: Path) -> None:
    file = copy / MANIFEST_FILE
    file.write_text(file.read_text().replace('"passed": true', '"passed": false'))
    with pytest.raises(ArtifactError, match=r"has changed since it was written \(its digest differs\)"):
        open_artifact(copy)


def test_a_manifest_of_format_1_is_read_and_said_not_to_vouch_for_itself(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = {name: value for name, value in values_of(copy).items() if name != "digest"}
    (copy / MANIFEST_FILE).write_text(json.dumps({**values, "format": 1}, indent=2) + "\n")
    with caplog.at_level(logging.WARNING):
        open_artifact(copy)
    (said,) = caplog.messages
    assert said.endswith("is of format 1, which has no digest: changes to it cannot be noticed; export it again")


@pytest.mark.parametrize("missing", ["model.onnx.data", "golden.safetensors", "model.onnx"])
def test_a_file_that_would_be_opened_and_is_not_listed_is_refused(missing: str, copy: Path) -> None:
    edit_manifest(copy, files={name: facts for name, facts in values_of(copy)["files"].items() if name != missing})
    with pytest.raises(ArtifactError, match=f"{missing} is not listed in its manifest"):
        open_artifact(copy)


def test_a_manifest_without_files_is_refused(copy: Path) -> None:
    edit_manifest(copy, files={})
    with pytest.raises(ArtifactError, match=r"model\.onnx is not listed in its manifest; .* lists no model\.onnx"):
        open_artifact(copy)


def test_a_key_that_is_there_twice_is_refused(copy: Path) -> None:
    file = copy / MANIFEST_FILE
    file.write_text(file.read_text().replace('"files": {', '"files": {}, "files": {', 1))
    with pytest.raises(ArtifactError, match="holds the key 'files' twice"):
        open_artifact(copy)


@pytest.mark.parametrize("where", ["a file", "a directory above it"])
def test_links_inside_an_artifact_are_refused(where: str, copy: Path, tmp_path: Path) -> None:
    (copy / "inner").mkdir()
    (copy / "inner" / "notes.txt").write_text("notes")
    list_files(copy, "inner/notes.txt")
    open_artifact(copy)
    moved = copy / "inner" if where == "a directory above it" else copy / "inner" / "notes.txt"
    moved.rename(tmp_path / "elsewhere")
    moved.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=r"inner/notes\.txt is reached by a link"):
        open_artifact(copy)


def test_a_link_to_the_artifact_is_fine(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(copy)
    assert open_artifact(tmp_path / "latest").manifest == open_artifact(copy).manifest


def test_odd_values_anywhere_are_one_line(copy: Path) -> None:
    """Sealed anew: the digest does not help. What is accepted has the type that the code reads."""
    file, said = copy / MANIFEST_FILE, []
    for values in changed_values(values_of(copy)):
        file.write_text(sealed(values) if isinstance(values, dict) else json.dumps(values))
        try:
            open_artifact(copy)
        except ArtifactError as error:
            said.append(str(error))
    assert len(said) > 1000
    assert [line for line in said if "\n" in line or len(line) > 1000] == []


def from_a_file(values: dict[str, Any]) -> dict[str, Any]:
    """The values as they come out of a file. ``ArtifactError``: they do not."""
    try:
        found: dict[str, Any] = parse_json(json.dumps(values))
    except ValueError as error:
        raise ArtifactError(str(error)) from error
    return found


def read_everywhere(values: dict[str, Any]) -> None:
    """Uses all that the code reads of a manifest's options, parity and signature."""
    manifest = Manifest.from_dict(values)
    artifact = Artifact(Path("nowhere"), manifest, "x")
    graph = {"matmul_weights": {}, "matmuls": {}, "operators": {"MatMul": 1}}
    summary_rows({"kind": "artifact", "path": "x", "bytes": 1, "graph": graph, "manifest": manifest.to_dict()})
    predicted_by_manifest(manifest.parity)
    assert isinstance(artifact.is_calibrated or artifact.is_keras or artifact.fp32_islands, list | bool)
    artifact.drawn_inputs()
    if artifact.is_engine:
        find_engine(artifact)


@pytest.mark.parametrize("target", ["onnx", "tensorrt"])
@pytest.mark.parametrize("field", ["options", "parity", "signature"])
def test_odd_values_that_the_schema_lets_pass_are_one_line_where_they_are_read(
    field: str, target: str, bundle: Artifact
) -> None:
    """Of a bundle and of an engine, whose manifests hold most. Sealed: the digest would not help."""
    values = json.loads(json.dumps(bundle.manifest.to_dict()))
    options = values["options"]
    counts = {"fp32": 20}
    build = {
        "runtime_version": "1.7", "flags": ["REFIT"], "tf32": False, "engine_bytes": 1, "weight_bytes": 1,
        "layers": {"matrix_multiply": counts}, "matmuls": counts, "matmul_weights": counts, "float32_matmuls": ["a"],
    }  # fmt: skip
    if target == "tensorrt":
        told = {"build": build, "onnx": {"parity": values["parity"]}, "status": "built, not run"}
        values.update(target=target, parity=None, files={"model.engine": {"sha256": "0" * 64, "bytes": 1}})
        values["options"] = {**options, **options["bundle"], **told}
    said, used = [], 0
    for changed in changed_values(values[field]):
        try:
            read_everywhere(from_a_file({**values, field: changed}))
            used += 1
        except LxmertExportError as error:
            said.append(str(error))
    assert [line for line in said if "\n" in line or len(line) > 1000] == []
    assert used or target == "tensorrt"  # an engine ends with BuiltNotRun at best
    assert len(said) > 20 or (field, target) == ("parity", "tensorrt")


def test_a_golden_file_with_an_output_that_the_signature_lacks_is_refused(copy: Path) -> None:
    signature = values_of(copy)["signature"]
    (output,) = signature["outputs"]
    artifact = open_artifact(copy)
    other = Signature.from_dict({**signature, "outputs": [{**output, "name": "other"}]})
    with pytest.raises(
        ArtifactError, match="holds the outputs question_answering_score, which the artifact does not have"
    ):
        read_golden(artifact.file("golden.safetensors"), other)


SIGNATURES: dict[str, tuple[dict[str, Any], str]] = {
    "no ids": ({"name": "ids"}, "has no input input_ids of at least 2 axes"),
    "too few axes": ({"axes": ["batch"]}, "has no input input_ids of at least 2 axes"),
    "an unknown axis": ({"axes": ["batch", "words"]}, "input input_ids has an axis 'words'"),
    "too large": (
        {"axes": [10**12, "text"]},
        "input input_ids has 1,000,000,000,000 values a call, more than 268,435,456",
    ),
    "a name twice": ({"name": "visual_feats"}, "'visual_feats' is there twice"),
}


@pytest.mark.parametrize(("change", "saying"), SIGNATURES.values(), ids=SIGNATURES)
def test_a_signature_that_no_inputs_fit_is_refused(change: dict[str, Any], saying: str, copy: Path) -> None:
    signature = values_of(copy)["signature"]
    inputs = [{**spec, **change} if spec["name"] == "input_ids" else spec for spec in signature["inputs"]]
    edit_manifest(copy, signature={**signature, "inputs": inputs})
    with pytest.raises(ArtifactError, match=saying):
        open_artifact(copy)


def test_our_schema_reader_and_jsonschema_agree(copy: Path) -> None:
    schema = schema_of(SCHEMA)
    jsonschema.Draft202012Validator.check_schema(schema)
    peer = jsonschema.Draft202012Validator(schema)
    verdicts = [
        (first_problem(values, schema) is None, peer.is_valid(values)) for values in changed_values(values_of(copy))
    ]
    assert all(ours == theirs for ours, theirs in verdicts)
    assert {True, False} == {ours for ours, _ in verdicts}


def test_the_schema_asks_for_every_field_of_a_config_that_is_always_written() -> None:
    schema = schema_of(SCHEMA)
    assert set(schema["properties"]["config"]["required"]) <= set(LxmertConfig().to_dict())
    assert schema["$id"].endswith(f":{FORMAT_VERSION}")
