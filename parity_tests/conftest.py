"""What every test of the suite runs under."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# Tests run two at a time on two cores: more threads in each would only wait for one another.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def oracle_python() -> str:
    """The interpreter of the environment with transformers 4.57.6; without it a test fails, for a set-up step is missing."""
    beside = Path(__file__).parent.parent / ".venv-tf" / "bin" / "python"
    path = Path(os.environ.get("LXMERT_TF_ORACLE_PYTHON", beside))
    assert path.is_file(), f"{path} is not there: 'make test' sets it up"
    return str(path)
