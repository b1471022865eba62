"""The classes that a ``.keras`` file names, and the links in its weights.

Keras imports and makes whatever class the config names, and HDF5 follows links to other files.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from lzma import LZMAError
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from lxmert_export.artifact.directory import KERAS_FILE, Artifact
from lxmert_export.artifact.facts import read_as
from lxmert_export.artifact.programs.reading import refuse
from lxmert_export.errors import ArtifactError
from lxmert_export.files.json_files import parse_json
from lxmert_export.files.limits import LARGEST_JSON
from lxmert_export.files.zip_archives import open_archive

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
    ValueError, OSError, BadZipFile, KeyError, TypeError, EOFError, RuntimeError, MemoryError, zlib.error, LZMAError,
)  # fmt: skip
WEIGHTS = "model.weights.h5"
MEMBERS = frozenset(("metadata.json", "config.json", WEIGHTS))


def check_program(artifact: Artifact) -> set[str]:
    """Returns the names of its classes.

    ``ArtifactError``: the config names a class that no export has, the archive holds other members, or its weights are not
    plain data.
    """
    file = artifact.file(KERAS_FILE)
    with read_as(artifact, file, UNREADABLE), open_archive(file) as archive:
        members = set(archive.namelist())
        if archive.getinfo("config.json").file_size > LARGEST_JSON:
            raise ValueError("its config.json is too large")
        classes = set(_classes(parse_json(archive.read("config.json").decode())))
    refuse(file, "members that it may not have", members - MEMBERS)
    refuse(file, "classes that it may not have", {f"{module}.{name}" for module, name in classes - CLASSES})
    if find_spec("h5py") is not None:  # without it, Keras cannot open the file either
        with read_as(artifact, file, UNREADABLE):
            _check_weights(file)
    return {name for _, name in classes}


def _check_weights(file: Path) -> None:
    """``ArtifactError``: the weights hold links, or keep data elsewhere. Others of ``UNREADABLE``: they are no HDF5 file."""
    import h5py

    from lxmert_export.files.hdf5_files import NotPlainDataError, StoredMember, plain_datasets, refuse_drivers

    try:
        with StoredMember(file, WEIGHTS) as member:
            refuse_drivers(member)
            with h5py.File(member, "r") as weights:
                for _ in plain_datasets(weights):
                    pass
    except NotPlainDataError as error:
        raise ArtifactError(f"{file}: its {WEIGHTS} {error}; export it again") from error


def _classes(values: Any) -> Iterator[tuple[str, str]]:
    if isinstance(values, dict):
        if "class_name" in values:
            yield str(values.get("module")), str(values["class_name"])
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            yield from _classes(value)
