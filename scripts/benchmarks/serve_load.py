"""`nlp-mtl serve` under load, on this machine alone: requests a second, latencies, and every answer compared.

    python scripts/benchmarks/serve_load.py --data-root DIR --model FOLDER [--work FOLDER] [--rounds 3]

One text a request, five tasks an answer, on the model of predict_speed.py. The same server is asked by one client, a
request after the other, and by many at once; a second server, with batching off (`--max-batch 1`), by as many at once.
A third one, in float32, is sent valid and invalid requests together: each answer is compared with `mtl.predict` (equal
labels and entities, scores within 1e-4), each refusal with the status it must have. The client is this process, so it
takes its share of the cores. Every server answers all texts before it is timed. Then, in this process and without HTTP,
what one task costs beside all five.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from predict_speed import TASKS, make_models, seconds, texts_of

RECORDED = Path(__file__).resolve().parent / "recorded" / "serve_load.json"
CLIENTS = (8, 32, 64)
ALONE = 200  # requests of the client that is alone


class Server:
    """`nlp-mtl serve` in a process of its own.

    Args:
        run: the run folder.
        more: further words.
    """

    def __init__(self, run: Path, *more: str):
        command = [sys.executable, "-m", "nlp_mtl.cli", "serve", str(run), "--port", "0", *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = re.search(r"http://\S+", self.process.stdout.readline())
        if not found:
            raise SystemExit("the server did not start")
        self.place = urlsplit(found[0])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: Any) -> None:
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60):
            raise SystemExit("the server did not stop in order")

    def ask(self, bodies: list[bytes], clients: int) -> tuple[float, list[tuple[int, Any, float]]]:
        """Seconds for all requests, and (status, answer, seconds) of each, in their order."""
        return asyncio.run(self._ask(bodies, clients))

    async def _ask(self, bodies: list[bytes], clients: int) -> tuple[float, list[tuple[int, Any, float]]]:
        found: list[tuple[int, Any, float]] = [(0, None, 0.0)] * len(bodies)
        left = iter(range(len(bodies)))

        async def client() -> None:
            reader, writer = await asyncio.open_connection(self.place.hostname, self.place.port)
            for number in left:
                began = time.perf_counter()
                head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
                writer.write(head.encode() + str(len(bodies[number])).encode() + b"\r\n\r\n" + bodies[number])
                said = await reader.readuntil(b"\r\n\r\n")
                length = int(re.search(rb"content-length: (\d+)", said, re.I)[1])  # type: ignore[index]
                body = await reader.readexactly(length)
                found[number] = (int(said[9:12]), body, time.perf_counter() - began)
                if b"connection: close" in said.lower():
                    writer.close()
                    reader, writer = await asyncio.open_connection(self.place.hostname, self.place.port)
            writer.close()

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        took = time.perf_counter() - began
        return took, [(status, json.loads(body), spent) for status, body, spent in found]


def body_of(value: Any, **more: Any) -> bytes:
    """A request."""
    return json.dumps({"input": value, **more}).encode()


def figures(took: float, found: list[tuple[int, Any, float]]) -> dict[str, float]:
    """Requests a second, and percentiles of their latency in ms."""
    spent = sorted(one[2] * 1e3 for one in found)
    at = {f"p{share}": round(spent[min(len(spent) - 1, len(spent) * share // 100)], 1) for share in (50, 95, 99)}
    return {"requests_per_s": round(len(found) / took, 1), **at}


def median(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure."""
    return {name: round(statistics.median(one[name] for one in rounds), 1) for name in rounds[0]}


def same(one: Any, other: Any) -> bool:
    """Equal but for scores, which are within 1e-4."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-4
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def speed(run: Path, texts: list[str], rounds: int) -> dict[str, Any]:
    """One client beside many, and many with batching off."""
    bodies = [body_of(text) for text in texts]
    names = ["one client", *(f"{count} clients" for count in CLIENTS), f"batching off, {CLIENTS[-1]} clients"]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with Server(run) as server, Server(run, "--max-batch", "1", "--max-wait", "0") as plain:
        for one in (server, plain):  # the matrix library has met every length before the clock starts
            one.ask(bodies[:ALONE], 1)
            one.ask(bodies, CLIENTS[-1])
        for _ in range(rounds):
            found[names[0]].append(figures(*server.ask(bodies[:ALONE], 1)))
            for count, name in zip(CLIENTS, names[1:], strict=False):
                found[name].append(figures(*server.ask(bodies, count)))
            found[names[-1]].append(figures(*plain.ask(bodies[: 2 * ALONE], CLIENTS[-1])))
    for name, made in found.items():
        print(name, median(made), flush=True)
    return {name: {**median(made), "rounds": [one["requests_per_s"] for one in made]} for name, made in found.items()}


def mixed(run: Path, texts: list[str]) -> dict[str, int]:
    """Valid and invalid requests together; every answer is compared."""
    import nlp_mtl as mtl

    expected = mtl.predict(mtl.MultiTaskModel.from_pretrained(run), texts, dtype="float32")
    refused = [
        (body_of(""), 422),
        (body_of({COLUMN: 5}), 422),
        (b'{"input": ', 422),
        (body_of("rain", tasks=["coal"]), 422),
        (body_of("x" * 30_000), 413),
        (json.dumps({"inputs": ["a"] * 65}).encode(), 413),
    ]
    asked: list[tuple[bytes, int, Any]] = []
    draw = random.Random(0)
    for text, answer in zip(texts, expected, strict=True):
        chosen = draw.sample(TASKS, draw.randint(1, len(TASKS))) if draw.random() < 0.5 else list(TASKS)
        asked.append((body_of(text, tasks=chosen), 200, {task: answer[task] for task in chosen}))
        if draw.random() < 0.3:
            body, status = draw.choice(refused)
            asked.append((body, status, None))
    with Server(run, "--dtype", "float32") as server:
        _, found = server.ask([body for body, _, _ in asked], CLIENTS[-1])
    counts = {"valid": 0, "invalid": 0, "wrong": 0, "lost": 0}
    for (_, status, answer), (given, said, _) in zip(asked, found, strict=True):
        counts["valid" if status == 200 else "invalid"] += 1
        counts["lost"] += given == 0 or given >= 429
        right = given == status and (same(said.get("answer"), answer) if status == 200 else "reason" in said)
        counts["wrong"] += not right
    print(counts, flush=True)
    return counts


COLUMN = "sentence"


def one_task(run: Path, texts: list[str]) -> dict[str, dict[str, float]]:
    """`predict` with one task beside all: parameters that are loaded, ms for one text, texts a second of many."""
    import nlp_mtl as mtl

    found = {}
    for name, tasks in (("all five", None), *((f"{task} alone", [task]) for task in ("sst2", "conll2003"))):
        model = mtl.MultiTaskModel.from_pretrained(run, tasks=tasks)
        mtl.predict(model, texts[:64])
        single = [seconds(lambda text=text, model=model: mtl.predict(model, text))[0] * 1e3 for text in texts[:100]]
        many = [seconds(lambda model=model: mtl.predict(model, texts))[0] for _ in range(2)]
        found[name] = {
            "heads_parameters": sum(p.numel() for p in model.modules_.parameters()),
            "ms_for_one_text": round(statistics.median(single), 2),
            "texts_per_s": round(len(texts) / min(many), 1),
        }
        print(name, found[name], flush=True)
    return found


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--work", default=None)
    parser.add_argument("--texts", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(given.work or folder).resolve()
        work.mkdir(parents=True, exist_ok=True)
        make_models(work, Path(given.data_root).resolve(), Path(given.model).resolve())
        texts = texts_of(Path(given.data_root).resolve(), given.texts)
        result: dict[str, Any] = {
            "command": "python scripts/benchmarks/serve_load.py --data-root DIR --model FOLDER",
            "texts": len(texts),
            "tasks": TASKS,
            "threads": int(os.environ.get("OMP_NUM_THREADS", "2")),
            "rounds": given.rounds,
            "speed": speed(work / "ours", texts, given.rounds),
            "mixed": mixed(work / "ours", texts),
            "one_task": one_task(work / "ours", texts[:400]),
        }
    rates = {name: one["requests_per_s"] for name, one in result["speed"].items()}
    most = rates[f"{CLIENTS[-1]} clients"]
    result["over"] = {
        name: round(most / rates[name], 2) for name in ("one client", f"batching off, {CLIENTS[-1]} clients")
    }
    RECORDED.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["over"], indent=1))


if __name__ == "__main__":
    main()
