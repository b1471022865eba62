"""What an artifact keeps of what lay beside its checkpoint's weights: the tokenizer, and the names of the answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lxmert_export.artifact.directory import Artifact
from lxmert_export.errors import ArtifactError
from lxmert_export.files.beside_weights import LABELS_FILE, TOKENIZER_FILES, VOCABULARY_FILES

if TYPE_CHECKING:
    from lxmert_export.tokenizer.pretrained import PreTrainedLxmertTokenizer

_LEFT_BEHIND = (
    ", because there was none beside the weights: copy vocab.txt and labels.json (the answers' names, a JSON list) there, and "
    "export again"
)


def tokenizer_of(artifact: Artifact) -> PreTrainedLxmertTokenizer:
    """Reads the artifact's tokenizer. ``ArtifactError``: it has none, or a tokenizer file is not listed in its manifest."""
    from lxmert_export.tokenizer.opening import load_tokenizer

    strays = [n for n in TOKENIZER_FILES if artifact.file(n).exists() and n not in artifact.manifest.files]
    if strays:
        raise ArtifactError(
            f"{artifact.path}: {', '.join(strays)} is not listed in its manifest; remove the file, or export again"
        )
    if not any(artifact.file(name).exists() for name in VOCABULARY_FILES):
        raise ArtifactError(f"{artifact.path}: has no tokenizer{_LEFT_BEHIND}")
    return load_tokenizer(artifact.path)


def labels_of(artifact: Artifact) -> list[str]:
    """Reads the names of the answers, in the order of their scores. ``ArtifactError``: there are none, or not as many."""
    file = artifact.file(LABELS_FILE)
    if LABELS_FILE not in artifact.manifest.files:
        raise ArtifactError(f"{artifact.path}: has no {LABELS_FILE}{_LEFT_BEHIND}")
    try:
        labels = json.loads(file.read_text(encoding="utf-8"))
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
