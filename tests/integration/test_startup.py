"""What happens before the first step happens once, and nothing of it asks a network when all is local."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.integration.tiny import config, write_base, write_tasks

PROGRAM = """
import json, os, sys
from pathlib import Path

asked, weights = [], []

def heard(event, of):
    if event in ("socket.getaddrinfo", "socket.gethostbyname") or (
        event == "socket.connect" and isinstance(of[1], tuple)
    ):
        asked.append(str(of))
        raise OSError("no network in this test")

sys.addaudithook(heard)
import safetensors, transformers
load, opened = transformers.AutoModel.from_pretrained, safetensors.safe_open
loads = []
transformers.AutoModel.from_pretrained = lambda *given, **more: loads.append(str(given)) or load(*given, **more)

from nlp_mtl.heads import vanilla
from nlp_mtl import tokenizing
from nlp_mtl.run import train

def counted(file, **more):
    weights.append(str(file))
    return opened(file, **more)

safetensors.safe_open = counted
splits, tokenize = [], tokenizing._tokenize_split
tokenizing._tokenize_split = lambda *given: splits.append(1) or tokenize(*given)
for _ in range(2):  # two processes, which share what is imported and nothing else
    if os.fork():
        assert os.wait()[1] == 0
        continue
    run = train(json.loads(Path(sys.argv[1]).read_text()), overwrite=True)
    print(json.dumps({"asked": asked, "loads": len(loads), "headers": len(weights), "splits": len(splits),
                      "steps": run.trainer.state.global_step}), flush=True)
    os._exit(0)
"""


def test_a_local_run_asks_no_network_and_does_everything_once(tmp_path):
    base, files = write_base(tmp_path / "base"), write_tasks(tmp_path / "tasks")
    said = config(base, files, tmp_path / "run", training={"max_steps": 1})
    (tmp_path / "run.json").write_text(json.dumps(said), encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    env |= {"NLP_MTL_CACHE": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run.json")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"asked"')]
    assert len(found) == 2
    for one in found:
        assert one["asked"] == []
        assert one["loads"] == 1, "the encoder is read once, for all tasks"
        assert one["headers"] <= 1, "what else the checkpoint holds is looked up once, not for every head"
        assert one["steps"] == 1
    assert found[0]["splits"] > 0
    assert found[1]["splits"] == 0, "what was tokenized is read back"
