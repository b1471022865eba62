"""Finds a checkpoint by its name: a path on disk, the built-in checkpoint, or a repository on the Hugging Face hub."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit
from urllib.request import getproxies

from lxmert_export.errors import CheckpointError, first_line
from lxmert_export.files.beside_weights import ADAPTER_CONFIG, COMPANION_FILES, TOKENIZER_FILES, VOCABULARY_FILES
from lxmert_export.files.hashing import sha256
from lxmert_export.files.json_files import read_json
from lxmert_export.files.path_spelling import is_plain_name

LOGGER = logging.getLogger(__name__)

DEMO = "demo"
DEMO_DIRECTORY = Path(__file__).parent.parent / "demo"

CONFIG = "config.json"
# In the order of preference: the first that a repository has is downloaded, with its shards.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
)

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FILE_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".h5", ".json")
LONGEST_ATTEMPT = 2.5  # seconds to connect to the hub; tried at most twice for a checkpoint
SHA256 = re.compile(r"[0-9a-f]{64}")


class _UnreachableError(CheckpointError):
    """A file is not in the cache, and the hub does not answer."""


class _AbsentError(CheckpointError):
    """The hub says that the repository has no such file."""


def locate_checkpoint(name_or_path: str | Path, *, revision: str | None = None) -> Path:
    """Returns the file or directory of a checkpoint. A hub name is downloaded into huggingface_hub's cache.

    A name that exists on disk is never taken for a hub name. ``CheckpointError``: the path does not exist, or the repository
    cannot be downloaded.
    """
    found = _on_disk(name_or_path)
    if found is not None:
        return found
    repository = _hub_name(name_or_path)
    directory = _download(repository, CONFIG, revision).parent
    # All files are taken from the commit that the config came from: they belong together even if the branch moves on
    # meanwhile. A commit never changes, so a second use can trust the cache and asks the hub for the config alone.
    commit = directory.name
    weights = _cached_weights(repository, commit) or _downloaded_weights(repository, commit)
    if weights.name.endswith(".index.json"):
        for shard in _shards(weights):
            _download(repository, shard, commit)
    with suppress(_UnreachableError):  # without a connection, the cached ones have to do
        for optional in (*COMPANION_FILES, ADAPTER_CONFIG):
            _download_if_there(repository, optional, commit)
    return directory


def locate_file(name_or_path: str | Path, filename: str, *, revision: str | None = None) -> Path:
    """Returns one file of a checkpoint: from its directory, from beside its weights file, or from its hub repository."""
    found = _on_disk(name_or_path)
    if found is None:
        return _download(_hub_name(name_or_path), filename, revision)
    if found.name == filename:
        return found
    file = (found if found.is_dir() else found.parent) / filename
    if not file.is_file():
        raise CheckpointError(f"{found}: this checkpoint has no {filename}")
    return file


def locate_tokenizer(name_or_path: str | Path, *, revision: str | None = None) -> Path:
    """Returns the file or directory of a tokenizer. From the hub, only the tokenizer's files are downloaded, of one commit."""
    found = _on_disk(name_or_path)
    if found is not None:
        return found
    repository = _hub_name(name_or_path)
    vocabulary = _downloaded_vocabulary(repository, revision)
    with suppress(_UnreachableError):  # without a connection, the cached ones have to do
        for name in TOKENIZER_FILES:
            _download_if_there(repository, name, vocabulary.parent.name)
    return vocabulary.parent


def _on_disk(name_or_path: str | Path) -> Path | None:
    if not str(name_or_path):
        raise CheckpointError("the name is empty: give a file, a directory, a hub name, or demo")
    try:
        path = Path(name_or_path).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError) as error:  # no permission, too long a name, or the home of an unknown user
        raise CheckpointError(f"{name_or_path}: cannot be looked up on disk: {error}") from error
    return DEMO_DIRECTORY if str(name_or_path) == DEMO else None


def _hub_name(name_or_path: str | Path) -> str:
    name = str(name_or_path)
    if isinstance(name_or_path, Path) or not HUB_NAME.fullmatch(name) or name.endswith(FILE_SUFFIXES):
        raise CheckpointError(f"{name}: no such file or directory, and not a hub name (owner/name)")
    return name


def _shards(index: Path) -> list[str]:
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index.name}: damaged index of a sharded checkpoint: {error}") from error
    if odd := [name for name in names if not isinstance(name, str) or not is_plain_name(name)]:
        raise CheckpointError(f"{index.name}: names a file outside the checkpoint: {odd[0]!r}")
    return names


def _cached_weights(repository: str, commit: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for name in WEIGHT_FILES:
        if isinstance(found := try_to_load_from_cache(repository, name, revision=commit), str):
            return Path(found)
    return None


def _downloaded_weights(repository: str, commit: str) -> Path:
    for name in WEIGHT_FILES:
        if file := _download_if_there(repository, name, commit):
            return file
    raise CheckpointError(f"{repository}: the hub repository holds no weights ({', '.join(WEIGHT_FILES)})")


def _downloaded_vocabulary(repository: str, revision: str | None) -> Path:
    unreachable: CheckpointError | None = None
    for name in VOCABULARY_FILES:
        try:
            return _download(repository, name, revision)
        except _UnreachableError as error:  # the other file may be in the cache
            unreachable = unreachable or error
        except _AbsentError:
            continue
    if unreachable is not None:
        raise unreachable
    raise CheckpointError(f"{repository}: the hub repository holds no tokenizer ({' or '.join(VOCABULARY_FILES)})")


def _download_if_there(repository: str, filename: str, commit: str) -> Path | None:
    """Downloads a file. Returns None if the commit has no such file, as the hub says now or said earlier."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    if try_to_load_from_cache(repository, filename, revision=commit) is _CACHED_NO_EXIST:
        return None
    try:
        return _download(repository, filename, commit)
    except _AbsentError:
        return None


def _download(repository: str, filename: str, revision: str | None) -> Path:
    """Returns a file in huggingface_hub's cache. A file that was not there is downloaded, and its hash is checked."""
    # Imported here, because the import takes half a second and most commands never reach the hub.
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_OFFLINE

    with _errors_in_one_line(repository, filename, revision):
        cached = try_to_load_from_cache(repository, filename, revision=revision)
        known = isinstance(cached, str)
        is_settled = isinstance(cached, str) and Path(cached).parent.name == revision  # a commit: the hub is not asked
        offline = not is_settled and not _is_reachable()
        path = Path(hf_hub_download(repository, filename, revision=revision, local_files_only=offline))
        if offline and not HF_HUB_OFFLINE:
            LOGGER.warning(
                "%s: the hub cannot be reached; commit %s in the cache is used", repository, path.parent.name
            )
        if not known:
            try:
                _check_hash(repository, filename, path)
            except BaseException:
                # After Ctrl-C, too: the next run must not take an unchecked file for a checked one.
                path.unlink(missing_ok=True)
                raise
    return path


def _is_reachable() -> bool:
    """Whether the hub, or a proxy, can be tried. huggingface_hub itself tries for half a minute, and prints each try."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return False
    if getproxies():
        return True
    address = urlsplit(ENDPOINT)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=LONGEST_ATTEMPT):
            return True
    except OSError:
        return False


@contextmanager
def _errors_in_one_line(repository: str, filename: str, revision: str | None) -> Iterator[None]:
    from huggingface_hub import errors

    # huggingface_hub lets errors of its HTTP library through: requests below 1.0, httpx below 2.0, then httpx2. Its own
    # HTTP error derives from that library's.
    of_its_library = cast(tuple[type[Exception], ...], errors.HfHubHTTPError.__bases__)
    network_errors: tuple[type[Exception], ...] = (*of_its_library, OSError, ValueError)
    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        reason = "it is not in the cache, and the hub cannot be reached (offline?)"
        raise _UnreachableError(f"{repository}: {filename}: {reason}") from error
    except errors.GatedRepoError as error:
        raise CheckpointError(f"{repository}: access is restricted: accept its terms, then set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{repository}: no such file, directory or hub repository (if it is private, set HF_TOKEN)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{repository}: there is no revision {revision!r}") from error
    except errors.EntryNotFoundError as error:
        raise _AbsentError(f"{repository}: the hub repository has no {filename}") from error
    except errors.HFValidationError as error:
        raise CheckpointError(f"{repository}: no such file or directory, and not a valid hub name") from error
    except network_errors as error:
        raise CheckpointError(
            f"{repository}: {filename} could not be downloaded: {first_line(error)}; try again"
        ) from error


def _check_hash(repository: str, filename: str, path: Path) -> None:
    """Compares a large file's sha256 with its etag, which huggingface_hub does not do."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    if path.is_symlink():
        # The link leads to a blob whose name is the etag. Not resolve(): the blob may itself be a link, into a shared store.
        etag = path.readlink().name
    else:  # the cache has no links
        etag = get_hf_file_metadata(hf_hub_url(repository, filename, revision=path.parent.name)).etag or ""
    if not SHA256.fullmatch(etag):
        return  # a small file: its etag is a git hash
    stored = path.resolve()
    digest = sha256(stored)
    if digest != etag:
        path.unlink()
        stored.unlink(missing_ok=True)
        raise CheckpointError(
            f"{repository}: {filename} arrived damaged (sha256 is {digest[:12]}, should be {etag[:12]}); "
            "it was removed from the cache: try again"
        )
