"""Small real tasks in files, a small pretrained folder, and a training run as its own process."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

WORDS = "the a an is it was on in at to of and not no yes good bad cat dog house city rain sun red blue old new".split()


def write_tasks(folder: Path, *, rows: int = 48, seed: int = 0) -> list[str]:
    """Three learnable tasks of three kinds of head, and one that shares the words' rows; gives the task files."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)

    def text(low: int = 2, high: int = 9) -> list[str]:
        return draw.choices(WORDS, k=draw.randint(low, high))

    mood, alike, names = [], [], []
    for _ in range(rows):
        words = text()
        mood.append({"text": " ".join(words), "label": "good" if words.count("good") + len(words) % 2 else "bad"})
        left, right = text(), text()
        alike.append({"a": " ".join(left), "b": " ".join(right), "score": len(set(left) & set(right)) / 2})
        tokens = text(1, 12)
        tags = ["B-LOC" if word in ("city", "house") else "O" for word in tokens]
        names.append({"tokens": tokens, "tags": tags, "rainy": "yes" if "rain" in tokens else "no"})
    files = []
    for name, made in (("mood", mood), ("alike", alike[: rows // 2]), ("names", names)):
        for split, part in (("train", made[:-8]), ("validation", made[-8:])):
            path = folder / f"{name}-{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    specs: dict[str, dict[str, Any]] = {
        "mood": {"head": "sequence_classification", "inputs": ["text"], "target": "label", "labels": ["bad", "good"]},
        "alike": {"head": "regression", "inputs": ["a", "b"], "target": "score"},
        "names": {
            "head": "token_classification",
            "inputs": ["tokens"],
            "target": "tags",
            "labels": ["O", "B-LOC", "I-LOC"],
        },
        "rainy": {"head": "sequence_classification", "inputs": ["tokens"], "target": "rainy", "labels": ["no", "yes"]},
    }
    for name, spec in specs.items():
        data = "names" if name == "rainy" else name
        spec["dataset"] = {"path": "json", "data_files": {s: f"{data}-{s}.jsonl" for s in ("train", "validation")}}
        file = folder / f"{name}.yaml"
        file.write_text(json.dumps({"name": name, **spec}), encoding="utf-8")
        files.append(str(file))
    return files


def write_rare(folder: Path, *, rows: int = 120, seed: int = 0) -> list[str]:
    """A rare class, rare labels and rare tags; gives the task files."""
    folder.mkdir(parents=True, exist_ok=True)
    draw, made = random.Random(seed), []
    for _ in range(rows):
        words = draw.choices(WORDS, k=draw.randint(2, 9))
        noisy = "rain" in words if draw.random() < 0.9 else draw.random() < 0.2
        made.append(
            {
                "text": " ".join(words),
                "words": words,
                "rare": "yes" if noisy else "no",
                "many": [word for word in ("cat", "dog") if word in words],
                "tags": ["B-LOC" if word == "city" else "O" for word in words],
            }
        )
    for split, part in (("train", made[:60]), ("validation", made[60:90]), ("test", made[90:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    said: dict[str, dict[str, Any]] = {
        "rare": {
            "head": {"name": "sequence_classification", "class_weights": "balanced", "threshold": "tuned"},
            "labels": ["no", "yes"],
            "metrics": ["f1"],
        },
        "many": {
            "head": {"name": "multi_label", "class_weights": "balanced", "threshold": "tuned"},
            "labels": ["cat", "dog"],
            "metrics": ["f1_macro"],
        },
        "tags": {
            "head": {"name": "token_classification", "class_weights": {"O": 1, "B-LOC": 5}},
            "labels": ["O", "B-LOC"],
            "inputs": ["words"],
        },
    }
    files = []
    for name, spec in said.items():
        data = {"path": "json", "data_files": {s: f"{s}.jsonl" for s in ("train", "validation", "test")}}
        whole = {"name": name, "dataset": data, "target": name, "inputs": ["text"], **spec}
        (folder / f"{name}.yaml").write_text(json.dumps(whole), encoding="utf-8")
        files.append(str(folder / f"{name}.yaml"))
    return files


def write_many(folder: Path, count: int, *, rows: int = 12, seed: int = 0) -> Path:
    """A registry of small tasks, of five kinds of head in turn, each with files of its own; all are tagged `many`."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    kinds: list[dict[str, Any]] = [
        {"head": "sequence_classification", "labels": ["x", "y", "z"]},
        {"head": "regression"},
        {"head": "token_classification", "labels": ["O", "B-LOC", "I-LOC"]},
        {"head": "multi_label", "labels": ["bad", "good", "old"]},
        {"head": {"name": "multiple_choice", "choices": ["first", "second"]}, "labels": ["first", "second"]},
    ]
    for number in range(count):
        name, made = f"task_{number}", []
        for _ in range(rows):
            words = draw.choices(WORDS, k=draw.randint(2, 9))
            text = " ".join(words)
            made.append(
                [
                    {"text": text, "label": "xyz"[len(words) % 3]},
                    {"text": text, "label": len(set(words)) / 9},
                    {"text": words, "label": ["B-LOC" if word in ("city", "house") else "O" for word in words]},
                    {"text": text, "label": sorted({"bad", "good", "old"} & {*words, "good"})},
                    {"text": text, "first": f"yes {words[0]}", "second": "no", "label": draw.randrange(2)},
                ][number % len(kinds)]
            )
        for split, part in (("train", made[:-4]), ("validation", made[-4:])):
            file = folder / f"{name}-{split}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
        files = {split: f"{name}-{split}.jsonl" for split in ("train", "validation")}
        said = {"name": name, "tags": ["many"], "inputs": ["text"], "target": "label", **kinds[number % len(kinds)]}
        said["dataset"] = {"path": "json", "data_files": files}
        (folder / f"{name}.yaml").write_text(json.dumps(said), encoding="utf-8")
    return folder


def write_base(folder: Path, family: str = "bert", *, dropout: float = 0.0, **changes: Any) -> str:
    """A tiny pretrained model's folder."""
    from nlp_mtl.testing import DECODERS, tiny_encoder, tiny_tokenizer

    tiny_encoder(family, dropout=dropout, **changes).save_pretrained(folder)
    tiny_tokenizer(decoder=family in DECODERS).save_pretrained(folder)
    return str(folder)


def write_writer(folder: Path, family: str, *, dropout: float = 0.0) -> str:
    """A tiny pretrained encoder–decoder model's folder."""
    from nlp_mtl.testing import tiny_tokenizer, tiny_writer

    tiny_writer(family, dropout=dropout).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def write_texts(folder: Path, *, rows: int = 48, seed: int = 0, **head: Any) -> list[str]:
    """Two tasks that write: words in the other order, and a word of them; the second uses the first one's decoder."""
    folder.mkdir(parents=True, exist_ok=True)
    draw, made = random.Random(seed), []
    for _ in range(rows):
        words = draw.choices(WORDS, k=draw.randint(2, 9))
        made.append({"text": " ".join(words), "back": " ".join(words[::-1]), "last": words[-1]})
    for split, part in (("train", made[:-8]), ("validation", made[-8:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"texts-{split}.jsonl").write_text(lines, encoding="utf-8")
    files = []
    for name, more in (("back", {}), ("last", {"head_of": "back"})):
        said = {
            "name": name,
            "head": {"name": "seq2seq", "max_target_length": 24, **head},
            "dataset": {"path": "json", "data_files": {s: f"texts-{s}.jsonl" for s in ("train", "validation")}},
            "inputs": ["text"],
            "target": name,
            "metrics": ["chrf"],
            **more,
        }
        (folder / f"{name}.yaml").write_text(json.dumps(said), encoding="utf-8")
        files.append(str(folder / f"{name}.yaml"))
    return files


def config(base: str, tasks: list[str], out: Path, **changes: Any) -> dict[str, Any]:
    """A run's mapping; `training` is merged."""
    training = {
        "output_dir": str(out),
        "max_steps": 12,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        **changes.pop("training", {}),
    }
    return {"model": base, "tasks": tasks, "max_length": 64, "training": training, **changes}


def state_of(model: Any) -> dict[str, Any]:
    """Trainable parameters by name, detached."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


class InterruptSecond(TrainerCallback):
    """Ctrl-C to the second process in its third step."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.process_index == 1 and state.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)


def main() -> None:
    """Train as the JSON file of the first argument says; write losses and weights beside it."""
    import gc

    import torch
    from accelerate.utils import gather_object

    from nlp_mtl.run import train

    file = Path(sys.argv[1])
    said = json.loads(file.read_text(encoding="utf-8"))
    run = train(said["config"], resume=said.get("resume", False), overwrite=said.get("overwrite", False))
    trainer = run.trainer
    assert trainer is not None
    assert gc.get_freeze_count() == 0, "what was frozen for training is thawed"
    state = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else trainer.model.state_dict()
    digest = hashlib.sha256()
    for name, parameter in sorted(state.items()):
        digest.update(name.encode() + parameter.detach().float().cpu().numpy().tobytes())
    digests = gather_object([digest.hexdigest()])
    chosen = gather_object([{task: head.chosen() for task, head in run.model.heads.items()}])
    if trainer.args.process_index == 0:
        keep = {
            name for name, p in trainer.accelerator.unwrap_model(trainer.model).named_parameters() if p.requires_grad
        }
        torch.save({name: value for name, value in state.items() if name in keep}, file.with_suffix(".pt"))
        log = [entry for entry in trainer.state.log_history if "loss" in entry]
        file.with_suffix(".log.json").write_text(
            json.dumps(
                {
                    "log": log,
                    "world": trainer.args.world_size,
                    "stopped": run.stopped,
                    "chosen": chosen,
                    "digests": digests,
                }
            )
        )
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
