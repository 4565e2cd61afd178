"""Words in the place of others, chosen by the gradient so as to mislead a classifier (HotFlip)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from nlp_mtl.data import PoolRows
from nlp_mtl.embedded import gradients_through
from nlp_mtl.errors import ConfigError
from nlp_mtl.findings import Finding, Table, write_finding
from nlp_mtl.robustness.flipping import at_random, flip, shown, slopes_of, with_texts, words_in
from nlp_mtl.robustness.neighbours import Neighbours
from nlp_mtl.robustness.opening import is_classification, open_run, some_rows

HEAD = ("task", "rows", "accuracy", "under attack", "random words", "words changed", "passes per row")


@dataclass(frozen=True)
class Example:
    """A text that misled: before and after, with the labels that were given."""

    task: str
    text: str
    changed: str
    before: str
    after: str


@dataclass
class Attacked:
    """What an attack did to one task.

    Attributes:
        task, rows: whose, and how many.
        accuracy, attacked, chance: accuracy on the texts as they are, attacked, and with as many random substitutes.
        share: mean share of words that the attack changed, of rows that were right before.
        passes: forward passes for each such row.
        examples: texts that misled.
    """

    task: str
    rows: int
    accuracy: float
    attacked: float
    chance: float
    share: float
    passes: float
    examples: list[Example] = field(default_factory=list)


@dataclass
class Attack:
    """An attack on several tasks."""

    tasks: list[Attacked]

    def table(self) -> list[tuple[str, ...]]:
        """A row for each task, as text; see :data:`HEAD`."""
        return [
            (
                one.task,
                str(one.rows),
                f"{one.accuracy:.3f}",
                f"{one.attacked:.3f}",
                f"{one.chance:.3f}",
                f"{one.share:.1%}",
                f"{one.passes:.1f}",
            )
            for one in self.tasks
        ]

    def examples(self) -> list[Example]:
        """Texts that misled, of all tasks."""
        return [example for one in self.tasks for example in one.examples]

    def finding(self) -> Finding:
        """For the run's report."""
        said = [
            f"{one.task}: accuracy {one.accuracy:.3f} falls to {one.attacked:.3f} when {one.share:.0%} of the words "
            f"are chosen by the gradient, and to {one.chance:.3f} when as many are chosen at random."
            for one in self.tasks
        ]
        shown = [(one.task, one.before, one.after, one.text, one.changed) for one in self.examples()[:12]]
        tables = [Table("Accuracy under attack", HEAD, self.table())]
        if shown:
            tables.append(Table("Texts that misled", ("task", "was", "became", "text", "changed text"), shown))
        data = [{**vars(one), "examples": [vars(example) for example in one.examples]} for one in self.tasks]
        return Finding("attack", "Words chosen to mislead", said, tables, (), {"tasks": data})


def attack_run(
    run: str | Path,
    tasks: Sequence[str],
    *,
    rows: int = 100,
    share: float = 0.2,
    similarity: float = 0.4,
    split: str = "validation",
    seed: int = 0,
    data_root: str | Path | None = None,
    base: str | Path | None = None,
    progress: bool = False,
) -> Attack:
    """Attack classification tasks of a run; writes the finding `attack` beside it.

    Word by word, the substitute with the greatest first-order rise of the loss is taken, among words whose embeddings
    are near, until the prediction changes or the share of words is used up (one word at least).

    Args:
        run: a run folder.
        tasks: names, of classification tasks.
        rows: at most so many labelled rows of each.
        share: of a text's words that may be changed, above 0 and at most 1.
        similarity: the least cosine of a word and its substitute, in the model's own embeddings.
        split, seed, data_root, base, progress: see :func:`nlp_mtl.robustness.study.check_robustness`.

    Raises:
        ConfigError: wrong arguments, or tasks of another kind.
        UnsupportedError: tasks that do not share one encoder's embeddings.

    Relations: HotFlip (Ebrahimi et al., 2018, arXiv:1712.06751) for words, greedy; near embeddings stand for synonyms,
    so a label may be wrong after it: random substitutes of the same number beside it say how much that matters.

    cost: one forward and one backward pass of a row for each word that is changed.
    """
    mistakes = []
    for name, value, least in (("share", share, 0.0), ("similarity", similarity, -1.0)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= 1 or value == least:
            mistakes.append(f"attack: `{name}` is a number above {least:g} and at most 1, found {value!r}")
    if not tasks:
        mistakes.append("attack: `tasks` names classification tasks, found none; name one")
    if mistakes:
        raise ConfigError(mistakes)
    folder, model, data = open_run(
        "attack", run, tasks, split=split, rows=rows, seed=seed, data_root=data_root, base=base
    )
    pools = {task: some_rows(data, task, split, rows, seed) for task in data.heads}
    mistakes = [
        f"attack: {task} is {head.task.head_name}, and only sequence_classification is attacked; leave it out"
        for task, head in data.heads.items()
        if not is_classification(head)
    ]
    mistakes += [f"attack: {task} has no labelled {split} rows" for task, pool in pools.items() if pool is None]
    if mistakes:
        raise ConfigError(mistakes)
    near, found = Neighbours(model, similarity=similarity), []
    for task, pool in tqdm(pools.items(), desc="attack", unit="task", disable=not progress, leave=False):
        assert pool is not None
        found.append(attacked(model, pool, data.heads[task], near, share=share, seed=seed))
    made = Attack(found)
    write_finding(folder, made.finding())
    return made


def attacked(model: Any, pool: PoolRows, head: Any, near: Neighbours, *, share: float, seed: int = 0) -> Attacked:
    """Attack some rows of a task.

    Args:
        model: in eval mode.
        pool: rows of one task, with labels.
        head: the task's.
        near: what a word may become.
        share: of the words.
        seed: of the random substitutes.
    """
    task = head.task.name
    names = [column for column in head.needed_columns() if column in pool.table.column_names]
    texts = [[words_in(pool.table[column][row]) for column in names] for row in range(len(pool))]
    given = [[list(words) for words in text] for text in texts]
    labels = np.array(pool.labels(task))
    budget = [max(1, int(share * sum(map(len, text)))) for text in texts]
    used: list[set[tuple[int, int]]] = [set() for _ in texts]
    first: np.ndarray | None = None
    active, passes = np.arange(len(pool)), np.zeros(len(pool))
    last = np.zeros(len(pool), dtype=int)
    with gradients_through(model, "attack"):
        while len(active):
            part = with_texts(pool, head, model, names, texts, active)
            guessed, slopes = slopes_of(model, part, head)
            last[active] = guessed
            passes[active] += 1
            first = guessed.copy() if first is None else first
            right = guessed == labels[active]
            still = []
            for place, row in enumerate(active):
                if right[place] and len(used[row]) < budget[row] and flip(texts[row], used[row], near, slopes[place]):
                    still.append(row)
            active = np.array(still, dtype=int)
    assert first is not None
    was = first == labels
    chance = [[list(words) for words in text] for text in given]
    draw = random.Random(seed)
    for number, text in enumerate(chance):
        at_random(text, len(used[number]), near, draw)
    whole = np.arange(len(pool))
    by_chance, _ = slopes_of(model, with_texts(pool, head, model, names, chance, whole), head, slopes=False)
    fooled = [row for row in range(len(pool)) if was[row] and last[row] != labels[row]]
    named = head.labels or []
    sizes = [len(used[row]) / max(1, sum(map(len, given[row]))) for row in range(len(pool)) if was[row]]
    return Attacked(
        task,
        len(pool),
        float(was.mean()),
        float((last == labels).mean()),
        float((was & (by_chance == labels)).mean()),
        float(np.mean(sizes)) if sizes else 0.0,
        float(passes[was].mean()) if was.any() else 0.0,
        [
            Example(task, shown(given[row]), shown(texts[row]), named[labels[row]], named[last[row]])
            for row in fooled[:10]
        ],
    )
