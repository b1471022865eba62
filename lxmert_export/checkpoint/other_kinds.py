"""Paths that are no checkpoint of a whole model: a converted model, an adapter, weights in parts; and what to do with each."""

from __future__ import annotations

import re
from pathlib import Path

from lxmert_export.errors import CheckpointError, shortened
from lxmert_export.files.beside_weights import ADAPTER_CONFIG
from lxmert_export.files.converted_files import converted_kind, holder_of, manifest_of

ADAPTER_FILES = (ADAPTER_CONFIG, "adapter_model.safetensors", "adapter_model.bin")  # as peft writes them
SHARD = re.compile(r"(?P<set>.+)-\d{5}-of-(?P<count>\d{5})(?P<suffix>\.(safetensors|bin))")
MERGE = "call merge_and_unload() of peft, then save_pretrained"


def is_part(name: str) -> bool:
    """Whether a file of this name holds a part of weights: a shard, or an adapter."""
    return name in ADAPTER_FILES or SHARD.fullmatch(name) is not None


def refuse_adapter(directory: Path, weights: Path) -> None:
    """``CheckpointError``: an adapter lies beside the weights. transformers adds it to them; this package would not."""
    if found := [name for name in ADAPTER_FILES if (directory / name).is_file()]:
        raise CheckpointError(
            f"{directory}: holds an adapter ({', '.join(found)}) beside {weights.name}, which transformers adds to it: "
            f"{MERGE} the whole model, and name that; or name {weights} to read it without the adapter"
        )


def refuse_other_kinds(directory: Path, loose: list[str]) -> None:
    """``CheckpointError``: a directory without weights holds something else; ``loose``: its files that have to be named."""
    _refuse_parts(directory)
    if found := [name for name in ADAPTER_FILES if (directory / name).is_file()]:
        raise CheckpointError(
            f"{directory}: holds an adapter ({', '.join(found)}) and not the weights that it adapts: load both with peft, "
            f"{MERGE} the whole model, and name that"
        )
    if shards := [(file.name, match) for file in sorted(directory.iterdir()) if (match := SHARD.fullmatch(file.name))]:
        index = f"{shards[0][1]['set']}{shards[0][1]['suffix']}.index.json"
        raise CheckpointError(
            f"{directory}: holds shards ({shortened([name for name, _ in shards], most=3)}) and not {index}, which lists them: "
            "copy or download it, too"
        )
    if loose:
        names = shortened(loose, most=3)
        raise CheckpointError(f"{directory}: holds no weights that are read by themselves, but {names}: name the file")
    below = sorted(entry.name for entry in directory.iterdir() if entry.is_dir() and _holds_weights(entry))
    if below:
        raise CheckpointError(
            f"{directory}: holds no weights; directories in it do ({shortened(below, most=3)}): name one of them"
        )


def refuse_shard(file: Path) -> None:
    """``CheckpointError``: a file is one shard of several."""
    if (match := SHARD.fullmatch(file.name)) and int(match["count"]) != 1:
        raise CheckpointError(f"{file}: is one shard of several: name its directory, {file.parent}")


def _holds_weights(directory: Path) -> bool:
    suffixes = (".safetensors", ".bin", ".pth", ".h5", ".safetensors.index.json", ".bin.index.json")
    try:
        names = [entry.name for entry in directory.iterdir()]
    except OSError:
        return False
    return "config.json" in names and any(name.endswith(suffixes) for name in names)


def _refuse_parts(directory: Path) -> None:
    """Raises ``CheckpointError`` for a directory in which a training on several devices wrote parts of weights."""
    if any(directory.glob("*.distcp")) or any(directory.glob("*/*.distcp")):
        raise CheckpointError(
            f"{directory}: is a checkpoint in parts, as FSDP writes it: make one file of it with 'python -m "
            "torch.distributed.checkpoint.format_utils dcp_to_torch DIRECTORY model.pth', and name that"
        )
    if any(directory.glob("*_model_states.pt")) or any(directory.glob("*/*_model_states.pt")):
        raise CheckpointError(
            f"{directory}: is a checkpoint in parts, as DeepSpeed writes it: run 'python zero_to_fp32.py . whole' where "
            "zero_to_fp32.py lies, and name the directory 'whole'"
        )


def refuse_converted(path: Path) -> None:
    """Raises ``CheckpointError`` for an artifact, a part of one or another converted model, and says what to name instead."""
    artifact = path if manifest_of(path) else holder_of(path)
    kind = "an artifact" if artifact == path else converted_kind(path) or (artifact and "a part of an artifact")
    if kind is None:
        return
    if kind == "a Keras model" and artifact is None:
        mend = (
            "import converters.tensorflow_model, load it with keras.saving.load_model, and write a checkpoint with the "
            "model's save_pretrained(DIRECTORY)"
        )
    else:
        manifest = manifest_of(artifact) if artifact else None
        origin = (
            manifest["checkpoint"].get("name") if manifest and isinstance(manifest.get("checkpoint"), dict) else None
        )
        mend = f"name the checkpoint that it was exported from{f', {origin}' if origin else ''}"
    raise CheckpointError(f"{path}: is {kind}, not a checkpoint: {mend}")
