"""All tasks from one ONNX graph (int8 and fp32) against torch in fp32, texts a second; five tasks, MiniLM with LoRA.

python scripts/benchmarks/onnx_speed.py MODEL --data-root DIR [--threads 2]

MODEL is a folder with MiniLM-L6 or its name. Every third text of SST-2's validation split is answered by all five
tasks; token ids are made before the clock starts. Torch in fp32 three ways: this package's packed pass; one padded pass
with all heads; five exported single-task models, as they are used without it. All take the texts sorted by length, in
batches; onnxruntime too. The weights are as fresh heads have them: speed does not hang on them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TASKS = ["cola", "sst2", "mrpc", "rte", "conll2003"]


def timed(work: Any, seconds: float) -> float:
    """Seconds of the fastest of the calls that fit into some seconds, at least two after the first."""
    work()
    found, end = [], time.perf_counter() + seconds
    while len(found) < 2 or time.perf_counter() < end:
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def main() -> None:
    """Make the exports, measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data-root")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--keep", type=Path, help="where exports are kept between calls")
    said = parser.parse_args()

    import torch
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    import nlp_mtl as mtl
    from nlp_mtl.batches import collate
    from nlp_mtl.exporting.graph import Graph, passes
    from nlp_mtl.exporting.onnx_files import session
    from nlp_mtl.sources import load_rows

    torch.set_num_threads(said.threads)
    keep = said.keep or Path(tempfile.mkdtemp())
    lora = {"r": 8, "target_modules": "all-linear"}
    model = mtl.MultiTaskModel.from_base(said.model, TASKS, lora=lora, data_root=said.data_root, max_length=128).eval()
    if not (keep / "onnx").exists():
        mtl.export_task(model, None, keep / "onnx", "onnx")
        for task in TASKS:
            mtl.export_task(model, task, keep / task)
    rows = load_rows(model.heads["sst2"].task, data_root=said.data_root)["validation"]
    texts = sorted(model.tokenizer(list(rows["sentence"])[::3], truncation=True, max_length=128)["input_ids"], key=len)
    result: dict[str, Any] = {
        "command": "python scripts/benchmarks/onnx_speed.py MODEL --data-root DIR",
        "texts": len(texts),
        "tokens": sum(map(len, texts)),
        "tasks": TASKS,
        "threads": said.threads,
        "texts a second": {},
    }

    def padded(size: int) -> list[dict[str, torch.Tensor]]:
        made = []
        for first in range(0, len(texts), size):
            part = model.tokenizer.pad({"input_ids": texts[first : first + size]}, return_tensors="pt")
            made.append({**part, "token_type_ids": torch.zeros_like(part["input_ids"])})
        return made

    def best(name: str, works: dict[int, Any]) -> None:
        """The best of some batch sizes."""
        found = {size: len(texts) / timed(work, said.seconds) for size, work in works.items()}
        size = max(found, key=lambda size: found[size])
        result["texts a second"][name] = {"rate": round(found[size], 1), "batch": size}
        print(f"{name}: {found[size]:.0f} texts/s (batches of {size}; { ({k: round(v) for k, v in found.items()}) })")

    with torch.inference_mode():
        sizes = (32,)
        packed = {}
        for size in (32,):
            batches = []
            for first in range(0, len(texts), size):
                part = [
                    {"input_ids": ids, "token_type_ids": [0] * len(ids), "lengths": [len(ids)], "word_positions": [1]}
                    for ids in texts[first : first + size]
                ]
                batches.append(collate(part, [TASKS] * len(part), model.heads))
            packed[size] = lambda batches=batches: [model(**batch) for batch in batches]
        best("torch fp32, packed pass of this package, five tasks", packed)
        graph = Graph(model, passes(model, TASKS))
        best("torch fp32, one padded pass, five tasks", {n: lambda b=padded(n): [graph(**x) for x in b] for n in sizes})
        singles = []
        for task in TASKS:
            kind = AutoModelForTokenClassification if task == "conll2003" else AutoModelForSequenceClassification
            singles.append(kind.from_pretrained(keep / task).eval())
        best(
            "torch fp32, five models of one task",
            {n: lambda b=padded(n): [one(**x) for one in singles for x in b] for n in sizes},
        )
        for file in ("model.onnx", "model_int8.onnx"):
            run = session(keep / "onnx" / file, threads=said.threads).run
            works = {}
            for n in (1, 8, 16, 32):
                feeds = [{name: values.numpy() for name, values in batch.items()} for batch in padded(n)]
                works[n] = lambda run=run, feeds=feeds: [run(None, feed) for feed in feeds]
            best(f"onnxruntime, {file}, five tasks", works)
    rates = {name: found["rate"] for name, found in result["texts a second"].items()}
    small = rates["onnxruntime, model_int8.onnx, five tasks"]
    result["int8 over"] = {name: round(small / rate, 2) for name, rate in rates.items() if "int8" not in name}
    print(json.dumps(result["int8 over"], indent=1))
    (HERE / "recorded" / "onnx_speed.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
