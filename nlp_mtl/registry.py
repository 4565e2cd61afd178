"""Names for strategies: heads, sharings, samplers, balancers, regularizers, tunings, metrics, preparations, evidence
and estimators.

A strategy is one decorated class (or function) in one file::

    @samplers.register("uniform")
    class Uniform(Sampler): ...

and is written in a run file as its `name`, or as `{name: …, arguments}`. A user's own file is reached with
``imports:`` in the run file or through the entry point group ``nlp_mtl.<kind>``. Being registered puts a strategy
under the contract tests.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

from nlp_mtl.errors import ConfigError, UnknownNameError, suggestion
from nlp_mtl.fields import left_out, read_arguments

Spec = str | Mapping[str, Any]


@dataclass
class Registry:
    """A mapping from names to strategies of one kind, filled on first use.

    Args:
        kind: singular, as it appears in messages ("sampler").
        module: the module (or package) that registers the built-in ones; imported on first look-up, never before.
    """

    kind: str
    module: str
    _entries: dict[str, Any] = field(default_factory=dict, repr=False)
    _filled: bool = field(default=False, repr=False)

    def register(self, name: str) -> Callable[[Any], Any]:
        """Decorator: make a class or function known under `name`.

        Raises:
            ConfigError: another object already has this name.
        """

        def decorate(thing: Any) -> Any:
            known = self._entries.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (thing.__module__, thing.__qualname__):
                raise ConfigError(
                    f"{self.kind} {name!r} is registered twice, by {known.__module__} and {thing.__module__}; "
                    "rename one of them"
                )
            self._entries[name] = thing
            if inspect.isclass(thing):
                thing.registered_as = name  # type: ignore[attr-defined]
            return thing

        return decorate

    def _fill(self) -> None:
        if self._filled:
            return
        self._filled = True
        try:
            importlib.import_module(self.module)
            for point in entry_points(group=f"nlp_mtl.{self.kind}"):
                self.register(point.name)(point.load())
        except BaseException:  # the next look-up says so again, and not that nothing is known
            self._filled = False
            raise

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._fill()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        self._fill()
        return name in self._entries

    def __getitem__(self, name: str) -> Any:
        """The class or function registered as `name`.

        Raises:
            UnknownNameError: with near names.
        """
        self._fill()
        try:
            return self._entries[name]
        except KeyError:
            if (why := self.left_out().get(name)) is not None:
                raise UnknownNameError(self.kind, name, self._entries, why=f"it is left out: it {why}") from None
            raise UnknownNameError(self.kind, name, self._entries) from None

    def build(self, spec: Spec, *positional: Any) -> Any:
        """Make the strategy that `spec` describes: ``"name"`` or ``{"name": …, argument: value}``.

        Args:
            spec: the name, or a mapping with `name` and keyword arguments; an instance is handed back as it is.
            positional: arguments the caller supplies before the ones of the spec.

        Raises:
            UnknownNameError: no such name.
            ConfigError: an argument that the strategy does not take, or a value it refuses.
        """
        if not isinstance(spec, (str, Mapping)):
            return spec
        name, arguments = parse_spec(spec, self.kind)
        make = self[name]
        mistakes = self.check_arguments(name, arguments, given=len(positional))
        if mistakes:
            raise ConfigError(mistakes)
        arguments, _ = read_arguments(make, arguments)
        try:
            return make(*positional, **arguments)
        except (TypeError, AttributeError) as error:  # e.g. text where it compares numbers
            raise ConfigError(f"{self.kind} {name!r}: an argument is of the wrong type ({error})") from error
        except ConfigError as error:
            error.mistakes = [said + _way_out(make, said, arguments) for said in error.mistakes]
            raise ConfigError(error.mistakes) from error

    def check_arguments(self, name: str, arguments: Mapping[str, Any], *, given: int = 0) -> list[str]:
        """Messages for arguments of `name` that are unknown or missing (no message: all is well)."""
        parameters = list(inspect.signature(self[name]).parameters.values())[given:]
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        parameters = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        known = [p.name for p in parameters]
        needed = [p.name for p in parameters if p.default is p.empty]
        mistakes = [
            f"{self.kind} {name!r} takes no argument {key!r}{suggestion(key, known) if known else '; leave it out'}"
            for key in arguments
            if key not in known and not takes_any
        ]
        mistakes += [
            f"{self.kind} {name!r} needs the argument {key!r}, found none; write {{name: {name}, {key}: …}}"
            for key in needed
            if key not in arguments
        ]
        _, wrong = read_arguments(self[name], {key: arguments[key] for key in known if key in arguments})
        mistakes += [f"{self.kind} {name!r}: {message}" for message in wrong.values()]
        return mistakes

    def summary(self, name: str) -> str:
        """The first line of the strategy's docstring."""
        return (inspect.getdoc(self[name]) or "").split("\n", 1)[0]

    def needs(self, name: str) -> str:
        """What a strategy declares that it needs, or an empty string."""
        return ", ".join(sorted(getattr(self[name], "needs", ())))

    def cost(self, name: str) -> str:
        """What a strategy says that it costs, and under what license its solver is if that matters; or nothing."""
        made = self[name]
        return "; ".join(filter(None, [getattr(made, "cost", ""), getattr(made, "license", "")]))

    def left_out(self) -> dict[str, str]:
        """Known methods that are not registered, and why (`LEFT_OUT` of the module)."""
        self._fill()
        return dict(getattr(sys.modules[self.module], "LEFT_OUT", {}))

    def paper(self, name: str) -> str:
        """Where the method comes from (`paper` attribute), or an empty string."""
        return getattr(self[name], "paper", "")


def _way_out(make: Any, said: str, arguments: Mapping[str, Any]) -> str:
    """What the argument that a message names is when it is left out."""
    named = next((key for key in arguments if f"`{key}`" in said), None)
    if named is None or named not in inspect.signature(make).parameters or "; " in said:
        return ""
    return left_out(make, named) or "; correct it, for it is needed"


def parse_spec(spec: Spec, kind: str) -> tuple[str, dict[str, Any]]:
    """Split ``"name"`` or ``{"name": …, arguments}`` into the name and its arguments.

    Example:
        >>> parse_spec({"name": "temperature", "temperature": 2.0}, "sampler")
        ('temperature', {'temperature': 2.0})
    """
    if isinstance(spec, str):
        return spec, {}
    arguments = dict(spec) if isinstance(spec, Mapping) else {}
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{kind}: expected a name or {{name: …, arguments}}, found {spec!r}; add `name`")
    return name, arguments


def own_source(thing: Any) -> str:
    """The source of a user's own class, function or object, so that caches know when it changed; "" if built in."""
    made = thing if inspect.isclass(thing) or inspect.isfunction(thing) else type(thing)
    if made.__module__.split(".")[0] == "nlp_mtl":
        return ""
    try:
        return inspect.getsource(inspect.getmodule(made) or made)
    except (OSError, TypeError):  # typed into a notebook or a shell
        return f"{made.__module__}.{made.__qualname__}"


# Heads that task files may name before they are built: name → what it needs. Such tasks are listed and shown; training
# and loading refuse them. Whoever builds one removes its line.
PLANNED_HEADS: dict[str, str] = {}


def not_built(head: str) -> str:
    """What the head `head` still needs, if it is planned and nobody has registered it; else an empty string.

    Imports nothing, so that listing tasks stays quick.

    Example:
        >>> not_built("sequence_classification")
        ''
    """
    if head not in PLANNED_HEADS or head in heads._entries or head in _installed_heads():
        return ""
    return PLANNED_HEADS[head]


@lru_cache(maxsize=1)
def _installed_heads() -> frozenset[str]:
    """Heads of other packages, by their entry points; looking through all packages takes tens of milliseconds."""
    return frozenset(entry_points(group="nlp_mtl.head").names)


heads = Registry("head", "nlp_mtl.heads")
sharings = Registry("sharing", "nlp_mtl.sharing")
samplers = Registry("sampler", "nlp_mtl.samplers")
balancers = Registry("balancer", "nlp_mtl.balancers")
regularizers = Registry("regularizer", "nlp_mtl.regularizers")
tunings = Registry("tuning", "nlp_mtl.regimes")
metrics = Registry("metric", "nlp_mtl.metrics")
preparations = Registry("preparation", "nlp_mtl.preparations")
evidences = Registry("evidence", "nlp_mtl.transferring.evidence")
estimators = Registry("estimator", "nlp_mtl.transferring.estimators")


ALL: tuple[Registry, ...] = (
    *(heads, sharings, samplers, balancers, regularizers, tunings, metrics, preparations),
    *(evidences, estimators),
)
