"""Where the time of training steps goes, by operation: the same table for ours and for a rival."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from racing import Contender, Failed, environment

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::_addmm_activation", "aten::mkldnn_linear")
SKIPPED = 4  # steps of each training before the profiler looks


def profile(contender: Contender, *, top: int = 15) -> dict[str, Any]:
    """Run a contender under `torch.profiler`, print and return its table.

    Returns:
        ``steps``, ``step_ms``, ``in_products``, the share of the time that is in matrix products, and ``operations``:
        [name, calls per step, milliseconds per step, share], the longest first.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "timed.json"
        command = contender.command(out, "--profile", str(SKIPPED))
        done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
        if done.returncode or not out.is_file():
            raise Failed(f"{contender.name}: {' '.join(command)}\n{done.stderr[-2000:]}")
        found = table(json.loads(out.read_text(encoding="utf-8")), top=top)
    print(f"\n{contender.name}: {found['step_ms']} ms a step, {100 * found['in_products']:.0f} % in matrix products")
    for name, calls, milliseconds, part in found["operations"]:
        print(f"  {name[:60]:60} {calls:8.1f} × {milliseconds:8.2f} ms {100 * part:5.1f} %")
    return found


def table(timed: dict[str, Any], *, top: int) -> dict[str, Any]:
    """What timed.py wrote, per step."""
    seen: dict[float, int] = {}
    steps = 0
    for step in timed["steps"]:
        seen[step[0]] = seen.get(step[0], 0) + 1
        steps += seen[step[0]] > SKIPPED
    operations = timed["operations"]
    total = sum(seconds for _, seconds in operations.values())
    rows = sorted(operations.items(), key=lambda item: -item[1][1])
    return {
        "steps": steps,
        "step_ms": round(1000 * total / steps, 1),
        "in_products": round(sum(seconds for name, (_, seconds) in rows if name in PRODUCTS) / total, 3),
        "operations": [
            [name, round(calls / steps, 1), round(1000 * seconds / steps, 2), round(seconds / total, 4)]
            for name, (calls, seconds) in rows[:top]
        ],
    }
