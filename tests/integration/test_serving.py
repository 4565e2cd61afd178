"""A server answers what `predict` answers, whatever comes together; the rest is refused with its reason."""

from __future__ import annotations

import json
import random
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch

from nlp_mtl import prediction
from nlp_mtl.errors import NlpMtlError
from nlp_mtl.taskfile import Task
from nlp_mtl.testing import WORDS, tiny_model
from tests.integration.serving import Watched, ask, ask_all, close, get, running

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
torch.set_num_threads(1)  # tiny models: threads would only wait for one another

TASKS = ["cola", "rte", "conll2003", "stsb"]
HEAD = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model():
    """A model of four tasks of three kinds with weights that tell inputs apart."""
    made = tiny_model(TASKS).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return made


@pytest.fixture(scope="module")
def answerer(model):
    return Watched(model, dtype="float32")


@pytest.fixture(scope="module")
def address(answerer):
    with running(answerer, max_length_text=2000, max_body=20_000, max_batch=16, body_timeout=0.5) as found:
        yield found


def expected(model, body):
    """What `predict` says to a request."""
    inputs = body["inputs"] if "inputs" in body else [body["input"]]
    read = [tuple(value) if isinstance(value, list) else value for value in inputs]
    answers = prediction.predict(model, read, tasks=body.get("tasks"), dtype="float32")
    return {"answers": answers} if "inputs" in body else {"answer": answers[0]}


def drawn(count, seed=0):
    """Requests of all kinds: texts, pairs, columns, lists of words, several inputs, some tasks."""
    draw = random.Random(seed)

    def text():
        return " ".join(draw.choices([*WORDS, "Zürich", "日本", "🙂", "it's", "ß"], k=draw.randint(1, 30)))

    def one():
        kinds = [text(), [text(), text()], {"sentence": text(), "tokens": text().split()}, {"sentence1": text()}]
        return draw.choice(kinds)

    made = []
    for _ in range(count):
        body = {"input": one()} if draw.random() < 0.6 else {"inputs": [one() for _ in range(draw.randint(1, 5))]}
        if draw.random() < 0.5:
            body["tasks"] = draw.sample(TASKS, draw.randint(1, len(TASKS)))
        made.append(body)
    return made


def test_answers_are_those_of_predict_whatever_comes_together(model, answerer, address):
    bodies = drawn(80)
    answerer.passes.clear()
    answerer.open.clear()
    threading.Timer(0.3, answerer.open.set).start()  # so that some wait and go together
    found = ask_all(address, bodies)
    assert max(answerer.passes) > 2, "nothing went together"
    for body, (status, said) in zip(bodies, found, strict=True):
        assert status == 200, said
        assert close(said, expected(model, body)), body


def test_what_can_not_be_read_harms_no_other_request_of_its_pass(model, answerer, address):
    bodies = drawn(40, seed=1)
    bad = [
        {"input": {"sentence": 5}},
        {"input": {"tokens": [3]}, "tasks": ["conll2003"]},
        {"inputs": [{"sentence": ""}]},
    ]
    answerer.open.clear()
    threading.Timer(0.3, answerer.open.set).start()
    found = ask_all(address, [one for body in bodies for one in (body, random.Random(len(str(body))).choice(bad))])
    for body, (status, said), (refused, why) in zip(bodies, found[::2], found[1::2], strict=True):
        assert (status, refused) == (200, 422)
        assert close(said, expected(model, body))
        assert "can't be read" in why["reason"] and "input 0" in why["reason"]


def test_a_failure_tells_an_id_and_nothing_else_and_harms_no_other_request(
    model, answerer, address, monkeypatch, caplog
):
    plain = type(model.heads["cola"]).answers

    def broken(self, inputs):
        if any("boom" in str(row.get("sentence")) for parts in inputs for _, row in parts):
            raise RuntimeError("at /some/secret/path")
        return plain(self, inputs)

    monkeypatch.setattr(type(model.heads["cola"]), "answers", broken)
    answerer.open.clear()
    threading.Timer(0.3, answerer.open.set).start()
    found = ask_all(address, [{"input": "the boom cat" if i == 3 else f"cat {i}"} for i in range(8)])
    assert [status for status, _ in found] == [200, 200, 200, 500, 200, 200, 200, 200]
    said = found[3][1]
    assert set(said) == {"error", "reason", "id"} and said["error"] == "internal"
    assert "secret" not in json.dumps(said) and "Traceback" not in json.dumps(said)
    (record,) = [one for one in caplog.records if said["id"] in one.getMessage()]
    assert "at /some/secret/path" in str(record.exc_info[1])


@pytest.mark.parametrize(
    ("raw", "status", "kind", "parts"),
    [
        (b"{", 422, "unreadable", ["the body is JSON", "line 1"]),
        (b"\xff", 422, "unreadable", ["UTF-8"]),
        (b"", 422, "unreadable", ["the body is JSON"]),
        (b"[" * 9000, 422, "unreadable", ["JSON"]),
        (b'"text"', 422, "unreadable", ['{"input": "A text."}']),
        (b"{}", 422, "unreadable", ["either `input`", "found neither"]),
        (b'{"input": "a", "inputs": ["a"]}', 422, "unreadable", ["found both"]),
        (b'{"input": "a", "task": ["cola"]}', 422, "unreadable", ["unknown key 'task'", "did you mean 'tasks'"]),
        (b'{"input": 5}', 422, "unreadable", ["input 0", "found 5"]),
        (b'{"input": ["a", "b", "c"]}', 422, "unreadable", ["a list of inputs is `inputs`"]),
        (b'{"inputs": "a"}', 422, "unreadable", ["`inputs` is a list", "`input`"]),
        (b'{"inputs": []}', 422, "unreadable", ["at least one"]),
        (b'{"inputs": ["a", null, ""]}', 422, "unreadable", ["input 1: ", "input 2: holds text"]),
        (b'{"input": " \\n"}', 422, "unreadable", ["holds text, found none"]),
        (b'{"input": ["a", ""]}', 422, "unreadable", ["holds text, found none"]),
        (b'{"input": "\\ud800"}', 422, "unreadable", ["surrogate"]),
        (b'{"input": {"sentence": "\\ud800"}}', 422, "unreadable", ["surrogate"]),
        (b'{"input": "a", "tasks": ["coal", "x"]}', 422, "unreadable", ["'coal'", "did you mean 'cola'", "'x'"]),
        (b'{"input": "a", "tasks": "cola"}', 422, "unreadable", ["list of names", '["cola"]']),
        (b'{"input": "a", "tasks": []}', 422, "unreadable", ["at least one"]),
        (b'{"input": "a", "tasks": [["cola"]]}', 422, "unreadable", ["list of names"]),
        (b'{"input": {"sentence": null}}', 422, "unreadable", ["'sentence' is not text", "'cola'"]),
        (json.dumps({"input": "a" * 2001}).encode(), 413, "too_long", ["at most 2000", "2001"]),
        (json.dumps({"input": {"tokens": ["ab"] * 1001}}).encode(), 413, "too_long", ["at most 2000", "2002"]),
        (json.dumps({"inputs": ["a"] * 17}).encode(), 413, "too_many", ["at most 16", "17"]),
        (b" " * 20_001, 413, "too_large", ["at most 20000 bytes"]),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_with_its_reason(address, raw, status, kind, parts):
    found, said = ask(address, None, raw=raw)
    assert (found, said["error"]) == (status, kind), said
    for part in parts:
        assert part in said["reason"]


def test_a_body_without_a_length_is_bounded_too(address):
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(100):
                line.sendall(b"3e8\r\n" + b" " * 1000 + b"\r\n")
        except OSError:
            pass  # it has been refused meanwhile
        assert b" 413 " in line.recv(2000).splitlines()[0]


def test_a_body_that_does_not_come_is_not_waited_for(address):
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        assert b" 408 " in line.recv(2000).splitlines()[0]


def test_other_pages_and_kinds_of_content_are_refused_in_json(address):
    assert ask(address, {}, path="/nope")[0] == 404
    assert get(address, "/predict")[0] == 405
    status, said = ask(address, None, raw=b"input=a", **{"Content-Type": "application/x-www-form-urlencoded"})
    assert status == 415 and "Content-Type: application/json" in said["reason"]
    assert ask(address, {"input": "rain"}, **{"Content-Type": "application/json; charset=utf-8"})[0] == 200


def test_a_full_queue_refuses_and_loses_nothing(model):
    answerer = Watched(model, dtype="float32")
    with running(answerer, queue=4, max_batch=2) as address:
        answerer.open.clear()
        threading.Timer(1.0, answerer.open.set).start()
        found = ask_all(address, [{"input": f"cat {i}"} for i in range(16)])
        counts = {status: [s for s, _ in found].count(status) for status in (200, 429)}
        assert counts[200] + counts[429] == 16 and counts[200] >= 4 and counts[429] >= 4
        assert all("ask again later" in said["reason"] for status, said in found if status == 429)
        assert ask(address, {"input": "the cat"})[0] == 200, "it answers again"


def test_a_client_that_went_away_harms_no_other_and_is_not_computed(model):
    answerer = Watched(model, dtype="float32")
    with running(answerer, max_batch=4) as address:
        host, port = address.removeprefix("http://").split(":")
        answerer.open.clear()
        body = json.dumps({"input": "the cat"}).encode()
        head = f"{HEAD}Content-Length: {len(body)}\r\n\r\n"
        lines = [socket.create_connection((host, int(port))) for _ in range(6)]
        for line in lines:
            line.sendall(head.encode() + body)
            time.sleep(0.02)
        for line in lines:
            line.close()
        threading.Timer(0.8, answerer.open.set).start()
        assert ask_all(address, [{"input": "rain"}] * 3) == [(200, expected(model, {"input": "rain"}))] * 3
        assert sum(answerer.passes) < 9, "those that went away were left out"


def test_what_it_says_about_itself(answerer, address):
    status, kind, said = get(address, "/tasks")
    assert (status, kind) == (200, "application/json")
    tasks = {task["name"]: task for task in json.loads(said)["tasks"]}
    assert list(tasks) == TASKS
    assert tasks["rte"]["inputs"] == ["sentence1", "sentence2"] and tasks["rte"]["labels"][0] == "entailment"
    assert tasks["cola"]["max_length"] == 128 and "labels" not in tasks["stsb"]
    assert json.loads(get(address, "/health")[2]) == {"status": "ok", "waiting": 0}
    described = json.loads(get(address, "/openapi.json")[2])
    assert set(described["paths"]) == {"/predict", "/tasks", "/health"}
    content = described["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    for example in content["examples"].values():
        assert ask(address, example["value"])[0] == 200
    assert {"200", "413", "422", "429", "500", "503"} <= set(described["paths"]["/predict"]["post"]["responses"])
    status, kind, page = get(address, "/docs")
    assert status == 200 and kind.startswith("text/html")
    assert not re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", page), "the page loads nothing from elsewhere"


@pytest.mark.processes
def test_a_stop_answers_what_was_accepted_and_refuses_the_rest(model, tmp_path, forked_python):
    model.save_pretrained(tmp_path / "run")
    program = [forked_python, "-m", "tests.integration.serving", str(tmp_path / "run"), "0.3"]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        address = process.stdout.readline().strip()
        assert address, process.stderr.read()
        found = []
        thread = threading.Thread(target=lambda: found.extend(ask_all(address, [{"input": "rain"}] * 4)))
        thread.start()
        while json.loads(get(address, "/health")[2])["waiting"] < 3:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.15)
        status, said = ask(address, {"input": "rain"})
        assert (status, said["error"]) == (503, "stopping")
        assert get(address, "/health")[0] == 503
        thread.join(20)
        assert [status for status, _ in found] == [200] * 4
        assert process.wait(20) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()


@pytest.mark.processes
def test_the_command_reads_the_asked_tasks_alone_and_says_where_it_is(model, tmp_path, forked_python):
    model.save_pretrained(tmp_path / "run")
    words = ["serve", str(tmp_path / "run"), "--port", "0", "--task", "rte", "--dtype", "float32"]
    program = [forked_python, "-m", "nlp_mtl.cli", *words]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        line = process.stdout.readline()
        address = re.search(r"http://[\d.:]+", line)[0]
        body = {"input": ["It rained.", "The sun is red."]}
        assert ask(address, body)[1] == expected(model, {**body, "tasks": ["rte"]})
        assert ask(address, {**body, "tasks": ["cola"]})[0] == 422
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()


def test_a_place_that_is_taken_and_words_that_are_wrong_are_told(run, tmp_path, model, address):
    model.save_pretrained(tmp_path / "run")
    code, out, err = run("serve", tmp_path / "run", "--port", address.rpartition(":")[2])
    assert (code, out) == (2, "") and "in use" in err and "0 for a free one" in err
    code, _, err = run("serve", tmp_path / "run", "--port", "0", "--task", "rta")
    assert code == 2 and "did you mean 'rte'" in err
    code, _, err = run("serve", tmp_path / "run", "--port", "0", "--max-batch", "0", "--queue", "-1")
    assert code == 2 and "2 mistakes" in err and "--max-batch" in err and "--queue" in err
    code, _, err = run("serve", tmp_path / "run", "--queue", "8")
    assert code == 2 and "--max-batch" in err


# ---------------------------------------------------------------------------------------------- tasks that write texts

WRITES = {"name": "back", "dataset": {"path": "none"}, "inputs": ["text"], "target": "back", "examples": []}
IN_WORDS = {**WRITES, "name": "mood", "target": "label", "labels": ["good", "bad"], "template": "mood: {text}"}


@pytest.fixture(scope="module", params=["t5", "bert"])
def writer(request):
    """Two tasks that write with one decoder, one that answers with a label in words, and one that does not write."""
    head = {"name": "seq2seq", "max_target_length": 12, "generation": {"num_beams": 2}}
    back, mood = Task(**{**WRITES, "head": head}), Task(**{**IN_WORDS, "head": {"name": "seq2seq"}})
    made = tiny_model([back, back.with_(name="again", head_of="back"), mood, "cola"], request.param).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return made


def test_texts_that_are_written_are_those_of_predict_whatever_comes_together(writer):
    answerer = Watched(writer, dtype="float32")
    draw = random.Random(3)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 30))) for _ in range(12)]
    bodies = [{"input": text} for text in texts] + [{"inputs": texts[:3], "tasks": ["again"]}]
    with running(answerer, max_batch=8) as address:
        answerer.open.clear()
        threading.Timer(0.3, answerer.open.set).start()
        found = ask_all(address, bodies)
        assert max(answerer.passes) > 2, "nothing went together"
        for body, (status, said) in zip(bodies, found, strict=True):
            assert status == 200, said
            assert close(said, expected(writer, body)), body
        assert len({json.dumps(said["answer"]["back"]) for _, said in found[:12]}) > 3, "weights that tell texts apart"
        assert found[0][1]["answer"].keys() == {"back", "again", "mood", "cola"}
        assert found[0][1]["answer"]["mood"]["label"] in ("good", "bad")
        assert ask(address, {"input": ""})[0] == expected_status(writer, "")
        heads = {task["name"]: task["head"] for task in json.loads(get(address, "/tasks")[2])["tasks"]}
        assert heads["back"] == heads["mood"] == "seq2seq"


def expected_status(model, text):
    """200 where `predict` reads it, else 422."""
    try:
        prediction.predict(model, text)
    except NlpMtlError:
        return 422
    return 200
