"""How the trainer gets its batches: the mixing plan, its rows dealt to processes, and the token budgets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

from nlp_mtl.ahead import Ahead
from nlp_mtl.balancers import Balancer
from nlp_mtl.batches import Collator, MixedBatchSampler, MixedLoader, PassCollator, to_device
from nlp_mtl.bytask import TaskCollator
from nlp_mtl.data import Data, PoolRows
from nlp_mtl.errors import ConfigError, DataError, UnsupportedError
from nlp_mtl.plan import MixingPlan, Pool
from nlp_mtl.samplers import Sampler
from nlp_mtl.tokenplan import TokenPlan, too_few

logger = logging.getLogger("nlp_mtl")


class MixedBatches(Trainer):
    """The part of :class:`nlp_mtl.trainer.MultiTaskTrainer` that plans steps and loads mixed batches."""

    tasks: list[str]
    data: Data
    sampler: Sampler
    balancer: Balancer
    plan: MixingPlan
    tokens_per_batch: int | None
    tokens_per_pass: int | None
    step_order: Sequence[int] | None = None  # the steps of an epoch in another order, for a dry run
    _pools: list[Pool]
    _train_pools: list[PoolRows]
    _ahead: Ahead[Any] | None = None

    def get_train_dataloader(self) -> MixedLoader:
        """Mixed batches; the base class has no hook for a batch sampler, and accelerate would shard it again."""
        if not self._train_pools:
            raise DataError(
                f"train: a task with labelled training rows is needed, found none among {', '.join(self.tasks)}; add "
                "one, or correct `target` and `splits`"
            )
        args = self.args
        if self.sampler.learns and args.dataloader_num_workers:
            raise UnsupportedError(
                "sampler: one that learns decides about steps from those before them, and `dataloader_num_workers` "
                f"{args.dataloader_num_workers} would have drawn them already; set it to 0"
            )
        self.plan = self._make_plan()
        if args.max_steps > 0:
            self.plan.epochs = args.max_steps / self.plan.steps
        if self.tokens_per_batch is not None and self.sampler.caps:
            self.plan.counts(0)  # refuses caps that leave a step short
        sampler = MixedBatchSampler(
            self.plan,
            [pool.trainable for pool in self._train_pools],
            micro_batches=args.gradient_accumulation_steps,
            process=args.process_index,
            processes=args.world_size,
            order=self.step_order,
            tokens=[pool.tokens for pool in self._train_pools],
            balance=self.tokens_per_batch is not None,
            tokens_per_pass=self.tokens_per_pass,
            same_passes=self.is_fsdp_enabled,  # every forward pass gathers weights from all processes
        )
        collator = Collator(self._train_pools, self.data.heads, seed=self.plan.seed, training=True)
        return MixedLoader(
            self.train_dataset,
            batch_sampler=sampler,
            collate_fn=self._collated(collator),
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )

    def _collated(self, collator: Collator) -> Any:
        if "inner_steps" in self.balancer.needs:
            return TaskCollator(collator)
        return collator if self.tokens_per_pass is None else PassCollator(collator)

    def _make_plan(self) -> MixingPlan:
        args = self.args
        seed = args.data_seed if args.data_seed is not None else args.seed
        if self.tokens_per_batch is not None:
            tokens = [pool.tokens[pool.trainable] for pool in self._train_pools]
            budget = self.tokens_per_batch
            return TokenPlan(
                self.sampler,
                self._pools,
                tokens=tokens,
                tokens_per_batch=budget,
                seed=seed,
                epochs=args.num_train_epochs,
            )
        rows = self._train_batch_size * args.world_size * args.gradient_accumulation_steps
        return MixingPlan(self.sampler, self._pools, rows_per_step=rows, seed=seed, epochs=args.num_train_epochs)

    def rows_shown(self, epoch: int, steps: int) -> dict[str, int]:
        """Task → rows with its label that the first `steps` steps of an epoch show, over all processes."""
        found: dict[str, int] = {}
        for pool, rows in zip(self._train_pools, self.plan.shown(epoch, steps), strict=True):
            for task in pool.tasks:
                found[task] = int(pool.labelled(task)[pool.trainable[rows]].sum()) if len(rows) else 0
        return found

    def tokens_shown(self, epoch: int, steps: int) -> np.ndarray:
        """[steps]: tokens of each of the first `steps` steps of an epoch, over all processes."""
        counts, total = self.plan.counts(epoch)[:steps], np.zeros(steps, dtype=np.int64)
        for number, (pool, rows) in enumerate(zip(self._train_pools, self.plan.shown(epoch, steps), strict=True)):
            done = np.concatenate([[0], pool.tokens[pool.trainable[rows]].cumsum()])
            ends = counts[:, number].cumsum()
            total += done[ends] - done[ends - counts[:, number]]
        return total

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """As the base class, of batches that are collated and pinned while the device computes those before them."""
        if self._collates_ahead(device):
            if self._ahead is None or self._ahead.items is not epoch_iterator:
                self.stop_collating()
                self._ahead = Ahead(epoch_iterator, device=device)
            epoch_iterator = self._ahead
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def _collates_ahead(self, device: torch.device) -> bool:
        """Where it pays: on a CPU it would take from the step itself, and workers of the loader are ahead already.

        A sampler that learns must see a step before it decides about the next one.
        """
        return device.type != "cpu" and not self.args.dataloader_num_workers and not self.sampler.learns

    def stop_collating(self) -> None:
        """End the thread that collates the next batches, if there is one."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def _prepare_input(self, data: Any) -> Any:
        """Nested batches to the device; the base class would rebuild mappings by their type."""
        return to_device(data, self.args.device)


def check_budgets(
    tokens_per_batch: int | None, tokens_per_pass: int | None, args: TrainingArguments, pools: Sequence[PoolRows]
) -> None:
    """Refuse token budgets that can't be kept, and say which of the Trainer's arguments they take the place of.

    Args:
        tokens_per_batch, tokens_per_pass: see :class:`nlp_mtl.trainer.MultiTaskTrainer`.
        args: the Trainer's arguments.
        pools: the training rows.

    Raises:
        ConfigError: budgets that are no numbers, or that a row does not fit into.
        UnsupportedError: settings that would silently do something else.
    """
    given = {"tokens_per_batch": tokens_per_batch, "tokens_per_pass": tokens_per_pass}
    wrong = [
        f"{name}: a whole number of tokens above 0, found {value!r}; leave it out for {usual}"
        for (name, value), usual in zip(
            given.items(), ("steps counted in rows", "one pass for each micro-batch"), strict=True
        )
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1)
    ]
    if tokens_per_batch is not None and not wrong and pools:
        tokens = {"+".join(pool.tasks): pool.tokens[pool.trainable] for pool in pools}
        wrong += [mistake] if (mistake := too_few(tokens_per_batch, tokens)) else []
    if wrong:
        raise ConfigError(wrong)
    if tokens_per_batch is not None and args.auto_find_batch_size:
        raise UnsupportedError(
            "tokens_per_batch: auto_find_batch_size lowers per_device_train_batch_size, which does not count beside "
            f"tokens_per_batch, found {tokens_per_batch}; set tokens_per_pass to what fits into memory instead"
        )
    if tokens_per_pass is not None:
        why = None
        if args.deepspeed:
            why = "DeepSpeed counts backward passes itself, to know where a step ends"
        elif args.optim in (OptimizerNames.LOMO, OptimizerNames.ADALOMO):
            why = f"optim {args.optim.value!r} updates the weights in every backward pass"
        if why:
            raise UnsupportedError(
                f"tokens_per_pass: a step is several backward passes with one update, found {tokens_per_pass}, but "
                f"{why}; leave tokens_per_pass out, and lower per_device_train_batch_size or tokens_per_batch"
            )
    if tokens_per_batch is not None and args.process_index == 0:
        logger.info(
            "tokens_per_batch: steps of %d tokens, over %d process(es) and %d micro-batch(es) each; "
            "per_device_train_batch_size does not count",
            tokens_per_batch,
            args.world_size,
            args.gradient_accumulation_steps,
        )
