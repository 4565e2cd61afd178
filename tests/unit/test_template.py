"""Templates: any columns joined into one text, from the task file to a prediction."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlp_mtl import yamlfile
from nlp_mtl.errors import ConfigError, DataError
from nlp_mtl.heads import make_heads
from nlp_mtl.prediction import predict
from nlp_mtl.sources import load_rows
from nlp_mtl.taskfile import Task
from nlp_mtl.taskreader import read_task
from nlp_mtl.template import Template
from nlp_mtl.testing import check_task, tiny_model


def task_of(template, **changes) -> Task:
    said = {"name": "shop", "head": "sequence_classification", "target": "label", "labels": ["no", "yes"]}
    return Task(**{**said, "dataset": {"path": "csv", "data_files": "shop.csv"}, "template": template, **changes})


# ------------------------------------------------------------------------------------------------------- the text


@pytest.mark.parametrize(
    ("template", "row", "text"),
    [
        ("{title} costs {price}: {text}", {"title": "Tea", "price": 3, "text": "good"}, "Tea costs 3: good"),
        ("{price}", {"price": 3.5}, "3.5"),
        ("{price}", {"price": 3.0}, "3"),
        ("{price}", {"price": 1e300}, "1e+300"),
        ("{big}", {"big": 2**70}, str(2**70)),
        ("{new}", {"new": True}, "true"),
        ("{day}", {"day": datetime.date(2024, 5, 1)}, "2024-05-01"),
        ("{{{a}}} {{}}", {"a": "x"}, "{x} {}"),
        ("{a}{a}", {"a": "x"}, "xx"),
        ("{a b}/{a.b}/{a:b}", {"a b": 1, "a.b": 2, "a:b": 3}, "1/2/3"),
        ("{a:-none} {b:-}", {"a": None, "b": float("nan")}, "none "),
        ("{a:-none}", {}, "none"),
        ("{a:-none}", {"a": "  "}, "none"),
        ("[{a}]", {"a": ""}, "[]"),
    ],
)
def test_a_template_joins_columns_of_any_plain_kind(template, row, text):
    assert Template(template).fill(row) == text


@given(
    words=st.lists(st.text(min_size=0, max_size=5), min_size=2, max_size=4),
    values=st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=3),
)
def test_what_stands_between_columns_is_kept_as_it_is(words, values):
    values = values[: len(words) - 1]
    words = words[: len(values) + 1]
    literal = [word.replace("{", "{{").replace("}", "}}") for word in words]
    template = literal[0] + "".join(f"{{c{i}}}{word}" for i, word in enumerate(literal[1:]))
    wanted = words[0] + "".join(value + word for value, word in zip(values, words[1:], strict=True))
    assert Template(template).fill({f"c{i}": value for i, value in enumerate(values)}) == wanted


@given(st.text(alphabet="{}:-ab ", max_size=12))
def test_any_text_is_a_template_or_refused_with_its_place(text):
    mistakes: list[str] = []
    try:
        template = Template(text)
    except ConfigError as error:
        mistakes = error.mistakes
    else:
        assert template.fill(dict.fromkeys(template.columns, "x")) is not None
    assert all(repr(text) in mistake for mistake in mistakes)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("no column", "names no column"),
        ("{a} and {b", "character 9: '{' has no partner"),
        ("{a}}", "character 4: '}' has no partner"),
        ("{}", "write a column's name"),
        ("{:-x}", "write a column's name"),
    ],
)
def test_a_wrong_template_is_refused_with_its_place(template, said):
    with pytest.raises(ConfigError, match=said.replace("{", r"\{").replace("}", r"\}")):
        Template(template)


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_missing_value_is_refused_with_the_way_out(value):
    with pytest.raises(DataError, match=r"column 'price' holds nothing.*\{price:-unknown\}"):
        Template("{price}").fill({"price": value})


@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}, b"x"])
def test_what_is_no_text_is_refused(value):
    with pytest.raises(DataError, match=r"column 'tags'.*no text"):
        Template("{tags:-x}").fill({"tags": value})


# -------------------------------------------------------------------------------------------------------- in a task


def test_inputs_are_the_templates_columns_and_may_be_left_out():
    assert task_of("{title}: {price:-0}").inputs == ["title", "price"]
    assert task_of("{title}: {price}", inputs=["price", "title"]).inputs == ["price", "title"]
    with pytest.raises(ValueError, match="reads the columns title, price, and `inputs` names text"):
        task_of("{title}: {price}", inputs=["text"])


def test_all_mistakes_of_a_task_file_are_told_with_a_broken_template(tmp_path):
    file = tmp_path / "shop.yaml"
    file.write_text("name: shop\nhead: regression\ndataset: {path: x/y}\ntemplate: '{a'\ntagret: score\n")
    with pytest.raises(ConfigError) as caught:
        read_task(file)
    assert len(caught.value.mistakes) == 2
    assert f"{file}:4: `template`: character 1" in str(caught.value)
    assert "did you mean 'target'" in str(caught.value)


@pytest.mark.parametrize(
    "head", ["token_classification", "question_answering", {"name": "multiple_choice", "choices": "c"}]
)
def test_heads_that_read_something_else_refuse_a_template(head):
    with pytest.raises(ConfigError, match="`template` makes one text"):
        make_heads([task_of("{title}", head=head, labels=None)])


def csv(folder, text: str, template: str, **changes) -> Task:
    (folder / "shop.csv").write_text(text)
    return task_of(template, file=folder / "shop.yaml", **changes)


def test_an_unknown_column_is_told_with_near_names(tmp_path):
    task = csv(tmp_path, "title,price,label\nTea,3,no\n", "{tilte} costs {price}")
    with pytest.raises(DataError, match="the column 'tilte', which the data does not have; did you mean 'title'"):
        load_rows(task)


def test_rows_without_a_value_are_named(tmp_path):
    from nlp_mtl.data import load_data
    from nlp_mtl.testing import tiny_tokenizer

    text = "title,price,label\nTea,3,no\nRum,,yes\nMilk,2.5,no\nAle,,no\n"
    with pytest.raises(DataError) as caught:
        load_data(make_heads([csv(tmp_path, text, "{title} costs {price}")]), tiny_tokenizer(), max_length=64)
    assert "task 'shop', split 'train': 2 row(s) can't be used" in str(caught.value)
    assert "row 1: column 'price' holds nothing" in str(caught.value)
    task = csv(tmp_path, text, "{title} costs {price:-nothing}")
    pool = load_data(make_heads([task]), tiny_tokenizer(), max_length=64).splits["train"][0]
    texts = [tiny_tokenizer().decode(ids, skip_special_tokens=True) for ids in pool.table["input_ids"]]
    assert [text.replace(" ", "").replace("##", "") for text in texts] == [
        "teacosts3",
        "rumcostsnothing",
        "milkcosts2.5",
        "alecostsnothing",
    ]


def test_two_templates_on_the_same_rows_are_read_apart(tmp_path):
    from nlp_mtl.data import load_data
    from nlp_mtl.testing import tiny_tokenizer

    one = csv(tmp_path, "title,price,label\nTea,3,no\nRum,9,yes\n", "{title} {price}")
    other = one.with_(name="other", template="{price} {title}", inputs=["price", "title"])
    data = load_data(make_heads([one, other]), tiny_tokenizer(), max_length=64)
    assert len(data.splits["train"]) == 2


@pytest.mark.parametrize("kind", ["sequence_classification", "regression", "multi_label"])
def test_a_task_with_a_template_goes_from_yaml_to_a_loss(tmp_path, kind):
    label = {"sequence_classification": "yes", "regression": 2.5, "multi_label": ["yes"]}[kind]
    task = task_of("{title} costs {price:-unknown}", head=kind, labels=None if kind == "regression" else ["no", "yes"])
    examples = [{"title": "Tea", "price": 3, "label": label}, {"title": "Rum", "label": label}]
    task = task.with_(examples=examples)
    assert check_task(task) == []
    file = tmp_path / "shop.yaml"
    file.write_text(yamlfile.dumps(task.model_dump(mode="json", exclude_unset=True)))
    assert read_task(file).template == task.template
    wrong = task.with_(examples=[{"price": 3, "label": label}])
    assert "example 0 lacks the column 'title'" in check_task(wrong)[0]


# ----------------------------------------------------------------------------------------------------- predictions


def test_a_prediction_takes_the_columns_and_says_which_is_missing():
    model = tiny_model([task_of("{title} costs {price:-unknown}: {text}")])
    row = {"title": "tea", "price": 3, "text": "good"}
    assert set(predict(model, row)["shop"]) == {"label", "score", "scores"}
    assert predict(model, {**row, "price": 3.0}) == predict(model, row)
    without = {"title": "tea", "text": "good"}
    assert predict(model, without) == predict(model, {**without, "price": "unknown"})
    assert predict(model, {"price": 3})["shop"] == {"missing": ["title", "text"]}
    assert predict(model, "tea")["shop"] == {"missing": ["title", "text"]}
    with pytest.raises(DataError, match="input 0: column 'title' holds nothing"):
        predict(model, {**row, "title": None})


def test_a_text_alone_fills_the_only_column_that_is_needed():
    model = tiny_model([task_of("price {price:-unknown}: {text}")])
    assert predict(model, "good") == predict(model, {"text": "good"})


def test_a_template_travels_in_the_run_folder(tmp_path):
    from nlp_mtl.model import MultiTaskModel

    model = tiny_model([task_of("{title} costs {price}")])
    model.save_pretrained(tmp_path)
    from nlp_mtl.checkpoint import seal

    seal(tmp_path)
    again = MultiTaskModel.from_pretrained(tmp_path)
    row = {"title": "tea", "price": 3}
    assert predict(again, row) == predict(model, row)
