"""The parts of RESULTS.md on transfer."""

from __future__ import annotations

from pathlib import Path

from markdown import load, table


def probing(recorded: Path) -> str:
    """Heads trained on kept features."""
    found = load(recorded / "probe_speed.json")
    if not found:
        return ""
    rows = [[way, *(f"{seconds:.2f}" for seconds in epochs)] for way, epochs in found["epoch_s"].items()]
    names = [f"epoch {number + 1}, s" for number in range(len(found["epoch_s"]["frozen"]))]
    return (
        f"## Heads on a frozen encoder\n\n`{found['command']}`\n\n{len(found['tasks'])} tasks "
        f"({', '.join(found['tasks'])}). An epoch on kept features is {found['ratio']} times as fast as one that runs "
        f"the frozen encoder (median of all but the first, in which features are made); all epochs together "
        f"{found['whole_ratio']} times. The scores of both are {found['scores_apart']:.0e} apart at most; asked is 20 "
        "times, and 1e-4.\n\n" + table(["", *names], rows)
    )


def studies(recorded: Path) -> list[str]:
    """Studies whose table and words were written by hand from what the study's command left."""
    known = (
        ("intermediate", "Intermediate training", "nlp-mtl compare scripts/studies/intermediate.yaml"),
        ("mtdnn", "Together, then alone", "nlp-mtl compare scripts/studies/mtdnn.yaml"),
        ("domains", "From books to DVDs", "nlp-mtl compare scripts/studies/domains.yaml"),
        ("continual", "One task after the other", "nlp-mtl continual scripts/studies/continual.yaml"),
        ("adversarial", "Adversarial training", "nlp-mtl compare scripts/studies/adversarial.yaml"),
    )
    files = [(recorded / f"{name}.md", title, command) for name, title, command in known]
    return [
        f"## {title}\n\n`{command} data_root=DIR`\n\n{file.read_text(encoding='utf-8').strip()}"
        for file, title, command in files
        if file.exists()
    ]
