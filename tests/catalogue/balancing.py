"""Balancers, samplers that learn, groups, tasks that stop, rates of their own, and studies."""

from __future__ import annotations

from nlp_mtl import yamlfile
from nlp_mtl.errors import UnsupportedError
from tests.catalogue.bad import Bad, run
from tests.catalogue.run_files import bad_run

COMPARE = "compare study.yaml"


def study(**keys):
    """The text of a study file."""
    return yamlfile.dumps({"run": "bad.yaml", "balancers": ["equal"], "output_dir": "out", **keys}, flow=True)


def bad_study(id, *, parameter, rule, found, way_out, also=(), error=None, spoil=None, run_file=None, **keys):
    """An entry whose study file is a good one with some keys changed."""
    kind = {} if error is None else {"error": error}
    files = {"bad.yaml": run() if run_file is None else run_file, "study.yaml": study(**keys)}
    return Bad(id, COMPARE, parameter, rule, found, way_out, files=files, also=also, spoil=spoil, **kind)


ENTRIES = [
    bad_run(
        "a weight for an unknown task",
        balancer={"name": "upgrad", "weights": {"moood": 2.0}},
        parameter="balancer 'upgrad'",
        rule="is not a task",
        found="'moood'",
        way_out="did you mean 'mood'?",
    ),
    bad_run(
        "negative weights of a balancer",
        balancer={"name": "stch", "weights": {"mood": -2.0}},
        parameter="balancer 'stch': `weights`",
        rule="are at least 0",
        found="found {'mood': -2.0}",
        way_out="left out, it is the usual one",
    ),
    bad_run(
        "one task with a method on gradients",
        tasks=["data/mood.yaml"],
        balancer="pcgrad",
        parameter="balancer 'pcgrad'",
        rule="weighs the gradients of several tasks",
        found="found mood alone",
        way_out="use 'equal' for one task",
    ),
    bad_run(
        "a method that is left out",
        balancer="modo",
        parameter="unknown balancer",
        rule="it is left out",
        found="'modo'",
        way_out="mgda is the method",
    ),
    bad_run(
        "a value that a solver refuses",
        balancer={"name": "cagrad", "c": -1.0},
        parameter="balancer 'cagrad'",
        rule="must be non-negative",
        found="got -1.0",
        way_out="leave it out",
    ),
    bad_run(
        "gradients of a LoRA that is not there",
        balancer={"name": "mgda", "scope": "lora"},
        parameter="balancer 'mgda'",
        rule="`scope` is lora",
        found="the model has none",
        way_out="use shared or last_layer",
    ),
    bad_run(
        "gradients of what is frozen",
        balancer="mgda",
        freeze="*",
        parameter="balancer 'mgda'",
        rule="weighs the tasks' gradients of what they share",
        found="nothing shared is trained",
        way_out="use 'equal'",
    ),
    bad_run(
        "a priority that is no task",
        balancer={"name": "pcd", "primary": "alik"},
        parameter="`primary`",
        rule="is not a task",
        found="'alik'",
        way_out="did you mean 'alike'?",
    ),
    bad_run(
        "a memory that is no task, and nothing new",
        balancer={"name": "a_gem", "memory": ["mood", "alike", "namess"]},
        parameter="balancer 'a_gem': `memory`",
        rule="is not a task",
        found="'namess'",
        way_out="leave out of it what is new",
        also=("found no other task with training rows",),
    ),
    bad_run(
        "a LoRA merged that the earlier run has not",
        init_from={"run": "done", "merge": True},
        parameter="init_from: `merge`",
        rule="is about a run with `lora` or `task_lora`",
        found="found done without",
        way_out="leave it out",
    ),
    bad_run(
        "an orthogonal LoRA without a LoRA",
        regularizers=["o_lora"],
        parameter="regularizer 'o_lora'",
        rule="is about the shared LoRA that is trained",
        found="found none",
        way_out="give the run a `lora`",
    ),
    bad_run(
        "a floor above 1",
        sampler={"name": "bandit", "floor": 2.0, "every": 0},
        parameter="`floor`",
        rule="is from 0 to 1",
        found="found 2.0",
        way_out="left out, it is 0.1",
        also=("`every` is at least 1, found 0",),
    ),
    bad_run(
        "references that leave out a task",
        sampler={"name": "by_reference", "references": {"mood": 0.7}},
        parameter="`references`",
        rule="leaves out",
        found="alike",
        way_out="say its score too",
    ),
    bad_run(
        "groups of other tasks",
        groups={"groups": {"x": ["moood"], "y": ["alike"]}},
        parameter="groups:",
        rule="is not a task with training rows",
        found="'moood'",
        way_out="did you mean 'mood'?",
    ),
    bad_run(
        "an order of groups that is none",
        groups={"groups": {"x": ["mood"], "y": ["alike", "mood"]}, "order": "turn", "every": 0},
        parameter="groups: `order`",
        rule="is one of stages, turns, interleaved",
        found="found 'turn'",
        way_out="did you mean 'turns'",
        also=("`every` is a number of steps from 1, found 0", "'mood' is in two groups; leave it in one"),
    ),
    bad_run(
        "tasks that stop in a run without scores",
        stop_tasks={"patience": 2},
        parameter="stop_tasks",
        rule="looks at the scores of evaluations",
        found="this run has none",
        way_out="evaluate, or leave it out",
    ),
    bad_run(
        "a rate of a task that is not there",
        task_rates={"moood": 2.0},
        parameter="task_rates",
        rule="is not a task",
        found="'moood'",
        way_out="did you mean 'mood'?",
    ),
    bad_run(
        "a decay above 1",
        layer_decay=1.5,
        parameter="`layer_decay`",
        rule="is at most 1",
        found="found 1.5",
        way_out="e.g. `layer_decay: 0.9`",
    ),
    bad_run(
        "a sampler that learns, beside workers that draw ahead",
        sampler="bandit",
        training={"dataloader_num_workers": 1},
        parameter="sampler",
        rule="decides about steps from those before them",
        found="`dataloader_num_workers` 1",
        way_out="set it to 0",
        error=UnsupportedError,
    ),
    bad_study(
        "mistakes of a study",
        seeds=[],
        balancer=["equal"],
        confidence=2,
        parameter="`confidence`",
        rule="is below 1",
        found="found 2",
        way_out="e.g. `confidence: 0.95`",
        also=("unknown key 'balancer'; did you mean 'balancers'?", "`seeds`"),
    ),
    bad_study(
        "ways of a study that stand twice",
        balancers=["equal", "pcgrad", "equal"],
        methods={"pcgrad": {"max_length": 32}},
        parameter="`balancers`",
        rule="stands twice",
        found="'equal'",
        way_out="leave one out",
        also=("'pcgrad' is taken; give it another name",),
    ),
    bad_study(
        "a study of an unknown balancer",
        balancers=["equal", "pcgard"],
        parameter="study.yaml",
        rule="unknown balancer",
        found="'pcgard'",
        way_out="did you mean 'pcgrad'",
    ),
    bad_study(
        "a study of a run file that is not there",
        run="none.yaml",
        parameter="none.yaml",
        rule="where a YAML file is needed",
        found="no such file",
        way_out="did you mean 'run.yaml'?",
    ),
    Bad(
        "two studies at once",
        "compare a.yaml b.yaml",
        parameter="compare",
        rule="one study file",
        found="found a.yaml, b.yaml",
        way_out="e.g. scripts/studies/balancing.yaml",
    ),
]
