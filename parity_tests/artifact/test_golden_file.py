"""A golden file that is not what one holds is one line, whatever safetensors can store."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lxmert_export.artifact.golden import read_golden
from lxmert_export.errors import ArtifactError
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY

pytestmark = pytest.mark.quick

SCORE = "plain/question_answering_score"


def as_bytes(name: str, dtype: str) -> Callable[[dict[str, Any]], None]:
    """The same bytes of a tensor as another dtype of one byte each."""

    def change(header: dict[str, Any]) -> None:
        start, end = header[name]["data_offsets"]
        header[name] |= {"dtype": dtype, "shape": [end - start]}

    return change


@pytest.mark.parametrize(
    "change",
    [
        as_bytes(f"reference/{SCORE}/0", "F8_E5M2"),
        as_bytes(f"floor/{SCORE}", "U8"),
        lambda header: header[f"shape/{SCORE}/0"].update(shape=[1, 2, 1]),
        lambda header: header[f"floor/{SCORE}"].update(shape=[4, 1]),
        lambda header: header[f"shape/{SCORE}/0"].update(dtype="F64"),
        lambda header: header["__metadata__"].update(not_run="[1]"),
        lambda header: header["__metadata__"].update(not_run="[" * 100_000),
    ],
    ids=["float8", "bytes", "nested shape", "nested floor", "shape of floats", "not_run", "deep"],
)
def test_what_is_no_golden_file_is_one_line(
    change: Callable[[dict[str, Any]], None], exports: Exports, tmp_path: Path
) -> None:
    artifact = exports.lively("onnx", "question-answering", TINY)
    content = artifact.file("golden.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file = tmp_path / "golden.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(ArtifactError, match="damaged golden file") as caught:
        read_golden(file, artifact.manifest.signature)
    assert "\n" not in str(caught.value)
