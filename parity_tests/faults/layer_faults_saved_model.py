"""Layer faults in a written SavedModel: its variables by their names, the nodes of its function by the variables they read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from lxmert_export.artifact.directory import SAVED_MODEL
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.weight_names import weight_names
from parity_tests.faults.layer_faults import Edit, UnplantableError


class SavedModelPlanter:
    def __init__(self, directory: Path, config: LxmertConfig, task: str) -> None:
        self.source = directory / SAVED_MODEL
        self.names = {row.ours: row.variable for row in weight_names(config, task)}
        reader = tf.train.load_checkpoint(str(self.source / "variables" / "variables"))
        self.tensors = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        self.saved = saved_model_pb2.SavedModel.FromString((self.source / "saved_model.pb").read_bytes())
        graph = self.saved.meta_graphs[0]
        nodes = graph.object_graph_def.nodes
        weights = next(child.node_id for child in nodes[0].children if child.local_name == "weights")
        numbers = {child.node_id: child.local_name for child in nodes[weights].children}
        self.keys = {
            nodes[n].variable.name: f"weights/{number}/.ATTRIBUTES/VARIABLE_VALUE" for n, number in numbers.items()
        }
        self.function = next(f for f in graph.graph_def.library.function if "_serve_" in f.signature.name)
        bound = next(iter(graph.object_graph_def.concrete_functions.values())).bound_inputs
        arguments = [argument.name for argument in self.function.signature.input_arg][-len(bound) :]
        read = {argument: nodes[n].variable.name for argument, n in zip(arguments, bound, strict=True)}
        self.readers: dict[str, str] = {}
        for node in self.function.node_def:
            if node.op == "ReadVariableOp" and node.input[0] in read:
                self.readers.setdefault(read[node.input[0]], node.name)

    def edit(self, parameter: str, change: Edit) -> None:
        key = self._key(parameter)
        array = self.tensors[key]
        turned = self.names[parameter].endswith("kernel")
        edited = change(array.T if turned else array)
        edited = np.ascontiguousarray(edited.T if turned else edited)
        assert edited.shape == array.shape and edited.dtype == array.dtype and not np.array_equal(edited, array)
        self.tensors[key] = edited

    def swap_query_and_key(self, attention: str) -> None:
        for part in ("weight", "bias"):
            query, key = (self._key(f"{attention}.{name}.{part}") for name in ("query", "key"))
            self.tensors[query], self.tensors[key] = self.tensors[key], self.tensors[query]

    def scale_scores(self, attention: str) -> None:
        self._set(f"{self._scope(f'{attention}.query.weight', 2)}/mul/y", 0.5)

    def drop_mask(self, attention: str) -> None:
        node = self._node(f"{self._scope(f'{attention}.query.weight', 2)}/add")
        zero = self.function.node_def.add()
        zero.name, zero.op = f"{node.name}/planted", "Const"
        zero.attr["dtype"].type = tf.float32.as_datatype_enum
        zero.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.float32(0)))
        node.input[1] = f"{zero.name}:output:0"

    def change_gelu(self, module: str) -> None:
        linear = "dense" if module.endswith("transform") else "expand"
        self._set(f"{self._scope(f'{module}.{linear}.weight', 2)}/mul_1/y", 0.5)

    def change_epsilon(self, norm: str) -> None:
        self._set(f"{self._scope(f'{norm}.weight', 2)}/add/y", 0.1)

    def save(self, directory: Path) -> None:
        target = directory / SAVED_MODEL
        shutil.copytree(self.source, target, ignore=shutil.ignore_patterns("variables", "fingerprint.pb"))
        (target / "variables").mkdir()
        (target / "saved_model.pb").write_bytes(self.saved.SerializeToString())
        names = list(self.tensors)
        tf.raw_ops.SaveV2(
            prefix=str(target / "variables" / "variables"), tensor_names=names, shape_and_slices=[""] * len(names),
            tensors=[tf.constant(self.tensors[name]) for name in names],
        )  # fmt: skip

    def _key(self, parameter: str) -> str:
        if self.names[parameter] not in self.keys:
            raise UnplantableError(parameter)
        return self.keys[self.names[parameter]]

    def _scope(self, parameter: str, above: int) -> str:
        """The scope so many levels above the operator that reads a parameter first."""
        if self.names[parameter] not in self.readers:
            raise UnplantableError(parameter)
        return self.readers[self.names[parameter]].rsplit("/", above)[0]

    def _node(self, name: str) -> Any:
        node = next((node for node in self.function.node_def if node.name == name), None)
        if node is None:
            raise UnplantableError(name)
        return node

    def _set(self, name: str, number: float) -> None:
        tensor = self._node(name).attr["value"].tensor
        before = tf.make_ndarray(tensor)
        tensor.CopyFrom(tf.make_tensor_proto(np.full(before.shape, number, before.dtype)))
