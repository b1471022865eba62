"""What a SavedModel and a ``.keras`` file really hold, read from the files themselves."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from lxmert_export.artifact.directory import KERAS_FILE, SAVED_MODEL, Artifact
from lxmert_export.artifact.facts import GraphFacts, count_precisions, read_as
from lxmert_export.files.glob_free import glob_free

MATMULS = ("MatMul", "BatchMatMulV2", "BatchMatMulV3")
# What the libraries raise on a file that is neither.
UNREADABLE: tuple[type[Exception], ...] = (
    OSError, EOFError, DecodeError, tf.errors.OpError, zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError,
    RuntimeError,
)  # fmt: skip


def read_facts(artifact: Artifact) -> GraphFacts:
    """Reads the facts of a SavedModel or of a ``.keras`` file. ``ArtifactError``: the file cannot be read."""
    file = artifact.file(KERAS_FILE if artifact.is_keras else SAVED_MODEL)
    with read_as(artifact, file, UNREADABLE):
        return read_keras_facts(file) if artifact.is_keras else read_saved_model_facts(file)


def read_saved_model_facts(path: Path) -> GraphFacts:
    """Counts a SavedModel's operators and matmuls in all functions, and its two-axis variables (weights) by dtype."""
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    if not saved.meta_graphs:  # for example, an empty file
        raise ValueError("it holds no graph")
    nodes = [node for meta in saved.meta_graphs for f in meta.graph_def.library.function for node in f.node_def]
    with glob_free(path) as plain:
        variables = tf.train.load_checkpoint(str(plain / "variables" / "variables"))
        shapes, dtypes = variables.get_variable_to_shape_map(), variables.get_variable_to_dtype_map()
    return GraphFacts(
        operators=dict(Counter(node.op for node in nodes).most_common()),
        matmuls=count_precisions(tf.as_dtype(node.attr["T"].type).name for node in nodes if node.op in MATMULS),
        matmul_weights=count_precisions(dtypes[name].name for name, shape in shapes.items() if len(shape) == 2),
    )


def read_keras_facts(path: Path) -> GraphFacts:
    """Reads a ``.keras`` file: its dtype policy stands for its matmuls, its two-axis weights are counted by dtype."""
    dtypes: list[str] = []
    with zipfile.ZipFile(path) as file, TemporaryDirectory() as directory:
        policy = json.loads(file.read("config.json"))["config"]["dtype"]["config"]["name"]
        with h5py.File(file.extract("model.weights.h5", directory)) as weights:
            weights.visititems(lambda name, entry: _note(entry, dtypes))
    return GraphFacts(operators={}, matmuls=count_precisions([policy]), matmul_weights=count_precisions(dtypes))


def _note(entry: object, dtypes: list[str]) -> None:
    if isinstance(entry, h5py.Dataset) and entry.ndim == 2:
        dtypes.append(entry.dtype.name)
