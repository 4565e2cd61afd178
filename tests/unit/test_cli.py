"""The command line: help that can be copied, answers on the screen, mistakes in one line."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

import nlp_mtl
from nlp_mtl import cli, registry
from nlp_mtl.taskfile import Task
from nlp_mtl.tasks import task_registry
from nlp_mtl.testing import tiny_model

torch.set_num_threads(1)  # tiny models: threads would only wait for one another

VERBS = [
    [],
    ["train"],
    ["evaluate"],
    ["predict"],
    ["export"],
    ["serve"],
    ["demo"],
    ["push"],
    ["report"],
    ["tasks"],
    ["tasks", "list"],
    ["tasks", "show"],
    ["tasks", "check"],
    ["tasks", "new"],
    ["adapters"],
    *(["adapters", name] for name in ("list", "add", "remove", "merge")),
    ["methods"],
    ["compare"],
    ["continual"],
    ["curve"],
    ["probe"],
    ["transferability"],
    ["domains"],
    ["groups"],
    ["search"],
    ["robustness"],
    ["attack"],
    ["interpret"],
    ["calibrate"],
]
ROOT = Path(nlp_mtl.__file__).parent.parent


def fails(result, *parts):
    """Exit code 2 and one message on standard error with these parts."""
    code, out, err = result
    assert code == 2
    assert out == ""
    for part in parts:
        assert part in err
    return err


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run folder of two tasks with data."""
    place = tmp_path_factory.mktemp("cli")
    rows = [
        {"text": f"the cat {word}", "label": "x" if i % 2 else "y"}
        for i, word in enumerate(["is", "was", "no", "yes", "red"])
    ]
    files = {
        "train": write(place / "train.jsonl", rows),
        "validation": write(place / "dev.jsonl", rows[:4]),
        "test": write(place / "test.jsonl", [{"text": "sun", "label": None}, {"text": "rain", "label": None}]),
    }
    common = {"dataset": {"path": "json", "data_files": files}}
    tasks = [
        Task(name="mood", head="sequence_classification", inputs=["text"], target="label", labels=["x", "y"], **common),
        Task(
            name="follows",
            head="sequence_classification",
            inputs=["a", "b"],
            target="label",
            labels=["yes", "no"],
            dataset={"path": "n/a"},
        ),
    ]
    tiny_model(tasks).save_pretrained(place / "run")
    return place / "run"


# ----------------------------------------------------------------------------------------------------------------- help


def leaf(command, words):
    """The command that `words` call, with everything behind it parsed (nothing is run)."""
    context = command.make_context("nlp-mtl", list(words))
    while hasattr(context.command, "commands"):
        name, sub, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        context = sub.make_context(name, rest, parent=context)
    return context


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_ends_with_two_lines_that_can_be_run(verb):
    result = CliRunner().invoke(cli.app, [*verb, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    lines = [line.strip() for line in result.output.splitlines() if line.strip()]
    examples = lines[-2:]
    for example in examples:
        words = shlex.split(example)
        assert words[0] == "nlp-mtl"
        assert words[1 : 1 + len(verb)] == verb
        context = leaf(typer.main.get_command(cli.app), words[1:])
        assert not hasattr(context.command, "commands"), f"{example}: a group, not a verb"
        for word in words[1:]:
            if word.endswith(".yaml"):
                assert (ROOT / word).is_file(), word
        if words[1:3] == ["tasks", "list"]:
            assert task_registry().select(
                **{key.removeprefix("--"): words[words.index(key) + 1] for key in words[3::2]}
            )
        elif words[1] == "tasks" and verb != ["tasks", "new"]:
            assert all(task_registry().find(name) for name in words[3:])


def test_every_verb_is_covered_here():
    command = typer.main.get_command(cli.app)
    known = {(name,) for name in command.commands}
    known |= {(group, name) for group in ("tasks", "adapters") for name in command.commands[group].commands}
    assert known == {tuple(verb) for verb in VERBS if verb}


def test_each_command_says_in_one_line_what_it_does():
    result = CliRunner().invoke(cli.app, ["--help"])
    for verb in ("train", "evaluate", "predict", "tasks", "methods"):
        assert re.search(rf"^\s+{verb}\s+\S.{{10,}}", result.output, re.MULTILINE)


# --------------------------------------------------------------------------------------------------------------- import


def test_import_and_help_are_light():
    code = (
        "import sys, nlp_mtl\n"
        "import nlp_mtl.cli as cli\n"
        "sys.argv = ['nlp-mtl', '--help']\n"
        "try: cli.main()\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'peft', 'pandas', 'numpy', 'sklearn', 'huggingface_hub'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_a_mistake_on_a_real_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "nlp_mtl.cli", "tasks", "show", "rtee"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert (
        done.stderr.strip()
        == "nlp-mtl: unknown task or tag 'rtee'; did you mean 'rte' or 'rte_text'? (nlp-mtl tasks list shows all)"
    )


# ---------------------------------------------------------------------------------------------------------------- tasks


def listed(result):
    """The rows of a list of tasks, by name."""
    code, out, _ = result
    assert code == 0
    rows = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines()]
    assert rows[0] == ["task", "head", "language", "data", "verified", "tags"]
    assert out.splitlines()[-1].startswith(f"{len(rows) - 3} tasks")
    return {row[0]: row for row in rows[2:-1]}


def test_tasks_list_shows_every_task(run):
    shown = listed(run("tasks", "list"))
    assert list(shown) == list(task_registry().tasks)
    for name, row in shown.items():
        task = task_registry().tasks[name]
        assert row[1].split()[0] == task.head_name
        assert (row[2], row[4], row[5]) == (task.language, task.verified, " ".join(task.tags))
    assert "head not built yet" not in shown["rte"][1]
    assert shown["xsum"][1] == "seq2seq"


def test_tasks_list_by_tag_head_and_language(run):
    assert list(listed(run("tasks", "list", "--tag", "ner"))) == [task.name for task in task_registry().find("ner")]
    assert set(listed(run("tasks", "list", "--tag", "glue", "--head", "regression"))) == {"stsb"}
    assert "wmt16_ro_en" in listed(run("tasks", "list", "--head", "seq2seq", "--language", "ro"))
    said = "0 tasks are all of that at once\n  tasks of language ro have the tag translation\n"
    said += "  tasks of tag glue have the language en\n"
    assert run("tasks", "list", "--tag", "glue", "--language", "ro") == (0, said, "")
    fails(run("tasks", "list", "--tag", "nerr"), "no task has the tag 'nerr'", "did you mean 'ner'")
    fails(run("tasks", "list", "--tag", "rte"), "no task has the tag 'rte'")
    err = fails(run("tasks", "list", "--head", "regresion", "--language", "xx"), "did you mean 'regression'", "'xx'")
    assert "2 mistakes" in err


def test_broken_task_files_hide_no_others_and_fail_the_command(run, tmp_path, monkeypatch):
    good = (
        "name: mine\nhead: sequence_classification\ndataset: {path: csv, data_files: x.csv}\ninputs: [text]\n"
        "target: label\nlabels: [a, b]\ntags: [mine_only]\nexamples: [{text: cat, label: a}, {text: dog, label: b}]\n"
    )
    (tmp_path / "mine.yaml").write_text(good, encoding="utf-8")
    (tmp_path / "syntax.yaml").write_text("name: [a\n", encoding="utf-8")
    (tmp_path / "wrong.yaml").write_text(good.replace("mine", "wrong") + "verson: 1\n", encoding="utf-8")
    monkeypatch.setenv("NLP_MTL_REGISTRY", str(tmp_path))
    built_in = len(task_registry().sound()) - 1
    for words, shown in (([], built_in + 1), (["--tag", "mine_only"], 1)):
        code, out, err = run("tasks", "list", *words)
        assert code == 2
        assert "\nmine " in out
        assert f"{shown} tasks" in out.splitlines()[-1]
        assert f"{tmp_path / 'syntax.yaml'}:2: not valid YAML" in err
        assert f"{tmp_path / 'wrong.yaml'}:9: unknown key 'verson'" in err
    fails(run("tasks", "list", "--tag", "wrong_only"), "no task has the tag 'wrong_only'", "syntax.yaml:2", "'verson'")
    monkeypatch.setattr("nlp_mtl.tasks.builtin_folder", lambda: tmp_path)
    monkeypatch.delenv("NLP_MTL_REGISTRY")
    code, out, err = run("tasks", "check", "--offline")
    assert (code, out) == (2, "mine: examples work\n")
    assert "syntax.yaml:2" in err and "'verson'" in err


def test_a_task_whose_head_is_not_built_is_shown_and_checked_as_such(run, monkeypatch):
    code, out, _ = run("tasks", "check", "xsum", "rte", "--offline")
    assert (code, out) == (0, "xsum: examples work\nrte: examples work\n")
    monkeypatch.setattr("nlp_mtl.registry.not_built", lambda head: "it needs patience" if head == "seq2seq" else "")
    code, out, _ = run("tasks", "show", "xsum")
    assert code == 0
    assert re.search(r"^# head not built yet: it needs patience", out, re.MULTILINE)
    assert "head not built yet" not in run("tasks", "show", "rte")[1]


def test_tasks_show_is_the_task_as_yaml(run, tmp_path):
    import yaml

    code, out, _ = run("tasks", "show", "rte")
    assert code == 0
    known = task_registry().tasks["rte"]
    assert out.startswith(f"# {known.file}")
    assert Task(**yaml.safe_load(out), file=known.file) == known
    (tmp_path / "mine.yaml").write_text(out, encoding="utf-8")
    assert run("tasks", "show", tmp_path / "mine.yaml")[0] == 0
    code, out, _ = run("tasks", "show", "ner")
    assert out.count("# ") >= len(task_registry().find("ner")), "a tag shows all its tasks"
    fails(run("tasks", "show", tmp_path / "none.yaml"), "none.yaml")


def test_tasks_check_offline(run):
    code, out, _ = run("tasks", "check", "rte", "copa", "--offline")
    assert code == 0
    assert out == "rte: examples work\ncopa: examples work\n"


def test_tasks_check_says_what_is_wrong_and_fails(run, tmp_path):
    (tmp_path / "bad.yaml").write_text(
        "name: bad\nhead: sequence_classification\ndataset: {path: csv, data_files: x.csv}\n"
        "inputs: [text]\ntarget: label\n"
        "labels: [a, b]\nexamples: [{text: cat, label: c}, {text: '', label: a}]\n",
        encoding="utf-8",
    )
    code, out, _ = run("tasks", "check", tmp_path / "bad.yaml", "rte", "--offline")
    assert code == 1
    assert "bad: WRONG" in out
    assert "row 1: 'text' hold no text" in out
    assert "rte: examples work" in out


def test_tasks_check_reads_real_rows_where_they_are(run, tmp_path):
    write(tmp_path / "rows.jsonl", [{"text": "cat", "label": "a"}, {"text": "dog", "label": "z"}])
    task = (
        "name: mine\nhead: sequence_classification\ndataset: {path: json, data_files: rows.jsonl}\n"
        "inputs: [text]\ntarget: label\n"
        "labels: [a, b]\nexamples: [{text: cat, label: a}]\n"
    )
    (tmp_path / "mine.yaml").write_text(task, encoding="utf-8")
    code, out, _ = run("tasks", "check", tmp_path / "mine.yaml")
    assert code == 1
    assert "row 1: label 'z' is not in the label list" in out
    (tmp_path / "mine.yaml").write_text(task.replace("[a, b]", "[a, z]"), encoding="utf-8")
    code, out, _ = run("tasks", "check", tmp_path / "mine.yaml")
    assert (code, out) == (0, "mine: examples work; real rows work (train 2 of 2)\n")


def test_a_broken_task_file_names_its_line(run, tmp_path):
    (tmp_path / "bad.yaml").write_text("name: bad\nhed: x\n", encoding="utf-8")
    fails(run("tasks", "show", tmp_path / "bad.yaml"), "bad.yaml:2", "'hed'", "did you mean 'head'")


# -------------------------------------------------------------------------------------------------------------- methods


def test_methods_lists_every_strategy(run):
    code, out, _ = run("methods")
    assert code == 0
    for known in registry.ALL:
        assert f"\n{known.kind}\n" in out
        for name in known:
            assert re.search(rf"^  {re.escape(name)}\s+\S", out, re.MULTILINE), f"{known.kind} {name} has no line"


def test_methods_of_one_kind(run):
    code, out, _ = run("methods", "sampler")
    assert code == 0
    assert "temperature" in out
    assert "arXiv:1907.05019" in out
    assert "\nhead\n" not in out
    fails(run("methods", "smapler"), "unknown kind of strategy 'smapler'", "did you mean 'sampler'")


# ------------------------------------------------------------------------------------------------------------- evaluate


def test_evaluate_prints_a_table(run, folder):
    code, out, _ = run("evaluate", folder, "--task", "mood")
    assert code == 0
    lines = out.strip().splitlines()
    assert re.split(r"\s{2,}", lines[0].strip()) == ["task", "metric", "score", "trivial baseline", "rows (validation)"]
    task, metric, score, trivial, rows = lines[2].split()
    assert (task, metric, trivial, rows) == ("mood", "accuracy", "0.500", "4")
    assert 0 <= float(score) <= 1


def test_evaluate_writes_predictions_of_an_unlabelled_split(run, folder):
    code, out, _ = run("evaluate", folder, "--task", "mood", "--split", "test")
    assert code == 0
    file = folder / "predictions" / "mood.test.jsonl"
    assert f"mood: 2 rows without labels; predictions in {file}" in out
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(found) == 2
    assert set(found) <= {"x", "y"}


def test_evaluate_mistakes(run, folder, tmp_path):
    fails(run("evaluate", tmp_path / "none"), "not a run folder")
    fails(run("evaluate", folder, "--split", "dev"), "split", "train, validation, test", "'dev'")
    fails(run("evaluate", folder, "--task", "moood"), "has no task moood", "mood, follows")
    fails(run("evaluate", folder, "--task", "follows"), "the data set 'n/a'", "was not found", "1. ")


# -------------------------------------------------------------------------------------------------------------- predict


def test_predict_texts_pairs_and_rows(run, folder):
    code, out, _ = run("predict", folder, "the cat", "a dog")
    assert code == 0
    one, two = read_objects(out)
    assert one["mood"]["label"] in ("x", "y")
    assert two["follows"] == {"missing": ["b"]}
    code, out, _ = run("predict", folder, "--pair", "the cat", "a dog", "--task", "follows")
    assert [list(answer) for answer in read_objects(out)] == [["follows"]]
    assert read_objects(out)[0]["follows"]["label"] in ("yes", "no")
    code, out, _ = run("predict", folder, '{"a": "the cat", "b": "a dog"}')
    (answer,) = read_objects(out)
    assert answer["mood"] == {"missing": ["text"]}
    assert answer["follows"]["label"] in ("yes", "no")


def read_objects(text):
    decoder, found, text = json.JSONDecoder(), [], text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].strip()
    return found


def test_predict_a_file_line_by_line(run, folder, tmp_path):
    lines = ['"the cat"', '["a cat", "a dog"]', "", '{"text": "Zoë"}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    code, out, _ = run("predict", folder, "--file", tmp_path / "in.jsonl")
    assert code == 0
    shown = [json.loads(line) for line in out.splitlines()]
    assert [("label" in answer["mood"], "label" in answer["follows"]) for answer in shown] == [
        (True, False),
        (False, True),
        (True, False),
    ]
    code, out, _ = run("predict", folder, "--file", tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl")
    assert out == f"3 inputs answered in {tmp_path / 'out.jsonl'}\n"
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()] == shown
    code, out, _ = run("predict", folder, "the cat", "--out", tmp_path / "one.jsonl")
    assert (code, out) == (0, "")
    assert json.loads((tmp_path / "one.jsonl").read_text(encoding="utf-8")) == shown[0]


def test_a_line_that_is_not_json_is_named(run, folder, tmp_path):
    (tmp_path / "in.jsonl").write_text('"fine"\n\n{"text": \n', encoding="utf-8")
    code, _, err = run("predict", folder, "--file", tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl")
    assert code == 2
    assert f"{tmp_path / 'in.jsonl'}:3: not JSON" in err


def test_predict_mistakes(run, folder, tmp_path):
    fails(run("predict", tmp_path, "cat"), "not a run folder", "nlp_mtl.json")
    fails(run("predict", folder), "give a TEXT, or --file")
    fails(run("predict", folder, "--pair", "one"), "--pair takes two TEXTs, found 1")
    fails(run("predict", folder, "one", "--file", tmp_path / "x"), "reads TEXTs or --file, found both")
    fails(run("predict", folder, "one", "--task", "moood"), "'moood' is not a task", "did you mean 'mood'")
    fails(run("predict", folder, " "), "'text' hold no text")
    fails(run("predict", folder, '{"text": '), "is not JSON", "'{\"text\": '")
    fails(run("predict", folder, "--file", tmp_path / "none.jsonl"), str(tmp_path / "none.jsonl"), "no such file")
    fails(run("predict", folder, "one", "--out", tmp_path / "no" / "out.jsonl"), "there is no folder")
    (tmp_path / "nlp_mtl.json").write_text("{", encoding="utf-8")
    fails(run("predict", tmp_path, "cat"), "damaged")


# ---------------------------------------------------------------------------------------------------------------- train


def test_train_mistakes(run, tmp_path):
    fails(run("train", tmp_path / "none.yaml"), "none.yaml")
    fails(run("train", "a.yaml", "b.yaml"), "one run file at a time, found a.yaml, b.yaml")
    (tmp_path / "run.yaml").write_text("model: x\ntaskz: [rte]\nsampler: unifrom\n", encoding="utf-8")
    err = fails(run("train", tmp_path / "run.yaml"), "run.yaml:2", "'taskz'", "did you mean 'tasks'")
    assert "run.yaml:3" in err
    assert "uniform" in err


def test_words_that_the_command_line_does_not_know(run):
    code, _, err = run("trian")
    assert code == 2
    assert "trian" in err
    code, _, err = run("predict", "somewhere", "--tasks", "x")
    assert code == 2
    assert "--tasks" in err
