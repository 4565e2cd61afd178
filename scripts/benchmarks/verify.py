"""All recorded figures, on real data, into RESULTS.md. Takes hours; what is recorded already is not run again.

    make verify                                   all that is missing, then RESULTS.md
    python scripts/benchmarks/verify.py scores gpt --data-root DIR      only these
    python scripts/benchmarks/verify.py --write   RESULTS.md from what is recorded

Data is found by --data-root, NLP_MTL_DATA_ROOT or ../shared/data; the speed rivals by --peers or ../shared/peers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from render import render

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RECORDED = HERE / "recorded"
TASKS = ("cola", "mrpc", "rte", "stsb", "sst2", "conll2003")
SEEDS = (0, 1, 2)
PARTS = ("tests", "scores", "gpt", "speed", "scaling", "predict", "memory", "startup", "fuzz", "verdicts")
MULTI = {"full": ("glue_ner.yaml", []), "lora": ("glue_ner_lora.yaml", [])}


def main() -> int:
    """Run the missing parts, then write RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"of: {', '.join(PARTS)}; default all")
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--peers", default=None)
    parser.add_argument("--tasknet", default=None, help="a Python in which tasknet is installed")
    parser.add_argument("--again", action="store_true", help="run also what is recorded already")
    parser.add_argument("--write", action="store_true", help="only write RESULTS.md")
    given = parser.parse_args()
    RECORDED.mkdir(exist_ok=True)
    if not given.write:
        data = data_root(given.data_root)
        peers = Path(given.peers) if given.peers else ROOT.parent / "shared" / "peers"
        for part in given.parts or PARTS:
            run_part(part, data, peers, given)
        (RECORDED / "machine.json").write_text(json.dumps(machine(), indent=1) + "\n")
    (HERE / "RESULTS.md").write_text(render(RECORDED), encoding="utf-8")
    print(f"written: {(HERE / 'RESULTS.md').relative_to(ROOT)}")
    return 0


def data_root(given: str | None) -> Path:
    """Where the real data is."""
    for name in (given, os.environ.get("NLP_MTL_DATA_ROOT"), str(ROOT.parent / "shared" / "data")):
        if name and Path(name).is_dir():
            return Path(name).resolve()
    raise SystemExit("real data is needed: --data-root DIR or NLP_MTL_DATA_ROOT=DIR, in the Hub's layout")


def run_part(part: str, data: Path, peers: Path, given: argparse.Namespace) -> None:
    """One part, unless it is recorded."""
    done = RECORDED / {"speed": "train_speed.json", "predict": "predict_speed.json"}.get(part, f"{part}.json")
    common = ["--data-root", str(data), "--model", str(model_folder())]
    if part == "tests":
        env = {**os.environ, "NLP_MTL_DATA_ROOT": str(data)}
        subprocess.run([sys.executable, "-m", "pytest", "-m", "realdata or long", "-q"], cwd=ROOT, env=env, check=True)
    elif part == "scores":
        scores(data, given.again)
    elif done.exists() and not given.again:
        print(f"{part}: recorded in {done.name}")
    elif part == "gpt":
        command = ["train", "scripts/runs/gpt.yaml", "--overwrite"]
        subprocess.run([sys.executable, "-m", "nlp_mtl.cli", *command], cwd=ROOT, check=True)
        found = json.loads((ROOT / "runs" / "gpt" / "metrics.json").read_text())
        keep = {key: found[key] for key in ("validation", "trivial", "training_seconds")}
        done.write_text(json.dumps({"command": "nlp-mtl " + " ".join(command), **keep}, indent=1) + "\n")
    elif part == "speed":
        if not peers.is_dir():
            print(f"speed: not run, there are no rivals in {peers}")
            return
        tasknet = ["--tasknet", given.tasknet] if given.tasknet else []
        call("train_speed.py", *common, "--peers", str(peers), *tasknet)
        call("train_speed.py", *common, "--peers", str(peers), *tasknet, "--profile")
    elif part == "scaling":
        call("scaling.py", *common)
    elif part == "predict":
        with tempfile.TemporaryDirectory() as work:
            call("predict_speed.py", *common, "--work", work)
            call("predict_speed.py", *common, "--work", work, "--memory")
    elif part == "memory":
        call("memory.py", *common)
    elif part == "startup":
        call("startup.py")
    elif part == "verdicts":
        call("false_alarms.py", *common)
        call("known_verdicts.py", *common)
        call("known_affinity.py", *common)
    elif part == "fuzz":  # findings are recorded too
        words = ["--minutes", "60", "--json", str(done), "--findings", str(ROOT / "fuzz_findings")]
        subprocess.run([sys.executable, str(ROOT / "scripts" / "fuzz.py"), *words], cwd=ROOT)


def call(script: str, *words: str) -> None:
    """Run another benchmark."""
    subprocess.run([sys.executable, str(HERE / script), *words], cwd=HERE, check=True)


def model_folder() -> Path:
    """The quickstart encoder."""
    from nlp_mtl.bases import find_base

    return find_base("sentence-transformers/all-MiniLM-L6-v2").folder


def scores(data: Path, again: bool) -> None:
    """Multi-task runs and their single-task rivals, three seeds; one line each in recorded/scores.jsonl."""
    file = RECORDED / "scores.jsonl"
    known = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() and not again else []
    if again:
        file.unlink(missing_ok=True)
    have = {(line["task"], line["tuning"], line["seed"], line["who"]) for line in known}
    for seed in SEEDS:
        for tuning in MULTI:
            if ("all", tuning, seed, "nlp_mtl") not in have:
                append(file, multi(tuning, seed, data))
            for task in TASKS:
                if (task, tuning, seed, "plain") not in have:
                    words = [task, tuning, str(seed), "--data-root", str(data), "--model", str(model_folder())]
                    command = [sys.executable, str(HERE / "plain_scores.py"), *words]
                    done = subprocess.run(command, cwd=tempfile.gettempdir(), capture_output=True, text=True)
                    lines = [line for line in done.stdout.splitlines() if line.startswith('{"task"')]
                    if not lines:
                        raise SystemExit(done.stderr[-2000:])
                    append(file, {"who": "plain", **json.loads(lines[-1])})


def append(file: Path, line: dict) -> None:
    """One more recorded line."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def multi(tuning: str, seed: int, data: Path) -> dict:
    """One multi-task run by its run file; the last epoch's scores, as the rivals' are."""
    from nlp_mtl.run import train

    name, overrides = MULTI[tuning]
    more = [f"training.seed={seed}", f"training.output_dir=runs/verify_{tuning}_{seed}", f'data_root="{data}"']
    last = ["training.save_strategy=no", "training.load_best_model_at_end=false"]
    run = train(ROOT / "scripts" / "runs" / name, [*overrides, *more, *last], overwrite=True)
    assert run.trainer is not None
    found = {task: {k: v for k, v in s.metrics.items() if "_f1_" not in k} for task, s in run.scores.items()}
    seconds = next(e["train_runtime"] for e in reversed(run.trainer.state.log_history) if "train_runtime" in e)
    return {
        "who": "nlp_mtl",
        "task": "all",
        "tuning": tuning,
        "seed": seed,
        "seconds": round(seconds, 1),
        "scores": found,
    }


def machine() -> dict:
    """What the figures were measured on."""
    from importlib.metadata import version

    flags = Path("/proc/cpuinfo").read_text()
    cpu = next((line.split(":")[1].strip() for line in flags.splitlines() if line.startswith("model name")), "")
    has = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    libraries = {name: version(name) for name in ("torch", "transformers", "peft", "accelerate", "datasets")}
    return {"cpu": cpu, "cores": os.cpu_count(), "has": has, "python": platform.python_version(), **libraries}


if __name__ == "__main__":
    raise SystemExit(main())
