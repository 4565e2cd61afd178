"""One ONNX graph for one task or all of them, in fp32 and int8, run in onnxruntime before it is kept."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nlp_mtl.errors import DataError, NotFoundError, pip_install
from nlp_mtl.exporting.checking import Probe, compare, difference, in_our_shape
from nlp_mtl.exporting.graph import Graph, passes
from nlp_mtl.exporting.model import thresholds
from nlp_mtl.exporting.plain import max_length
from nlp_mtl.model import MultiTaskModel

FILES = {"fp32": "model.onnx", "int8": "model_int8.onnx"}
DESCRIPTION = "tasks.json"
INT8_LIMIT = 0.5  # of the logits' spread: above it, an int8 graph has lost what the run learned


def write_onnx(
    model: MultiTaskModel, probes: Sequence[Probe], tokenizer: Any, folder: Path, precision: str
) -> dict[str, Any]:
    """Write ``model.onnx``, ``model_int8.onnx`` and ``tasks.json``, and compare both graphs with the run.

    Args:
        model: of a run.
        probes: what the run says, for each task that goes into the graph.
        tokenizer: the exported one.
        folder: where the files go.
        precision: ``both``, ``fp32`` or ``int8``.

    Returns:
        `difference`, the largest of the fp32 graph's logits from the run's; `int8`, by task.

    Raises:
        NotFoundError: onnx, onnxscript or onnxruntime is not installed.
        DataError: logits that differ too much.
    """
    _needed()
    tasks = [one.task for one in probes]
    groups = passes(model, tasks)
    graph = Graph(model, groups)
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in tokenizer.model_input_names]
    plain = folder / FILES["fp32"]
    with _quiet():
        _trace(graph, names, plain)
    said = describe(model, tasks, groups, names)
    found: dict[str, Any] = {"difference": _check(model, probes, tokenizer, plain)}
    if precision != "fp32":
        small = folder / FILES["int8"]
        with _quiet():
            _quantize(plain, small)
        found["int8"] = {one.task: _check_int8(model, one, tokenizer, small) for one in probes}
    if precision == "int8":
        for file in folder.glob(f"{FILES['fp32']}*"):
            file.unlink()
    said["files"] = {kind: name for kind, name in FILES.items() if (folder / name).exists()}
    (folder / DESCRIPTION).write_text(json.dumps(said, indent=1, ensure_ascii=False), encoding="utf-8")
    return found


def describe(
    model: MultiTaskModel, tasks: Sequence[str], groups: Sequence[Sequence[str]], inputs: Sequence[str]
) -> dict[str, Any]:
    """What ``tasks.json`` says: inputs, outputs, kinds and labels of the graph's tasks, and which share a pass."""
    every = []
    for name in tasks:
        head = model.heads[name]
        one: dict[str, Any] = {
            "task": name,
            "head": head.task.head_name,
            "output": f"{name}.logits",
            "shape": SHAPES.get(head.auto_class, "[rows, labels]"),
            "labels": head.labels,
            "reads": _reads(head),
            "max_length": max_length(model, name),
            "decision_thresholds": thresholds(model, name),
        }
        every.append({key: value for key, value in one.items() if value})
    return {
        "format": 1,
        "inputs": list(inputs),
        "padding": "right",
        "tasks": every,
        "passes": [list(group) for group in groups],
        "base": {key: value for key, value in model.base.items() if key in ("id", "revision", "sha256")},
    }


SHAPES = {
    "AutoModelForTokenClassification": "[rows, length, labels]; a word's tag stands at its first token",
    "AutoModelForMaskedLM": "[rows, length, vocabulary]",
    "AutoModelForQuestionAnswering": "[rows, length, 2]: scores of start and end",
    "AutoModelForMultipleChoice": "[rows, 1]: a score for each (context, choice) pair, which is a row",
}


def _reads(head: Any) -> dict[str, Any]:
    """How a task's token ids are made."""
    if head.task.template is not None:
        return {"template": head.task.template}
    more = [column for column in head.needed_columns() if column not in head.task.inputs]
    return {"columns": list(head.task.inputs), **({"choices": more} if more else {})}


def _needed() -> None:
    """Refuse before any work if the libraries are not there."""
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise NotFoundError(
            f"the package {error.name}, which --as onnx needs,", [f"import {error.name}"], [pip_install("onnx")]
        ) from None
    del onnx, onnxruntime


def _trace(graph: Graph, names: Sequence[str], file: Path) -> None:
    """Trace the graph with any number of rows and any length."""
    inputs = {name: torch.ones(2, 11, dtype=torch.long) for name in names}
    inputs["input_ids"] = torch.arange(22).reshape(2, 11) % 7 + 5
    inputs["attention_mask"][1, 6:] = 0
    if "token_type_ids" in inputs:
        inputs["token_type_ids"][:, :5] = 0
    rows, length = torch.export.Dim("rows", min=1, max=65536), torch.export.Dim.DYNAMIC
    outputs = [f"{task}.logits" for task, _, _ in graph.kinds]
    with torch.no_grad():
        made = torch.onnx.export(
            graph,
            (),
            kwargs=inputs,
            dynamo=True,
            dynamic_shapes={name: {0: rows, 1: length} for name in names},
            input_names=list(names),
            output_names=outputs,
            verbose=False,
        )
    if made is None:
        raise DataError("export: torch.onnx made no graph")
    made.save(str(file))


def _quantize(plain: Path, small: Path) -> None:
    """Weights in 8 bits, activations quantized as they come."""
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError:
        raise NotFoundError("the package onnxruntime", ["import onnxruntime"], [pip_install("onnx")]) from None
    quantize_dynamic(str(plain), str(small), weight_type=QuantType.QInt8, per_channel=True)


def session(file: str | Path, *, threads: int | None = None) -> Any:
    """An onnxruntime session on the CPU.

    Args:
        file: a graph.
        threads: how many; default all cores.
    """
    try:
        import onnxruntime
    except ImportError:
        raise NotFoundError("the package onnxruntime", ["import onnxruntime"], [pip_install("onnx")]) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _check(model: MultiTaskModel, probes: Sequence[Probe], tokenizer: Any, file: Path) -> float:
    """Run the fp32 graph on every task's rows; gives the largest difference."""
    made = session(file)
    return max(compare(model, one, tokenizer, _runner(made, one.task)) for one in probes)


def _check_int8(model: MultiTaskModel, probed: Probe, tokenizer: Any, file: Path) -> dict[str, float]:
    """How far an int8 graph is from the run: `difference` of logits, and the share of `same` decisions."""
    made = session(file)
    run = _runner(made, probed.task)
    padded = tokenizer.pad([*map(dict, probed.sequences)], return_tensors="pt")
    logits = run({name: values for name, values in padded.items() if name in tokenizer.model_input_names})
    lengths = [len(part["input_ids"]) for part in probed.sequences]
    by_token = logits.dim() == 3
    theirs = in_our_shape(model, probed, [row[:n] if by_token else row for row, n in zip(logits, lengths, strict=True)])
    ours = probed.logits
    finite = torch.isfinite(ours)
    spread = float(ours[finite].abs().max())
    found = difference(ours, theirs) * max(1.0, spread)
    if not found <= INT8_LIMIT * max(spread, 1e-6):
        raise DataError(
            f"export: task {probed.task!r}: in int8 its logits differ by {found:.2g} from the run's, which are at most "
            f"{spread:.2g}; nothing was kept; say --precision fp32"
        )
    same = (ours.argmax(-1) == theirs.argmax(-1)).float().mean() if ours.dim() > 1 else torch.tensor(1.0)
    return {"difference": found, "same": float(same)}


def _runner(made: Any, task: str) -> Any:
    names = {one.name for one in made.get_inputs()}

    def run(inputs: dict[str, Tensor]) -> Tensor:
        feed = {name: values.numpy() for name, values in inputs.items() if name in names}
        return torch.from_numpy(made.run([f"{task}.logits"], feed)[0])

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what tracing and quantizing say of their own steps."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root", "")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
