"""Runs on a Hub and back, over HTTP: what is sent, what is not, and what goes wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nlp_mtl.batches import collate
from nlp_mtl.heads.labels import Where
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.run import train
from tests.hubserver.client import Worker, environment
from tests.hubserver.server import HubServer
from tests.hubserver.store import User
from tests.integration.tiny import config, write_base, write_tasks

LORA = {"r": 4, "target_modules": "all-linear"}
TASKS = ["mood", "alike", "names", "rainy"]
ROWS = {
    "mood": [["the cat is good"], ["no"]],
    "alike": [["the old house", "a new house in the city"], ["rain", "sun"]],
    "names": [["the", "city", "is", "old"], ["house"]],
    "rainy": [["the", "rain", "is", "red"], ["sun"]],
}
ROWS["names"], ROWS["rainy"] = [[row] for row in ROWS["names"]], [[row] for row in ROWS["rainy"]]


class House:
    """The machine that pushes: a tiny base, two runs (LoRA and full) on marked data in a marked place."""

    def __init__(self, folder: Path):
        self.folder = folder / "SECRETPATH-9c1"
        self.base = Path(write_base(self.folder / "tiny-bert"))
        files = write_tasks(self.folder / "tasks")
        rows = self.folder / "tasks" / "mood-train.jsonl"
        row = {"text": "SECRETROW-77 the cat is good", "label": "good"}
        rows.write_text(rows.read_text() + json.dumps(row) + "\n")
        task = json.loads(Path(files[0]).read_text())
        task |= {"examples": [row], "license": "cc-by-4.0", "citation": "Doe, 2020. Moods."}
        Path(files[0]).write_text(json.dumps(task))
        self.files, self.runs = files, {}
        both = {"lora": LORA, "task_lora": LORA}
        for name, tuning in (("lora", {"lora": LORA}), ("full", {}), ("task_lora", both)):
            said = config(str(self.base), files, self.folder / name, training={"max_steps": 2, "save_steps": 1})
            said["training"] |= {"save_strategy": "steps"}
            train({**said, **tuning})
            self.runs[name] = self.folder / name
        (self.runs["lora"] / "predictions").mkdir()
        (self.runs["lora"] / "predictions" / "mood.test.jsonl").write_text(json.dumps(row))
        (self.runs["lora"] / "train.log").write_text(f"reading {rows}")


@pytest.fixture(scope="module")
def house(tmp_path_factory, session_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLP_MTL_CACHE", str(session_cache))
        yield House(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        server.store.users |= {"mine": User("me"), "reads": User("me", writes=False), "other": User("other")}
        yield server


@pytest.fixture(scope="module")
def worker(hub, house, tmp_path_factory, session_cache):
    """The pushing process, with the base on the Hub."""
    folder = tmp_path_factory.mktemp("worker")
    process = Worker(environment(hub.endpoint, folder / "hf", session_cache, "mine"), folder)
    upload = f"""
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("me/tiny-bert")
api.upload_folder(repo_id="me/tiny-bert", folder_path={str(house.base)!r})
"""
    assert process.code(upload).code == 0
    yield process
    process.close()


@pytest.fixture
def pushed(worker, hub, house):
    """Push the LoRA run into a repository of its own, with more words."""

    def push(repo, *words, run="lora", **more):
        base = ["--base", house.base, "--base-model", "me/tiny-bert"] if run != "full" else ["--base-model", "none"]
        return worker.cli("push", house.runs[run], repo, *base, *words, **more)

    return push


def logits_of(model, task, rows=ROWS):
    """The run's logits for each of the task's rows."""
    head, found = model.heads[task], []
    for row in rows[task]:
        given = dict(zip(head.needed_columns(), row, strict=True))
        tokens = head.tokenize({k: [v] for k, v in given.items()}, model.tokenizer, 64, Where(task, "test"))
        one = {key: values[0] for key, values in tokens.items()}
        one["input_ids"] = torch.tensor(one["input_ids"]).numpy()
        with torch.inference_mode():
            out = model(**collate([one], [[task]], {task: head}))["logits"][task]
        found.append(out.tolist() if task == "names" else out[0].tolist())
    return found


def plain(tmp_path, hub, session_cache, asked, token="mine"):
    """What a process without nlp_mtl gets from the Hub."""
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    env = environment(hub.endpoint, tmp_path / "hf", session_cache, token)
    env.pop("PYTHONPATH", None)
    script = Path(__file__).resolve().parents[1] / "hubserver" / "plain.py"
    command = [sys.executable, "-I", str(script)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((tmp_path / "answered.json").read_text())


def snippets(card):
    return re.findall(r"```python\n(.*?)```", card, re.S)


# ------------------------------------------------------------------------------------------------- there and back


def test_a_run_goes_to_the_hub_and_comes_back_the_same(pushed, worker, hub, house, tmp_path):
    listed = pushed("me/run", "--dry-run").fine()
    assert "me/run" not in hub.store.repos
    assert "me/run" in pushed("me/run", "--private", "--message", "the first").fine()
    repo, files = hub.repo("me/run"), hub.files("me/run")
    assert repo.private and repo.messages[repo.refs["main"]] == "the first"
    assert len(repo.commits) == 2, "what the Hub makes, and one commit"
    told = {line.split()[0] for line in listed.splitlines() if line.endswith(" bytes")}
    assert told == set(files) - {".gitattributes"}
    assert json.loads(files["nlp_mtl.json"])["base"] == {
        "id": "me/tiny-bert",
        "revision": hub.repo("me/tiny-bert").refs["main"],
        "sha256": json.loads((house.runs["lora"] / "nlp_mtl.json").read_text())["base"]["sha256"],
    }
    text = "the cat in the city is good"
    base = ["--base", house.base]
    ours = worker.cli("predict", house.runs["lora"], text, "--dtype", "float32", *base).fine()
    asked = len(hub.store.requests)
    worker.cli("predict", house.runs["lora"], text, *base)
    assert len(hub.store.requests) == asked, "a local folder never asks the network"
    assert worker.cli("predict", "me/run", text, "--dtype", "float32").fine() == ours
    got = [line for line in hub.store.requests[asked:] if "resolve" in line and "me/run/" in line]
    assert not [line for line in got if "/mood/" in line], "folders of single tasks are not fetched"
    (tmp_path / "in.jsonl").write_text(json.dumps(text))
    worker.cli("predict", "me/run", "--file", tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl").fine()
    assert set(json.loads((tmp_path / "out.jsonl").read_text())) == set(TASKS)
    worker.cli("export", "me/run", tmp_path / "mood", "--task", "mood").fine()
    assert (tmp_path / "mood" / "model.safetensors").is_file()
    worker.cli("evaluate", "me/run", "--task", "mood", "--data-root", house.folder / "tasks").fine()
    again = pushed("me/run", "--private").fine()
    assert "already" in again and len(repo.commits) == 2, "what is there is not sent again"


def test_every_task_is_a_vanilla_adapter_with_its_head(pushed, hub, house, tmp_path, session_cache):
    """The card's own lines, in a process where nlp_mtl can't be imported."""
    pushed("me/vanilla").fine()
    pushed("me/whole", run="full").fine()
    pushed("me/mood-model", "--task", "mood", "--as", "model").fine()
    pushed("me/mood-adapter", "--task", "mood", "--as", "adapter").fine()
    code = snippets(hub.files("me/vanilla")["README.md"].decode())
    assert len(code) == 2 + len(TASKS)
    asked = [{"code": lines, "rows": ROWS[task]} for lines, task in zip(code[2:], TASKS, strict=True)]
    asked.append({"code": snippets(hub.files("me/mood-model")["README.md"].decode())[0], "text": ["the cat is good"]})
    tokenizer = "\nfrom transformers import AutoTokenizer\ntokenizer = AutoTokenizer.from_pretrained('me/mood-adapter')"
    adapter = snippets(hub.files("me/mood-adapter")["README.md"].decode())[0]
    asked.append({"code": adapter + tokenizer, "rows": ROWS["mood"]})
    asked.append({"code": code[1]})
    asked.append({"code": snippets(hub.files("me/whole")["README.md"].decode())[1]})
    answers = plain(tmp_path, hub, session_cache, asked)
    model = MultiTaskModel.from_pretrained(house.runs["lora"], base=house.base)
    for task, found in zip([*TASKS, "mood"], [*answers[:4], answers[5]], strict=True):
        assert not isinstance(found, dict), found
        for ours, theirs in zip(logits_of(model, task), found, strict=True):
            ours_ = torch.tensor(ours)
            torch.testing.assert_close(torch.tensor(theirs).reshape(ours_.shape), ours_, atol=1e-5, rtol=1e-5)
    best = torch.tensor(logits_of(model, "mood")[0]).argmax()
    assert answers[4] == [["bad", "good"][best]]
    full = MultiTaskModel.from_pretrained(house.runs["full"])
    for own, found in ((model, answers[6]), (full, answers[7])):
        encoder = own.sharing.collapse("mood") if own is full else own.sharing.encoder
        encoder.eval()
        from peft import PeftModel
        from transformers import AutoModel

        bare = AutoModel.from_pretrained(house.base if own is model else house.runs["full"], dtype=torch.float32)
        bare = PeftModel.from_pretrained(bare, house.runs["lora"]) if own is model else bare
        with torch.inference_mode():
            ours = bare.eval()(input_ids=torch.tensor([[2, 9, 10, 3]])).last_hidden_state[0, 0]
        torch.testing.assert_close(torch.tensor(found), ours, atol=1e-5, rtol=1e-5)


def test_adapters_of_tasks_go_and_come_back(pushed, worker, hub, house, tmp_path, session_cache):
    pushed("me/apart", run="task_lora").fine()
    files = hub.files("me/apart")
    assert "adapter_config.json" not in files, "no adapter at the root that would load and be wrong"
    text, base = "the cat in the city is good", ["--base", house.base]
    ours = worker.cli("predict", house.runs["task_lora"], text, "--dtype", "float32", *base).fine()
    assert worker.cli("predict", "me/apart", text, "--dtype", "float32").fine() == ours
    code = snippets(files["README.md"].decode())
    assert len(code) == 1 + len(TASKS)
    asked = [{"code": lines, "rows": ROWS[task]} for lines, task in zip(code[1:], TASKS, strict=True)]
    model = MultiTaskModel.from_pretrained(house.runs["task_lora"], base=house.base)
    for task, found in zip(TASKS, plain(tmp_path, hub, session_cache, asked), strict=True):
        for ours_, theirs in zip(map(torch.tensor, logits_of(model, task)), found, strict=True):
            torch.testing.assert_close(torch.tensor(theirs).reshape(ours_.shape), ours_, atol=1e-5, rtol=1e-5)


CHANGES = {  # a run, what is done with its adapters, and the tasks that are there then
    "add to a shared LoRA": ("lora", ["add", "--task", "spam"], [*TASKS, "spam"]),
    "add to adapters per task": ("task_lora", ["add", "--task", "spam"], [*TASKS, "spam"]),
    "add to full fine-tuning": ("full", ["add", "--task", "spam"], [*TASKS, "spam"]),
    "remove": ("task_lora", ["remove", "--task", "alike"], ["mood", "names", "rainy"]),
    "merge": ("task_lora", ["merge", "--how", "svd"], TASKS),
}


OFTEN = ("add to adapters per task", "add to full fine-tuning")


@pytest.mark.parametrize(
    "change", [*OFTEN, *(pytest.param(name, marks=pytest.mark.long) for name in CHANGES if name not in OFTEN)]
)
def test_a_run_whose_adapters_were_changed_goes_whole(worker, hub, house, tmp_path, session_cache, change):
    """What comes back is the changed run, here and as vanilla adapters; nothing of the house goes along."""
    run, (verb, *words), tasks = CHANGES[change]
    out, repo = house.folder / change.replace(" ", "-"), f"me/{change.replace(' ', '-')}"
    spam = house.folder / "tasks" / "spam.yaml"
    spam.write_text(json.dumps({**json.loads(Path(house.files[0]).read_text()), "name": "spam"}))
    words = [spam if word == "spam" else word for word in words]
    place = [out] if verb == "merge" else ["--out", out]
    quick = "training.max_steps=2 training.use_cpu=true training.learning_rate=0.01".split() if verb == "add" else []
    base = [] if run == "full" else ["--base", house.base]
    worker.cli("adapters", verb, house.runs[run], *place, *words, *base, *quick).fine()
    before = len(hub.store.received)
    worker.cli("push", out, repo, *base, "--base-model", "none" if run == "full" else "me/tiny-bert").fine()
    files, sent = hub.files(repo), b"\n".join(hub.store.received[before:])
    assert [task["name"] for task in json.loads(files["nlp_mtl.json"])["tasks"]] == tasks
    assert b"SECRETROW" not in sent and b"SECRETPATH" not in sent
    assert not [name for name in files if "checkpoint-" in name or name == "run.yaml"]
    text = "the cat in the city is good"
    ours = worker.cli("predict", out, text, "--dtype", "float32", *base).fine()
    assert worker.cli("predict", repo, text, "--dtype", "float32").fine() == ours
    assert set(json.loads(ours)) == set(tasks)
    code = snippets(files["README.md"].decode())
    model = MultiTaskModel.from_pretrained(out, base=house.base if base else None)
    rows = {**ROWS, "spam": ROWS["mood"]}
    if run == "full":  # an adapter on an encoder of its own: no head with it, but the encoder is in the repository
        assert "library_name: transformers" in files["README.md"].decode() and len(code) == 3
        (found,) = plain(tmp_path, hub, session_cache, [{"code": code[1] + code[2]}])
        owners = model.sharing.owners
        with torch.inference_mode(), owners.during(owners.number("spam")):
            hidden = model.sharing.encoder(input_ids=torch.tensor([[2, 9, 10, 3]])).last_hidden_state
        torch.testing.assert_close(torch.tensor(found), hidden[0, 0], atol=1e-5, rtol=1e-5)
        return
    alone = [lines for lines in code if "subfolder=" in lines]
    asked = [{"code": lines, "rows": rows[task]} for lines, task in zip(alone, tasks, strict=True)]
    for task, found in zip(tasks, plain(tmp_path, hub, session_cache, asked), strict=True):
        for ours_, theirs in zip(map(torch.tensor, logits_of(model, task, rows)), found, strict=True):
            torch.testing.assert_close(torch.tensor(theirs).reshape(ours_.shape), ours_, atol=1e-5, rtol=1e-5)


def test_nothing_of_the_house_leaves_it(pushed, worker, hub, house):
    """Every byte that the Hub was ever sent, also what was encoded in it."""
    for run, words in (("lora", []), ("full", []), ("lora", ["--task", "mood", "--as", "adapter"])):
        pushed(f"me/secret-{run}{len(words)}", *words, run=run).fine()
    assert len(hub.store.received) > 20
    sent = b"\n".join(hub.store.received)
    assert b"adapter_model" in sent and b"cc-by-4.0" in sent, "the bytes are those that were sent"
    for marked in (
        b"SECRETROW",
        b"SECRETPATH",
        b"optimizer",
        b"checkpoint-",
        b"train.log",
        str(Path.home()).encode() + b"/",
    ):
        assert marked not in sent
    files = set(hub.files("me/secret-lora0"))
    assert not [name for name in files if name.startswith(("checkpoint", "predictions", "run.yaml", "complete"))]


def test_a_branch_and_a_pull_request(pushed, worker, hub):
    pushed("me/branches").fine()
    main = hub.repo("me/branches").refs["main"]
    pushed("me/branches", "--branch", "v2", "--task", "mood", "--as", "model").fine()
    assert hub.repo("me/branches").refs["main"] == main
    assert "nlp_mtl.json" not in hub.files("me/branches", "v2") and "config.json" in hub.files("me/branches", "v2")
    said = pushed("me/branches", "--create-pr", "--license", "mit").fine()
    assert "/discussions/1" in said and hub.repo("me/branches").refs["main"] == main
    assert b"license: mit" in hub.files("me/branches", "refs/pr/1")["README.md"]
    code = """
import nlp_mtl as mtl
one = mtl.MultiTaskModel.from_pretrained("me/branches", revision="refs/pr/1")
print(one.tasks, mtl.push(one, "me/branches", create_pr=True, commit_message="mine").pull_request)
"""
    assert "discussions/2" in worker.code(code).fine()
    said = worker.cli("predict", "me/branches@v2", "a cat").refused()
    assert "not a run folder" in said and "README.md" in said
    said = worker.cli("predict", "me/branches@v9", "a cat").refused()
    assert "`revision`" in said and "'v9'" in said and "leave it out" in said
    assert worker.cli("predict", f"me/branches@{main}", "a cat").fine()
    pull = worker.code(
        "import nlp_mtl as m; m.push(m.MultiTaskModel.from_pretrained('me/branches'), 'me/branches', "
        "create_pr=True, license='mit')",
        token="other",
    )
    assert pull.code == 0, "who may not write may propose"


def test_a_newer_push_takes_away_what_the_older_wrote_and_nothing_else(pushed, worker, hub):
    pushed("me/twice").fine()
    worker.code(
        "from huggingface_hub import HfApi; HfApi().upload_file(path_or_fileobj=b'x', "
        "path_in_repo='plots/mine.txt', repo_id='me/twice')"
    )
    pushed("me/twice", "--task", "names", "--as", "model").fine()
    files = set(hub.files("me/twice"))
    assert files == {
        ".gitattributes",
        "README.md",
        "config.json",
        "model.safetensors",
        "plots/mine.txt",
        "tokenizer.json",
        "tokenizer_config.json",
    }


@pytest.mark.parametrize("mode", ["regular", "lfs"])
def test_both_ways_to_send_files(pushed, worker, hub, house, mode):
    hub.store.mode = mode
    try:
        pushed(f"me/{mode}").fine()
    finally:
        hub.store.mode = None
    repo = hub.repo(f"me/{mode}")
    ways = {blob.lfs for path, blob in repo.commits[repo.refs["main"]].items() if path != ".gitattributes"}
    assert ways == {mode == "lfs"}
    text = "the cat in the city is good"
    ours = worker.cli("predict", house.runs["lora"], text, "--dtype", "float32", "--base", house.base).fine()
    assert worker.cli("predict", f"me/{mode}", text, "--dtype", "float32").fine() == ours


# --------------------------------------------------------------------------------------------- what goes wrong


def test_an_upload_that_is_cut_off(pushed, hub):
    """Once: it is sent again by itself. For good: nothing is there, and the same command completes it later."""
    hub.store.large.clear()  # as if none had ever been sent
    hub.store.cuts = 1
    pushed("me/cut", run="full").fine()
    assert hub.store.cuts == 0
    before = dict(hub.repo("me/cut").refs)
    hub.store.large.clear()
    hub.store.cuts = 10_000
    try:
        said = pushed("me/cut").refused()
    finally:
        hub.store.cuts = 0
    assert "connection broke" in said and "nothing in me/cut was changed" in said and "same command" in said
    assert hub.repo("me/cut").refs == before, "no half of it is there"
    pushed("me/cut").fine()
    assert "mood/adapter_model.safetensors" in hub.files("me/cut")


def test_tokens_and_permissions(pushed, worker, hub, house):
    pushed("me/kept", "--private").fine()
    before = json.dumps(hub.repo("me/kept").refs), set(hub.store.repos)
    said = pushed("me/kept", token="no-such-token").refused()
    assert "`token`" in said and "401" in said and "hf auth login" in said
    said = pushed("me/kept", token=None).refused()
    assert "`token`" in said and "found none" in said and "HF_TOKEN" in said
    said = pushed("me/kept", token="reads").refused()
    assert "may not write" in said and "--create-pr" in said
    said = pushed("other/new").refused()
    assert "may not write to other/new" in said and "403" in said
    for token in ("other", None):
        said = worker.cli("predict", "me/kept", "a cat", token=token).refused()
        assert "no repository 'me/kept', or it is private" in said and "log in" in said
    said = worker.cli("predict", "me/kept", "a cat", token="no-such-token").refused()
    assert "`token`" in said and "401" in said
    assert worker.cli("predict", "me/kept", "a cat").fine()
    code = "import nlp_mtl; print(nlp_mtl.MultiTaskModel.from_pretrained('me/kept', token='mine').tasks)"
    assert str(TASKS) in worker.code(code, token="other").fine(), "a token that is given counts"
    assert (json.dumps(hub.repo("me/kept").refs), set(hub.store.repos)) == before, "nothing was lost or made"
    said = worker.cli("predict", "me/no-such-run", "a cat").refused()
    assert "no repository 'me/no-such-run'" in said and "no such folder here" in said


def test_a_repository_with_something_else_and_one_that_is_open(pushed, worker, hub):
    worker.code(
        "from huggingface_hub import HfApi; a = HfApi(); a.create_repo('me/else'); a.upload_file("
        "path_or_fileobj=b'x', path_in_repo='model.bin', repo_id='me/else')"
    )
    before = dict(hub.repo("me/else").refs)
    said = pushed("me/else").refused()
    assert "model.bin" in said and "name another" in said and "--create-pr" in said
    said = pushed("me/tiny-bert", "--private").refused()
    assert "--private" in said and "anybody can read" in said
    assert hub.repo("me/else").refs == before


def test_somebody_else_pushes_at_the_same_time(pushed, worker, hub, house):
    pushed("me/both").fine()
    code = f"""
import nlp_mtl
from nlp_mtl.hub import remote
target = remote.target
def late(api, *given, **more):
    found = target(api, *given, **more)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="mine.txt", repo_id="me/both")
    return found
remote.target = late
try:
    run, base = {str(house.runs["lora"])!r}, {str(house.base)!r}
    nlp_mtl.push(run, "me/both", base=base, base_model="me/tiny-bert", license="mit")
except nlp_mtl.HubError as error:
    print(error)
finally:
    remote.target = target
"""
    said = worker.code(code).fine()
    assert "somebody else changed me/both" in said and "run the command again" in said
    assert "mine.txt" in hub.files("me/both") and b"license: mit" not in hub.files("me/both")["README.md"]


def test_no_network(pushed, worker, hub, house):
    pushed("me/far").fine()
    worker.cli("predict", "me/far", "a cat").fine()
    with hub.away():
        said = pushed("me/far").refused()
        assert "can't be reached" in said and hub.endpoint in said and "check the network" in said
        assert "can't be reached" in worker.cli("predict", "me/vanished", "a cat").refused()
        assert worker.cli("predict", "me/far", "a cat").fine(), "what was fetched once is used"
        assert worker.cli("predict", house.runs["lora"], "a cat", "--base", house.base).fine()


def test_the_base_is_recorded_under_its_hub_id_or_nothing_is_pushed(worker, hub, house, tmp_path):
    run = house.runs["lora"]
    said = worker.cli("push", run, "me/nameless", "--base", house.base).refused()
    assert "'tiny-bert'" in said and "--base-model" in said and "hf upload" in said
    other = write_base(tmp_path / "other", dropout=0.1, hidden_act="relu")
    state = torch.nn.init.normal_
    from safetensors.torch import load_file, save_file

    weights = load_file(f"{other}/model.safetensors")
    save_file(
        {name: state(value.clone()) for name, value in weights.items()}, f"{other}/model.safetensors", {"format": "pt"}
    )
    worker.code(
        f"from huggingface_hub import HfApi; a = HfApi(); a.create_repo('me/other-bert'); "
        f"a.upload_folder(repo_id='me/other-bert', folder_path={str(other)!r})"
    )
    said = worker.cli("push", run, "me/nameless", "--base", house.base, "--base-model", "me/other-bert").refused()
    assert "--base-model" in said and "sha256" in said
    said = worker.cli("push", run, "me/nameless", "--base", house.base, "--base-model", "me/none-such").refused()
    assert "no repository 'me/none-such'" in said
    words = ["--base", house.base, "--base-model", "me/tiny-bert", "--base-revision", "v7"]
    assert "'v7'" in worker.cli("push", run, "me/nameless", *words).refused()
    assert "me/nameless" not in hub.store.repos


# --------------------------------------------------------------------------------------------------------- card


def test_the_card_is_written_from_the_run(pushed, worker, hub, house):
    run = house.runs["lora"]
    (run / "report.json").write_text(json.dumps({"negative_transfer": {"mood": {"difference": -0.05}, "names": 0.1}}))
    head = "timestamp,project_name,duration,emissions,energy_consumed,country_name,cpu_model,longitude\n"
    (run / "emissions.csv").write_text(head + "t,p,12.5,0.0004,0.002,Norway,A fast one,10.39\n")
    try:
        pushed("me/card", "--license", "apache-2.0").fine()
    finally:
        (run / "report.json").unlink()
        (run / "emissions.csv").unlink()
    text = hub.files("me/card")["README.md"].decode()
    from huggingface_hub import ModelCard

    data = ModelCard(text).data
    told = {key: data.to_dict()[key] for key in ("base_model", "base_model_relation", "library_name", "license")}
    assert told == {
        "base_model": "me/tiny-bert",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "license": "apache-2.0",
    }
    scores = json.loads((run / "metrics.json").read_text())["validation"]
    found = {(one.task_name, one.metric_type): one.metric_value for one in data.eval_results}
    assert found == {(t, m): pytest.approx(v, abs=1e-6) for t, known in scores.items() for m, v in known.items()}
    emitted = data.to_dict()["co2_eq_emissions"]
    assert emitted["emissions"] == pytest.approx(0.4) and emitted["geographical_location"] == "Norway"
    for words in ("cc-by-4.0", "Doe, 2020", "- mood: -0.0500", "learning_rate: `0.001`", "r 4", "peft 0.", "0.4 g CO2"):
        assert words in text, words
    assert "10.39" not in text and "- names: " not in text
    first = snippets(text)[0]
    assert "'mood'" in worker.code(first).fine()


# ----------------------------------------------------------------------------------------------- during training


TRAIN = """
import json
from nlp_mtl.run import train
said = json.loads({said!r})
run = train(said, overwrite=True)
"""


@pytest.mark.parametrize("strategy", ["end", "checkpoint", pytest.param("all_checkpoints", marks=pytest.mark.long)])
def test_pushes_during_training(worker, hub, house, tmp_path, strategy):
    """What leaves when: checkpoints only if `hub_strategy` asks for them, and then such that training goes on."""
    repo = f"me/training-{strategy.replace('_', '-')}"
    said = config("me/tiny-bert", house.files, tmp_path / "SECRETPATH-run", lora=LORA, training={"max_steps": 2})
    said["training"] |= {"save_strategy": "steps", "save_steps": 1, "push_to_hub": True, "hub_model_id": repo}
    said["training"] |= {"hub_strategy": strategy, "hub_private_repo": True, "hub_always_push": True}
    sent = len(hub.store.received)
    worker.code(TRAIN.format(said=json.dumps(said))).fine()
    repo, files = hub.repo(repo), hub.files(repo)
    assert repo.private
    messages = list(repo.messages.values())
    assert messages[-1] == "End of training"
    assert any("in progress" in message for message in messages) == (strategy != "end")
    folders = {name.split("/")[0] for name in files if "/" in name}
    extra = {"checkpoint": {"last-checkpoint"}, "all_checkpoints": {"checkpoint-1", "checkpoint-2"}}.get(
        strategy, set()
    )
    assert folders == {*TASKS, *extra}
    assert "model-index" in files["README.md"].decode(), "the card at the end has the scores"
    new = b"\n".join(hub.store.received[sent:])
    assert b"SECRETPATH" not in new and b"SECRETROW" not in new
    assert worker.cli("predict", repo.id, "a cat").fine()
    if strategy == "checkpoint":
        place = tmp_path / "again" / "checkpoint-2"
        for name, data in files.items():
            if name.startswith("last-checkpoint/"):
                file = place / name.removeprefix("last-checkpoint/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
        said["training"] |= {"output_dir": str(place.parent), "push_to_hub": False, "max_steps": 3}
        goes_on = TRAIN.replace("overwrite", "resume") + "print(run.trainer.state.global_step)"
        assert worker.code(goes_on.format(said=json.dumps(said))).fine().splitlines()[-1] == "3"


def test_a_push_that_fails_ends_no_training(worker, hub, house, tmp_path):
    said = config("me/tiny-bert", house.files, tmp_path / "run", lora=LORA, training={"max_steps": 2})
    said["training"] |= {"save_strategy": "steps", "save_steps": 1, "push_to_hub": True, "hub_model_id": "me/broken"}
    bad = json.loads(json.dumps(said))
    bad["training"]["hub_token"] = "no-such-token"
    out = worker.code(TRAIN.format(said=json.dumps(bad)))
    assert out.code and "HubError" in out.err and "`token`" in out.err
    assert not (tmp_path / "run").exists(), "told before anything is made"
    hub.store.large.clear()
    hub.store.cuts = 10_000
    try:
        out = worker.code(TRAIN.format(said=json.dumps(said)))
    finally:
        hub.store.cuts = 0
    assert out.code and "HubError" in out.err and "same command" in out.err
    assert (tmp_path / "run" / "metrics.json").is_file() and (tmp_path / "run" / "nlp_mtl.json").is_file()
    shutil.rmtree(tmp_path / "run" / "checkpoint-2")
    assert worker.cli("push", tmp_path / "run", "me/broken").fine()
    said = config(str(house.base), house.files, tmp_path / "new", lora=LORA, training={"push_to_hub": True})
    out = worker.code(TRAIN.format(said=json.dumps(said)))
    assert "training.push_to_hub" in out.err and "push afterwards" in out.err
    assert not (tmp_path / "new").exists()
