"""The tokenizer of a decoder's texts: the encoder's own, another model's, or one trained on the targets."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nlp_mtl import bases, packages, sources
from nlp_mtl.errors import ConfigError, DataError, NotFoundError, shown, suggestion
from nlp_mtl.taskfile import Task

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
LEAST = 256 + len(SPECIAL)  # every byte and the special tokens
_SIZE = "vocab_size"


def trained_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer of some texts: cased, with every accent, and exact when decoded.

    Args:
        texts: the training split's targets.
        vocab_size: pieces, the 256 bytes and four special tokens included.

    Returns:
        A `PreTrainedTokenizerFast` that ends each text with ``</s>``.

    References:
        Sennrich, Haddow and Birch, 2016, arXiv:1508.07909; on bytes: Radford et al., 2019.

    Example:
        >>> made = trained_tokenizer(["Ein Mädchen in Gelb.", "Ein Mann."], 300)
        >>> made.decode(made("Mädchen ißt!")["input_ids"], skip_special_tokens=True).strip()
        'Mädchen ißt!'
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **names,
    )


def checked_target_tokenizer(said: Any, whose: str) -> None:
    """Refuse what does not say which tokenizer writes the targets.

    Raises:
        ConfigError: with the way out.
    """
    if said is None or isinstance(said, str):
        return
    example = "{vocab_size: 8000}, or a folder with a tokenizer"
    if not isinstance(said, Mapping) or _SIZE not in said:
        raise ConfigError(f"{whose}: `target_tokenizer` is {example}, found {shown(said)}")
    if more := [key for key in said if key != _SIZE]:
        raise ConfigError(f"{whose}: `target_tokenizer` takes no {more[0]!r}{suggestion(str(more[0]), [_SIZE])}")
    size = said[_SIZE]
    if not isinstance(size, int) or isinstance(size, bool) or not LEAST <= size <= 500_000:
        raise ConfigError(
            f"{whose}: `target_tokenizer: {{vocab_size: …}}` is from {LEAST} (all bytes and {len(SPECIAL)} special "
            f"tokens) to 500000, found {shown(size)}; 8000 suits some ten thousand sentences"
        )


def trained_on(task: Task, vocab_size: int, data_root: Any = None, texts: Sequence[Any] | None = None) -> Any:
    """The tokenizer of a task's targets, trained once: the cache keeps it by what the rows are.

    Args:
        task: the task.
        vocab_size: see :func:`trained_tokenizer`.
        data_root: where data sets are looked for first.
        texts: train on these instead of the task's training rows, and keep nothing.

    Raises:
        DataError: no training rows, or no text among their targets.
    """
    if texts is not None:
        return trained_tokenizer(_texts_in(texts, task), vocab_size)
    key = json.dumps([1, sources.identity(task, data_root=data_root), task.target, vocab_size], sort_keys=True)
    folder = packages.cache_folder() / "tokenizers" / hashlib.sha256(key.encode()).hexdigest()[:24]
    if not (folder / "tokenizer.json").is_file():
        rows = sources.load_rows(task, data_root=data_root).get("train")
        if rows is None or task.target not in rows.column_names:
            raise DataError(
                f"task {task.name!r}: `target_tokenizer: {{vocab_size: {vocab_size}}}` is trained on the training "
                f"split's column {task.target!r}, which is not there; name a folder with a tokenizer instead"
            )
        made = trained_tokenizer(_texts_in(rows[task.target], task), vocab_size)
        work = folder.with_name(f".{folder.name}-{os.getpid()}")
        made.save_pretrained(work)
        try:
            os.replace(work, folder)
        except OSError:
            if not (folder / "tokenizer.json").is_file():  # else another process was first: its files are the same
                raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return read_tokenizer(folder)


def _texts_in(values: Iterable[Any], task: Task) -> list[str]:
    found = [value for value in values if isinstance(value, str) and value.strip()]
    if not found:
        raise DataError(f"task {task.name!r}: its column {task.target!r} holds no text to train `target_tokenizer` on")
    return found


def read_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a folder that holds one, with or without a model."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if (folder / "config.json").is_file():
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def tokenizer_named(name: str, whose: str) -> Any:
    """The tokenizer of a folder, or of a model by its name.

    Raises:
        NotFoundError: there is none.
        ConfigError: one that is not fast.
    """
    folder = Path(name).expanduser()
    if not (folder / "tokenizer.json").is_file() and not (folder / "config.json").is_file():
        if folder.is_dir():
            raise NotFoundError(
                f"{whose}: the tokenizer {shown(name)}",
                [f"{folder}: it has no tokenizer.json"],
                ["save one there: AutoTokenizer.from_pretrained(…).save_pretrained(folder)"],
            )
        folder = bases.find_base(name).folder
    made = read_tokenizer(folder)
    if not made.is_fast:
        raise ConfigError(f"{whose}: the tokenizer {shown(name)} is not a fast one; choose another")
    return made


def signature(tokenizer: Any) -> str:
    """A word that changes with whatever a tokenizer makes of a text."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state.pop("truncation", None)
    state.pop("padding", None)
    said = json.dumps([state, end_of(tokenizer), tokenizer.pad_token_id], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:24]


def end_of(tokenizer: Any) -> int | None:
    """The token that ends a text."""
    return tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id


def start_of(tokenizer: Any) -> int | None:
    """The token that a decoder begins with, where no checkpoint says it."""
    wanted = (tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return next((one for one in wanted if one is not None), None)


def token_ids(texts: Sequence[str], tokenizer: Any, most: int) -> list[list[int]]:
    """Label tokens of texts as the tokenizer makes them, ended; of a longer text the first `most`, without an end.

    So a target that was cut is known by its last token, and nobody learns to stop where it was cut.

    Args:
        texts: the targets.
        tokenizer: of the decoder.
        most: tokens of one target, at most.

    Example:
        >>> made = trained_tokenizer(["ab ab"], 260)
        >>> [len(ids) for ids in token_ids(["ab", "ab ab ab"], made, 5)]
        [4, 5]
    """
    end = end_of(tokenizer)
    if not len(texts):
        return []
    found = tokenizer(list(texts), return_attention_mask=False, return_token_type_ids=False, verbose=False)["input_ids"]
    ended = [ids if ids and ids[-1] == end else [*ids, end] for ids in found]
    return [ids[:most] for ids in ended]
