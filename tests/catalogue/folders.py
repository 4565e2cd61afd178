"""Run folders, checkpoints and pretrained folders that are damaged, of something else, or in the way."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from nlp_mtl import checkpoint
from nlp_mtl.errors import NotFoundError, RunFolderError, UnsupportedError
from tests.catalogue.bad import Bad, edit, run

PREDICT = ["predict", "done", "a good cat"]
TRAIN = "train run.yaml"


def sealed(change: Any, *args: Any, **more: Any) -> Any:
    """A change of the run folder that its list of files knows of, as a user's own program may make it."""

    def spoil() -> None:
        change(*args, **more)
        checkpoint.seal("done")

    return spoil


def cut(file: str, most: int = 40) -> None:
    """Keep the first bytes of a file only, as a copy that was broken off does."""
    Path(file).write_bytes(Path(file).read_bytes()[:most])


def record(file: str = "done/nlp_mtl.json", **changes: Any) -> None:
    """Change what a run folder records of its first task."""
    spec = json.loads(Path(file).read_text(encoding="utf-8"))
    spec["tasks"][0].update(changes)
    Path(file).write_text(json.dumps(spec), encoding="utf-8")


def another_shape() -> None:
    """Give the run folder a head of another number of labels."""
    file = Path("done/heads.safetensors")
    weights = load_file(file)
    save_file({name: value[:1].clone() for name, value in weights.items()}, file)


def checkpoints_cut() -> None:
    """Break all checkpoints of the run."""
    for folder in Path("done").glob("checkpoint-*"):
        cut(str(folder / "heads.safetensors"))


def only_pickled() -> None:
    """Leave the pretrained folder with weights in another format only."""
    Path("base/model.safetensors").rename("base/pytorch_model.bin")


ENTRIES = [
    Bad(
        "no run folder",
        ["predict", "doen", "a good cat"],
        error=RunFolderError,
        parameter="doen",
        rule="not a run folder",
        found="nlp_mtl.json is missing",
        way_out="run folders are",
    ),
    Bad(
        "a file of a run folder that was cut off",
        PREDICT,
        spoil=partial(cut, "done/heads.safetensors"),
        error=RunFolderError,
        parameter="done:",
        rule="is not as it was written",
        found="heads.safetensors",
        way_out="take done/checkpoint-2",
    ),
    Bad(
        "a file of a run folder that is missing",
        PREDICT,
        spoil=lambda: Path("done/tokenizer.json").unlink(),
        error=RunFolderError,
        parameter="done:",
        rule="damaged",
        found="tokenizer.json is missing",
        way_out="take done/checkpoint-2",
    ),
    Bad(
        "a list of files that can't be read",
        PREDICT,
        files={"done/complete.json": '{"files": [1]}'},
        error=RunFolderError,
        parameter="done:",
        rule="damaged",
        found="complete.json can't be read",
        way_out="take done/checkpoint-2",
    ),
    Bad(
        "a save that was cut off",
        PREDICT,
        files={"done/.moving": ""},
        error=RunFolderError,
        parameter="done:",
        rule="the last save",
        found="was cut off",
        way_out="train with --resume",
    ),
    Bad(
        "a record that is no JSON",
        PREDICT,
        spoil=sealed(cut, "done/nlp_mtl.json"),
        error=RunFolderError,
        parameter="done/nlp_mtl.json",
        rule="damaged",
        found="Unterminated string",
        way_out="take done/checkpoint-2",
    ),
    Bad(
        "a record with its keys changed by hand",
        PREDICT,
        spoil=sealed(edit, "done/nlp_mtl.json", tasks="mood", max_length="long"),
        error=RunFolderError,
        parameter="done/nlp_mtl.json",
        rule="`tasks` is a list of tasks",
        found="found 'mood'",
        way_out="take done/checkpoint-2",
        also=("`max_length` is a whole number, found 'long'",),
    ),
    Bad(
        "a record of a newer version",
        PREDICT,
        spoil=sealed(edit, "done/nlp_mtl.json", format=99),
        error=RunFolderError,
        parameter="done/nlp_mtl.json",
        rule="reads format 1 and older",
        found="(format 99)",
        way_out="update nlp_mtl",
    ),
    Bad(
        "a head that only another program knows",
        PREDICT,
        spoil=sealed(record, head="my_head"),
        error=RunFolderError,
        parameter="done/nlp_mtl.json",
        rule="unknown head",
        found="'my_head'",
        way_out="import your own file",
    ),
    Bad(
        "a sharing that only another program knows",
        PREDICT,
        spoil=sealed(edit, "done/nlp_mtl.json", strategies={"sharing": "mine", "freeze": []}),
        error=RunFolderError,
        parameter="done/nlp_mtl.json",
        rule="unknown sharing",
        found="'mine'",
        way_out="import your own file",
    ),
    Bad(
        "heads of another model",
        PREDICT,
        spoil=sealed(another_shape),
        error=RunFolderError,
        parameter="done",
        rule="expected (2,",
        found="heads of another model",
        way_out="use it with the model, tasks and tuning it was trained with",
    ),
    Bad(
        "an encoder that is no weights",
        PREDICT,
        spoil=sealed(cut, "done/model.safetensors"),
        error=RunFolderError,
        parameter="done",
        rule="the weights are damaged",
        found="invalid header length",
        way_out="copy or download the model again",
    ),
    Bad(
        "a config of the encoder that is no JSON",
        PREDICT,
        files={"done/config.json": "junk"},
        spoil=lambda: checkpoint.seal("done"),
        error=RunFolderError,
        parameter="done/config.json",
        rule="damaged",
        found="Expecting value",
        way_out="copy or download it again",
    ),
    Bad(
        "a run in the output folder",
        "train run.yaml training.output_dir=done",
        error=RunFolderError,
        parameter="training.output_dir",
        rule="already holds a run",
        found="done",
        way_out="--overwrite",
    ),
    Bad(
        "a file where the output folder would be",
        "train run.yaml training.output_dir=answers.jsonl",
        error=RunFolderError,
        parameter="training.output_dir",
        rule="the folder of the run",
        found="found answers.jsonl, which is a file",
        way_out="name another",
    ),
    Bad(
        "a file above the output folder",
        "train run.yaml training.output_dir=answers.jsonl/new",
        error=RunFolderError,
        parameter="training.output_dir",
        rule="can't be made",
        found="answers.jsonl is a file",
        way_out="name another folder",
    ),
    Bad(
        "nothing to resume",
        "train run.yaml --resume",
        error=RunFolderError,
        parameter="--resume",
        rule="goes on with the run in training.output_dir",
        found="found no run to resume in new",
        way_out="start it without",
    ),
    Bad(
        "checkpoints that were all cut off",
        "train run.yaml training.output_dir=done --resume",
        spoil=checkpoints_cut,
        error=RunFolderError,
        parameter="--resume:",
        rule="goes on from a whole checkpoint",
        found="found no whole checkpoint in done",
        way_out="start without --resume",
    ),
    Bad(
        "a run of other tasks to resume",
        "train run.yaml training.output_dir=done training.max_steps=4 tasks=data/rainy.yaml --resume",
        error=RunFolderError,
        parameter="done/checkpoint-2",
        rule="this run's are rainy",
        found="its tasks are mood, alike",
        way_out="resume with the run file it was begun with",
    ),
    Bad(
        "a full run to resume with LoRA",
        "train run.yaml training.output_dir=done training.max_steps=4 lora.r=2 --resume",
        error=RunFolderError,
        parameter="done/checkpoint-2",
        rule="this model is set up for LoRA",
        found="is a run with full fine-tuning",
        way_out="use it with the model, tasks and tuning it was trained with",
    ),
    Bad(
        "a replaced run that has a mistake",
        "train bad.yaml --overwrite",
        files={"bad.yaml": run(freeze=["embedings"], training={"output_dir": "done"})},
        parameter="freeze",
        rule="matches no parameter of the encoder",
        found="'embedings'",
        way_out="did you mean 'embeddings.*'",
    ),
    Bad(
        "a pretrained folder with pickled weights only",
        TRAIN,
        spoil=only_pickled,
        error=NotFoundError,
        parameter="weights of the model 'base'",
        rule="in safetensors format",
        found="it has pytorch_model.bin, which is not read",
        way_out="AutoModel.from_pretrained(old).save_pretrained(new)",
    ),
    Bad(
        "a pretrained folder with its weights cut off",
        TRAIN,
        spoil=partial(cut, "base/model.safetensors"),
        error=RunFolderError,
        parameter="base",
        rule="the weights are damaged",
        found="invalid header length",
        way_out="copy or download the model again",
    ),
    Bad(
        "a pretrained folder whose config is no JSON",
        TRAIN,
        files={"base/config.json": "junk"},
        error=RunFolderError,
        parameter="base/config.json",
        rule="is damaged",
        found="Expecting value",
        way_out="copy or download it again",
    ),
    Bad(
        "an architecture that transformers lacks",
        TRAIN,
        spoil=partial(edit, "base/config.json", model_type="brt"),
        error=UnsupportedError,
        parameter="`model_type`",
        rule="is an architecture of transformers",
        found="found 'brt'",
        way_out="did you mean",
    ),
    Bad(
        "an architecture that brings code",
        TRAIN,
        spoil=partial(edit, "base/config.json", model_type="mine", auto_map={"AutoModel": "mine.Model"}),
        error=UnsupportedError,
        parameter="base",
        rule="which is never run",
        found="`auto_map` in config.json",
        way_out="use a model whose architecture transformers has",
    ),
    Bad(
        "an encoder with a decoder whose weights are another model's",
        TRAIN,
        spoil=lambda: Path("base/config.json").write_text('{"model_type": "t5"}', encoding="utf-8"),
        error=RunFolderError,
        parameter="base",
        rule="config.json says t5, and the weights have no",
        found="another model",
        way_out="copy or download it again",
    ),
    Bad(
        "a pretrained folder without a tokenizer",
        TRAIN,
        spoil=lambda: [file.unlink() for file in Path("base").glob("tokenizer*")],
        error=NotFoundError,
        parameter="the tokenizer of the model 'base'",
        rule="was not found",
        found="no vocabulary in them",
        way_out="put its tokenizer.json there",
    ),
    Bad(
        "a model that is a file",
        "train run.yaml model=answers.jsonl",
        error=NotFoundError,
        parameter="the model 'answers.jsonl'",
        rule="with a config.json",
        found="was not found",
        way_out="model: path/to/folder",
    ),
    Bad(
        "a folder that holds no run to evaluate",
        "evaluate base",
        error=RunFolderError,
        parameter="base",
        rule="not a run folder",
        found="nlp_mtl.json is missing",
        way_out="run folders are done",
    ),
    Bad(
        "rows that were moved away",
        "evaluate done --task mood",
        spoil=lambda: shutil.rmtree("data"),
        error=NotFoundError,
        parameter="a file of task 'mood'",
        rule="validation: ",
        found="was not found",
        way_out="correct `dataset.data_files`",
    ),
    Bad(
        "a folder that holds no run to report",
        "report base",
        error=RunFolderError,
        parameter="base:",
        rule="not a run folder",
        found="none of run.yaml, metrics.json, steps.jsonl, nlp_mtl.json is there",
        way_out="run folders are done",
    ),
    Bad(
        "a checkpoint to report",
        "report done/checkpoint-2",
        error=RunFolderError,
        parameter="done/checkpoint-2",
        rule="a report is of a whole run",
        found="found one of its checkpoints",
        way_out="name the run's folder, done",
    ),
    Bad(
        "a run to report that has not begun",
        "report early",
        files={"early/run.yaml": run()},
        error=RunFolderError,
        parameter="early",
        rule="has nothing to report yet",
        found="none of steps.jsonl, metrics.json and checkpoint-N/trainer_state.json is there",
        way_out="`save_strategy` is other than 'no'",
    ),
    Bad(
        "steps that are no steps",
        "report done",
        files={"done/steps.jsonl": '{"step": 0, "losses": {"mood": "high"}}\n'},
        error=RunFolderError,
        parameter="done/steps.jsonl:1",
        rule="`losses` is a mapping from tasks to numbers",
        found="found {'mood': 'high'}",
        way_out="remove the line",
    ),
    Bad(
        "a line of steps that was broken",
        "report done",
        files={"done/steps.jsonl": '{"step": 0}\n{"st\n{"step": 2}\n'},
        error=RunFolderError,
        parameter="done/steps.jsonl:2",
        rule="a line of JSON with a `step`",
        found="""found '{"st""",
        way_out="remove the line",
    ),
    Bad(
        "scores that were cut off",
        "report done",
        spoil=partial(cut, "done/metrics.json"),
        error=RunFolderError,
        parameter="done/metrics.json",
        rule="damaged",
        found="Unterminated string",
        way_out="copy it again, or remove it",
    ),
    Bad(
        "a report in the place of a file",
        "report done --out answers.jsonl",
        parameter="report: --out",
        rule="is a folder to write to",
        found="found 'answers.jsonl' (File exists)",
        way_out="name another",
    ),
    Bad(
        "a change of score below nothing",
        "report done --see-saw -1",
        parameter="`see_saw`",
        rule="is a change of score from 0",
        found="found -1.0",
        way_out="leave it out for 0.01",
    ),
]
