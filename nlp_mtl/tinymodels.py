"""Tiny tokenizers and models of many families, made in code: no network, no download."""

from __future__ import annotations

import string
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoModel, PreTrainedTokenizerFast

from nlp_mtl.encoderpart import encoder_part
from nlp_mtl.errors import ConfigError
from nlp_mtl.heads import make_heads
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.tasks import load_tasks

WORDS = "the a an is it was on in at to of and not no yes good bad cat dog house city rain sun red blue old new".split()
_T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "pad_token_id": 0,
    "eos_token_id": 3,
    "decoder_start_token_id": 0,
}
_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 160,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "decoder_start_token_id": 3,
    "forced_eos_token_id": None,
}
DECODERS = ("gpt2", "llama", "qwen2", "mistral", "gpt_neox")


def tiny_tokenizer(*, decoder: bool = False) -> PreTrainedTokenizerFast:
    """A word-piece tokenizer of a few hundred pieces that spells unknown words letter by letter.

    Args:
        decoder: without [CLS] and [SEP], as tokenizers of GPT models.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *(word for word in WORDS if len(word) > 1)]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if not decoder:
        pair = [("[CLS]", 2), ("[SEP]", 3)]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=pair
        )
    names = {
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
    }
    if decoder:
        names = {"unk_token": "[UNK]", "eos_token": "[SEP]"}
    inputs = ["input_ids", "attention_mask"] if decoder else ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, model_input_names=inputs, **names)


def tiny_encoder(family: str = "bert", *, seed: int = 0, dropout: float = 0.0, **changes: Any) -> nn.Module:
    """A randomly initialised encoder of two layers, hidden size 32.

    Args:
        family: bert, roberta, xlm-roberta, electra, distilbert, modernbert, deberta-v2, albert, gpt2, llama, qwen2,
            mistral, gpt_neox; t5 and bart give the encoder of a model of two layers each.
        seed: of the weights.
        dropout: everywhere the family has dropout.
        changes: more fields of the config.

    Raises:
        ConfigError: another family.
    """
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    drop = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    few = {**sizes, "num_key_value_heads": 2}
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    modern = {"attention_dropout": dropout, "embedding_dropout": dropout, "mlp_dropout": dropout, "local_attention": 8}
    table: dict[str, tuple[str, dict[str, Any]]] = {
        "bert": ("BertConfig", {**sizes, **drop}),
        "roberta": ("RobertaConfig", {**sizes, **drop, "max_position_embeddings": 514, "pad_token_id": 1}),
        "xlm-roberta": ("XLMRobertaConfig", {**sizes, **drop, "max_position_embeddings": 514, "pad_token_id": 1}),
        "electra": ("ElectraConfig", {**sizes, **drop, "embedding_size": 16}),
        "distilbert": (
            "DistilBertConfig",
            {
                "dim": 32,
                "n_layers": 2,
                "n_heads": 4,
                "hidden_dim": 64,
                "dropout": dropout,
                "attention_dropout": dropout,
                "seq_classif_dropout": dropout,
                "qa_dropout": dropout,
            },
        ),
        "modernbert": ("ModernBertConfig", {**sizes, **ids, **modern, "classifier_dropout": dropout}),
        "deberta-v2": (
            "DebertaV2Config",
            {
                **sizes,
                **drop,
                "relative_attention": True,
                "pos_att_type": ["p2c", "c2p"],
                "position_buckets": 16,
                "pooler_dropout": dropout,
            },
        ),
        "albert": ("AlbertConfig", {**sizes, **drop, "embedding_size": 16, "classifier_dropout_prob": dropout}),
        "gpt2": (
            "GPT2Config",
            {
                "n_embd": 32,
                "n_layer": 2,
                "n_head": 4,
                "resid_pdrop": dropout,
                "embd_pdrop": dropout,
                "attn_pdrop": dropout,
                "bos_token_id": 3,
                "eos_token_id": 3,
            },
        ),
        "llama": ("LlamaConfig", {**few, "attention_dropout": dropout, "bos_token_id": 3, "eos_token_id": 3}),
        "qwen2": ("Qwen2Config", {**few, "attention_dropout": dropout}),
        "mistral": ("MistralConfig", {**few, "attention_dropout": dropout, "sliding_window": 6}),
        "t5": ("T5Config", {**_T5, "dropout_rate": dropout}),
        "bart": ("BartConfig", {**_BART, "dropout": dropout, "attention_dropout": dropout}),
        "gpt_neox": ("GPTNeoXConfig", {**sizes, "attention_dropout": dropout, "hidden_dropout": dropout}),
    }
    if family not in table:
        raise ConfigError(f"no tiny encoder of the family {family!r}; known: {', '.join(table)}")
    name, settings = table[family]
    config = getattr(transformers, name)(vocab_size=len(tiny_tokenizer()), **{**settings, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = AutoModel.from_config(config).eval()
        return encoder_part(made) if config.is_encoder_decoder else made


def tiny_writer(family: str, *, seed: int = 0, dropout: float = 0.0) -> nn.Module:
    """A whole encoder–decoder model with random weights, as pretrained folders of such families hold.

    Args:
        family: t5 or bart.
        seed: of the weights.
        dropout: everywhere the family has dropout.
    """
    config = tiny_encoder(family, dropout=dropout).config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transformers.AutoModelForSeq2SeqLM.from_config(config).eval()


def tiny_model(
    tasks: Any, family: str = "bert", *, dropout: float = 0.0, seed: int = 0, **settings: Any
) -> MultiTaskModel:
    """A :class:`MultiTaskModel` on a tiny encoder.

    Args:
        tasks: as for :func:`nlp_mtl.tasks.load_tasks`; each must list its labels.
        family, dropout, seed: see :func:`tiny_encoder`.
        settings: sharing, lora, freeze, heads as for :meth:`MultiTaskModel.from_base`.
    """
    heads = make_heads(load_tasks(tasks), settings.pop("heads", None))
    tokenizer = tiny_tokenizer(decoder=family in DECODERS)
    encoder = tiny_encoder(family, dropout=dropout, seed=seed)
    return MultiTaskModel.assemble(
        encoder, tokenizer, heads, seed=seed, base={"id": f"tiny-{family}"}, max_length=128, **settings
    )
