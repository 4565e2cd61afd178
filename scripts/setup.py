"""Make .venv with pinned versions, then run a target. Standard library only; setup.sh finds the Python for it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TORCH = "2.13.0"
EXTRAS = {"quickstart": "", "install": "", "test": "[dev]", "verify": "[dev]"}


def main() -> int:
    """Set up what the target needs, then run it."""
    target = sys.argv[1] if len(sys.argv) > 1 else "install"
    if target not in EXTRAS:
        print(f"unknown target {target!r}; known: {', '.join(EXTRAS)}", file=sys.stderr)
        return 2
    extras = EXTRAS[target]
    if not is_ready(extras):
        install(target, extras)
    return {"quickstart": quickstart, "test": test, "verify": verify, "install": lambda: 0}[target]()


def stamp(extras: str) -> Path:
    """Names what is installed: it changes with the pins, the dependencies and the place."""
    said = (ROOT / "constraints.txt").read_bytes() + (ROOT / "pyproject.toml").read_bytes() + str(ROOT).encode()
    return VENV / f".ready-{'dev' if extras else 'plain'}-{hashlib.sha256(said).hexdigest()[:12]}"


def is_ready(extras: str) -> bool:
    """Whether .venv has everything, from an earlier call."""
    return (VENV / "bin" / "python").exists() and (stamp(extras).exists() or stamp("[dev]").exists())


def install(target: str, extras: str) -> None:
    """Create .venv and install into it, saying first what will be fetched."""
    gpu, reused = has_gpu(), installed_torch()
    torch_size = "2.5 GB with CUDA" if gpu else "190 MB, for CPU"
    parts = [] if reused else [f"PyTorch {TORCH} ({torch_size})"]
    parts.append("transformers and other packages (250 MB)")
    if target == "quickstart":
        parts.append("a small pretrained model and six data sets (116 MB)")
    print(f"Setting up in {VENV.name}/, to be downloaded: {', '.join(parts)}.")
    print(
        "This takes about 3 to 6 minutes, once, and up to 3 GB of disk."
        + (f" PyTorch {reused} is there and is used." if reused else "")
    )
    if shutil.disk_usage(ROOT).free < 4e9:
        print("warning: less than 4 GB are free on this disk", file=sys.stderr)
    began = time.monotonic()
    if not (VENV / "bin" / "pip").exists():
        step("creating .venv")
        options = ["--system-site-packages"] if reused else []
        run([sys.executable, "-m", "venv", *options, str(VENV)])
    if reused and not imports_torch():  # the outer Python's own packages are not those of .venv
        print(f"note: PyTorch {reused} can't be used from {VENV.name}/; installing {TORCH}")
        reused = None
    constraints = write_constraints(reused)
    if not reused:
        install_torch(gpu)
    step("installing transformers and the rest")
    pip("install", "-c", str(constraints), "-e", f".{extras}", must=True)
    stamp(extras).touch()
    print(f"set up in {time.monotonic() - began:.0f} s")


def install_torch(gpu: bool) -> None:
    """A CPU build where there is no GPU: the plain name brings CUDA libraries of several GB on Linux."""
    asked = [str(VENV / "bin" / "python"), "-c", "import torch; print(torch.__version__)"]
    version = subprocess.run(asked, capture_output=True, text=True)
    if version.returncode == 0 and version.stdout.startswith(TORCH):
        return
    step(f"installing PyTorch {TORCH}")
    if gpu:
        pip("install", f"torch=={TORCH}", must=True)
        return
    index = os.environ.get("TORCH_INDEX")  # a package index with CPU builds, for networks with one of their own
    more = ["--extra-index-url", index] if index else []
    if pip("install", f"torch=={TORCH}+cpu", *more):
        return
    if sys.platform == "linux" and pip("install", "uv"):  # uv knows PyTorch's own index of CPU builds
        step("asking PyTorch's index of CPU builds")
        command = [str(VENV / "bin" / "uv"), "pip", "install", "--quiet", "--python", str(VENV / "bin" / "python")]
        if (
            subprocess.run(
                [*command, "--torch-backend", "cpu", f"torch=={TORCH}"], stderr=subprocess.DEVNULL
            ).returncode
            == 0
        ):
            return
    if sys.platform == "linux":
        print(
            "no CPU build of PyTorch was found; taking the ordinary one, 2.5 GB with CUDA (or stop: TORCH_INDEX=… names"
        )
        print("a package index with CPU builds)")
    pip("install", f"torch=={TORCH}", must=True)


def write_constraints(reused: str | None) -> Path:
    """The pinned versions, without PyTorch's where an installed one is used."""
    source = ROOT / "constraints.txt"
    if not reused:
        return source
    target = VENV / "constraints.txt"
    lines = [line for line in source.read_text().splitlines() if not line.startswith("torch==")]
    target.write_text("\n".join([*lines, ""]))
    return target


def installed_torch() -> str | None:
    """The version of a PyTorch that the Python outside .venv has and that is new enough."""
    if sys.prefix != sys.base_prefix:  # in a virtual environment, whose packages .venv would not see
        return None
    if (VENV / "pyvenv.cfg").exists() and "include-system-site-packages = false" in (VENV / "pyvenv.cfg").read_text():
        return None
    code = "import importlib.metadata as m; print(m.version('torch'))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
    numbers = re.match(r"(\d+)\.(\d+)", found)
    return found if numbers and (int(numbers[1]), int(numbers[2])) >= (2, 6) else None


def imports_torch() -> bool:
    """Whether .venv's Python has PyTorch."""
    return subprocess.run([str(VENV / "bin" / "python"), "-c", "import torch"], capture_output=True).returncode == 0


def has_gpu() -> bool:
    """Whether there is an NVIDIA card with a driver."""
    return Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None


def step(what: str) -> None:
    """Say what is being done."""
    print(f"-- {what}", flush=True)


def pip(*arguments: str, must: bool = False) -> bool:
    """Run pip, showing one line with what it is at; its whole output only if it fails."""
    command = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said, began, terminal = [], time.monotonic(), sys.stdout.isatty()
    for line in process.stdout or ():
        said.append(line)
        at = re.match(
            r"\s*(Collecting|Downloading|Installing collected packages|Building|Processing|Obtaining) ?(\S*)", line
        )
        if at and terminal:
            name = re.sub(r"^.*/", "", at[2])[:50]
            print(f"\r   {time.monotonic() - began:4.0f} s  {at[1].lower()} {name:<60}", end="", flush=True)
    if terminal:
        print("\r" + " " * 100 + "\r", end="")
    if process.wait() == 0:
        return True
    if must:
        hidden = re.sub(r"https?://\S+", "<index>", "".join(said[-25:]))
        print(hidden, file=sys.stderr)
        raise SystemExit("pip failed (above); check the network and pip's settings, then run the command again")
    return False


def run(command: list[str], **more: object) -> None:
    """Run a command; stop if it fails."""
    if subprocess.run(command, cwd=ROOT, **more).returncode:  # type: ignore[call-overload]
        raise SystemExit(f"failed: {' '.join(command)}")


def quickstart() -> int:
    """Fetch model and data, train, show the table."""
    print("Quickstart: a small pretrained model and six data sets (116 MB, once; sha256 checked, kept in a cache),")
    print("then about 4 minutes of training on 2 cores.", flush=True)
    return subprocess.run([str(VENV / "bin" / "nlp-mtl"), "train", "--overwrite"], cwd=ROOT).returncode


def test() -> int:
    """Linters, types, layers, then the tests."""
    python, tools = str(VENV / "bin" / "python"), VENV / "bin"
    spread = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]  # in their order: what takes long is not last
    checks = [
        [str(tools / "ruff"), "check", "."],
        [str(tools / "ruff"), "format", "--check", "."],
        [str(tools / "mypy")],
        [str(tools / "lint-imports")],
        [python, "-m", "pytest", "-m", "not long", *spread, *os.environ.get("PYTEST_ARGS", "").split()],
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    failed = 0
    for command in checks:
        step(" ".join(Path(word).name if word.startswith(str(tools)) else word for word in command))
        failed |= subprocess.run(command, cwd=ROOT, env=env).returncode != 0
    return int(failed)


def verify() -> int:
    """What needs real data or long runs: recorded figures, into scripts/benchmarks/RESULTS.md."""
    return subprocess.run(
        [str(VENV / "bin" / "python"), "scripts/benchmarks/verify.py", *sys.argv[2:]], cwd=ROOT
    ).returncode


if __name__ == "__main__":
    raise SystemExit(main())
