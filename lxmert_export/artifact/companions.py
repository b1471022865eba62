"""What an artifact keeps of what lay beside its checkpoint's weights: the tokenizer, and the names of the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lxmert_export.artifact.directory import Artifact
from lxmert_export.errors import ArtifactError
from lxmert_export.files.beside_weights import LABELS_FILE, VOCABULARY_FILES
from lxmert_export.files.json_files import read_json

if TYPE_CHECKING:
    from lxmert_export.tokenizer.pretrained import PreTrainedLxmertTokenizer

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
        raise ArtifactError(f"{file}: the answers' names cannot be read: {error}; export it again") from error
    count = artifact.manifest.config.num_qa_labels
    if (
        not isinstance(labels, list)
        or len({label for label in labels if isinstance(label, str)}) != count
        or len(labels) != count
    ):
        raise ArtifactError(f"{file}: is not a list of {count} different answers; export it again")
    return labels
