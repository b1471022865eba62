"""A file that could do more than compute is refused before a runtime sees a byte of it."""

from __future__ import annotations

import io
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import h5py
import numpy as np
import onnx
import pytest

from lxmert_export.artifact.directory import open_artifact
from lxmert_export.artifact.programs.onnx import _of_node, _of_tensor
from lxmert_export.errors import ArtifactError
from lxmert_export.files.limits import MOST_FIELDS
from lxmert_export.files.wire_formats import Message, Table
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.manifests import edit_manifest, list_files
from parity_tests.judging.test_runners import WRITERS, written

pytestmark = pytest.mark.quick


@pytest.fixture
def copy_of(exports: Exports, tmp_path: Path) -> Callable[[str], Path]:
    return lambda kind: Path(shutil.copytree(written(kind, exports).path, tmp_path / kind))


def refused(directory: Path, *files: str, saying: str) -> None:
    list_files(directory, *files)  # hashes that fit
    with pytest.raises(ArtifactError, match=saying) as caught:
        open_artifact(directory)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", WRITERS)
def test_the_operators_of_an_export_are_recorded(kind: str, copy_of: Callable[[str], Path]) -> None:
    directory = copy_of(kind)
    artifact = open_artifact(directory)
    assert artifact.check_program() == set(artifact.manifest.options["operators"])
    fewer = list(artifact.manifest.options["operators"])[1:]
    edit_manifest(directory, options={**artifact.manifest.options, "operators": fewer})
    with pytest.raises(ArtifactError, match="its manifest records no operator"):
        open_artifact(directory)


def with_foreign_node(model: Any) -> None:
    node = onnx.helper.make_node("ReadFile", ["x"], ["y"], domain="com.other")
    model.graph.node.append(node)


def with_node_in_a_branch(model: Any) -> None:
    node = onnx.helper.make_node("ReadFile", ["x"], ["y"], domain="com.other")
    branch = onnx.helper.make_graph([node], "branch", [], [onnx.ValueInfoProto(name="y")])
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch))


def with_node_in_a_function(model: Any) -> None:
    node = onnx.helper.make_node("ReadFile", ["x"], ["y"], domain="com.other")
    model.functions.append(onnx.helper.make_function("local", "F", ["x"], ["y"], [node], []))


@pytest.mark.parametrize("plant", [with_foreign_node, with_node_in_a_branch, with_node_in_a_function])
def test_onnx_operators_of_other_domains(plant: Callable[[Any], None], copy_of: Callable[[str], Path]) -> None:
    file = copy_of("onnx") / "model.onnx"
    model = onnx.load(file, load_external_data=False)
    plant(model)
    file.write_bytes(model.SerializeToString())
    refused(file.parent, "model.onnx", saying="holds operators that it may not have: com.other::ReadFile; no export")


@pytest.mark.parametrize("where", ["an initialiser", "a constant"])
def test_onnx_weights_in_files_that_are_not_listed(where: str, copy_of: Callable[[str], Path]) -> None:
    file = copy_of("onnx") / "model.onnx"
    model = onnx.load(file, load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    if where == "a constant":
        node = model.graph.node[0]
        node.attribute.append(onnx.helper.make_attribute("value", tensor))
        tensor = node.attribute[-1].t
    next(entry for entry in tensor.external_data if entry.key == "location").value = "../elsewhere"
    file.write_bytes(model.SerializeToString())
    refused(file.parent, "model.onnx", saying=r"weights in files that its manifest does not list: \.\./elsewhere")


def test_onnx_files_that_say_a_thing_twice_or_out_of_range(copy_of: Callable[[str], Path]) -> None:
    """A runtime takes the last of two, and cuts a number of more than 32 bits."""
    file = copy_of("onnx") / "model.onnx"
    model = onnx.load(file, load_external_data=False)
    entry = onnx.StringStringEntryProto(key="zzz", value="model.onnx.data").SerializeToString()
    entry += onnx.StringStringEntryProto(key="location", value="secret.bin").SerializeToString()
    tensor = bytes([0x6A, len(entry)]) + entry  # field 13 of a tensor
    assert ("file", "secret.bin") in set(_of_tensor(message(tensor)))
    sparse = onnx.SparseTensorProto(values=next(t for t in model.graph.initializer if t.external_data))
    constant = onnx.NodeProto(
        op_type="Constant", attribute=[onnx.AttributeProto(name="sparse_value", sparse_tensor=sparse)]
    )
    assert ("file", "model.onnx.data") in set(_of_node(message(constant.SerializeToString())))
    wide = b"\xba\x80\x80\x80\x10" + b"\x01x"  # field 7 of a node, written with 2 ** 32 more
    with pytest.raises(ValueError, match="no protocol buffer has"):
        list(message(wide).fields())


def test_tflite_operators_that_are_not_exported(copy_of: Callable[[str], Path]) -> None:
    from ai_edge_litert import schema_py_generated as schema

    file = copy_of("tflite") / "model.tflite"
    content = bytearray(file.read_bytes())
    code = schema.Model.GetRootAs(content, 0).OperatorCodes(0)
    for field in (4, 10):  # the vtable's entries of both codes: the old one has 8 bits
        place = code._tab.Pos + code._tab.Offset(field)
        content[place] = schema.BuiltinOperator.CUSTOM
    file.write_bytes(content)
    refused(file.parent, "model.tflite", saying="holds operators that it may not have: builtin 32; no export")


@pytest.mark.tensorflow
class TestSavedModel:
    """Each program is what ``tf.saved_model.save`` writes of a module that does it."""

    @pytest.fixture
    def directory(self, copy_of: Callable[[str], Path]) -> Path:
        directory = copy_of("saved-model")
        shutil.rmtree(directory / "saved_model")
        return directory

    def saved(self, directory: Path, module: Any, **signatures: Any) -> str:
        import tensorflow as tf

        tf.saved_model.save(module, str(directory / "saved_model"), signatures=signatures or None)
        files = json.loads((directory / "manifest.json").read_text())["files"]
        kept = {name: facts for name, facts in files.items() if not name.startswith("saved_model/")}
        edit_manifest(directory, files=kept)
        written = [p.relative_to(directory).as_posix() for p in (directory / "saved_model").rglob("*") if p.is_file()]
        list_files(directory, *written)
        return "saved_model/saved_model.pb"

    def test_a_function_that_reads_a_file(self, directory: Path) -> None:
        import tensorflow as tf

        module = tf.Module()
        module.call = tf.function(lambda: tf.io.read_file("/etc/hostname"), input_signature=[])
        refused(
            directory,
            self.saved(directory, module),
            saying="operators that it may not have: PartitionedCall, ReadFile; no export",
        )

    def test_a_function_that_writes_tensors(self, directory: Path) -> None:
        import tensorflow as tf

        module = tf.Module()

        def call(x: Any) -> Any:
            tf.raw_ops.SaveV2(prefix="elsewhere", tensor_names=["a"], shape_and_slices=[""], tensors=[x])
            return x

        module.call = tf.function(call, input_signature=[tf.TensorSpec([], tf.float32)])
        refused(directory, self.saved(directory, module), saying="operators that it may not have: .*SaveV2; no export")

    def test_a_function_without_a_name(self, directory: Path) -> None:
        empty_function = (
            b"\x12\x08" + b"\x12\x06" + b"\x12\x04" + b"\x0a\x02\x0a\x00"
        )  # meta graph, graph, library, function
        (directory / "saved_model").mkdir()
        (directory / "saved_model" / "saved_model.pb").write_bytes(empty_function)
        listed = json.loads((directory / "manifest.json").read_text())["files"]
        edit_manifest(directory, files={name: facts for name, facts in listed.items() if "saved_model" not in name})
        refused(directory, "saved_model/saved_model.pb", saying="holds a function without a name")

    def test_an_inner_function_that_reads_a_file(self, directory: Path) -> None:
        import tensorflow as tf

        inner = tf.function(lambda: tf.io.read_file("/etc/hostname"), input_signature=[])
        module = tf.Module()
        module.call = tf.function(lambda: tf.strings.length(inner()), input_signature=[])
        refused(directory, self.saved(directory, module), saying="operators that it may not have: .*ReadFile")

    def test_an_initialiser(self, directory: Path, tmp_path: Path) -> None:
        import tensorflow as tf

        (tmp_path / "words.txt").write_text("a\nb\n")
        module, lines = tf.Module(), tf.lookup.TextFileIndex
        initialiser = tf.lookup.TextFileInitializer(
            str(tmp_path / "words.txt"), tf.string, lines.WHOLE_LINE, tf.int64, lines.LINE_NUMBER
        )
        module.table = tf.lookup.StaticHashTable(initialiser, -1)
        refused(directory, self.saved(directory, module), saying="InitializeTableFromTextFileV2")


def test_a_keras_file_that_names_other_classes(copy_of: Callable[[str], Path]) -> None:
    file = copy_of("keras") / "model.keras"
    with ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config["config"]["extra"] = {"module": "subprocess", "class_name": "Popen", "config": {"args": "id"}}
    with ZipFile(file, "w") as archive:
        for name, content in {**members, "config.json": json.dumps(config).encode()}.items():
            archive.writestr(name, content)
    refused(file.parent, "model.keras", saying=r"holds classes that it may not have: subprocess\.Popen; no export")


LINKS: dict[str, Callable[[h5py.Group], object]] = {
    "holds a link": lambda group: group.__setitem__("other", h5py.ExternalLink("/etc/passwd", "/")),
    "keeps its data in another file": lambda group: group.create_dataset(
        "other", (4,), "u1", external=[("/etc/passwd", 0, 4)]
    ),
}


@pytest.mark.parametrize("saying", LINKS)
def test_a_keras_file_whose_weights_lie_elsewhere(saying: str, copy_of: Callable[[str], Path]) -> None:
    file = copy_of("keras") / "model.keras"
    with ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "a") as opened:
        LINKS[saying](next(item for item in opened.values() if isinstance(item, h5py.Group)))
    with ZipFile(file, "w") as archive:
        for name, content in {**members, "model.weights.h5": weights.getvalue()}.items():
            archive.writestr(name, content)
    refused(file.parent, "model.keras", saying=f"its model.weights.h5 .*{saying}")


def test_keras_weights_that_name_a_driver(copy_of: Callable[[str], Path]) -> None:
    file = copy_of("keras") / "model.keras"
    with ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = bytearray(members["model.weights.h5"])
    weights[48:56] = struct.pack("<Q", len(weights))  # the address of the driver's block
    with ZipFile(file, "w") as archive:
        for name, content in {**members, "model.weights.h5": bytes(weights)}.items():
            archive.writestr(name, content)
    refused(file.parent, "model.keras", saying="its model.weights.h5 names a driver for files in several parts")


def test_keras_weights_that_are_compressed(copy_of: Callable[[str], Path]) -> None:
    file = copy_of("keras") / "model.keras"
    with ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with ZipFile(file, "w", ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    refused(file.parent, "model.keras", saying="its model.weights.h5 is compressed or encrypted")


def message(content: bytes | memoryview, most: int = MOST_FIELDS) -> Message:
    return Message.root(memoryview(content), most=most)


def test_a_file_of_far_more_fields_than_exports_have() -> None:
    """Two million nodes of an ONNX file took 12 s and 0.8 GB, of a SavedModel 20 s."""
    node = b"\x0a\x02\x08\x01"  # field 1 holds a message, whose field 1 is the number 1
    assert len(list(message(node * 10, most=20).messages(1))) == 10
    assert sum(len(list(inner.fields())) for inner in message(node * 10, most=20).messages(1)) == 10
    with pytest.raises(ValueError, match="holds far more fields than such files have"):
        sum(len(list(inner.fields())) for inner in message(node * 10, most=19).messages(1))
    tables = Table.root(memoryview(struct.pack("<IHHHHiII", 12, 8, 8, 0, 4, 8, 4, 10_001) + bytes(64)))
    with pytest.raises(ValueError, match="lists 10001 entries where such files have a few"):
        list(tables.tables(1))


def test_random_bytes_are_read_or_refused_and_never_for_long() -> None:
    """Every loop ends with the bytes: a value is used only where it lies inside."""
    generator = np.random.default_rng(0)
    for number in range(2000):
        content = memoryview(generator.integers(256, size=number % 200 + 1, dtype=np.uint8).tobytes())
        for read in (lambda view: list(message(view).fields()), lambda view: list(Table.root(view).tables(1))):
            try:
                assert len(read(content)) <= len(content)
            except ValueError:
                continue


def test_a_table_of_its_runtime_is_what_it_is_called() -> None:
    from ai_edge_litert import schema_py_generated as schema

    from lxmert_export.artifact.programs.tflite import OPERATORS

    assert {number: getattr(schema.BuiltinOperator, name) for number, name in OPERATORS.items()} == {
        n: n for n in OPERATORS
    }
