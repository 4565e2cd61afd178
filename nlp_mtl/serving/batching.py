"""Requests that come at the same time are answered together, by one thread that runs the model."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from nlp_mtl.serving.limits import Limits
from nlp_mtl.serving.requests import Question, RefusalError, stops

logger = logging.getLogger("nlp_mtl")
Answers = list[dict[str, Any]]
_LONG = 0.5  # seconds of waiting after which it is asked whether somebody still waits for the answer


@dataclass
class _Job:
    question: Question
    answer: asyncio.Future[Answers]
    gone: Callable[[], Awaitable[bool]] | None
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """A bounded queue of questions in front of one worker thread.

    While the worker computes, questions gather; the next pass takes as many as fit. Where the last pass had company,
    the next one waits up to `max_wait` for as much again, so that clients that ask in turn are answered together; a
    client that is alone never waits.

    Args:
        answer: questions → for each its answers, or the exception that befell it alone; runs in the worker thread.
        limits: `max_batch`, `max_wait` and `queue` are used.

    Attributes:
        waiting: inputs in the queue.
        stopping: whether new questions are refused.
    """

    def __init__(self, answer: Callable[[Sequence[Question]], Sequence[Answers | Exception]], limits: Limits):
        self.limits, self._answer = limits, answer
        self.waiting, self.stopping = 0, False
        self._jobs: deque[_Job] = deque()
        self._unanswered: set[asyncio.Future[Answers]] = set()
        self._company = 1
        self._arrived, self._enough = asyncio.Event(), asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nlp_mtl-serve")
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to answer; inside a running event loop."""
        self._loop = asyncio.create_task(self._run())

    def submit(self, question: Question, gone: Callable[[], Awaitable[bool]] | None = None) -> asyncio.Future[Answers]:
        """Put a question into the queue.

        Args:
            question: what is asked.
            gone: tells whether nobody waits for the answer any more.

        Returns:
            A future of the answers, one for each input.

        Raises:
            RefusalError: 429 where the queue is full, 503 where the server stops.
        """
        if self.stopping:
            raise stops()
        count = len(question.inputs)
        if self.waiting + count > self.limits.queue:
            raise RefusalError(
                429,
                "busy",
                f"at most {self.limits.queue} inputs wait, found {self.waiting} and {count} more; ask again later",
                {"Retry-After": "1"},
            )
        job = _Job(question, asyncio.get_running_loop().create_future(), gone)
        self._jobs.append(job)
        self._unanswered.add(job.answer)
        job.answer.add_done_callback(self._unanswered.discard)
        self.waiting += count
        self._arrived.set()
        if self.waiting >= min(self._company, self.limits.max_batch):
            self._enough.set()
        return job.answer

    async def drain(self) -> None:
        """Take nothing more and wait until everything taken is answered."""
        self.stopping = True
        self._enough.set()
        if self._unanswered:
            await asyncio.wait(set(self._unanswered))

    async def close(self) -> None:
        """Answer what was taken, then end the worker."""
        await self.drain()
        if self._loop is not None:
            self._loop.cancel()
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            await self._gather()
            jobs = await self._take()
            if not self._jobs:
                self._arrived.clear()
            if not jobs:
                continue
            try:
                found: Sequence[Answers | Exception] = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._answer, [job.question for job in jobs]
                )
            except Exception as error:
                found = [error] * len(jobs)
            self._company = sum(len(job.question.inputs) for job in jobs)
            for job, said in zip(jobs, found, strict=True):
                if job.answer.done():  # cancelled: nobody waits for it
                    continue
                if isinstance(said, Exception):
                    job.answer.set_exception(said)
                else:
                    job.answer.set_result(said)

    async def _gather(self) -> None:
        """Wait for company, if the last pass had some."""
        wanted = min(self._company, self.limits.max_batch)
        if wanted > self.waiting and self.limits.max_wait and not self.stopping and wanted > 1:
            self._enough.clear()
            left = self._jobs[0].since + self.limits.max_wait / 1e3 - time.monotonic()
            if left > 0:
                try:
                    await asyncio.wait_for(self._enough.wait(), left)
                except TimeoutError:
                    return

    async def _take(self) -> list[_Job]:
        """The next questions, as many as fit into a pass; those that nobody waits for are left out."""
        taken: list[_Job] = []
        held = 0
        while self._jobs and (not taken or held + len(self._jobs[0].question.inputs) <= self.limits.max_batch):
            job = self._jobs.popleft()
            self.waiting -= len(job.question.inputs)
            if job.answer.done() or (time.monotonic() - job.since > _LONG and await _gone(job)):
                job.answer.cancel()
                continue
            held += len(job.question.inputs)
            taken.append(job)
        return taken


async def _gone(job: _Job) -> bool:
    try:
        return job.gone is not None and await job.gone()
    except Exception:  # then nobody knows, and it is answered
        logger.exception("serve: can't tell whether a client is still there")
        return False
