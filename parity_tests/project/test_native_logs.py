"""Native chatter is kept off stderr, and stderr is always given back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lxmert_export.native_logs import quiet_native_logs

ROOT = Path(__file__).parent.parent.parent


def test_what_is_written_to_the_descriptor_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_native_logs():
        os.write(2, b"chatter")
        with quiet_native_logs():
            os.write(2, b"more")
        os.write(2, b"still")
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_an_exception_gives_stderr_back(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="wrong"), quiet_native_logs():
        raise ValueError("wrong")
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_threads_that_overlap_give_stderr_back(capfd: pytest.CaptureFixture[str]) -> None:
    def quiet(seconds: float) -> None:
        with quiet_native_logs():
            time.sleep(seconds)

    threads = [threading.Thread(target=quiet, args=(seconds,)) for seconds in (0.2, 0.05, 0.1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_a_closed_stderr_is_no_error() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from lxmert_export.native_logs import quiet_native_logs as q\n" \
           "with q(): print('done')"  # fmt: skip
    done = subprocess.run(["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "done\n")
