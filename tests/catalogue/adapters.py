"""Changes of a run's adapters that can't be: the run stays as it is, and no new one is begun."""

from __future__ import annotations

from nlp_mtl import MultiTaskModel, load_tasks, merge_adapters
from nlp_mtl.errors import DataError, NotFoundError, RunFolderError, UnsupportedError
from tests.catalogue.bad import Bad, task

OWN = {"r": 2, "target_modules": ["query", "value"]}


def apart(**changes: object) -> None:
    """A run with one adapter per task, in ``apart``."""
    files = [f"data/{name}.yaml" for name in ("mood", "alike", "names")]
    MultiTaskModel.from_base("base", files, task_lora={**OWN, **changes}).save_pretrained("apart")


def shared(**changes: object) -> None:
    """A run with one adapter for two tasks, in ``shared``."""
    MultiTaskModel.from_base("base", ["data/mood.yaml"], lora={**OWN, **changes}).save_pretrained("shared")


def one_head() -> None:
    """A run of two tasks with one head, in ``twins``."""
    (mood,) = load_tasks(["data/mood.yaml"])
    tasks = [mood, mood.with_(name="mood_too", head_of="mood")]
    MultiTaskModel.from_base("base", tasks, task_lora=OWN).save_pretrained("twins")


def wide() -> None:
    """Adapters whose ranks add up to more than a weight has, in ``apart``."""
    apart(r=20)


ENTRIES = [
    Bad(
        "a list of the adapters of no run",
        "adapters list data",
        error=RunFolderError,
        parameter="data",
        rule="not a run folder",
        found="nlp_mtl.json is missing",
        way_out="run folders are done",
    ),
    Bad(
        "a task added that the run has",
        "adapters add done --task data/mood.yaml",
        parameter="adapters add:",
        rule="a task that the run does not have",
        found="found 'mood'",
        way_out="rename it, or take the old one out first",
    ),
    Bad(
        "a task added into a folder that holds something, which the run has",
        "adapters add done --task data/mood.yaml --out data",
        parameter="adapters add:",
        rule="the new run's folder is empty or not there",
        found="found files in data",
        way_out="name another",
        also=("2 mistakes", "found 'mood'"),
    ),
    Bad(
        "a file as the place of the new run",
        "adapters add done --task data/rainy.yaml --out run.yaml",
        parameter="adapters add: the new run",
        rule="is a folder",
        found="found the file run.yaml",
        way_out="name another",
    ),
    Bad(
        "several tasks added at once",
        "adapters add done --task sentiment",
        parameter="adapters add:",
        rule="one task at a time",
        found="found 'sentiment', which is",
        way_out="name one",
    ),
    Bad(
        "a task added that there is not",
        "adapters add done --task data/rany.yaml",
        parameter="data/rany.yaml:",
        rule="a YAML file is needed",
        found="no such file",
        way_out="did you mean 'rainy.yaml'",
    ),
    Bad(
        "a way of keeping that there is not",
        "adapters add done --task data/rainy.yaml --keep repaly",
        parameter="--keep",
        rule="is a way that there is",
        found="found 'repaly'",
        way_out="did you mean 'replay'?",
    ),
    Bad(
        "an orthogonal LoRA for a run without any, and a key that keeping does not take",
        "adapters add done --task data/rainy.yaml --keep o_lora task_lora.r=2",
        parameter="--keep o_lora",
        rule="is for a run with `lora`",
        found="found one without",
        way_out="use --keep ewc or replay",
        also=("found 'task_lora.r=2'",),
    ),
    Bad(
        "a key of a run file that adding does not take",
        "adapters add done --task data/rainy.yaml lora.r=3",
        parameter="adapters add:",
        rule="takes training, task_lora",
        found="found 'lora.r=3'",
        way_out="the rest is the run's",
    ),
    Bad(
        "the folder of the new run as an argument of training, and a key that there is not",
        "adapters add done --task data/rainy.yaml training.output_dir=new modle=x",
        parameter="the new run's folder",
        rule="is --out",
        found="found training.output_dir",
        way_out="say --out",
        also=("found 'modle=x'",),
    ),
    Bad(
        "an argument of training that there is not",
        "adapters add done --task data/rainy.yaml training.learning_rat=1",
        parameter="training",
        rule="TrainingArguments has no field",
        found="'learning_rat'",
        way_out="did you mean 'learning_rate'",
    ),
    Bad(
        "an added adapter that changes what all tasks share",
        "adapters add done --task data/rainy.yaml task_lora.use_dora=true",
        parameter="`task_lora.use_dora`",
        rule="not with one adapter per task",
        found="found True",
        way_out="leave it out",
    ),
    Bad(
        "a task added beside a DoRA",
        "adapters add shared --task data/rainy.yaml",
        spoil=lambda: shared(use_dora=True),
        parameter="adapters add:",
        rule="beside this run's LoRA no other can stand",
        found="`lora.use_dora`",
        way_out="found True",
    ),
    Bad(
        "an added task without a head of its own",
        "adapters add done --task too.yaml",
        files={"too.yaml": task(name="too", head_of="mood", labels=["bad", "good"])},
        parameter="task 'too'",
        rule="uses the head of",
        found="'mood', which is not among the tasks",
        way_out="leave out `head_of`",
    ),
    Bad(
        "an added task whose rows have no such column",
        "adapters add done --task off.yaml",
        files={"off.yaml": task(name="off", inputs=["txet"])},
        error=DataError,
        parameter="task 'off', split 'train': `inputs`",
        rule="the column",
        found="'txet', which the data does not have",
        way_out="did you mean 'text'",
    ),
    Bad(
        "a task added to a run whose base is not there",
        "adapters add shared --task data/rainy.yaml --base nowhere",
        spoil=shared,
        error=NotFoundError,
        parameter="the model 'nowhere'",
        rule="with a config.json",
        found="was not found",
        way_out="a folder with a pretrained model",
    ),
    Bad(
        "a task removed that the run does not have, into a folder that holds something",
        "adapters remove done --task moood --out data",
        parameter="adapters remove:",
        rule="is not a task of this run",
        found="'moood'",
        way_out="did you mean 'mood'?",
        also=("2 mistakes", "is empty or not there, found files in data"),
    ),
    Bad(
        "the only task removed",
        "adapters remove shared --task mood",
        spoil=shared,
        parameter="adapters remove:",
        rule="leaves a task in the run",
        found="found 'mood' as its only one",
        way_out="remove the folder",
    ),
    Bad(
        "a head removed that another task uses",
        "adapters remove twins --task mood",
        spoil=one_head,
        parameter="adapters remove:",
        rule="uses the head of",
        found="'mood'",
        way_out="remove mood_too first",
    ),
    Bad(
        "a merge of a run without adapters",
        "adapters merge done out",
        error=UnsupportedError,
        parameter="adapters merge:",
        rule="merges adapters of single tasks",
        found="full fine-tuning and no adapter",
        way_out="train with `task_lora`",
    ),
    Bad(
        "a merge of one adapter for all",
        "adapters merge shared out",
        spoil=shared,
        error=UnsupportedError,
        parameter="adapters merge:",
        rule="merges adapters of single tasks",
        found="one adapter for all tasks",
        way_out="train with `task_lora`",
    ),
    Bad(
        "a merge of tasks that the run does not have, twice, in no known way",
        "adapters merge apart out --tasks mood,moood,mood --how tyes",
        spoil=apart,
        parameter="adapters merge:",
        rule="names each task once",
        found="'moood' is not a task of this run",
        way_out="did you mean 'mood'?",
    ),
    Bad(
        "a merge in no known way",
        "adapters merge apart out --how tyes",
        spoil=apart,
        parameter="adapters merge: --how",
        rule="is one of linear, ties",
        found="found 'tyes'",
        way_out="did you mean 'ties'?",
    ),
    Bad(
        "a merge of one",
        "adapters merge apart out --tasks mood",
        spoil=apart,
        parameter="adapters merge:",
        rule="at least two adapters",
        found="found 1 task with one",
        way_out="name more of mood, alike, names",
    ),
    Bad(
        "a merge that prunes by nothing said, with weights for others, onto a folder that holds something",
        "adapters merge apart data --how ties --weights 1,1",
        spoil=apart,
        parameter="adapters merge: --how ties",
        rule="needs --density",
        found="the share of numbers that stay",
        way_out="e.g. --density 0.5",
        also=("3 mistakes", "--weights has one for each task, found 2", "found files in data"),
    ),
    Bad(
        "weights that are no numbers",
        "adapters merge apart out --weights a,b,c",
        spoil=apart,
        parameter="adapters merge: --weights",
        rule="are numbers with commas between them",
        found="found 'a,b,c'",
        way_out="e.g. 0.5,0.5",
    ),
    Bad(
        "weights that are not finite",
        lambda: merge_adapters("apart", "out", weights=[1.0, float("nan"), 1.0]),
        spoil=apart,
        parameter="adapters merge: --weights",
        rule="are finite numbers",
        found="found 1.0, nan, 1.0",
        way_out="leave them out for equal ones",
    ),
    Bad(
        "a density above 1, and a rank where none is asked",
        "adapters merge apart out --how ties --density 1.5 --rank 3",
        spoil=apart,
        parameter="adapters merge: --density",
        rule="is above 0 and at most 1",
        found="found 1.5",
        way_out="e.g. 0.5",
        also=("2 mistakes", "--rank goes with svd and …_svd, found --how ties; leave it out"),
    ),
    Bad(
        "ranks that add up to more than a weight has",
        "adapters merge apart out --how cat",
        spoil=wide,
        parameter="adapters merge:",
        rule="the ranks add up",
        found="to 60 in",
        way_out="say --how svd, or name fewer tasks",
    ),
    Bad(
        "a run to compare with that is none",
        "adapters merge apart out --joint data",
        spoil=apart,
        error=RunFolderError,
        parameter="data",
        rule="not a run folder",
        found="nlp_mtl.json is missing",
        way_out="run folders are",
    ),
]
