"""Modules as users hold them: wrappers are taken off, and weights that are not plain tensors are told in one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod

from lxmert_export.errors import shortened

# The packages whose modules hold quantised weights.
QUANTISING = ("torch.ao.nn.", "torch.nn.quantized", "torchao.", "bitsandbytes.", "optimum.quanto.")
PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
COMPILED = "_orig_mod"  # where torch.compile(module) keeps the module


def unwrapped(module: nn.Module) -> nn.Module:
    """Returns the module inside ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel``, which compute the same."""
    while True:
        if isinstance(module, PARALLEL):
            module = module.module
        elif COMPILED in module._modules:
            module = cast(nn.Module, module._modules[COMPILED])
        else:
            return module


def why_not_plain(module: nn.Module, *, by_name: bool = False) -> str | None:
    """Says in words why the weights of a module cannot be read, and how to mend it; None if they can.

    ``by_name``: also if they are not under their own names, as those of parametrised modules.
    """
    if lost := [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]:
        return (
            f"{len(lost)} of its tensors are on the meta device and hold no values ({shortened(lost, most=3)}); load weights "
            "into it first: load_state_dict(…, assign=True)"
        )
    if quantised := [name for name, part in module.named_modules() if type(part).__module__.startswith(QUANTISING)]:
        return (
            f"it is quantised ({shortened(quantised, most=3)}); give the module before that, and an int8 precision "
            "where the target has one"
        )
    if pruned := list(_pruned(module)):
        return f"it is pruned ({shortened(pruned, most=3)}); torch.nn.utils.prune.remove makes that permanent"
    changed = [name for name, part in module.named_modules() if parametrize.is_parametrized(part)] if by_name else []
    if changed := [name for name in changed if name]:
        return (
            f"it is parametrised ({shortened(changed, most=3)}); torch.nn.utils.parametrize.remove_parametrizations makes that "
            "permanent"
        )
    return None


def _pruned(module: nn.Module) -> Iterator[str]:
    for name, part in module.named_modules():
        if any(isinstance(hook, BasePruningMethod) for hook in part._forward_pre_hooks.values()):
            yield name
