"""The operators of a TFLite file."""

from __future__ import annotations

from lxmert_export.artifact.directory import TFLITE_FILE, Artifact
from lxmert_export.artifact.programs.reading import mapped, refuse
from lxmert_export.files.wire_formats import Table

# Numbers and names of the builtin operators that exports hold (enum BuiltinOperator of TFLite's schema).
OPERATORS = {
    0: "ADD", 2: "CONCATENATION", 6: "DEQUANTIZE", 9: "FULLY_CONNECTED", 18: "MUL", 22: "RESHAPE", 25: "SOFTMAX", 28: "TANH",
    36: "GATHER", 39: "TRANSPOSE", 40: "MEAN", 41: "SUB", 45: "STRIDED_SLICE", 49: "SPLIT", 53: "CAST", 69: "TILE",
    70: "EXPAND_DIMS", 76: "RSQRT", 77: "SHAPE", 83: "PACK", 88: "UNPACK", 96: "RANGE", 99: "SQUARED_DIFFERENCE",
    114: "QUANTIZE", 126: "BATCH_MATMUL", 150: "GELU",
}  # fmt: skip

# Places of the fields in TFLite's schema.
OPERATOR_CODES, OLD_CODE, CODE = 1, 0, 3


def check_program(artifact: Artifact) -> set[str]:
    """Returns the names of its operators. ``ArtifactError``: the file holds operators that no export has, such as custom ones."""
    file = artifact.file(TFLITE_FILE)
    with mapped(artifact, file) as content:
        codes = {_code(table) for table in Table.root(content).tables(OPERATOR_CODES)}
    refuse(file, "operators that it may not have", {f"builtin {code}" for code in codes - OPERATORS.keys()})
    return {OPERATORS[code] for code in codes}


def _code(table: Table) -> int:
    return max(table.whole_number(OLD_CODE, "b"), table.whole_number(CODE, "i"))
