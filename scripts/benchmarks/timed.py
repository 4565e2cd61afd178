"""Run a training script, whose it may be, with a clock in its Trainer: seconds and tokens of every optimizer step.

    python scripts/benchmarks/timed.py --out FILE [--args JSON] [--every N] [--profile SKIP] SCRIPT [WORDS …]

The script is run as it is. Every `transformers.Trainer` that it makes gets one more callback, the same for ours and for
the rivals: it reads a clock twice per step and adds up the lengths of the step's rows, less than a thousandth of a
step. A step lasts from the end of the one before it (or from the beginning of its training) to its own end, so loading
and collating of batches is in it; loading of models and data, tokenizing and making the trainer are not.

--args      arguments that take the place of those the script gives to `TrainingArguments`.
--every     wait for a turn at the beginning of training and after so many steps, so that several processes can be
            measured in turn; see racing.py. Waiting is not timed.
--profile   where the time of the steps goes, after so many steps of each training.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any

TURN = "NLP_MTL_TURN"  # two file descriptors: read from the first, write to the second


def main() -> None:
    """Run the script; write what was measured, also when it fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--args", type=json.loads, default={})
    parser.add_argument("--every", type=int, default=0)
    parser.add_argument("--profile", type=int, default=None)
    parser.add_argument("script")
    parser.add_argument("words", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    import torch
    import transformers

    steps: list[list[float]] = []
    table: dict[str, list[float]] = {}
    clock = clock_for(steps, table, every=given.every, profile=given.profile)
    attach(transformers, clock, given.args)
    sys.argv = [given.script, *given.words]
    sys.path[0] = str(Path(given.script).resolve().parent)
    began = time.perf_counter()
    try:
        runpy.run_path(given.script, run_name="__main__")
    finally:
        found = {"steps": steps, "seconds": round(time.perf_counter() - began, 1), "threads": torch.get_num_threads()}
        if table:
            found["operations"] = table
        given.out.write_text(json.dumps(found), encoding="utf-8")


def clock_for(steps: list[list[float]], table: dict[str, list[float]], *, every: int, profile: int | None) -> Any:
    """A callback that appends [training, tokens, sum of squared lengths, seconds, processor seconds] for every step."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        training, tokens, squares, mark, spent, done = -1, 0, 0, 0.0, 0.0, 0
        profiler: Any = None

        def note(self, inputs: Any) -> None:
            lengths = inputs["lengths"] if "lengths" in inputs else inputs["attention_mask"].sum(-1)
            self.tokens += int(lengths.sum())
            self.squares += int((lengths * lengths).sum())

        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            self.training, self.done, self.tokens, self.squares = self.training + 1, 0, 0, 0
            if every and self.training == 0:
                wait()
            self.begin_profile()
            self.mark, self.spent = time.perf_counter(), time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            took, spent = time.perf_counter() - self.mark, time.process_time() - self.spent
            steps.append([self.training, self.tokens, self.squares, took, spent])
            self.tokens = self.squares = 0
            self.done += 1
            self.begin_profile()
            if every and len(steps) % every == 0:
                wait()
            self.mark, self.spent = time.perf_counter(), time.process_time()

        def begin_profile(self) -> None:
            if profile is not None and self.profiler is None and self.done == profile:
                from torch.profiler import ProfilerActivity
                from torch.profiler import profile as profiler

                self.profiler = profiler(activities=[ProfilerActivity.CPU])
                self.profiler.__enter__()

        def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if self.profiler is None:
                return
            self.profiler.__exit__(None, None, None)
            for one in self.profiler.key_averages():
                known = table.setdefault(one.key, [0, 0.0])
                known[0] += one.count
                known[1] += one.self_cpu_time_total / 1e6
            self.profiler = None

    return Clock()


def attach(transformers: Any, clock: Any, arguments: dict[str, Any]) -> None:
    """Give every Trainer the clock, and `TrainingArguments` what takes the place of the script's own."""
    trainer, settings = transformers.Trainer, transformers.TrainingArguments
    make, step, set_up = trainer.__init__, trainer.training_step, settings.__init__

    def made(self: Any, *args: Any, **more: Any) -> None:
        make(self, *args, **more)
        self.add_callback(clock)
        if "gramian" in getattr(getattr(self, "balancer", None), "needs", ()):  # ours, past the base class's step
            pass_of = self.outputs
            self.outputs = lambda model, part, *rest: (clock.note(part), pass_of(model, part, *rest))[1]

    def stepped(self: Any, model: Any, inputs: Any, *args: Any, **more: Any) -> Any:
        clock.note(inputs)
        return step(self, model, inputs, *args, **more)

    def told(self: Any, *args: Any, **more: Any) -> None:
        set_up(self, *args, **{**more, **arguments})

    made.__wrapped__ = make  # type: ignore[attr-defined]  # some rivals look at its signature
    trainer.__init__, trainer.training_step = made, stepped
    if arguments:
        told.__wrapped__ = set_up  # type: ignore[attr-defined]
        settings.__init__ = told


def wait() -> None:
    """Say that it is somebody else's turn, and wait for the own one."""
    if TURN in os.environ:
        read, write = map(int, os.environ[TURN].split())
        os.write(write, b".")
        if not os.read(read, 1):
            raise SystemExit("the race is over before its end")


if __name__ == "__main__":
    main()
