"""A tokenizer by its hub name: its own files and no weights, all of one commit, and again without a connection."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import transformers

from lxmert_export.tokenizer.pure import LxmertTokenizer
from parity_tests.checkpoint.hub_server import COMMIT, Hub, serve
from parity_tests.tokenizer.tokenizer_recording import VOCABULARY

ROOT = Path(__file__).parent.parent.parent
REPOSITORY = "someone/lxmert-small"
TEXT = "What color is the [MASK]?"
LOAD = """
import sys
import lxmert_export as lx
try:
    tokenizer = lx.load_tokenizer(sys.argv[1], revision=sys.argv[2] or None)
except lx.CheckpointError as error:
    sys.exit(f"CheckpointError: {error}")
print(tokenizer.encode(sys.argv[3]), tokenizer.do_lower_case)
"""
# As in the published VQA repository, and as transformers 5.23 saves one.
KINDS = {
    "vqa": ("vocab.txt", "special_tokens_map.json"),
    "transformers 5": ("tokenizer.json", "tokenizer_config.json"),
    "everything": ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
}


@pytest.fixture(params=KINDS)
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hub]:
    if request.param == "transformers 5":
        transformers.LxmertTokenizerFast(str(VOCABULARY)).save_pretrained(tmp_path / "saved")
    else:
        LxmertTokenizer(VOCABULARY).save_pretrained(tmp_path / "saved")
    files = {name: (tmp_path / "saved" / name).read_bytes() for name in KINDS[request.param]}
    with serve(Hub(REPOSITORY, {"config.json": b"{}", "pytorch_model.bin": b"weights", **files})) as served:
        yield served


def load(hub: Hub, cache: Path, *, revision: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as huggingface_hub reads its settings once."""
    variables = {
        **os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT), **environment,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", LOAD, REPOSITORY, revision, TEXT],
        capture_output=True,
        text=True,
        env=variables,
        check=False,
    )


def test_download_then_offline(hub: Hub, tmp_path: Path) -> None:
    first = load(hub, tmp_path / "cache")
    assert first.stdout == f"{LxmertTokenizer(VOCABULARY).encode(TEXT)} True\n", first.stderr
    asked = {request.rpartition("/")[2] for request in hub.requests if request.startswith("GET")}
    assert asked == set(hub.files) - {"config.json", "pytorch_model.bin"}
    offline = load(hub, tmp_path / "cache", HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:1")
    assert offline.stdout == first.stdout, offline.stderr
    unreachable = load(hub, tmp_path / "empty", HF_HUB_OFFLINE="1")
    assert unreachable.returncode == 1 and "it is not in the cache, and the hub cannot be reached" in unreachable.stderr


def test_all_files_are_of_one_commit(hub: Hub, tmp_path: Path) -> None:
    hub.revisions["v1"] = COMMIT
    assert load(hub, tmp_path / "cache", revision="v1").returncode == 0
    named = [request for request in hub.requests if "/resolve/v1/" in request]
    # The one that is asked for first; if there is none of it, the other one.
    assert {request.rpartition("/")[2] for request in named} <= {"vocab.txt", "tokenizer.json"}
    assert all("/resolve/v1/" in request or f"/resolve/{COMMIT}/" in request for request in hub.requests)
    missing = load(hub, tmp_path / "cache", revision="v2")
    assert missing.returncode == 1 and "there is no revision 'v2'" in missing.stderr


def test_a_repository_without_a_tokenizer(tmp_path: Path) -> None:
    with serve(Hub(REPOSITORY, {"config.json": b"{}", "pytorch_model.bin": b"weights"})) as hub:
        done = load(hub, tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        f"CheckpointError: {REPOSITORY}: the hub repository holds no tokenizer (vocab.txt or tokenizer.json)"
    )
