"""Files whose weights do not stand under their own names: pruned, parametrised, quantised, or adapters beside them.

The names of the tensors tell, as PyTorch's ``nn.utils`` and the libraries write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from lxmert_export.errors import CheckpointError, shortened

# How a name ends or what it holds, what that says of the file, and what to do before the state_dict is saved.
# The old spectral_norm writes weight_orig, as pruning does, and weight_u: parametrisation is looked for first.
SIGNS: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (
        re.compile(r".*\.parametrizations\..+|.*\.weight_[guv]"),
        "parametrised weights",
        "call torch.nn.utils.parametrize.remove_parametrizations (or remove_weight_norm, remove_spectral_norm) on each module, "
        "then save its state_dict again",
    ),
    (
        re.compile(r".*\.\w+_(orig|mask)"),
        "pruned weights",
        "call torch.nn.utils.prune.remove on each pruned module, then save its state_dict again",
    ),
    (
        re.compile(r".*\.(zero_point|SCB|_packed_params\..+|weight\.(absmax|quant_map|quant_state\..+))"),
        "quantised weights",
        "give the checkpoint before that, and an int8 precision where the target has one",
    ),
    (
        re.compile(r".*\.(lora_[AB]|lora_embedding_[AB]|base_layer)\..+"),
        "weights with LoRA adapters beside them",
        "call merge_and_unload() of peft, then save the model again",
    ),
)


def check_weights_are_plain(names: Iterable[str]) -> None:
    """``CheckpointError``: weights of an LXMERT stand beside what changes them; the message names some, and the mend."""
    listed = list(names)
    for pattern, what, mend in SIGNS:
        if found := [name for name in listed if pattern.fullmatch(name)]:
            raise CheckpointError(f"holds {what} ({shortened(found, most=3)}): {mend}")
