"""Affinities and groups whose answer is known before: real data, seeds 0 to 2, set before anything was looked at.

    python scripts/benchmarks/known_affinity.py --data-root DIR [--model FOLDER]     recorded/known_affinity.json

MRPC, a copy of it under another name, RTE, STS-B, and MRPC with its labels dealt anew. The copy must be near 1 to MRPC;
the shuffled task must be near 0 to all others, score no better than guessing, and be put apart by the grouping.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from verify import RECORDED, data_root, model_folder

import nlp_mtl as mtl
from nlp_mtl.tasks import load_tasks
from nlp_mtl.transferring.affinities import affinity

ROWS = {"train": 600, "validation": 300}


def main() -> int:
    """Measure, group, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--model", default=None)
    given = parser.parse_args()
    began, root = time.perf_counter(), str(data_root(given.data_root))
    model = given.model or str(model_folder())
    mrpc = load_tasks(["mrpc"])[0]
    shuffled = [{"name": "shuffle_labels", "column": "label"}]
    tasks = [
        {"name": "mrpc", "rows": ROWS},
        mrpc.with_(name="mrpc_again", rows=ROWS),
        {"name": "rte", "rows": ROWS},
        {"name": "stsb", "rows": ROWS},
        mrpc.with_(name="mrpc_shuffled", prepare=shuffled, rows=ROWS),
    ]
    found: dict[str, list] = {}
    groups = []
    for seed in range(3):
        known = affinity(
            model, tasks, evidence=["gradient_cosine", "gradient_affinity"], rows=600, data_root=root, seed=seed
        )
        for measure, one in known.items():
            found.setdefault(measure, []).append(one.symmetric().round(4).tolist())
        proposed = mtl.propose_groups(known["gradient_cosine"], 2)
        groups.append([list(group.tasks) for group in proposed.groups])
        print(seed, known["gradient_cosine"].values.round(2).tolist(), groups[-1], flush=True)
    scored = mtl.transferability(model, tasks, rows=600, data_root=root, out=None, evidence=[])
    said = {
        "tasks": [getattr(task, "name", None) or task["name"] for task in tasks],
        "affinity": {measure: np.mean(values, 0).round(3).tolist() for measure, values in found.items()},
        "each_seed": found,
        "groups": groups,
        "scores": scored.table() if hasattr(scored, "table") else None,
        "seconds": round(time.perf_counter() - began, 1),
    }
    (RECORDED / "known_affinity.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(said["affinity"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
