"""What adversarial training has in common: embeddings of a pass that are moved within a ball, and passes with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nlp_mtl.embedded import embedded, why_not_embedded, words_of
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.regularizers.base import Gradients, Regularizer, check_number

Call = Callable[[Mapping[str, Any]], dict[str, Any]]


class Adversarial(Regularizer):
    """Adds the gradient of a loss at embeddings that were moved so as to make it worse.

    Embeddings are those of words, before positions are added and before any norm. How far a text is moved is the norm
    of all that is added to its tokens. What is added never depends on how the batch is padded.

    Args:
        strength: how much the added loss counts, from 0; 0 is plain training, and costs nothing.
        radius: how far a text's embeddings may be moved, from 0; 0 is plain training, too.
        steps: how often they are moved, at least once.
        step_size: how far each time.
        init: how far they are moved at random before.
        seed: of that.
    """

    looks = True

    def __init__(self, strength: float, radius: float, steps: int, step_size: float, init: float, seed: int):
        name, mistakes = self.registered_as, []
        given = {"strength": strength, "radius": radius, "step_size": step_size, "init": init}
        for argument, value in given.items():
            try:
                check_number(name, argument, value)
            except ConfigError as error:
                mistakes += error.mistakes
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            mistakes.append(f"regularizer {name!r}: `steps` is a whole number from 1, found {steps!r}")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            mistakes.append(f"regularizer {name!r}: `seed` is a whole number from 0, found {seed!r}")
        if mistakes:
            raise ConfigError(mistakes)
        self.strength, self.radius, self.steps = float(strength), float(radius), steps
        self.step_size, self.init, self.seed = float(step_size), float(init), seed

    def setup(self, model: Any, data: Any) -> None:
        """See :meth:`Regularizer.setup`.

        Raises:
            UnsupportedError: an encoder that is told embeddings in no way, or that no gradient goes through.
        """
        super().setup(model, data)
        self._sums: dict[int, tuple[nn.Parameter, Tensor]] = {}
        self._value, self._seen = 0.0, False
        if mistakes := self._refused():
            raise UnsupportedError("\n".join(mistakes))

    def _refused(self) -> list[str]:
        sharing, name = self.model.sharing, f"regularizer {self.registered_as!r}"
        found = []
        if not any(p.requires_grad for p in sharing.parameters()):
            found.append(
                f"{name}: moves embeddings along the gradient through the encoder, and nothing of the encoder is "
                "trained; leave it out, or train some of it (`lora`, or no `freeze`)"
            )
        if why := why_not_embedded(self.model):
            found.append(
                f"{name}: moves the embeddings of one encoder, and {why}; leave it out, or use sharing: hard without "
                "`condition`, and adapters without embeddings among their `target_modules`"
            )
        return found

    def check(self, accelerator: Any, balancer: Any) -> None:
        """See :meth:`Regularizer.check`: what keeps tasks' gradients apart would not see this one's passes."""
        name = f"regularizer {self.registered_as!r}"
        mistakes = []
        if apart := {"gramian", "jacobian", "inner_steps"} & balancer.needs:
            mistakes.append(
                f"{name}: has one gradient for all tasks, and balancer {balancer.name!r} needs one of each "
                f"({', '.join(sorted(apart))}); use a balancer on losses, e.g. equal or uncertainty"
            )
        if accelerator.num_processes > 1:
            mistakes.append(
                f"{name}: moves the embeddings of one process's passes, found {accelerator.num_processes} processes; "
                "train with one"
            )
        if accelerator.mixed_precision == "fp16":
            mistakes.append(
                f"{name}: fp16 scales the loss, and its steps would be scaled too; train in bf16 or float32"
            )
        if mistakes:
            raise UnsupportedError("\n".join(mistakes))

    # ------------------------------------------------------------------------------------------------------- a pass

    def after_pass(
        self, call: Call, part: Mapping[str, Any], weights: Mapping[str, float], key: tuple[int, int]
    ) -> None:
        """See :meth:`Regularizer.after_pass`."""
        ids, lengths = part.get("input_ids"), part.get("lengths")
        if ids is None or lengths is None or not self.strength or not self.radius or not part.get("targets"):
            return
        ids = ids.to(self.model.device)
        rows = torch.repeat_interleave(torch.arange(len(lengths)), torch.as_tensor(lengths)).to(ids.device)
        rest = {name: value for name, value in part.items() if name != "input_ids"}

        def moved(by: Tensor | None) -> dict[str, Any]:
            made = embedded(words_of(self.model), ids)
            made = made if by is None else made + by.to(made.dtype)
            return call({**rest, "stacked": {**(part.get("stacked") or {}), "inputs_embeds": made}})

        count, width = len(ids), words_of(self.model).embedding_dim
        draw = np.random.default_rng([self.seed, *key]).uniform(-1, 1, (count, width)).astype(np.float32)
        start = torch.from_numpy(draw).to(ids.device)
        sizes = torch.as_tensor(lengths, dtype=torch.float32).to(ids.device)[rows][:, None] * width
        self.attack(moved, within(self.init * start / sizes.sqrt(), rows, self.radius), rows, part, weights)

    def attack(
        self,
        moved: Callable[[Tensor | None], dict[str, Any]],
        start: Tensor,
        rows: Tensor,
        part: Mapping[str, Any],
        weights: Mapping[str, float],
    ) -> None:
        """The passes of one batch.

        Args:
            moved: a forward pass with something added to the embeddings; what the model gives.
            start: [tokens, width], what is added first.
            rows: [tokens], the number of each token's sequence.
            part: the batch.
            weights: task → what its loss is weighed with in this step.
        """
        raise NotImplementedError

    def ascended(self, by: Tensor, gradient: Tensor, rows: Tensor) -> Tensor:
        """One step up the gradient, of each text by itself, and back into the ball."""
        gradient = gradient.float()
        gradient = gradient / norms(gradient, rows).clamp_min(1e-12)[rows][:, None]
        return within(by + self.step_size * gradient, rows, self.radius)

    def trained(self) -> list[nn.Parameter]:
        """What is trained now."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def keep(self, value: float, parameters: list[nn.Parameter], gradients: Any, scale: float) -> None:
        """Add to what this step's penalty is, and to its gradients."""
        self._value, self._seen = self._value + value, True
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is None:
                continue
            known = self._sums.get(id(parameter))
            added = gradient.detach() * scale
            self._sums[id(parameter)] = (parameter, added if known is None else known[1] + added)

    def penalty_gradients(self) -> Gradients | None:
        """What the passes of this step gave, handed out once."""
        seen, value, sums = self._seen, self._value, list(self._sums.values())
        self._sums, self._value, self._seen = {}, 0.0, False
        return (value, [p for p, _ in sums], [g.contiguous() for _, g in sums]) if seen and sums else None


def norms(values: Tensor, rows: Tensor) -> Tensor:
    """[sequences]: the norm of all of a sequence's values.

    Args:
        values: [tokens, width].
        rows: [tokens], the number of each token's sequence.

    Example:
        >>> norms(torch.tensor([[3.0], [4.0], [2.0]]), torch.tensor([0, 0, 1]))
        tensor([5., 2.])
    """
    count = int(rows.max()) + 1
    squares = values.square().sum(-1)
    return torch.zeros(count, dtype=squares.dtype, device=values.device).index_add(0, rows, squares).sqrt()


def within(values: Tensor, rows: Tensor, radius: float) -> Tensor:
    """The values with those of each sequence shortened to a norm of `radius`, where it is more.

    Example:
        >>> within(torch.tensor([[3.0], [4.0], [2.0]]), torch.tensor([0, 0, 1]), 2.5)
        tensor([[1.5000],
                [2.0000],
                [2.0000]])
    """
    found = norms(values, rows)
    return values * (radius / found.clamp_min(1e-12)).clamp_max(1.0)[rows][:, None]
