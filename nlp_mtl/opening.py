"""Opening a pretrained encoder and its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from nlp_mtl import yamlfile
from nlp_mtl.bases import find_recorded
from nlp_mtl.encoderpart import encoder_part
from nlp_mtl.errors import ConfigError, NotFoundError, RunFolderError, UnsupportedError, suggestion
from nlp_mtl.packing import base_of, first_position
from nlp_mtl.paths import no_name
from nlp_mtl.reading import short
from nlp_mtl.weights import BELOW, ENCODER_CONFIG, quiet_transformers


def open_base(folder: Path) -> tuple[PreTrainedTokenizerBase, nn.Module]:
    """The tokenizer and the encoder of a pretrained folder.

    Raises:
        NotFoundError: no weights in safetensors format, or no tokenizer files.
        RunFolderError: files that are damaged or do not fit each other.
        UnsupportedError: slow tokenizers, models that bring code of their own.
    """
    _check_kind(folder)  # also says that there is no config
    return open_tokenizer(folder), load_encoder(folder)


def open_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a folder; raises as :func:`open_base`."""
    if (folder / "config.json").exists():  # else its fault would be told as one of the tokenizer
        _check_kind(folder)
    with _explained(folder, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise UnsupportedError(f"{folder.name}: its tokenizer is not a fast one, which word and character offsets need")
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise NotFoundError(
            f"the tokenizer of the model {folder.name!r}",
            [f"{folder}: {_files(folder)}, and no vocabulary in them"],
            ["put its tokenizer.json there: AutoTokenizer.from_pretrained(…).save_pretrained(folder)"],
        )
    return tokenizer


def load_encoder(folder: Path) -> nn.Module:
    """The bare encoder (of T5 and BART without the decoder), its weights in fp32; raises as :func:`open_base`."""
    _check_kind(folder)
    with quiet_transformers(), _explained(folder, "model"):
        encoder, info = AutoModel.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    if not getattr(encoder.config, "is_encoder_decoder", False):
        return encoder
    if missing := sorted(name for name in info["missing_keys"] if not name.startswith("decoder.")):
        raise RunFolderError(
            f"{folder}: config.json says {encoder.config.model_type}, and the weights have no {missing[0]}; they "
            "are of another model: copy or download it again"
        )
    return encoder_part(encoder)


def open_run(
    folder: Path,
    record: Mapping[str, Any],
    base: str | Path | None,
    token: str | bool | None,
    *,
    trainable: bool,
    per_task: bool,
) -> nn.Module:
    """The encoder of a run folder: its own, or the pretrained one with the run's LoRA; raises as :func:`open_base`.

    Args:
        folder: of the run.
        record: what it says of the pretrained model.
        base, token: see :func:`nlp_mtl.bases.find_recorded`.
        trainable: make the LoRA trainable again.
        per_task: its adapters are one per task; they are left to who makes the model.
    """
    if (folder / ENCODER_CONFIG).is_file():  # its weights are the sharing's
        with _explained(folder, "model"):
            made = AutoModel.from_config(
                AutoConfig.for_model(**json.loads((folder / ENCODER_CONFIG).read_text("utf-8")))
            )
        made = made.float().eval()
        return encoder_part(made) if getattr(made.config, "is_encoder_decoder", False) else made
    adapted = (folder / "adapter_config.json").is_file()
    if not adapted and (not per_task or (folder / "config.json").is_file()):
        return load_encoder(folder)
    _, plain = open_base(find_recorded(record, _below(folder, record, base), token).folder)
    if not adapted:
        return plain
    from peft import PeftModel

    encoder = PeftModel.from_pretrained(plain, folder, is_trainable=trainable)
    for known in encoder.peft_config.values():
        known.base_model_name_or_path = None if record.get("own") else record["id"]
    return encoder


def _below(folder: Path, record: Mapping[str, Any], base: str | Path | None) -> str | Path | None:
    return beside(folder, record) if record.get("own") else base or beside(folder, record)


def beside(folder: Path, record: Mapping[str, Any]) -> Path | None:
    """What a LoRA was put on, where that is a folder of this machine: an encoder in the run's; a full run, where both
    are stages and lie side by side; or the one that its run file names.
    """
    if record.get("own"):
        return folder / BELOW if (folder / BELOW / "config.json").is_file() else None
    places = [above / str(record["id"]) for above in folder.absolute().parents[:2]]
    places += [Path(named).expanduser() for named in (_model_of(above) for above in (folder, folder.parent)) if named]
    return next((place for place in places if (place / "config.json").is_file()), None)


def _model_of(folder: Path) -> str:
    """The model that a run file in a folder names; "" for none."""
    try:
        said = yamlfile.load(folder / "run.yaml")[0] if (folder / "run.yaml").is_file() else {}
    except ConfigError:
        return ""
    named = said.get("model") if isinstance(said, Mapping) else ""
    return named if isinstance(named, str) and not no_name(named) else ""


def _check_kind(folder: Path) -> None:
    """Refuse a folder whose config.json names no architecture that `transformers` has."""
    file = folder / "config.json"
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(
            f"the config of the model {folder.name!r}",
            [f"{file} is not there"],
            ["name a folder that save_pretrained of a transformers model wrote"],
        ) from None
    except ValueError as error:
        raise RunFolderError(f"{file} is damaged ({short(error)}); copy or download it again") from None
    kind = said.get("model_type") if isinstance(said, dict) else None
    if kind in CONFIG_MAPPING:
        return
    if isinstance(said, dict) and "auto_map" in said:
        raise UnsupportedError(
            f"{folder}: this model brings Python code of its own (`auto_map` in config.json), which is never run; use "
            "a model whose architecture transformers has"
        )
    raise UnsupportedError(
        f"{file}: `model_type` is an architecture of transformers {transformers.__version__}, found "
        f"{kind!r}{suggestion(str(kind), CONFIG_MAPPING.keys())}; a newer transformers may have it"
    )


@contextmanager
def _explained(folder: Path, what: str) -> Iterator[None]:
    """What goes wrong while `transformers` reads a folder, in our words."""
    try:
        yield
    except SafetensorError as error:
        raise RunFolderError(
            f"{folder}: the weights are damaged ({short(error)}); copy or download the model again"
        ) from error
    except OSError as error:
        raise NotFoundError(
            f"a file of the {what} in {folder}",
            [short(error)],
            [
                "copy or download the model again, whole",
                "weights in another format: AutoModel.from_pretrained(…).save_pretrained(folder) writes safetensors",
            ],
        ) from error
    except Exception as error:  # whatever transformers raises for files that don't fit each other
        raise RunFolderError(
            f"{folder}: transformers can't read its {what} ({type(error).__name__}: {short(error)}); copy or download "
            "the model again, or use another one"
        ) from error


def _files(folder: Path) -> str:
    return "it has " + ", ".join(sorted(file.name for file in folder.iterdir()))


def checked_length(wanted: int | None, tokenizer: PreTrainedTokenizerBase, encoder: nn.Module) -> int:
    """Tokens per sequence: what is wanted, if the encoder can, else at most 512; raises ConfigError."""
    positions = getattr(base_of(encoder).config, "max_position_embeddings", None) or 512
    limit = min(positions - first_position(base_of(encoder)), tokenizer.model_max_length)
    if wanted is not None and not 4 <= wanted <= limit:
        raise ConfigError(
            f"max_length: from 4 to {limit} for this encoder, found {wanted}; leave it out for {min(512, limit)}"
        )
    return wanted or min(512, limit)


def give_pad_token(tokenizer: PreTrainedTokenizerBase, encoder: nn.Module) -> None:
    """Decoders come without one; nothing here pads, but an exported model does."""
    config = base_of(encoder).config
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    if getattr(config, "pad_token_id", None) is None and tokenizer.pad_token_id is not None:
        config.pad_token_id = tokenizer.pad_token_id
