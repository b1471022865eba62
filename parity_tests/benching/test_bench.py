"""`lxmert-export bench` and ``lx.bench``: artifacts side by side, planted faults, and bad input in one line each."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

import lxmert_export as lx
from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.flops import count_flops
from lxmert_export.artifact.session_settings import SessionSetting
from lxmert_export.benching import contestants
from lxmert_export.benching.contest import Method, run_bench
from lxmert_export.benching.peers import check_names
from lxmert_export.benching.report import SCHEMA, BenchReport
from lxmert_export.benching.settings import Setting
from lxmert_export.benching.workers import Worker
from lxmert_export.benching.workload import Workload
from lxmert_export.errors import ArtifactError, InputError, LxmertExportError, RuntimeFailed
from lxmert_export.files.json_files import check_schema
from lxmert_export.runners.onnx.session import session_settings
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.signature import TensorSpec
from parity_tests.benching.planted import Fault, OpensPlanted, planted
from parity_tests.fixtures.command import refused, run
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import SMALL, TINY

METHOD = Method(rounds=2, warm_up=1, rest=0.25, threads=1, time_limit=60)
SETTINGS = [Setting(2, 5, 3), Setting(1, 5, 3)]


@pytest.fixture
def graph(exports: Exports) -> Artifact:
    return exports.lively("onnx", "question-answering", TINY)


@pytest.fixture
def fixed(exports: Exports) -> Artifact:
    return exports.lively("onnx", "question-answering", TINY, fixed={"batch": 2, "text": 5}, parity=False)


def bench_of(graph: Artifact, *faults: Fault, rests: list[float] | None = None) -> BenchReport:
    """A bench of contestants with these faults, each named after its fault; the first has none."""
    manifest = graph.manifest
    entered = [planted(fault, manifest.signature, manifest.limits, fault) for fault in ("none", *faults)]
    sleep = (lambda seconds: None) if rests is None else rests.append
    return run_bench(entered, SETTINGS, manifest, METHOD, sleep=sleep)


def test_a_bench_counts_its_calls_and_rests(graph: Artifact) -> None:
    rests: list[float] = []
    report = bench_of(graph, rests=rests)
    assert report.passed and report.settings == SETTINGS
    assert [(one.name, len(one.calls_ms)) for one in report.results] == [("none", 2), ("none", 2)]
    assert rests == [0.25] * 8  # 2 settings, 2 rounds, 1 contestant and the machine's matrix product
    (entrant,) = report.entrants
    assert entrant.startup_seconds > 0 and entrant.peak_bytes > 1_000_000
    for result in report.results:
        assert result.rows_a_second == pytest.approx(1000 * result.setting.batch / result.latency.p50)
        assert (result.speed.low, result.speed.high) == (1.0, 1.0)


def test_contestants_with_other_answers_are_flagged(graph: Artifact) -> None:
    faults: list[Fault] = ["other answers", "NaN", "other shape", "missing output"]
    report = bench_of(graph, *faults)
    assert not report.passed
    flagged = {(name, where) for name, where, _ in report.disagreeing}
    assert flagged == {(fault, str(setting)) for fault in faults for setting in SETTINGS}
    assert "other answers answers something else than none: question_answering_score differs by" in report.summary()
    check_schema(report.to_dict(), SCHEMA)


@pytest.mark.parametrize(
    ("fault", "saying"),
    [
        ("crash", r"^crash: its process crashed \(SIGSEGV\)"),
        ("exit", "^exit: its process ended with exit code 7: my last words$"),
        ("error", "^error: failed while it ran: no kernel for this$"),
        ("cannot open", "^cannot open: its file is damaged: export it again$"),
    ],
)
def test_a_contestant_that_fails_is_named(graph: Artifact, fault: Fault, saying: str) -> None:
    manifest = graph.manifest
    opens = OpensPlanted(manifest.signature, manifest.limits, fault)
    with pytest.raises(ArtifactError, match=saying), Worker(fault, opens, threads=1, time_limit=60) as worker:
        worker.load(graph.drawn_inputs().families[0].batches[0])
        worker.call()


@pytest.mark.parametrize("fault", ["crash", "error", "cannot open"])
def test_another_program_that_fails_is_left_out_and_the_others_are_measured(graph: Artifact, fault: Fault) -> None:
    manifest = graph.manifest
    ours = planted("ours", manifest.signature, manifest.limits)
    peers = [replace(planted(name, manifest.signature, manifest.limits, how), kind="peer") for name, how in
             (("bad", fault), ("good", "none"))]  # fmt: skip
    report = run_bench([ours, *peers], SETTINGS, manifest, METHOD, notes=["before"], sleep=lambda seconds: None)
    assert [one.name for one in report.entrants] == ["ours", "good"] and report.passed
    assert {result.name for result in report.results} == {"ours", "good"}
    before, note = report.notes
    assert before == "before" and note.startswith("bad: not run: ") and note.count("bad") == 1


def test_another_program_that_fails_on_the_workload_is_left_out(
    graph: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a compiler may on shapes that are new to it."""
    manifest = graph.manifest
    ours = planted("ours", manifest.signature, manifest.limits)
    bad = replace(planted("bad", manifest.signature, manifest.limits), kind="peer")
    load = Worker.load

    def loading(worker: Worker, inputs: Arrays) -> None:
        if worker.name == "bad" and len(inputs["input_ids"]) != SETTINGS[0].batch:
            raise ArtifactError("bad: failed while it ran: no kernel for this")
        load(worker, inputs)

    monkeypatch.setattr(Worker, "load", loading)
    workload = Workload(0, 11, 2.2, 3, {2: 1, 5: 6, 9: 3, 14: 1}, baseline_batch=4, baseline_tokens=16)
    method = replace(METHOD, workload_batch=4, passes=1)
    report = run_bench([ours, bad], SETTINGS[:1], manifest, method, workload=workload, sleep=lambda seconds: None)
    assert report.workload is not None and [one.name for one in report.workload.results] == ["ours"]
    assert report.notes == ("bad: not run: failed while it ran: no kernel for this",)


def test_the_summary_names_no_winner_that_the_interval_does_not(graph: Artifact) -> None:
    report = bench_of(graph, "none")
    first, second = report.results[:2]
    for median, low, said in (
        (1.2, 0.9, "none is clearly faster than none"),
        (1.2, 1.1, "none is the fastest, 1 ms, 1.20"),
    ):
        faster = replace(
            second, latency=replace(second.latency, p50=1.0), speed=replace(second.speed, median=median, low=low)
        )
        slower = replace(first, latency=replace(first.latency, p50=2.0))
        summary = replace(report, results=(slower, faster)).summary()
        assert summary.startswith("both answer the same, within their limits; batch 2, ") and said in summary
    alone = replace(report, entrants=report.entrants[:1], results=report.results[:1]).summary()
    assert alone.startswith("batch 2, 5 tokens, 3 objects: none takes ")


def test_a_contestant_that_hangs_is_named_and_ended(graph: Artifact) -> None:
    manifest = graph.manifest
    opens = OpensPlanted(manifest.signature, manifest.limits, "hang")
    with Worker("slow", opens, threads=1, time_limit=60) as worker:
        worker.load(graph.drawn_inputs().families[0].batches[0])
        worker._time_limit = 0.1
        with pytest.raises(RuntimeFailed, match=r"^slow: did not answer within 0\.1 s; time_limit allows more$"):
            worker.call()
        assert worker._process.wait(timeout=10) != 0


def test_every_contestant_is_told_the_number_of_threads(graph: Artifact) -> None:
    manifest = graph.manifest
    opens = OpensPlanted(manifest.signature, manifest.limits)
    answers = {}
    for threads in (1, 2):
        with Worker("told", opens, threads=threads, time_limit=60) as worker:
            worker.load(graph.drawn_inputs().families[0].batches[0])
            worker.call()
            answers[threads] = worker.outputs()["question_answering_score"]
    assert (answers[2] == 2 * answers[1]).all()


def test_the_command_benches_artifacts_and_prints_one_json_object(
    graph: Artifact, fixed: Artifact, tmp_path: Path
) -> None:
    arguments = [
        "bench",
        str(graph.path),
        str(fixed.path),
        f"{graph.path}@openvino",
        "--objects",
        "3,4",
        "--rounds",
        "2",
        "--rest",
        "0",
    ]
    done = run(*arguments, "--threads", "1", "--json", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    jsonschema.validate(report, json.loads(files("lxmert_export").joinpath(SCHEMA).read_text(encoding="utf-8")))
    check_schema(report, SCHEMA)
    assert [one["name"] for one in report["contestants"]] == [str(graph.path), str(fixed.path), "out@openvino"]
    assert [one["runtime"] for one in report["contestants"]] == ["onnxruntime", "onnxruntime", "openvino"]
    assert [(r["batch"], r["text"], r["objects"]) for r in report["results"][::3]] == [(2, 5, 3), (2, 5, 4)]
    assert report["method"] == {
        "rounds": 2, "warm_up": 3, "rest": 0.0, "threads": 1, "time_limit": 900.0, "workload_batch": 32, "passes": 3,
    }  # fmt: skip
    for result in report["results"]:
        assert result["operations"] == count_flops(graph, {axis: result[axis] for axis in ("batch", "text", "objects")})
        assert result["matmul_share"] > 0
    assert report["passed"] and all(result["agreement"]["largest"] < 1e-4 for result in report["results"])
    assert "p50 ms" in done.stderr and "the median of 2 rounds" in done.stderr


def test_the_report_states_the_session_settings_that_an_artifact_carries(graph: Artifact) -> None:
    """As the runner applies them: those for the installed onnxruntime."""
    carried = [SessionSetting("a.key", "1", first="1.0"), SessionSetting("not.here", "1", first="1.0", end="1.1")]
    options = {**graph.manifest.options, "session_settings": [setting.to_dict() for setting in carried]}
    tuned = replace(graph, manifest=replace(graph.manifest, options=options))
    (stated,) = contestants.contestant_of(tuned, "place").settings
    assert stated.startswith("a.key=1 (onnxruntime ") and list(session_settings(tuned)) == ["a.key"]
    assert contestants.contestant_of(graph, "place").settings == ()


def test_a_wrong_artifact_ends_the_command_with_exit_code_3(
    graph: Artifact, fixed: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = graph.manifest

    def opens(place: str) -> OpensPlanted:
        fault: Fault = "other answers" if place == str(fixed.path) else "none"
        return OpensPlanted(manifest.signature, manifest.limits, fault)

    monkeypatch.setattr(contestants, "OpensArtifact", opens)
    sizes = ("--objects", "3", "--rounds", "1", "--rest", "0", "--threads", "1")
    done = run("bench", str(graph.path), str(fixed.path), *sizes, "--json", "bench.json", cwd=tmp_path)
    assert done.returncode == 3 and done.stdout == ""
    assert "WRONG" in done.stderr and "answers something else than" in done.stderr
    assert json.loads((tmp_path / "bench.json").read_text())["passed"] is False


def test_artifacts_of_different_questions_are_refused(graph: Artifact) -> None:
    manifest = graph.manifest
    signature = manifest.signature
    one_more = replace(signature, outputs=(*signature.outputs, TensorSpec("logits", "float32", ("batch", 2))))
    for other, saying in (
        (replace(manifest, task="model"), r"task \(question-answering and model\)"),
        (replace(manifest, config=SMALL), r"config \(l_layers 1 and 2"),
        (replace(manifest, signature=replace(signature, inputs=signature.inputs[:-1])), "inputs"),
        (replace(manifest, signature=one_more), "outputs"),
    ):
        with pytest.raises(ArtifactError, match=f"cannot be benched together: they differ in {saying}"):
            contestants.check_same_question([graph, replace(graph, manifest=other)])
    contestants.check_same_question([graph, graph])


def test_bad_input_is_one_line_and_writes_nothing(graph: Artifact, fixed: Artifact, tmp_path: Path) -> None:
    own = str(graph.path)
    for arguments, saying in (
        ((), "no artifact to bench: name at least one directory"),
        ((own, own), "named twice"),
        ((own, f"{own}@onnxruntime"), "named twice"),
        ((str(tmp_path),), "not an artifact directory"),
        ((f"{own}@tvm",), "no runtime 'tvm' runs ONNX artifacts"),
        ((own, "--batch", "0"), "--batch: takes whole numbers from 1 on, not 0"),
        ((own, "--batch", "1,x"), "--batch: takes whole numbers with commas between them, such as 1,8, not '1,x'"),
        ((own, "--batch", "99999999"), "too large for one call"),
        ((own, "--text", "33"), "its position table ends at 32, so --text cannot be 33"),
        ((own, str(fixed.path), "--batch", "1"), "its batch axis is fixed to 2, so --batch cannot be 1"),
        ((own, "--rounds", "0"), "--rounds: takes whole numbers from 1 on, not 0"),
        ((own, "--rest", "-1"), "--rest: takes seconds, 0 or more and at most 604800, not -1.0"),
        ((own, "--rest", "1e300"), "--rest: takes seconds, 0 or more and at most 604800, not 1e+300"),
        ((own, "--threads", "0"), "--threads: takes whole numbers from 1 on, not 0"),
        (
            (own, "--against", "tensorflow"),
            "--against: takes transformers, onnxruntime, openvino, nncf, not 'tensorflow'",
        ),
        ((own, "--checkpoint", "demo"), "--checkpoint: is for other programs: give --against, too"),
        ((own, "--workload", "gone.json"), "gone.json: the workload cannot be read: No such file or directory"),
        ((own, "--passes", "0"), "--passes: takes whole numbers from 1 on, not 0"),
        (
            (own, "--against", "onnxruntime"),
            "was made from a model in memory, and --against needs its checkpoint: give --checkpoint",
        ),
        ((own, "--against", "onnxruntime", "--checkpoint", "gone.pth"), "gone.pth"),
        ((own, "--json", "gone/bench.json"), "there is no directory"),
    ):
        before = sorted(tmp_path.iterdir())
        refused(run("bench", *arguments, cwd=tmp_path), saying)
        assert sorted(tmp_path.iterdir()) == before


def test_python_refuses_the_same_with_its_own_names(graph: Artifact) -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({"batch": 8}, "^batch: takes a list of sizes, such as \\[1, 8\\], not 8"),
        ({"text": "20"}, "^text: takes a list of sizes"),
        ({"batch": [True]}, "^batch: takes whole numbers from 1 on"),
        ({"text": []}, "^text: no size is given"),
        ({"objects": [2.5]}, "^objects: takes whole numbers"),
        ({"rest": float("nan")}, "^rest: takes seconds"),
        ({"time_limit": 0}, "^time_limit: takes seconds, 1 or more"),
        ({"threads": 100_000}, "^threads: takes at most this machine's cores"),
        ({"workload": 3}, "^workload: takes a path, not 3"),
    ]
    for options, saying in bad:
        with pytest.raises(InputError, match=saying):
            lx.bench([graph.path], **options)
    with pytest.raises(LxmertExportError, match="no artifact"):
        lx.bench([])
    for artifacts in (str(graph.path), [3], None):  # a text would be a list of letters
        with pytest.raises(InputError, match="^artifacts: takes a list of directories"):
            lx.bench(artifacts)  # type: ignore[arg-type]


def test_no_artifact_has_the_name_of_another_row(graph: Artifact) -> None:
    for name, against in (("matmul", ()), ("plain export", ("onnxruntime",))):
        one = contestants.contestant_of(replace(graph, name=name), str(graph.path))
        with pytest.raises(InputError, match=f"^{name}: is the name of another row"):
            check_names([one], against)
        check_names([replace(one, name="vqa")], against)
    check_names([contestants.contestant_of(replace(graph, name="plain export"), "place")], ())


def test_windows_is_refused_in_one_line(graph: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lxmert_export.api.bench.os", SimpleNamespace(name="nt"))
    with pytest.raises(InputError, match="^bench runs on Linux and macOS"):
        lx.bench([graph.path])
