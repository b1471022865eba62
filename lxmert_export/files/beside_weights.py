"""The small files that lie beside a checkpoint's weights and travel with them: the tokenizer, and the answers' names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lxmert_export.errors import CheckpointError
from lxmert_export.files.answer_names import answer_names
from lxmert_export.files.json_files import read_bytes
from lxmert_export.files.limits import LARGEST_COMPANION

if TYPE_CHECKING:
    from typing_extensions import Self

VOCABULARY_FILES = ("vocab.txt", "tokenizer.json")  # a tokenizer has at least one of them
TOKENIZER_FILES = (*VOCABULARY_FILES, "tokenizer_config.json", "special_tokens_map.json")
LABELS_FILE = "labels.json"
COMPANION_FILES = (*TOKENIZER_FILES, LABELS_FILE)
ADAPTER_CONFIG = "adapter_config.json"  # with it, transformers adds an adapter to the weights


@dataclass(frozen=True)
class Companions:
    """The contents of these files by name. They are kept in memory: a model may be saved when its checkpoint is gone.

    ``place``: the directory that they were read from; None if they were not read from one.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    place: Path | None = None

    @classmethod
    def beside(cls, weights: Path, answers: int, named_in_config: object = None) -> Self:
        """Reads the files beside a file of weights; those that are not there are left out.

        Without a ``labels.json``, other programs' files that name as many ``answers`` stand for it, and so does the config's
        ``id2label``: see ``answer_names``. ``CheckpointError``: one of them is larger than such files are.
        """
        found = [weights.with_name(name) for name in COMPANION_FILES]
        try:
            files = {file.name: _read(file) for file in found if file.is_file()}
            if LABELS_FILE not in files and (names := answer_names(weights.parent, answers, named_in_config)):
                files[LABELS_FILE] = json.dumps(names, ensure_ascii=False, indent=0).encode()
            return cls(files, weights.parent)
        except OSError as error:
            place = error.filename or weights.parent
            raise CheckpointError(f"{place}: cannot be read: {error.strerror or error}") from error

    @property
    def have_tokenizer(self) -> bool:
        """Whether a tokenizer is among them."""
        return any(name in self.files for name in VOCABULARY_FILES)

    def write(self, directory: Path) -> None:
        """Writes the files into a directory."""
        for name, content in self.files.items():
            (directory / name).write_bytes(content)


def _read(file: Path) -> bytes:
    try:
        return read_bytes(file, largest=LARGEST_COMPANION)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}; remove it, or put the right one there") from error
