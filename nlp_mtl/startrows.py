"""What the model that a run starts from says about its training rows: pseudo-labels, importance weights.

It is said once, before the first step, by the first process, and written into the run folder when the run begins: a
resumed run trains on the same, to the bit, whatever became of the model it started from.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_mtl import checkpoint
from nlp_mtl.callbacks import AtBegin
from nlp_mtl.data import Data, load_data
from nlp_mtl.domainspec import ImportanceWeighting, PseudoLabels
from nlp_mtl.errors import RunFolderError
from nlp_mtl.importanceweighting import Weights, importance_weights, with_weights
from nlp_mtl.selftraining import Given, pseudo_labels_of, with_labels

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from nlp_mtl.model import MultiTaskModel

logger = logging.getLogger("nlp_mtl")
FILE = "start_rows.json"


class StartWritten(AtBegin):
    """Writes what a run begins with when it begins; a class of its own, since a trainer has one callback of each."""


@dataclass
class StartRows:
    """Labels and weights of training rows, with what was asked.

    Attributes:
        labels: task → pseudo-labels.
        weights: task → importance weights.
        asked: what the run file said of both.
    """

    labels: dict[str, Given] = field(default_factory=dict)
    weights: dict[str, Weights] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)

    def put_into(self, data: Data) -> Data:
        """The same data with these labels and weights."""
        data = with_labels(data, self.labels) if self.labels else data
        return with_weights(data, self.weights) if self.weights else data

    def write(self, folder: str | Path) -> None:
        """Write ``start_rows.json`` into a run folder."""
        labels = {
            task: {"rows": len(one.labels), "given": one.rows, "counts": one.counts, "agreement": one.agreement}
            for task, one in self.labels.items()
        }
        weights = {
            task: {"rows": len(one.weights), "effective": round(one.effective, 1), "largest": max(one.weights)}
            for task, one in self.weights.items()
        }
        said = {
            "format": checkpoint.FORMAT,
            "asked": self.asked,
            "summary": {"pseudo_labels": labels, "importance_weighting": weights},
            "labels": {task: {"key": one.key, "labels": one.labels} for task, one in self.labels.items()},
            "weights": {task: {"key": one.key, "weights": one.weights} for task, one in self.weights.items()},
        }
        Path(folder).mkdir(parents=True, exist_ok=True)
        checkpoint.write_text(Path(folder) / FILE, json.dumps(said, ensure_ascii=False))

    @classmethod
    def read(cls, folder: str | Path, asked: Mapping[str, Any]) -> StartRows:
        """What a run began with.

        Args:
            folder: of the run.
            asked: what its run file says now.

        Raises:
            RunFolderError: the file is missing or damaged, or the run began with something else.
        """
        file = Path(folder) / FILE
        try:
            said = json.loads(file.read_text(encoding="utf-8"))
            facts, began = said["summary"]["pseudo_labels"], said["asked"]
            labels = {
                task: Given(one["labels"], facts[task]["counts"], facts[task]["agreement"], one["key"])
                for task, one in said["labels"].items()
            }
            weights = {task: Weights(one["weights"], one["key"]) for task, one in said["weights"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunFolderError(
                f"{file}: holds the labels and weights that the run began with, and can't be read ({error}); copy the "
                "folder again, or begin anew with --overwrite"
            ) from None
        if began != dict(asked):
            raise RunFolderError(
                f"--resume: the run in {folder} began with {json.dumps(began)}, found {json.dumps(dict(asked))} in the "
                "run file; say the same, or begin anew with --overwrite"
            )
        return cls(labels, weights, began)


def start_rows(
    model: MultiTaskModel, settings: Any, args: TrainingArguments, resume_from: str | Path | None = None
) -> tuple[Data, StartRows] | None:
    """The data of a run whose training rows the start model is asked about; None for other runs.

    Args:
        model: as the run starts with it.
        settings: the run file: `pseudo_labels`, `importance_weighting`, `data_root`.
        args: the Trainer's arguments.
        resume_from: the checkpoint that the run goes on from; what it began with is then read from the run folder.

    Raises:
        ConfigError: tasks that can't be asked about.
        RunFolderError: a run that can't go on with what it began with.
    """
    labels, weighting = settings.pseudo_labels, settings.importance_weighting
    if labels is None and weighting is None:
        return None
    labels = None if labels is None else PseudoLabels.of(labels)
    weighting = None if weighting is None else ImportanceWeighting.of(weighting)
    asked = {
        key: given.said()
        for key, given in (("pseudo_labels", labels), ("importance_weighting", weighting))
        if given is not None
    }
    with args.main_process_first(desc="tokenizing"):
        data = load_data(model.heads, model.tokenizer, max_length=model.max_length, data_root=settings.data_root)
    if resume_from is not None:
        found = StartRows.read(Path(resume_from).parent, asked)
        return found.put_into(data), found
    held: list[Any] = [None]
    if args.process_index == 0:
        place = model.device
        model.to(args.device)
        found = StartRows(asked=asked)
        if labels is not None:
            found.labels = pseudo_labels_of(model, data, labels)
        if weighting is not None:
            found.weights = importance_weights(model, data, weighting, seed=args.seed)
        model.to(place)
        held = [found]
    if args.world_size > 1:
        from accelerate.utils import broadcast_object_list

        broadcast_object_list(held)
    return held[0].put_into(data), held[0]
