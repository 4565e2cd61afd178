"""How alike the hidden states of a run's encoders are: with the pretrained one's, each other's, and other runs'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from nlp_mtl.bases import find_recorded
from nlp_mtl.data import Data, tokenizer_signature
from nlp_mtl.errors import ConfigError, HubError, NotFoundError
from nlp_mtl.findings import Finding, Table, write_finding
from nlp_mtl.interpretation.plot import draw_cka
from nlp_mtl.interpretation.states import Text, alike, by_layer, encoders_of, states_of, texts_of
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.opening import beside, open_base
from nlp_mtl.robustness.opening import open_run, some_rows

LEAST_TEXTS = 4  # of the debiased estimate


def compare_states(
    run: str | Path,
    others: Sequence[str | Path] = (),
    *,
    tasks: Sequence[str] | None = None,
    rows: int = 300,
    split: str = "validation",
    seed: int = 0,
    data_root: str | Path | None = None,
    base: str | Path | None = None,
    progress: bool = False,
) -> Finding:
    """CKA of the encoders that tasks use, with the pretrained one by layer and with each other; the finding `cka`.

    With hard sharing all tasks have one encoder, and its states of each task's texts are told apart; with `task_lora`,
    soft sharing, or several runs, there are more encoders, and all of them read all tasks' texts.

    Args:
        run: a run folder.
        others: more run folders with the same tokenizer, e.g. single-task twins.
        tasks: whose texts are read; default all of the run.
        rows: at most so many of each task, 4 at least.
        split, seed, data_root, base, progress: see :func:`nlp_mtl.robustness.study.check_robustness`.

    Raises:
        ConfigError: wrong arguments, another tokenizer, or no task with enough labelled rows.
        UnsupportedError: a sharing whose parts make no ordinary encoder.

    cost: one pass over the rows for each encoder.
    """
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < LEAST_TEXTS:
        raise ConfigError(f"interpret: `rows` is a whole number from {LEAST_TEXTS}, found {rows!r}")
    folder, model, data = open_run(
        "interpret", run, tasks, split=split, rows=rows, seed=seed, data_root=data_root, base=base
    )
    texts, parts, notes = _texts(data, split, rows, seed)
    encoders: dict[str, Any] = {}
    try:
        where = base or beside(folder, model.base) or find_recorded(model.base).folder
        encoders["pretrained"] = open_base(Path(where))[1]
    except (NotFoundError, HubError) as error:
        notes.append(f"The pretrained model is not at hand ({str(error).splitlines()[0]}); --base says where it is.")
    encoders |= encoders_of(model, name=folder.name if others else "")
    for other in others:
        more = MultiTaskModel.from_pretrained(other)
        if tokenizer_signature(more.tokenizer) != tokenizer_signature(model.tokenizer):
            raise ConfigError(
                f"interpret: {other} has another tokenizer than {run}, and reads other tokens; leave it out"
            )
        encoders |= encoders_of(more, name=Path(other).name)
    states = {
        name: states_of(encoder, texts)
        for name, encoder in tqdm(encoders.items(), desc="states", unit="encoder", disable=not progress, leave=False)
    }
    made = _finding(states, parts, len(texts), notes)
    write_finding(folder, made)
    return made


def _texts(data: Data, split: str, rows: int, seed: int) -> tuple[list[Text], dict[str, slice], list[str]]:
    """All tasks' texts, and where among them each task's stand."""
    texts: list[Text] = []
    parts, notes = {}, []
    for task in data.heads:
        pool = some_rows(data, task, split, rows, seed)
        own = [] if pool is None else texts_of(pool)
        if len(own) < LEAST_TEXTS:
            notes.append(f"{task} is left out: it has fewer than {LEAST_TEXTS} labelled {split} rows.")
            continue
        parts[task] = slice(len(texts), len(texts) + len(own))
        texts += own
    if not parts:
        raise ConfigError(f"interpret: no task has {LEAST_TEXTS} labelled {split} rows; name another `split`")
    return texts, parts, notes


def _finding(states: dict[str, list[np.ndarray]], parts: dict[str, slice], texts: int, notes: list[str]) -> Finding:
    pretrained = states.get("pretrained")
    own = [name for name in states if name != "pretrained"]
    layers: dict[str, list[float]] = {}  # what is drawn: tasks of the one encoder, or encoders
    by_task: dict[str, dict[str, float]] = {}  # encoder → task → of the last layer
    if pretrained is not None:
        for name in own:
            each = {task: by_layer(states[name], pretrained, part) for task, part in parts.items()}
            by_task[name] = {task: values[-1] for task, values in each.items()}
            layers |= each if len(own) == 1 else {name: by_layer(states[name], pretrained)}
    names, matrix = list(states), alike(states)
    said = [
        f"{name}: CKA with the pretrained encoder falls from {values[0]:.2f} at the embeddings to {values[-1]:.2f} at "
        "the last layer."
        for name, values in layers.items()
    ]
    head = ("", *names)
    cells = [(name, *(f"{value:.3f}" for value in row)) for name, row in zip(names, matrix, strict=True)]
    tables = [Table("CKA of the last layers", head, cells)]
    if layers:
        depth = max(map(len, layers.values()))
        cells = [
            (str(i), *(f"{values[i]:.3f}" if i < len(values) else "—" for values in layers.values()))
            for i in range(depth)
        ]
        tables.append(Table("CKA with the pretrained encoder", ("layer", *layers), cells))
    if len(own) > 1 and len(parts) > 1 and by_task:
        cells = [(name, *(f"{value:.3f}" for value in each.values())) for name, each in by_task.items()]
        tables.append(Table("The last layer's, on each task's texts", ("encoder", *parts), cells))
    return Finding(
        "cka",
        "How alike hidden states are",
        [*said, f"On {texts} texts of {', '.join(parts)}.", *notes],
        tables,
        [draw_cka(layers, names, matrix).drawing()],
        {"names": names, "last": matrix.tolist(), "layers": layers, "tasks": by_task, "texts": texts},
    )
