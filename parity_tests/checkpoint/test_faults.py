"""Nothing loads silently wrong: every damaged, hostile or ill-fitting file is one clear line."""

from __future__ import annotations

import errno
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lxmert_export.checkpoint.read import read_checkpoint
from lxmert_export.errors import CheckpointError, ConfigError, LxmertExportError
from lxmert_export.spec.weight_names import weight_names
from parity_tests.fixtures.golden_files import TRANSFORMERS
from parity_tests.fixtures.random_models import SMALL, lively_state

pytestmark = pytest.mark.quick


@pytest.fixture
def state() -> dict[str, Tensor]:
    """A pre-training checkpoint under upstream names, the tied decoder left out as transformers does."""
    ours = lively_state(SMALL, "pretraining")
    rows = weight_names(SMALL, "pretraining")
    return {row.upstream: ours[row.ours] for row in rows if not row.upstream.endswith("decoder.weight")}


def refused(path: Path, *, saying: str, kind: type[LxmertExportError] = CheckpointError, **options: object) -> str:
    with pytest.raises(kind) as caught:
        read_checkpoint(path, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert saying in message
    assert "\n" not in message
    assert path.name in message or str(path) in message
    return message


def test_everything_wrong_is_named_at_once(state: dict[str, Tensor], tmp_path: Path) -> None:
    del state["lxmert.pooler.dense.bias"]
    state["lxmert.pooler.dense.extra"] = torch.zeros(3)
    state["answer_head.logit_fc.3.bias"] = torch.zeros(8)
    save_file(state, tmp_path / "model.safetensors")
    SMALL.save_pretrained(tmp_path)
    message = refused(tmp_path, saying="missing: lxmert.pooler.bias")
    assert "unexpected: lxmert.pooler.dense.extra" in message
    assert "answer_head.answers.bias is [8], the config says [7]" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_not_finite(state: dict[str, Tensor], value: float, tmp_path: Path) -> None:
    state["lxmert.embeddings.word_embeddings.weight"][7, 3] = value
    save_file(state, tmp_path / "model.safetensors")
    refused(tmp_path, saying="not finite: lxmert.embeddings.word.weight", num_attention_heads=4)


def test_a_decoder_that_is_no_copy(state: dict[str, Tensor], tmp_path: Path) -> None:
    state["cls.predictions.decoder.weight"] = state["lxmert.embeddings.word_embeddings.weight"] + 1
    save_file(state, tmp_path / "model.safetensors")
    refused(tmp_path, saying="differs from lxmert.embeddings.word.weight", num_attention_heads=4)


def test_the_same_tensor_under_two_names(state: dict[str, Tensor], tmp_path: Path) -> None:
    state["module.lxmert.pooler.dense.bias"] = state["lxmert.pooler.dense.bias"].clone()
    save_file(state, tmp_path / "model.safetensors")
    refused(tmp_path, saying="stored twice: lxmert.pooler.dense.bias", num_attention_heads=4)


def test_a_key_twice_in_the_safetensors_header(tmp_path: Path) -> None:
    tensor = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = f'{{"lxmert.a": {json.dumps(tensor)}, "lxmert.a": {json.dumps(tensor)}}}'.encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    # The library itself refuses a repeated key, or we do: either way it is not read.
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path)


def test_two_shards_with_the_same_tensor(state: dict[str, Tensor], tmp_path: Path) -> None:
    for n in (1, 2):
        save_file(state, tmp_path / f"model-{n}.safetensors")
    places = {name: f"model-{1 + i % 2}.safetensors" for i, name in enumerate(state)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    message = refused(tmp_path, saying="stored twice", num_attention_heads=4)
    assert "more" in message


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", 7, "x" * 5000, "\ud800"])
def test_a_shard_outside_the_directory(name: object, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
    refused(tmp_path, saying="outside its directory")


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": {}}', '{"weight_map": {"x": "gone.safetensors"}}'])
def test_a_damaged_index(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="download it again|damaged"):
        read_checkpoint(tmp_path)


class _Hostile:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickle_that_would_run_code(zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"lxmert.x": _Hostile()}, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    refused(tmp_path / "model.pth", saying="refused")
    assert not (tmp_path / "pwned").exists()


def test_a_plain_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pth").write_bytes(pickle.dumps(_Hostile()))
    refused(tmp_path / "model.pth", saying="model.pth")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("stored", [{"epoch": 3}, [torch.zeros(2)], {"lxmert.x": "text"}, {3: torch.zeros(2)}],
                         ids=["number", "list", "string", "number-key"])  # fmt: skip
def test_pickles_of_other_things(stored: object, tmp_path: Path) -> None:
    torch.save(stored, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="not an LXMERT checkpoint|not a state_dict"):
        read_checkpoint(tmp_path / "model.pth")


def test_a_small_file_that_claims_a_trillion_elements(tmp_path: Path) -> None:
    giant = torch.zeros(1).expand(1_000_000, 1_000_000)
    torch.save({"bert.encoder.x_layers.0.visual_attention.att.query.weight": giant}, tmp_path / "model.pth")
    assert (tmp_path / "model.pth").stat().st_size < 3000
    refused(tmp_path / "model.pth", saying="claims 4000000000000 bytes and stores 4")


@pytest.mark.parametrize(
    ("name", "content", "saying"),
    [
        ("empty.pth", b"", "is empty"),
        (
            "pointer.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n",
            "is a Git LFS pointer, not the file: run 'git lfs pull'",
        ),
        ("noise.bin", bytes(range(256)) * 9, "is not a PyTorch, safetensors or HDF5 file"),
        ("text.pth", b"<html>Sign in</html>", "is not a PyTorch"),
        ("header.safetensors", struct.pack("<Q", 10**12) + b"{}", "damaged safetensors"),
        ("short.safetensors", struct.pack("<Q", 2) + b"{", "damaged safetensors"),
        ("cut_number.pth", b"\x80\x02J\x01", "damaged PyTorch"),
        ("cut.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 50, "damaged HDF5"),
        ("cut.pth", b"PK\x03\x04" + b"\0" * 50, "damaged PyTorch"),
    ],
)
def test_other_bytes(name: str, content: bytes, saying: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, saying=saying)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy", "h5"])
def test_truncated_files(state: dict[str, Tensor], kind: str, keep: float, tmp_path: Path) -> None:
    file = tmp_path / f"cut.{kind}"
    if kind == "safetensors":
        save_file(state, file)
    elif kind == "h5":
        file.write_bytes((TRANSFORMERS / "tf_model.h5").read_bytes())
    else:
        torch.save(state, file, _use_new_zipfile_serialization=kind == "zip")
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])
    with pytest.raises(CheckpointError, match=file.name):
        read_checkpoint(file)


@pytest.mark.parametrize(
    ("call", "name"), [("stat", "model.safetensors"), ("stat", "config.json"), ("open", "vocab.txt")]
)
def test_a_disk_that_fails_is_told(
    call: str, name: str, state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(state, tmp_path / "model.safetensors")
    SMALL.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").touch()
    done = getattr(Path, call)

    def failing(path: Path, *rest: object, **options: object) -> object:
        if path.name == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return done(path, *rest, **options)

    monkeypatch.setattr(Path, call, failing)
    with pytest.raises(CheckpointError, match=f"{name}: cannot be read: Input/output error"):
        assert read_checkpoint(tmp_path).companions


def test_another_model(tmp_path: Path) -> None:
    bert = {f"bert.encoder.layer.{n}.attention.self.query.weight": torch.zeros(4, 4) for n in range(2)}
    save_file(bert, tmp_path / "model.safetensors")
    refused(tmp_path, saying="not an LXMERT checkpoint")


def test_a_layer_number_that_would_fill_the_memory(tmp_path: Path) -> None:
    torch.save(
        {"bert.encoder.x_layers.999999999.visual_attention.att.query.weight": torch.zeros(2, 2)}, tmp_path / "m.pth"
    )
    refused(tmp_path / "m.pth", saying="not an LXMERT checkpoint")


def test_a_config_that_contradicts_the_weights(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "model.safetensors")
    SMALL.replace(l_layers=3, visual_feat_dim=20).save_pretrained(tmp_path)
    message = refused(tmp_path, saying="missing: lxmert.language_layers.2.")
    assert "visual_embeddings.features.weight is [32, 16], the config says [32, 20]" in message


def test_a_config_whose_layers_would_fill_the_memory(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "model.safetensors")
    for count in (10**6, 10**90):
        SMALL.replace(r_layers=count).save_pretrained(tmp_path)
        refused(tmp_path, saying=f"its config.json says r_layers {count}, and the weights hold {SMALL.r_layers}")


def test_a_config_that_is_no_config(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"hidden_size": "wide"}')
    with pytest.raises(ConfigError, match="config.json: hidden_size must be int"):
        read_checkpoint(tmp_path)


def test_a_head_that_is_not_there(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "model.safetensors")
    SMALL.save_pretrained(tmp_path)
    message = refused(tmp_path, saying="lacks pair_head, which task 'nlvr2' needs", task="nlvr2")
    assert "it can serve: model, pretraining, question-answering" in message


def test_an_unknown_task(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="unknown task 'vqa'"):
        read_checkpoint(tmp_path, task="vqa")  # type: ignore[arg-type]


def test_directories_without_or_with_too_many_weights(tmp_path: Path) -> None:
    refused(tmp_path, saying="holds no weights")
    for name in ("a.pth", "b.pth"):
        torch.save({}, tmp_path / name)
    refused(tmp_path, saying="several .pth files (a.pth, b.pth)")


@pytest.mark.parametrize(
    "link", [h5py.ExternalLink("/etc/passwd", "/"), h5py.SoftLink("/nowhere")], ids=["external", "soft"]
)
def test_h5_links_are_refused(link: object, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        file.create_group("lxmert")["embeddings"] = link
    refused(tmp_path, saying="only plain data is read")


def test_h5_external_storage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 64)
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        file.create_dataset("lxmert/x", (16,), "f4", external=[(str(tmp_path / "secret"), 0, 64)])
    refused(tmp_path, saying="keeps its data in another file")


def test_h5_copies_that_disagree(tmp_path: Path) -> None:
    file = tmp_path / "tf_model.h5"
    file.write_bytes((TRANSFORMERS / "tf_model.h5").read_bytes())
    (tmp_path / "config.json").write_bytes((TRANSFORMERS / "config.json").read_bytes())
    with h5py.File(file, "a") as opened:
        group = opened["cls/tf_lxmert_for_pre_training/lxmert/embeddings/LayerNorm"]
        group["gamma:0"][0] = 9.0
    refused(tmp_path, saying="stored twice: lxmert.embeddings.LayerNorm.weight")
