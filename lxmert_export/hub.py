"""Where a CHECKPOINT argument leads: a path on disk, the built-in checkpoint, or a repository on the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from lxmert_export.errors import CheckpointError

DEMO = "demo"
DEMO_DIRECTORY = Path(__file__).parent / "demo"

CONFIG = "config.json"
# The formats in the order of preference: one of them is downloaded, sharded or whole.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
)
OPTIONAL_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "labels.json")

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FILE_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".h5", ".json")
SHA256 = re.compile(r"[0-9a-f]{64}")


def locate_checkpoint(name_or_path: str | Path, *, revision: str | None = None) -> Path:
    """The file or directory that a checkpoint's name stands for; a hub name is downloaded into huggingface_hub's cache.

    What exists on disk is never taken for a hub name. ``CheckpointError``: a path that does not exist, or whatever keeps the
    hub from serving the repository.
    """
    found = _on_disk(name_or_path)
    if found is not None:
        return found
    repository = _hub_name(name_or_path)
    directory = _download(repository, CONFIG, revision).parent
    for name in WEIGHT_FILES:
        file = _download_if_there(repository, name, revision)
        if file is None:
            continue
        if name.endswith(".index.json"):
            for shard in _shards(file):
                _download(repository, shard, revision)
        for optional in OPTIONAL_FILES:
            _download_if_there(repository, optional, revision)
        return directory
    raise CheckpointError(
        f"{repository}: no weights ({', '.join(WEIGHT_FILES)}) in the hub repository, or, offline, in the cache"
    )


def locate_file(name_or_path: str | Path, filename: str, *, revision: str | None = None) -> Path:
    """One file of a checkpoint: in its directory, beside its file, or from its hub repository."""
    found = _on_disk(name_or_path)
    if found is None:
        return _download(_hub_name(name_or_path), filename, revision)
    if found.name == filename:
        return found
    file = (found if found.is_dir() else found.parent) / filename
    if not file.is_file():
        raise CheckpointError(f"{found}: there is no {filename} with this checkpoint")
    return file


def _on_disk(name_or_path: str | Path) -> Path | None:
    path = Path(name_or_path).expanduser()
    if path.exists():
        return path
    return DEMO_DIRECTORY if str(name_or_path) == DEMO else None


def _hub_name(name_or_path: str | Path) -> str:
    name = str(name_or_path)
    if isinstance(name_or_path, Path) or not HUB_NAME.fullmatch(name) or name.endswith(FILE_SUFFIXES):
        raise CheckpointError(f"{name}: no such file or directory (and a name on the hub looks like owner/name)")
    return name


def _shards(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index.name}: damaged index of a sharded checkpoint: {error}") from error
    if odd := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
        raise CheckpointError(f"{index.name}: names a file outside the checkpoint: {odd[0]!r}")
    return names


def _download_if_there(repository: str, filename: str, revision: str | None) -> Path | None:
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return _download(repository, filename, revision)
    except CheckpointError as error:
        if isinstance(error.__cause__, EntryNotFoundError):
            return None
        raise


def _download(repository: str, filename: str, revision: str | None) -> Path:
    """The file in huggingface_hub's cache, downloaded if it is not there, its hash checked when it is new."""
    # Imported here: it takes half a second, and most commands never reach the hub.
    import httpx2 as httpx
    from huggingface_hub import errors as hub_errors
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    known = isinstance(try_to_load_from_cache(repository, filename, revision=revision), str)
    try:
        path = Path(hf_hub_download(repository, filename, revision=revision))
    except hub_errors.LocalEntryNotFoundError as error:
        reason = "it is not in the cache, and the hub cannot be reached (offline?)"
        raise CheckpointError(f"{repository}: {filename}: {reason}") from error
    except hub_errors.GatedRepoError as error:
        raise CheckpointError(f"{repository}: access is restricted: accept its terms, then set HF_TOKEN") from error
    except hub_errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{repository}: no such file, directory or hub repository (if it is private, set HF_TOKEN)"
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{repository}: there is no revision {revision!r}") from error
    except hub_errors.EntryNotFoundError as error:
        raise CheckpointError(f"{repository}: the hub repository has no {filename}") from error
    except (hub_errors.HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{repository}: {filename} could not be downloaded: {reason}; try again") from error
    if not known:
        _check_hash(repository, filename, path)
    return path


def _check_hash(repository: str, filename: str, path: Path) -> None:
    """huggingface_hub names a large file's blob after its announced sha256, and does not check it: here it is."""
    blob = path.resolve()
    if not SHA256.fullmatch(blob.name):
        return  # a small file, named after its git hash
    with blob.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != blob.name:
        path.unlink()
        blob.unlink()
        raise CheckpointError(
            f"{repository}: {filename} arrived damaged (sha256 {digest[:12]}, announced {blob.name[:12]}); "
            "it has been removed from the cache: try again"
        )
