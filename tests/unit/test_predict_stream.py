"""Prediction of many inputs: as one at a time, in order, with bounded memory, each text tokenized and encoded once."""

import gc
import json
import weakref
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl import prediction
from nlp_mtl.errors import ConfigError, DataError
from nlp_mtl.heads import make_heads
from nlp_mtl.heads.labels import Where
from nlp_mtl.inputs import InputReader
from nlp_mtl.predictfile import Lines, predict_file
from nlp_mtl.taskfile import Task
from nlp_mtl.testing import WORDS, tiny_model, tiny_tokenizer
from nlp_mtl.windows import equal_passes, windows
from tests.unit.test_prediction import DATA, LISTED, TASKS, TEXT_TASKS, encoder_calls, model  # noqa: F401 - fixtures

torch.set_num_threads(1)
predict = partial(prediction.predict, dtype="float32")
predict_stream = partial(prediction.predict_stream, dtype="float32")


def apart(a, b):
    """The largest difference of numbers; infinite where anything else differs."""
    if isinstance(a, dict) and isinstance(b, dict) and list(a) == list(b):
        return max((apart(a[key], b[key]) for key in a), default=0.0)
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return max(map(apart, a, b), default=0.0)
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b)
    return 0.0 if a == b else float("inf")


# ------------------------------------------------------------------------------------------------- as one at a time

texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=40).map(" ".join)
words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12)
rows = st.fixed_dictionaries(
    {"text": texts, "one": texts, "two": texts},
    optional={
        "words": words | texts,
        "sentence": texts,
        "options": st.lists(texts, min_size=2, max_size=4),
        "question": st.just("the cat"),
        "context": st.lists(st.sampled_from(WORDS), min_size=1, max_size=200).map(" ".join),
    },
)
any_input = texts | st.tuples(texts, texts) | rows | st.just("the [MASK] is good") | st.sampled_from(["cat", "dog"])


@settings(max_examples=40, deadline=None)
@given(st.lists(any_input, min_size=1, max_size=12), st.integers(1, 14), st.sampled_from([1, 20, 64, 300, 5000]))
def test_windows_passes_and_company_change_no_answer(model, inputs, window, tokens):  # noqa: F811
    together = list(predict_stream(model, inputs, window=window, tokens_per_pass=tokens))
    alone = [predict(model, value) for value in inputs]
    assert apart(together, alone) < 1e-5


def test_equal_inputs_have_answers_of_their_own(model):  # noqa: F811
    first, second = predict(model, ["the cat", "the cat"])
    assert first == second
    first["mood"]["scores"].clear()
    first["names"]["entities"].append(None)
    assert second == predict(model, "the cat")


def test_a_number_a_float_and_a_truth_are_read_each_as_it_is_written(tmp_path):
    task = Task(name="shop", template="{price} {text}", target="l", labels=["a", "b"], **LISTED)
    made = tiny_model([task])
    inputs = [{"price": price, "text": "cat"} for price in (1, True, 1.5, "1", None, 1)]
    with pytest.raises(DataError, match=r"(?s)task 'shop': 1 input\(s\).*input 4: column 'price' holds nothing"):
        predict(made, inputs)
    inputs.pop(4)
    assert apart(predict(made, inputs), [predict(made, value) for value in inputs]) < 1e-5
    assert predict(made, inputs[1]) != predict(made, inputs[0])


# ------------------------------------------------------------------------------------------------------ work done once


@pytest.fixture
def tokenized(monkeypatch):
    """The texts that the tokenizer was given, one by one."""
    given, kind = [], type(tiny_tokenizer())
    plain = kind.__call__

    def counted(self, *columns, **more):
        given.extend(columns[0] if isinstance(columns[0], list) else [columns[0]])
        return plain(self, *columns, **more)

    monkeypatch.setattr(kind, "__call__", counted)
    return given


def test_a_text_is_tokenized_once_for_all_tasks_that_read_it_alike(model, tokenized):  # noqa: F811
    answers = predict(model, ["the cat is good", "rain", "rain"], tasks=[*TEXT_TASKS, "hidden"])
    assert tokenized == ["the cat is good", "rain"], "six tasks and a masked LM, whatever their columns are called"
    assert all("missing" not in answers[0][task] for task in TEXT_TASKS)


def test_tasks_that_read_otherwise_are_tokenized_apart(tokenized):
    short = Task(name="short", inputs=["text"], target="l", labels=["a", "b"], max_length=4, **LISTED)
    made = tiny_model([TASKS[0], short])
    answers = predict(made, "the cat is good and not bad")
    assert tokenized == ["the cat is good and not bad"] * 2
    assert apart(answers["short"], predict(made, "the cat", tasks=["short"])["short"]) < 1e-5, "two words fit"
    assert apart(answers["mood"], predict(made, "the cat is good and not bad", tasks=["mood"])["mood"]) < 1e-5


def test_a_head_says_what_its_tokens_have_beyond_those_of_others():
    """The head with most columns tokenizes for all of equal manner, so nothing may be missing that it does not say."""
    usual = {"input_ids", "token_type_ids", "lengths", "truncated", "source"}
    whole = {"maskable", "mask_id", "vocabulary"}  # needed to hide words, not to find them
    tokenizer = tiny_tokenizer()
    for name, head in make_heads(TASKS).items():
        values = {"options": [["a", "b"]], "words": ["cat"]}
        table = {column: values.get(column, ["the cat"]) for column in head.needed_columns()}
        more = set(head.tokenize(table, tokenizer, 64, Where(name, "x"))) - usual - set(head.also_gives) - whole
        readers = [one for one in make_heads(TASKS).values() if one.manner() == head.manner()]
        assert not more or {type(one) for one in readers} == {type(head)}, name


def test_a_manner_forgets_how_columns_are_called():
    manners = {name: head.manner() for name, head in make_heads(TASKS).items()}
    assert len({manners[name] for name in (*TEXT_TASKS, "hidden")}) == 1
    rest = [manners[name] for name in ("mood", "follows", "answer", "choice", "pick")]
    assert len(set(rest)) == len(rest)


def test_passes_are_bounded_by_tokens_and_hold_rows_of_like_length(model, encoder_calls):  # noqa: F811
    texts = [" ".join(WORDS[: 1 + i % 25]) for i in range(40)] + ["cat"]
    list(predict_stream(model, texts, tokens_per_pass=60, tasks=["mood"]))
    assert max(encoder_calls) <= 60
    assert len(encoder_calls) < 20
    encoder_calls.clear()
    list(predict_stream(model, [" ".join(WORDS)] * 2 + ["cat", "dog"], tokens_per_pass=8, tasks=["mood"]))
    assert encoder_calls == [len(WORDS) + 2, 6], "a row with more tokens is a pass of its own"


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 80))
def test_every_row_is_in_one_pass(lengths, tokens):
    numbers = [10 * i for i in range(len(lengths))]
    found = list(equal_passes(numbers, lengths, tokens))
    assert sorted(number for part in found for number in part) == numbers
    sizes = [[lengths[number // 10] for number in part] for part in found]
    assert all(sum(part) <= tokens or len(part) == 1 for part in sizes)
    assert all(part == sorted(part, reverse=True) for part in sizes), "the longest first"
    firsts = [part[0] for part in sizes]
    assert firsts == sorted(firsts, reverse=True)


@given(st.lists(st.integers(5, 60), min_size=300, max_size=600), st.integers(500, 3000))
def test_passes_are_few_and_equal(lengths, tokens):
    """So the matrix library meets few sizes, also over many windows."""
    sizes = [sum(lengths[number] for number in part) for part in equal_passes(range(len(lengths)), lengths, tokens)]
    least = -(-sum(lengths) // tokens)
    assert len(sizes) <= least + 1
    if len(sizes) == least:
        assert max(sizes) - min(sizes) <= 60


# ----------------------------------------------------------------------------------------------------- bounded memory


class Text(str):
    """A text that can be watched."""


@pytest.mark.parametrize("window", [1, 4, 7])
def test_no_more_than_a_window_of_inputs_is_held(model, window):  # noqa: F811
    known, counts = [], []

    def count():
        gc.collect()
        counts.append(sum(reference() is not None for reference in known))

    def inputs():
        for number in range(30):
            text = Text(f"the {WORDS[number % 25]} cat {number}")
            known.append(weakref.ref(text))
            count()
            yield text

    for _ in predict_stream(model, inputs(), window=window, tasks=["mood", "names"]):
        count()
    assert len(known) == 30
    assert max(counts) <= window + 1, "one more is on its way"


def test_a_window_ends_where_it_holds_much_text():
    taken = []
    parts = windows((taken.append(text) or text for text in ["x" * 10] * 6), 100, text=25)
    assert next(parts) == ["x" * 10] * 3
    assert len(taken) == 3
    assert [len(part) for part in parts] == [3]


def test_a_file_keeps_no_more_than_what_is_not_answered(tmp_path):
    file = tmp_path / "in.jsonl"
    file.write_text('"a"\n\n["b", "c"]\n{"text": "d"}\n', encoding="utf-8")
    lines = Lines(file)
    values = iter(lines)
    assert [next(values), next(values)] == ["a", ("b", "c")]
    assert [lines.line_of(0), lines.line_of(1)] == [1, 3]
    assert lines.answered() == 4
    assert next(values) == {"text": "d"}
    assert [lines.line_of(1), lines.line_of(2)] == [3, 4]
    assert lines.answered() + lines.answered() == 11 + 14
    assert lines.done == 3
    assert not lines._open


def test_a_file_is_answered_line_by_line_and_a_late_mistake_has_its_line(tmp_path, monkeypatch):
    tiny_model(TASKS[:2]).eval().save_pretrained(tmp_path / "run")
    texts = [f"{WORDS[i % len(WORDS)]} {WORDS[i % 7]}" for i in range(50)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, texts)) + "\n\n", encoding="utf-8")
    monkeypatch.setattr(
        prediction.predict_stream, "__kwdefaults__", {**prediction.predict_stream.__kwdefaults__, "window": 8}
    )
    assert predict_file(tmp_path / "run", tmp_path / "in.jsonl", tmp_path / "out.jsonl", dtype="float32") == 50
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert apart(found, predict(tmp_path / "run", texts)) < 1e-5
    with (tmp_path / "in.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('"fine"\n{"text": null, "sentence": "x"}\n')
    with pytest.raises(DataError, match=r"in\.jsonl: predict: task 'mood'.*\n.*line 53: column 'text' is not text"):
        predict_file(tmp_path / "run", tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 50, "what was there is kept"


# ------------------------------------------------------------------------------------------------------------- dtypes


def test_bfloat16_is_close_to_float32(model):  # noqa: F811
    texts = ["the cat is good", "rain", "a dog and a cat in the old house"]
    half, full = (predict(model, texts, tasks=["mood", "stars"], dtype=kind) for kind in ("bfloat16", torch.float32))
    both = [(a["mood"]["scores"], b["mood"]["scores"]) for a, b in zip(half, full, strict=True)]
    assert 0 < max(apart(a, b) for a, b in both) < 0.1


def test_auto_is_what_the_model_was_trained_in(model, monkeypatch):  # noqa: F811
    monkeypatch.setattr("nlp_mtl.settings.best_precision", lambda device: "bf16")
    said = {kind: predict(model, "the cat", tasks=["mood"], dtype=kind) for kind in ("auto", "bfloat16", "float32")}
    assert said["auto"] == said["bfloat16"] != said["float32"]
    monkeypatch.setitem(model.strategies, "precision", "no")
    assert predict(model, "the cat", tasks=["mood"], dtype="auto") == said["float32"]
    monkeypatch.setitem(model.strategies, "precision", "fp16")
    assert predict(model, "the cat", tasks=["mood"], dtype="auto") == said["float32"], "the device lacks it"


def test_inside_a_callers_autocast_training_goes_on():
    made = tiny_model(TASKS[:1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predict(made, "the cat", dtype="bfloat16")
        weight = next(p for p in made.sharing.encoder.parameters() if p.dim() == 2 and "cpu" in str(p.device))
        linear = next(part for part in made.sharing.encoder.modules() if isinstance(part, torch.nn.Linear))
        linear(torch.ones(2, linear.in_features)).sum().backward()
    assert linear.weight.grad is not None
    assert weight.requires_grad


def test_mistakes_in_arguments_are_told_at_once(model):  # noqa: F811
    with pytest.raises(ConfigError) as caught:
        predict(model, "cat", tasks=["moood"], dtype="float23")
    assert "did you mean 'mood'" in str(caught.value)
    assert "`dtype` is one of auto, float32, bfloat16, float16, found 'float23'" in str(caught.value)
    with pytest.raises(ConfigError, match="`window` is a whole number from 1, found 0"):
        next(predict_stream(model, ["cat"], window=0))
    with pytest.raises(ConfigError, match=r"`tokens_per_pass` is a whole number from 1, found 2\.5"):
        next(predict_stream(model, ["cat"], tokens_per_pass=2.5))


def test_a_text_for_a_template_of_one_column_stands_in_its_place():
    task = Task(name="shop", template="{price:-nothing} {text}", target="l", labels=["a", "b"], **LISTED)
    reader = InputReader(make_heads([task])["shop"], 64)
    assert reader.values("cat", 0) == (None, "cat")
    assert reader.values({"text": "cat"}, 0) == (None, "cat")
    assert reader.values({"price": 3}, 0) == ["text"]
    assert LISTED["dataset"] == DATA
