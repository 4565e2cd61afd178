"""What a search found, in numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlp_mtl.affinity import Affinity
from nlp_mtl.searching.choosing import ranked
from nlp_mtl.searching.finals import ALL_TOGETHER, AS_GIVEN, LONGER, NO_HELPERS, Final
from nlp_mtl.searching.plan import Plan
from nlp_mtl.searching.trials import Trial
from nlp_mtl.studies.statistics import Interval, corrected, interval, verdict

FORMAT = 1
SIMPLER = (NO_HELPERS, LONGER, ALL_TOGETHER, AS_GIVEN)  # controls that need less than the winner


@dataclass
class Search:
    """What a search found.

    Attributes:
        plan: what was asked for.
        trials: all that are over.
        affinity: of the tasks, where it was asked for.
        winner: the best finalist; None while it is not known.
        finals: name → finalists and controls.
        controls: names of those among them that are controls.
        stopped: whether it was stopped before all was done.
    """

    plan: Plan
    trials: list[Trial]
    affinity: Affinity | None
    winner: str | None = None
    finals: dict[str, Final] = field(default_factory=dict)
    controls: tuple[str, ...] = ()
    stopped: bool = False

    @property
    def folder(self) -> Path:
        """Where it is written."""
        return self.plan.folder

    @property
    def best(self) -> Final | None:
        """The winner."""
        return self.finals.get(self.winner or "")

    def held_out(self, name: str) -> Interval | None:
        """The score on the held-out half, over seeds."""
        values = [self.plan.score(one) for one in self.finals[name].held_out.values()]
        return interval(values, self.plan.file.confidence) if values else None

    def selecting(self, name: str) -> Interval | None:
        """The score on the half that selected, over seeds; of the winner it is optimistic."""
        values = [self.plan.score(one) for one in self.finals[name].selecting.values()]
        return interval(values, self.plan.file.confidence) if values else None

    def against(self, name: str) -> Interval | None:
        """The winner minus a control on the held-out half, seed by seed; None where no seed has both."""
        if self.best is None:
            return None
        own, other = self.best.held_out, self.finals[name].held_out
        both = [self.plan.score(own[seed]) - self.plan.score(other[seed]) for seed in own if seed in other]
        return interval(both, self.plan.file.confidence) if both else None

    def shown(self, name: str) -> str:
        """What the paired differences to a control show, as wide as all controls together need (Bonferroni)."""
        found = self.against(name)
        if found is None:
            return "—"
        return verdict(corrected(found, self.plan.file.confidence, max(1, len(self.controls))))

    @property
    def simpler(self) -> str | None:
        """A control that needs less than the winner, and is not shown to be worse: by the selecting half the best."""
        equal = [name for name in self.controls if name in SIMPLER and self.shown(name) not in ("better", "—")]
        found = {name: score.mean for name in equal if (score := self.selecting(name)) is not None}
        return max(found, key=lambda name: found[name], default=None)

    def table(self) -> list[dict[str, str]]:
        """A row for each finalist and control, as text."""
        rows = []
        for name, final in self.finals.items():
            kind = "control" if name in self.controls else "chosen" if name == self.winner else "finalist"
            apart = self.against(name) if name in self.controls else None
            rows.append(
                {
                    "way": name,
                    "": kind,
                    "models": str(final.models),
                    "rows shown": f"{final.rows:,}",
                    "selecting half": str(self.selecting(name) or "—"),
                    "held-out half": str(self.held_out(name) or "—"),
                    "chosen − this": "—" if apart is None else signed(apart),
                    "shown": self.shown(name) if name in self.controls else "—",
                }
            )
        return rows

    def trial_table(self) -> list[dict[str, str]]:
        """A row for each trial, as text."""
        return [
            {
                "trial": str(trial.number),
                "what": trial.choice.said() if trial.choice else "—",
                "selecting half": "—" if trial.score is None else f"{trial.score:.4f}",
                "rows": f"{trial.rows:,}",
                "state": trial.state + (f": {trial.why.splitlines()[0]}" if trial.why else ""),
            }
            for trial in self.trials
        ]

    def sentences(self) -> list[str]:
        """Which way to use, how sure that is, and what rows and affinity say."""
        if self.best is None or not self.best.held_out:
            return ["No way is known yet: no finalist came to an end."]
        choice = self.best.choices[next(iter(self.best.choices))]
        seeds, own = len(self.best.held_out), self.held_out(self.winner or "")
        simpler = self.simpler
        use = "Use best.yaml" if simpler is None else "The search chose best.yaml"
        said = [f"{use} ({self.winner}): {choice.said()}."]
        if simpler is not None:
            said.append(
                f"Use simpler.yaml ({simpler}) instead: it needs less, and the chosen way is not shown to be better."
            )
        said.append(
            f"On the half of the validation rows that the search never saw it scores {own}, over {seeds} seed(s)."
        )
        equal = []
        for name in self.controls:
            found = self.against(name)
            if found is None:
                why = next((one.splitlines()[0] for one in self.finals[name].failed.values()), "not trained yet")
                said.append(f"{name}: no score, so no comparison ({why}).")
                continue
            said.append(f"Against {name}: {signed(found)}, {self.shown(name)}.")
            equal += [name] if self.shown(name) not in ("better", "worse") else []
            if self.shown(name) == "worse":
                said.append(f"The search chose worse than {name}.")
        if simple := [name for name in equal if name in SIMPLER]:
            said.append(
                f"The difference to {' and '.join(simple)} lies within the noise of seeds: more seeds, or more "
                "validation rows, could tell them apart."
            )
        elif equal and self.plan.target is None and len(choice.groups) == 1:
            said.append(f"It needs one encoder for all tasks; {' and '.join(equal)} are not shown to be better.")
        elif equal:
            said.append(f"The choice itself is not shown to matter: {' and '.join(equal)} may be as good.")
        return [*said, *self._why()]

    def _why(self) -> list[str]:
        """What rows and affinity say of the winner's groups."""
        plan, found = self.plan, []
        choice = next(iter(self.best.choices.values())) if self.best else None
        for group in choice.groups if choice else ():
            for task in group.serves:
                others = [one for one in group.tasks if one != task]
                line = f"{task}: {plan.rows[task]:,} training rows"
                if not others:
                    line += ", trained alone"
                elif self.affinity is not None:
                    column = self.affinity.tasks.index(task)
                    near = {one: float(self.affinity.values[self.affinity.tasks.index(one), column]) for one in others}
                    line += ", with " + ", ".join(
                        f"{one} ({plan.rows[one]:,} rows, affinity {value:+.3f})" for one, value in near.items()
                    )
                else:
                    line += ", with " + ", ".join(f"{one} ({plan.rows[one]:,} rows)" for one in others)
                found.append(line + ".")
        if plan.target is not None and self.affinity is not None:
            order = [f"{task} {value:+.3f}" for task, value in ranked(plan, self.affinity)]
            found.append(f"Candidates by {self.affinity.measure} to {plan.target}: {', '.join(order)}.")
        return found

    def as_json(self) -> dict[str, Any]:
        """Everything, for ``search.json``."""
        return {
            "format": FORMAT,
            "target": self.plan.target,
            "tasks": {
                task: {"rows": self.plan.rows[task], "metric": self.plan.first[task][0]} for task in self.plan.items
            },
            "left_out": self.plan.left_out,
            "selects_by": "half of the validation rows, by a hash of the inputs",
            "reports": "the other half, which no trial, pruning, best step or finalist was chosen by",
            "affinity": None if self.affinity is None else self.affinity.as_json(),
            "trials": [_trial(one) for one in self.trials],
            "chosen": self.winner,
            "simpler": self.simpler,
            "finals": {name: self._final(name, final) for name, final in self.finals.items()},
            "confidence": self.plan.file.confidence,
            "said": self.sentences(),
            "stopped": self.stopped,
        }

    def _final(self, name: str, final: Final) -> dict[str, Any]:
        apart = self.against(name) if name in self.controls else None
        return {
            "control": name in self.controls,
            "models": final.models,
            "rows_shown": final.rows,
            "choices": {str(seed): choice.said() for seed, choice in final.choices.items()},
            "selecting": {str(seed): one for seed, one in final.selecting.items()},
            "held_out": {str(seed): one for seed, one in final.held_out.items()},
            "chosen_minus_this": None if apart is None else plain(apart),
            "shown": self.shown(name) if name in self.controls else None,
            "failed": {str(seed): why for seed, why in final.failed.items()},
        }

    def markdown(self) -> str:
        """The sentences and tables."""
        metrics = ", ".join(f"{task}: {self.plan.first[task][0]}" for task in self.plan.judged)
        lines = ["# Search", "", *(f"{one}\n" for one in self.sentences())]
        if self.finals:
            lines += ["## Finalists and controls", "", *_lines(self.table()), ""]
            lines += [
                f"Scores are the mean of {metrics}, with {self.plan.file.confidence:.0%} intervals over seeds. The "
                "selecting half of the validation rows chose trials, best steps and the finalist, so the chosen way's "
                "score there is optimistic; the held-out half, drawn by a hash of the inputs, was scored afterwards "
                "and chose nothing. Controls have the chosen way's other settings and, but for "
                f"“{NO_HELPERS}”, its rows shown in training. `shown` corrects for {len(self.controls)} control(s) "
                "(Bonferroni).",
                "",
            ]
        lines += ["## Trials", "", *(_lines(self.trial_table()) if self.trials else ["None came to an end."]), ""]
        lines += [f"{task} was left out: {why}" for task, why in self.plan.left_out.items()]
        lines += [
            f"{name}, seed {seed} failed: {why}" for name, f in self.finals.items() for seed, why in f.failed.items()
        ]
        return "\n".join(lines).rstrip() + "\n"


def _trial(one: Trial) -> dict[str, Any]:
    return {
        "number": one.number,
        "what": one.choice.said() if one.choice else None,
        "state": one.state,
        "score": None if one.score is None else round(one.score, 6),
        "scores": one.scores,
        "rows": one.rows,
        "seconds": one.seconds,
        "evaluations": {str(step): round(value, 6) for step, value in one.curve.items()},
        "why": one.why,
    }


def plain(found: Interval) -> dict[str, Any]:
    """An interval for a file."""
    half = None if math.isnan(found.half) else round(found.half, 6)
    return {"mean": round(found.mean, 6), "half": half, "count": found.count}


def signed(found: Interval) -> str:
    """A difference with its interval, e.g. ``+0.012 ± 0.020``."""
    return f"{found.mean:+.3f}" + ("" if math.isnan(found.half) else f" ± {found.half:.3f}")


def _lines(rows: list[dict[str, str]]) -> list[str]:
    head: Mapping[str, str] = {key: key for key in rows[0]}
    cells = [list(head.values()), ["---"] * len(head), *(list(row.values()) for row in rows)]
    return ["| " + " | ".join(one.replace("|", "\\|") for one in row) + " |" for row in cells]
