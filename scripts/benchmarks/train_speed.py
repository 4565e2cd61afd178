"""Training speed beside rivals: all on the same rows, in one go, interleaved, several rounds; medians and ratios.

    python scripts/benchmarks/train_speed.py --data-root DIR --model FOLDER --peers DIR [--rounds 3] [--rows 640]
        [--tasknet PYTHON]      a Python in which tasknet is installed; left out, its row is named as not run

Speed is real (unpadded) tokens per second of the training loop. One more figure puts it beside the machine: the
share of the bf16 matrix peak, (forward + backward matrix FLOPs of the encoder) / seconds / peak, where the peak is
measured in the same run on the encoder's own shapes. FLOPs per token are 6 × the weights of linear layers (with
LoRA 4 ×, as their weight gradients are not computed); attention's own products are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BEST = {"bf16": True, "train_sampling_strategy": "group_by_length"}


def main() -> None:
    """Run all in turn, print a table, write recorded/train_speed.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--peers", required=True)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasknet", default=None)
    given = parser.parse_args()
    data, base, rows = str(Path(given.data_root).resolve()), str(Path(given.model).resolve()), str(given.rows)
    peers = Path(given.peers).resolve()
    plain = [sys.executable, str(peers / "plain_trainer.py"), data, base, rows]
    commands = {
        "nlp_mtl, full": [sys.executable, str(HERE / "ours.py"), data, base, rows],
        "plain Trainer, bf16, length grouping": [*plain, json.dumps(BEST)],
        "plain Trainer, the same with eager attention": [*plain, json.dumps(BEST), '{"attn_implementation": "eager"}'],
        "plain Trainer, defaults": plain,
        "nlp_mtl, LoRA r 8 on all linear layers": [
            sys.executable,
            str(HERE / "ours.py"),
            data,
            base,
            rows,
            '{"lora": {"r": 8, "target_modules": "all-linear"}}',
        ],
        "plain Trainer + peft, bf16, length grouping": [
            *plain,
            json.dumps(BEST),
            '{"attn_implementation": "eager", "lora": {"r": 8}}',
        ],
    }
    if given.tasknet:
        commands["tasknet"] = [given.tasknet, str(peers / "tasknet_peer.py"), data, base, rows]
        commands["tasknet, bf16"] = [given.tasknet, str(peers / "tasknet_peer.py"), data, base, rows, '{"bf16": true}']
    found: dict[str, list[dict]] = {name: [] for name in commands}
    peaks = []
    for turn in range(given.rounds):
        peaks.append(matrix_peak())
        for name, command in commands.items():
            found[name].append(once(command))
            print(f"round {turn + 1}: {name}: {found[name][-1]['tokens_per_s']} tokens/s", flush=True)
        result = summary(
            {name: [line["tokens_per_s"] for line in lines] for name, lines in found.items()}, peaks, given
        )
        (HERE / "recorded" / "train_speed.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def summary(speeds: dict[str, list[float]], peaks: list[float], given: argparse.Namespace) -> dict:
    """Medians, ratios and the share of the matrix peak; written after every round, so that a long run can be cut."""
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    ours, peak = medians["nlp_mtl, full"], statistics.median(peaks)
    weights = linear_weights(str(Path(given.model).resolve()))
    return {
        "command": "python scripts/benchmarks/train_speed.py --data-root DIR --model DIR --peers DIR --tasknet PYTHON",
        "rows": given.rows,
        "rounds": len(peaks),
        "tokens_per_s": speeds,
        "median": medians,
        "ours_over": {
            name: round((medians["nlp_mtl, LoRA r 8 on all linear layers"] if "peft" in name else ours) / median, 2)
            for name, median in medians.items()
            if not name.startswith("nlp_mtl")
        },
        "bf16_peak_gflops": round(peak),
        "share_of_peak": round(ours * 6 * weights / peak / 1e9, 3),
        "not_run": [] if given.tasknet else ["tasknet (no --tasknet PYTHON)"],
    }


def once(command: list[str]) -> dict:
    """The last JSON line of a command."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"peer"')]
    if not lines:
        raise SystemExit(f"failed: {' '.join(command)}\n{done.stderr[-2000:]}")
    return json.loads(lines[-1])


def matrix_peak() -> float:
    """The best bf16 rate, in GFLOP/s, over the encoder's shapes with 1024 tokens."""
    import torch

    best = 0.0
    for inner, outer in ((384, 384), (384, 1536), (1536, 384)):
        x, w = torch.randn(1024, inner, dtype=torch.bfloat16), torch.randn(outer, inner, dtype=torch.bfloat16)
        for _ in range(5):
            torch.nn.functional.linear(x, w)
        began = time.perf_counter()
        for _ in range(50):
            torch.nn.functional.linear(x, w)
        best = max(best, 50 * 2 * 1024 * inner * outer / (time.perf_counter() - began) / 1e9)
    return best


def linear_weights(base: str) -> int:
    """Numbers in the linear layers of the encoder's blocks."""
    from transformers import AutoModel

    encoder = AutoModel.from_pretrained(base, add_pooling_layer=False)
    return sum(m.weight.numel() for m in encoder.modules() if type(m).__name__ == "Linear")


if __name__ == "__main__":
    main()
