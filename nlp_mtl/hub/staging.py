"""A repository's files, written into a folder of their own: only what is made here leaves, nothing is picked up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlp_mtl import checkpoint
from nlp_mtl.atomic import write_text
from nlp_mtl.card import KINDS, PLACE, card, finished
from nlp_mtl.errors import UnsupportedError
from nlp_mtl.exporting.adapter import TASK_TYPES, check_adapter, write_adapter
from nlp_mtl.exporting.checking import probe
from nlp_mtl.exporting.export import export_task
from nlp_mtl.exporting.plain import lora_config_of, tokenizer_for
from nlp_mtl.heads.seq2seq import Seq2Seq
from nlp_mtl.heads.targetside import FOLDER as DECODERS
from nlp_mtl.hub.leaving import is_adapter, task_for_hub
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.tasklora import owners_of
from nlp_mtl.weights import quiet_transformers

ADAPTER = "adapter_config.json"


def stage_run(
    model: MultiTaskModel,
    folder: Path,
    repo: str,
    facts: Mapping[str, Any],
    *,
    source: Path | None = None,
    license_: str | None = None,
) -> list[str]:
    """Write a whole run: the model at the root, and of a LoRA run every task in ``<task>/`` as a PEFT adapter.

    Args:
        model: the run's, its base recorded as it shall be.
        folder: empty.
        repo: the repository's id, for the card.
        facts: see :func:`nlp_mtl.hub.facts.facts_of`.
        source: the run folder, which says with which versions it was trained and has the tokenizer as it was saved.
        license_: of the model.

    Returns:
        What a user should know, one sentence each.
    """
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer = tokenizer_for(model, source, model.tasks[0])
    tokenizer.model_max_length = model.max_length
    tokenizer.save_pretrained(folder)
    spec = json.loads((folder / checkpoint.SPEC).read_text(encoding="utf-8"))
    if source is not None:
        spec["libraries"] = json.loads((source / checkpoint.SPEC).read_text(encoding="utf-8"))["libraries"]
    notes: list[str] = []
    singles: list[str] = []
    if is_adapter(model):
        for part in filter(Path.is_dir, list(folder.iterdir())):  # task adapters; here they come with their heads
            if part.name != DECODERS:
                shutil.rmtree(part)
        for task in model.tasks:
            notes += _stage_adapter(model, task, folder / task, source)
        singles = [task for task in model.tasks if (folder / task).is_dir()]
        told = [part for part in (folder, *(folder / task for task in singles)) if (part / ADAPTER).is_file()]
        facts = {**facts, "lora": _lora(told[0])} if told else facts
    _clean(folder, spec)
    if facts.get("scores"):
        write_text(folder / "metrics.json", json.dumps(facts["scores"], indent=1))
    more = _loading(model, singles)
    text = finished(card(spec), spec["tasks"], facts, repo, spec=spec, more=[*more, *_said(notes)], license_=license_)
    (folder / "README.md").write_text(text.replace(PLACE, repo), encoding="utf-8")
    return notes


def stage_export(
    model: MultiTaskModel,
    task: str,
    form: str,
    folder: Path,
    repo: str,
    facts: Mapping[str, Any],
    *,
    source: Path | None = None,
    license_: str | None = None,
) -> list[str]:
    """Write one task as :func:`nlp_mtl.export_task` does, with a finished card; arguments as :func:`stage_run`."""
    done = export_task(model, task, folder, form)  # type: ignore[arg-type]
    (folder / checkpoint.COMPLETE).unlink()
    spec = model.spec()
    tasks = [task_for_hub(item) for item in spec["tasks"] if item["name"] == task]
    known = {**facts, "scores": _of(facts.get("scores", {}), task)}
    text = (folder / "README.md").read_text(encoding="utf-8")
    (folder / "README.md").write_text(
        finished(text, tasks, known, repo, spec={**spec, "libraries": {}}, license_=license_), encoding="utf-8"
    )
    _sort(folder)
    return list(done.notes)


def stage_checkpoint(
    source: Path, folder: Path, repo: str, base: Mapping[str, Any], *, whole: bool = False, step: int = 0
) -> None:
    """Copy the model of a checkpoint, or all of it, as it may leave during training.

    Args:
        source: a sealed checkpoint.
        folder: empty or not there.
        repo: the repository's id.
        base: how the base is recorded.
        whole: with optimizer, scheduler, random and strategy states, so that training can go on from it.
        step: of training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    states = (
        "optimizer",
        "scheduler",
        "rng_state",
        "scaler",
        "strategies",
        "trainer_state",
        "bests",
        checkpoint.COMPLETE,
    )
    for file in sorted(source.iterdir()):
        if file.is_file() and (whole or not file.name.startswith((*states, checkpoint.COMPLETE))):
            shutil.copy(file, folder / file.name)
    if (source / DECODERS).is_dir():
        shutil.copytree(source / DECODERS, folder / DECODERS)
    spec = json.loads((folder / checkpoint.SPEC).read_text(encoding="utf-8"))
    spec["base"] = dict(base)
    _clean(folder, spec)
    text = finished(card(spec), spec["tasks"], {}, repo, spec=spec, more=[f"In training: step {step}.", ""])
    (folder / "README.md").write_text(text, encoding="utf-8")
    if whole:
        _clean_state(folder / "trainer_state.json")
        checkpoint.seal(folder)  # it is resumed only if every file is as it was written


def _stage_adapter(model: MultiTaskModel, task: str, folder: Path, source: Path | None) -> list[str]:
    """One task in its sub-folder, compared with the run; else why not."""
    head = model.heads[task]
    try:
        model.sharing.collapse(task)
        lora_config_of(model, task)
    except UnsupportedError as error:
        return [f"{task}: no ordinary adapter holds it ({error}), so it has no {task}/; nlp_mtl loads it"]
    if not head.exportable:
        return [f"{task}: no class of the family computes it ({head.why_not}), so it has no {task}/; nlp_mtl loads it"]
    if isinstance(head, Seq2Seq):
        return [f"{task}: its decoder was trained in full and is no adapter, so it has no {task}/; nlp_mtl loads it"]
    tokenizer = tokenizer_for(model, source, task)
    asked = probe(model, task, tokenizer)
    folder.mkdir()
    write_adapter(model, task, folder)
    check_adapter(model, asked, tokenizer, folder)
    return []


def _clean(folder: Path, spec: dict[str, Any]) -> None:
    """Write the spec without rows and paths, and the rest without traces of where it was made."""
    spec["tasks"] = [task_for_hub(item) for item in spec["tasks"]]
    spec["base"] = {key: value for key, value in spec["base"].items() if key != "package"}
    write_text(folder / checkpoint.SPEC, json.dumps(spec, indent=1, ensure_ascii=False))
    for file in ("adapter_config.json", "tokenizer_config.json", "config.json"):
        if (folder / file).is_file():
            said = json.loads((folder / file).read_text(encoding="utf-8"))
            if file == "adapter_config.json":
                said["base_model_name_or_path"], said["revision"] = spec["base"]["id"], spec["base"].get("revision")
            for key in ("name_or_path", "_name_or_path", "is_local", "local_files_only"):
                said.pop(key, None)
            write_text(folder / file, json.dumps(said, indent=2, ensure_ascii=False))
    _sort(folder)


def _sort(folder: Path) -> None:
    """PEFT writes names of modules in the order of a set, another one each time: what is equal shall look equal."""
    for file in folder.rglob("adapter_config.json"):
        said = json.loads(file.read_text(encoding="utf-8"))
        for key in ("target_modules", "exclude_modules", "modules_to_save"):
            if isinstance(said.get(key), list):
                said[key] = sorted(said[key])
        write_text(file, json.dumps(said, indent=2))


def _clean_state(file: Path) -> None:
    said = json.loads(file.read_text(encoding="utf-8"))
    if said.get("best_model_checkpoint"):
        said["best_model_checkpoint"] = Path(said["best_model_checkpoint"]).name
    said.pop("trial_name", None)
    write_text(file, json.dumps(said, indent=2))


def _of(scores: Mapping[str, Any], task: str) -> dict[str, Any]:
    """What is said of one task."""
    return {
        key: {task: value[task]} if isinstance(value, Mapping) and task in value else value
        for key, value in scores.items()
        if not isinstance(value, Mapping) or task in value
    }


def _lora(folder: Path) -> dict[str, Any]:
    """What is told of the adapter."""
    said = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
    told = {key: said.get(key) for key in ("r", "lora_alpha", "lora_dropout", "bias", "use_rslora", "use_dora")}
    layers = sorted({str(name).rpartition(".")[2] for name in said.get("target_modules") or []})
    return {**{key: value for key, value in told.items() if value not in (None, False, "none")}, "layers": layers}


def _said(notes: Sequence[str]) -> list[str]:
    return [*(f"- {note}" for note in notes), ""] if notes else []


def _loading(model: MultiTaskModel, singles: Sequence[str]) -> list[str]:
    """How the repository is used without this package."""
    base = model.base["id"]
    if not is_adapter(model):
        return [
            "## Without nlp_mtl",
            "",
            "The root is the fully fine-tuned encoder, without heads:",
            "",
            "```python",
            "from transformers import AutoModel, AutoTokenizer",
            "",
            f'tokenizer = AutoTokenizer.from_pretrained("{PLACE}")',
            f'encoder = AutoModel.from_pretrained("{PLACE}")',
            "```",
            "",
            *_standing_on_it(model),
            "A single task with its head is a repository of its own: "
            "`nlp-mtl push RUN REPO --task TASK --as model` puts it there.",
            "",
        ]
    at = f', revision="{model.base["revision"]}"' if model.base.get("revision") else ""
    lines = ["## Without nlp_mtl", ""]
    lines += (
        []
        if owners_of(model.sharing.encoder) is not None
        else [
            "The root is the shared adapter, without heads:",
            "",
            "```python",
            "from peft import PeftModel",
            "from transformers import AutoModel",
            "",
            f'base = AutoModel.from_pretrained("{base}"{at}, dtype="float32")',
            f'encoder = PeftModel.from_pretrained(base, "{PLACE}")',
            "```",
            "",
        ]
    )
    if singles:
        lines += ["Every task lies in a folder of its name, as a PEFT adapter with its head:", ""]
    for task in singles:
        lines += _snippet(model, task, base, at)
    return lines


def _standing_on_it(model: MultiTaskModel) -> list[str]:
    """Where adapters were added to a fully fine-tuned encoder: whose they are, and how one is loaded."""
    owners = owners_of(model.sharing.encoder)
    if owners is None or not owners.adapters:
        return []
    first = owners.adapters[0]
    return [
        f"Adapters that were added to it lie in folders of their tasks ({', '.join(owners.adapters)}):",
        "",
        "```python",
        "from peft import PeftModel",
        "",
        f'encoder = PeftModel.from_pretrained(encoder, "{PLACE}", subfolder="{first}")',
        "```",
        "",
    ]


def _snippet(model: MultiTaskModel, task: str, base: str, at: str) -> list[str]:
    head = model.heads[task]
    said = head.config_changes()
    more = f", num_labels={said['num_labels']}" if "num_labels" in said else ""
    if head.auto_class == "AutoModelForMultipleChoice":
        more = ""
    if pad := getattr(model.config, "pad_token_id", None):
        more += f", pad_token_id={pad}"
    labels = f"  # {', '.join(head.labels[:8])}{', …' if len(head.labels) > 8 else ''}" if head.labels else ""
    piped = " and ".join({KINDS.get(head.task.head_name, head.task.head_name)}) if head.auto_class in TASK_TYPES else ""
    return [
        f"`{task}`" + (f" ({piped})" if piped else "") + ":",
        "",
        "```python",
        "from peft import PeftModel",
        f"from transformers import AutoTokenizer, {head.auto_class}",
        "",
        f'base = {head.auto_class}.from_pretrained("{base}"{at}{more}, dtype="float32"){labels}',
        f'model = PeftModel.from_pretrained(base, "{PLACE}", subfolder="{task}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{PLACE}")',
        "```",
        "",
    ]
