"""One task against all: sizes of what is exported, and how long one text takes; five tasks, MiniLM with LoRA.

python scripts/benchmarks/export_size.py MODEL --data-root DIR [--threads 2]

MODEL is a folder with MiniLM-L6 or its name. Sizes are of weights and graphs, in MB of 10^6 bytes, without tokenizer.
The latency is of one text of 12 tokens, already tokenized: the median of 100 calls. Heads are fresh ones.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TASKS = ["cola", "sst2", "mrpc", "rte", "conll2003"]
WEIGHTS = (".safetensors", ".onnx", ".data")


def size(folder: Path, name: str = "") -> float:
    """MB of weights in a folder."""
    files = [file for file in folder.rglob(f"*{name}*" if name else "*") if file.suffix in WEIGHTS]
    return round(sum(file.stat().st_size for file in files) / 1e6, 2)


def median_ms(work: Any, calls: int = 100) -> float:
    """Milliseconds of a call, the median after ten others."""
    found = []
    for number in range(calls + 10):
        began = time.perf_counter()
        work()
        if number >= 10:
            found.append((time.perf_counter() - began) * 1e3)
    return round(statistics.median(found), 2)


def main() -> None:
    """Export, measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data-root")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    parser.add_argument("--keep", type=Path, help="where exports are kept between calls")
    said = parser.parse_args()

    import torch
    from transformers import AutoModelForSequenceClassification

    import nlp_mtl as mtl
    from nlp_mtl.batches import collate
    from nlp_mtl.exporting.onnx_files import session

    torch.set_num_threads(said.threads)
    keep = said.keep or Path(tempfile.mkdtemp())
    lora = {"r": 8, "target_modules": "all-linear"}
    model = mtl.MultiTaskModel.from_base(said.model, TASKS, lora=lora, data_root=said.data_root, max_length=128).eval()
    model.save_pretrained(keep / "run")
    wanted = {
        "model": ("sst2", "model"),
        "adapter": ("sst2", "adapter"),
        "one": ("sst2", "onnx"),
        "all": (None, "onnx"),
    }
    for name, (task, form) in wanted.items():
        if not (keep / "sizes" / name).exists():
            mtl.export_task(model, task, keep / "sizes" / name, form)
    text = "a film with a big heart and no brain at all"
    ids = model.tokenizer(text)["input_ids"][:12]
    row = {"input_ids": ids, "token_type_ids": [0] * len(ids), "lengths": [len(ids)], "word_positions": [1]}
    tensors = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    tensors["token_type_ids"] = torch.zeros_like(tensors["input_ids"])
    arrays = {name: values.numpy() for name, values in tensors.items()}
    single = AutoModelForSequenceClassification.from_pretrained(keep / "sizes" / "model").eval()
    batches = {number: collate([row], [tasks], model.heads) for number, tasks in ((1, ["sst2"]), (5, TASKS))}
    runs = {
        (name, file): session(keep / "sizes" / name / file, threads=said.threads).run
        for name in ("one", "all")
        for file in ("model.onnx", "model_int8.onnx")
    }
    with torch.inference_mode():
        ms = {
            "run folder, LoRA": [median_ms(lambda b=batches[n]: model(**b)) for n in (1, 5)],
            "--as model": [median_ms(lambda: single(**tensors)), None],
            "--as onnx, fp32": [median_ms(lambda n=n: runs[n, "model.onnx"](None, arrays)) for n in ("one", "all")],
            "--as onnx, int8": [
                median_ms(lambda n=n: runs[n, "model_int8.onnx"](None, arrays)) for n in ("one", "all")
            ],
        }
    folders = keep / "sizes"
    mb = {
        "run folder, LoRA": [None, size(keep / "run")],
        "--as model": [size(folders / "model"), None],
        "--as adapter": [size(folders / "adapter"), None],
        "--as onnx, fp32": [size(folders / name, "model.onnx") for name in ("one", "all")],
        "--as onnx, int8": [size(folders / name, "model_int8") for name in ("one", "all")],
    }
    result = {
        "command": "python scripts/benchmarks/export_size.py MODEL --data-root DIR",
        "tasks": TASKS,
        "threads": said.threads,
        "columns": ["one task (sst2)", "all five"],
        "MB of weights": mb,
        "ms for one text": ms,
        "run folder's weights, MB (at most 3)": mb["run folder, LoRA"][1],
    }
    print(json.dumps(result, indent=1))
    (HERE / "recorded" / "export_size.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
