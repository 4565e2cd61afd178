"""The README.md of an export: what it is, and how it is loaded without this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import EncoderDecoderModel

from nlp_mtl.exporting.adapter import TASK_TYPES
from nlp_mtl.exporting.plain import max_length
from nlp_mtl.heads.seq2seq import Seq2Seq
from nlp_mtl.model import MultiTaskModel

PIPELINES = {
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
    "AutoModelForMaskedLM": "fill-mask",
    "AutoModelForQuestionAnswering": "question-answering",
    "AutoModelForMultipleChoice": "multiple-choice",
    "AutoModelForSeq2SeqLM": "text2text-generation",
}
RUNNABLE = ("text-classification", "token-classification", "fill-mask")  # pipelines that transformers 5 has


def card(
    model: MultiTaskModel, tasks: Sequence[str], form: str, found: Mapping[str, Any], *, custom: bool = False
) -> str:
    """The card's text.

    Args:
        model: of the run.
        tasks: what is in the export.
        form: model, adapter or onnx.
        found: what the comparison with the run found.
        custom: whether the folder brings code.
    """
    base = model.base["id"]
    kinds = {PIPELINES[model.heads[task].auto_class] for task in tasks}
    meta = [f"library_name: {'peft' if form == 'adapter' else 'onnx' if form == 'onnx' else 'transformers'}"]
    meta += [f"base_model: {base}", f"base_model_relation: {'adapter' if form == 'adapter' else 'finetune'}"]
    meta += [f"pipeline_tag: {kinds.copy().pop()}"] if len(kinds) == 1 else []
    meta += ["tags: [nlp-mtl]"]
    body = {"model": _model, "adapter": _adapter, "onnx": _onnx}[form]
    lines = ["---", *meta, "---", "", f"# {', '.join(tasks)}", "", f"Trained with nlp_mtl from `{base}`.", ""]
    lines += [_of(model, task) for task in tasks]
    lines += ["", "```python", *body(model, tasks, custom), "```", ""]
    lines += [f"Its logits equal the run's within {found['difference']:.0e} on the rows it was checked on."]
    for task, small in found.get("int8", {}).items():
        lines += [f"int8, {task}: largest difference {small['difference']:.2g}, {small['same']:.0%} equal decisions."]
    lines += ["", *(f"- {note}" for note in found.get("notes", ())), ""]
    return "\n".join(lines).rstrip() + "\n"


def _of(model: MultiTaskModel, task: str) -> str:
    """One line on a task."""
    head = model.heads[task]
    names = ", ".join(f"`{name}`" for name in (head.labels or [])[:20])
    more = f", … ({len(head.labels)} in all)" if head.labels and len(head.labels) > 20 else ""
    labels = f"; labels {names}{more}" if names else ""
    reads = ", ".join(f"`{column}`" for column in head.needed_columns())
    if head.task.template is not None:
        reads = f"the text `{head.task.template}`"
    kind = head.task.head_name.replace("_", " ")
    return f"- **{task}**: {kind} of {reads}{labels}; up to {max_length(model, task)} tokens"


def _model(model: MultiTaskModel, tasks: Sequence[str], custom: bool) -> list[str]:
    head = model.heads[tasks[0]]
    trusted = ", trust_remote_code=True" if custom else ""
    pipeline = PIPELINES[head.auto_class]
    if pipeline in RUNNABLE:
        return ["from transformers import pipeline", f'pipe = pipeline("{pipeline}", "this/folder"{trusted})']
    if isinstance(head, Seq2Seq):
        return _writer(isinstance(model.module_of(tasks[0]), EncoderDecoderModel), head)
    return [
        f"from transformers import AutoTokenizer, {head.auto_class}",
        'tokenizer = AutoTokenizer.from_pretrained("this/folder")',
        f'model = {head.auto_class}.from_pretrained("this/folder"{trusted})',
    ]


def _writer(joined: bool, head: Seq2Seq) -> list[str]:
    """A text in, a text out."""
    name = "EncoderDecoderModel" if joined else head.auto_class
    own = '"this/folder/target_tokenizer"' if head.own_tokenizer else '"this/folder"'
    return [
        f"from transformers import AutoTokenizer, {name}",
        'tokenizer = AutoTokenizer.from_pretrained("this/folder")',
        f"written = AutoTokenizer.from_pretrained({own})",
        f'model = {name}.from_pretrained("this/folder")',
        'tokens = model.generate(**tokenizer("A text.", return_tensors="pt"))[0]',
        "print(written.decode(tokens, skip_special_tokens=True))",
    ]


def _adapter(model: MultiTaskModel, tasks: Sequence[str], custom: bool) -> list[str]:
    head = model.heads[tasks[0]]
    said = head.config_changes()
    numbers = f", num_labels={said['num_labels']}" if "num_labels" in said else ""
    if head.auto_class == "AutoModelForMultipleChoice":
        numbers = ""
    pad = getattr(model.config, "pad_token_id", None)
    padded = f", pad_token_id={pad}" if pad else ""
    where = f", revision={model.base['revision']!r}" if model.base.get("revision") else ""
    lines = [
        "from peft import PeftModel",
        f"from transformers import {head.auto_class}",
        f'base = {head.auto_class}.from_pretrained("{model.base["id"]}"{where}{numbers}{padded}, dtype="float32")',
        'model = PeftModel.from_pretrained(base, "this/folder")',
    ]
    if head.auto_class in TASK_TYPES:
        auto = head.auto_class.replace("AutoModel", "AutoPeftModel")
        lines += [f'# or: peft.{auto}.from_pretrained("this/folder"{numbers}{padded}, dtype="float32")']
    return lines


def _onnx(model: MultiTaskModel, tasks: Sequence[str], custom: bool) -> list[str]:
    return [
        "import onnxruntime",
        "from transformers import AutoTokenizer",
        'tokenizer = AutoTokenizer.from_pretrained("this/folder")',
        'session = onnxruntime.InferenceSession("this/folder/model_int8.onnx")  # or model.onnx',
        "# tasks.json has inputs, outputs and labels",
        'batch = tokenizer(["A text."], padding=True, truncation=True, return_tensors="np")',
        f'logits = session.run(["{tasks[0]}.logits"], dict(batch))[0]',
    ]
