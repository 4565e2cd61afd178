"""Questions of several requests answered by one packed pass; a bad one among them harms no other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from nlp_mtl.errors import NlpMtlError
from nlp_mtl.inputs import read_window
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.prediction import answer_window, open_model, readers_of, usual_tokens
from nlp_mtl.serving.requests import Question
from nlp_mtl.settings import checked_dtype

Answers = list[dict[str, Any]]


class Answerer:
    """A model that answers questions.

    Args:
        model: the model, or a run folder; of a folder only the heads of `tasks` are read.
        tasks: only these can be asked; default all.
        dtype, base: see :func:`nlp_mtl.predict` and :meth:`MultiTaskModel.from_pretrained`.

    Raises:
        ConfigError: an unknown task or dtype.

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> answerer = Answerer(tiny_model(["cola", "rte"]))
        >>> good, bad = answerer([Question(["It rained."], ["rte", "cola"]), Question([{"sentence": 3}], ["cola"])])
        >>> good[0]["rte"], sorted(good[0]["cola"]), type(bad).__name__
        ({'missing': ['sentence2']}, ['label', 'score', 'scores'], 'DataError')
    """

    def __init__(
        self,
        model: MultiTaskModel | str | Path,
        *,
        tasks: Sequence[str] | None = None,
        dtype: str | torch.dtype = "auto",
        base: str | Path | None = None,
    ):
        loaded = model if isinstance(model, MultiTaskModel) else open_model(model, tasks=tasks, dtype=dtype, base=base)
        self.model, self.dtype = loaded.eval(), checked_dtype(dtype)
        self.tasks = list(dict.fromkeys(tasks)) if tasks is not None else loaded.tasks
        self._readers = {reader.task: reader for reader in readers_of(loaded, self.tasks)}
        self._tokens = usual_tokens(loaded)

    def __call__(self, questions: Sequence[Question]) -> list[Answers | Exception]:
        """For each question its answers, one per input, or what is wrong with it.

        All go through the encoder together. If that fails, each is read alone, those that can't be read are left out,
        and the rest go together again; if that fails too, each is answered alone.
        """
        found: dict[int, Answers | Exception] = {}
        left = list(range(len(questions)))
        for attempt in range(2):
            try:
                found.update(zip(left, self._together([questions[i] for i in left]), strict=True))
                break
            except Exception as error:
                if len(left) == 1:
                    found[left[0]] = error
                    break
                wrong = {i: why for i in left if (why := self._wrong(questions[i])) is not None}
                found.update(wrong)
                left = [i for i in left if i not in wrong]
                if attempt or not wrong:
                    found.update({i: self._alone(questions[i]) for i in left})
                    break
                if not left:
                    break
        return [found[i] for i in range(len(questions))]

    def _together(self, questions: Sequence[Question]) -> list[Answers]:
        asked = dict.fromkeys(task for question in questions for task in question.tasks)
        readers = [reader for task, reader in self._readers.items() if task in asked]
        inputs = [value for question in questions for value in question.inputs]
        tasks = [question.tasks for question in questions for _ in question.inputs]
        answers = iter(
            answer_window(self.model, readers, inputs, tasks=tasks, dtype=self.dtype, tokens_per_pass=self._tokens)
        )
        return [
            [{task: answer[task] for task in question.tasks} for answer in islice(answers, len(question.inputs))]
            for question in questions
        ]

    def _alone(self, question: Question) -> Answers | Exception:
        try:
            return self._together([question])[0]
        except Exception as error:
            return error

    def _wrong(self, question: Question) -> Exception | None:
        """Why a question can't be read."""
        try:
            read_window([self._readers[task] for task in question.tasks], question.inputs, self.model.tokenizer)
        except Exception as error:
            return error
        return None

    def warm_up(self) -> None:
        """Answer something, so that the first client does not wait for what is made once."""
        for text in ("It rained.", "It rained in the city. " * 8):
            for value in (text, (text, text)):
                try:
                    self([Question([value], self.tasks)])
                except NlpMtlError:  # a head that reads something else
                    return
