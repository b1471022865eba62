"""Describes a checkpoint or an artifact by what its files hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lxmert_export.artifact.directory import open_artifact
from lxmert_export.artifact.facts import read_graph_facts
from lxmert_export.artifact.flops import flops_of
from lxmert_export.artifact.session_settings import carried_settings, session_line
from lxmert_export.artifact.targets import TARGETS, Target
from lxmert_export.engines.plan_text import mismatch
from lxmert_export.errors import PACKAGE
from lxmert_export.extras import missing
from lxmert_export.files.beside_weights import LABELS_FILE, VOCABULARY_FILES
from lxmert_export.parity.decisions import percent
from lxmert_export.parity.prediction import UNVALIDATED
from lxmert_export.spec.flops import model_flops, sizes_of_call, usual_sizes
from lxmert_export.spec.signature import task_signature


def inspect_artifact(path: str | Path, sizes: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Returns the manifest of an artifact, its size in bytes, and the precisions that its graph really computes in.

    ``graph`` is read from the model file, not from the manifest. It is None if the library that reads the file is not
    installed. ``flops`` holds the operations of one call that are counted in the file, at the usual sizes but for those given,
    and those of its checkpoint. ``InputError``: the file cannot be called with these sizes.
    """
    artifact = open_artifact(path)
    with artifact.unreplaced():
        manifest, graph, flops = artifact.manifest, read_graph_facts(artifact), flops_of(artifact, sizes)
    return {
        "kind": "artifact",
        "path": str(path),
        "bytes": sum(facts["bytes"] for facts in manifest.files.values()),
        "graph": None if graph is None else vars(graph),
        "flops": flops,
        "manifest": manifest.to_dict(),
    }


def inspect_lint(path: str | Path, calibration: str | Path | None = None) -> list[dict[str, Any]]:
    """Returns what the fp16 linter finds in an ONNX artifact, as dicts; errors as of ``exporting.fp16_lint.lint``."""
    from lxmert_export.exporting.fp16_lint import lint

    artifact = open_artifact(path)
    with artifact.unreplaced():
        return [asdict(finding) for finding in lint(artifact, calibration)]


def inspect_checkpoint(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    num_attention_heads: int | None = None,
    sizes: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Returns a checkpoint's dialect, files, hash, config, task and number of parameters. Every tensor is read and checked.

    Other parts of a larger model are listed in ``other_parts``. ``flops``: the operations of one call, at the usual sizes but for
    those given.

    ``CheckpointError``: the checkpoint cannot be read, or its tensors do not fit. ``InputError``: it takes no such sizes.
    """
    from lxmert_export.checkpoint.read import read_checkpoint
    from lxmert_export.spec.weight_names import TIED_DECODER

    checkpoint = read_checkpoint(
        name_or_path, revision=revision, num_attention_heads=num_attention_heads, ignore_other_parts=True
    )
    signature = task_signature(checkpoint.config, checkpoint.task)
    asked = {**usual_sizes(signature, checkpoint.config), **(sizes or {})}
    sizes_of_call(signature, checkpoint.config, asked)
    tied = checkpoint.config.tie_word_embeddings
    counted = {name: t for name, t in checkpoint.tensors.items() if not (tied and name == TIED_DECODER)}
    return {
        "kind": "checkpoint",
        "name": checkpoint.source.name,
        "dialect": checkpoint.source.dialect,
        "files": [str(file) for file in checkpoint.source.paths],
        "sha256": checkpoint.source.sha256,
        "task": checkpoint.task,
        "parameters": sum(tensor.numel() for tensor in counted.values()),
        "dtypes": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in counted.values()}),
        "flops": {"sizes": asked, "checkpoint": model_flops(checkpoint.config, signature, asked)},
        "unused": list(checkpoint.unused),
        "stripped": checkpoint.source.stripped,
        "other_parts": list(checkpoint.source.other_parts),
        "guessed_attention_heads": checkpoint.config.num_attention_heads if checkpoint.guessed_heads else None,
        "companions": sorted(checkpoint.companions.files),
        "config": checkpoint.config.to_dict(),
    }


def summary_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what ``inspect`` prints: a label and a value for each line."""
    if facts["kind"] == "checkpoint":
        shown = ("name", "dialect", "files", "sha256", "task", "parameters", "dtypes", "unused")
        rows = [(name, _plain(facts[name])) for name in shown]
        rows += [(name.replace("_", " "), _plain(facts[name])) for name in ("stripped", "other_parts") if facts[name]]
        return [*rows, *_config_rows(facts["config"], facts["task"], facts["companions"]), *_flops_rows(facts)]
    manifest = facts["manifest"]
    rows = [
        ("artifact", facts["path"]),
        ("target", f"{manifest['target']}, {manifest['precision']}, task {manifest['task']}"),
        ("checkpoint", f"{manifest['checkpoint']['name']} ({manifest['checkpoint']['dialect']} dialect)"),
        ("size", f"{facts['bytes']:,} bytes in {len(manifest['files'])} files"),
        ("inputs", _specs(manifest["signature"]["inputs"])),
        ("outputs", _specs(manifest["signature"]["outputs"])),
        *_config_rows(manifest["config"], manifest["task"], manifest["files"]),
        *_flops_rows(facts),
    ]
    if manifest["target"] == "tensorrt":
        return [*rows, *_engine_rows(manifest["options"])]
    rows += [*_graph_rows(facts["graph"], manifest), ("parity", _parity(manifest["parity"]))]
    rows += [("predicted error", text) for text in predicted_errors(manifest["options"])]  # of a bundle's engine
    if bundle := manifest["options"].get("bundle"):
        rows += _bundle_rows(bundle)
    return [*rows, *_session_rows(manifest["options"]), *_lint_rows(facts)]


def _session_rows(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines for a program of one's own, if an artifact carries session settings."""
    return [
        (
            "session line",
            f"{session_line(row)}  (onnxruntime {row.first} or later{f', before {row.end}' if row.end else ''})",
        )
        for row in carried_settings(options)
    ]


def _flops_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The operations of one call, of the file and of its checkpoint."""
    flops = facts.get("flops")
    if flops is None:
        return []
    told = [f"{_giga(flops[what])} in the {what}" for what in ("file", "checkpoint") if flops.get(what) is not None]
    if "file" in flops and flops["file"] is None:
        told = ["not counted in the file", *told]
    sizes = ", ".join(f"{axis} {size}" for axis, size in flops["sizes"].items())
    rows = [("operations", f"{', '.join(told)}, for {sizes}")]
    if flops.get("vision") is not None and flops.get("question") is not None:
        halves = f"{_giga(flops['vision'])} for the images, {_giga(flops['question'])} for the questions"
        rows.append(("halves", f"{halves}; an image of several questions is computed once"))
    return rows


def _giga(flops: int) -> str:
    return f"{flops / 1e9:.2f} GFLOP" if flops >= 1e8 else f"{flops / 1e6:.2f} MFLOP"


def _bundle_rows(bundle: Mapping[str, Any]) -> list[tuple[str, str]]:
    engine = bundle["engine"]
    return [
        ("bundle", f"for --target {engine['target']}: no engine is built yet; README.md says how to build it"),
        ("runtime", f"{engine['runtime']} {engine['versions']}"),
        ("runs on", _capabilities(engine)),
        *_profile_rows(bundle["profiles"]),
        ("unexecuted", ", ".join(engine["unexecuted"]) or "nothing"),
    ]


def _engine_rows(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Describes an engine as recorded when it was built: layers by type and precision, profiles, size, target, flags."""
    engine, build = options["engine"], options["build"]
    chosen = [f"{name}={value}" for name, value in engine["options"].items()]
    layers = [
        f"{kind}: {', '.join(f'{count} {precision}' for precision, count in counts.items())}"
        for kind, counts in build["layers"].items()
    ]
    return [
        ("engine", f"{build['engine_bytes']:,} bytes for {build['weight_bytes']:,} bytes of weights"),
        ("runtime", f"{engine['runtime']} {build['runtime_version']}, built {engine['built']}"),
        ("runs on", _capabilities(engine)),
        (
            "options",
            ", ".join(["strongly typed", f"TF32 {'on' if build['tf32'] else 'off'}", *chosen, *build["flags"]]),
        ),
        *_profile_rows(options["profiles"]),
        ("matmuls", ", ".join(_engine_matmuls(name, count) for name, count in build["matmuls"].items())),
        *_plan_rows(build),
        ("layers", "; ".join(layers)),
        ("unexecuted", ", ".join(engine["unexecuted"]) or "nothing"),
        ("graph parity", _parity(options["onnx"]["parity"])),
        *(("predicted error", text) for text in predicted_errors(options)),
        ("status", options["status"]),
    ]


def _plan_rows(build: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the text of an engine's file tells of its products; nothing if it cannot be read, or is of an earlier version."""
    if not (plan := build.get("plan_matmuls")):
        return []
    told = ", ".join(f"{count} in {precision}" for precision, count in plan.items())
    odd = mismatch(plan, build["matmuls"])
    return [("products in the file", f"{told}{f': {odd}' if odd else ''}")]


def _engine_matmuls(precision: str, count: int) -> str:
    """An engine's network holds int8 as dequantised operands of float32 matmuls; its kernels are TensorRT's choice."""
    return f"{count} read dequantised int8" if precision == "int8" else f"{count} compute in {precision}"


def predicted_errors(options: Mapping[str, Any]) -> list[str]:
    """Returns a line for each output: the error that the emulator predicts for the worst inputs. Empty for float32."""
    return [
        f"{output} {found['error_rms']:.2e} RMS, {found['error_max']:.2e} at most, on {found['inputs']} inputs "
        f"({'not measured' if found['status'] == UNVALIDATED else found['status']})"
        for output, found in options.get("predicted_errors", {}).items()
    ]


def _capabilities(engine: Mapping[str, Any]) -> str:
    later = " and later" if engine["and_later"] else ""
    return f"compute capability {', '.join(engine['compute_capabilities'])}{later}"


def _profile_rows(profiles: Sequence[Mapping[str, list[int]]]) -> list[tuple[str, str]]:
    return [(f"profile {number}", _ranges(profile)) for number, profile in enumerate(profiles)]


def _ranges(profile: Mapping[str, list[int]]) -> str:
    return ", ".join(f"{axis} {':'.join(map(str, sizes))}" for axis, sizes in profile.items())


def _graph_rows(graph: Mapping[str, Any] | None, manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    if graph is None:
        return [("graph", _not_read(TARGETS[manifest["target"]]))]
    precision = manifest["precision"]
    arithmetic = manifest["options"].get("arithmetic", precision)
    weights, matmuls = graph["matmul_weights"], graph["matmuls"]
    rows = [("opset", f"{graph['opset']}, IR version {graph['ir_version']}")] if "opset" in graph else []
    if lowest := graph.get("lowest_runtime"):
        rows.append(("runs in", f"{lowest} or later"))
    if graph["operators"]:
        rows.append(("operators", ", ".join(f"{name} {count}" for name, count in graph["operators"].items())))
    rows += _launch_rows(graph.get("launches"))
    rows.append(("matmul weights", f"{weights.get(precision, 0)} of {sum(weights.values())} are {precision}"))
    if graph["operators"]:
        doing = "give results in" if manifest["options"].get("quantization") == "dynamic-range" else "compute in"
        rows.append(("matmuls", f"{matmuls.get(arithmetic, 0)} of {sum(matmuls.values())} {doing} {arithmetic}"))
    else:  # a .keras file holds layers, no graph
        rows.append(("dtype policy", ", ".join(matmuls)))
    if islands := manifest["options"].get("fp32_islands"):
        rows.append(("float32 islands", f"{len(islands)} nodes: {', '.join(islands)}"))
    if found := manifest["options"].get("int8_saturating"):
        saturating = f"{found['columns']:,} of {found['of']:,} columns can saturate on x86 CPUs without VNNI"
        rows.append(("int8 weights", f"{manifest['options'].get('int8_range', 'unknown range')}; {saturating}"))
    if kept := manifest["options"].get("int8_keep"):
        rows.append(("kept in float32", ", ".join(kept)))
    if "xnnpack_left" in graph:
        left, operators = sum(graph["xnnpack_left"].values()), sum(graph["operators"].values())
        rows.append(("XNNPACK", f"takes {operators - left} of {operators} operators"))
    return rows


def _launch_rows(launches: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """The kernels that onnxruntime's CUDA provider launches for one call of an ONNX file."""
    if launches is None:
        return []
    most = ", ".join(f"{name} {count}" for name, count in list(launches["by_operator"].items())[:5])
    told = f"{launches['total']} a call in onnxruntime on a GPU, at least ({most}, …)"
    if launches["on_cpu"]:
        on_cpu = ", ".join(f"{name} {count}" for name, count in launches["on_cpu"].items())
        told += f"; on the CPU: {on_cpu}, so it is no CUDA graph"
    return [("kernel launches", told)]


def _not_read(target: Target) -> str:
    if target.facts is None:
        return "not read: this tool cannot read the graph of such files"
    extras = sorted({library.extra for library in missing(target.facts.needs)})
    return f"not read: pip install '{PACKAGE}[{','.join(extras)}]'"


def _parity(parity: Mapping[str, Any] | None) -> str:
    if parity is None:
        return "not checked (written with --no-parity)"
    scores = [figures["score"] for ways in parity["outputs"].values() for figures in ways.values()]
    worst = "not finite" if None in scores else f"{max(scores):.2f}" if scores else "none"
    verdict = f"{'passed' if parity['passed'] else 'FAILED (kept for a look)'}, worst score {worst}"
    decisions = parity.get("decisions", {}).values()  # manifests of earlier versions have none
    if not decisions:
        return verdict
    least = min(decisions, key=lambda figures: int(figures["correct"]))
    accuracy, reference = (percent(least[n], least["questions"]) for n in ("correct", "reference_correct"))
    return f"{verdict}, accuracy {accuracy} (float64 {reference}) on {least['questions']:,} held-out questions"


def _lint_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("fp16 lint", line) for line in lint_lines(facts["lint"])] if "lint" in facts else []


def lint_lines(findings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns what is printed of the fp16 linter's findings: the verdict, each error and warning, and the notes by rule."""
    severe = [found for found in findings if found["severity"] != "note"]
    notes: dict[str, list[Mapping[str, Any]]] = {}
    for found in findings:
        if found["severity"] == "note":
            notes.setdefault(found["rule"], []).append(found)
    return [
        _lint_verdict(findings),
        *("{severity}: {rule}: {node}: {seen}; {mend}".format(**found) for found in severe),
        *(_grouped_notes(rule, found) for rule, found in notes.items()),
    ]


def _lint_verdict(findings: Sequence[Mapping[str, Any]]) -> str:
    errors, warnings = (sum(f["severity"] == severity for f in findings) for severity in ("error", "warning"))
    if errors:
        return f"{_count(errors, 'error')}, {_count(warnings, 'warning')}: expect wrong numbers or NaN in fp16"
    if warnings:
        return f"no error, {_count(warnings, 'warning')}: accuracy is lost in fp16, or its range is nearly used up"
    return f"sound in fp16: no error, no warning, {_count(len(findings), 'note')}; nothing to do"


def _grouped_notes(rule: str, notes: Sequence[Mapping[str, Any]]) -> str:
    largest = max(notes, key=lambda note: float(note["figure"]))
    several = f"{len(notes)} nodes, most in " if len(notes) > 1 else ""
    return f"note: {rule}: {several}{largest['node']}: {largest['seen']}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _specs(specs: list[Mapping[str, Any]]) -> str:
    return ", ".join(f"{s['name']} {s['dtype']}[{', '.join(map(str, s['axes']))}]" for s in specs)


def _config_rows(config: Mapping[str, Any], task: str, files: Collection[str]) -> list[tuple[str, str]]:
    """What the network takes and answers. ``files``: the names of the files that came with the weights."""
    layers = f"{config['l_layers']} language, {config['r_layers']} vision, {config['x_layers']} cross-modality layers"
    tokenizer = "with" if any(name in files for name in VOCABULARY_FILES) else "without"
    named = f"named in {LABELS_FILE}" if LABELS_FILE in files else f"without names (no {LABELS_FILE})"
    answering = task == "question-answering" or (task == "pretraining" and config["task_qa"])
    return [
        ("sizes", f"{layers}, {config['hidden_size']} wide, {config['num_attention_heads']} heads"),
        ("features", f"{config['visual_feat_dim']} wide, boxes of {config['visual_pos_dim']} numbers"),
        (
            "vocabulary",
            f"{config['vocab_size']:,} words, texts of at most {config['max_position_embeddings']}, {tokenizer} a tokenizer",
        ),
        *([("answers", f"{config['num_qa_labels']:,}, {named}")] if answering else []),
    ]


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
