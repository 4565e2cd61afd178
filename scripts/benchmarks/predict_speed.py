"""Five single-text tasks' answers for real texts: one pass of ours beside five vanilla pipelines; medians and ratios.

    python scripts/benchmarks/predict_speed.py --data-root DIR --model FOLDER [--texts 2000] [--rounds 3]
        [--work FOLDER]         keep the models made there, and the pipelines' best settings, for a later call
        [--add]                 add rounds to those recorded
        [--memory]              peak memory of `nlp-mtl predict --file` over 100 000 texts beside 1 000, no more
        [--profile]             where the time of ours goes

The rivals are five `transformers.pipeline`s in bf16, each with its own vanilla folder of the same encoder and the same
head's weights. A first look, which is not timed with the rest, finds the best batch size, attention and order of texts
(as they come, or sorted by length by hand) of a classifier and of the tagger. The models are trained for some seconds
only: speed does not depend on how well they answer, but a tagger that was never trained would find entities everywhere.
Beside the times stands how far the answers are apart.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "recorded" / "predict_speed.json"
TASKS = ("cola", "sst2", "conll2003", "trec", "tweet_emotion")
TAGGER = "conll2003"
COLUMNS = {"cola": "sentence", "sst2": "sentence", "conll2003": "tokens", "trec": "text", "tweet_emotion": "text"}
FILES = {
    "cola": "nyu-mll/glue/cola/validation*",
    "sst2": "nyu-mll/glue/sst2/validation*",
    "conll2003": "eriktks/conll2003/conll2003/validation*",
    "trec": "CogComp/trec/default/test*",
    "tweet_emotion": "cardiffnlp/tweet_eval/emotion/test*",
    "reviews": "blitzer/multi_domain_sentiment/books/validation*",
}
LENGTH = 128  # tokens that are read of a text, by all
LOOKS = {"batch_size": (8, 16, 32, 64, 128), "attention": ("sdpa", "eager"), "order": ("sorted", "as it comes")}


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", default=None)
    for name in ("--add", "--memory", "--profile"):
        parser.add_argument(name, action="store_true")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(given.work or folder).resolve()
        work.mkdir(parents=True, exist_ok=True)
        data, base = Path(given.data_root).resolve(), Path(given.model).resolve()
        make_models(work, data, base)
        if given.memory:
            memory(work, texts_of(data, 1000))
        elif given.profile:
            profile(work, texts_of(data, given.texts))
        else:
            speed(work, texts_of(data, given.texts), given)


def texts_of(data: Path, count: int) -> list[str]:
    """Real texts of mixed length, each once, in an order drawn once: a tenth are reviews, the rest the tasks' own."""
    import pyarrow.parquet as pq

    texts: dict[str, None] = {}
    for name, pattern in FILES.items():
        (file,) = data.glob(pattern)
        column = COLUMNS.get(name, "text")
        rows = pq.read_table(file, columns=[column]).column(column).to_pylist()
        random.Random(0).shuffle(rows)
        share = count // 10 if name == "reviews" else -(-(count - count // 10) // len(TASKS))
        joined = [row if isinstance(row, str) else " ".join(row) for row in rows]
        texts.update(dict.fromkeys([text for text in joined if text.strip()][:share]))
    chosen = list(texts)[:count]
    random.Random(1).shuffle(chosen)
    return chosen


def make_models(work: Path, data: Path, base: Path) -> None:
    """A model of the five tasks in ``ours``, one of each alone in ``ours_<task>``, vanilla folders in ``<task>``."""
    if (work / "made").is_file():
        return
    from transformers import TrainingArguments

    import nlp_mtl as mtl

    tasks = [{"name": name, "rows": {"train": 320, "validation": 16}} for name in TASKS]
    model = mtl.MultiTaskModel.from_base(base, tasks, max_length=LENGTH, data_root=data)
    arguments = TrainingArguments(
        str(work / "training"),
        num_train_epochs=2,
        per_device_train_batch_size=32,
        learning_rate=3e-4,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    mtl.MultiTaskTrainer(model, arguments, data_root=data).train()
    model.eval().save_pretrained(work / "ours")
    for name in TASKS:
        vanilla_folder(model, name, work / name)
        alone = mtl.MultiTaskModel.from_base(base, [name], max_length=LENGTH, data_root=data)
        alone.eval().save_pretrained(work / f"ours_{name}")
    (work / "made").write_text("")


def vanilla_folder(model: Any, task: str, folder: Path) -> None:
    """The family's own class with the same weights, and its tokenizer."""
    import copy

    import transformers

    head, encoder = model.heads[task], model.sharing.encoder
    config = copy.deepcopy(encoder.config)
    for key, value in head.config_changes().items():
        setattr(config, key, value)
    config._attn_implementation = "eager"
    vanilla = getattr(transformers, head.auto_class).from_config(config)
    left = vanilla.base_model.load_state_dict(encoder.state_dict(), strict=False)  # a tagger has no pooler
    assert not left.missing_keys and all(key.startswith("pooler.") for key in left.unexpected_keys), left
    left = vanilla.load_state_dict(model.module_of(task).state_dict(), strict=False)
    assert not left.unexpected_keys, left
    vanilla.save_pretrained(folder)
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.model_max_length = LENGTH
    tokenizer.save_pretrained(folder)


class Pipelines:
    """The five rivals, each in its best way.

    Args:
        work: where the folders are.
        best: task → `batch_size`, `attention` and `order`.
    """

    def __init__(self, work: Path, best: dict[str, dict[str, Any]]):
        self.best = best
        self.pipes = {task: pipeline_of(work, task, way["attention"]) for task, way in best.items()}

    def __call__(self, texts: list[str]) -> dict[str, list[Any]]:
        """Task → answers."""
        return {task: asked(pipe, texts, **self.best[task]) for task, pipe in self.pipes.items()}


def pipeline_of(work: Path, task: str, attention: str) -> Any:
    """A vanilla pipeline in bf16."""
    import torch
    import transformers

    more = {"aggregation_strategy": "simple"} if task == TAGGER else {"truncation": True}
    kind = "token-classification" if task == TAGGER else "text-classification"
    kinds = {"dtype": torch.bfloat16, "device": "cpu", "model_kwargs": {"attn_implementation": attention}}
    return transformers.pipeline(kind, model=str(work / task), **kinds, **more)


def asked(pipe: Any, texts: list[str], *, batch_size: int, order: str, **_: Any) -> list[Any]:
    """A pipeline's answers, in the order of the texts."""
    if order != "sorted":
        return pipe(texts, batch_size=batch_size)
    places = sorted(range(len(texts)), key=lambda i: len(texts[i]), reverse=True)
    answers = pipe([texts[i] for i in places], batch_size=batch_size)
    found = dict(zip(places, answers, strict=True))
    return [found[i] for i in range(len(texts))]


def best_ways(work: Path, texts: list[str]) -> dict[str, dict[str, Any]]:
    """The best way of a classifier and of the tagger on some texts, the better ones tried twice; kept in `work`."""
    file, some = work / "best.json", texts[::8]
    best: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    for task in (TASKS[0], TAGGER):
        if task in best:
            continue
        tried = []
        for attention in LOOKS["attention"]:
            pipe = pipeline_of(work, task, attention)
            asked(pipe, some, batch_size=32, order="sorted")
            for order in LOOKS["order"]:
                for size in LOOKS["batch_size"]:
                    way: dict[str, Any] = {"batch_size": size, "attention": attention, "order": order}
                    took, _ = seconds(partial(asked, pipe, some, **way))
                    if not tried or took < 1.5 * min(tried, key=lambda one: one[0])[0]:
                        took = min(took, seconds(partial(asked, pipe, some, **way))[0])
                    tried.append((took, way))
                    print(f"{task}: {way}: {took:.2f} s", flush=True)
        best[task] = min(tried, key=lambda one: one[0])[1]
        file.write_text(json.dumps(best))
    return {task: best[TAGGER if task == TAGGER else TASKS[0]] for task in TASKS}


def seconds(call: Any) -> tuple[float, Any]:
    """How long a call took, and what it gave."""
    began = time.perf_counter()
    found = call()
    return time.perf_counter() - began, found


def speed(work: Path, texts: list[str], given: argparse.Namespace) -> None:
    """The rounds, in turn."""
    import nlp_mtl as mtl

    best = best_ways(work, texts)
    if not given.rounds:
        return
    rivals = Pipelines(work, best)
    ours = mtl.MultiTaskModel.from_pretrained(work / "ours")
    alone = {task: mtl.MultiTaskModel.from_pretrained(work / f"ours_{task}") for task in TASKS}
    runs = {
        "nlp_mtl, one model of five tasks": lambda: mtl.predict(ours, texts),
        "nlp_mtl, five models of one task": lambda: {task: mtl.predict(model, texts) for task, model in alone.items()},
        "five vanilla pipelines": lambda: rivals(texts),
    }
    before = json.loads(RECORDED.read_text()) if given.add and RECORDED.is_file() else {}
    took: dict[str, list[float]] = {name: list(before.get("seconds", {}).get(name, [])) for name in runs}
    for warm in (ours, *alone.values()):
        mtl.predict(warm, texts[::8])
    for task in (TASKS[0], TAGGER):  # all the shapes that the five will meet
        asked(rivals.pipes[task], texts, **best[task])
    answers: dict[str, Any] = {}
    for turn in range(given.rounds):
        for name, run in runs.items():
            spent, answers[name] = seconds(run)
            took[name].append(round(spent, 2))
            print(f"round {turn + 1}: {name}: {spent:.2f} s", flush=True)
    median = {name: statistics.median(values) for name, values in took.items()}
    tokens = sum(map(len, ours.tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"]))
    one = median["nlp_mtl, one model of five tasks"]
    result = {
        **before,
        "command": "python scripts/benchmarks/predict_speed.py --data-root DIR --model FOLDER",
        "texts": len(texts),
        "tokens": tokens,
        "tasks": list(TASKS),
        "threads": threads(),
        "rounds": len(took["five vanilla pipelines"]),
        "seconds": took,
        "median": median,
        "tokens_per_s": {name: round(tokens / value) for name, value in median.items()},
        "ours_over": {name: round(value / one, 2) for name, value in median.items() if value != one},
        "pipelines": best,
        "apart": apart(answers),
    }
    RECORDED.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def threads() -> int:
    """How many threads the products have."""
    import torch

    return torch.get_num_threads()


def apart(answers: dict[str, Any]) -> dict[str, Any]:
    """How far both in bf16 are apart: the largest difference of a label's score, and the share of equal labels."""
    ours, rivals = answers["nlp_mtl, one model of five tasks"], answers["five vanilla pipelines"]
    largest, same, count = 0.0, 0, 0
    for task in TASKS:
        if task == TAGGER:
            continue
        for mine, other in zip(ours, rivals[task], strict=True):
            said = mine[task]
            largest = max(largest, abs(said["scores"][other["label"]] - other["score"]))
            same += said["label"] == other["label"]
            count += 1
    return {"largest_score_difference": round(largest, 4), "same_label": round(same / count, 4)}


def profile(work: Path, texts: list[str]) -> None:
    """Python's and torch's own profilers, one after the other."""
    import cProfile
    import pstats

    from torch.profiler import profile as profiler

    import nlp_mtl as mtl

    ours = mtl.MultiTaskModel.from_pretrained(work / "ours")
    mtl.predict(ours, texts)
    for _ in range(3):
        print(f"{seconds(lambda: mtl.predict(ours, texts))[0]:.2f} s")
    found = cProfile.Profile()
    found.runcall(mtl.predict, ours, texts)
    pstats.Stats(found).sort_stats("tottime").print_stats(35)
    with profiler() as ops:
        mtl.predict(ours, texts)
    print(ops.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))


# ------------------------------------------------------------------------------------------------------------- memory

ONCE = """
import json, resource, sys
from pathlib import Path
from nlp_mtl.model import MultiTaskModel
from nlp_mtl import predictfile
loaded = {}
plain = MultiTaskModel.from_pretrained.__func__
def noted(cls, *given, **more):
    model = plain(cls, *given, **more)
    loaded["kb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return model
MultiTaskModel.from_pretrained = classmethod(noted)
from nlp_mtl.cli import app
app(["predict", sys.argv[1], "--file", sys.argv[2], "--out", sys.argv[3]], standalone_mode=False)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"peak_mb": round(peak / 1024), "over_loaded_mb": round((peak - loaded["kb"]) / 1024)}))
"""


def memory(work: Path, texts: list[str], counts: tuple[int, int] = (1_000, 100_000)) -> None:
    """Peak memory of the command over few and many texts, a fresh process each."""
    found = {}
    for count in counts:
        file = work / f"texts_{count}.jsonl"
        with file.open("w", encoding="utf-8") as stream:
            for number in range(count):  # real texts, no two alike
                text = texts[number % len(texts)]
                stream.write(json.dumps(text if number < len(texts) else f"{number} {text}") + "\n")
        command = [sys.executable, "-c", ONCE, str(work / "ours"), str(file), str(work / f"answers_{count}.jsonl")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        found[str(count)] = json.loads(done.stdout.splitlines()[-1])
        print(count, found[str(count)], flush=True)
    few, many = (found[str(count)] for count in counts)
    result = json.loads(RECORDED.read_text()) if RECORDED.is_file() else {}
    result["memory"] = {
        "command": "python scripts/benchmarks/predict_speed.py --data-root DIR --model FOLDER --memory",
        "texts": found,
        "ratio": round(many["peak_mb"] / few["peak_mb"], 2),
        "ratio_over_loaded": round(many["over_loaded_mb"] / few["over_loaded_mb"], 2),
    }
    RECORDED.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["memory"], indent=1))


if __name__ == "__main__":
    main()
