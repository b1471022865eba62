"""The same contents are the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from lxmert_export.files.safetensors_files import write_safetensors

pytestmark = pytest.mark.quick


def test_metadata_is_written_in_one_order(tmp_path: Path) -> None:
    """safetensors itself takes any of 24 orders here."""
    tensors = {"a": np.arange(6.0).reshape(2, 3), "b": np.arange(4, dtype=np.int32)}
    metadata = {"format": "it", "not_run": '["a \\"b\\"", "é"]', "first": "1", "second": "2"}
    for number in range(12):
        write_safetensors(tmp_path / f"{number}", tensors, metadata)
    assert len({(tmp_path / f"{number}").read_bytes() for number in range(12)}) == 1
    with safe_open(tmp_path / "0", framework="numpy") as file:
        assert file.metadata() == metadata
        assert all(np.array_equal(file.get_tensor(name), tensors[name]) for name in tensors)
