"""Settings of onnxruntime's sessions that make LXMERT faster on a CPU, by version of onnxruntime.

A version is chosen from this table and never by timing, so that answers do not depend on what else the machine does.
`python -m benchmarks.session_settings` measures every row, and says where the table is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Version = tuple[int, ...]


@dataclass(frozen=True)
class SessionSetting:
    """A session setting, and the versions of onnxruntime that it makes faster: from ``first`` on, and before ``end``."""

    key: str
    value: str
    first: str
    end: str | None = None

    def helps(self, version: str) -> bool:
        """Whether it makes this version of onnxruntime faster."""
        number = parsed(version)
        return parsed(self.first) <= number and (self.end is None or number < parsed(self.end))

    def to_dict(self) -> dict[str, Any]:
        """Its fields, as a manifest holds them."""
        return {"key": self.key, "value": self.value, "first": self.first, "end": self.end}


# Since 1.30 LayerNormalization has a fast kernel, and SkipLayerNormalization, into which onnxruntime fuses it with the Add before
# it, still the slow one. Earlier versions have the fast kernel in SkipLayerNormalization alone, and must fuse.
CPU_SETTINGS = (SessionSetting("optimization.disable_specified_optimizers", "SkipLayerNormFusion", first="1.30"),)
# The lowest version that the command measures. What an older one needs is not known.
LOWEST_KNOWN = "1.23"


# What `--optimize-for cuda` tells onnxruntime's CUDA provider. Strict: SkipLayerNormalization sums in float32; otherwise in half
# precision, where sums overflow. onnxruntime multiplies float32 in TF32 unless told not to.
CUDA_PROVIDER = "CUDAExecutionProvider"
STRICT_MODE = "enable_skip_layer_norm_strict_mode"
CUDA_OPTIONS = {STRICT_MODE: "1", "use_tf32": "0"}


def provider_options(options: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Returns what a manifest's options tell onnxruntime's execution providers, by provider."""
    return {name: dict(given) for name, given in options.get("provider_options", {}).items()}


def is_strict(options: Mapping[str, Any]) -> bool:
    """Whether a manifest's options make SkipLayerNormalization sum in float32."""
    return provider_options(options).get(CUDA_PROVIDER, {}).get(STRICT_MODE) == "1"


def carried_settings(options: Mapping[str, Any]) -> list[SessionSetting]:
    """Returns the settings that a manifest's options carry, for every version."""
    return [SessionSetting(**row) for row in options.get("session_settings", ())]


def chosen_settings(settings: Iterable[SessionSetting], version: str) -> dict[str, str]:
    """Returns the settings for one version of onnxruntime, by key."""
    return {row.key: row.value for row in settings if row.helps(version)}


def session_line(setting: SessionSetting) -> str:
    """Returns the line with which a program of one's own gives a setting to onnxruntime."""
    return f"options.add_session_config_entry({setting.key!r}, {setting.value!r})".replace("'", '"')


def parsed(version: str) -> Version:
    """Returns the numbers of a version: (1, 32, 0) for ``1.32.0``; what follows them (``rc1``, ``+cpu``) is left out."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0].split("rc")[0])[:3])
