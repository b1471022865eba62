"""What an artifact keeps of what lay beside its checkpoint's weights: the tokenizer, and the names of the answers."""

from __future__ import annotations

from collections import Counter
from reprlib import repr as short  # a wrong value may be as long as its file
from typing import TYPE_CHECKING

from lxmert_export.artifact.directory import Artifact
from lxmert_export.errors import ArtifactError
from lxmert_export.files.beside_weights import LABELS_FILE, VOCABULARY_FILES
from lxmert_export.files.json_files import read_json

if TYPE_CHECKING:
    from lxmert_export.tokenizer.pretrained import PreTrainedLxmertTokenizer

_CORRECT = f"; correct {LABELS_FILE} beside the checkpoint's weights, and export again"
_LEFT_BEHIND = (
    ", because there was none beside the weights: copy vocab.txt and labels.json (the answers' names, a JSON list) there, and "
    "export again"
)


def tokenizer_of(artifact: Artifact) -> PreTrainedLxmertTokenizer:
    """Reads the artifact's tokenizer. ``ArtifactError``: it has none."""
    from lxmert_export.tokenizer.opening import load_tokenizer

    if not set(VOCABULARY_FILES) & set(artifact.manifest.files):
        raise ArtifactError(f"{artifact.path}: has no tokenizer{_LEFT_BEHIND}")
    with artifact.unreplaced():
        return load_tokenizer(artifact.path)


def labels_of(artifact: Artifact) -> list[str]:
    """Reads the names of the answers, in the order of their scores. ``ArtifactError``: there are none, or not as many."""
    if LABELS_FILE not in artifact.manifest.files:
        raise ArtifactError(f"{artifact.path}: has no {LABELS_FILE}{_LEFT_BEHIND}")
    file = artifact.file(LABELS_FILE)
    try:
        with artifact.unreplaced():
            labels = read_json(file)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file}: the answers' names cannot be read: {error}{_CORRECT}") from error
    if problem := problem_of_labels(labels, artifact.manifest.config.num_qa_labels):
        raise ArtifactError(f"{file}: {problem}{_CORRECT}")
    return list(labels)


def problem_of_labels(labels: object, count: int) -> str | None:
    """Says why a file's content does not name ``count`` answers; None if it does."""
    wanted = f"is not a list of {count} different answers"
    if not isinstance(labels, list):
        return f"{wanted}, but a {type(labels).__name__}"
    if odd := [label for label in labels if not isinstance(label, str)]:
        return f"{wanted}: it holds {short(odd[0])}, which is no text"
    if len(labels) != count:
        return f"{wanted}: it holds {len(labels)}"
    name, times = Counter(labels).most_common(1)[0]
    return None if times == 1 else f"{wanted}: it holds {short(name)} {times} times"
