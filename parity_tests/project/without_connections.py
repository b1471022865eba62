"""Runs every command that reads no hub in a process which the system ends as it makes an internet socket.

    python -m parity_tests.project.without_connections PLACE [connect]

A filter of system calls sees what native libraries do, too, and holds for the processes that a command starts. To look up a
name takes a socket as well. Prints each command before it is run; with ``connect`` it makes a connection itself.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
import sys
from pathlib import Path

# Of linux/seccomp.h, linux/prctl.h and linux/bpf_common.h.
NO_NEW_PRIVILEGES, SET_FILTER, FILTER_MODE = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, KILL = 0x7FFF0000, 0x80000000
NUMBER, FIRST_ARGUMENT = 0, 16  # places in the data of a call
SOCKET_CALL = {"x86_64": 41, "aarch64": 198}

COMMANDS = (
    "--version",
    "doctor",
    "inspect checkpoint",
    "convert checkpoint --to original -o original",
    "onnx checkpoint -o onnx",
    "tensorflow checkpoint -o tensorflow",
    "tflite checkpoint -o tflite",
    "tensorrt onnx -o bundle --bundle",
    "tensorrt onnx -o engine",
    "inspect onnx",
    "verify onnx",
    "verify onnx@openvino",
    "verify tensorflow",
    "verify tflite",
    "bench onnx tflite --batch 1 --rounds 2 --warm-up 1 --rest 0 --json bench.json",
    "parity onnx --checkpoint checkpoint --no-laws --json report.json",
    "parity --from report.json --html report.html",
    "features convert gqa -o features",
    "features inspect features",
    "ask demo-onnx --image scene.png --draw-scene 7",
    "predict answering --features val2014_obj36.tsv --questions questions.json -o answers.json",
    "evaluate answers.json answering --questions questions.json --features val2014_obj36.tsv --json evaluation.json",
)


def forbid_internet_sockets() -> None:
    """Has the system end this process and those that it starts as they make a socket of the internet."""
    socket.has_ipv6 = False  # urllib3 makes a socket as it is imported, to see whether it could
    steps = [
        (LOAD, 0, 0, NUMBER),
        (JUMP_IF_EQUAL, 0, 4, SOCKET_CALL[platform.machine()]),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (JUMP_IF_EQUAL, 1, 0, socket.AF_INET),
        (JUMP_IF_EQUAL, 0, 1, socket.AF_INET6),
        (RETURN, 0, 0, KILL),
        (RETURN, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((NO_NEW_PRIVILEGES, 1, 0, 0, 0), (SET_FILTER, FILTER_MODE, ctypes.c_char_p(program), 0, 0)):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main() -> None:
    """Runs the commands, one after the other."""
    place = Path(sys.argv[1])
    forbid_internet_sockets()
    if sys.argv[2:] == ["connect"]:
        socket.create_connection(("127.0.0.1", 9))
    from parity_tests.fixtures.command import run

    for command in COMMANDS:
        sys.stdout.write(f"{command}\n")
        sys.stdout.flush()
        done = run(*command.split(), cwd=place)
        assert done.returncode == 0, done.stderr
    from huggingface_hub.constants import HF_HUB_DISABLE_TELEMETRY

    assert HF_HUB_DISABLE_TELEMETRY


if __name__ == "__main__":
    main()
