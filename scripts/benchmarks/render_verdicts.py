"""The parts of RESULTS.md on verdicts: how often they are wrong, and those whose answer was known."""

from __future__ import annotations

from pathlib import Path

from markdown import load, table

_SAID = {
    "copies": "One task under two names, with a head each: no negative transfer may be found.",
    "tiny": "200 rows of MRPC beside 800 of RTE and 800 of STS-B, three epochs.",
    "shuffled": "MRPC beside a task of the same texts with labels dealt anew, 400 rows each: it may not help.",
    "six": "Six tasks in one run, 400 training rows each, four epochs, the best step by validation rows.",
}


def false_alarms(recorded: Path) -> str:
    """Wrong verdicts, and differences that were found."""
    found = load(recorded / "verdicts.json")
    if not found:
        return ""
    wrong, rows = found["false_alarms"], found["power"]
    sizes = sorted({one["rows"] for one in rows})
    seeds = sorted({one["seeds"] for one in rows})
    share = {(one["seeds"], one["rows"]): f"{one['found']:.0%} of {one['comparisons']}" for one in rows}
    low, high = wrong["interval"]
    names, points = found["settings"]["tasks"], 100 * found["settings"]["points"]
    return "\n\n".join(
        [
            "## How often a verdict is wrong",
            "`python scripts/benchmarks/false_alarms.py --data-root DIR`",
            f"{wrong['comparisons']} comparisons of a way with itself, 3 seeds against 3 others, on {len(names)} tasks "
            f"({', '.join(names)}; heads on features of the frozen encoder): {wrong['called']} are called helped or "
            f"hurt, {wrong['share']:.1%} (exact 95 % interval {low:.1%} to {high:.1%}; asked is at most 5 %). After "
            f"Holm's correction over the ten tasks, as verdicts are given, {wrong['called_after_holm']} are. An "
            f"interval over rows alone would have called {wrong['called_by_rows_alone']}, a t-test over seeds alone "
            f"{wrong['called_by_a_t_test_over_seeds']}.",
            f"The share of differences of {points:.0f} points that are found, where they are there:",
            table(
                ["seeds", *(f"{size} rows" for size in sizes)],
                [[str(count), *(share.get((count, size), "—") for size in sizes)] for count in seeds],
            ),
            "With three seeds and a few hundred rows, most differences of this size are missed: no difference "
            "shown is not the same as no difference.",
        ]
    )


def known_verdicts(recorded: Path) -> str:
    """Verdicts whose answer was known before, and one of six tasks."""
    found = load(recorded / "known_verdicts.json")
    if not found:
        return ""
    parts = ["## Verdicts\n\n`python scripts/benchmarks/known_verdicts.py --data-root DIR`, MiniLM-L6, seeds 0 to 2"]
    for name, said in found.items():
        rows = said["table"]
        keep = [key for key in rows[0] if key != "this run (95 % over rows)"]
        parts.append(f"**{name}.** {_SAID[name]}\n\n" + table(keep, [[row[key] for key in keep] for row in rows]))
        delta, cost = said["delta_m"], said["cost"]
        words = [f"Δm {delta['mean']:+.1f} % ± {delta['half']:.1f}."] if delta and delta["half"] is not None else []
        if cost["together"] and cost["alone"]:
            words.append(
                f"One model took {cost['together']['seconds']:.0f} s of training, the tasks alone "
                f"{cost['alone']['seconds']:.0f} s, beside other work."
            )
        words += said["advice"]
        words.append(f"With all runs done, verdict, summaries and page took {said['report_seconds']} s.")
        parts.append(" ".join(words))
        if "followed" in said:
            parts += _followed(said["followed"])
    return "\n\n".join(parts)


def _followed(said: dict) -> list[str]:
    """Whether what was advised on validation rows helped on test rows."""
    rows = said["table"]
    keep = ["task", "metric", "together", "alone", "difference", "verdict"]
    words = []
    for name in ("as advised", "by the better mean"):
        one = said[name]
        alone = ", ".join(one["alone"]) or "none"
        against = "; ".join(f"{value} against {other}" for other, value in one["against"].items())
        words.append(f"{name.capitalize()} ({alone} alone, the rest together): {against}")
    return [
        "The same models on test rows, which no verdict and no best step looked at:",
        table(keep, [[row[key] for key in keep] for row in rows]),
        "The mean over tasks on test rows. " + ". ".join(words) + ".",
    ]


def known_affinity(recorded: Path) -> str:
    """Affinities and groups whose answer was known before."""
    found = load(recorded / "known_affinity.json")
    if not found:
        return ""
    tasks, parts = found["tasks"], ["## Affinities whose answer is known"]
    parts.append(
        "`python scripts/benchmarks/known_affinity.py --data-root DIR`, MiniLM-L6, 600 rows a task, seeds 0 to 2"
    )
    for measure, values in found["affinity"].items():
        rows = [[task, *(f"{value:+.2f}" for value in row)] for task, row in zip(tasks, values, strict=True)]
        parts.append(f"`{measure}`, the mean over seeds:\n\n" + table(["", *tasks], rows))
    groups = "; ".join(" and ".join(f"{{{', '.join(group)}}}" for group in one) for one in found["groups"])
    parts.append(
        "`mrpc_again` is MRPC under another name; `mrpc_shuffled` has its labels dealt anew. Groups for two encoders, "
        f"seed by seed: {groups}. The shuffled task is never with MRPC; RTE, which nothing here is expected to "
        "help, may stand with it where there are two encoders."
    )
    return "\n\n".join(parts)
