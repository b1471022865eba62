"""How many operations a contestant computes at a setting; what counts as one: ``spec/flops.py``."""

from __future__ import annotations

from lxmert_export.artifact.flops import count_flops
from lxmert_export.artifact.manifest import Manifest
from lxmert_export.benching.contestants import Contestant
from lxmert_export.benching.settings import Setting
from lxmert_export.spec.flops import model_flops


def operations_of(contestant: Contestant, manifest: Manifest, setting: Setting) -> int | None:
    """Returns the operations of one call; None if nothing counts them.

    An artifact's are counted in its file. Other programs run the whole model: theirs are those of the canonical model.
    """
    if contestant.artifact is not None:
        return count_flops(contestant.artifact, setting.sizes)
    return None if contestant.kind == "artifact" else model_flops(manifest.config, manifest.signature, setting.sizes)
