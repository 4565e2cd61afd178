"""SuperGLUE's tasks from rows in the Hub's own shape to their official scores, against a reference worked out here."""

import re
import string
from collections import Counter

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset

from nlp_mtl.batches import Collator
from nlp_mtl.data import load_data
from nlp_mtl.evaluation import Evaluator
from nlp_mtl.heads import make_heads
from nlp_mtl.sources import load_rows
from nlp_mtl.tasks import load_tasks
from nlp_mtl.testing import WORDS, check_rows, tiny_model, tiny_tokenizer
from tests.unit.test_registry_files import data_root, needs_mirror

torch.set_num_threads(1)  # tiny models: threads would only wait for one another
random = np.random.default_rng(5)
TRUTH = ["False", "True"]


def words(count):
    return " ".join(WORDS[i] for i in random.integers(len(WORDS), size=count))


def multirc(questions, labelled=True):
    rows, answer = [], 0
    for question in range(questions):
        for _ in range(1 + question % 4):
            idx = {"paragraph": question // 3, "question": question, "answer": answer}
            texts = {"paragraph": words(30), "question": words(5), "answer": words(1 + answer % 5)}
            rows.append({**texts, "idx": idx, "label": int(random.integers(2)) if labelled else -1})
            answer += 1
    return rows


NAMES = ["the old city", "new city", "city", "Dog House", "house", "Rain", "sun", "good dog", "cat"]


def record(queries, labelled=True):
    rows = []
    for query in range(queries):
        entities = sorted(random.choice(NAMES, size=2 + query % 5, replace=False).tolist())
        right = sorted(random.choice(entities, size=1 + query % 2, replace=False).tolist()) if labelled else []
        rows.append(
            {
                "passage": f"{words(20)}\n@highlight\n{words(4)}",
                "query": f"{words(3)} @placeholder {words(query % 6)}",
                "entities": entities,
                "entity_spans": {"text": entities, "start": [0] * len(entities), "end": [1] * len(entities)},
                "answers": right,
                "idx": {"passage": query // 2, "query": query},
            }
        )
    return rows


def axg(pairs):
    rows = []
    for pair in range(pairs):
        premise, hypothesis, label = words(8), words(3), int(random.integers(2))
        for pronoun in ("his", "her"):
            rows.append({"premise": f"{premise} {pronoun} {pair}", "hypothesis": hypothesis, "label": label})
    return [{**row, "idx": number} for number, row in enumerate(rows)]


def write(root, config, names=None, **splits):
    """A data set in the Hub's layout."""
    folder = root / "aps" / "super_glue" / config
    folder.mkdir(parents=True)
    features = None
    for split, rows in splits.items():
        table = Dataset.from_list(rows, features=features)
        if names:
            table = table.cast_column("label", ClassLabel(names=names))
        features = table.features  # a split without answers has the columns of the others
        table.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("mirror")
    write(root, "multirc", TRUTH, train=multirc(6), validation=multirc(25), test=multirc(3, labelled=False))
    write(root, "record", train=record(6), validation=record(25), test=record(3, labelled=False))
    write(root, "axg", ["entailment", "not_entailment"], test=axg(20))
    return root


def scored(name, root, monkeypatch, split):
    """The scores of a task, its table, and the chance of the last label for each row, computed one by one."""
    monkeypatch.setenv("NLP_MTL_CACHE", str(root / "cache"))
    task = next(task for task in load_tasks([name] if name != "axg" else ["rte", "axg"]) if task.name == name)
    task = task.with_(head_of=None)
    data = load_data(make_heads([task]), tiny_tokenizer(), max_length=128, data_root=root)
    for seed in range(20):  # a model that does not say the same of all rows
        model, chances = chances_of(task, data, split, seed)
        if 0.2 < (chances > 0.5).mean() < 0.8:
            break
    else:
        pytest.fail("no tiny model tells the rows apart")
    found = Evaluator(data, batch_rows=6).evaluate(model, split)[name]
    return found, data.pool_of(name, split), chances, data


def chances_of(task, data, split, seed):
    model, pool = tiny_model([task]).eval(), data.pool_of(task.name, split)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
        batches = [Collator([pool], data.heads)([(0, row, -1)]) for row in range(len(pool))]
        return model, np.array([float(model(**batch)["logits"][task.name][0].softmax(-1)[-1]) for batch in batches])


def test_multirc(root, monkeypatch):
    found, pool, chances, data = scored("multirc", root, monkeypatch, "validation")
    raw = Dataset.from_parquet(str(root / "aps/super_glue/multirc/validation-00000-of-00001.parquet"))
    assert len(pool) == len(raw)
    assert pool.table["question"][:] == [f"{row['question']} {row['answer']}" for row in raw]
    said, gold = (chances > 0.5).astype(int), np.array(raw["label"])
    hits, both = int((said & gold).sum()), int(said.sum() + gold.sum())
    right = {}
    for row, ok in zip(raw, said == gold, strict=True):
        right.setdefault(row["idx"]["question"], []).append(bool(ok))
    assert found.metrics == {
        "f1": pytest.approx(2 * hits / both),
        "group_exact_match": pytest.approx(sum(all(each) for each in right.values()) / 25),
    }
    assert 0 < found.metrics["group_exact_match"] < 1
    assert data.facts("multirc", "test") == {**data.facts("multirc", "test"), "labelled": 0}


def normal(text):
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def f1(prediction, answer):
    same = sum((Counter(normal(prediction)) & Counter(normal(answer))).values())
    return 2 * same / (len(normal(prediction)) + len(normal(answer)))


def test_record(root, monkeypatch):
    found, pool, chances, data = scored("record", root, monkeypatch, "validation")
    raw = Dataset.from_parquet(str(root / "aps/super_glue/record/validation-00000-of-00001.parquet"))
    assert len(pool) == sum(len(row["entities"]) for row in raw)
    place, exact, overlap = 0, [], []
    for row in raw:
        own = chances[place : place + len(row["entities"])]
        texts = pool.table["query"][place : place + len(own)]
        assert texts == [row["query"].replace("@placeholder", entity) for entity in row["entities"]]
        assert pool.labels("record")[place : place + len(own)] == [int(e in row["answers"]) for e in row["entities"]]
        answer = row["entities"][int(own.argmax())]
        exact.append(max(normal(answer) == normal(gold) for gold in row["answers"]))
        overlap.append(max(f1(answer, gold) for gold in row["answers"]))
        place += len(own)
    assert found.metrics == {
        "best_f1_answer": pytest.approx(np.mean(overlap)),
        "best_exact_match": pytest.approx(np.mean(exact)),
    }
    assert 0 < found.metrics["best_exact_match"] < found.metrics["best_f1_answer"] < 1
    assert "@highlight" not in "".join(pool.table["passage"])
    # the baseline draws a candidate
    guessed = [np.mean([any(normal(e) == normal(g) for g in row["answers"]) for e in row["entities"]]) for row in raw]
    assert found.trivial["best_exact_match"] == pytest.approx(np.mean(guessed))
    assert data.facts("record", "test") == {**data.facts("record", "test"), "labelled": 0}
    assert Evaluator(data).evaluate(tiny_model([data.heads["record"].task]).eval(), "test")["record"].metrics == {}


def test_record_takes_whole_queries(root):
    task = load_tasks({"name": "record", "rows": {"train": 9}})[0]
    counts = Counter(load_rows(task, data_root=root)["train"]["query_id"])
    raw = Dataset.from_parquet(str(root / "aps/super_glue/record/train-00000-of-00001.parquet"))
    full = {f"{row['idx']['passage']}-{row['idx']['query']}": len(row["entities"]) for row in raw}
    assert 0 < sum(counts.values()) <= 9
    assert all(full[query] == count for query, count in counts.items())


def test_axg(root, monkeypatch):
    found, pool, chances, _ = scored("axg", root, monkeypatch, "test")
    said, gold = chances > 0.5, np.array(pool.labels("axg"))
    assert found.metrics == {
        "accuracy": pytest.approx(np.mean(said == gold)),
        "gender_parity": pytest.approx(np.mean(said[::2] == said[1::2])),
    }
    assert len(set(pool.table["metric:axg:groups"])) == 20
    assert found.trivial["gender_parity"] == 1.0


def test_wic_and_wsc_as_the_hub_holds_them(tmp_path):
    wic = {
        "word": "run",
        "sentence1": "She ran home.",
        "sentence2": "The run was long.",
        "start1": 4,
        "start2": 4,
        "end1": 7,
        "end2": 7,
        "idx": 0,
        "label": 0,
    }
    wsc = {
        "text": "The mother of Ann told her to sleep, as she was tired.",
        "span1_index": 3,
        "span2_index": 8,
        "span1_text": "Ann",
        "span2_text": "she",
        "idx": 0,
        "label": 1,
    }
    write(tmp_path, "wic", TRUTH, train=[wic])
    write(tmp_path, "wsc.fixed", TRUTH, train=[wsc])
    (row,) = load_rows(load_tasks("wic")[0], data_root=tmp_path)["train"]
    assert (row["sentence1"], row["sentence2"], row["label"]) == ("She *ran* home.", "The *run* was long.", 0)
    (row,) = load_rows(load_tasks("wsc")[0], data_root=tmp_path)["train"]
    assert (row["text"], row["label"]) == ("The mother of *Ann* told her to sleep, as #she# was tired.", 1)
    for name in ("wic", "wsc"):
        looked, mistakes = check_rows(load_tasks(name)[0], tmp_path)
        assert not mistakes
        assert "real rows work" in looked


@pytest.mark.realdata
@needs_mirror
def test_most_words_of_wic_are_found_without_offsets():
    rows = load_rows(load_tasks("wic")[0], data_root=data_root())
    marked = re.compile(r"\*[^*\s]+\*")
    sentences = [text for part in rows.values() for column in ("sentence1", "sentence2") for text in part[column]]
    found = [bool(marked.search(text)) for text in sentences]
    assert np.mean(found) > 0.97
