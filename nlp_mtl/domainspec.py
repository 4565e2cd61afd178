"""What `pseudo_labels` and `importance_weighting` of a run file say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from nlp_mtl.errors import ConfigError, suggestion

if TYPE_CHECKING:
    from nlp_mtl.heads.base import Head


@dataclass(frozen=True)
class PseudoLabels:
    """What `pseudo_labels` of a run file says; what comes of it: :mod:`nlp_mtl.selftraining`.

    Attributes:
        tasks: whose training rows take labels from the model that the run starts from.
        confidence: the probability that a class must have, from 0 (every row) to 1.
        balanced: the same number of rows of each class, the most confident ones.
        most: at most so many rows of each task, the most confident ones.

    Example:
        >>> PseudoLabels.of({"tasks": ["multi_domain_dvd"], "balanced": True}).confidence
        0.9
    """

    tasks: tuple[str, ...]
    confidence: float = 0.9
    balanced: bool = False
    most: int | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> PseudoLabels:
        """Read it.

        Raises:
            ConfigError: every mistake in it.
        """
        mistakes = _unknown("pseudo_labels", given, cls)
        tasks = _tasks("pseudo_labels", "tasks", given, mistakes)
        confidence = given.get("confidence", cls.confidence)
        if not _number(confidence) or not 0 <= confidence <= 1:
            mistakes.append(
                f"pseudo_labels: `confidence` is a probability, from 0 to 1, found {confidence!r}; write 0.9"
            )
        balanced, most = given.get("balanced", False), given.get("most")
        if not isinstance(balanced, bool):
            mistakes.append(f"pseudo_labels: `balanced` is true or false, found {balanced!r}; leave it out for false")
        if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
            mistakes.append(
                f"pseudo_labels: `most` is a number of rows from 1, found {most!r}; leave it out for all that are sure"
            )
        if mistakes:
            raise ConfigError(mistakes)
        return cls(tasks, float(confidence), balanced, most)

    def said(self) -> dict[str, Any]:
        """As it is written down."""
        return {**asdict(self), "tasks": list(self.tasks)}


@dataclass(frozen=True)
class ImportanceWeighting:
    """What `importance_weighting` of a run file says; what comes of it: :mod:`nlp_mtl.importanceweighting`.

    Attributes:
        source: tasks whose training rows are weighted.
        target: tasks whose training texts they are to be like.
        clip: no row counts as more than this many; with 1 all count alike.

    Example:
        >>> ImportanceWeighting.of({"source": "books", "target": ["dvd"]}).source
        ('books',)
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    clip: float = 10.0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> ImportanceWeighting:
        """Read it.

        Raises:
            ConfigError: every mistake in it.
        """
        mistakes = _unknown("importance_weighting", given, cls)
        source = _tasks("importance_weighting", "source", given, mistakes)
        target = _tasks("importance_weighting", "target", given, mistakes)
        clip = given.get("clip", cls.clip)
        if not _number(clip) or not 1 <= clip < float("inf"):
            mistakes.append(f"importance_weighting: `clip` is a number from 1, found {clip!r}; write 10")
        if both := sorted(set(source) & set(target)):
            mistakes.append(
                f"importance_weighting: `source` and `target` are other tasks, found {', '.join(both)} in both; take "
                "it out of one"
            )
        if mistakes:
            raise ConfigError(mistakes)
        return cls(source, target, float(clip))

    def said(self) -> dict[str, Any]:
        """As it is written down."""
        return {"source": list(self.source), "target": list(self.target), "clip": self.clip}


def check_domains(pseudo: Any, weighting: Any, heads: Mapping[str, Head]) -> list[tuple[str, str]]:
    """What is wrong with both keys of a run file: (key, message).

    Args:
        pseudo, weighting: as they stand in it, None where they don't.
        heads: task → head; none if they are not known.
    """
    mistakes: list[tuple[str, str]] = []
    for key, given, kind in (
        ("pseudo_labels", pseudo, PseudoLabels),
        ("importance_weighting", weighting, ImportanceWeighting),
    ):
        if given is None:
            continue
        try:
            read: Any = kind.of(given)
        except ConfigError as error:
            mistakes += [(key, message) for message in error.mistakes]
            continue
        named = (*read.source, *read.target) if isinstance(read, ImportanceWeighting) else read.tasks
        mistakes += [
            (key, f"{key}: {task!r} is not a task of this run{suggestion(task, list(heads))}")
            for task in named
            if heads and task not in heads
        ]
        if isinstance(read, PseudoLabels):
            known = [heads[task] for task in read.tasks if task in heads]
            mistakes += [(key, reason) for head in known if (reason := unsure(head, read))]
    return mistakes


def unsure(head: Head, asked: PseudoLabels) -> str:
    """Why a kind of head can't be sure of a label; empty if it can."""
    from nlp_mtl.heads.token_classification import TokenClassification

    name, kind = head.task.name, head.task.head_name
    if isinstance(head, TokenClassification):
        if asked.balanced or asked.most is not None:
            return (
                f"pseudo_labels: `balanced` and `most` choose among rows, found task {name!r}, whose words are "
                "labelled one by one; leave them out"
            )
        return ""
    if head.gives_scores and not head.label_is_list:
        return ""
    return (
        f"pseudo_labels: a label is taken where one class's probability is high, found task {name!r}, and "
        f"{kind} gives no probability of one class; leave the task out (sequence_classification and "
        "token_classification do)"
    )


def _unknown(key: str, given: Mapping[str, Any], kind: Any) -> list[str]:
    known = [field.name for field in fields(kind)]
    return [f"{key}: takes no {name!r}{suggestion(str(name), known)}" for name in given if name not in known]


def _tasks(key: str, part: str, given: Mapping[str, Any], mistakes: list[str]) -> tuple[str, ...]:
    named = given.get(part)
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, (list, tuple)) or not named or not all(isinstance(task, str) for task in named):
        mistakes.append(f"{key}: `{part}` names tasks of this run, found {given.get(part)!r}; write [multi_domain_dvd]")
        return ()
    return tuple(dict.fromkeys(named))


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
