"""Tasks over pairs and choices, on rows in the shape of the Hub's files, written here."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from nlp_mtl.data import load_data
from nlp_mtl.errors import ConfigError, DataError
from nlp_mtl.heads import make_heads
from nlp_mtl.sources import load_rows
from nlp_mtl.tasks import load_tasks
from nlp_mtl.testing import tiny_model, tiny_tokenizer

TEXT = Value("string")
NLI = ClassLabel(names=["entailment", "neutral", "contradiction"])
# What a converted file may hold for the card's "sequence: [text, label]".
STRUCT = {"text": List(TEXT), "label": List(TEXT)}
STRUCTS = List({"text": TEXT, "label": TEXT})


def put(root: Path, task: str, rows: list[dict], columns: dict, splits=("train", "validation", "test")) -> None:
    """Write the rows as parquet files where a data root has the task's data set."""
    spec = load_tasks(task)[0].dataset if "adv" not in task else load_tasks(["glue", task])[-1].dataset
    folder = root / spec.path / (spec.name or "default")
    folder.mkdir(parents=True)
    for split in splits:
        Dataset.from_list(rows, Features(columns)).to_parquet(folder / f"{split}-00000-of-00001.parquet")


def read(root: Path, *names: str):
    return load_data(make_heads(load_tasks(list(names))), tiny_tokenizer(), max_length=64, data_root=root)


def test_snli_pairs_without_a_majority_are_unlabelled(tmp_path):
    rows = [{"premise": "a cat", "hypothesis": f"it is {n}", "label": label} for n, label in enumerate((2, -1, 0, 1))]
    put(tmp_path, "snli", rows, {"premise": TEXT, "hypothesis": TEXT, "label": NLI})
    data = read(tmp_path, "snli")
    for split in ("train", "validation"):
        assert data.pool_of("snli", split).labels("snli") == [2, None, 0, 1]
    assert list(data.pool_of("snli", "train").trainable) == [0, 2, 3], "not trained on"
    assert any("1 without a label" in note for note in data.notes())


def test_each_round_of_anli_reads_its_own_splits(tmp_path):
    columns = {"uid": TEXT, "premise": TEXT, "hypothesis": TEXT, "label": NLI, "reason": TEXT}
    folder = tmp_path / "facebook" / "anli" / "plain_text"
    folder.mkdir(parents=True)
    for number in (1, 2, 3):
        for split in ("train", "dev", "test"):
            row = {"uid": "u", "premise": f"{split} {number}", "hypothesis": "h", "label": 1, "reason": ""}
            Dataset.from_list([row], Features(columns)).to_parquet(folder / f"{split}_r{number}-00000-of-00001.parquet")
    lines = ["---", "configs:", "- config_name: plain_text", "  data_files:"]
    for part in (f"{split}_r{number}" for number in (1, 2, 3) for split in ("train", "dev", "test")):
        lines += [f"  - split: {part}", f"    path: plain_text/{part}-*"]
    (tmp_path / "facebook" / "anli" / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")
    for number in (1, 2, 3):
        found = load_rows(load_tasks(f"anli_r{number}")[0], data_root=tmp_path)
        said = {split: rows[0]["premise"] for split, rows in found.items()}
        assert said == {"train": f"train {number}", "validation": f"dev {number}", "test": f"test {number}"}


@pytest.mark.parametrize("language", ["de", "zh"])
def test_paws_x_leaves_out_sentences_that_were_not_translated(tmp_path, language):
    rows = [
        {"id": 1, "sentence1": "a b", "sentence2": "b a", "label": 1},
        {"id": 2, "sentence1": "", "sentence2": "", "label": 0},
        {"id": 3, "sentence1": "c d", "sentence2": "NS", "label": -1},
        {"id": 4, "sentence1": "e", "sentence2": "", "label": 0},
    ]
    columns = {"id": Value("int32"), "sentence1": TEXT, "sentence2": TEXT, "label": ClassLabel(names=["0", "1"])}
    put(tmp_path, f"paws_x_{language}", rows, columns)
    data = read(tmp_path, f"paws_x_{language}")
    assert data.pool_of(f"paws_x_{language}", "train").labels(f"paws_x_{language}") == [1, None]
    assert data.heads[f"paws_x_{language}"].labels == ["different", "paraphrase"]


@pytest.mark.parametrize("choices", [STRUCT, STRUCTS], ids=["struct of lists", "list of structs"])
@pytest.mark.parametrize(
    ("name", "question", "extra"),
    [
        ("arc_easy", "question", ["id"]),
        ("arc_challenge", "question", ["id"]),
        ("commonsense_qa", "question", ["id", "question_concept"]),
        ("openbookqa", "question_stem", ["id"]),
    ],
)
def test_labelled_choices_of_any_number(tmp_path, name, question, extra, choices):
    """Rows with three, four and five choices, labelled by letters or by numbers, and a row without an answer."""
    right = [("ABCD", "C"), ("1234", "1"), ("ABC", "B"), ("ABCD", "")]
    if name != "openbookqa":
        right.append(("ABCDE", "E"))
    rows = []
    for number, (labels, answer) in enumerate(right):
        texts = [f"choice {label} of {number}" for label in labels]
        held = {"text": texts, "label": list(labels)}
        if choices is STRUCTS:
            held = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
        rows.append({question: f"q {number}", "choices": held, "answerKey": answer, **dict.fromkeys(extra, "x")})
    columns = {question: TEXT, "choices": choices, "answerKey": TEXT, **dict.fromkeys(extra, TEXT)}
    put(tmp_path, name, rows, columns)
    pool = read(tmp_path, name).pool_of(name, "train")
    assert [len(lengths) for lengths in pool.table["lengths"]] == [len(labels) for labels, _ in right], "none dropped"
    assert pool.labels(name) == [labels.index(answer) if answer else None for labels, answer in right]
    assert pool.table["choices"][2] == ["choice A of 2", "choice B of 2", "choice C of 2"]


def test_an_answer_that_is_no_label_is_named_with_task_split_and_row(tmp_path):
    rows = [
        {"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": key} for key in ("B", "3")
    ]
    put(tmp_path, "commonsense_qa", rows, {"question": TEXT, "choices": STRUCT, "answerKey": TEXT})
    with pytest.raises(DataError) as caught:
        read(tmp_path, "commonsense_qa")
    for part in ("'commonsense_qa'", "'train'", "choice_texts", "row 1", "['A', 'B']", "found '3'"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "column", "inputs", "choices", "answers", "numbers"),
    [
        ("winogrande", "answer", ["sentence"], ["option1", "option2"], ["2", "1", ""], [1, 0, None]),
        (
            "social_iqa",
            "label",
            ["context", "question"],
            ["answerA", "answerB", "answerC"],
            ["3\n", "1\n", "2"],
            [2, 0, 1],
        ),
    ],
)
def test_answers_counted_from_one(tmp_path, name, column, inputs, choices, answers, numbers):
    rows = [
        {**dict.fromkeys(inputs, "the cat saw _ run"), **{c: f"the {c}" for c in choices}, column: answer}
        for answer in answers
    ]
    put(tmp_path, name, rows, dict.fromkeys([*inputs, *choices, column], TEXT))
    assert read(tmp_path, name).pool_of(name, "train").labels(name) == numbers


def test_winogrande_reads_each_option_in_its_place(tmp_path):
    row = {"sentence": "The cat saw the dog but _ ran.", "option1": "the cat", "option2": "the dog", "answer": "2"}
    put(tmp_path, "winogrande", [row], dict.fromkeys(row, TEXT))
    found = load_rows(load_tasks("winogrande")[0], data_root=tmp_path)["train"][0]
    assert found["sentence"] == "The cat saw the dog but"
    assert (found["option1"], found["option2"]) == ("the cat ran.", "the dog ran.")


def test_hellaswag_and_piqa_rows(tmp_path):
    rows = [{"ctx": "a man", "endings": ["a", "b", "c", "d"], "label": label} for label in ("3", "0", "")]
    put(tmp_path, "hellaswag", rows, {"ctx": TEXT, "endings": List(TEXT), "label": TEXT})
    rows = [{"goal": "to cook", "sol1": "a", "sol2": "b", "label": label} for label in (1, 0, -1)]
    put(tmp_path, "piqa", rows, {"goal": TEXT, "sol1": TEXT, "sol2": TEXT, "label": ClassLabel(names=["0", "1"])})
    data = read(tmp_path, "hellaswag", "piqa")
    assert data.pool_of("hellaswag", "train").labels("hellaswag") == [3, 0, None]
    assert data.pool_of("piqa", "train").labels("piqa") == [1, 0, None]


def test_advglue_is_answered_by_the_heads_of_glue():
    tasks = load_tasks(["glue", "advglue"])
    model = tiny_model(tasks)
    for task in load_tasks(["glue", "advglue"]):
        if "advglue" in task.tags:
            owner = next(t for t in tasks if t.name == task.head_of)
            assert (task.inputs, task.labels, task.metrics) == (owner.inputs, owner.labels, owner.metrics)
            assert model.module_of(task.name) is model.module_of(owner.name)
    with pytest.raises(ConfigError, match="'adv_sst2' uses the head of 'sst2', which is not among the tasks"):
        load_tasks("advglue")


def test_advglue_has_rows_to_score_and_none_to_train_on(tmp_path):
    columns = {"sentence": TEXT, "label": ClassLabel(names=["negative", "positive"]), "idx": Value("int32")}
    rows = [{"sentence": f"sentence {n}", "label": n % 2, "idx": n} for n in range(4)]
    put(tmp_path, "adv_sst2", rows, columns, ["validation"])
    put(tmp_path, "sst2", rows, columns)
    data = read(tmp_path, "sst2", "adv_sst2")
    assert data.pool_of("adv_sst2", "train") is None
    assert data.pool_of("adv_sst2", "validation").labels("adv_sst2") == [0, 1, 0, 1]
