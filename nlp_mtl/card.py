"""Model cards: of a run folder, and, finished with scores and the repository's name, of what is pushed to the Hub."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nlp_mtl.dataspec import LOCAL_FORMATS, MEMORY, TASKS

KINDS = {  # kind of head → the Hub's name of the task
    "sequence_classification": "text-classification",
    "regression": "text-classification",
    "multi_label": "text-classification",
    "token_classification": "token-classification",
    "multiple_choice": "multiple-choice",
    "question_answering": "question-answering",
    "masked_lm": "fill-mask",
    "seq2seq": "text2text-generation",
}
PLACE = "this/folder"  # stands in a card for where the model is, until that is known


def needs_base(spec: Mapping[str, Any]) -> bool:
    """Whether a run is a LoRA, nothing without its base; one that stands on an encoder trained before holds all.

    Args:
        spec: what ``nlp_mtl.json`` says.

    Example:
        >>> needs_base({"strategies": {"lora": True}})
        True
        >>> needs_base({"strategies": {"lora": True, "adapters": {"own_encoder": True}}})
        False
    """
    strategies = spec["strategies"]
    held = (strategies.get("adapters") or {}).get("own_encoder") or spec.get("base", {}).get("own")
    return bool(strategies.get("lora")) and not held


def card(spec: Mapping[str, Any]) -> str:
    """What stands in a run folder's README.md; :func:`finished` makes the card of a repository from it.

    Args:
        spec: what ``nlp_mtl.json`` says.
    """
    lora = needs_base(spec)
    apart = bool(spec["strategies"].get("adapters"))
    names = [task["name"] for task in spec["tasks"]]
    kind = "adapter" if lora else "encoder"
    known = spec["base"]["id"] != "none"
    lines = [
        "---",
        f"library_name: {'peft' if lora else 'transformers'}",
        *([f"base_model: {spec['base']['id']}"] if known else []),
        f"base_model_relation: {'adapter' if lora else 'finetune'}",
        "tags: [nlp-mtl, multi-task]",
        "---",
        "",
        f"# One {kind} for {len(names)} task{'s' if len(names) > 1 else ''}",
        "",
        f"Trained with nlp_mtl on {', '.join(names)}" + (f", from `{spec['base']['id']}`." if known else "."),
        "",
        "## With nlp_mtl",
        "",
        "```python",
        "import nlp_mtl as mtl",
        "",
        f'model = mtl.MultiTaskModel.from_pretrained("{PLACE}")',
        'print(mtl.predict(model, "A text."))  # every task that can read it' + ("" if apart else ", one encoder pass"),
        "```",
        "",
    ]
    return "\n".join(lines)


def finished(
    text: str,
    tasks: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    repo: str,
    *,
    spec: Mapping[str, Any] | None = None,
    more: Sequence[str] = (),
    license_: str | None = None,
) -> str:
    """A repository's card: a run's or an export's, with data, scores, set-up, transfer and energy.

    Args:
        text: the card of :func:`card` or of an export.
        tasks: the specs of the tasks that are in the repository.
        facts: what is known of the run; see :func:`nlp_mtl.hub.facts.facts_of`.
        repo: the repository's id.
        spec: what ``nlp_mtl.json`` says, for strategies and versions.
        more: lines after the first sections, e.g. how single tasks are loaded.
        license_: of the model, as the Hub names it.
    """
    from huggingface_hub import ModelCard

    made = ModelCard(text.replace(PLACE, repo), ignore_metadata_errors=False)
    data: Any = made.data
    scores = facts.get("scores", {}).get("validation", {})
    data.model_name = repo.rpartition("/")[2]
    data.eval_results = [result for task in tasks for result in _results(task, scores.get(task["name"], {}))] or None
    if data.eval_results is None:
        data.model_name = None
    data.datasets = sorted({name for task in tasks if (name := _hub_id(task))}) or None
    data.language = sorted({task.get("language", "en") for task in tasks})
    if license_:
        data.license = license_
    if emissions := facts.get("emissions"):
        data.co2_eq_emissions = {
            "emissions": round(emissions["emissions"] * 1000, 3),  # codecarbon counts kilograms, the Hub grams
            "source": "codecarbon",
            "training_type": "fine-tuning",
            **({"geographical_location": emissions["country_name"]} if "country_name" in emissions else {}),
            **({"hardware_used": hardware} if (hardware := _hardware(emissions)) else {}),
        }
    body = [made.text.strip(), "", *more, *_data(tasks), *_table(tasks, facts), *_transfer(facts)]
    body += [*_set_up(spec, facts), *_energy(facts)]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(body).strip() + "\n"


def _hub_id(task: Mapping[str, Any]) -> str | None:
    path = task["dataset"]["path"]
    return None if path in LOCAL_FORMATS or path in (MEMORY, TASKS) else path


def _results(task: Mapping[str, Any], scores: Mapping[str, Any]) -> list[Any]:
    """A task's scores as the Hub's evaluation results; numbers that are none are left out."""
    from huggingface_hub import EvalResult

    spec, kind = task["dataset"], task["head"] if isinstance(task["head"], str) else task["head"]["name"]
    hub = _hub_id(task)
    split = task.get("splits", {}).get("validation", "validation")
    return [
        EvalResult(
            task_type=KINDS.get(kind, "text-classification"),
            task_name=task["name"],
            dataset_type=hub or task["name"],
            dataset_name=f"{hub} {spec.get('name') or ''}".strip() if hub else task["name"],
            dataset_config=spec.get("name") if hub else None,
            dataset_revision=spec.get("revision") if hub else None,
            dataset_split=split if isinstance(split, str) else "validation",
            metric_type=name,
            metric_name=name,
            metric_value=round(float(value), 6),
        )
        for name, value in scores.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    ]


def _data(tasks: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["## Tasks and data", "", "| task | head | data | licence of the data |", "|---|---|---|---|"]
    for task in tasks:
        spec = task["dataset"]
        if hub := _hub_id(task):
            where = f"[{hub}](https://huggingface.co/datasets/{hub})" + (
                f" `{spec['name']}`" if spec.get("name") else ""
            )
        else:
            where = f"package {spec['package']}" if spec.get("package") else "own data, not passed on"
        kind = task["head"] if isinstance(task["head"], str) else task["head"]["name"]
        licence = task.get("license") or "not said"
        lines.append(f"| {task['name']} | {kind.replace('_', ' ')} | {where} | {licence} |")
    cited = [f"- {task['name']}: {task['citation']}" for task in tasks if task.get("citation")]
    return [*lines, "", *([*cited, ""] if cited else [])]


def _table(tasks: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> list[str]:
    known = facts.get("scores", {})
    scores, trivial = known.get("validation", {}), known.get("trivial", {})
    rows = []
    for task in tasks:
        for name, value in scores.get(task["name"], {}).items():
            if not isinstance(value, (int, float)):
                continue
            least = trivial.get(task["name"], {}).get(name)
            shown = f"{least:.4f}" if isinstance(least, (int, float)) else "—"
            rows.append((task["name"], name, f"{value:.4f}", shown))
    if not rows:
        return []
    lines = ["## Scores", "", "On the validation rows, from which the best step was chosen.", ""]
    lines += ["| task | metric | score | trivial baseline |", "|---|---|---|---|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def _transfer(facts: Mapping[str, Any]) -> list[str]:
    said = facts.get("negative_transfer") or {}
    found = {}
    for task, value in said.items():
        number = value.get("difference") if isinstance(value, Mapping) else value
        if isinstance(number, (int, float)) and number < 0:
            found[task] = number
    if not said:
        return []
    lines = ["## Transfer between the tasks", ""]
    if not found:
        return [*lines, "No task is worse than trained alone.", ""]
    lines += ["Trained together, these tasks are worse than alone (negative transfer):", ""]
    return [*lines, *(f"- {task}: {number:+.4f}" for task, number in found.items()), ""]


def _set_up(spec: Mapping[str, Any] | None, facts: Mapping[str, Any]) -> list[str]:
    lines = ["## Training", ""]
    if spec is not None:
        for key in ("sharing", "balancer", "sampler", "regularizers", "distillation", "tuning", "precision"):
            if spec["strategies"].get(key):
                lines.append(f"- {key}: `{_short(spec['strategies'][key])}`")
    if lora := facts.get("lora"):
        numbers = ", ".join(f"{key} {value}" for key, value in lora.items() if key != "layers")
        lines.append(f"- LoRA: {numbers}; on {', '.join(f'`{name}`' for name in lora['layers'])}")
    lines += [f"- {key}: `{_short(value)}`" for key, value in facts.get("training", {}).items()]
    if seconds := facts.get("scores", {}).get("training_seconds"):
        lines.append(f"- training took {seconds:.0f} s")
    if spec is not None and spec.get("libraries"):
        lines.append("- versions: " + ", ".join(f"{name} {version}" for name, version in spec["libraries"].items()))
    return [*lines, ""] if len(lines) > 2 else []


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and set(value) == {"name"}:
        return str(value["name"])
    return str(value)


def _hardware(emissions: Mapping[str, Any]) -> str:
    return ", ".join(emissions[key] for key in ("gpu_model", "cpu_model") if key in emissions)


def _energy(facts: Mapping[str, Any]) -> list[str]:
    known = facts.get("emissions")
    if not known:
        return []
    said = [f"{known['emissions'] * 1000:.3g} g CO2-equivalent"]
    said += [f"{known['energy_consumed']:.3g} kWh"] if "energy_consumed" in known else []
    said += [f"in {known['duration']:.0f} s"] if "duration" in known else []
    where = [known["country_name"]] if "country_name" in known else []
    where += [_hardware(known)] if _hardware(known) else []
    return ["## Environment", "", f"{', '.join(said)} ({'; '.join([*where, 'measured by codecarbon'])}).", ""]
