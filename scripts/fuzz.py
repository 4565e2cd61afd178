"""Look for inputs that break the laws of tests/fuzz: readers (CSV, JSON, CoNLL, YAML, …), own data and the collation.

What counts as a finding: an exception that is no message of nlp_mtl, rows that are not read back as they were written,
a process that dies, an example that takes longer than --hang. Its input is saved. Exit code 1 if there are findings.

python scripts/fuzz.py --minutes 10
python scripts/fuzz.py --minutes 1 --seed 3 --only any_csv csv_read_back --json /tmp/fuzz.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIFE = 300.0  # seconds after which a process is replaced by a fresh one
STARTS = 120.0  # seconds in which a process must begin
MOST_SAVED = 3  # inputs of one kind of finding


def main() -> int:
    """Watch processes that try examples, then write what was found."""
    epilog = "\n".join(__doc__.strip().splitlines()[-2:])
    about = "\n".join(__doc__.strip().splitlines()[:-3])
    parser = argparse.ArgumentParser(
        description=about, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long; default 10")
    parser.add_argument("--seed", type=int, default=0, help="other examples; default 0")
    parser.add_argument("--only", nargs="+", default=[], metavar="LAW", help="only these laws")
    parser.add_argument("--hang", type=float, default=60.0, metavar="SECONDS", help="longest time for an example")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there")
    parser.add_argument(
        "--findings", type=Path, default=Path("fuzz_findings"), help="folder for inputs that break laws"
    )
    parser.add_argument("--laws", default="tests.fuzz.properties", help=argparse.SUPPRESS)  # a module with load_laws()
    return Watch(parser.parse_args()).run()


class Watch:
    """Starts a process that tries examples, again when it dies, hangs or grows old, and counts what it tells."""

    def __init__(self, given: argparse.Namespace):
        self.given = given
        self.base = Path(tempfile.mkdtemp(prefix="fuzz"))
        self.tried: Counter[str] = Counter()
        self.abouts: dict[str, str] = {}
        self.findings: dict[str, dict[str, Any]] = {}
        self.at = ""
        self.active = 0.0  # seconds that this process was running: a paused machine is no hang
        self.starts = self.stillborn = 0
        self.over = False

    def run(self) -> int:
        """Try examples until the time is over; returns the exit code."""
        began, shown = datetime.now(UTC), 0.0
        try:
            while not self.over:
                shown = self.one_life(shown)
        except KeyboardInterrupt:
            print("stopped")
        finally:
            shutil.rmtree(self.base, ignore_errors=True)
        summary = self.summary(began)
        print(self.line())
        for one in summary["findings"]:
            print(f"{one['law']}: {one['what']} ({one['times']} times); {one['saved']}")
        if self.given.json:
            self.given.json.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
            print(f"written: {self.given.json}")
        return int(bool(self.findings))

    def one_life(self, shown: float) -> float:
        """One process, from its start to its end."""
        work = self.base / f"life{self.starts}"
        work.mkdir()
        said: queue.Queue[str] = queue.Queue()
        process = self.start(work)
        reader = threading.Thread(target=lambda: [said.put(line) for line in process.stdout or ()], daemon=True)
        reader.start()
        lived = waited = 0.0
        told = hung = False
        while True:
            tick = time.monotonic()
            news = _all(said, 0.5)
            passed = min(time.monotonic() - tick, 1.0)
            self.active += passed if told else 0.0
            lived += passed
            told = told or bool(news)
            waited = 0.0 if news else waited + passed
            for line in news:
                self.hear(line)
            if time.monotonic() - shown > 10:
                print(self.line(), flush=True)
                shown = time.monotonic()
            if process.poll() is not None and not news and not reader.is_alive():
                break
            hung = waited > (self.given.hang if told else max(self.given.hang, STARTS))
            self.over = self.active > 60 * self.given.minutes
            if hung or lived > LIFE or self.over:
                os.killpg(process.pid, signal.SIGKILL)  # its own group: started by us with a session of its own
                process.wait()
                break
        if hung:
            self.note(self.at, f"takes longer than {self.given.hang:g} s", "", work)
        elif not (self.over or lived > LIFE):
            how = process.returncode
            name = signal.Signals(-how).name if how < 0 else f"exit code {how}"
            self.note(
                self.at, f"the process died ({name})", (work / "errors.txt").read_text(errors="replace")[-2000:], work
            )
            self.stillborn += not told
            self.over = self.stillborn > 2  # it can't even be started
        shutil.rmtree(work, ignore_errors=True)
        return shown

    def start(self, work: Path) -> subprocess.Popen[str]:
        """A process that tries examples; what it reads and writes stays in `work`."""
        self.starts += 1
        quiet = {
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        places = {"HF_DATASETS_CACHE": str(work / "datasets"), "NLP_MTL_CACHE": str(work / "cache")}
        env = {
            **os.environ,
            **quiet,
            **places,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        command = [sys.executable, "-m", "tests.fuzz.trying", str(work), str(1000 * self.given.seed + self.starts)]
        command += [self.given.laws, *self.given.only]
        known = json.dumps([one["kind"] for one in self.findings.values()])
        (work / "known.json").write_text(known, encoding="utf-8")
        with (work / "errors.txt").open("wb") as errors:
            return subprocess.Popen(
                command, env=env, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True, cwd=work
            )

    def hear(self, line: str) -> None:
        """One line that the process said."""
        try:
            news = json.loads(line)
        except ValueError:
            return  # printed by a library
        if "laws" in news:
            self.abouts = news["laws"]
        elif "broken" in news:
            self.note(news["law"], news["broken"], news["trace"], Path(news["folder"]), news["example"], news["kind"])
        elif "again" in news:
            self.findings[news["again"]]["times"] += 1
        elif "at" in news:
            self.at = news["at"]
            self.tried[self.at] += 1

    def note(self, law: str, what: str, trace: str, folder: Path, example: str = "", kind: str = "") -> None:
        """Keep a finding, with its input."""
        kind = kind or f"{law}: {what}"
        one = self.findings.setdefault(kind, {"law": law, "what": what, "kind": kind, "times": 0, "saved": []})
        one["times"] += 1
        if len(one["saved"]) >= MOST_SAVED:
            return
        name = f"{law or 'start'}-{hashlib.sha256(kind.encode()).hexdigest()[:8]}-{one['times']}"
        place = self.given.findings.resolve() / name
        place.mkdir(parents=True, exist_ok=True)
        for file in folder.rglob("*") if folder.is_dir() else ():
            inside = file.relative_to(folder)
            if file.is_file() and inside.parts[0] not in ("datasets", "cache", "known.json"):
                (place / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place / inside)
        tried = folder / "example.txt"
        said = example or (tried.read_text(errors="replace") if tried.is_file() else "")
        (place / "finding.txt").write_text(f"{law}: {what}\n\n{said}\n\n{trace}\n", encoding="utf-8", errors="replace")
        one["saved"].append(str(place))
        print(f"finding: {law}: {what}", flush=True)

    def line(self) -> str:
        """How far it is: examples by what they are about, findings."""
        by: Counter[str] = Counter()
        for law, count in self.tried.items():
            by[self.abouts.get(law, law)] += count
        said = ", ".join(f"{about} {count}" for about, count in sorted(by.items()))
        left = f"{self.active / 60:.1f} of {self.given.minutes:g} minutes"
        return f"{left}: {self.tried.total()} examples ({said}); {len(self.findings)} findings"

    def summary(self, began: datetime) -> dict[str, Any]:
        """What is written as JSON."""
        libraries = ("hypothesis", "datasets", "pyarrow", "pandas", "pydantic", "pyyaml", "torch", "transformers")
        laws = {law: {"about": self.abouts.get(law, ""), "examples": n} for law, n in sorted(self.tried.items())}
        words = ["python", "scripts/fuzz.py", "--minutes", f"{self.given.minutes:g}", "--seed", str(self.given.seed)]
        return {
            "command": " ".join([*words, *(["--only", *self.given.only] if self.given.only else [])]),
            "began": began.isoformat(timespec="seconds"),
            "minutes": round(self.active / 60, 1),
            "seed": self.given.seed,
            "examples": self.tried.total(),
            "processes": self.starts,
            "laws": laws,
            "findings": [{**one, "saved": len(one["saved"])} for one in self.findings.values()],
            "versions": {"python": platform.python_version(), **{name: version(name) for name in libraries}},
        }


def _all(said: queue.Queue[str], wait: float) -> list[str]:
    """What was said since the last call, after waiting for the first."""
    try:
        news = [said.get(timeout=wait)]
    except queue.Empty:
        return []
    while not said.empty():
        news.append(said.get())
    return news


if __name__ == "__main__":
    raise SystemExit(main())
