"""The report of a run: its numbers are those of a hand count, its page stands alone, and what is missing is said."""

import json
import math
import re
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nlp_mtl as mtl
from nlp_mtl.errors import ConfigError, RunFolderError
from nlp_mtl.reporting.evaluations import Evaluations, is_better
from nlp_mtl.reporting.reading import arrays_of, read_folder
from nlp_mtl.reporting.report import JSON
from nlp_mtl.reporting.seesaw import see_saws
from nlp_mtl.reporting.series import binned
from nlp_mtl.reporting.summary import conflict, summed_up

NAMES = ["cola", "a", "a_b"]
numbers = st.integers(-100, 100).map(lambda value: value / 100)


@st.composite
def lines(draw):
    """Lines of steps.jsonl: tasks come and go, and some steps look at the gradients of some pairs."""
    found = []
    for step in range(draw(st.integers(1, 12))):
        here = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
        line = {"step": step}
        for key in ("losses", "weights", "rates"):
            line[key] = {task: abs(draw(numbers)) for task in here}
        if draw(st.booleans()):
            line["norms"] = {task: abs(draw(numbers)) for task in here}
            pairs = [pair for pair in combinations([task for task in NAMES if task in here], 2) if draw(st.booleans())]
            line["cosines"] = {a: {c: draw(numbers) for b, c in pairs if b == a} for a, _ in pairs}
        found.append(line)
    return found


def write(folder, steps=(), log=None, **metrics):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text("model: x\ntasks: [x]\nbalancer: pcgrad\n", encoding="utf-8")
    if steps is not None:
        (folder / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in steps), encoding="utf-8")
    if log is not None:
        (folder / "metrics.json").write_text(json.dumps({"log": log, **metrics}), encoding="utf-8")
    return folder


def evaluated(*scores, metric="accuracy"):
    """A log with an evaluation every 10 steps, and its end."""
    found = [
        {"step": 10 * (place + 1), **{f"eval_{task}_{metric}": value for task, value in one.items()}}
        for place, one in enumerate(scores)
    ]
    return [*found, {"train_runtime": 1.0, "step": 10 * len(scores)}]


def some_steps(names, count=6):
    rows = range(count)
    return [
        {
            "step": row,
            "losses": dict.fromkeys(names, 1.0 + row),
            "weights": dict.fromkeys(names, 1.0),
            "rates": dict.fromkeys(names, 1 / len(names)),
            "norms": dict.fromkeys(names, 2.0),
            "cosines": {a: dict.fromkeys(names[i + 1 :], 0.25 - row % 2) for i, a in enumerate(names[:-1])},
        }
        for row in rows
    ]


# ---------------------------------------------------------------------------------------------------------- the numbers


@given(lines())
@settings(max_examples=60, deadline=None)
def test_shares_and_means_are_those_of_a_hand_count_over_the_lines(steps):
    arrays = arrays_of(steps, NAMES)
    found = conflict(arrays.cosines, NAMES)
    seen = {
        (a, b): [line["cosines"][a][b] for line in steps if b in line.get("cosines", {}).get(a, {})]
        for a, b in combinations(NAMES, 2)
    }
    together = [value for values in seen.values() for value in values]
    if not together:
        assert found is None
        return
    for (a, b), values in seen.items():
        if not values:
            assert b not in found["seen"].get(a, {})
            continue
        assert found["seen"][a][b] == len(values)
        assert math.isclose(found["cosine"][a][b], math.fsum(values) / len(values), abs_tol=1e-12)
        assert math.isclose(found["conflicting"][a][b], sum(value < 0 for value in values) / len(values))
    assert math.isclose(found["conflicting_share"], sum(value < 0 for value in together) / len(together))
    assert math.isclose(found["cosine_mean"], math.fsum(together) / len(together), abs_tol=1e-12)
    looks = [[v for row in line.get("cosines", {}).values() for v in row.values()] for line in steps]
    looks = [values for values in looks if values]
    assert math.isclose(found["steps_with_conflict"], sum(min(values) < 0 for values in looks) / len(looks))


@given(lines())
@settings(max_examples=40, deadline=None)
def test_what_is_said_of_each_task_is_what_a_hand_count_gives(tmp_path_factory, steps):
    run = read_folder(write(tmp_path_factory.mktemp("run"), steps))
    found = summed_up(run)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["steps"]["recorded"] == len(steps)
    for task, known in found["tasks"].items():
        losses = [line["losses"][task] for line in steps if task in line["losses"]]
        weights = [line["weights"][task] for line in steps if task in line["weights"]]
        norms = [line["norms"][task] for line in steps if task in line.get("norms", {})]
        assert known["steps"] == len(losses)
        assert math.isclose(known["loss"]["mean"], math.fsum(losses) / len(losses), abs_tol=1e-12)
        assert math.isclose(known["weight"]["mean"], math.fsum(weights) / len(weights), abs_tol=1e-12)
        assert (known["weight"]["least"], known["weight"]["most"]) == (min(weights), max(weights))
        rates = math.fsum(line["rates"].get(task, 0.0) for line in steps)
        assert math.isclose(known["rate"], rates / len(steps), abs_tol=1e-12)
        expected = math.fsum(norms) / len(norms) if norms else None
        assert known["norm"] == (pytest.approx(expected, abs=1e-12) if norms else None)


@given(
    st.lists(st.tuples(*[st.none() | st.integers(0, 100)] * 3), max_size=8),
    st.integers(0, 5),
    st.tuples(*[st.booleans()] * 3),
)
@settings(max_examples=100, deadline=None)
def test_the_see_saw_rule(table, points, directions):
    """In hundredths, so that the count by hand is exact."""
    scores = {task: [None if row[i] is None else row[i] / 100 for row in table] for i, task in enumerate(NAMES)}
    better = dict(zip(NAMES, directions, strict=True))
    steps = list(range(0, 10 * len(table), 10))
    found = {pair.tasks: pair for pair in see_saws(steps, scores, better, points / 100)}
    for (i, a), (j, b) in combinations(enumerate(NAMES), 2):
        expected, scored = [], 0
        for before, after in pairwise(table):
            if None in (before[i], after[i], before[j], after[j]):
                continue
            scored += 1
            moves = [(after[k] - before[k]) * (1 if better[task] else -1) for k, task in ((i, a), (j, b))]
            if max(moves) > points and min(moves) < -points:
                at = steps[table.index(before)] if table.count(before) == 1 else None
                expected.append((at, a if moves[0] > moves[1] else b))
        got = found.get((a, b))
        assert (len(got.intervals) if got else 0) == len(expected)
        if got:
            assert got.scored == scored
            for (start, end, rose), (at, who) in zip(got.intervals, expected, strict=True):
                assert (end - start, rose) == (10, who)
                assert at is None or at == start
    counts = [len(pair.intervals) for pair in found.values()]
    assert counts == sorted(counts, reverse=True)


@given(st.lists(st.none() | numbers, min_size=1, max_size=90), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_bins_hold_every_value_once_and_lines_break_at_long_gaps_only(values, most):
    given_ = np.array([math.nan if value is None else value for value in values])
    found = binned(np.arange(len(values)), given_, most)
    known = given_[np.isfinite(given_)]
    shown = np.isfinite(found.mean)
    assert shown.sum() <= min(most, len(known))
    if len(known):
        assert np.nanmin(found.low) == known.min()
        assert np.nanmax(found.high) == known.max()
        assert (found.low[shown] <= found.mean[shown] + 1e-12).all() and (
            found.mean[shown] <= found.high[shown] + 1e-12
        ).all()
        assert known.min() - 1e-9 <= np.nanmin(found.smooth) and np.nanmax(found.smooth) <= known.max() + 1e-9
    assert (np.isnan(found.at) == np.isnan(found.mean)).all()
    assert (np.diff(found.at[shown]) > 0).all()


def test_a_curve_ends_where_training_does_and_the_last_score_is_the_kept_models():
    log = [*evaluated({"a": 0.5}, {"a": 0.7}, {"a": 0.6}), {"step": 30, "eval_a_accuracy": 0.7}]
    log[1]["eval_mean_skill"], log[0]["eval_mean_skill"] = 0.9, 0.9
    found = Evaluations.of(log, ["a"], {}, {})
    assert found.steps == [10, 20, 30]
    assert found.scores["a"] == [0.5, 0.7, 0.6]
    assert found.final == {"a": 0.7}
    assert found.best("a") == {"step": 20, "score": 0.7}
    assert found.run_best == {"step": 10, "metric": "mean_skill", "score": 0.9}, "the first of equals, as the trainer"
    loss = Evaluations.of(
        [{"step": 1, "eval_loss": 0.5}, {"step": 2, "eval_loss": 0.4}], ["a"], {}, {"metric_for_best_model": "loss"}
    )
    assert loss.run_best["step"] == 2


def test_a_metric_that_nobody_registered_is_better_as_the_skill_says():
    entries = [{"eval_a_cost": 3.0, "eval_a_skill": 0.1}, {"eval_a_cost": 2.0, "eval_a_skill": 0.4}]
    assert not is_better("a", "cost", entries)
    assert not is_better("a", "mse", [])
    assert is_better("a", "accuracy", entries)


# ------------------------------------------------------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    names = ["cola", "mrpc", "rte"]
    log = evaluated({"cola": 0.5, "mrpc": 0.9, "rte": 0.5}, {"cola": 0.6, "mrpc": 0.8, "rte": 0.505})
    return write(tmp_path_factory.mktemp("whole") / "run", some_steps(names), log)


@pytest.fixture(scope="module")
def reported(whole, tmp_path_factory):
    before = sorted(whole.iterdir())
    found = mtl.report(whole, out=tmp_path_factory.mktemp("out") / "new" / "place")
    assert sorted(whole.iterdir()) == before
    return found


def test_the_report_of_a_run(reported):
    found = reported
    assert [file.name for file in found.files] == ["report.json", "report.html", "report.md"]
    said = json.loads(found.files[0].read_text(encoding="utf-8"))
    assert said == found.summary
    assert said["gradients"]["conflicting_share"] == 0.5
    (pair,) = said["see_saw"]["pairs"]
    assert pair == {"tasks": ["cola", "mrpc"], "count": 1, "scored": 1, "intervals": [[10, 20, "cola"]]}
    assert said["missing"] == []
    names = ["scores", "losses", "weights", "rates", "norms", "cosines", "conflicting", "pairs"]
    assert list(found.pictures) == names
    html = found.files[1].read_text(encoding="utf-8")
    assert html.count('<svg role="img" aria-label=') == html.count("</svg>") == len(names)
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)", html), "nothing is loaded from anywhere"
    assert "http" not in re.sub(r'xmlns(:xlink)?="http[^"]*"', "", html)
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', html)) <= set(ids)
    assert found.pictures["cosines"].png()[:4] == b"\x89PNG"


def test_the_same_folder_gives_the_same_bytes_whatever_matplotlib_is_set_to(whole, reported, tmp_path):
    import matplotlib

    with matplotlib.rc_context({"font.size": 20, "axes.grid": False, "svg.fonttype": "none"}):
        second = mtl.report(whole, out=tmp_path / "two")
        assert matplotlib.rcParams["font.size"] == 20
    for one, two in zip(reported.files, second.files, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_names_are_escaped_and_long_or_strange_ones_harm_nothing(tmp_path):
    names = ["<script>alert(1)</script>", "_under", "a $cost$ & more", "x" * 64]
    log = evaluated(dict.fromkeys(names, 0.5), dict.fromkeys(names, 0.6))
    found = mtl.report(write(tmp_path / 'run"<b>', some_steps(names, 2), log))
    html = found.files[1].read_text(encoding="utf-8")
    assert "<script" not in html and "<b>alert" not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<title>Report of run&quot;&lt;b&gt;</title>" in html
    assert list(found.summary["tasks"]) == names


@pytest.mark.parametrize("count", [1, 9])
def test_one_task_and_many(tmp_path, count):
    found = mtl.report(write(tmp_path / "run", some_steps([f"task_{i}" for i in range(count)], 3)))
    assert ("cosines" in found.pictures) == (count > 1)
    assert ("one task" in " ".join(found.summary["missing"])) == (count == 1)


# ---------------------------------------------------------------------------------------------------- what is not there


def test_a_run_that_goes_on_takes_the_newest_checkpoints_log(tmp_path):
    folder = write(tmp_path / "run", [{"step": 0, "losses": {"a": 1.0}}])
    for step, score in ((5, 0.5), (10, 0.6)):
        (folder / f"checkpoint-{step}").mkdir()
        log = [{"step": at, "eval_a_accuracy": value} for at, value in ((5, 0.5), (10, score)) if at <= step]
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    with (folder / "steps.jsonl").open("a") as stream:
        stream.write('{"step": 1, "losses": {"a"')  # being written just now
    found = mtl.report(folder)
    assert found.summary["source"] == "checkpoint-10/trainer_state.json"
    assert found.summary["validation"]["scores"] == {"a": [0.5, 0.6]}
    assert found.summary["steps"]["recorded"] == 1
    assert not found.summary["finished"]
    assert "still being trained" in found.summary["missing"][0]
    (folder / "metrics.json").write_text(json.dumps({"log": [{"step": 5, "eval_a_accuracy": 0.5}]}))
    assert not mtl.report(folder).summary["finished"], "it was resumed after metrics.json was written"


def test_what_could_not_be_measured_is_said(tmp_path):
    plain = [{"step": 0, "losses": {"a": 1.0, "b": 1.0}, "weights": {}, "rates": {}}]
    once = [{"train_runtime": 1.0, "step": 1}, {"step": 1, "eval_a_accuracy": 0.5}]
    cases = {
        "no steps.jsonl": write(tmp_path / "a", None, evaluated({"a": 0.5}, {"a": 0.6})),
        "only after it": write(tmp_path / "b", plain, once),
        "no step looked": write(tmp_path / "c", plain, once),
        "takes two": write(tmp_path / "d", plain, evaluated({"a": 0.5})),
        "no whole line": write(tmp_path / "e", [], once),
        "Scores of b": write(tmp_path / "f", plain, evaluated({"a": 0.5}, {"a": 0.6})),
        "`cosines_every` is 0 in the run file": write(tmp_path / "g", plain, once),
    }
    (tmp_path / "g" / "run.yaml").write_text("cosines_every: 0\n")
    for said, folder in cases.items():
        found = mtl.report(folder)
        assert said in " ".join(found.summary["missing"]), (said, found.summary["missing"])
        assert f"<li>{found.summary['missing'][0][:20]}" in found.files[1].read_text(encoding="utf-8")


def test_damaged_files_are_refused_by_line_and_nothing_is_written(tmp_path):
    for number, (line, said) in enumerate(
        {
            "{": "a line of JSON",
            '{"step": "one"}': "`step` is a whole number",
            '{"step": 0, "losses": [1]}': "`losses` is a mapping",
            '{"step": 0, "losses": {"a": "much"}}': "`losses` is a mapping from tasks to numbers",
            '{"step": 0, "cosines": {"a": 1}}': "`cosines.a` is a mapping",
            '{"step": 0, "cosines": 1}': "`cosines` is a mapping",
        }.items()
    ):
        folder = write(tmp_path / str(number), some_steps(["a", "b"], 1))
        with (folder / "steps.jsonl").open("a") as stream:
            stream.write(line + "\n")
        with pytest.raises(RunFolderError, match=r"steps\.jsonl:2: ") as caught:
            mtl.report(folder)
        assert said in str(caught.value)
        assert not (folder / JSON).exists()


def test_other_damage_is_refused(tmp_path):
    for number, text in enumerate(("{", "[]", '{"log": 1}', '{"log": [1]}', '{"validation": {"a": 1}}')):
        folder = write(tmp_path / str(number))
        (folder / "metrics.json").write_text(text)
        with pytest.raises(RunFolderError, match=r"metrics\.json: damaged .*; copy it again, or remove it"):
            mtl.report(folder)
    with pytest.raises(ConfigError, match="`see_saw` is a change of score from 0"):
        mtl.report(write(tmp_path / "x", some_steps(["a"])), see_saw=-1)


def test_the_command(tmp_path, run):
    log = evaluated({"cola": 0.5, "mrpc": 0.9}, {"cola": 0.6, "mrpc": 0.8})
    scores = {"cola": {"accuracy": 0.6}, "mrpc": {"accuracy": 0.8}}
    whole = write(tmp_path / "run", None, log, validation=scores)
    code, out, err = run("report", whole, "--out", tmp_path / "r")
    assert (code, err) == (0, "")
    assert "own best" in out and "cola and mrpc in 1 of 1" in out and str(tmp_path / "r" / "report.html") in out
    code, out, err = run("report", whole, "--out", tmp_path / "r", "--json", "-")
    assert (code, err) == (0, "")
    assert json.loads(out)["format"] == 1
    run("report", whole, "--out", tmp_path / "r", "--json", tmp_path / "same.json")
    assert (tmp_path / "same.json").read_bytes() == (tmp_path / "r" / "report.json").read_bytes()
