"""Files whose weights do not stand under their own names: pruned, parametrised, quantised, or adapters beside them.

The names of the tensors tell, as PyTorch's ``nn.utils`` and the libraries write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from lxmert_export.errors import CheckpointError, shortened

PARAMETRISED = (
    "parametrised weights",
    "call torch.nn.utils.parametrize.remove_parametrizations (or remove_weight_norm, remove_spectral_norm) on each module, "
    "then save its state_dict again",
)
PRUNED = ("pruned weights", "call torch.nn.utils.prune.remove on each pruned module, then save its state_dict again")
QUANTISED = (
    "quantised weights",
    "give the checkpoint before that, and an int8 precision where the target has one",
)
ADAPTED = ("weights with LoRA adapters beside them", "call merge_and_unload() of peft, then save the model again")

# A name, the name that must stand beside it (``{}``: what the first group of the pattern matched), and what both say of the file.
# Other parts of a larger model may have such a name alone. The old spectral_norm writes weight_orig, as pruning does.
SIGNS: tuple[tuple[re.Pattern[str], str, tuple[str, str]], ...] = (
    (re.compile(r"(.*\.parametrizations\..+)"), "{}", PARAMETRISED),
    (re.compile(r"(.*\.\w+)_g"), "{}_v", PARAMETRISED),
    (re.compile(r"(.*\.\w+)_[uv]"), "{}_orig", PARAMETRISED),
    (re.compile(r"(.*\.\w+)_orig"), "{}_mask", PRUNED),
    (re.compile(r"(.*\.)zero_point"), "{}scale", QUANTISED),
    (re.compile(r"(.*\.)SCB"), "{}weight", QUANTISED),
    (re.compile(r"(.*\.weight)\.(?:absmax|quant_map|quant_state\..+)"), "{}", QUANTISED),
    (re.compile(r"(.*\._packed_params\..+)"), "{}", QUANTISED),
    (re.compile(r"(.*\.lora_(?:[AB]|embedding_[AB])\..+)"), "{}", ADAPTED),
)


def check_weights_are_plain(names: Iterable[str]) -> None:
    """``CheckpointError``: weights of an LXMERT stand beside what changes them; the message names some, and the mend."""
    listed = dict.fromkeys(names)
    for pattern, beside, (what, mend) in SIGNS:
        matches = ((name, match) for name in listed if (match := pattern.fullmatch(name)))
        if found := [name for name, match in matches if beside.format(match[1]) in listed]:
            raise CheckpointError(f"holds {what} ({shortened(found, most=3)}): {mend}")
