"""How the trainer saves and resumes: checkpoints written beside their place, whole or not there."""

from __future__ import annotations

import errno
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import rotate_checkpoints

from nlp_mtl import checkpoint, weights
from nlp_mtl.balancers import Balancer
from nlp_mtl.bests import TaskBests
from nlp_mtl.distillation.distilling import Distilling, check_state
from nlp_mtl.errors import RunFolderError, TrainingError
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.penalties import Penalties
from nlp_mtl.runspec import read_spec
from nlp_mtl.samplers import Sampler
from nlp_mtl.stepsfile import StepsFile
from nlp_mtl.tallies import Tally

logger = logging.getLogger("nlp_mtl")
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class SafeCheckpoints(TaskBests):
    """The part of :class:`nlp_mtl.trainer.MultiTaskTrainer` that writes and reads run folders and checkpoints.

    A checkpoint is written to a hidden folder, sealed with a list of its files and moved to its place; only then are
    older ones removed. So a killed process or a full disk costs the newest checkpoint at most.
    """

    model: Any
    control: Any
    balancer: Balancer
    sampler: Sampler
    strategies: dict[str, Any]
    steps_file: StepsFile | None
    _tuned_at: int | None
    _task_losses: Tensor
    _task_steps: Tensor
    _tally: Tally
    _penalties: Penalties
    _distilling: Distilling | None

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As the base class, but beside its place: moved there when whole, and older ones removed only then."""
        name = f"checkpoint-{self.state.global_step}"
        run = Path(self._get_output_dir(trial=trial))
        work, place = run / f".{name}.writing", run / name
        if self.hp_search_backend is None and trial is None:
            self.store_flos()
        if self._tuned_at != self.state.global_step:  # what was chosen for other weights is not saved with these
            self._recall({})
        if self.args.should_save:
            if self.steps_file is not None:
                self.steps_file.flush()
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
        self._wait()
        try:
            self.save_model(str(work), _internal_call=True)
            if not self.args.save_only_model:
                self._save_optimizer_and_scheduler(str(work))
                self._save_scaler(str(work))
                self._save_rng_state(str(work))
            if self.args.should_save:
                self._save_own_state(work)
                best = run / f"checkpoint-{self.state.best_global_step}"
                if self.state.best_global_step and (best == place or best.is_dir()):
                    self.state.best_model_checkpoint = str(best)
                self._save_trainer_state(work)
            self._wait()
            if self.args.should_save:
                checkpoint.seal(work)
                checkpoint.commit(work, place)
        except (OSError, SafetensorError, RuntimeError) as error:
            self._explain_failed_save(error, work, place)
            raise
        self._wait()
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(place))
        if self.args.should_save:
            best_one = self.state.best_model_checkpoint
            rotate_checkpoints(
                output_dir=str(run),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=best_one,
                use_mtime=True,
            )

    def _explain_failed_save(self, error: BaseException, work: Path, place: Path) -> None:
        shutil.rmtree(work, ignore_errors=True)
        if no_room(error):
            last = checkpoint.last_good_checkpoint(place.parent)
            kept = f"{last} is whole" if last else "there is no earlier one"
            raise TrainingError(
                f"no room to write {place} ({error}); {kept}; make room, then continue with --resume "
                "(resume_from_checkpoint=True)"
            ) from error

    def _save_trainer_state(self, folder: Path) -> None:
        for callback in [c for c in [*self.callback_handler.callbacks, self.control] if isinstance(c, ExportableState)]:
            name, said = callback.__class__.__name__, callback.state()
            if isinstance(self.state.stateful_callbacks[name], list):
                self.state.stateful_callbacks[name].append(said)
            else:
                self.state.stateful_callbacks[name] = said
        self.state.save_to_json(str(folder / "trainer_state.json"))

    def _save_own_state(self, folder: Path) -> None:
        """Balancer, sampler and running sums of per-task losses: what resuming needs besides the base class's files."""
        own = {
            "names": self._names(),
            "balancer": self.balancer.state_dict(),
            "sampler": self.sampler.state_dict(),
            "task_losses": self._task_losses,
            "task_steps": self._task_steps,
            "tally": self._tally.state_dict(),
            "regularizers": self._penalties.state_dict(),
        }
        if self._distilling is not None:
            own["distillation"] = self._distilling.state_dict()
        torch.save(own, folder / "strategies.pt")
        self._save_bests(folder)

    def _names(self) -> dict[str, str]:
        """What the strategies' states are of."""
        return {"balancer": type(self.balancer).__name__, "sampler": self.sampler.kind}

    def _wait(self) -> None:
        if self.args.world_size > 1:
            self.accelerator.wait_for_everyone()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the base class; under FSDP always the whole weights, so that the folder is an ordinary one."""
        folder = Path(output_dir or self.args.output_dir)
        state = self.accelerator.get_state_dict(self.model) if self.is_fsdp_enabled else None
        if self.args.should_save:
            if _internal_call:
                self._save(str(folder), state_dict=state)
            else:
                try:
                    with checkpoint.replacing(folder / ".model") as work:
                        self._save(str(work), state_dict=state)
                except (OSError, SafetensorError, RuntimeError) as error:
                    self._explain_failed_save(error, folder / ".model", folder / checkpoint.SPEC)
                    raise
                checkpoint.install(folder / ".model", folder)

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """The run folder's files; the base class would write one flat state dict and pickled arguments."""
        model: MultiTaskModel = self.accelerator.unwrap_model(self.model)
        model.save_pretrained(output_dir or self.args.output_dir, state=state_dict, more=self.strategies)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Weights of a checkpoint into the model, after checking that it is of this model."""
        self._check_same_run(resume_from_checkpoint)
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            own: MultiTaskModel = self.accelerator.unwrap_model(self.model)
            weights.load_weights(resume_from_checkpoint, own.sharing, dict(own.modules_.items()))
        tasks = read_spec(resume_from_checkpoint)["tasks"]
        self._recall({task["name"]: task["head"] for task in tasks if isinstance(task["head"], dict)})

    def _recall(self, specs: Mapping[str, Mapping[str, Any]]) -> None:
        """What heads chose on the validation rows, as their specs record it."""
        for task, head in self.accelerator.unwrap_model(self.model).heads.items():
            head.recall(specs.get(task, {}))

    def _check_same_run(self, folder: str) -> None:
        spec, model = read_spec(folder), self.accelerator.unwrap_model(self.model)
        theirs, ours = [task["name"] for task in spec["tasks"]], model.tasks
        wrong = []
        if spec["base"].get("sha256") != model.base.get("sha256") or spec["base"]["id"] != model.base["id"]:
            wrong.append(f"its base is {spec['base']['id']!r}, this run's is {model.base['id']!r}")
        if theirs != ours:
            wrong.append(f"its tasks are {', '.join(theirs)}; this run's are {', '.join(ours)}")
        if wrong:
            raise RunFolderError(
                f"{folder}: a checkpoint of another run: {'; '.join(wrong)}; resume with the run file it was begun "
                "with, or train into another folder"
            )

    def _load_best_model(self) -> None:
        """The best checkpoint's weights; the base class looks for its own file names."""
        best = self.state.best_model_checkpoint
        logger.info("taking the weights of %s (%s %.4f)", best, self.args.metric_for_best_model, self.state.best_metric)
        self._load_from_checkpoint(str(best), self.model)
        self._tuned_at = self.state.global_step

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As the base class, and the state of balancer, sampler and running losses."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        self._load_bests(Path(checkpoint))
        file = Path(checkpoint) / "strategies.pt"
        if file.is_file():
            own = torch.load(file, map_location="cpu", weights_only=True)
            now = self._names()
            if wrong := [key for key, name in own.get("names", now).items() if name != now[key]]:
                said = ", ".join(f"its {key} is {own['names'][key]}, this run's is {now[key]}" for key in wrong)
                raise RunFolderError(
                    f"{checkpoint}: a checkpoint of a run that mixed or weighed its tasks in another way: {said}; "
                    "resume with the run file it was begun with, or train into another folder"
                )
            check_state(own.get("distillation"), self._distilling, checkpoint)
            if self.steps_file is not None:
                self.steps_file.begin_at(_step_of(checkpoint))
            self.balancer.load_state_dict(own["balancer"])
            self.sampler.load_state_dict(own["sampler"])
            self._penalties.load_state_dict(own.get("regularizers"), checkpoint)
            if self._distilling is not None:
                self._distilling.load_state_dict(own["distillation"])
            if "tally" in own:
                self._tally.load_state_dict(own["tally"])
            if self.args.process_index == 0:  # they are summed over processes when logged
                self._task_losses, self._task_steps = own["task_losses"], own["task_steps"]


def _step_of(folder: str) -> int:
    """The step that a checkpoint was made after, by its own record."""
    return int(json.loads((Path(folder) / "trainer_state.json").read_text(encoding="utf-8"))["global_step"])


def no_room(error: BaseException) -> bool:
    """Whether a write failed for want of room: by its number, or by what torch and safetensors make of it."""
    said = str(error)
    known = ("No space left", "File too large", "quota exceeded", "os error 28", "os error 27", "unexpected pos")
    return getattr(error, "errno", None) in _NO_ROOM or any(words in said for words in known)
