"""A search: what it selects by is not what it reports, it goes on where it was, and it stands beside its controls."""

from __future__ import annotations

import json
import os
import random
import signal

import numpy as np
import pytest
from transformers import TrainerCallback

from nlp_mtl import search, train, yamlfile
from nlp_mtl.affinity import Affinity
from nlp_mtl.config import load_config
from nlp_mtl.errors import ConfigError, RunFolderError
from nlp_mtl.searching import trials
from nlp_mtl.searching.cheap import measured
from nlp_mtl.searching.finals import Final, controls_of, random_groups
from nlp_mtl.searching.plan import load_search
from nlp_mtl.searching.result import Search
from nlp_mtl.searching.trials import run_trials, way_of
from nlp_mtl.searching.ways import Choice, make_way
from nlp_mtl.sources import load_rows
from nlp_mtl.studies.statistics import interval
from nlp_mtl.taskgroups.proposal import Group
from nlp_mtl.tasks import load_tasks
from tests.integration.tiny import WORDS, config, write_base

TASKS = ("rain", "house", "count")


def write_small(folder, flipped=None):
    """Three small tasks; of rows that `flipped` holds by task, the validation labels are turned around."""
    folder.mkdir()
    draw = random.Random(0)
    for name, word in zip(TASKS, ("rain", "house", "cat"), strict=True):
        made = []
        for number in range(64):
            text = " ".join([*draw.choices(WORDS, k=5), *([word] if number % 2 else [])])
            made.append({"text": text, "label": "yes" if word in text.split() else "no"})
        for row in made:
            if flipped and row["text"] in flipped[name]:
                row["label"] = {"yes": "no", "no": "yes"}[row["label"]]
        for split, part in (("train", made[:24]), ("validation", made[24:])):
            lines = "".join(json.dumps(row) + "\n" for row in part)
            (folder / f"{name}-{split}.jsonl").write_text(lines, encoding="utf-8")
        files = {split: f"{name}-{split}.jsonl" for split in ("train", "validation")}
        said = {"name": name, "head": "sequence_classification", "inputs": ["text"], "target": "label"}
        said |= {"labels": ["no", "yes"], "dataset": {"path": "json", "data_files": files}}
        (folder / f"{name}.yaml").write_text(json.dumps(said), encoding="utf-8")
    return [str(folder / f"{name}.yaml") for name in TASKS]


class Interrupt(TrainerCallback):
    """Ctrl-C in the first step."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("search")


def keys_of(place, data="data", tasks=3, **changes):
    folder = place / data
    files = [str(folder / f"{name}.yaml") for name in TASKS] if folder.is_dir() else write_small(folder)
    base = str(place / "base") if (place / "base").is_dir() else write_base(place / "base")
    training = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2, "logging_steps": 100}
    run = config(base, files[:tasks], place / "nowhere", training=training)
    return {"run": run, "seeds": [0], "finalists": 1, "affinity": 3, **changes}


@pytest.fixture(scope="module")
def whole(place):
    """A search over groups and learning rates with pruning, that nothing interrupts."""
    space = {"training.learning_rate": {"low": 1e-6, "high": 1e-2, "log": True}, "grouping": ["together", "free"]}
    keys = keys_of(place, space=space, budget={"trials": 5}, output_dir=str(place / "whole"))
    keys["pruning"] = {"name": "median", "after": 1}
    return keys, search(keys)


@pytest.fixture(scope="module")
def helped(place):
    """A search for one task's helpers."""
    keys = keys_of(
        place, tasks=1, target="rain", candidates=[str(place / "data" / f"{name}.yaml") for name in TASKS[1:]]
    )
    keys["run"]["lora"] = {"r": 2, "target_modules": ["query", "value"]}
    keys |= {"helpers": 1, "budget": {"trials": 2}}
    return keys, search({**keys, "output_dir": str(place / "helped")})


def told(found):
    """What trials were, but for how long they took."""
    return [(one.number, one.choice, one.state, one.score, one.scores, one.rows, one.curve) for one in found]


def test_an_interrupted_search_does_the_trials_that_it_would_have_done(place, whole, monkeypatch):
    keys, found = whole
    assert {trial.state for trial in found.trials} >= {"done", "pruned"}
    began = []
    again = trials.do_run

    def interrupted(run, callbacks=()):
        began.append(run.method)
        return again(run, [*callbacks, *([Interrupt()] if len(began) in (2, 5) else [])])

    monkeypatch.setattr(trials, "do_run", interrupted)
    plan = load_search({**keys, "output_dir": str(place / "cut")})
    plan.folder.mkdir()
    first, stopped = run_trials(plan, None)
    assert stopped
    assert [trial.number for trial in first] == [0]
    second, stopped = run_trials(plan, None)
    assert stopped
    assert len(second) < 5
    third, stopped = run_trials(plan, None)
    assert not stopped
    assert told(third) == told(found.trials)
    assert len(began) == len(set(began)) + 2, "only what was cut off was done again"


def test_a_search_that_is_done_does_nothing_again(place, whole, monkeypatch):
    keys, found = whole
    before = {file: file.stat().st_mtime_ns for file in (place / "whole").rglob("metrics.json")}
    monkeypatch.setattr(trials, "do_run", None)
    again = search(keys)
    assert told(again.trials) == told(found.trials)
    assert again.table() == found.table()
    assert before == {file: file.stat().st_mtime_ns for file in (place / "whole").rglob("metrics.json")}
    with pytest.raises(RunFolderError, match="another search than this one's is there"):
        search({**keys, "encoders": 3})


def test_pruned_trials_were_worse_than_half_of_the_earlier_ones_and_cost_less(whole):
    _, found = whole
    for pruned in [trial for trial in found.trials if trial.state == "pruned"]:
        last = max(pruned.curve)
        earlier = sorted(one.curve[last] for one in found.trials if one.state == "done" and last in one.curve)
        assert max(pruned.curve.values()) < earlier[-1]
        assert pruned.number >= 1
        assert pruned.rows < max(trial.rows for trial in found.trials)
        assert pruned.score is None


def test_groups_stand_beside_all_together_and_random_groups(place, whole):
    _, found = whole
    assert found.best is not None
    choice = found.best.choices[0]
    assert set(found.controls) <= {"all together", "random groups"}
    assert "random groups" in found.controls
    assert ("all together" in found.controls) == (len(choice.groups) > 1)
    for name in found.controls:
        assert all(one.changes == choice.changes for one in found.finals[name].choices.values())
        assert any(name in sentence for sentence in found.sentences())
    said = json.loads((place / "whole" / "search.json").read_text())
    assert said["chosen"] == found.winner
    assert {name for name, one in said["finals"].items() if one["control"]} == set(found.controls)
    text = (place / "whole" / "search.md").read_text()
    assert all(sentence in text for sentence in found.sentences())
    assert "<svg" in (place / "whole" / "search.svg").read_text()


def test_what_it_selects_by_and_what_it_reports_have_no_row_in_common(place, whole):
    keys, found = whole
    for file, task in zip(keys["run"]["tasks"], TASKS, strict=True):
        (own,), (halved,) = load_tasks([file]), load_tasks([found.plan.halved[task]])
        rows, parted = load_rows(own), load_rows(halved)
        selecting, held_out = (set(parted[split]["text"][:]) for split in ("validation", "test"))
        assert not selecting & held_out
        assert sorted([*parted["validation"]["text"], *parted["test"]["text"]]) == sorted(rows["validation"]["text"])
        assert parted["train"]["text"][:] == rows["train"]["text"][:]
        assert found.plan.rows[task] == 24


def test_labels_of_the_held_out_half_have_no_say_in_the_search(place, helped):
    keys, found = helped
    (halved,) = load_tasks([found.plan.halved["rain"]])
    unseen = {**dict.fromkeys(TASKS, ()), "rain": set(load_rows(halved)["test"]["text"][:])}
    files = write_small(place / "flipped", unseen)
    changed = {**keys, "run": {**keys["run"], "tasks": files[:1]}, "candidates": files[1:]}
    plan = load_search({**changed, "output_dir": str(place / "other")})
    plan.folder.mkdir()
    (own,) = load_tasks([plan.halved["rain"]])
    assert load_rows(own)["validation"][:] == load_rows(halved)["validation"][:]
    labels = [load_rows(task)["test"]["label"][:] for task in (own, halved)]
    assert all(one != other for one, other in zip(*labels, strict=True))
    affinity, spent = measured(plan)
    assert affinity is not None and found.affinity is not None
    assert np.array_equal(affinity.values, found.affinity.values)
    assert told(run_trials(plan, affinity, spent)[0]) == told(found.trials)


def test_a_targets_helpers_stand_beside_none_and_random_ones(place, helped):
    _, found = helped
    assert found.best is not None and found.affinity is not None
    assert Affinity.load(place / "helped" / "affinity.json").tasks == found.affinity.tasks
    first = found.trials[0].choice
    column = found.affinity.tasks.index("rain")
    best = max(TASKS[1:], key=lambda task: found.affinity.values[found.affinity.tasks.index(task), column])
    assert first.groups[0].helpers == (best,), "the first trial takes the first by affinity"
    assert set(found.controls) <= {"no helpers", "no helpers, as many rows", "random helpers"}
    helpers = found.best.choices[0].groups[0].helpers
    assert ("no helpers" in found.controls) == bool(helpers)
    for choice in found.finals["random helpers"].choices.values():
        assert len(choice.groups[0].helpers) == max(1, len(helpers))
        assert set(choice.groups[0].helpers) != set(helpers)
        assert choice.strategy == found.best.choices[0].strategy
    assert any("Candidates by mean cosine of gradients to rain" in one for one in found.sentences())


def test_the_run_file_it_ends_with_trains_on_all_validation_rows(place, helped):
    file = place / "helped" / "best.yaml"
    assert file.read_text().startswith(f"# nlp-mtl train {file}")
    run = train(file, [f"training.output_dir={place / 'again'}"])
    assert run.scores["rain"].rows == 40
    _, found = helped
    simpler = place / "helped" / "simpler.yaml"
    assert simpler.is_file() == (found.simpler is not None)
    if found.simpler is not None:
        assert [task.name for task in load_tasks(load_config(simpler).tasks)] == ["rain"]


def planned(place, **changes):
    return load_search(keys_of(place, output_dir=str(place / "nothing"), budget={"trials": 1}, **changes))


@pytest.mark.parametrize("strategy", ["joint", "sequential", "joint then tuned", "frozen"])
@pytest.mark.parametrize("effort", [{"max_steps": 12}, {"max_steps": -1, "num_train_epochs": 2}], ids=str)
def test_every_way_shows_as_many_rows_and_serves_every_task(place, strategy, effort):
    plan = planned(place, space={"grouping": ["together"]})
    keys = {**plan.keys, "training": {**plan.keys["training"], **effort}}
    groups = [
        (Group(TASKS, TASKS),),
        (Group(TASKS[:2], TASKS[:2]), Group(TASKS[2:], TASKS[2:])),
        tuple(Group((task,), (task,)) for task in TASKS),
    ]
    for some in groups:
        way = make_way(keys, plan.items, Choice(some, strategy), plan.rows)
        assert set(way.serves) == set(TASKS)
        assert way.rows == pytest.approx(96 if effort["max_steps"] > 0 else 144, abs=8)
        assert way.keys.get("freeze") == "*" if strategy == "frozen" and len(some) == 1 else True
        stages = way.keys.get("stages") or [way.keys]
        starts = [stage for stage in stages if stage.get("init_from") is None]
        assert len(starts) == len(some), "every group starts anew"


@pytest.mark.parametrize(
    ("apart", "shown", "words"),
    [
        ([0.1, 0.11, 0.09], "better", "Against all together: +0.100 ± 0.025, better."),
        ([-0.1, -0.11, -0.09], "worse", "The search chose worse than all together."),
        ([0.1, -0.11, 0.09], "no difference shown", "The difference to all together lies within the noise of seeds"),
        ([0.1], "one seed, no interval", "The difference to all together lies within the noise of seeds"),
    ],
    ids=["better", "worse", "noise", "one"],
)
def test_what_is_said_of_a_control_is_what_paired_differences_show(place, apart, shown, words):
    plan = planned(place, space={"grouping": ["together", "free"]})
    choice, seeds = Choice((Group(TASKS[:2], TASKS[:2]), Group(TASKS[2:], TASKS[2:]))), range(len(apart))
    own = {seed: dict.fromkeys(TASKS, 0.5 + 0.1 * seed) for seed in seeds}
    other = {seed: dict.fromkeys(TASKS, 0.5 + 0.1 * seed - apart[seed]) for seed in seeds}
    best = Final("trial 1", dict.fromkeys(seeds, choice), 2, 96, selecting=own, held_out=own)
    control = Final("all together", dict.fromkeys(seeds, choice), 1, 96, selecting=own, held_out=other)
    found = Search(plan, [], None, "trial 1", {"trial 1": best, "all together": control}, ("all together",))
    assert found.against("all together").mean == pytest.approx(interval(apart).mean)
    assert found.shown("all together") == shown
    assert any(words in sentence for sentence in found.sentences())
    assert found.simpler == (None if shown == "better" else "all together")
    assert found.sentences()[0].startswith("Use best.yaml" if shown == "better" else "The search chose best.yaml")
    assert ("Use simpler.yaml (all together) instead" in found.sentences()[1]) == (shown != "better")
    said = found.as_json()["finals"]["all together"]
    assert said["shown"] == shown and said["chosen_minus_this"]["count"] == len(apart)
    assert "NaN" not in json.dumps(found.as_json())


def test_controls_have_as_many_rows_shown_and_random_groups_are_others(place):
    plan = planned(place, space={"grouping": ["free"]})
    pair = (Group(TASKS[:2], TASKS[:2]), Group(TASKS[2:], TASKS[2:]))
    winner = Choice((Group(TASKS, TASKS[:2]), Group(TASKS[1:], TASKS[2:])))
    rows = way_of(plan, winner, 0, place).rows
    for make in controls_of(plan, winner).values():
        choice, times = make(0)
        assert way_of(plan, choice, 0, place, times=times).rows == pytest.approx(rows, rel=0.2)
    for seed in range(5):
        made = random_groups(plan, pair, seed)
        assert sorted(len(group.tasks) for group in made) == [1, 2]
        assert {group.tasks for group in made} != {group.tasks for group in pair}
        assert made == random_groups(plan, pair, seed)


def test_all_together_is_a_control_without_what_did_nothing_to_tasks_alone(place):
    """`soft` ties tasks that are trained together; the chosen way has none, and so it is no part of the control."""
    plan = planned(place, space={"grouping": ["together", "alone"]})
    lone, changes = tuple(Group((task,), (task,)) for task in TASKS), {"balancer": "pcgrad", "max_length": 32}
    (made,) = [
        make for name, make in controls_of(plan, Choice(lone, changes=changes)).items() if name == "all together"
    ]
    assert made(0)[0].changes == {"max_length": 32}
    pair = (Group(TASKS[:2], TASKS[:2]), Group(TASKS[2:], TASKS[2:]))
    assert controls_of(plan, Choice(pair, changes=changes))["all together"](0)[0].changes == changes


def test_an_affinity_file_that_cannot_be_used_is_told_before_anything_is_trained(place, tmp_path):
    values = np.eye(len(TASKS))
    values[0, 1] = np.nan
    Affinity(tuple(TASKS), values, "example").save(tmp_path / "holes.json")
    Affinity(tuple(TASKS[:2]), values[:2, :2], "example").save(tmp_path / "few.json")
    (tmp_path / "none.json").write_text("[]")
    for name, words in (
        ("holes.json", f"no value for {TASKS[0]} → {TASKS[1]}"),
        ("few.json", f"no task '{TASKS[2]}'.*measure it for all"),
        ("none.json", "no affinity"),
    ):
        with pytest.raises(ConfigError, match=words):
            planned(place, space={"grouping": ["affinity"]}, affinity=str(tmp_path / name))


def test_a_budget_of_rows_ends_it_and_so_does_a_space_with_nothing_new(place):
    plan = planned(place, space={"sampler": ["uniform"]})
    plan = load_search(
        {**keys_of(place), "space": {"sampler": ["uniform"]}, "budget": {"trials": 3}, "output_dir": str(place / "few")}
    )
    plan.folder.mkdir()
    found, _ = run_trials(plan, None)
    assert [trial.state for trial in found] == ["done", "repeated", "repeated"]
    assert [trial.rows for trial in found] == [32, 0, 0]
    plan.file.budget.trials, plan.file.budget.rows = None, 32
    assert len(run_trials(plan, None)[0]) == 3


def test_all_mistakes_of_a_file_are_said_at_once(place):
    keys = keys_of(
        place, output_dir=str(place / "wrong"), budget={"trials": 1}, target="rainn", helpers=1, candidates=["mrcp"]
    )
    space = {
        "strategy": ["joint", "jointly"],
        "lora.rr": [4],
        "trainin.learning_rate": [1e-3],
        "training.seed": [1],
        "balancer": ["pcgrd"],
        "max_length": {"low": 64, "high": 8},
    }
    with pytest.raises(ConfigError) as caught:
        search({**keys, "space": space})
    said = "\n".join(caught.value.mistakes)
    assert "`target` is one of the run's tasks, found 'rainn'; did you mean 'rain'?" in said
    assert "`candidates`: unknown task or tag 'mrcp'; did you mean 'mrpc'" in said
    assert (
        "'strategy' knows joint, alone, sequential, joint then tuned, frozen, found 'jointly'; did you mean 'joint'"
        in said
    )
    assert "'trainin.learning_rate' is no key of a run file; did you mean 'training'" in said
    assert "'training.seed' is the same in all trials" in said
    assert "'max_length' has numbers low < high" in said
    assert "found empty" not in said
    space = {"grouping": ["togethr", [["rain"], ["housee"]]], "balancer": ["pcgrd"], "lora": [{"rr": 4}]}
    with pytest.raises(ConfigError) as caught:
        search({**keys_of(place, output_dir=str(place / "wrong"), budget={"trials": 1}), "space": space})
    said = "\n".join(caught.value.mistakes)
    assert "found 'togethr'; did you mean 'together'" in said
    assert "no task 'housee'; did you mean 'house'" in said
    assert "found none with house, count" in said
    assert "'balancer': pcgrd: " in said and "did you mean 'pcgrad'" in said
    assert "'lora': {\"rr\": 4}: " in said
    wrong = keys_of(place, output_dir=str(place / "wrong"), budget={"trials": 1}, space={"strategy": ["frozn"]})
    with pytest.raises(ConfigError) as caught:
        search({**wrong, "run": {**wrong["run"], "balancr": "pcgrad"}, "pruning": "medain"})
    assert [one.partition("did you mean ")[2] for one in caught.value.mistakes] == [
        "'balancer'?",
        "'median'?",
        "'frozen'?",
    ]
    for changes, words in (
        ({"budget": {}}, "says at least one of trials, rows, epochs, minutes"),
        ({"budget": {"trial": 3}}, "unknown key 'budget.trial'; did you mean 'trials'"),
        ({"prunning": "median"}, "unknown key 'prunning'; did you mean 'pruning'"),
        ({"space": {}}, "an empty `space` and no `target`"),
    ):
        with pytest.raises(ConfigError, match=words):
            search(
                {
                    **keys_of(place, output_dir=str(place / "wrong")),
                    "space": {"seed": [1]},
                    "budget": {"trials": 1},
                    **changes,
                }
            )
    assert not (place / "wrong").exists()


def test_the_command_goes_on_and_overrides(place, whole, run):
    keys, found = whole
    file = place / "search.yaml"
    file.write_text(yamlfile.dumps(keys))
    code, out, _ = run("search", file)
    assert code == 0
    assert found.sentences()[0] in out
    code, _, err = run("search", file, "pruning=medain", f"output_dir={place / 'no'}")
    assert code == 2
    assert "`pruning` is one of median, hyperband, none, found 'medain'" in err
