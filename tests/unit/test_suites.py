"""GLUE and SuperGLUE as their owners score them, and the files that their servers take."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import torch

import nlp_mtl as mtl
from nlp_mtl import yamlfile
from nlp_mtl.cli import app
from nlp_mtl.errors import ConfigError
from nlp_mtl.sources import load_rows
from nlp_mtl.suites.answering import registered
from nlp_mtl.suites.scoring import average, score_suite
from nlp_mtl.suites.submission import best_candidates, passages, write_submission
from nlp_mtl.suites.tables import GLUE, SUITES
from nlp_mtl.tasks import load_tasks
from tests.integration.tiny import WORDS, write_base

torch.set_num_threads(1)

PAIR = ("sentence1", "sentence2")
COLUMNS = {
    "cola": ("sentence",),
    "mrpc": PAIR,
    "stsb": PAIR,
    "rte": PAIR,
    "mnli": ("premise", "hypothesis"),
    "ax": ("premise", "hypothesis"),
}
HIDDEN = {"cola": 7, "mrpc": 6, "stsb": 5, "rte": 4, "mnli_matched": 6, "mnli_mismatched": 5, "ax": 3}


def call(*words):
    """A command; gives its exit code."""
    return app([str(word) for word in words], standalone_mode=False) or 0


def write_split(folder, split, rows):
    from datasets import Dataset

    folder.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))


def text(draw):
    return " ".join(draw.choice(WORDS, size=draw.integers(2, 8)))


def write_glue(root):
    """Small GLUE tasks in the Hub's layout: 12 rows to train, 10 to validate, and hidden labels in test."""
    draw, configs = np.random.default_rng(0), []
    for name, columns in COLUMNS.items():
        splits = {"train": 12, "validation": 10, "test": HIDDEN.get(name, 0)}
        if name == "mnli":
            splits = {"train": 12, "validation_matched": 10, "validation_mismatched": 8}
            splits |= {"test_matched": HIDDEN["mnli_matched"], "test_mismatched": HIDDEN["mnli_mismatched"]}
        if name == "ax":
            splits = {"test": 3}
        classes = 3 if name in ("mnli", "ax") else 2
        files = [{"split": split, "path": f"{name}/{split}-*"} for split in splits]
        configs.append({"config_name": name, "data_files": files})
        for split, count in splits.items():
            rows = []
            for number in range(count):
                label = float(draw.random() * 5) if name == "stsb" else int(draw.integers(classes))
                hidden = split.startswith("test")
                label = (-1.0 if name == "stsb" else -1) if hidden else label
                rows.append({**{column: text(draw) for column in columns}, "label": label, "idx": number})
            write_split(root / "nyu-mll" / "glue" / name, split, rows)
    card = yamlfile.dumps({"configs": configs})
    (root / "nyu-mll" / "glue" / "README.md").write_text(f"---\n{card}---\n")
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suites")
    write_glue(folder / "data")
    base = write_base(folder / "base")
    for run, names in (("one", ["cola", "mrpc", "stsb"]), ("two", ["rte", "mnli"])):
        mtl.MultiTaskModel.from_base(base, load_tasks(names)).save_pretrained(folder / run)
    return folder


@pytest.fixture(scope="module")
def score(place):
    return score_suite([place / "one", place / "two"], "glue", data_root=place / "data")


def test_every_part_is_a_registered_task_and_scores_what_it_can():
    for suite in SUITES.values():
        names = [part for parts in suite.scored.values() for part in parts]
        assert sorted(names) == sorted(part.task for part in suite.parts if not part.task.startswith("ax"))
        for part in suite.parts:
            task = registered(part)
            assert set(part.metrics) <= set(task.metrics)
            assert set(part.words) in (set(), set(task.labels or ()))
            assert part.owner == task.head_of
    assert len(GLUE.scored) == 9 and len(SUITES["superglue"].scored) == 8


def test_the_average_by_hand():
    found = {
        "cola": {"matthews_correlation": 0.5},
        "sst2": {"accuracy": 0.9},
        "mrpc": {"f1": 0.9, "accuracy": 0.8},
        "stsb": {"pearson": 0.88, "spearman": 0.86},
        "qqp": {"f1": 0.7, "accuracy": 0.9},
        "mnli": {"accuracy": 0.84},
        "mnli_mm": {"accuracy": 0.82},
        "qnli": {"accuracy": 0.91},
        "rte": {"accuracy": 0.6},
        "wnli": {"accuracy": 0.5},
    }
    tasks, missing = average(GLUE, {**found, "ax": {"matthews_correlation": 0.0}})
    assert not missing
    by_hand = [0.5, 0.9, 0.85, 0.87, 0.8, 0.83, 0.91, 0.6, 0.5]
    assert list(tasks.values()) == pytest.approx(by_hand)
    del found["mnli_mm"]
    tasks, missing = average(GLUE, found)
    assert missing == ["MNLI"] and "MNLI" not in tasks


def test_metrics_are_those_that_evaluation_finds(place, score):
    direct = mtl.evaluate(place / "one", data_root=place / "data")
    assert score.metrics["cola"] == {"matthews_correlation": direct["cola"].metrics["matthews_correlation"]}
    for task in ("mrpc", "stsb"):
        assert score.metrics[task] == direct[task].metrics
    assert score.rows == {"cola": 10, "mrpc": 10, "stsb": 10, "mnli": 10, "mnli_mm": 8, "rte": 10}
    assert score.by["rte"] == place / "two" and score.by["mnli_mm"] == place / "two"


def test_a_part_of_glue_is_not_called_its_score(score):
    assert score.missing == ["SST-2", "QQP", "QNLI", "WNLI"]
    assert score.name == "mean of 5 of 9 tasks" and not score.whole
    assert score.mean == pytest.approx(sum(score.tasks.values()) / 5)
    matched, other = score.metrics["mnli"]["accuracy"], score.metrics["mnli_mm"]["accuracy"]
    assert score.tasks["MNLI"] == pytest.approx((matched + other) / 2)
    said = " ".join(score.sentences())
    assert "Missing: SST-2, QQP, QNLI, WNLI" in said and "not the GLUE score" in said


def test_the_owners_rows_are_scored_also_where_a_run_had_fewer(place, tmp_path):
    few = load_tasks(["cola"])[0].with_(rows={"validation": 3})
    mtl.MultiTaskModel.from_base(str(place / "base"), [few]).save_pretrained(tmp_path / "few")
    found = score_suite([tmp_path / "few", place / "one"], "glue", data_root=place / "data")
    assert found.rows["cola"] == 10
    assert any("is not asked" in note for note in found.notes)


def test_a_task_that_only_has_the_name_is_passed_over(place, tmp_path):
    other = load_tasks(["cola"])[0].with_(dataset={"path": "me/acceptability"})
    mtl.MultiTaskModel.from_base(str(place / "base"), [other]).save_pretrained(tmp_path / "other")
    with pytest.raises(ConfigError, match="its data set is 'me/acceptability', not 'nyu-mll/glue'"):
        score_suite([tmp_path / "other"], "glue", data_root=place / "data")


def test_the_command(place, tmp_path, capsys):
    words = ["evaluate", place / "one", place / "two", "--suite", "glue", "--data-root", place / "data"]
    assert call(*words, "--json", tmp_path / "glue.json") == 0
    out = capsys.readouterr().out
    assert "Mean of 5 of 9 tasks" in out and "MNLI-mm" in out
    assert json.loads((tmp_path / "glue.json").read_text())["missing"] == ["SST-2", "QQP", "QNLI", "WNLI"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--suite", "glu"], "did you mean 'glue'"),
        (["--suite", "glue", "--split", "test"], "labels of test rows are hidden"),
        (["--suite", "glue", "--task", "cola"], "leave it out"),
        (["--json", "x.json"], "add --suite"),
        (["other"], "2 runs"),
        (["--suite", "glue", "--fill-missing"], "goes with --submission"),
        (["--suite", "glue", "--submission", "glue.tar"], "does not end in .zip"),
        (["--submission", "glue.zip"], "add --suite"),
    ],
)
def test_mistakes_of_the_command(place, words, said):
    with pytest.raises(ConfigError, match=said):
        call("evaluate", place / "one", *words)


# ---------------------------------------------------------------------------------------------------------- submission


def read_tsv(file):
    with zipfile.ZipFile(file) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    return {name: [line.split("\t") for line in text.splitlines()] for name, text in texts.items()}


@pytest.fixture(scope="module")
def glue_zip(place):
    runs = [place / "one", place / "two"]
    return write_submission(runs, "glue", place / "glue.zip", fill=True, data_root=place / "data")


@pytest.fixture(scope="module")
def files(glue_zip):
    return read_tsv(glue_zip.file)


def test_the_files_of_a_glue_submission(glue_zip, files):
    assert sorted(files) == sorted(f"{part.file}.tsv" for part in GLUE.parts)
    counts = {"CoLA": 7, "MRPC": 6, "STS-B": 5, "RTE": 4, "MNLI-m": 6, "MNLI-mm": 5, "AX": 3}
    counts |= {"SST-2": 1821, "QQP": 390965, "QNLI": 5463, "WNLI": 146}
    for name, count in counts.items():
        head, *lines = files[f"{name}.tsv"]
        assert head == ["index", "prediction"]
        assert [index for index, _ in lines] == [str(number) for number in range(count)]
        assert glue_zip.lines[f"{name}.tsv"] == count
    assert glue_zip.filled == ["SST-2", "QNLI", "QQP", "WNLI"]
    assert {answer for _, answer in files["QQP.tsv"][1:]} == {"0"}
    assert any("CoLA: 7 answers, the server expects 1063" in note for note in glue_zip.notes)


def test_a_glue_submission_says_what_the_runs_predict(place, files):
    direct = mtl.evaluate(place / "one", "test", data_root=place / "data")
    direct |= mtl.evaluate(place / "two", "test", data_root=place / "data")

    def answered(name):
        return [answer for _, answer in files[f"{name}.tsv"][1:]]

    for name, task in (("CoLA", "cola"), ("MRPC", "mrpc")):
        assert answered(name) == [str(number) for number in direct[task].decoded]
    for name, task in (("RTE", "rte"), ("MNLI-m", "mnli")):
        assert answered(name) == [direct[task].in_words(number) for number in direct[task].decoded]
    assert set(answered("AX")) <= {"entailment", "neutral", "contradiction"}
    assert answered("STS-B") == [f"{min(5.0, max(0.0, value)):.3f}" for value in direct["stsb"].decoded]


def test_mnli_mm_is_read_from_its_own_rows(place, files):
    rows = load_tasks(["mnli", "mnli_mm"])
    model = mtl.MultiTaskModel.from_pretrained(place / "two")
    for task, name in zip(rows, ("MNLI-m", "MNLI-mm"), strict=True):
        test = load_rows(task, data_root=place / "data")["test"]
        inputs = [{key: row[key] for key in ("premise", "hypothesis")} for row in test]
        said = mtl.predict(model, inputs, tasks=["mnli"])
        assert [one["mnli"]["label"] for one in said] == [a for _, a in files[f"{name}.tsv"][1:]]


def test_the_same_answers_make_the_same_file(place, glue_zip):
    before = glue_zip.file.read_bytes()
    again = write_submission(
        [place / "two", place / "one"], "glue", place / "again.zip", fill=True, data_root=place / "data"
    )
    assert again.file.read_bytes() == before


def test_a_submission_with_gaps_is_not_written_unasked(place, tmp_path):
    with pytest.raises(ConfigError, match="no run answers CoLA, SST-2, MRPC, STS-B, QNLI, QQP, WNLI"):
        write_submission([place / "two"], "glue", tmp_path / "glue.zip", data_root=place / "data")
    assert not list(tmp_path.iterdir())


def test_a_task_without_test_rows_is_said(place, tmp_path):
    root = tmp_path / "data" / "nyu-mll" / "glue"
    rows = [{"sentence1": "it was red", "sentence2": "it was blue", "label": 1, "idx": 0}]
    for split in ("train", "validation"):
        write_split(root / "rte", split, rows)
    files = [{"split": split, "path": f"rte/{split}-*"} for split in ("train", "validation")]
    card = yamlfile.dumps({"configs": [{"config_name": "rte", "data_files": files}]})
    (root / "README.md").write_text(f"---\n{card}---\n")
    mtl.MultiTaskModel.from_base(str(place / "base"), load_tasks(["rte"])).save_pretrained(tmp_path / "rte")
    with pytest.raises(ConfigError, match=r"RTE: .* has its task, but the data here has no test rows"):
        write_submission([tmp_path / "rte"], "glue", tmp_path / "glue.zip", data_root=tmp_path / "data")


def write_superglue(root):
    """Test rows of every set, shuffled where an order could be mistaken for the numbers; few rows to train."""
    draw = np.random.default_rng(1)
    pair = ("premise", "hypothesis")
    simple = {"boolq": ("question", "passage"), "cb": pair, "rte": pair, "axg": pair, "axb": PAIR}
    made = {}
    for name, columns in simple.items():
        made[name] = [{**{c: text(draw) for c in columns}, "label": -1, "idx": i} for i in range(6)]
    made["boolq"] = made["boolq"][::-1]
    words = ("premise", "choice1", "choice2")
    made["copa"] = [{**{c: text(draw) for c in words}, "question": "cause", "label": -1, "idx": i} for i in range(5)]
    made["wic"] = [
        {"word": "dog", "sentence1": "the dog", "sentence2": "a dog", "start1": 4, "end1": 7, "start2": 2, "end2": 5}
        | {"label": -1, "idx": i}
        for i in range(4)
    ]
    made["wsc.fixed"] = [
        {"text": "the dog saw it", "span1_index": 1, "span1_text": "dog", "span2_index": 3, "span2_text": "it"}
        | {"label": -1, "idx": i}
        for i in range(3)
    ]
    made["multirc"] = [
        {"paragraph": text(draw), "question": text(draw), "answer": text(draw), "label": -1}
        | {"idx": {"paragraph": p, "question": 2 * p + q, "answer": 6 * p + 3 * q + a}}
        for p in (1, 0)
        for q in (0, 1)
        for a in (0, 1, 2)
    ]
    names = ["dog", "cat", "Käthe"]
    made["record"] = [
        {"passage": "the dog saw the cat", "query": "@placeholder was old", "entities": names, "answers": []}
        | {"idx": {"passage": 0, "query": q}}
        for q in (2, 0, 1)
    ]
    configs = []
    for name, rows in made.items():
        train = [{**row, "label": 1} if "label" in row else {**row, "answers": ["dog"]} for row in rows]
        splits = {"test": rows} if name.startswith("ax") else {"train": train, "validation": train, "test": rows}
        for split, part in splits.items():
            write_split(root / "aps" / "super_glue" / name, split, part)
        files = [{"split": split, "path": f"{name}/{split}-*"} for split in splits]
        configs.append({"config_name": name, "data_files": files})
    card = yamlfile.dumps({"configs": configs})
    (root / "aps" / "super_glue" / "README.md").write_text(f"---\n{card}---\n")


def test_the_files_of_a_superglue_submission(place, tmp_path):
    write_superglue(place / "data")
    names = ["boolq", "cb", "copa", "multirc", "record", "wic", "wsc"]
    model = mtl.MultiTaskModel.from_base(str(place / "base"), load_tasks(names))
    model.save_pretrained(place / "three")
    runs = [place / "three", place / "two"]
    found = write_submission(runs, "superglue", tmp_path / "super.zip", data_root=place / "data")
    with zipfile.ZipFile(found.file) as archive:
        lines = {
            name: [json.loads(line) for line in archive.read(name).decode().splitlines()] for name in archive.namelist()
        }
    assert sorted(lines) == sorted(f"{part.file}.jsonl" for part in SUITES["superglue"].parts)
    assert not found.filled
    counts = {"BoolQ": 6, "CB": 6, "COPA": 5, "RTE": 6, "WiC": 4, "WSC": 3, "AX-b": 6, "AX-g": 6, "ReCoRD": 3}
    known = {"BoolQ": {"true", "false"}, "WiC": {"true", "false"}, "WSC": {"True", "False"}, "COPA": {0, 1}}
    known |= {name: {"entailment", "not_entailment"} for name in ("RTE", "AX-b", "AX-g")}
    known |= {"CB": {"entailment", "contradiction", "neutral"}, "ReCoRD": {"dog", "cat", "Käthe"}}
    for name, count in counts.items():
        assert [line["idx"] for line in lines[f"{name}.jsonl"]] == list(range(count))
        assert {line["label"] for line in lines[f"{name}.jsonl"]} <= known[name]
        assert all(list(line) == ["idx", "label"] for line in lines[f"{name}.jsonl"])
    passages_found = lines["MultiRC.jsonl"]
    assert [one["idx"] for one in passages_found] == [0, 1]
    for one in passages_found:
        questions = one["passage"]["questions"]
        assert [question["idx"] for question in questions] == [2 * one["idx"], 2 * one["idx"] + 1]
        for question in questions:
            assert [answer["idx"] for answer in question["answers"]] == [3 * question["idx"] + a for a in range(3)]
            assert {answer["label"] for answer in question["answers"]} <= {0, 1}
    rows = [f"{word} was old" for word in ("dog", "cat", "Käthe")]
    said = mtl.predict(
        model.eval(), [{"query": row, "passage": "the dog saw the cat"} for row in rows], tasks=["record"]
    )
    best = max(zip(said, ("dog", "cat", "Käthe"), strict=True), key=lambda one: one[0]["record"]["scores"]["True"])[1]
    assert {line["label"] for line in lines["ReCoRD.jsonl"]} == {best}


def test_shuffled_rows_make_the_same_lines():
    draw = np.random.default_rng(0)
    numbers = [{"paragraph": p, "question": q, "answer": a} for p in range(2) for q in range(2) for a in range(3)]
    labels = draw.integers(2, size=len(numbers)).tolist()
    order = draw.permutation(len(numbers))
    assert passages(numbers, labels) == passages([numbers[i] for i in order], [labels[i] for i in order])
    queries, names, scores = [i // 3 for i in range(9)], list("abcabcabc"), draw.random(9).tolist()
    order = draw.permutation(9)
    mixed = ([queries[i] for i in order], [names[i] for i in order], [scores[i] for i in order])
    assert best_candidates(*mixed) == best_candidates(queries, names, scores)
