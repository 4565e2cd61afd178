"""All keys of a search file."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

TOGETHER, ALONE, AFFINITY, FREE = "together", "alone", "affinity", "free"
GROUPINGS = (TOGETHER, ALONE, AFFINITY, FREE)
JOINT, SEQUENTIAL, TUNED, FROZEN = "joint", "sequential", "joint then tuned", "frozen"
STRATEGIES = (JOINT, ALONE, SEQUENTIAL, TUNED, FROZEN)


class Budget(BaseModel):
    """When no new trial is begun; what is reached first ends the search. Finalists and controls come on top.

    Attributes:
        trials: so many.
        rows: training rows that trials were shown, all together; each counts as often as it was shown.
        epochs: the same, counted in epochs over all training rows of the run's tasks.
        minutes: of trials.
    """

    model_config = ConfigDict(extra="forbid")

    trials: Annotated[int, Field(ge=1)] | None = None
    rows: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _some(self) -> Budget:
        if not self.model_fields_set:
            raise ValueError("says at least one of trials, rows, epochs, minutes, found none")
        return self


class SearchFile(BaseModel):
    """All keys of a search file."""

    model_config = ConfigDict(extra="forbid")

    run: str | dict[str, Any] = Field(description="a run file, or its keys; all trials do this, but for:")
    space: dict[str, Any] = Field(
        default_factory=dict,
        description="what is varied: keys of a run file (`lora.r`, `training.learning_rate`), each a list of values or "
        "`{low, high, log, step}`; `grouping`: together, alone, affinity, free, or lists of tasks; `strategy`: joint, "
        "alone, sequential, joint then tuned, frozen",
    )
    budget: Budget = Field(description="`trials`, `rows`, `epochs` or `minutes`, of all trials together")
    encoders: int = Field(default=2, ge=1, description="at most so many groups, where tasks are grouped")
    target: str | None = Field(default=None, description="the one task that counts; the others are there to help it")
    helpers: int = Field(default=2, ge=1, description="at most so many tasks beside the target")
    candidates: list[str | dict[str, Any]] = Field(
        default_factory=list, description="tasks that may help the target: names, tags, or `{name: …, changes}`"
    )
    shortlist: int | None = Field(
        default=None, ge=1, description="so many candidates are tried, the first by affinity; default twice `helpers`"
    )
    affinity: str | Annotated[int, Field(ge=1)] = Field(
        default=60,
        description="a file of `nlp_mtl.affinity`; or how many steps all tasks are trained together for to measure it, "
        "as the mean cosine of their gradients",
    )
    method: Literal["tpe", "random"] = Field(default="tpe", description="how trials are chosen (optuna)")
    pruning: str | dict[str, Any] = Field(
        default="median",
        description="which trials are ended early, by their evaluations in training: `median` (`after: 4`, so many "
        "trials never are; `wait: 0`, nor before so many evaluations), `hyperband` (`reduction: 3`), `none`; those in "
        "stages are not",
    )
    seed: int = Field(default=0, ge=0, description="of the search, and `training.seed` of all trials")
    seeds: Annotated[list[int], Field(min_length=1)] = Field(
        default_factory=lambda: [0, 1, 2], description="`training.seed` of finalists and controls"
    )
    finalists: int = Field(default=2, ge=1, description="so many of the best trials are trained with all seeds")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.95, description="of the intervals")
    output_dir: str = Field(default="runs/search", description="folder of the trials and results")

    EXAMPLES: ClassVar[dict[str, str]] = {
        "run": "{model: bert-base-cased, tasks: [cola, mrpc, rte]}",
        "space": "{grouping: [together, free], training.learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}}",
        "budget": "{trials: 20}",
        "encoders": "2",
        "target": "rte",
        "helpers": "2",
        "candidates": "[mrpc, stsb, cola]",
        "shortlist": "4",
        "affinity": "60",
        "method": "tpe",
        "pruning": "median",
        "seed": "0",
        "seeds": "[0, 1, 2]",
        "finalists": "2",
        "confidence": "0.95",
        "output_dir": "runs/search",
    }


OWN = ("output_dir", "seeds", "seed", "finalists", "confidence", "budget", "encoders", "helpers", "pruning", "method")
LATER = ("seeds", "finalists", "confidence", "budget", "output_dir")  # may change when a search is gone on with
