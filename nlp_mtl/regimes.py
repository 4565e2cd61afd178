"""Regimes of full fine-tuning: which of an encoder's own weights are trained. Heads always are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from nlp_mtl.depth import heights, layers_of
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.packing import base_of
from nlp_mtl.registry import Spec, tunings


class Regime:
    """Base of all regimes: names the encoder's parameters that are trained, by the names `AutoModel` gives."""

    paper: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    registered_as: ClassVar[str] = ""
    changes = False  # whether it is others in other steps

    def trained(self, base: nn.Module) -> set[str]:
        """Names of the parameters that are trained at some time.

        Raises:
            ConfigError: the encoder has none, or not so many layers.
        """
        raise NotImplementedError

    def trained_at(self, base: nn.Module, step: int, per_epoch: int) -> set[str]:
        """Names of those that are trained in a step, where it :attr:`changes`.

        Args:
            base: the encoder.
            step: the optimizer step, from 0.
            per_epoch: how many an epoch has.
        """
        return self.trained(base)


@tunings.register("bitfit")
class BitFit(Regime):
    """Trains the encoder's biases and nothing else of it.

    Relations: a LoRA trains about as few numbers, and can be merged away; this has nothing to merge.

    Example:
        >>> from nlp_mtl.testing import tiny_encoder
        >>> sorted(BitFit().trained(tiny_encoder("bert")))[-1]
        'pooler.dense.bias'
    """

    paper = "Ben Zaken et al., 2021, arXiv:2106.10199"
    cost = "the backward pass goes to the bottom, without the weights' gradients"

    def trained(self, base: nn.Module) -> set[str]:
        """See :meth:`Regime.trained`."""
        return _some(self, base, {name for name, _ in base.named_parameters() if name.endswith("bias")}, "biases")


@tunings.register("layer_norm")
class LayerNorms(Regime):
    """Trains the encoder's norms and nothing else of it.

    Relations: `bitfit` with other few numbers; also for encoders without biases.

    Example:
        >>> from nlp_mtl.testing import tiny_encoder
        >>> len(LayerNorms().trained(tiny_encoder("llama")))  # two for each of two layers, and the last
        5
    """

    paper = "Qi et al., 2022, arXiv:2211.08682"
    cost = BitFit.cost

    def trained(self, base: nn.Module) -> set[str]:
        """See :meth:`Regime.trained`."""
        norms = [name for name, part in base.named_modules() if type(part).__name__.endswith("Norm")]
        found = {f"{name}.{own}" for name in norms for own, _ in base.get_submodule(name).named_parameters()}
        return _some(self, base, found, "norms")


@tunings.register("last_layers")
class LastLayers(Regime):
    """Trains the encoder's last layers and what comes after them; no backward pass goes further down.

    Args:
        count: how many layers, at least 1 (none: ``freeze: "*"``).

    Relations: `freeze` with the patterns of all that lies below; between a linear probe and full fine-tuning.

    Example:
        >>> from nlp_mtl.testing import tiny_encoder
        >>> sorted({".".join(name.split(".")[:3]) for name in LastLayers(count=1).trained(tiny_encoder("bert"))})
        ['encoder.layer.1', 'pooler.dense.bias', 'pooler.dense.weight']
    """

    paper = "Lee et al., 2019, arXiv:1911.03090"
    cost = "less than full fine-tuning: no backward pass below, no optimizer state for it"

    def __init__(self, count: int):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            way = 'correct it, or train the heads alone with freeze: "*"'
            raise ConfigError(f"tuning 'last_layers': `count` is a whole number above 0, found {count!r}; {way}")
        self.count = count

    def trained(self, base: nn.Module) -> set[str]:
        """See :meth:`Regime.trained`."""
        return top(self, base, self.count, "count")


@tunings.register("gradual_unfreezing")
class GradualUnfreezing(Regime):
    """Trains the encoder from the top down: the last layers first, then one more every so often, embeddings last.

    Each layer's optimizer state begins when it is first trained. Goes with `layer_decay`, as in the paper.

    Args:
        every: one more layer each so many steps or epochs, at least 1.
        unit: ``epochs`` or ``steps``.
        first: how many layers are trained from the beginning; 0 for heads (and what comes after the layers) alone.

    Relations: `last_layers` whose count grows.

    Example:
        >>> from nlp_mtl.testing import tiny_encoder
        >>> slowly, base = GradualUnfreezing(every=10, unit="steps"), tiny_encoder("bert")
        >>> [len(slowly.trained_at(base, step, per_epoch=25)) for step in (0, 9, 10, 20)]
        [18, 18, 34, 39]
    """

    paper = "Howard and Ruder, 2018, arXiv:1801.06146"
    cost = "less than full fine-tuning, until all is trained"
    changes = True

    def __init__(self, every: int = 1, unit: str = "epochs", first: int = 1):
        wrong = []
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            wrong.append(f"tuning 'gradual_unfreezing': `every` is a whole number above 0, found {every!r}")
        if unit not in ("epochs", "steps"):
            wrong.append(f"tuning 'gradual_unfreezing': `unit` is epochs or steps, found {unit!r}")
        if isinstance(first, bool) or not isinstance(first, int) or first < 0:
            wrong.append(f"tuning 'gradual_unfreezing': `first` is a whole number from 0, found {first!r}")
        if wrong:
            raise ConfigError(wrong)
        self.every, self.unit, self.first = every, unit, first

    def trained(self, base: nn.Module) -> set[str]:
        """All of it, in the end."""
        top(self, base, self.first, "first")
        return {name for name, _ in base.named_parameters()}

    def trained_at(self, base: nn.Module, step: int, per_epoch: int) -> set[str]:
        """See :meth:`Regime.trained_at`."""
        done = step if self.unit == "steps" else step // max(1, per_epoch)
        return _from_top(base, self.first + done // self.every)


def top(regime: Regime, base: nn.Module, count: int, argument: str) -> set[str]:
    """The parameters of an encoder's last layers and of what comes after them.

    Raises:
        ConfigError: it has not so many layers, or none with weights of their own.
    """
    try:
        layers = len(layers_of(base))
    except UnsupportedError as error:
        raise ConfigError(f"tuning {regime.registered_as!r}: {error}") from None
    if count > layers:
        raise ConfigError(
            f"tuning {regime.registered_as!r}: `{argument}` is at most {layers}, the layers of this encoder, found "
            f"{count}; leave `tuning` out to train all"
        )
    return _from_top(base, count)


def _from_top(base: nn.Module, count: int) -> set[str]:
    found, layers = heights(base), len(layers_of(base))
    return {name for name, height in found.items() if height > layers - count}


def _some(regime: Regime, base: nn.Module, found: set[str], what: str) -> set[str]:
    if not found:
        raise ConfigError(
            f"tuning {regime.registered_as!r}: trains the encoder's {what}, and {type(base).__name__} has none; use "
            "another tuning, or a `lora`"
        )
    return found


def keep_to(encoder: nn.Module, spec: Spec) -> None:
    """Freeze what a regime does not train.

    Args:
        encoder: a `transformers` base model.
        spec: the regime.

    Raises:
        ConfigError: one that does not fit the encoder.
    """
    base = base_of(encoder)
    regime: Regime = tunings.build(spec)
    trained = regime.trained(base)
    for name, parameter in base.named_parameters():
        if name not in trained:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in base.parameters()):
        raise ConfigError(
            f"tuning {regime.registered_as!r}: trains weights of the encoder, and `freeze` keeps all "
            "of those; leave out one of the two"
        )


def check_together(frozen: Mapping[str, object], lora: object = None, task_lora: object = None) -> None:
    """Refuse keys about an encoder's own weights beside a LoRA, which freezes all of them.

    Args:
        frozen: `freeze`, `tuning`, `reinit_top_layers`, as they were given.
        lora, task_lora: likewise.

    Raises:
        ConfigError: with the way out.
    """
    adapters = [key for key, one in (("lora", lora), ("task_lora", task_lora)) if one is not None]
    if adapters:
        raised = [
            f"{key}: a LoRA freezes the encoder already, found {value!r} beside it; leave out `{key}` or "
            f"`{'` and `'.join(adapters)}`"
            for key, value in frozen.items()
            if value
        ]
        if raised:
            raise ConfigError(raised)
