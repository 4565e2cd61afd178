"""The parts of RESULTS.md on adapters."""

from __future__ import annotations

import statistics
from pathlib import Path

from markdown import load, table


def adapters(recorded: Path) -> str:
    """The cost of one adapter per task."""
    found = load(recorded / "adapters_speed.json")
    if not found:
        return ""
    told = {"lora": "one shared", "task_lora": "one per task", "both": "one per task beside the shared one"}
    rows = [
        [
            str(one["batch"]),
            told[way],
            f"{one['median'][way]:.1f}",
            f"{over['median']} ({over['least']} to {over['most']})",
        ]
        for one in found["batches"]
        for way, over in one["ratio"].items()
    ]
    return (
        f"## One adapter per task\n\n`{found['command']}`\n\n{found['tasks']} tasks of four kinds in one mixed pass, "
        "LoRA r 8 on all linear layers; asked is at most 1.15 of one shared adapter.\n\n"
        + table(["rows a step", "adapters", "µs per token", "over one shared"], rows)
    )


def adapters_predict(recorded: Path) -> str:
    """The same cost at prediction."""
    found = load(recorded / "adapters_predict.json")
    if not found:
        return ""
    told = {"lora": "one shared", "task_lora": "one per task", "merged": "one per task, merged into one"}
    rows = []
    for name, over in found["over_shared"].items():
        way, alone, _ = name.partition(", ")
        rows.append(
            [
                name.split(", ")[1].removesuffix(" alone") if alone else f"all {len(found['tasks'])}",
                told[way],
                str(found["times_through_the_encoder"][name]),
                f"{found['texts_per_s'][name]:.0f}",
                f"{over['median']} ({over['least']} to {over['most']})",
            ]
        )
    head = ["tasks asked", "adapters", "times a text goes in", "texts/s", "time over one shared"]
    return (
        f"### At prediction\n\n`{found['command']}`\n\n`predict` of {', '.join(found['tasks'])}, which all read every "
        f"one of {found['texts']} real texts ({found['tokens']} tokens), {found['threads']} thread(s), "
        f"{found['rounds']} interleaved rounds. With one adapter per task a text is replicated for each adapter, "
        "inside one call and its packed passes.\n\n" + table(head, rows)
    )


def merging(recorded: Path) -> str:
    """Merged, joint, separate."""
    found = load(recorded / "merging.json")
    if not found or not found["seeds"]:
        return ""
    seeds = list(found["seeds"].values())
    told = {
        "separate": "separate: one LoRA per task",
        "joint": "joint: one LoRA, trained on all",
        "dropped": "no adapter, heads of separate",
    }
    rows = []
    for name in seeds[0]:
        each = [[100 * seed[name][task] for seed in seeds] for task in found["tasks"]]
        means = [statistics.mean(values) for values in zip(*each, strict=True)]
        rows.append([told.get(name, f"merged, {name}"), *map(_both, [*each, means])])
    said = found["settings"]
    return (
        f"### Merged, joint, separate\n\n`{found['command']}`\n\n{said['rows']} training rows a task, "
        f"{said['training']['num_train_epochs']} epochs, LoRA r {said['lora']['r']} on all linear layers, scores "
        f"(accuracy, accuracy, span F1, in hundredths) on {said['scored']} validation rows, of seeds "
        f"{' and '.join(found['seeds'])}: their mean, and each. `adapters merge` with the weights and rank it takes by "
        f"itself, density {said['density']} where a way prunes.\n\n" + table(["", *found["tasks"], "mean"], rows)
    )


def _both(values: list[float]) -> str:
    """The mean, and each value where there are several."""
    each = f" ({', '.join(f'{value:.1f}' for value in values)})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{each}"
