"""The parts of RESULTS.md on how tasks share."""

from __future__ import annotations

from pathlib import Path

from markdown import load, table


def sharing_speed(recorded: Path) -> str:
    """A step of each scheme beside hard sharing."""
    found = load(recorded / "sharing_speed.json")
    if not found:
        return ""
    rows = [
        [
            tuning,
            name,
            f"{one['median'][name]:.1f}",
            f"{over['median']} ({over['least']} to {over['most']})",
        ]
        for tuning, one in found["settings"].items()
        for name, over in one["ratio"].items()
    ]
    return (
        f"## The cost of a sharing\n\n`{found['command']}`\n\nFive tasks, 32 rows a step, LoRA r 8 on all linear "
        "layers or full fine-tuning.\n\n" + table(["tuning", "sharing", "µs per token", "over hard"], rows)
    )


def sharings_compared(recorded: Path) -> str:
    """All schemes over seeds."""
    file = recorded / "sharing.md"
    if not file.exists():
        return ""
    return (
        "## Sharings compared\n\n`nlp-mtl compare scripts/studies/sharing.yaml data_root=DIR`\n\n"
        + file.read_text(encoding="utf-8").strip()
    )
