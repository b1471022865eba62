"""The command line as a user meets it: what it prints, what it leaves behind, and its exit codes."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

import lxmert_export as lx
from parity_tests.faults.torch_faults import FAULTS
from parity_tests.fixtures.command import ROOT, refused, run, run_apart
from parity_tests.fixtures.random_models import TINY, lively_inputs, lively_model

pytestmark = pytest.mark.quick

MOST_MODULES = 600  # as many as `--help` may import


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a checkpoint, a faulty one, and an fp16 artifact."""
    place = tmp_path_factory.mktemp("place")
    lx.save_checkpoint(lively_model("pretraining", TINY), place / "checkpoint")
    overflowing = lively_model("question-answering", TINY)
    FAULTS["fp16_overflow"](overflowing)
    lx.save_checkpoint(overflowing, place / "overflowing")
    done = run("onnx", "checkpoint", "--fp16", "--task", "question-answering", "-o", "artifact", "--verbose", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "checkpoint checkpoint (hf dialect, model.safetensors, sha256 " in done.stderr
    assert "not used by task question-answering: masked_language_head, match_head, object_head" in done.stderr
    assert "parity passed: 17 cells" in done.stderr and "emulated" in done.stderr
    assert done.stdout.startswith("wrote artifact (")
    return place


def test_islands_that_are_needed_are_named(place: Path) -> None:
    done = run("onnx", "overflowing", "--fp16", "--fp32-islands", "auto", "-o", "auto", cwd=place)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    first = lines.index("float32 islands: 12 nodes (each is needed)") + 1
    named = [line.strip() for line in lines[first : first + 12]]
    assert named == json.loads((place / "auto" / "manifest.json").read_text())["options"]["fp32_islands"]
    for arguments, saying in ((("--bf16",), "is for --fp16"), (("--fp16", "--no-parity"), "leave --no-parity out")):
        refusal = run("onnx", "overflowing", *arguments, "--fp32-islands", "auto", "-o", "other", cwd=place)
        assert refusal.returncode == 2 and saying in refusal.stderr
        assert not (place / "other").exists()


def test_default_names(place: Path) -> None:
    answering = ("checkpoint", "--fp16", "--task", "question-answering")
    assert run("onnx", *answering, "--no-parity", cwd=place).returncode == 0
    assert (place / "checkpoint-question-answering-onnx-fp16" / "model.onnx").is_file()
    assert run("onnx", "--no-parity", cwd=place).returncode == 0
    assert (place / "demo-pretraining-onnx-fp32" / "model.onnx").is_file()


def test_verify_inspect_and_parity(place: Path) -> None:
    assert run("verify", "artifact", cwd=place).returncode == 0
    verified = run("verify", "artifact", "--json", cwd=place)
    assert json.loads(verified.stdout)["passed"] is True
    inspected = json.loads(run("inspect", "artifact", "--json", cwd=place).stdout)
    assert set(inspected["graph"]["matmul_weights"]) == {"fp16"}
    assert "matmul weights" in run("inspect", "artifact", cwd=place).stdout
    judged = run("parity", "artifact", "--checkpoint", "checkpoint", "--no-laws", "--json", "-", cwd=place)
    assert judged.returncode == 0 and json.loads(judged.stdout)["passed"] is True
    assert run("parity", "artifact", "--json", "report.json", cwd=place).returncode == 0
    assert json.loads((place / "report.json").read_text())["cells"]


def test_inspect_a_checkpoint(place: Path) -> None:
    facts = json.loads(run("inspect", "checkpoint", "--json", cwd=place).stdout)
    assert (facts["kind"], facts["dialect"], facts["task"]) == ("checkpoint", "hf", "pretraining")
    assert facts["parameters"] == sum(p.numel() for p in lively_model("pretraining", TINY).parameters())


def test_doctor(place: Path) -> None:
    facts = json.loads(run("doctor", "--json", cwd=place).stdout)
    assert all(capability["works"] or capability["mend"] for capability in facts["capabilities"])
    assert "convert to ONNX" in run("doctor", cwd=place).stdout


def test_convert(place: Path) -> None:
    for source, dialect, target in (("checkpoint", "original", "pth"), ("pth", "tf", "h5"), ("h5", "hf", "back")):
        assert run("convert", source, "--to", dialect, "-o", target, cwd=place).returncode == 0
    assert (place / "back/model.safetensors").read_bytes() == (place / "checkpoint/model.safetensors").read_bytes()


def test_a_failed_gate_is_exit_code_3_with_the_table_and_nothing_left(place: Path) -> None:
    done = run("onnx", "overflowing", "--fp16", "-o", "never", cwd=place)
    assert done.returncode == 3
    assert "self_attention.value (reaches" in done.stderr
    assert "--fp32-islands auto or --fp32-islands standard+ keeps such nodes" in done.stderr
    next_command = "--keep-failed DIR, then lxmert-export parity DIR --checkpoint overflowing --locate"
    assert f"to see which layer goes wrong: {next_command}" in " ".join(done.stderr.split())
    assert "NaN or infinity" in done.stderr and "error: parity FAILED" in done.stderr
    assert done.stderr.count("parity FAILED") == 1
    assert not (place / "never").exists() and not list(place.glob(".never*"))
    against = ("parity", "artifact", "--checkpoint", "overflowing", "--allow-other-checkpoint", "--no-laws")
    other = run(*against, cwd=place)
    assert other.returncode == 3 and other.stderr.count("parity FAILED") == 1
    quiet = run(*against, "--json", "-", cwd=place)
    assert quiet.returncode == 3 and quiet.stderr.count("parity FAILED") == 1
    assert json.loads(quiet.stdout)["passed"] is False


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        (["onnx", "gone.pth"], "gone.pth: no such file or directory"),
        (["onnx", "./gone"], "no such file or directory"),
        (["onnx", "checkpoint", "--task", "nlvr2"], "lacks pair_head"),
        (["onnx", "checkpoint", "-o", "artifact"], "exists already"),
        (["onnx", "checkpoint", "--text", "33"], "longer than the position table"),
        (["onnx", "demo", "--task", "model", "--object-heads"], "no object heads"),
        (["onnx", "checkpoint", "-o", "report.txt/x"], "cannot be written"),
        (["verify", "checkpoint"], "not an artifact directory"),
        (["verify", "gone"], "not an artifact directory"),
        (["inspect", "gone"], "no such file or directory"),
        (["parity", "artifact", "checkpoint"], "not an artifact directory"),
        (["parity", "artifact", "--json", "gone/report.json"], "cannot be written"),
        (
            ["verify", "artifact", "--provider", "CUDAExecutionProvider"],
            "onnxruntime here has no CUDAExecutionProvider",
        ),
        (["convert", "checkpoint", "--to", "tf", "-o", "artifact"], "exists already"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_one_line(arguments: list[str], saying: str, place: Path) -> None:
    (place / "report.txt").touch()
    refused(run(*arguments, cwd=place), saying)


@pytest.mark.parametrize(
    "arguments",
    [["onnx", "--fp16", "--bf16"], ["onnx", "--task", "vqa"], ["onnx", "--opset", "17"], ["onnx", "--text", "0"], ["parity"],
     ["convert", "demo"], ["quantize"], ["onnx", "--io-dtype", "bfloat16"]],
    ids=" ".join,
)  # fmt: skip
def test_usage_is_exit_code_2(arguments: list[str], place: Path) -> None:
    done = run(*arguments, cwd=place)
    assert done.returncode == 2 and done.stdout == "" and "Error" in done.stderr


def test_a_command_that_is_an_option_is_pointed_to(place: Path) -> None:
    done = run("lint", "artifact", cwd=place)
    assert (
        done.returncode == 2
        and "'lxmert-export inspect ARTIFACT --lint'" in done.stderr
        and "tflite" not in done.stderr
    )


def test_boxes_in_pixels_are_one_line_whoever_reads_them(place: Path, tmp_path: Path) -> None:
    drawn = {name: tensor.numpy() for name, tensor in lively_inputs(TINY).items()}
    np.savez(tmp_path / "px.npz", **{**drawn, "visual_pos": drawn["visual_pos"] * 640})
    names = ("artifact", "--checkpoint", "checkpoint", "--inputs", str(tmp_path / "px.npz"), "--no-laws")
    done = run_apart("parity", *names, cwd=place)
    lines = [line for line in done.stderr.splitlines() if "boxes are shares of" in line]
    assert [line.startswith("warning: visual_pos holds ") for line in lines] == [True], done.stderr
    assert "Warning:" not in done.stderr


def test_debug_shows_the_traceback(place: Path) -> None:
    """Of commands that import no PyTorch, which is quicker."""
    for arguments in (("--debug", "verify", "gone"), ("verify", "gone", "--debug")):
        done = run_apart(*arguments, cwd=place)
        assert done.returncode == 1 and "Traceback" in done.stderr and "ArtifactError" in done.stderr


def test_a_folder_named_converters_is_not_taken_for_ours(place: Path) -> None:
    (place / "mine" / "converters").mkdir(parents=True)
    (place / "mine" / "converters" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    code = "import sys; sys.argv = ['x', 'onnx', 'demo']; from lxmert_export.cli.main import main; main()"
    environment = {**os.environ, "PYTHONPATH": f"{place / 'mine'}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], cwd=place, env=environment, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 1 and "is not lxmert-export's own" in done.stderr and "wrong one" not in done.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_mid_export_leaves_nothing(stop: signal.Signals, place: Path) -> None:
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "sys.argv = ['x', 'onnx', 'checkpoint', '-o', 'interrupted']; from lxmert_export.cli.main import main; main()"
    )  # a shell's background job would inherit the signal's being ignored
    process = subprocess.Popen([sys.executable, "-c", code], cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)},
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    for _ in range(600):
        if list(place.glob(".interrupted.writing*")):
            break
        time.sleep(0.05)
    process.send_signal(stop)
    assert process.wait() != 0
    assert not (place / "interrupted").exists() and not list(place.glob(".interrupted*"))


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file of this process can grow beyond a size."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_one_line(place: Path) -> None:
    """A file size limit stands in for the disk: the kernel answers the same way, with an error on write."""
    command = ("onnx", "checkpoint", "--no-parity", "-o")
    assert run(*command, "whole", cwd=place).returncode == 0  # traced: the trace that tests share is written, too
    with small_files(20_000):
        done = run(*command, "full", cwd=place)
    assert done.returncode == 1, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ") and "cannot be written" in done.stderr
    assert not (place / "full").exists() and not list(place.glob(".full*"))


@pytest.mark.parametrize("call", ["stat", "open"])
def test_a_disk_that_fails_while_it_is_read_is_one_line(
    call: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = getattr(Path, call)

    def failing(path: Path, *rest: object, **options: object) -> object:
        if "checkpoint" in path.parts:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return done(path, *rest, **options)

    monkeypatch.setattr(Path, call, failing)
    arguments = ("convert", "--to", "original", "-o", str(tmp_path / "out"), "checkpoint")
    refused(run(*arguments, cwd=place), "Input/output error")
    assert not list(tmp_path.iterdir())


def test_hostile_checkpoints_reach_the_user_as_one_line(place: Path) -> None:
    name = "bert.encoder.x_layers.0.visual_attention.att.query.weight"
    torch.save({name: torch.zeros(1).expand(10**6, 10**6)}, place / "giant.pth")
    refused(run("onnx", "giant.pth", cwd=place), "claims 4000000000000 bytes")


def test_the_module_is_the_command(place: Path) -> None:
    """`python -m lxmert_export.cli`, in a process of its own, from export to verdict."""
    done = run_apart("onnx", "checkpoint", "-o", "apart", cwd=place)
    assert done.returncode == 0 and done.stdout.startswith("wrote apart ("), done.stderr
    assert run_apart("verify", "apart", cwd=place).returncode == 0


def test_help_imports_little(place: Path) -> None:
    """What --help costs is what it imports: no framework, and fewer modules than a bound (numpy's own are 130 of them)."""
    code = (
        "import sys; sys.argv = ['lxmert-export', '--help']\n"
        "from lxmert_export.cli.main import main\n"
        "try:\n    main()\nfinally:\n"
        "    frameworks = {'torch', 'onnx', 'onnxruntime', 'h5py', 'huggingface_hub'} & set(sys.modules)\n"
        "    print('LOADED', len(sys.modules), *sorted(frameworks))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    _, _, loaded = done.stdout.partition("LOADED ")
    number, *frameworks = loaded.split()
    assert not frameworks and int(number) < MOST_MODULES


def test_the_version(place: Path) -> None:
    done = run("--version", cwd=place)
    assert done.returncode == 0 and done.stdout == f"lxmert-export {metadata.version('lxmert-export')}\n"
