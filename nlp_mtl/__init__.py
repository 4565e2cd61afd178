"""nlp_mtl: fine-tune one pretrained encoder on several NLP tasks at once, and see what it did for each of them.

Importing the package is quick and needs no network: everything below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlp_mtl.adapting.adding import add_task
    from nlp_mtl.adapting.listing import list_adapters
    from nlp_mtl.adapting.merging import merge_adapters
    from nlp_mtl.adapting.removing import remove_adapter
    from nlp_mtl.calibration.study import calibrate
    from nlp_mtl.curves.study import curve
    from nlp_mtl.domains.look import compare_domains
    from nlp_mtl.dryrun import DryRun, dry_run
    from nlp_mtl.errors import (
        ConfigError,
        DataError,
        HubError,
        NlpMtlError,
        NotFoundError,
        RunFolderError,
        UnsupportedError,
    )
    from nlp_mtl.evaluation import Evaluator
    from nlp_mtl.exporting.export import Export, export_task
    from nlp_mtl.forgetting.study import continual
    from nlp_mtl.hub.push import Pushed, push
    from nlp_mtl.initial import model_from
    from nlp_mtl.model import MultiTaskModel
    from nlp_mtl.prediction import predict, predict_stream
    from nlp_mtl.probing.study import probe
    from nlp_mtl.regularizers import importance_of, load_importance, save_importance
    from nlp_mtl.reporting.report import Report, report
    from nlp_mtl.run import Run, evaluate, train
    from nlp_mtl.searching.search import search
    from nlp_mtl.suites.mmlu import score_mmlu
    from nlp_mtl.suites.scoring import score_suite
    from nlp_mtl.suites.submission import write_submission
    from nlp_mtl.taskfile import Task
    from nlp_mtl.taskgroups.proposal import propose_groups
    from nlp_mtl.tasks import load_tasks
    from nlp_mtl.trainer import MultiTaskTrainer
    from nlp_mtl.transferring.study import transferability
    from nlp_mtl.verdicts.judge import verdict
    from nlp_mtl.verdicts.sidebyside import compare_runs

__version__ = "0.1.0"

_WHERE = {
    "ConfigError": "errors",
    "DryRun": "dryrun",
    "DataError": "errors",
    "HubError": "errors",
    "Pushed": "hub.push",
    "NlpMtlError": "errors",
    "NotFoundError": "errors",
    "RunFolderError": "errors",
    "UnsupportedError": "errors",
    "Evaluator": "evaluation",
    "Export": "exporting.export",
    "MultiTaskModel": "model",
    "MultiTaskTrainer": "trainer",
    "Report": "reporting.report",
    "Run": "run",
    "Task": "tasks",
    "add_task": "adapting.adding",
    "calibrate": "calibration.study",
    "compare_domains": "domains.look",
    "compare_runs": "verdicts.sidebyside",
    "continual": "forgetting.study",
    "curve": "curves.study",
    "dry_run": "dryrun",
    "evaluate": "run",
    "export_task": "exporting.export",
    "importance_of": "regularizers",
    "list_adapters": "adapting.listing",
    "load_importance": "regularizers",
    "load_tasks": "tasks",
    "merge_adapters": "adapting.merging",
    "model_from": "initial",
    "predict": "prediction",
    "predict_stream": "prediction",
    "probe": "probing.study",
    "propose_groups": "taskgroups.proposal",
    "push": "hub.push",
    "remove_adapter": "adapting.removing",
    "report": "reporting.report",
    "save_importance": "regularizers",
    "search": "searching.search",
    "score_mmlu": "suites.mmlu",
    "score_suite": "suites.scoring",
    "train": "run",
    "transferability": "transferring.study",
    "verdict": "verdicts.judge",
    "write_submission": "suites.submission",
}

__all__ = [
    "ConfigError",
    "DataError",
    "DryRun",
    "Evaluator",
    "Export",
    "HubError",
    "MultiTaskModel",
    "MultiTaskTrainer",
    "NlpMtlError",
    "NotFoundError",
    "Pushed",
    "Report",
    "Run",
    "RunFolderError",
    "Task",
    "UnsupportedError",
    "__version__",
    "add_task",
    "calibrate",
    "compare_domains",
    "compare_runs",
    "continual",
    "curve",
    "dry_run",
    "evaluate",
    "export_task",
    "importance_of",
    "list_adapters",
    "load_importance",
    "load_tasks",
    "merge_adapters",
    "model_from",
    "predict",
    "predict_stream",
    "probe",
    "propose_groups",
    "push",
    "remove_adapter",
    "report",
    "save_importance",
    "score_mmlu",
    "score_suite",
    "search",
    "train",
    "transferability",
    "verdict",
    "write_submission",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"nlp_mtl.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'nlp_mtl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
