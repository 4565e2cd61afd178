"""What is exported gives the run's labels and logits in a process that has no nlp_mtl."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nlp_mtl.batches import collate
from nlp_mtl.exporting.export import export_task
from nlp_mtl.heads.labels import Where
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.testing import DECODERS
from tests.integration.tiny import write_base
from tests.unit.test_heads_vanilla import OTHERS, TASKS, TEXTS, random_weights

torch.set_num_threads(1)  # tiny models: threads would only wait for one another

FAMILIES = ("bert", "roberta", "distilbert", "electra", "deberta-v2", "modernbert", "gpt2", "llama", "qwen2")
OFTEN = ("bert", "modernbert", "gpt2")
LORA = {"r": 4, "target_modules": "all-linear"}
TASK_LORA = {"r": 3, "target_modules": "all-linear", "use_rslora": True}
PIPED = ("pair", "number", "several", "tags", "mean")
MEAN = TASKS["pair"].with_(name="mean", head={"name": "sequence_classification", "pooling": "mean"})
MASKED = ["the cat [MASK] good", "[MASK]", "it was a bad [MASK] for the old house in the [MASK]", "no [MASK]"]


def the_rows(decoder):
    """Rows for every kind of task, as a user has them: text."""
    rows = [
        {"a": a, "b": b, "words": a.replace("!", "x").replace(",", "x").split(), "options": OTHERS[: 2 + i % 3]}
        for i, (a, b) in enumerate(zip(TEXTS, OTHERS, strict=True))
    ]
    return (
        rows if decoder else [{**row, "masked": text} for row, text in zip(rows, MASKED[:4] + MASKED[:1], strict=True)]
    )


def ours(model, name, rows):
    """The run's logits, one row at a time, from the head's own way of reading it."""
    head, found = model.heads[name], []
    for given in rows:
        columns = {column: [given["masked"] if name == "hidden" else given[column]] for column in head.needed_columns()}
        tokens = head.tokenize(columns, model.tokenizer, 128, Where(name, "test"))
        row = {key: values[0] for key, values in tokens.items()}
        row.update(head.ask(row, model.tokenizer) or {})
        row["input_ids"] = torch.tensor(row["input_ids"]).numpy()
        with torch.inference_mode():
            logits = model(**collate([row], [[name]], {name: head}))["logits"][name]
        found.append(logits if name in ("tags", "hidden") else logits[0])
    return found


def made(tmp_path, family, lora, task_lora=None):
    """A model of every kind of task that the family has, all weights that were trained far from their first values."""
    base = Path(tmp_path) / f"tiny-{family}"
    if not base.exists():
        ids = {"pad_token_id": 3, "bos_token_id": 3, "eos_token_id": 3} if family == "qwen2" else {}  # else beyond 300
        write_base(base, family, **ids)
    tasks = [task for name, task in TASKS.items() if name != "hidden" or family not in DECODERS]
    model = MultiTaskModel.from_base(base, [*tasks, MEAN], lora=lora, task_lora=task_lora, max_length=128).eval()
    trained = torch.nn.ParameterList([p for p in model.parameters() if p.requires_grad])
    random_weights(trained, 7)
    return model


def item(model, family, name, folder, **more):
    """What the other process is asked, and what it must answer."""
    head = model.heads[name]
    rows = the_rows(family in DECODERS)
    asked = {
        "name": folder.name,
        "folder": str(folder),
        "kind": name,
        "class": head.auto_class,
        "rows": rows,
        "adapter": False,
        "custom": False,
        "auto": True,
        "more": {},
        # Qwen2's tokenizer class, byte by byte, finds no words of a text in the tiny word-piece vocabulary
        "pipeline": name in PIPED and not more.get("adapter") and (family, name) != ("qwen2", "tags"),
        **more,
    }
    return asked, {"logits": ours(model, name, rows), "labels": head.labels if name != "choice" else None}


def answers(tmp_path, asked):
    """What a process without nlp_mtl says of exported folders."""
    (tmp_path / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    script = Path(__file__).with_name("without_nlp_mtl.py")
    env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-I", str(script)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {answer["name"]: answer for answer in json.loads((tmp_path / "answered.json").read_text(encoding="utf-8"))}


def faults(asked, expected, answered):
    """Every way in which a folder does not say what the run said."""
    wrong = []
    for one, known in zip(asked, expected, strict=True):
        name, found = one["name"], answered[one["name"]]
        if "error" in found:
            wrong.append(f"{name}: {found['error'][:300]}")
            continue
        for number, (ours_, theirs) in enumerate(zip(known["logits"], found["logits"], strict=True)):
            theirs_ = torch.tensor(theirs).reshape(ours_.shape)
            scale = max(1.0, float(ours_.abs().max()))
            if not float((ours_ - theirs_).abs().max()) <= 1e-5 * scale:
                wrong.append(f"{name}: row {number}: {float((ours_ - theirs_).abs().max())}")
        if known["labels"] and not one["adapter"] and found["labels"] != known["labels"]:
            wrong.append(f"{name}: labels {found['labels']}")
        if found["length"] != 128:
            wrong.append(f"{name}: length {found['length']}")
        if one["pipeline"]:
            wrong += [f"{name}: {fault}" for fault in misfits(one["kind"], known, found["piped"])]
    return wrong


def misfits(kind, known, piped):
    """Where a pipeline gives other labels or scores than the run."""
    wrong = []
    for number, (logits, found) in enumerate(zip(known["logits"], piped, strict=True)):
        if kind == "tags":
            expected = [known["labels"][i] for i in logits.argmax(-1).tolist()]
            wrong += [f"row {number}: tags {found}, expected {expected}"] if found != expected else []
            continue
        if kind == "number":
            wrong += [f"row {number}: {found}"] if abs(found["number"] - float(logits)) > 1e-5 else []
            continue
        scores = logits.sigmoid() if kind == "several" else logits.softmax(-1)
        given = [found[label] for label in known["labels"]]
        if not torch.allclose(torch.tensor(given), scores, atol=1e-5):
            wrong.append(f"row {number}: {given}, expected {scores.tolist()}")
    return wrong


@pytest.mark.parametrize(
    "families",
    [OFTEN, pytest.param(tuple(name for name in FAMILIES if name not in OFTEN), marks=pytest.mark.long)],
    ids=lambda names: "-".join(names),
)
def test_exports_say_what_the_run_says_without_nlp_mtl(tmp_path, families):
    """Folders of every kind of task: full, LoRA, LoRA per task, adapters, and code where no class computes it.

    One encoder and one decoder in every tuning with every task; of the others each with every task, each in every
    tuning, and every task in every tuning.
    """
    asked, expected, written = [], [], set()
    for family in families:
        for number, (lora, own) in enumerate(((None, None), (LORA, None), (LORA, TASK_LORA))):
            model, kind = made(tmp_path, family, lora, own), "task_lora" if own else "lora" if lora else "full"
            for turn, (name, head) in enumerate(model.heads.items(), FAMILIES.index(family)):
                pairs = []
                if family in ("bert", "gpt2") or turn % 3 == number:
                    out = tmp_path / f"{family}-{kind}-{name}"
                    done = export_task(model, name, out, custom_code=not head.exportable)
                    assert done.difference <= 1e-5
                    pairs.append(item(model, family, name, out, custom=not head.exportable))
                if head.exportable and lora and (family in ("bert", "gpt2") or turn % 2 == number - 1):
                    out = tmp_path / f"{family}-{kind}-adapter-{name}"
                    export_task(model, name, out, "adapter")
                    more = {"pad_token_id": model.config.pad_token_id, "dtype": "float32"}
                    if head.auto_class != "AutoModelForMultipleChoice" and name != "hidden":
                        more["num_labels"] = head.config_changes()["num_labels"]
                    pairs.append(item(model, family, name, out, adapter=True, more=more))
                for one, known in pairs:
                    asked.append(one)
                    expected.append(known)
                    written.add((one["kind"], family, one["adapter"]))
        for adapter in (False, True):
            names = {name for name, head in model.heads.items() if head.exportable or not adapter}
            assert {kind for kind, of, form in written if (of, form) == (family, adapter)} == names
    assert faults(asked, expected, answers(tmp_path, asked)) == []
