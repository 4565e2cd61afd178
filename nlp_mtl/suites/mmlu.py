"""MMLU: decoders by the likelihood of the answers' letters, encoders by their multiple-choice head."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from nlp_mtl import bases, sources
from nlp_mtl.checkpoint import SPEC
from nlp_mtl.errors import ConfigError, DataError, UnsupportedError
from nlp_mtl.run import evaluate, recorded
from nlp_mtl.runspec import read_spec
from nlp_mtl.suites.letters import log_likelihoods, prompt
from nlp_mtl.suites.subjects import CATEGORIES
from nlp_mtl.taskfile import Split
from nlp_mtl.tasks import load_tasks
from nlp_mtl.weights import quiet_transformers

TASK, SHOTS, TOKENS = "mmlu", 5, 4096  # so many tokens a pass


@dataclass(frozen=True)
class MMLUScore:
    """How many questions of each subject were answered right.

    Attributes:
        model: what answered.
        how: in words.
        split: whose questions.
        right: subject → questions answered right.
        rows: subject → questions.
        shots: solved questions before each; None for a multiple-choice head.
        shortened: questions with fewer, because the prompt was too long.
        cut: questions cut at the front, because they are too long by themselves.
        scores: for each question the log-likelihoods of the letters; empty for a head.
    """

    model: str
    how: str
    split: str
    right: dict[str, int]
    rows: dict[str, int]
    shots: int | None = None
    shortened: int = 0
    cut: int = 0
    scores: list[list[float]] = field(default_factory=list, repr=False)

    def micro(self, subjects: Sequence[str] | None = None) -> float:
        """The share of questions answered right, as the authors count."""
        chosen = self.rows if subjects is None else subjects
        return sum(self.right[one] for one in chosen) / sum(self.rows[one] for one in chosen)

    def macro(self, subjects: Sequence[str] | None = None) -> float:
        """The mean over subjects of their accuracy."""
        chosen = list(self.rows if subjects is None else subjects)
        return sum(self.right[one] / self.rows[one] for one in chosen) / len(chosen)

    def categories(self) -> dict[str, list[str]]:
        """Category → its subjects that have questions here."""
        found = {name: [one for one in subjects if one in self.rows] for name, subjects in CATEGORIES.items()}
        known = {one for subjects in CATEGORIES.values() for one in subjects}
        found["other"] = [*found["other"], *(one for one in self.rows if one not in known)]
        return {name: subjects for name, subjects in found.items() if subjects}

    def table(self) -> list[dict[str, str]]:
        """One row per category, then all, then one row per subject."""
        lines = [("", name, subjects) for name, subjects in self.categories().items()]
        lines.append(("", "all", list(self.rows)))
        lines += [(one, name, [one]) for name, subjects in self.categories().items() for one in subjects]
        return [
            {
                "category": name,
                "subject": subject,
                "accuracy": f"{100 * self.micro(subjects):.1f}",
                "mean over subjects": "" if subject else f"{100 * self.macro(subjects):.1f}",
                "questions": str(sum(self.rows[one] for one in subjects)),
            }
            for subject, name, subjects in lines
        ]

    def sentences(self) -> list[str]:
        """The accuracy, and what to know of it."""
        micro, rows = self.micro(), sum(self.rows.values())
        half = 1.96 * (micro * (1 - micro) / rows) ** 0.5
        said = [
            f"{self.model}: {100 * micro:.1f} ± {100 * half:.1f} of {rows} {self.split} questions are right, "
            f"{self.how}; guessing has 25."
        ]
        if self.shortened:
            said.append(f"{self.shortened} prompts were too long: the first of their {self.shots} shots were left out.")
        if self.cut:
            said.append(f"{self.cut} questions are too long without any shot: they were cut at the front.")
        known = sum(map(len, CATEGORIES.values()))
        if len(self.rows) < known:
            said.append(f"Only {len(self.rows)} of {known} subjects are there: this is not the MMLU score.")
        return said

    def as_json(self) -> str:
        """All of it for programs, but the letters' likelihoods."""
        said = {key: value for key, value in vars(self).items() if key != "scores"}
        groups = self.categories()
        said["suite"], said["micro"], said["macro"] = TASK, self.micro(), self.macro()
        said["categories"] = {
            name: {"micro": self.micro(subjects), "macro": self.macro(subjects)} for name, subjects in groups.items()
        }
        said["subjects"] = {name: self.micro([name]) for name in self.rows}
        return json.dumps(said, indent=1) + "\n"


def score_mmlu(
    model: str | Path,
    *,
    shots: int | None = None,
    split: Split = "test",
    rows: int | None = None,
    data_root: str | Path | None = None,
    base: str | Path | None = None,
    progress: bool = False,
) -> MMLUScore:
    """Score a decoder, or a run with the task `mmlu`, on MMLU.

    A decoder reads the authors' prompt, and answers with the letter that it finds most likely after "Answer:". A run
    with the task answers by its multiple-choice head.

    Args:
        model: a causal decoder's folder or Hub id; a run folder.
        shots: solved questions before each, from the subject's development questions; default 5. Decoders only.
        split: test as the authors do, or validation.
        rows: at most so many questions of each subject, drawn at random; default all. Decoders only.
        data_root: where data sets are looked for first.
        base: of a run, where its pretrained model is.
        progress: show a bar.

    Raises:
        ConfigError: arguments that do not fit the model.
        UnsupportedError: a model that is no decoder, or has no language-model head.

    References:
        Hendrycks, Burns, Basart, Zou, Mazeika, Song and Steinhardt, "Measuring Massive Multitask Language
        Understanding", 2020, arXiv 2009.03300.

    Cost: one pass over all prompts; with 5 shots they have about 600 tokens each.
    """
    if split == "train":
        raise ConfigError(
            "mmlu: `split` is test or validation, found 'train': those questions are the shots; name another"
        )
    folder = Path(model)
    if (folder / SPEC).is_file() and TASK in {item["name"] for item in read_spec(folder)["tasks"]}:
        if given := [f"--{name}" for name, value in (("shots", shots), ("rows", rows)) if value is not None]:
            raise ConfigError(f"mmlu: {' and '.join(given)} are for decoders, found a run with the task; leave it out")
        return _by_head(folder, split, data_root, base, progress)
    count = SHOTS if shots is None else shots
    if not 0 <= count <= SHOTS or (rows is not None and rows < 1):
        raise ConfigError(f"mmlu: `shots` is 0 to {SHOTS} and `rows` at least 1, found {count} and {rows}; name others")
    return _by_letters(model, count, split, rows, data_root, base, progress)


def _by_head(folder: Path, split: Split, data_root: Any, base: Any, progress: bool) -> MMLUScore:
    task = load_tasks([TASK])[0]
    root = data_root or recorded(folder).get("data_root")
    found = evaluate(folder, split, tasks=[task], data_root=root, base=base, progress=progress)[TASK]
    subjects = sources.load_rows(task, data_root=root)[split]["subject"][:]
    if len(subjects) != len(found.decoded):
        raise DataError(f"mmlu: {len(found.decoded)} answers to {len(subjects)} questions; every question has a label")
    right = [said == wanted for said, wanted in zip(found.decoded, found.references, strict=True)]
    return MMLUScore(str(folder), "by its multiple-choice head", split, *_counted(subjects, right))


def _counted(subjects: Sequence[str], right: Sequence[bool]) -> tuple[dict[str, int], dict[str, int]]:
    names = sorted(set(subjects))
    hits, rows = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for subject, hit in zip(subjects, right, strict=True):
        hits[subject] += bool(hit)
        rows[subject] += 1
    return hits, rows


def _by_letters(
    model: str | Path, shots: int, split: Split, most: int | None, data_root: Any, base: Any, progress: bool
) -> MMLUScore:
    splits = sources.load_rows(load_tasks([TASK])[0], data_root=data_root)
    solved: dict[str, list[Mapping[str, Any]]] = {}
    for row in splits["train"]:
        solved.setdefault(row["subject"], []).append(row)
    asked = chosen_rows(splits[split], most)
    if few := sorted({row["subject"] for row in asked if len(solved.get(row["subject"], [])) < shots}):
        raise DataError(
            f"mmlu: {shots} solved questions of each subject, found fewer of {', '.join(few[:4])}; ask fewer"
        )
    decoder, tokenizer = open_decoder(model, base)
    context = getattr(decoder.config, "max_position_embeddings", None)
    prompts = [prompt(row, solved.get(row["subject"], [])[:shots], tokenizer, context) for row in asked]
    scores: list[list[float]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].context))
    with tqdm(total=len(prompts), desc="mmlu", leave=False, disable=not progress) as bar:
        while order:
            wide = max(1, TOKENS // max(1, len(prompts[order[-1]].context)))  # the longest first
            batch, order = order[-wide:], order[:-wide]
            for number, found in zip(batch, log_likelihoods(decoder, [prompts[i] for i in batch]), strict=True):
                scores[number] = found
            bar.update(len(batch))
    right = [int(np.argmax(found)) == row["answer"] for found, row in zip(scores, asked, strict=True)]
    hits, rows = _counted([row["subject"] for row in asked], right)
    shortened, cut = sum(one.shots < shots for one in prompts), sum(one.cut > 0 for one in prompts)
    how = f"{shots}-shot, by the likelihood of the letters"
    return MMLUScore(str(model), how, split, hits, rows, shots, shortened, cut, scores)


def chosen_rows(rows: Any, most: int | None, *, seed: int = 0) -> list[Mapping[str, Any]]:
    """At most so many questions of each subject, drawn at random, in their order."""
    if most is None:
        return list(rows)
    draw = np.random.default_rng(seed)
    places: dict[str, list[int]] = {}
    for number, subject in enumerate(rows["subject"]):
        places.setdefault(subject, []).append(number)
    kept = sorted(int(n) for numbers in places.values() for n in draw.permutation(numbers)[:most])
    return list(rows.select(kept))


def open_decoder(model: str | Path, base: str | Path | None = None) -> tuple[Any, Any]:
    """A causal decoder with its language-model head, in eval mode, and its tokenizer.

    Raises:
        UnsupportedError: another kind of model; a run that has no language-model head.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    place = Path(model)
    is_run = (place / SPEC).is_file()
    if is_run and not (place / "config.json").is_file():
        raise UnsupportedError(
            f"{model}: a decoder's letters need one ordinary model, found a run whose encoder is none by itself (LoRA, "
            f"or parts of its own); score its base model, or train it with the task {TASK}"
        )
    folder = place if is_run else bases.find_base(base or model).folder
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if type(config) not in AutoModelForCausalLM._model_mapping or getattr(config, "is_encoder_decoder", False):
        raise UnsupportedError(_no_decoder(model, config.model_type))
    with quiet_transformers():
        decoder, info = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
        )
    if not any(getattr(part, "is_causal", False) for part in decoder.modules()):
        raise UnsupportedError(_no_decoder(model, config.model_type))
    if lost := sorted(info["missing_keys"]):
        raise UnsupportedError(
            f"{model}: a decoder with its language-model head, found weights without {lost[0]}; score the model that "
            "it was made of"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return decoder.to(device).eval(), AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _no_decoder(model: Any, kind: str) -> str:
    return (
        f"{model}: MMLU is answered by a causal decoder, or by a run with the task {TASK}, found {kind}; train it with "
        f"tasks=[{TASK}], or name a decoder"
    )
