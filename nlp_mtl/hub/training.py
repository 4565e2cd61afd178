"""Pushes during training, as TrainingArguments say: ``push_to_hub``, ``hub_model_id``, ``hub_strategy``, …"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.trainer_utils import HubStrategy

from nlp_mtl.errors import ConfigError, NlpMtlError
from nlp_mtl.hub.leaving import base_for_hub, check_leaving, is_adapter
from nlp_mtl.hub.push import Pushed, push
from nlp_mtl.model import MultiTaskModel

logger = logging.getLogger("nlp_mtl")


class HubPushes(Trainer):
    """The part of :class:`nlp_mtl.trainer.MultiTaskTrainer` that pushes.

    ``hub_strategy`` is the Trainer's: ``end`` pushes the finished run; ``every_save`` (its default) also the model of
    every checkpoint, in the background; ``checkpoint`` and ``all_checkpoints`` besides the checkpoint itself, optimizer
    and random states included, into ``last-checkpoint/`` or ``checkpoint-N/``, from which training can go on. Without
    them no checkpoint leaves. A push that fails ends no training: it is told, and `nlp-mtl push` makes up for it.
    """

    hub_model_id: Any
    push_in_progress: Any
    _hub: Any = None

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """As the base class; a base that may not be recorded, a wrong token and the like are told before training."""
        if not self.is_world_process_zero():
            return
        from huggingface_hub import HfApi

        from nlp_mtl.hub import remote

        model: MultiTaskModel = self.accelerator.unwrap_model(self.model)
        try:
            base_for_hub(model.base, adapter=is_adapter(model))
        except ConfigError as error:
            raise ConfigError(
                f"training.push_to_hub: {error}; in training, name the base by its Hub id in `model:`, or leave "
                "push_to_hub out and push afterwards"
            ) from error
        wanted = self.args.hub_model_id or Path(self.args.output_dir).absolute().name
        api = HfApi(token=token if token is not None else self.args.hub_token)
        doing = f"training.push_to_hub: {wanted}"
        name = remote.whoami(api, doing)
        self.hub_model_id = wanted if "/" in wanted else f"{name}/{wanted}"
        private = private if private is not None else self.args.hub_private_repo
        revision = self.args.hub_revision
        remote.target(api, doing, self.hub_model_id, private=private, revision=revision, create_pr=False)
        self.push_in_progress = None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the base class; a push that fails here is told and loses nothing."""
        super().save_model(output_dir, _internal_call)
        if not self.args.push_to_hub or _internal_call:
            return
        if output_dir is not None and Path(output_dir) != Path(self.args.output_dir):
            super().save_model()  # what is pushed is the output folder
        try:
            self._push_folder(commit_message="Model save")
        except NlpMtlError as error:
            logger.warning("%s", error)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Pushed | None:
        """Push the run as :func:`nlp_mtl.push` does; the base class would upload the output folder, paths and all.

        Args:
            commit_message: of the commit.
            blocking: not used: it returns when the commit is made.
            token: default the one of the arguments.
            revision: a branch.
            private: whether a new repository is.
            kwargs: what :func:`nlp_mtl.push` takes besides.

        Raises:
            HubError, ConfigError: see :func:`nlp_mtl.push`; the run in the output folder is whole.
        """
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        super().save_model()
        return self._push_folder(commit_message, token=token, revision=revision, private=private, **kwargs)

    def _push_folder(
        self,
        commit_message: str | None,
        *,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Pushed | None:
        """Push the output folder, by the first process, when what was sent before has arrived."""
        if not self.is_world_process_zero():
            return None
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self._finish_current_push()
        return push(
            Path(self.args.output_dir),
            self.hub_model_id,
            private=private if private is not None else self.args.hub_private_repo,
            revision=revision or self.args.hub_revision,
            commit_message=commit_message,
            token=token if token is not None else self.args.hub_token,
            **kwargs,
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """As the base class, with files of our own, from a copy: the checkpoint may be removed before they are sent."""
        from transformers.trainer import PushInProgress

        strategy = self.args.hub_strategy
        if not self.is_world_process_zero() or strategy == HubStrategy.END:
            return
        busy = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if busy and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        source = Path(checkpoint_folder)
        under = {HubStrategy.CHECKPOINT: "last-checkpoint/", HubStrategy.ALL_CHECKPOINTS: f"{source.name}/"}
        from huggingface_hub import HfApi

        if self._hub is None:
            self._hub = HfApi(token=self.args.hub_token)  # one for all, whose jobs come one after the other
        api = self._hub
        job = api.run_as_future(self._job(api, source, under.get(strategy)))
        if not busy:
            self.push_in_progress = PushInProgress([job])
        else:
            self.push_in_progress.jobs.append(job)

    def _job(self, api: Any, source: Path, under: str | None) -> Callable[[], None]:
        """Copy what is to be sent now, and give what sends it."""
        from nlp_mtl.hub import remote
        from nlp_mtl.hub.staging import stage_checkpoint

        model: MultiTaskModel = self.accelerator.unwrap_model(self.model)
        base, repo, step = (
            base_for_hub(model.base, adapter=is_adapter(model)),
            self.hub_model_id,
            self.state.global_step,
        )
        message, revision = f"Training in progress, step {step}", self.args.hub_revision
        work = Path(tempfile.mkdtemp(prefix="nlp-mtl-push-"))
        parts = {"": work / "model", **({under: work / "whole"} if under else {})}
        for inside, folder in parts.items():
            stage_checkpoint(source, folder, repo, base, whole=bool(inside), step=step)
            check_leaving(folder, own=[Path(self.args.output_dir), work])

        def send() -> None:
            doing = f"push {repo} at step {step}"
            try:
                for inside, folder in parts.items():
                    at = remote.target(api, doing, repo, private=None, revision=revision, create_pr=False)
                    said = f"{message}, checkpoint" if inside else message
                    remote.commit(api, doing, repo, folder, said, at=at, revision=revision, under=inside)
            except NlpMtlError as error:
                logger.warning("%s; training goes on", error)
            finally:
                shutil.rmtree(work, ignore_errors=True)

        return send
