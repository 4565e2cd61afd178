"""Training speed beside rivals: the same rows, in one go, in turn, several rounds; medians and ratios.

    python scripts/benchmarks/train_speed.py --data-root DIR --model FOLDER --peers DIR [--rounds 3] [--rows 960]
        [--tasknet PYTHON]   a Python in which tasknet is installed; left out, its rows are named as not run
        [--only WHO …]       of: ours, ours-lora, plain, peft, tasknet
        [--look again]       look over the rivals' settings anew; else a recorded look is taken if there is one
        [--look bf16]        the same over those in bf16 alone, where fp32 is known to be slower
    python scripts/benchmarks/train_speed.py … --profile     where a step's time goes, of ours and of the best rival

Five tasks (CoLA, SST-2, MRPC, RTE, CoNLL-2003), `--rows` rows of each, 32 rows a step, one epoch. What is measured is
the training loop from the eleventh optimizer step on (timed.py), the contenders taking turns of ten steps (racing.py).
Where a rival trains five models one after the other, it is also counted with the first ten steps of EACH training left
out, and the faster of the two figures is taken for it. Speed is real (unpadded) tokens per second.

A rival's best settings are looked for first: all of {sdpa, eager} × {bf16, fp32} × {length grouping, none} × {32 rows
at once, 16 two times} that it knows, a few steps each, in turn. The best two then run in every round, and the better
of them counts. Dropout is the model's own everywhere. Accumulation to more than 32 rows per update is left out: it is
another training, with fewer updates.

The share of the bf16 matrix peak is the model's FLOPs (formula in flops.py) × tokens per second / the best rate of a
product of the step's own shapes, measured in the same run whenever all had their turn.

`processors` in what is recorded is how many worked for a contender while it had its turn: where it is less than there
are threads, others used the machine, and the figures are not to be trusted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flops import Sizes, matrix_peak
from racing import UNTIMED, Contender, race, ratios, speed, versions

HERE = Path(__file__).resolve().parent
WHO = ("ours", "ours-lora", "plain", "peft", "tasknet")
OURS = {"plain": "ours", "tasknet": "ours", "peft": "ours-lora"}  # whom a rival is beside
TITLE = {
    "ours": "nlp_mtl, full",
    "ours-lora": "nlp_mtl, LoRA r 8 on all linear layers",
    "plain": "plain Trainer",
    "peft": "plain Trainer + peft, LoRA r 8 on all linear layers",
    "tasknet": "tasknet",
}
LOOK_ROWS, LOOK_UNTIMED = 128, 5
PROFILE_ROWS = 320  # a profiler keeps every operation of every step in memory
RANK = 8


def main() -> None:
    """Look, race, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--peers", required=True)
    parser.add_argument("--rows", type=int, default=960)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasknet", default=None)
    parser.add_argument("--only", nargs="+", choices=WHO, default=list(WHO))
    parser.add_argument("--look", choices=["again", "bf16", "recorded"], default="recorded")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "recorded" / "train_speed.json")
    given = parser.parse_args()
    given.data_root, given.model, given.peers = (
        str(Path(path).resolve()) for path in (given.data_root, given.model, given.peers)
    )
    if given.profile:
        given.rows = min(given.rows, PROFILE_ROWS)
    who = [name for name in given.only if name != "tasknet" or given.tasknet]
    known = json.loads(given.out.read_text()) if given.out.is_file() else {}
    looks: dict[str, dict[str, float]] = dict(known.get("look", {}))
    for name in who:
        if name in OURS and (given.look != "recorded" or name not in looks):
            looks[name] = look(name, given)
    chosen = [one for name in who for one in contenders(name, given, looks.get(name))]
    if given.profile:
        profiles(chosen, given)
        return
    rounds: list[dict[str, dict[str, float]]] = []
    peaks: list[dict[str, float]] = []
    for turn in range(given.rounds):
        print(f"round {turn + 1} of {given.rounds}", flush=True)
        timed = race(chosen, between=lambda: peaks.append(peak_of(given.model)))
        rounds.append(measured(timed))
        result = summary(rounds, peaks, given, looks, failed(timed))
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        for name, found in rounds[-1].items():
            print(f"round {turn + 1}: {name}: {found['tokens_per_s']:.0f} tokens/s", flush=True)
    print(json.dumps({key: result[key] for key in ("median", "ours_over", "share_of_peak", "not_run")}, indent=1))


def settings(name: str) -> list[tuple[str, dict[str, Any]]]:
    """All settings of a rival that are looked over: their name, and what they say."""
    grid = [(attention, precision, batch) for precision in ("bf16", "fp32") for attention in ("sdpa", "eager")
            for batch in ("32", "16x2")]  # fmt: skip
    grouped = ("length grouping", "no grouping") if name != "tasknet" else ("",)  # it draws its rows itself
    found = []
    for (attention, precision, batch), group in itertools.product(grid, grouped):
        arguments: dict[str, Any] = {"bf16": precision == "bf16"}
        if group == "length grouping":
            arguments["train_sampling_strategy"] = "group_by_length"
        if batch == "16x2":
            arguments |= {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 2}
        words = [word for word in (precision, attention, group, "16 rows twice" if batch == "16x2" else "") if word]
        found.append((", ".join(words), {"arguments": arguments, "attention": attention}))
    return found


def contender(name: str, said: str, how: dict[str, Any], given: argparse.Namespace, rows: int) -> Contender:
    """A rival with given settings."""
    words = [given.data_root, given.model, str(rows)]
    arguments = how["arguments"]
    if name == "tasknet":  # its own arguments go through its hyperparameters
        more = json.dumps({**arguments, "attn_implementation": how["attention"]})
        peer = Path(given.peers) / "tasknet_peer.py"
        return Contender(f"{TITLE[name]}: {said}", peer, (*words, more), python=given.tasknet)
    model = {"attn_implementation": how["attention"], **({"lora": {"r": RANK}} if name == "peft" else {})}
    peer = Path(given.peers) / "plain_trainer.py"
    return Contender(f"{TITLE[name]}: {said}", peer, (*words, "{}", json.dumps(model)), arguments)


def contenders(name: str, given: argparse.Namespace, looked: dict[str, float] | None) -> list[Contender]:
    """Ours, or a rival with the two settings that were fastest in the look."""
    if name in OURS:
        grid, best = dict(settings(name)), fastest(looked or {})
        return [contender(name, said, grid[said], given, given.rows) for said in best]
    more = [json.dumps({"lora": {"r": RANK, "target_modules": "all-linear"}})] if name == "ours-lora" else []
    return [Contender(TITLE[name], HERE / "ours.py", (given.data_root, given.model, str(given.rows), *more))]


def fastest(looked: dict[str, float], count: int = 2) -> list[str]:
    """The fastest settings of a look."""
    return sorted(looked, key=looked.__getitem__, reverse=True)[:count]


def look(name: str, given: argparse.Namespace) -> dict[str, float]:
    """Settings → tokens per second over a few steps; those that failed are left out.

    Eight at a time are in memory, those in bf16 first, which never meet the others.
    """
    grid, found = settings(name), {}
    if given.look == "bf16":
        grid = [one for one in grid if one[1]["arguments"]["bf16"]]
    for start in range(0, len(grid), 8):
        part = {f"{TITLE[name]}: {said}": said for said, _ in grid[start : start + 8]}
        timed = race([contender(name, said, how, given, LOOK_ROWS) for said, how in grid[start : start + 8]], every=5)
        for long, said in part.items():
            if "failed" in timed[long]:
                print(f"look: failed: {timed[long]['failed'].splitlines()[-1]}", flush=True)
                continue
            found[said] = round(speed(timed[long]["steps"], LOOK_UNTIMED)["tokens_per_s"], 1)
            print(f"look: {long}: {found[said]:.0f} tokens/s", flush=True)
    if not found:
        raise SystemExit(f"{name}: no setting could be run; --only leaves it out")
    return found


def measured(timed: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Contender → its speed, without those that failed."""
    return {name: speed(found["steps"]) for name, found in timed.items() if "failed" not in found}


def failed(timed: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Contender → why it came to no end."""
    return {name: found["failed"].strip().splitlines()[-1] for name, found in timed.items() if "failed" in found}


def summary(
    rounds: Sequence[dict[str, dict[str, float]]],
    peaks: Sequence[dict[str, float]],
    given: argparse.Namespace,
    looks: dict[str, dict[str, float]],
    broken: dict[str, str],
) -> dict[str, Any]:
    """What is recorded, after every round."""
    names = [name for name in rounds[0] if all(name in one for one in rounds)]
    speeds = {name: [round(one[name]["tokens_per_s"], 1) for one in rounds] for name in names}
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    over, best = {}, {}
    for rival, own in OURS.items():
        theirs = [name for name in names if name.split(":")[0] == TITLE[rival]]
        if theirs and TITLE[own] in names:
            best[rival] = max(theirs, key=medians.__getitem__)
            over |= {name: ratios(speeds[TITLE[own]], speeds[name]) for name in theirs}
    peak = {key: round(max(one[key] for one in peaks)) for key in peaks[0]}
    missing = [f"{TITLE[name]} (--only)" for name in WHO if name not in given.only]
    if "tasknet" in given.only and not given.tasknet:
        missing.append("tasknet (no --tasknet PYTHON)")
    return {
        "command": "python scripts/benchmarks/train_speed.py --data-root DIR --model DIR --peers DIR --tasknet PYTHON",
        "rows": given.rows,
        "rounds": len(rounds),
        "untimed": UNTIMED,
        "steps": {name: rounds[-1][name]["steps"] for name in names},
        "processors": {name: round(statistics.median(one[name]["processors"] for one in rounds), 2) for name in names},
        "tokens_per_s": speeds,
        "median": medians,
        "ours_over": over,
        "best": best,
        "bf16_peak_gflops": peak["peak"],
        "bf16_products_gflops": peak["products"],
        "share_of_peak": {name: share(name, medians[name], peak["peak"], given.model) for name in names},
        "look": looks,
        "look_rows": LOOK_ROWS,
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "versions": versions()
        | ({"tasknet": versions(given.tasknet, ["tasknet"])["tasknet"]} if given.tasknet else {}),
        "not_run": missing + [f"{name} ({why})" for name, why in broken.items()],
    }


def share(name: str, tokens_per_s: float, peak: float, model: str) -> float:
    """Model FLOPs per second over the peak."""
    sizes = Sizes.of(config_of(model), RANK if "LoRA" in name else 0)
    return round(tokens_per_s * sizes.per_token() / peak / 1e9, 3)


def config_of(model: str) -> Any:
    """The encoder's config."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(model)


def peak_of(model: str) -> dict[str, float]:
    """The peak on this encoder's shapes."""
    return matrix_peak(config_of(model), seconds=0.1)


def profiles(chosen: Sequence[Contender], given: argparse.Namespace) -> None:
    """Top operations of ours and of the fastest rival of each kind; printed and recorded beside the speeds."""
    from profiles import profile

    kinds: dict[str, Contender] = {}
    for one in chosen:  # the fastest of each kind comes first
        kinds.setdefault(one.name.split(":")[0], one)
    found = {one.name: profile(one) for one in kinds.values()}
    file = given.out.with_name("train_profile.json")
    file.write_text(json.dumps({"rows": given.rows, "profiles": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
