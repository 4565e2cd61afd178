"""GLUE, SuperGLUE and AdvGLUE as their owners have them: tasks, metrics, the average, and the server's files.

GLUE: Wang, Singh, Michael, Hill, Levy and Bowman (2018, arXiv 1804.07461). SuperGLUE: Wang, Pruksachatkun, Nangia,
Singh, Michael, Hill, Levy and Bowman (2019, arXiv 1905.00537). AdvGLUE: Wang, Xu, Wang, Gan, Cheng,
Gao, Awadallah and Li (2021, arXiv 2111.02840); its average follows GLUE's rule (its paper was not here to be read).

File names and forms of answers rest on two programs that wrote files for the servers: `evaluate.py` of the owners' own
jiant 1.x (``GLUE_NAME_MAP``, ``SUPERGLUE_NAME_MAP``, ``_write_*_preds``) and T5's submission script. They agree on all
that stands here but the words of AX.tsv, of which T5's says nothing; it has MNLI's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nlp_mtl.errors import UnknownNameError

Answer = Literal["label", "number", "choice", "questions", "candidates"]


@dataclass(frozen=True)
class Part:
    """A set of rows of a suite, which has a file of its own in a submission.

    Attributes:
        task: its name in the task registry.
        file: its name in a submission, without the ending.
        metrics: the owners', as the registry of metrics calls them.
        test_rows: lines of its file: of MultiRC passages, of ReCoRD queries, else rows; 0 where they are not public.
        trivial: the answer that fills the file of a task that no run has.
        words: label name → the owners' answer; {} where they are the same.
        answer: how a prediction becomes an answer.
        owner: the task whose head answers where no run has this one.
        rename: columns of these rows → those that the owner's task reads.
        dataset: of its rows, where it differs from the registered task's.
    """

    task: str
    file: str
    metrics: tuple[str, ...]
    test_rows: int
    trivial: Any = None
    words: Mapping[str, Any] = field(default_factory=dict)
    answer: Answer = "label"
    owner: str | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    dataset: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Suite:
    """A benchmark of several tasks.

    Attributes:
        name: what `--suite` takes.
        title: as its owners write it.
        scored: the tasks that the average is over; a task may have two parts (MNLI), whose metrics are one task's.
        parts: every set of rows that a submission has, the diagnostic ones too.
        ending: of the files in a submission; "" where no server takes answers.
    """

    name: str
    title: str
    scored: Mapping[str, tuple[str, ...]]
    parts: tuple[Part, ...]
    ending: str

    def part(self, task: str) -> Part:
        """The part of that name."""
        return next(part for part in self.parts if part.task == task)


_F1, _MCC, _ACC = ("f1", "accuracy"), ("matthews_correlation",), ("accuracy",)
_ENTAILS = "entailment"

GLUE = Suite(
    "glue",
    "GLUE",
    {
        "CoLA": ("cola",),
        "SST-2": ("sst2",),
        "MRPC": ("mrpc",),
        "STS-B": ("stsb",),
        "QQP": ("qqp",),
        "MNLI": ("mnli", "mnli_mm"),
        "QNLI": ("qnli",),
        "RTE": ("rte",),
        "WNLI": ("wnli",),
    },
    (
        Part("cola", "CoLA", _MCC, 1063, 1, {"unacceptable": 0, "acceptable": 1}),
        Part("sst2", "SST-2", _ACC, 1821, 1, {"negative": 0, "positive": 1}),
        Part("mrpc", "MRPC", _F1, 1725, 1, {"not_equivalent": 0, "equivalent": 1}),
        Part("stsb", "STS-B", ("pearson", "spearman"), 1379, "2.500", answer="number"),
        Part("mnli", "MNLI-m", _ACC, 9796, _ENTAILS),
        Part("mnli_mm", "MNLI-mm", _ACC, 9847, _ENTAILS, owner="mnli"),
        Part("qnli", "QNLI", _ACC, 5463, _ENTAILS),
        Part("qqp", "QQP", _F1, 390965, 0, {"not_duplicate": 0, "duplicate": 1}),
        Part("rte", "RTE", _ACC, 3000, _ENTAILS),
        Part("wnli", "WNLI", _ACC, 146, 0, {"not_entailment": 0, "entailment": 1}),
        Part("ax", "AX", _MCC, 1104, _ENTAILS, owner="mnli"),
    ),
    "tsv",
)

_SMALL = {"False": "false", "True": "true"}
_SUPER = {"path": "aps/super_glue"}

SUPERGLUE = Suite(
    "superglue",
    "SuperGLUE",
    {
        "BoolQ": ("boolq",),
        "CB": ("cb",),
        "COPA": ("copa",),
        "MultiRC": ("multirc",),
        "ReCoRD": ("record",),
        "RTE": ("rte",),
        "WiC": ("wic",),
        "WSC": ("wsc",),
    },
    (
        Part("boolq", "BoolQ", _ACC, 3245, "true", _SMALL),
        Part("cb", "CB", ("f1_macro", "accuracy"), 250, "contradiction"),
        Part("copa", "COPA", _ACC, 500, 0, answer="choice"),
        Part("multirc", "MultiRC", ("f1", "group_exact_match"), 166, 0, {"False": 0, "True": 1}, "questions"),
        Part("record", "ReCoRD", ("best_f1_answer", "best_exact_match"), 10000, answer="candidates"),
        Part(
            "rte",
            "RTE",
            _ACC,
            3000,
            _ENTAILS,
            rename={"premise": "sentence1", "hypothesis": "sentence2"},
            dataset={**_SUPER, "name": "rte"},
        ),
        Part("wic", "WiC", _ACC, 1400, "true", _SMALL),
        Part("wsc", "WSC", _ACC, 146, "False"),
        Part("axb", "AX-b", _MCC, 1104, _ENTAILS, owner="rte"),
        Part(
            "axg",
            "AX-g",
            ("gender_parity", "accuracy"),
            356,
            _ENTAILS,
            owner="rte",
            rename={"premise": "sentence1", "hypothesis": "sentence2"},
        ),
    ),
    "jsonl",
)

ADVGLUE = Suite(
    "advglue",
    "AdvGLUE",
    {
        "SST-2": ("adv_sst2",),
        "QQP": ("adv_qqp",),
        "MNLI": ("adv_mnli", "adv_mnli_mismatched"),
        "QNLI": ("adv_qnli",),
        "RTE": ("adv_rte",),
    },
    (
        Part("adv_sst2", "SST-2", _ACC, 0, owner="sst2"),
        Part("adv_qqp", "QQP", _F1, 0, owner="qqp"),
        Part("adv_mnli", "MNLI-m", _ACC, 0, owner="mnli"),
        Part("adv_mnli_mismatched", "MNLI-mm", _ACC, 0, owner="mnli"),
        Part("adv_qnli", "QNLI", _ACC, 0, owner="qnli"),
        Part("adv_rte", "RTE", _ACC, 0, owner="rte"),
    ),
    "",
)

SUITES: Mapping[str, Suite] = {suite.name: suite for suite in (GLUE, SUPERGLUE, ADVGLUE)}


def suite_named(name: str) -> Suite:
    """A suite by name.

    Raises:
        UnknownNameError: there is none; suggests near names.

    Example:
        >>> suite_named("glue").title, len(suite_named("superglue").scored)
        ('GLUE', 8)
    """
    if name not in SUITES:
        raise UnknownNameError("suite", name, [*SUITES, "mmlu"])
    return SUITES[name]
