"""Hub names go through huggingface_hub: cache, revision, token, offline mode, and whatever the network does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from lxmert_export.api.checkpoint import save_checkpoint
from lxmert_export.errors import CheckpointError
from lxmert_export.files.hub import DEMO_DIRECTORY, locate_checkpoint, locate_file, locate_tokenizer
from parity_tests.checkpoint.hub_server import COMMIT, Hub, serve
from parity_tests.fixtures.random_models import lively_model

REPOSITORY = "someone/lxmert-small"
LOCATE = """
import sys
from lxmert_export.errors import CheckpointError
from lxmert_export.files.hub import locate_checkpoint
try:
    print(locate_checkpoint(sys.argv[1], revision=sys.argv[2] or None))
except CheckpointError as error:
    sys.exit(f"CheckpointError: {error}")
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    directory = tmp_path_factory.mktemp("published") / "hf"
    save_checkpoint(lively_model("question-answering"), directory)
    (directory / "vocab.txt").write_text("[PAD]\n")
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def hub(files: dict[str, bytes]) -> Iterator[Hub]:
    with serve(Hub(REPOSITORY, dict(files))) as served:
        yield served


def locate(
    hub: Hub, cache: Path, *, name: str = REPOSITORY, revision: str = "", code: str = LOCATE, **environment: str
) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as huggingface_hub reads its settings once."""
    variables = {
        **os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(Path(__file__).parent.parent.parent), **environment,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", code, name, revision], capture_output=True, text=True, env=variables, check=False
    )


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("CheckpointError: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_download_then_cache_then_offline(hub: Hub, files: dict[str, bytes], tmp_path: Path) -> None:
    first = locate(hub, tmp_path)
    assert first.returncode == 0, first.stderr
    directory = Path(first.stdout.strip())
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == files
    hub.requests.clear()
    again = locate(hub, tmp_path)
    assert again.stdout == first.stdout
    assert not [request for request in hub.requests if request.startswith("GET")]
    offline = locate(hub, tmp_path, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:1")
    assert offline.stdout == first.stdout, offline.stderr


def test_only_one_format_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    hub.files["pytorch_model.bin"] = b"x" * 20_000
    hub.files["tf_model.h5"] = b"x" * 20_000
    directory = Path(locate(hub, tmp_path).stdout.strip())
    assert not (directory / "pytorch_model.bin").exists() and not (directory / "tf_model.h5").exists()


def test_older_formats_and_shards(hub: Hub, tmp_path: Path) -> None:
    weights = hub.files.pop("model.safetensors")
    hub.files["model.safetensors.index.json"] = b'{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}'
    hub.files |= {"one.safetensors": weights, "two.safetensors": weights}
    directory = Path(locate(hub, tmp_path / "sharded").stdout.strip())
    assert (directory / "one.safetensors").read_bytes() == (directory / "two.safetensors").read_bytes() == weights
    hub.files = {"config.json": b"{}", "pytorch_model.bin": weights}
    assert (Path(locate(hub, tmp_path / "bin").stdout.strip()) / "pytorch_model.bin").exists()


def test_revision(hub: Hub, tmp_path: Path) -> None:
    hub.revisions["v2"] = "f" * 40
    assert Path(locate(hub, tmp_path, revision="v2").stdout.strip()).name == "f" * 40
    assert Path(locate(hub, tmp_path).stdout.strip()).name == COMMIT
    assert "no revision 'v3'" in error_of(locate(hub, tmp_path, revision="v3"))


def test_token(hub: Hub, tmp_path: Path) -> None:
    hub.token = "hf_secret"
    assert "set HF_TOKEN" in error_of(locate(hub, tmp_path))
    assert locate(hub, tmp_path, HF_TOKEN="hf_secret").returncode == 0


def test_gated(hub: Hub, tmp_path: Path) -> None:
    hub.gated = True
    assert "access is restricted" in error_of(locate(hub, tmp_path))


def test_unknown_repository(hub: Hub, tmp_path: Path) -> None:
    message = error_of(locate(hub, tmp_path, name="someone/else"))
    assert "someone/else: no such file, directory or hub repository" in message


def test_repository_without_weights(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    assert "no weights" in error_of(locate(hub, tmp_path))


def test_a_hub_that_cannot_be_reached_is_tried_once_and_quietly(hub: Hub, tmp_path: Path) -> None:
    gone = {"HF_ENDPOINT": "http://127.0.0.1:1"}
    said = error_of(locate(hub, tmp_path, **gone))
    assert "it is not in the cache, and the hub cannot be reached" in said and "Retrying" not in said
    first = locate(hub, tmp_path)
    again = locate(hub, tmp_path, **gone)
    assert again.stdout == first.stdout, again.stderr
    commit = Path(first.stdout.split()[-1]).name
    assert f"the hub cannot be reached; commit {commit} in the cache is used" in again.stderr
    assert "Retrying" not in again.stderr


def test_offline_and_not_cached(hub: Hub, tmp_path: Path) -> None:
    assert "not in the cache" in error_of(locate(hub, tmp_path, HF_HUB_OFFLINE="1"))


def test_wrong_hash_is_refused_removed_and_downloaded_anew(hub: Hub, files: dict[str, bytes], tmp_path: Path) -> None:
    hub.wrong_bytes.add("model.safetensors")
    message = error_of(locate(hub, tmp_path))
    assert "model.safetensors arrived damaged" in message
    hub.wrong_bytes.clear()
    directory = Path(locate(hub, tmp_path).stdout.strip())
    assert (directory / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_interrupted_download(hub: Hub, files: dict[str, bytes], tmp_path: Path) -> None:
    hub.cut_once.add("model.safetensors")
    done = locate(hub, tmp_path)
    if done.returncode:  # the library gave up: one line, and the next run goes on
        assert "could not be downloaded" in error_of(done)
        done = locate(hub, tmp_path)
    assert (Path(done.stdout.strip()) / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_download_that_never_completes_is_one_line_and_no_file(
    hub: Hub, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.cut_always.add("model.safetensors")
    assert "model.safetensors could not be downloaded" in error_of(locate(hub, tmp_path))
    assert not [*tmp_path.rglob("model.safetensors")]
    hub.cut_always.clear()  # huggingface_hub below 1.0 keeps the part that came, and goes on from it
    assert (Path(locate(hub, tmp_path).stdout.strip()) / "model.safetensors").read_bytes() == files["model.safetensors"]


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_cached_checkpoint_needs_no_server_and_no_patience(hub: Hub, weights: str, tmp_path: Path) -> None:
    """What the hub has not got is remembered too: asking for it again would be minutes of retries."""
    hub.files = {"config.json": b"{}", weights: b"w" * 20_000}
    first = locate(hub, tmp_path)
    again = locate(hub, tmp_path, HF_ENDPOINT="http://127.0.0.1:1")
    assert again.stdout == first.stdout and again.stdout
    # huggingface_hub 0.35 and 0.36 ask for the config five times more before they look into the cache.
    retried = {line.rpartition("/")[2] for line in again.stderr.splitlines() if "thrown while requesting" in line}
    assert retried <= ({"config.json"} if huggingface_hub.__version__.startswith("0.3") else set())


def test_a_second_use_asks_for_the_config_alone(hub: Hub, tmp_path: Path) -> None:
    locate(hub, tmp_path)
    hub.requests.clear()
    locate(hub, tmp_path)
    assert hub.requests == [f"HEAD /{REPOSITORY}/resolve/main/config.json"]


def test_a_branch_that_moves_meanwhile_does_not_mix_commits(hub: Hub, files: dict[str, bytes], tmp_path: Path) -> None:
    class Moving(dict[str, str]):
        """``main`` stands elsewhere once the config has been asked for."""

        def get(self, revision: str, default: object = None) -> str:
            found = super().get(revision, str(default))
            if revision == "main" and len(hub.requests) == 2:  # HEAD and GET of the config are over
                self["main"] = "f" * 40
            return found

    hub.revisions = Moving(main=COMMIT, old=COMMIT)
    directory = Path(locate(hub, tmp_path).stdout.strip())
    assert hub.revisions["main"] == "f" * 40
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == files


def test_wrong_hash_in_a_cache_without_links(hub: Hub, tmp_path: Path) -> None:
    hub.wrong_bytes.add("model.safetensors")
    assert "model.safetensors arrived damaged" in error_of(locate(hub, tmp_path, HF_HUB_DISABLE_SYMLINKS="1"))
    hub.wrong_bytes.clear()
    assert locate(hub, tmp_path, HF_HUB_DISABLE_SYMLINKS="1").returncode == 0


@pytest.mark.skipif(
    not hasattr(constants, "HF_HUB_DISABLE_SHARED_BLOBS"),
    reason=f"huggingface_hub {huggingface_hub.__version__} has no shared store",
)
@pytest.mark.parametrize("damaged", [False, True])
def test_blobs_that_lead_on_into_the_shared_store(
    hub: Hub, files: dict[str, bytes], tmp_path: Path, damaged: bool
) -> None:
    """Files of the hub's xet storage lie in a store named after their xet hash, which is not their sha256."""
    xet_hash = "ab" + "0" * 62
    hub.xet_hashes["model.safetensors"] = xet_hash
    content = files["model.safetensors"]
    stored = tmp_path / "hub" / "blobs" / "ab" / xet_hash
    stored.parent.mkdir(parents=True)
    stored.write_bytes(content[:-1] + b"?" if damaged else content)
    (stored.parent.parent / ".huggingface-shared-blobs").write_text("1\n")
    done = locate(hub, tmp_path, HF_HUB_DISABLE_XET="0")
    if damaged:
        assert "arrived damaged" in error_of(done)
        assert not stored.exists()
    else:
        assert (Path(done.stdout.strip()) / "model.safetensors").resolve() == stored, done.stderr


def test_an_interrupted_check_is_made_up_for(hub: Hub, tmp_path: Path) -> None:
    hub.wrong_bytes.add("model.safetensors")
    interrupted = f"import sys\nfrom lxmert_export.files import hub\nhub.sha256 = lambda *_: sys.exit(130)\n{LOCATE}"
    assert locate(hub, tmp_path, code=interrupted).returncode == 130
    assert "model.safetensors arrived damaged" in error_of(locate(hub, tmp_path))


def test_what_is_on_disk_is_never_a_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "someone" / "lxmert-small").mkdir(parents=True)
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate_checkpoint(REPOSITORY) == Path(REPOSITORY)
    assert locate_checkpoint("demo") == Path("demo")


def test_the_built_in_one() -> None:
    assert locate_checkpoint("demo") == DEMO_DIRECTORY
    assert locate_file("demo", "config.json") == DEMO_DIRECTORY / "config.json"


@pytest.mark.parametrize("name", ["gone.pth", "./gone", "/gone/gone", "~/gone", "a/b/c", "weights/gone.bin", "gone"])
def test_path_like_names_that_do_not_exist(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no such file or directory"):
        locate_checkpoint(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("~nobody-of-this-name/x", "cannot be looked up"),
        ("a" * 300, "cannot be looked up"),
        ("a/b--c", "not a valid hub name"),
        ("", "the name is empty"),
    ],
)
def test_names_that_cannot_be(name: str, reason: str) -> None:
    for find in (locate_checkpoint, locate_tokenizer):
        with pytest.raises(CheckpointError, match=reason):
            find(name)


def test_a_missing_file_beside_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        locate_file(tmp_path, "config.json")
