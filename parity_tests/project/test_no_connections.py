"""No command but those that read the hub opens a connection, whatever library it loads."""

from __future__ import annotations

import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lxmert_export as lx
from lxmert_export.cli.main import app
from parity_tests.data.feature_files import KEPT
from parity_tests.fixtures.command import ROOT
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY, lively_model
from parity_tests.predicting.question_set import write_set
from parity_tests.project.without_connections import COMMANDS, SOCKET_CALL

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(
        sys.platform != "linux" or platform.machine() not in SOCKET_CALL, reason="filters calls as Linux can"
    ),
]


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "parity_tests.project.without_connections", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_command_works_where_no_internet_socket_can_be_made(exports: Exports, tmp_path: Path) -> None:
    lx.save_checkpoint(lively_model("question-answering", TINY), tmp_path / "checkpoint")
    (tmp_path / "demo-onnx").symlink_to(exports.demo("onnx", task="question-answering").path)
    (tmp_path / "answering").symlink_to(exports.answering("onnx").path)
    write_set(tmp_path, questions=12, pictures=4)
    (tmp_path / "gqa").symlink_to(KEPT / "gqa-hdf5")
    done = program(str(tmp_path))
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert done.stdout.splitlines() == list(COMMANDS)


def test_a_connection_is_noticed(tmp_path: Path) -> None:
    assert program(str(tmp_path), "connect").returncode == -signal.SIGSYS


def test_every_command_is_among_them() -> None:
    named = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert named <= {command.split()[0] for command in COMMANDS}
