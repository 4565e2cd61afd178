"""How often a verdict is wrong where nothing differs but seeds, and how often it sees a difference that is there.

    python scripts/benchmarks/false_alarms.py --data-root DIR [--model FOLDER]     some minutes; recorded/verdicts.json

Heads (one hidden layer with dropout) are trained on features of a frozen encoder, which are computed once: cheap, but
real tasks, real rows, and seeds that decide where a head begins, what it drops and in which order it sees rows.

* False alarms: for each task, groups of 3 seeds against 3 other seeds of the same way. All verdicts but "no difference
  shown" are wrong. Of 5 % each, and of none after Holm's correction over the tasks of a "run", more would be too many.
* Power: the same, but one side has some of its wrong answers put right, by chance, so that its expected accuracy is
  3 points up; with 3, 5 and 10 seeds and 200 to 2000 validation rows.

The seeds are 0 and up, set here before anything was looked at.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import nn
from verify import RECORDED, data_root, model_folder

from nlp_mtl.data import load_data
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.probing.features import Features, features_of
from nlp_mtl.verdicts.judging import difference, holm
from nlp_mtl.verdicts.rowstats import RowScore, row_score

TASKS = {  # first metrics, as their task files have them
    "cola": "matthews_correlation",
    "sst2": "accuracy",
    "mrpc": "f1",
    "stsb": "pearson",
    "rte": "accuracy",
    "trec": "accuracy",
    "sst5": "accuracy",
    "banking77": "accuracy",
    "tweet_irony": "f1",
    "multi_domain_books": "accuracy",
}
ROWS, COMPARISONS, SEEDS, POINTS = 600, 12, 3, 0.03


def main() -> int:
    """Train, judge, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--model", default=None)
    given = parser.parse_args()
    began = time.perf_counter()
    data, model = str(data_root(given.data_root)), given.model or str(model_folder())
    made = MultiTaskModel.from_base(model, list(TASKS), freeze="*", data_root=data, max_length=64)
    rows = load_data(made.heads, made.tokenizer, max_length=made.max_length, data_root=data)
    sides: dict[str, list[list[float]]] = {}
    truth: dict[str, list[float]] = {}
    names: dict[str, list[str] | None] = {}
    for task in TASKS:
        train = features_of(made, rows, task, "train", most=ROWS)
        test = features_of(made, rows, task, "validation", most=2000)
        assert train is not None and test is not None
        truth[task], names[task] = test.labels.tolist(), made.heads[task].labels
        sides[task] = [answers(train, test, seed) for seed in range(COMPARISONS * SEEDS * 2)]
        scores = [score(task, said, truth[task], names[task]).value for said in sides[task]]
        print(f"{task}: {np.mean(scores):.3f}, over seeds {np.std(scores):.3f}, {len(truth[task])} rows", flush=True)
    found = {"false_alarms": alarms(sides, truth, names), "power": power(sides, truth)}
    found["seconds"] = round(time.perf_counter() - began, 1)
    found["settings"] = {"train_rows": ROWS, "tasks": list(TASKS), "points": POINTS, "model": Path(model).name}
    (RECORDED / "verdicts.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    return 0


def answers(train: Features, test: Features, seed: int) -> list[float]:
    """What a head with this seed says of the validation rows."""
    torch.manual_seed(seed)
    layer = max(train.layers)
    mean, spread = train.layers[layer].mean(0), train.layers[layer].std(0) + 1e-6
    x, y = (torch.tensor((side.layers[layer] - mean) / spread) for side in (train, test))
    numbers = train.labels.dtype.kind == "f"
    labels = torch.tensor(train.labels)
    classes = 1 if numbers else int(labels.max()) + 1
    head = nn.Sequential(nn.Dropout(0.2), nn.Linear(x.shape[1], 64), nn.GELU(), nn.Dropout(0.2), nn.Linear(64, classes))
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.01)
    for _ in range(12):
        for part in torch.randperm(len(x)).split(32):
            out = head(x[part])
            loss = (
                nn.functional.mse_loss(out[:, 0], labels[part].float())
                if numbers
                else nn.functional.cross_entropy(out, labels[part].long())
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    head.eval()
    with torch.inference_mode():
        out = head(y)
    return (out[:, 0] if numbers else out.argmax(1)).tolist()


def score(task: str, said: list[float], truth: list[float], labels: list[str] | None) -> RowScore:
    """A task's score of some answers."""
    return row_score(TASKS[task], said, truth, labels=labels)


def alarms(sides: dict[str, list[list[float]]], truth: dict, names: dict) -> dict[str, object]:
    """Comparisons of a way with itself."""
    p: list[dict[str, float]] = []
    seeds_only = rows_only = 0
    for number in range(COMPARISONS):
        own: dict[str, float] = {}
        for task, said in sides.items():
            group = said[number * 2 * SEEDS : (number + 1) * 2 * SEEDS]
            scores = [score(task, one, truth[task], names[task]) for one in group]
            found = difference(scores[:SEEDS], scores[SEEDS:])
            own[task] = found.p
            seeds_only += bool(stats.ttest_1samp(found.each, 0).pvalue < 0.05) if np.std(found.each) else 0
            rows_only += abs(found.mean) > found.rows_half
        p.append(own)
    total = sum(len(own) for own in p)
    called = sum(value < 0.05 for own in p for value in own.values())
    after = sum(value < 0.05 for own in p for value in holm(own).values())
    low, high = stats.binomtest(called, total).proportion_ci(method="exact")
    return {
        "comparisons": total,
        "called": called,
        "share": called / total,
        "interval": [low, high],
        "called_after_holm": after,
        "called_by_a_t_test_over_seeds": seeds_only,
        "called_by_rows_alone": rows_only,
    }


def power(sides: dict[str, list[list[float]]], truth: dict) -> list[dict[str, object]]:
    """Comparisons with a side that is truly better."""
    found = []
    tasks = [task for task in TASKS if TASKS[task] == "accuracy"]
    for seeds in (3, 5, 10):
        for rows in (200, 500, 1000, 2000):
            called = total = 0
            draw = np.random.default_rng(0)
            for task in tasks:
                right = np.array([np.equal(said, truth[task]) for said in sides[task]])
                if right.shape[1] < rows:
                    continue
                q = POINTS / (1 - right.mean())
                for number in range(len(right) // (2 * seeds)):
                    some = draw.permutation(right.shape[1])[:rows]
                    group = right[number * 2 * seeds : (number + 1) * 2 * seeds, some]
                    up = group[:seeds] | (draw.random((seeds, rows)) < q)
                    ours, theirs = (
                        [row_score("accuracy", one.astype(int).tolist(), [1] * rows) for one in side]
                        for side in (up, group[seeds:])
                    )
                    one = difference(ours, theirs)
                    called, total = called + (one.p < 0.05 and one.mean > 0), total + 1
            if total:
                found.append({"seeds": seeds, "rows": rows, "comparisons": total, "found": called / total})
    return found


if __name__ == "__main__":
    raise SystemExit(main())
