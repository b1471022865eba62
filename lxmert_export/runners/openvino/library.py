"""Imports OpenVINO and NNCF with their telemetry off."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from lxmert_export.errors import unimportable

TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:
    """Returns the module ``openvino``. ``ArtifactError``: it is installed, and cannot be imported.

    OpenVINO's conversion tools would report their use to its makers, and fall back to a stub that reports nothing if the
    package ``openvino_telemetry`` is missing (openvino/tools/ovc/telemetry_utils.py). So it is missing while OpenVINO is
    imported here. A program that has imported OpenVINO before keeps its own settings.
    """
    return _import_without_telemetry("openvino")


def import_nncf() -> Any:
    """Returns the module ``nncf``, under the same rule (nncf/telemetry/wrapper.py). ``ArtifactError``: it cannot be imported."""
    import_openvino()
    return _import_without_telemetry("nncf")


def _import_without_telemetry(name: str) -> Any:
    if name in sys.modules or TELEMETRY in sys.modules:
        return import_module(name)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # Python's mark of a module that cannot be imported
    try:
        return import_module(name)
    except ImportError as error:
        raise unimportable(name, error) from error
    finally:
        del sys.modules[TELEMETRY]
