"""Names of strategies: registered once, found or nearly found, built with checked arguments."""

from __future__ import annotations

import re
import sys
import types
from importlib.metadata import EntryPoint

import pytest

from nlp_mtl import registry
from nlp_mtl.errors import ConfigError, UnknownNameError
from nlp_mtl.registry import Registry, parse_spec

EVERY = [(kind, name) for kind in registry.ALL for name in kind.names()]
ids = [f"{kind.kind}-{name}" for kind, name in EVERY]

YEAR = re.compile(r"\b(?:18|19|20)\d\d\b(?!\.)")
FOUND_BY = re.compile(
    r"doi:10\.\d+/\S+$|openreview:\w+$|arXiv:(?:\d{4}\.\d{4,5}|[a-z-]+/\d{7})\b|, [A-Z][A-Za-z &-]+ \d+$"
)  # or a journal and volume


class Thing:
    """A thing.

    More about it.
    """

    paper = "Someone, 2020, arXiv:2001.00001"

    def __init__(self, size: int, *, colour: str = "red"):
        if size < 0:
            raise ConfigError(f"thing: `size` is at least 0, found {size}")
        self.size, self.colour = size, colour


class Loose:
    """A thing that takes anything besides."""

    def __init__(self, size: int, **more: object):
        self.size, self.more = size, more


@pytest.fixture
def things():
    made = Registry("thing", "nlp_mtl.errors")  # a module that registers nothing
    made.register("plain")(Thing)
    made.register("loose")(Loose)
    return made


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=ids)
def test_every_strategy_has_a_summary_of_one_line(kind, name):
    summary = kind.summary(name)
    assert 10 <= len(summary) <= 160
    assert summary[0].isupper()
    assert summary.rstrip().endswith((".", ":")), "a whole sentence on the first line"
    if isinstance(kind[name], type):
        assert vars(kind[name]).get("__doc__"), "its own words, not those of its base class"


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=ids)
def test_a_paper_can_be_found(kind, name):
    paper = kind.paper(name)
    years = [int(year) for year in YEAR.findall(paper)]
    old = bool(years) and max(years) < 1993  # before there was arXiv, author, title and year must do
    assert paper == "" or (years and (old or FOUND_BY.search(paper))), paper


def test_all_kinds_are_listed_once_and_filled():
    kinds = ["head", "sharing", "sampler", "balancer", "regularizer", "tuning", "metric", "preparation"]
    kinds += ["evidence", "estimator"]
    assert [kind.kind for kind in registry.ALL] == kinds
    assert all(kind.names() for kind in registry.ALL)
    assert "temperature" in registry.samplers
    assert "temprature" not in registry.samplers
    assert list(registry.samplers) == sorted(registry.samplers.names())


def test_an_unknown_name_gets_near_ones(things):
    with pytest.raises(UnknownNameError, match=r"unknown thing 'plian'; did you mean 'plain'\?"):
        things["plian"]
    with pytest.raises(UnknownNameError, match="plain"):
        things.build("plian")


def test_build_takes_a_name_a_mapping_or_what_is_built_already(things):
    built = things.build({"name": "plain", "size": 3})
    assert (type(built), built.size, built.colour) == (Thing, 3, "red")
    assert things.build({"name": "plain", "colour": "blue"}, 4).size == 4, "positional arguments come first"
    assert things.build(built) is built


def test_the_mapping_given_to_build_is_left_alone(things):
    spec = {"name": "plain", "size": 1}
    things.build(spec)
    assert spec == {"name": "plain", "size": 1}


def test_wrong_arguments_are_all_named_at_once(things):
    with pytest.raises(ConfigError) as caught:
        things.build({"name": "plain", "clour": "red", "shape": 1})
    assert caught.value.mistakes == [
        "thing 'plain' takes no argument 'clour'; did you mean 'colour'?",
        "thing 'plain' takes no argument 'shape'; known: size, colour",
        "thing 'plain' needs the argument 'size', found none; write {name: plain, size: …}",
    ]
    assert things.check_arguments("plain", {"colour": "blue"}, given=1) == []
    assert things.check_arguments("plain", {"size": 1}, given=1) == [
        "thing 'plain' takes no argument 'size'; known: colour"
    ], "the caller supplies it"


def test_what_takes_anything_still_needs_what_it_needs(things):
    assert things.build({"name": "loose", "size": 1, "colour": "red"}).more == {"colour": "red"}
    with pytest.raises(ConfigError, match="needs the argument 'size'"):
        things.build({"name": "loose", "colour": "red"})


def test_a_refused_value_and_a_value_of_the_wrong_type_are_mistakes_of_the_config(things):
    with pytest.raises(ConfigError, match="`size` is at least 0, found -1"):
        things.build({"name": "plain", "size": -1})
    with pytest.raises(ConfigError, match="thing 'plain': `size` is a whole number, found 'three'"):
        things.build({"name": "plain", "size": "three"})


def test_a_name_belongs_to_one_object(things):
    assert things.register("plain")(Thing) is Thing, "the same again is no mistake: a module may be imported twice"
    with pytest.raises(ConfigError, match=r"thing 'plain' is registered twice, by .* rename one of them"):
        things.register("plain")(Loose)
    assert things["plain"] is Thing


def test_summary_and_paper(things):
    assert things.summary("plain") == "A thing."
    assert things.paper("plain") == "Someone, 2020, arXiv:2001.00001"
    assert things.paper("loose") == ""


def test_entry_points_are_found_under_the_kind(monkeypatch):
    module = types.ModuleType("somebodys_package")
    module.Thing = Thing
    monkeypatch.setitem(sys.modules, "somebodys_package", module)
    points = {"nlp_mtl.gadget": [EntryPoint("theirs", "somebodys_package:Thing", "nlp_mtl.gadget")]}
    monkeypatch.setattr(registry, "entry_points", lambda group: points.get(group, []))
    gadgets = Registry("gadget", "nlp_mtl.errors")
    assert gadgets.names() == ["theirs"]
    assert gadgets.build({"name": "theirs", "size": 2}).size == 2


def test_a_module_that_cannot_be_imported_is_not_forgotten():
    broken = Registry("thing", "nlp_mtl.no_such_module")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            broken.names()


@pytest.mark.parametrize("spec", [{}, {"temperature": 2}, {"name": 3}, {"name": None}, {"name": ["a"]}, ["a"], 3, None])
def test_a_spec_without_a_name_is_refused(spec):
    with pytest.raises(ConfigError, match=r"sampler: expected a name or \{name: …, arguments\}, found"):
        parse_spec(spec, "sampler")


def test_parse_spec_splits_and_copies():
    given = {"name": "a", "b": 1}
    assert parse_spec(given, "x") == ("a", {"b": 1})
    assert given == {"name": "a", "b": 1}
    assert parse_spec("a", "x") == ("a", {})
