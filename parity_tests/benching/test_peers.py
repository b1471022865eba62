"""Other programs with the same weights: their files are made, they answer the same, and what is missing is one line."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest

import lxmert_export as lx
from lxmert_export import extras
from lxmert_export.artifact.directory import Artifact
from lxmert_export.benching import peer_files, peers
from lxmert_export.benching.agreement import agreement_of
from lxmert_export.benching.contest import inputs_of
from lxmert_export.benching.counting import operations_of
from lxmert_export.benching.settings import Setting
from lxmert_export.errors import MissingExtra
from lxmert_export.progress import silent
from lxmert_export.spec.flops import model_flops
from lxmert_export.spec.signature import task_signature
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY, lively_model


@pytest.fixture
def graph(exports: Exports) -> Artifact:
    return exports.lively("onnx", "question-answering", TINY)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    lx.save_checkpoint(lively_model("question-answering", TINY), tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_every_peer_answers_the_same(graph: Artifact, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the compiled one, whose compiler takes minutes: without a C++ compiler it is a note. All in this process."""
    monkeypatch.setattr(peers.shutil, "which", lambda name: None)
    monkeypatch.setattr(peers, "run_within", lambda files, limit: files.run())
    monkeypatch.setattr(peer_files, "CALIBRATED_ON", 2)
    setting = Setting(2, 5, 3)
    inputs = inputs_of(graph.manifest, setting)
    with lx.load_artifact(graph.path) as runner:
        ours = runner.run(inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's and the optimizer's own
        with peers.peers_of(graph, peers.AGAINST, checkpoint, 60, silent) as (found, notes):
            assert [one.name for one in found] == [peer.name for peer in peers.PEERS if not peer.compiles]
            assert notes[0] == "transformers, torch.compile: not run: it needs a C++ compiler: install g++"
            assert [note.split(":")[0] for note in notes[1:]] == ["plain export, NNCF int8, OpenVINO"]
            assert len({one.bytes for one in found}) == 5  # OpenVINO and onnxruntime open the same plain export
            for one in found:
                with one.opens(1) as runner:
                    agreement = agreement_of(ours, runner.run(inputs), ("fp32", one.precision))
                assert agreement.share is not None and agreement.share < (0.5 if one.precision == "int8" else 1e-5)
                assert (agreement.share > 1e-4) is (one.precision == "int8"), one.name
                assert operations_of(one, graph.manifest, setting) == model_flops(
                    graph.manifest.config, graph.manifest.signature, setting.sizes
                )


def test_a_checkpoint_of_other_weights_is_refused(graph: Artifact, checkpoint: Path, tmp_path: Path) -> None:
    """The manifest knows its checkpoint's hash."""
    made_from = made_of(graph, sha256="0" * 64)
    (tmp_path / "files").mkdir()
    with pytest.raises(
        lx.ArtifactError, match=r"was made from other weights \(sha256 000000000000\) than .*checkpoint"
    ):
        peers.PeerFiles(made_from, str(checkpoint), tmp_path / "files", "checkpoint").run()


def test_a_checkpoint_that_is_gone_is_one_line(graph: Artifact, tmp_path: Path) -> None:
    """The manifest names a place where nothing is any more."""
    moved = made_of(graph, dialect="hf", name=str(tmp_path / "gone.pth"))
    saying = r"against needs the checkpoint that it was made from: .*gone\.pth.*; or give its place by checkpoint$"
    with pytest.raises(lx.ArtifactError, match=saying), peers.peers_of(moved, ["transformers"], None, 60, silent):
        pass


def made_of(artifact: Artifact, **facts: str) -> Artifact:
    """An artifact whose manifest says this of its checkpoint."""
    checkpoint = {**artifact.manifest.checkpoint, **facts}
    return replace(artifact, manifest=replace(artifact.manifest, checkpoint=checkpoint))


def test_a_step_that_fails_is_named(graph: Artifact, tmp_path: Path) -> None:
    """onnxruntime's tools find no plain export to work on."""
    with pytest.raises(lx.ConversionError, match="the files of against cannot be made: step 'int8': "):
        peers.PeerFiles(graph, "demo", tmp_path, "int8").run()


def test_a_library_that_is_missing_has_its_pip_line(graph: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "openvino" else name)
    with pytest.raises(MissingExtra, match=r"needs the extra 'openvino': pip install 'lxmert-export\[openvino\]'"):
        lx.bench([graph.path], against="openvino", checkpoint="demo")


def test_what_transformers_lacks_is_refused(graph: Artifact) -> None:
    pairs = replace(graph, manifest=replace(graph.manifest, signature=task_signature(TINY, "nlvr2"), task="nlvr2"))
    hidden = replace(
        graph, manifest=replace(graph.manifest, signature=task_signature(TINY, "model", hidden_states=True))
    )
    for artifact, saying in (
        (pairs, "the transformers library has no model of task nlvr2"),
        (hidden, "compares the outputs of its task alone, and it also has language_hidden_states.0"),
    ):
        with (
            pytest.raises(lx.LxmertExportError, match=saying),
            peers.peers_of(artifact, ["transformers"], "demo", 60, silent),
        ):
            pass
