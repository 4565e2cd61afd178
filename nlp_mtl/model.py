"""The model: a sharing with its encoder, and one head per task."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from nlp_mtl import adapters, bases, checkpoint, registry, reinit
from nlp_mtl.card import card
from nlp_mtl.data import load_data
from nlp_mtl.dropout import use_cheap_dropout
from nlp_mtl.errors import UnsupportedError
from nlp_mtl.gradients.taps import Taps
from nlp_mtl.heads import Head, few, make_heads, meet
from nlp_mtl.holding import HoldsParameters
from nlp_mtl.opening import checked_length, give_pad_token, open_base, open_run, open_tokenizer
from nlp_mtl.packing import base_of
from nlp_mtl.pulling import local_folder
from nlp_mtl.regimes import check_together
from nlp_mtl.runspec import heads_of, read_spec, spec_of
from nlp_mtl.sharing import Sharing
from nlp_mtl.tasks import load_tasks
from nlp_mtl.terms import encoded, terms_of
from nlp_mtl.tuning import Tuning, shared_by
from nlp_mtl.weights import load_weights, save_weights

logger = logging.getLogger("nlp_mtl")


class MultiTaskModel(HoldsParameters):
    """One encoder, many tasks, one call.

    Args:
        sharing: holds the shared parameters.
        heads: task → head.
        modules: head key → the head's module.
        tokenizer: a fast tokenizer.
        base: what is recorded of the pretrained model, see :meth:`nlp_mtl.bases.Base.record`.
        max_length: tokens per sequence, where a task says nothing.
        strategies: what else is recorded: sharing, lora, freeze.

    Example:
        >>> from nlp_mtl.testing import tiny_model
        >>> model = tiny_model(["rte", "conll2003"])
        >>> sorted(model.modules_)
        ['conll2003', 'rte']
    """

    accepts_loss_kwargs = False  # otherwise the Trainer scales the loss by its own count of items
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True

    def __init__(
        self,
        sharing: Sharing,
        heads: Mapping[str, Head],
        modules: Mapping[str, nn.Module],
        tokenizer: PreTrainedTokenizerBase,
        *,
        base: Mapping[str, Any],
        max_length: int,
        strategies: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.sharing, self.heads = sharing, dict(heads)
        self.modules_ = nn.ModuleDict(dict(modules))
        self.tokenizer, self.base, self.max_length = tokenizer, dict(base), max_length
        self.strategies = dict(strategies or {})
        self.taps: Taps | None = None  # who keeps the tasks' gradients apart, while a step needs it
        self.teaching: Any = None  # what teachers add to the tasks' losses, while a training has some
        self.source: Path | None = None  # where the pretrained model lies here, which no run folder says
        self.left_out: list[str] = []  # tasks of the run that its sharing has parts of, and that were not loaded
        self.fresh = False  # whether the heads were made just now and never trained
        self.begun: set[str] = set()  # of fresh heads, those that start as an earlier run's

    # ---------------------------------------------------------------------------------------------- construction

    @classmethod
    def from_base(
        cls,
        base: str | Path,
        tasks: Any,
        *,
        sharing: registry.Spec = "hard",
        lora: Any = None,
        task_lora: Any = None,
        freeze: str | Sequence[str] = (),
        tuning: registry.Spec | None = None,
        reinit_top_layers: int = 0,
        heads: Mapping[str, Mapping[str, Any]] | None = None,
        registry_folders: Sequence[str | Path] = (),
        data_root: str | Path | None = None,
        max_length: int | None = None,
        seed: int = 0,
    ) -> MultiTaskModel:
        """A model from a pretrained encoder and tasks.

        Args:
            base: a folder, a packaged model's name, or a Hub id.
            tasks: names, tags, paths or :class:`Task` objects; see :func:`nlp_mtl.tasks.load_tasks`.
            sharing: which parameters tasks share.
            lora: a `peft.LoraConfig` or a mapping of its fields; None for full fine-tuning.
            task_lora: the same for one more adapter per task, alone or beside `lora`; see :mod:`nlp_mtl.tasklora`.
            freeze: patterns of encoder parameters to keep as they are; ``"*"`` for all.
            tuning: which of the encoder's own weights are trained; see :mod:`nlp_mtl.regimes`. Default all.
            reinit_top_layers: so many layers from the top begin anew; see :mod:`nlp_mtl.reinit`.
            heads: more arguments for heads, by task, tag or ``"*"``, e.g. ``{"stsb": {"pooling": "mean"}}``.
            registry_folders: more folders with task files.
            data_root: where data sets are looked for first (for label names that tasks leave out).
            max_length: tokens per sequence; default the encoder's own limit, at most 512.
            seed: of the heads' first weights; each head's depend on this and its task only.

        Raises:
            ConfigError, NotFoundError, UnsupportedError: with the way out.
        """
        chosen = load_tasks(tasks, registry=registry_folders)
        made = make_heads(chosen, heads)
        kept = {"freeze": freeze, "tuning": tuning, "reinit_top_layers": reinit_top_layers}
        check_together(kept, lora, task_lora)
        adapters.checked_adapters(lora, task_lora)
        found = bases.find_base(base)
        tokenizer, encoder = open_base(found.folder)
        new = reinit.reinit_top_layers(encoder, reinit_top_layers, seed)
        length = checked_length(max_length, tokenizer, encoder)
        meet(made, tokenizer, data_root)
        unnamed = {name: head for name, head in made.items() if head.labels is None and _wants_labels(head)}
        if unnamed:
            load_data(unnamed, tokenizer, max_length=length, data_root=data_root)
        model = cls.assemble(
            encoder,
            tokenizer,
            made,
            sharing=sharing,
            lora=lora,
            task_lora=task_lora,
            freeze=freeze,
            tuning=tuning,
            source=found.folder,
            seed=seed,
            base=found.record(),
            max_length=length,
        )
        model.fresh, model.source = True, found.folder
        reinit.check_trained(model, reinit_top_layers, new)
        logger.info("%s", model.sharing.log)
        return model

    @classmethod
    def assemble(
        cls,
        encoder: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        heads: Mapping[str, Head],
        *,
        sharing: registry.Spec = "hard",
        lora: Any = None,
        task_lora: Any = None,
        own_lora: Mapping[str, Any] | None = None,
        own_encoder: bool = False,
        every: Mapping[str, str] | None = None,
        freeze: str | Sequence[str] = (),
        tuning: registry.Spec | None = None,
        source: Path | None = None,
        seed: int = 0,
        base: Mapping[str, Any] | None = None,
        max_length: int = 512,
    ) -> MultiTaskModel:
        """A model from an encoder that is loaded already; arguments as for :meth:`from_base`.

        Besides, `own_lora` says what single tasks have instead of `task_lora`, None for no adapter of their own,
        `own_encoder` that the encoder below adapters was trained too and is saved with them, and `every` the tasks of
        the whole run (task → whose head it uses), where `heads` are only some.
        """
        give_pad_token(tokenizer, encoder)
        meet(heads, tokenizer)
        use_cheap_dropout(encoder)
        record = dict(base or {"id": base_of(encoder).config.name_or_path})
        asked = Tuning(sharing, lora, task_lora, own_lora or {}, own_encoder, freeze, tuning)
        keys = {task: head.task.head_key for task, head in heads.items()}
        shared, strategies = shared_by(encoder, asked, keys, every or {}, record, seed)
        shared.check_length(max(min(head.task.max_length or max_length, max_length) for head in heads.values()))
        few.check_widths(heads, base_of(encoder).config.hidden_size)
        shared.read_from({task: head.layer for task, head in heads.items() if head.layer is not None})
        modules = {}
        for task, head in heads.items():
            if keys[task] == task:
                modules[task] = head.build(shared.encoder_of(task), source=source, seed=seed)
        for task, head in heads.items():
            if keys[task] != task:
                head.lent(heads[keys[task]], modules[keys[task]])
        return cls(shared, heads, modules, tokenizer, base=record, max_length=max_length, strategies=strategies)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        base: str | Path | None = None,
        trainable: bool = False,
        tasks: Sequence[str] | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> MultiTaskModel:
        """The model of a run folder or checkpoint, or of a repository of the Hub that holds one.

        Args:
            folder: a folder that :meth:`save_pretrained` wrote, or a repository's id, ``"me/repo"``.
            base: where the pretrained model is, for a LoRA run whose base is not found by its recorded id.
            trainable: make a LoRA trainable again.
            tasks: names; only these, the heads of the others are not read. Default all.
            revision: branch, tag or commit of the repository; default its main branch.
            token: for a repository that is not public; default the one that is logged in.

        Raises:
            ConfigError: `tasks` that the run does not have.
            RunFolderError: not a run folder, damaged, or weights of another model.
            HubError: the Hub can't be reached, or has no such repository or revision.
        """
        folder = local_folder(folder, revision=revision, token=token)
        spec = read_spec(folder)
        checkpoint.check_whole(folder)
        heads = heads_of(spec, folder, tasks)
        tokenizer = open_tokenizer(folder)
        per_task = spec["strategies"].get("adapters")
        encoder = open_run(folder, spec["base"], base, token, trainable=trainable, per_task=bool(per_task))
        adapter = hasattr(encoder, "peft_config")
        model = cls.assemble(
            encoder,
            tokenizer,
            heads,
            sharing=spec["strategies"]["sharing"],
            base=spec["base"],
            max_length=spec["max_length"],
            every={item["name"]: item.get("head_of") or item["name"] for item in spec["tasks"]},
            freeze=() if adapter or per_task else spec["strategies"]["freeze"],
            tuning=None if adapter or per_task else spec["strategies"].get("tuning"),
            **(per_task or {}),
        )
        model.strategies = spec["strategies"]
        name, arguments = registry.parse_spec(model.strategies["sharing"], "sharing")
        if registry.sharings[name].keeps_all(**arguments):
            model.left_out = [item["name"] for item in spec["tasks"] if item["name"] not in heads]
        model.heads = {task: heads[task] for task in dict.fromkeys(heads if tasks is None else tasks)}  # no lenders
        load_weights(folder, model.sharing, dict(model.modules_.items()))
        for parameter in model.sharing.own_state().values() if per_task else ():
            if isinstance(parameter, nn.Parameter):
                parameter.requires_grad_(trainable)
        return model.eval()

    def spec(self) -> dict[str, Any]:
        """What ``nlp_mtl.json`` records of this model."""
        return spec_of(self)

    def save_pretrained(
        self, folder: str | Path, *, state: Mapping[str, Tensor] | None = None, more: Mapping[str, Any] | None = None
    ) -> None:
        """Write weights, tokenizer, spec and a card into `folder`; see :mod:`nlp_mtl.checkpoint`.

        Args:
            state: the gathered state dict, under FSDP.
            more: further entries for the spec (balancer, sampler).

        Raises:
            UnsupportedError: a run of which only some tasks were loaded.
        """
        self.check_whole()
        folder = checkpoint.made_folder(folder)
        spec = self.spec()
        spec["strategies"] = {**spec["strategies"], **(more or {})}
        save_weights(folder, self.sharing, dict(self.modules_.items()), state=state)
        self.save_base(folder)
        for head in self.heads.values():
            head.save_files(folder)
        (folder / "README.md").write_text(card(spec), encoding="utf-8")
        checkpoint.write_text(folder / checkpoint.SPEC, json.dumps(spec, indent=1, ensure_ascii=False))

    def check_whole(self) -> None:
        """Refuse what would be saved without tasks that the sharing has parts of.

        Raises:
            UnsupportedError: with the way out.
        """
        if self.left_out:
            raise UnsupportedError(
                f"sharing {self.sharing.registered_as!r} was learned for {', '.join(self.left_out)} too, which were "
                "not loaded, so a folder of the others would not load again; leave out `tasks` of from_pretrained"
            )

    # --------------------------------------------------------------------------------------------------- forward

    @property
    def tasks(self) -> list[str]:
        """The tasks' names, in order."""
        return list(self.heads)

    @property
    def config(self) -> Any:
        """The encoder's config."""
        return base_of(self.sharing.encoder).config

    @property
    def _no_split_modules(self) -> list[str]:
        return list(base_of(self.sharing.encoder)._no_split_modules or [])

    def activation_checkpointing_enable(self, **settings: Any) -> None:
        """Recompute activations in the backward pass; `settings` as `transformers` takes them."""
        base: Any = base_of(self.sharing.encoder)
        base.activation_checkpointing_enable(**settings)
        if not (settings.get("activation_checkpointing_kwargs") or {"use_reentrant": False}).get("use_reentrant", True):
            base.disable_input_require_grads()  # which would take the backward pass below what is trained

    def module_of(self, task: str) -> nn.Module:
        """The module that computes a task's logits; tasks may share one."""
        return self.modules_[self.heads[task].task.head_key]

    def forward(
        self,
        input_ids: Tensor | None = None,
        lengths: Tensor | None = None,
        targets: Mapping[str, Mapping[str, Tensor]] | None = None,
        token_type_ids: Tensor | None = None,
        stacked: Mapping[str, Tensor] | None = None,
        owners: Mapping[str, Tensor] | None = None,
        weights: Mapping[str, float] | Callable[[Mapping[str, Tensor]], Mapping[str, float]] | None = None,
        units: Mapping[str, float] | None = None,
        return_logits: bool = True,
    ) -> dict[str, Any]:
        """One mixed batch through the encoder, once, and through the heads.

        Args:
            input_ids: [tokens], all sequences one after the other, without padding.
            lengths: [sequences].
            targets: task → where its rows are and what their labels are; see :meth:`Head.collate`.
            token_type_ids: [tokens].
            stacked: inputs of another kind, each [rows, …].
            owners: which row of the batch each of a task's rows is; not used here.
            weights: task → weight of its loss, or a function that makes it of the losses; default 1 each.
            units: task → what its summed loss is divided by: the count over all processes and micro-batches of the
                step; default the count in this batch. Of several processes, one without rows of a task that is
                counted takes part with 0.
            return_logits: leave them out to save memory in training.

        Returns:
            ``loss``, the weighted sum; ``losses`` {task: its part of the mean loss, detached}; ``logits`` {task: …};
            and while gradients are kept apart ``terms``, the losses with their history.
        """
        targets = targets or {}
        inputs: dict[str, Tensor] = dict(stacked or {})
        if input_ids is not None:
            inputs["input_ids"] = input_ids
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        counted = [task for task in self.tasks if units.get(task)] if units is not None and several else []
        packed, _ = encoded(self, inputs, lengths.tolist() if lengths is not None else [], targets, counted)
        terms, losses, logits = terms_of(self, packed, targets, units, return_logits)
        total: Tensor | None = None
        given = weights(losses) if callable(weights) else weights
        for task, loss in terms.items():
            weighted = loss if given is None else loss * given[task]
            total = weighted if total is None else total + weighted
        if total is None:
            total = next(iter(packed.values())).hidden.sum() * 0.0
        if absent := [task for task in counted if task not in targets]:
            total = total + self.nothing_from(absent)
        return {"loss": total, "losses": losses, "logits": logits, **({} if self.taps is None else {"terms": terms})}


def _wants_labels(head: Head) -> bool:
    return type(head).label_names is not Head.label_names
