"""Files that name a checkpoint's answers in the formats of other programs, beside its weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lxmert_export.errors import first_line
from lxmert_export.files.json_files import read_json
from lxmert_export.files.limits import LARGEST_COMPANION

LOGGER = logging.getLogger(__name__)
# Airsplay's: of VQA and GQA, a list of answers; of pre-training, a list of objects with an answer in the field ``ans``.
LABEL_FILES = ("trainval_label2ans.json", "label2ans.json", "all_ans.json")
MADE_UP = "LABEL_"  # transformers names answers LABEL_0, LABEL_1, … if nobody did


def answer_names(folder: Path, count: int, of_config: object = None) -> list[str] | None:
    """Returns the names of ``count`` answers from the first file of the table that names as many; None if there is none.

    | place | content |
    |---|---|
    | ``trainval_label2ans.json``, ``label2ans.json`` | a list of answers |
    | ``all_ans.json`` | a list of objects with the field ``ans`` |
    | ``of_config``: the field ``id2label`` of config.json | an object: place → answer |

    A file that cannot be read is told in the log, and left out.
    """
    for file in (folder / name for name in LABEL_FILES):
        if not file.is_file():
            continue
        try:
            names = names_in(read_json(file, largest=LARGEST_COMPANION))
        except (OSError, ValueError) as error:
            LOGGER.warning(
                "%s: the answers' names cannot be read, so the file is left out: %s", file, first_line(error)
            )
            continue
        if names is not None and len(names) == count:
            return names
    names = names_in(of_config)
    if names is None or len(names) != count or all(name.startswith(MADE_UP) for name in names):
        return None
    return names


def names_in(values: Any) -> list[str] | None:
    """Returns the names that the content of such a file holds, in the order of their scores; None if it holds none."""
    if isinstance(values, Mapping):
        numbered = {str(place): name for place, name in values.items()}
        values = [numbered.get(str(place)) for place in range(len(numbered))]
    if not isinstance(values, list):
        return None
    names = [value.get("ans") if isinstance(value, Mapping) else value for value in values]
    return [str(name) for name in names] if all(isinstance(name, str) for name in names) else None
