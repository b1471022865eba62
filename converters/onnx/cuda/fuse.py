"""Makes few operators of a traced graph's many, for onnxruntime's CUDA provider."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from converters.onnx.cuda.attention import fuse_attentions
from converters.onnx.cuda.gelus import fuse_gelus
from converters.onnx.cuda.masks import Masks
from converters.onnx.cuda.norms import fuse_norms
from converters.onnx.read_rows import complete_shapes
from lxmert_export.graphs.onnx_launches import MICROSOFT


def fuse_for_cuda(model: ir.Model, wrapper: str) -> None:
    """Rewrites GELUs, norms and attentions of a simplified graph, in place; what is of another form stays as it is.

    ``wrapper``: the attribute of the export wrapper that holds the module. ``ConversionError``: there is no attention.
    """
    graph, remove_unused = model.graph, common.RemoveUnusedNodesPass()
    complete_shapes(graph)
    for fuse in (fuse_gelus, fuse_norms):
        fuse(graph)
        remove_unused(model)  # what was replaced would still count as a reader
    fuse_attentions(graph, Masks(graph), wrapper)
    remove_unused(model)
    graph.sort()
    model.opset_imports[MICROSOFT] = 1
