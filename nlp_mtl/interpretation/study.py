"""What a run's tasks look at, and where in the encoder they live. How alike their states are: `comparing.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.findings import Finding, Table, write_finding
from nlp_mtl.inputs import Input
from nlp_mtl.interpretation.attributions import Attribution, attributions
from nlp_mtl.interpretation.plot import draw_words
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.pulling import local_folder
from nlp_mtl.robustness.opening import open_run


def interpret(
    run: str | Path,
    value: Input,
    tasks: Sequence[str] | None = None,
    *,
    steps: int = 64,
    base: str | Path | None = None,
) -> tuple[list[Attribution], Finding]:
    """What each word of a text adds to each task's answer; writes the finding `interpretation` beside the run.

    Args:
        run: a run folder.
        value: a text, a pair, or a mapping of columns.
        tasks: names; default all that give labels or a value.
        steps, base: see :func:`nlp_mtl.interpretation.attributions.attributions` and
            :meth:`MultiTaskModel.from_pretrained`.

    Raises:
        ConfigError: tasks that the run does not have, or none that can be asked.
        UnsupportedError: captum is missing, or tasks do not share one encoder's embeddings.

    cost: `steps` forward and backward passes of the text for each task.
    """
    folder = local_folder(run)
    model = MultiTaskModel.from_pretrained(folder, base=base, tasks=tasks)
    found, notes = attributions(model, value, tasks, steps=steps)
    if not found:
        raise ConfigError(f"interpret: no task can be asked about this input: {'; '.join(notes)}")
    head = ("task", "answer", "logit", "delta", "speaks most for it", "speaks most against it")
    rows = []
    for one in found:
        order = np.argsort(one.values)
        named = [f"{one.words[i]} ({one.values[i]:+.2f})" for i in order]
        pro = [said for said, i in zip(named, order, strict=True) if one.values[i] > 0][::-1][:3]
        con = [said for said, i in zip(named, order, strict=True) if one.values[i] < 0][:3]
        rows.append(
            (
                one.task,
                one.label,
                f"{one.output:+.3f}",
                f"{one.delta:+.4f}",
                ", ".join(pro) or "—",
                ", ".join(con) or "—",
            )
        )
    worst = max(found, key=lambda one: abs(one.delta))
    said = [
        f"What each word adds to {len(found)} tasks' answers about one text, by integrated gradients of {steps} steps.",
        f"The values add up to the difference from padding within {abs(worst.delta):.4f} ({worst.task}).",
        *notes,
    ]
    data = {"tasks": [vars(one) for one in found], "steps": steps, "notes": notes}
    made = Finding(
        "interpretation", "What tasks look at", said, [Table("", head, rows)], [draw_words(found).drawing()], data
    )
    write_finding(folder, made)
    return found, made


def probe_run(
    run: str | Path,
    tasks: Sequence[str] | None = None,
    *,
    rows: int = 500,
    seed: int = 0,
    data_root: str | Path | None = None,
    base: str | Path | None = None,
    progress: bool = False,
) -> Finding:
    """Linear probes of a run's own encoder at every layer, for each task; writes the finding `probes`.

    Args:
        run: a run folder.
        tasks: names; default all that give one label to what they read.
        rows, seed, data_root, base, progress: see :func:`nlp_mtl.interpretation.comparing.compare_states`.

    Raises:
        UnsupportedError: tasks that do not share one encoder, or none that can be probed.

    Relations: `nlp-mtl probe` does so with a pretrained encoder.
    """
    from nlp_mtl.probing.features import features_of
    from nlp_mtl.probing.sparse import probes

    folder, model, data = open_run(
        "interpret", run, tasks, split="train", rows=rows, seed=seed, data_root=data_root, base=base
    )
    if not model.sharing.ordinary:
        raise UnsupportedError(
            "interpret: --probes looks at one encoder that all tasks share; leave it out for this run"
        )
    found, notes = {}, []
    for task, head in tqdm(data.heads.items(), desc="probes", unit="task", disable=not progress, leave=False):
        if hasattr(head, "pooling"):
            head.pooling = "mean"
        try:
            train = features_of(model, data, task, "train", most=rows, seed=seed)
            test = features_of(model, data, task, "validation", most=rows, seed=seed)
        except UnsupportedError as error:
            notes.append(f"{task} is left out: {error}.")
            continue
        if train is None or test is None or len(set(train.groups.tolist())) < 4:
            notes.append(f"{task} is left out: it has too few labelled rows.")
            continue
        found[task] = probes(train, test, [0], numbers=train.labels.dtype.kind == "f", seed=seed)
    if not found:
        raise UnsupportedError("interpret: --probes: no task can be probed: " + "; ".join(notes))
    layers = sorted({one.layer for each in found.values() for one in each})
    scores = {task: {one.layer: one.score for one in each} for task, each in found.items()}
    best = {task: max(each, key=lambda layer: each[layer] or -1) for task, each in scores.items()}
    made = Finding(
        "probes",
        "Where tasks live in the encoder",
        [f"{task}: a linear probe reads most after layer {layer}." for task, layer in best.items()] + notes,
        [
            Table(
                "Validation score of a linear probe after each layer",
                ("task", *map(str, layers)),
                [
                    (task, *("—" if each.get(n) is None else f"{each[n]:.3f}" for n in layers))
                    for task, each in scores.items()
                ],
            )
        ],
        (),
        {"scores": {task: {str(n): value for n, value in each.items()} for task, each in scores.items()}, "best": best},
    )
    write_finding(folder, made)
    return made
