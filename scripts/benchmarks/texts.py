"""Record a run that translates: scores at each evaluation, and what it writes for the task's own examples.

nlp-mtl train scripts/runs/multi30k_ner.yaml --data-root DIR
python scripts/benchmarks/texts.py runs/multi30k_ner
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

RECORDED = Path(__file__).parent / "recorded"


def record(run: Path, task: str) -> dict:
    """What is kept of a run: its command, its scores by step and at the end, and examples."""
    from nlp_mtl import predict
    from nlp_mtl.checkpoint import checkpoints
    from nlp_mtl.model import MultiTaskModel
    from nlp_mtl.tasks import task_registry

    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    states = [folder / "trainer_state.json" for folder in checkpoints(run)]
    log = json.loads(states[-1].read_text(encoding="utf-8"))["log_history"]
    steps = {
        entry["step"]: {key.removeprefix("eval_"): value for key, value in entry.items() if _first(key, metrics)}
        for entry in log
        if any(key.startswith("eval_") for key in entry)
    }
    model = MultiTaskModel.from_pretrained(run)
    said = task_registry().tasks[task]  # its examples are ours, and no rows of the data
    column, target = said.inputs[0], said.target
    answers = predict(model, [{column: row[column]} for row in said.examples], tasks=[task])
    shown = [
        [row[column], answer[task]["text"], row[target]] for row, answer in zip(said.examples, answers, strict=True)
    ]
    kept = {key: metrics[key] for key in ("validation", "trivial", "training_seconds") if key in metrics}
    return {
        "command": f"nlp-mtl train scripts/runs/{run.name}.yaml --data-root DIR",
        "steps": steps,
        **kept,
        "examples": shown,
    }


def _first(key: str, metrics: dict) -> bool:
    return any(key == f"eval_{task}_{said['metric']}" for task, said in metrics["first"].items())


def texts(recorded: Path) -> str:
    """The page's part."""
    from render import load, table

    parts = []
    for name, title in (
        ("multi30k_ner", "Translation and NER on one encoder (multi30k, English to German, beside CoNLL-2003)"),
        ("five_kinds", "Sentiment, NER, intent, translation and similarity from one encoder"),
    ):
        found = load(recorded / f"{name}.json")
        if not found:
            continue
        columns = list(next(iter(found["steps"].values())))
        rows = [[step, *(f"{scores[key]:.3f}" for key in columns)] for step, scores in found["steps"].items()]
        firsts = {task: next(iter(scores)) for task, scores in found["trivial"].items()}
        trivial = {f"{task}_{metric}": found["trivial"][task][metric] for task, metric in firsts.items()}
        rows.append(["trivial", *(f"{trivial[key]:.3f}" if key in trivial else "" for key in columns)])
        took = f" ({found['training_seconds'] / 60:.0f} minutes)" if "training_seconds" in found else ""
        said = f"## {title}\n\n`{found['command']}`{took}\n\n{found.get('note', '')}\n\n" + table(
            ["step", *columns], rows
        )
        if found.get("examples"):
            said += "\n\n" + table(["input", "written", "true"], [list(row) for row in found["examples"]])
        parts.append(said.replace("\n\n\n\n", "\n\n"))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--task", default="multi30k_en_de")
    parser.add_argument("--note", default="")
    given = parser.parse_args()
    found = record(given.run, given.task)
    if given.note:
        found["note"] = given.note
    file = RECORDED / f"{given.run.name}.json"
    file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(file)


if __name__ == "__main__":
    main()
