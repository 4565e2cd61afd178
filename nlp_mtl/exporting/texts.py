"""A seq2seq task as a folder that `AutoModelForSeq2SeqLM` or `EncoderDecoderModel` loads, checked before it is kept."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, EncoderDecoderModel, PreTrainedModel

from nlp_mtl.batches import collate, to_device
from nlp_mtl.errors import DataError, UnsupportedError
from nlp_mtl.exporting.checking import TEXTS, TOLERANCE, Probe, difference, examples_of, made_up
from nlp_mtl.exporting.plain import config_of, encoder_state, head_state, load_whole, max_length
from nlp_mtl.heads import generating
from nlp_mtl.heads.labels import Where
from nlp_mtl.heads.seq2seq import Seq2Seq
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.weights import quiet_transformers

_TIE = 1e-3  # mean log-likelihood of a token
TOKENIZER = "target_tokenizer"  # the folder of the targets' tokenizer, where it is not the encoder's


def whole_writer(model: MultiTaskModel, task: str) -> PreTrainedModel:
    """The vanilla class with a task's encoder, its LoRA merged, and its decoder, in eval mode on the CPU.

    Args:
        model: of a run.
        task: a seq2seq task.

    Raises:
        UnsupportedError: the task uses no ordinary encoder, or weights have no place.
    """
    module: Any = model.module_of(task)
    outside = set(module.tied_outside)
    with torch.random.fork_rng(devices=[]):
        if isinstance(module, EncoderDecoderModel):
            config = copy.deepcopy(module.config)
            config.encoder = config_of(model, task=task)
            config.decoder._attn_implementation = "eager"
            made: Any = EncoderDecoderModel(config)
            prefix = "encoder."
        else:
            made = AutoModelForSeq2SeqLM.from_config(config_of(model, task=task))
            prefix = "model." if hasattr(made, "model") else ""
    if prefix != "encoder." and not any("lm_head" in name for name in outside):
        made.lm_head.weight = nn.Parameter(made.lm_head.weight.detach().clone())  # a checkpoint that does not tie it
    encoder = encoder_state(model, task)
    state = {f"{prefix}{name}": value for name, value in encoder.items()}
    state |= {name: value for name, value in head_state(model, task).items() if name not in outside}
    load_whole(made, state, spare=outside)
    head: Any = model.heads[task]
    made.generation_config = generating.generation_config(module, head.generation, head.most)
    return made.float().eval()


def check_can_leave(model: MultiTaskModel, task: str, form: str, custom: bool) -> None:
    """Refuse forms in which a task that writes text can't leave.

    Raises:
        UnsupportedError: with the reason and what can be had instead.
    """
    head = model.heads[task]
    if not isinstance(head, Seq2Seq):
        return
    if form == "onnx":
        raise UnsupportedError(
            f"export: task {task!r} writes text: its graph would be a loop of as many passes as it writes words, with "
            "beams and caches, which one ONNX graph does not hold; say --as model"
        )
    if form == "adapter":
        raise UnsupportedError(
            f"export: task {task!r}: an adapter folder would hold the encoder's LoRA and not the decoder, which was "
            "trained in full; say --as model, which merges the LoRA"
        )
    if custom:
        raise UnsupportedError(f"export: task {task!r}: the vanilla class computes the same; leave out --custom-code")


def probe_texts(model: MultiTaskModel, task: str, rows: Sequence[Mapping[str, Any]] | None = None) -> Probe:
    """What the run says of a few rows: logits of given targets, one row per label token, [tokens, vocabulary].

    Args:
        model: of the run.
        task: a seq2seq task.
        rows: rows with their targets; default the examples of the registered task.
    """
    head: Any = model.heads[task]
    own = list(rows) if rows is not None else examples_of(model, task)
    made, count = [], 0
    where, length = Where(task, "check of an export"), max_length(model, task)
    labels = head.task.labels
    for number, row in enumerate([*own, *made_up(model, task)]):
        columns = {name: [row.get(name)] for name in head.needed_columns()}
        try:
            tokens = head.tokenize(columns, model.tokenizer, length, where)
            value = row.get(head.task.target) if number < len(own) else None
            if value is None:
                value = labels[number % len(labels)] if labels else TEXTS[number % len(TEXTS)]
            encoded = head.encode_labels([value], labels, columns, where)
        except DataError:
            if number < len(own):
                raise
            continue
        count += 1
        part = {name: values[0] for name, values in tokens.items()}
        made.append({**part, f"labels:{task}": encoded[0]})
    batch = collate(made, [[task]] * len(made), {task: head})
    moved = to_device(batch, model.device)
    was = model.training
    model.eval()
    with torch.enable_grad():  # the logits, and not what is written
        logits = model(**moved)["logits"][task].logits().detach().float().cpu()
    model.train(was)
    target = batch["targets"][task]
    ids = batch["input_ids"].split(batch["lengths"].tolist())
    types = batch["token_type_ids"].split(batch["lengths"].tolist()) if "token_type_ids" in batch else None
    order = target["sequences"].tolist()
    sequences = [
        {"input_ids": ids[i].tolist(), **({} if types is None else {"token_type_ids": types[i].tolist()})}
        for i in order
    ]
    return Probe(task, len(own), count, sequences, logits, target)


def write_texts(model: MultiTaskModel, task: str, folder: Path) -> list[str]:
    """Write the vanilla folder, and the targets' tokenizer beside it where it is another; gives notes for the user."""
    made: Any = whole_writer(model, task)
    head: Any = model.heads[task]
    with quiet_transformers():
        made.save_pretrained(folder)
    kind = "EncoderDecoderModel" if isinstance(made, EncoderDecoderModel) else "AutoModelForSeq2SeqLM"
    notes = [f"{task}: load it with {kind}"]
    if head.own_tokenizer:
        head.tokenizer.save_pretrained(folder / TOKENIZER)
        notes.append(f"{task}: what it writes is decoded with the tokenizer in {TOKENIZER}/")
    if head.task.labels is not None:
        notes.append(
            f"{task}: writes a label's text; nlp_mtl compares the likelihoods of all labels, a pipeline does not"
        )
    return notes


def check_texts(model: MultiTaskModel, probed: Probe, tokenizer: Any, folder: Path) -> float:
    """Load a written folder as a user does; compare its logits and what it writes with the run's.

    Returns:
        The largest difference of the logits.

    Raises:
        DataError: they differ, or it writes something else.
    """
    head: Any = model.heads[probed.task]
    kind: Any = (
        EncoderDecoderModel if isinstance(model.module_of(probed.task), EncoderDecoderModel) else AutoModelForSeq2SeqLM
    )
    with quiet_transformers():
        made = kind.from_pretrained(folder, trust_remote_code=False).eval()
    padded = tokenizer.pad([*map(dict, probed.sequences)], return_tensors="pt")
    inputs = {name: values for name, values in padded.items() if name in tokenizer.model_input_names}
    labels = probed.target["labels"]
    config = made.config
    read = generating.shifted(labels, config.decoder_start_token_id, config.pad_token_id)
    seen = (labels != generating.IGNORED).long()
    with torch.inference_mode():
        logits = made(**inputs, decoder_input_ids=read, decoder_attention_mask=seen).logits.float()
        theirs = made.generate(**inputs) if head.task.labels is None else None
    found = difference(probed.logits, logits[seen.bool()])
    if not found <= TOLERANCE:
        raise DataError(
            f"export: task {probed.task!r}: the logits of what was written differ from the run's by {found:.2g} on "
            f"{probed.rows} rows, allowed is {TOLERANCE:.0e}; nothing was kept"
        )
    if theirs is not None:
        _same_texts(model, probed, made, inputs, theirs)
    return found


def _same_texts(model: MultiTaskModel, probed: Probe, made: Any, inputs: Mapping[str, Tensor], theirs: Tensor) -> None:
    """Raise DataError where the folder writes what the run does not, unless both find it as likely as its own."""
    head: Any = model.heads[probed.task]
    task = probed.task
    rows = [
        {"lengths": np.array([len(part["input_ids"])]), **{key: np.array(ids) for key, ids in part.items()}}
        for part in probed.sequences
    ]
    batch = to_device(collate(rows, [[task]] * len(rows), {task: head}), model.device)
    was = model.training
    model.eval()
    with torch.inference_mode():
        ours = head.predict(model(**batch)["logits"][task], batch["targets"][task])
    model.train(was)
    for row in range(len(rows)):
        mine, other = ours[row].tolist(), theirs[row, 1:].tolist()
        texts = [head.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in (mine, other)]
        if texts[0] == texts[1]:
            continue
        only = {name: values[row : row + 1] for name, values in inputs.items()}
        scores = [_likelihood(made, only, ids) for ids in (mine, other)]
        if abs(scores[0] - scores[1]) > _TIE:  # else a tie, which rounding decides
            raise DataError(
                f"export: task {task!r}: the written folder generates {texts[1][:60]!r} where the run generates "
                f"{texts[0][:60]!r}; nothing was kept"
            )


def _likelihood(made: Any, inputs: Mapping[str, Tensor], ids: Sequence[int]) -> float:
    """The mean log-likelihood of the tokens of a text after one row."""
    labels = torch.tensor([[token for token in ids if token != made.config.pad_token_id]])
    read = generating.shifted(labels, made.config.decoder_start_token_id, made.config.pad_token_id)
    with torch.inference_mode():
        logs = made(**inputs, decoder_input_ids=read).logits.float().log_softmax(-1)
    return float(logs.gather(-1, labels[..., None]).mean())
