"""What a report says of the machine: processor, cores, system, versions."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lxmert_export.artifact.manifest import TOOLS, tool_versions

ALSO_MEASURED = ("openvino", "transformers")


def processor() -> str:
    """Returns the name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine_facts() -> dict[str, Any]:
    """Returns the machine, the date and the versions of all runtimes here, as JSON values."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": processor(),
        "cores": cores(),
        "system": f"{platform.machine()}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "tools": tool_versions((*TOOLS, *ALSO_MEASURED)),
    }
