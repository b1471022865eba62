"""The classes that a ``.keras`` file names. Keras imports and makes whatever class its config names."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from lzma import LZMAError
from typing import Any
from zipfile import BadZipFile, ZipFile

from lxmert_export.artifact.directory import KERAS_FILE, Artifact
from lxmert_export.artifact.facts import read_as
from lxmert_export.artifact.programs.reading import refuse
from lxmert_export.files.json_files import parse_json
from lxmert_export.files.limits import LARGEST_JSON

# (module, class) of everything that the config of an export names.
CLASSES = frozenset(
    (
        ("keras", "DTypePolicy"),
        ("converters.tensorflow_model.model", "TFLxmertModel"),
        ("converters.tensorflow_model.model", "TFLxmertForPreTraining"),
        ("converters.tensorflow_model.model", "TFLxmertForQuestionAnswering"),
        ("converters.tensorflow_model.model", "TFLxmertForNLVR2"),
    )
)
UNREADABLE: tuple[type[Exception], ...] = (
    ValueError, OSError, BadZipFile, KeyError, EOFError, RuntimeError, MemoryError, zlib.error, LZMAError,
)  # fmt: skip
MEMBERS = frozenset(("metadata.json", "config.json", "model.weights.h5"))


def check_program(artifact: Artifact) -> set[str]:
    """Returns the names of its classes.

    ``ArtifactError``: the config names a class that no export has, or the archive holds other members.
    """
    file = artifact.file(KERAS_FILE)
    with read_as(artifact, file, UNREADABLE), ZipFile(file) as archive:
        members = set(archive.namelist())
        if archive.getinfo("config.json").file_size > LARGEST_JSON:
            raise ValueError("its config.json is too large")
        classes = set(_classes(parse_json(archive.read("config.json").decode())))
    refuse(file, "members that it may not have", members - MEMBERS)
    refuse(file, "classes that it may not have", {f"{module}.{name}" for module, name in classes - CLASSES})
    return {name for _, name in classes}


def _classes(values: Any) -> Iterator[tuple[str, str]]:
    if isinstance(values, dict):
        if "class_name" in values:
            yield str(values.get("module")), str(values["class_name"])
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            yield from _classes(value)
