"""Record a session with own data into README.md: three tables, a task file each, one run, predictions.

python scripts/transcript.py             about 2 minutes on 2 cores; `--check` only says whether the README is current
"""

from __future__ import annotations

import csv
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "transcript"

TASKS = "tasks=[sentiment.yaml, topic.yaml, names.yaml]"
SESSION = [
    ["head", "-3", "sentiment.csv", "topic.csv", "names.csv"],
    ["nlp-mtl", "tasks", "new", "sentiment.csv"],
    ["nlp-mtl", "tasks", "new", "topic.csv", "--text", "headline", "--label", "desk"],
    ["nlp-mtl", "tasks", "new", "names.csv"],
    ["nlp-mtl", "train", TASKS, "--dry-run"],
    ["nlp-mtl", "train", TASKS],
    ["nlp-mtl", "predict", "runs/own", "Carla Sato called the election in Torino dull"],
]

# --------------------------------------------------------------------------------------------------- the three tables

FIRST = "Ada Ben Carla Dmitri Elif Femi Greta Hugo Ines Jonas Keiko Lena".split()
LAST = "Lund Okafor Rossi Sato Weber Novak Silva Berg Haddad Moreau".split()
CITIES = "Bergen Lagos Torino Kyoto Graz Quito Leeds Porto Dakar Riga".split()
GOOD = "wonderful delicious friendly quick charming fresh generous spotless superb cosy".split()
BAD = "awful bland rude slow dirty stale noisy overpriced dull greasy".split()
THINGS = "soup bread waiter service room breakfast view pasta coffee reception museum tour".split()
DESKS = {
    "sport": (
        "striker goalkeeper sprinter champion coach swimmer".split(),
        "wins|loses|misses|prepares for|celebrates".split("|"),
        "match race final season tournament medal".split(),
    ),
    "science": (
        "physicist chemist biologist astronomer engineer team".split(),
        "measures|explains|discovers|photographs|tests".split("|"),
        "experiment galaxy vaccine fossil particle virus".split(),
    ),
    "politics": (
        "minister senator mayor parliament council opposition".split(),
        "debates|signs|delays|defends|rejects".split("|"),
        "budget election treaty law reform tax".split(),
    ),
}


def review(draw: random.Random) -> tuple[str, str]:
    """A line about a stay or a meal, and whether it praises; some take back in the end what they began with."""
    praises = draw.random() < 0.5
    ours, theirs = (GOOD, BAD) if praises else (BAD, GOOD)
    one, other = draw.sample(THINGS, 2)
    patterns = [
        f"The {one} was {draw.choice(ours)} and the {other} {draw.choice(ours)}.",
        f"In {draw.choice(CITIES)} we found the {one} {draw.choice(ours)}.",
        f"{draw.choice(ours).capitalize()} {one}, {draw.choice(ours)} {other}.",
        f"The {one} was {draw.choice(theirs)}, but what stays with me is the {draw.choice(ours)} {other}.",
        f"{draw.choice(FIRST)} told us the {one} was {draw.choice(theirs)}; it was {draw.choice(ours)}.",
    ]
    return draw.choice(patterns), "positive" if praises else "negative"


def headline(draw: random.Random) -> tuple[str, str]:
    """A headline and its desk, sport much more often than politics."""
    desk = draw.choices(list(DESKS), [6, 3, 1])[0]
    who, does, what = map(draw.choice, DESKS[desk])
    patterns = [
        f"{draw.choice(CITIES)} {who} {does} {draw.choice(['a', 'the', 'another'])} {what}",
        f"{draw.choice(FIRST)} {draw.choice(LAST)}, {who}, {does} the {what}",
        f"After the {what}: {draw.choice(['young', 'former', 'local'])} {who} {does} it again",
    ]
    return draw.choice(patterns), desk


def tagged(draw: random.Random) -> tuple[str, str]:
    """A sentence and a tag for each of its words: persons and places."""
    person = [f"{draw.choice(FIRST)}/B-PER", *draw.choice([[], [f"{draw.choice(LAST)}/I-PER"]])]
    city, thing = f"{draw.choice(CITIES)}/B-LOC", draw.choice(THINGS)
    patterns = [
        [*person, "lives", "in", city],
        ["yesterday", *person, "flew", "from", city, "to", f"{draw.choice(CITIES)}/B-LOC"],
        [*person, "called", "the", thing, "in", city, draw.choice(GOOD + BAD)],
        ["the", thing, "in", city, "was", draw.choice(GOOD + BAD), "and", "the", draw.choice(THINGS), "too"],
        ["the", thing, "was", draw.choice(GOOD + BAD), ",", "says", *person],
        ["nobody", "found", "the", thing, draw.choice(GOOD + BAD), "on", draw.choice(["Monday", "Friday"])],
    ]
    pairs = [word.split("/") if "/" in word else [word, "O"] for word in draw.choice(patterns)]
    return " ".join(word for word, _ in pairs), " ".join(tag for _, tag in pairs)


TABLES: dict[str, tuple[list[str], Callable[[random.Random], tuple[str, str]], int]] = {
    "sentiment": (["review", "verdict"], review, 500),
    "topic": (["headline", "desk"], headline, 500),
    "names": (["sentence", "tags"], tagged, 400),
}


def write_tables(folder: Path) -> None:
    """Three CSV files, the same every time, no text twice."""
    for name, (columns, make, count) in TABLES.items():
        draw = random.Random(name)
        rows: dict[str, str] = {}
        while len(rows) < count:
            text, label = make(draw)
            rows.setdefault(text, label)
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows([columns, *rows.items()])


# --------------------------------------------------------------------------------------------------------- the session


def record(folder: Path, python: str = sys.executable) -> str:
    """What the session prints, command by command, run with a Python."""
    write_tables(folder)
    program = folder / "bin" / "nlp-mtl"  # so that it is called by its name, wherever it is installed
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(python)} -m nlp_mtl.cli "$@"\n')
    program.chmod(0o755)
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    known = {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONUTF8": "1",
        "HF_HUB_OFFLINE": "1",
    }
    environment = {**os.environ, **known}
    environment.pop("NLP_MTL_REGISTRY", None)
    said = []
    for words in SESSION:
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{shlex.join(words)} fails:\n{done.stdout}{done.stderr}")
        said += [f"$ {shlex.join(words)}", done.stdout.strip("\n"), ""]
    return "\n".join(said).strip("\n")


def masked(text: str) -> str:
    """The text without what differs between machines: scores, which step was a task's best, memory, time, the probe."""
    text = re.sub(r"\nMemory\n.*?(?=\nRows on both sides|\nMean pooling|\nNothing was trained)", "", text, flags=re.S)
    text = re.sub(r"\nMean pooling\n.*?(?=\nNothing was trained)", "", text, flags=re.S)
    own = re.compile(r': its own best was |Dry run of |^\s+"[^"]+": -?\d+\.\d+,?$')  # the last: how sure of a label
    return re.sub(r"-?\d+\.\d+", "#", "\n".join(line for line in text.split("\n") if not own.search(line)))


def main(python: str = sys.executable) -> int:
    """Record the session, or say whether the one in the README is current."""
    with tempfile.TemporaryDirectory() as place:
        said = record(Path(place), python)
    file = ROOT / "README.md"
    text = file.read_text(encoding="utf-8")
    begin, end = f"<!-- {NAME}: made by scripts/transcript.py -->\n```console\n", f"\n```\n<!-- /{NAME} -->"
    pattern = re.compile(f"{begin}(.*?){end}", re.S)
    found = pattern.search(text)
    if found is None:
        raise SystemExit(f"{file} has no place for the {NAME}")
    if masked(found[1]) == masked(said):
        print(f"the {NAME} in {file.name} is current")
        return 0
    if "--check" in sys.argv:
        print(f"the {NAME} in {file.name} is out of date: python scripts/transcript.py; now it says\n\n{said}")
        return 1
    file.write_text(text[: found.start(1)] + said + text[found.end(1) :], encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
