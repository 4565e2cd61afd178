"""Verdicts on runs: the twins they are made of, what is trained again and what is not, and what the report says."""

from __future__ import annotations

import json

import numpy as np
import pytest

import nlp_mtl as mtl
from nlp_mtl.cli import app
from nlp_mtl.errors import ConfigError, RunFolderError, UnsupportedError
from nlp_mtl.findings import read_findings
from nlp_mtl.verdicts.baselines import plan_of
from nlp_mtl.verdicts.judge import summaries
from nlp_mtl.verdicts.scored import scored_rows
from nlp_mtl.verdicts.twins import shown, twin_keys
from tests.integration.tiny import config, write_base, write_tasks


def call(*words):
    """A command; gives its exit code."""
    return app([str(word) for word in words], standalone_mode=False) or 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verdict")
    tasks, base = write_tasks(folder / "data", rows=32), write_base(folder / "base")
    training = {"num_train_epochs": 2, "max_steps": -1, "seed": 0, "eval_steps": 4, "eval_strategy": "steps"}
    keys = config(base, tasks[:3], folder / "run", training=training)
    mtl.train(keys)
    return folder, keys


@pytest.fixture(scope="module")
def judged(trained):
    folder, _ = trained
    return mtl.verdict(folder / "run", seeds=3)


def test_a_twin_sees_the_rows_of_its_task_as_often(trained, judged):
    folder, _ = trained
    run = shown(folder / "run")
    for one in plan_of(folder / "run", seeds=3).runs:
        said = json.loads((one.folder / "metrics.json").read_text())
        drawn = {}
        for entry in said["log"]:
            for key, value in entry.items():
                if key.startswith("rows_"):
                    drawn[key[5:]] = drawn.get(key[5:], 0) + value
        wanted = {one.task: run.rows[one.task]} if one.task else run.rows
        assert drawn == wanted
        own = mtl.run.recorded(one.folder)
        assert own["training"]["seed"] == one.seed and own["model"] == run.keys["model"]


def test_as_many_steps_instead_of_as_many_rows(trained):
    run = shown(trained[0] / "run")
    task = next(iter(run.rows))
    assert twin_keys(run, task, same="steps")["training"]["max_steps"] == run.steps
    keys = twin_keys(run, task)["training"]
    assert "max_steps" not in keys and keys["num_train_epochs"] == run.rows[task] / run.train[task] == 2
    assert keys["eval_steps"] == max(1, round(4 * run.rows[task] / sum(run.rows.values())))


def test_the_verdict_is_that_of_the_runs_scores(trained, judged):
    folder, _ = trained
    plan = plan_of(folder / "run", seeds=3)
    assert not plan.missing
    scores = {}
    for one in plan.runs:
        first = json.loads((one.folder / "metrics.json").read_text())
        for task, said in first["first"].items():
            scores[one.task or "together", one.seed, task] = first["validation"][task][said["metric"]]
    own = json.loads((folder / "run" / "metrics.json").read_text())
    for task, said in own["first"].items():
        scores["together", 0, task] = own["validation"][task][said["metric"]]
    assert {one.task for one in judged.tasks} == set(own["first"])
    for one in judged.tasks:
        each = [scores["together", seed, one.task] - scores[one.task, seed, one.task] for seed in (0, 1, 2)]
        sign = 1 if one.better else -1
        assert one.found.each == pytest.approx([sign * d for d in each], abs=1e-6)
        assert one.together == pytest.approx(np.mean([scores["together", s, one.task] for s in (0, 1, 2)]), abs=1e-6)
        assert one.said in ("helped", "hurt", "no difference shown") and one.p >= one.found.p
        assert one.interval[0] <= one.own + 1e-6 and not np.isnan(one.gap)
        assert one.own == pytest.approx(scores["together", 0, one.task], abs=1e-6)
        assert one.trivial == own["trivial"][one.task][one.metric]
    assert judged.delta is not None and judged.delta.count == 3
    assert judged.alone.rows == judged.together.rows


def test_with_one_seed_nothing_is_decided(trained, judged):
    found = mtl.verdict(trained[0] / "run")
    assert {one.said for one in found.tasks} == {"not decidable, one seed"}
    assert "seeds" in found.advice()[0]
    assert not plan_of(trained[0] / "run").missing  # the twins that were there
    mtl.verdict(trained[0] / "run", seeds=3)


def test_nothing_is_trained_twice_and_the_budget_is_kept(trained, judged, tmp_path):
    folder, _ = trained
    plan = plan_of(folder / "run", seeds=3)
    before = {one.folder: (one.folder / "metrics.json").stat().st_mtime_ns for one in plan.runs}
    mtl.verdict(folder / "run", seeds=3)
    assert before == {one.folder: (one.folder / "metrics.json").stat().st_mtime_ns for one in plan.runs}
    assert not list(plan.runs[0].folder.glob("*.safetensors"))  # the twins' weights are gone, their rows are kept
    found = mtl.verdict(folder / "run", seeds=2, budget=0, place=tmp_path / "none")
    assert found.missing == len(plan_of(folder / "run", seeds=2, place=tmp_path / "none").runs) and not found.tasks
    mtl.verdict(folder / "run", seeds=3)


def test_a_run_trained_anew_is_scored_anew(trained, tmp_path):
    _folder, keys = trained
    place = tmp_path / "again"
    training = {**keys["training"], "output_dir": str(place), "num_train_epochs": 1}
    mtl.train({**keys, "training": training})
    first = scored_rows(place, train_rows=0)
    summaries(place)
    assert scored_rows(place, only_known=True) is not None
    mtl.train({**keys, "training": {**training, "seed": 5}}, overwrite=True)
    assert not list((place / "findings").glob("*")) and scored_rows(place, only_known=True) is None
    assert scored_rows(place, train_rows=0).tasks.keys() == first.tasks.keys()


def test_the_report_tells_the_verdict_the_rows_and_the_scores(trained, judged, capsys):
    folder, _ = trained
    assert call("report", str(folder / "run"), "--baselines", "--seeds", "3") == 0
    said = capsys.readouterr().out
    for one in judged.tasks:
        assert one.sentence() in said
    assert {one.name for one in read_findings(folder / "run")} >= {"verdict", "data", "scores"}
    page, text = ((folder / "run" / f"report.{kind}").read_text() for kind in ("html", "md"))
    numbers = json.loads((folder / "run" / "report.json").read_text())
    assert numbers["findings"]["verdict"]["tasks"].keys() == {one.task for one in judged.tasks}
    assert page.index("Did training together help?") < page.index("<h2>Tasks</h2>") < page.index("The rows")
    assert "data:image/svg+xml;base64," in page and "http://" not in page.replace("http://www.w3.org", "")
    assert "## Did training together help?" in text and judged.tasks[0].sentence() in text


def test_what_is_to_be_trained_is_shown_first(trained, judged, tmp_path, capsys):
    folder, _ = trained
    words = ["report", str(folder / "run"), "--baselines", "--seeds", "4", "--dry-run", "--baselines-dir"]
    assert call(*words, str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert said.startswith("15 runs: 3 tasks alone with 4 seeds, and all together with 3 more; about")
    assert not list(tmp_path.iterdir())


def test_wrong_words_are_told(trained, tmp_path):
    folder, _ = trained
    for words, why in (
        (["--seeds", "3"], "goes with --baselines"),
        (["--baselines", "--tasks", "nothing_like_it"], "the run has no task"),
        (["--baselines", "--same", "words"], "rows or steps"),
        (["--baselines", "--budget", "-1"], "hours from 0"),
        (["--baselines", "--seeds", "0"], "how many pairs"),
        (["--baselines", "--split", "train"], "validation"),
    ):
        with pytest.raises(ConfigError, match=why):
            call("report", folder / "run", *words)
    with pytest.raises(RunFolderError, match="no finished run"):
        mtl.verdict(tmp_path)


def test_runs_side_by_side(trained, judged, tmp_path, capsys):
    folder, keys = trained
    other = tmp_path / "other"
    mtl.train({**keys, "training": {**keys["training"], "output_dir": str(other), "seed": 7}})
    found = mtl.compare_runs([folder / "run", other])
    assert found.names == ["run", "other"]
    for task, one in found.against["other"].items():
        scores = [scored_rows(place).tasks[task].score for place in (other, folder / "run")]
        assert one.mean == pytest.approx(scores[0] - scores[1]) or one.mean == pytest.approx(scores[1] - scores[0])
    assert call("compare", str(folder / "run"), str(folder / "run"), "--fail-if-worse", "--out", str(tmp_path)) == 0
    assert json.loads((tmp_path / "compare.json").read_text())["worse"] == []
    assert "intervals are over rows alone" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="two runs or more"):
        mtl.compare_runs([other])
    with pytest.raises(RunFolderError, match="no finished run"):
        mtl.compare_runs([other, tmp_path])


def test_worse_runs_are_found_and_fail(trained, judged, tmp_path, capsys):
    """The same run, but for what it said of most rows."""
    import shutil

    folder, _ = trained
    worse = tmp_path / "worse"
    shutil.copytree(folder / "run", worse)
    file = worse / "scored" / "validation.json"
    said = json.loads(file.read_text())
    task, one = next((task, one) for task, one in said["tasks"].items() if one["metric"] == "accuracy")
    own = json.loads((folder / "run" / "scored" / "validation.json").read_text())
    own["tasks"][task]["predictions"] = own["tasks"][task]["references"]
    right = tmp_path / "right"
    shutil.copytree(folder / "run", right)
    (right / "scored" / "validation.json").write_text(json.dumps(own))
    one["predictions"] = [1 - value if value in (0, 1) else value for value in one["references"]]
    file.write_text(json.dumps(said))
    assert call("compare", str(right), str(worse), "--fail-if-worse") == 1
    assert f"worse: {task}" in capsys.readouterr().out.lower()


def test_runs_without_twins_say_so(trained, tmp_path):
    _folder, keys = trained
    place = tmp_path / "stages"
    training = {**keys["training"], "output_dir": str(place), "num_train_epochs": 1}
    stages = [{"name": "one"}, {"name": "two"}]
    mtl.train({**keys, "training": training, "stages": stages})
    with pytest.raises(UnsupportedError, match="stages"):
        mtl.verdict(place)
    found = mtl.compare_runs([place, place / "2-two"])
    assert all(one.mean == 0 for one in found.against[found.names[1]].values()), "its model is that of the last stage"


def test_a_report_without_the_rows_says_what_the_folder_holds(trained, tmp_path, caplog, capsys):
    """The run's data are not here: no intervals, and the rest as ever."""
    import shutil

    folder, _ = trained
    place = tmp_path / "moved"
    shutil.copytree(folder / "run", place, ignore=shutil.ignore_patterns("findings", "scored", "run.yaml", "report.*"))
    assert call("report", place) == 0
    assert "no intervals" in caplog.text and (place / "report.html").is_file()
    assert not (place / "findings").exists()
    assert call("report", place, "--no-rows") == 0


def test_words_do_not_say_more_than_is_known():
    """A wide interval is no proof of nothing, and two models that learned nothing are no tie."""
    from nlp_mtl.verdicts.judging import NOTHING, Difference
    from nlp_mtl.verdicts.said import TaskVerdict, Verdicts

    def one(task, mean, half, together=0.7):
        found = Difference(mean, half, half, 0.5, 2.0, (mean,) * 3, 100)
        rest = (0.7, (0.6, 0.8), together, 0.7, found, 0.5, NOTHING, 0.5, 0.1, 0.1, (0, 1, 2))
        return TaskVerdict(task, "accuracy", True, *rest)

    narrow, wide, idle = one("narrow", 0.001, 0.01), one("wide", -0.1, 0.12), one("idle", 0.0, 0.0, together=0.5)
    idle = type(idle)(**{**vars(idle), "alone": 0.5})
    said = " ".join(Verdicts("validation", [narrow, wide, idle], {}, None, None, None, "rows", [0, 1, 2]).sentences())
    assert "narrow it makes no difference above 0.02" in said
    assert "Still open: wide (-0.100)" in said and "--seeds 5" in said
    assert "nothing was learned" in said and "before asking about idle" in said


def test_twins_of_a_run_with_adapters_have_adapters(trained, tmp_path):
    """And a rule for the best checkpoint that is about one task is that task's alone; a LoRA finds its encoder."""
    _, keys = trained
    lora = {"r": 2, "target_modules": "all-linear"}
    best = {"metric_for_best_model": "eval_mood_accuracy", "greater_is_better": True, "load_best_model_at_end": True}
    often = {
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "num_train_epochs": 1,
        "output_dir": str(tmp_path / "run"),
    }
    mtl.train({**keys, "task_lora": lora, "training": {**keys["training"], **best, **often}})
    plan = plan_of(tmp_path / "run")
    rules = {one.task: one.keys["training"].get("metric_for_best_model") for one in plan.runs}
    assert rules == {"mood": "eval_mood_accuracy", "alike": None, "names": None}
    found = mtl.verdict(tmp_path / "run")
    assert not found.failed and {one.task for one in found.tasks} == set(plan.tasks)
    assert found.alone.parameters == found.together.parameters, (
        "an adapter and a head for each task, as in the one model"
    )


def test_a_task_that_cannot_be_trained_alone_is_told_before_anything_is_trained(trained, tmp_path):
    _, keys = trained
    shape = {**keys["training"], "output_dir": str(tmp_path / "run"), "num_train_epochs": 1}
    mtl.train({**keys, "training": shape})
    file = tmp_path / "run" / "run.yaml"
    file.write_text(file.read_text() + "regularizers: [ewcc]\n")
    with pytest.raises(ConfigError, match="'ewcc'"):
        mtl.verdict(tmp_path / "run")
    assert not (tmp_path / "baselines").exists()


def test_rows_that_were_scored_for_a_comparison_are_completed_for_a_report(trained, tmp_path):
    _, keys = trained
    mtl.train({**keys, "training": {**keys["training"], "output_dir": str(tmp_path / "run"), "num_train_epochs": 1}})
    run = tmp_path / "run"
    assert set(scored_rows(run, tasks=["mood"], train_rows=0).tasks) == {"mood"}
    assert scored_rows(run, train_rows=0).train == {}
    whole = scored_rows(run)
    assert set(whole.tasks) == set(whole.train) == {"mood", "alike", "names"}
    before = (run / "scored" / "validation.json").stat().st_mtime_ns
    assert scored_rows(run) == whole
    assert (run / "scored" / "validation.json").stat().st_mtime_ns == before, "what is known is not made again"


def test_what_cannot_be_compared_is_not(trained, judged, tmp_path):
    """One run with several, seeds that differ, and scores by other metrics."""
    import shutil

    folder, _ = trained
    for way, seeds in (("a", (0, 1)), ("b", (2,)), ("c", (1, 2))):
        for seed in seeds:
            shutil.copytree(folder / "run", tmp_path / way / f"seed-{seed}")
    with pytest.raises(ConfigError, match=r"same seed .*run: one run; a: seed-0, seed-1"):
        mtl.compare_runs([folder / "run", tmp_path / "a"])
    with pytest.raises(ConfigError, match="same seed"):
        mtl.compare_runs([tmp_path / "a", tmp_path / "b"])
    assert mtl.compare_runs([tmp_path / "a", tmp_path / "c"]).seeds == {"a": 1, "c": 1}
    file = tmp_path / "b" / "seed-2" / "scored" / "validation.json"
    said = json.loads(file.read_text())
    said["tasks"]["mood"]["metric"] = "f1_macro"
    file.write_text(json.dumps(said))
    with pytest.raises(ConfigError, match="one metric, found mood: accuracy, f1_macro"):
        mtl.compare_runs([tmp_path / "c", tmp_path / "b"])


def test_twins_choose_among_as_many_checkpoints(trained, tmp_path):
    """A small task that is shown often has many epochs of its own, and the run that it is judged by few."""
    _, keys = trained
    often = {"num_train_epochs": 2, "eval_strategy": "epoch", "save_strategy": "epoch"}
    training = {**keys["training"], **often, "output_dir": str(tmp_path / "run")}
    tasks = [keys["tasks"][0], {"name": keys["tasks"][1], "rows": {"train": 4}}]
    mtl.train({**keys, "tasks": tasks, "sampler": "uniform", "training": training})
    run = shown(tmp_path / "run")
    assert run.evaluations == 2
    for same in ("rows", "steps"):
        for task in ("mood", "alike"):
            twin = twin_keys(run, task, same=same)
            twin["training"]["output_dir"] = str(tmp_path / f"{task}-{same}")
            mtl.train(twin)
            own = shown(tmp_path / f"{task}-{same}")
            assert abs(own.evaluations - run.evaluations) <= 1, (task, same)


def test_a_twin_whose_rows_cannot_be_read_is_trained_again(trained, tmp_path):
    _, keys = trained
    mtl.train({**keys, "training": {**keys["training"], "output_dir": str(tmp_path / "run"), "num_train_epochs": 1}})
    mtl.verdict(tmp_path / "run", tasks=["mood"])
    plan = plan_of(tmp_path / "run", tasks=["mood"])
    (twin,) = plan.runs
    assert not plan.missing and not list(twin.folder.glob("*.safetensors"))
    with pytest.raises(RunFolderError, match=r"its weights were removed, and its test rows were not scored"):
        scored_rows(twin.folder, "test")
    (twin.folder / "scored" / "validation.json").write_text('{"format": 0')
    assert plan_of(tmp_path / "run", tasks=["mood"]).missing
    assert mtl.verdict(tmp_path / "run", tasks=["mood"]).tasks[0].task == "mood"
