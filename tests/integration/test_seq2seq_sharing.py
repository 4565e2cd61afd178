"""A decoder beside each sharing: what is loaded and exported writes what was trained; or it is refused first."""

from __future__ import annotations

import pytest
import torch

import nlp_mtl as mtl
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.run import train
from tests.integration.tiny import config, write_base, write_tasks, write_texts, write_writer

LORA = {"r": 4, "target_modules": "all-linear"}
OWN = {"decoder": {"layers": 1}, "target_tokenizer": {"vocab_size": 300}}
WRITES = {"generation": {"min_new_tokens": 3}}  # a decoder that has learned nothing may end at once
GROUPS = {"texts": ["back", "last", "mood"]}  # `last` writes with the decoder of `back`
SCHEMES = {
    "hard": {},
    "task_lora": {"task_lora": LORA},
    "soft": {"sharing": {"name": "soft", "penalty": 0.5}, "task_lora": LORA},
    "soft_encoders": {"sharing": "soft_encoders"},
    "branch": {"tree": {"depth": 1, "groups": GROUPS}},
    "branch-0": {"tree": {"depth": 0, "groups": GROUPS}},
    "cross_stitch": {"sharing": {"name": "cross_stitch", "layers": 1}},
    "experts": {"sharing": "mixture_of_experts"},
    "experts-token": {"sharing": {"name": "mixture_of_experts", "gates": "token"}},
    "experts-example": {"sharing": {"name": "mixture_of_experts", "gates": "example"}},
    "cross_task_attention": {"sharing": {"name": "cross_task_attention", "size": 8}},
    "embedding": {"sharing": {"name": "hard", "condition": "embedding"}},
    "layer_norm": {"sharing": {"name": "hard", "condition": "layer_norm"}},
    "prefix": {"sharing": {"name": "hard", "condition": "prefix"}},
    "layer": {"heads": {"back": {"layer": 1}}},
    "mix": {"heads": {"back": {"layer": "mix"}}},
}
STAY = {
    "cross_stitch": "reads the towers of all tasks",
    "experts-token": "mixes its experts anew for every token",
    "experts-example": "mixes its experts anew for every text",
    "cross_task_attention": "reads the other tasks' features",
    "prefix": "has learned vectors before every row",
    "mix": "reads a mix of all layers",
    "t5 layer": "reads layer 1, before the norm that T5Model ends with",
}
REFUSED = {
    "experts full": "its experts are LoRAs, and the run has no `lora`",
    "experts-token full": "its experts are LoRAs, and the run has no `lora`",
    "experts-example full": "its experts are LoRAs, and the run has no `lora`",
    **{
        f"{family} {name}": "its layers can't be parted; use another sharing"
        for family in ("t5", "bart")
        for name in ("branch", "cross_stitch")
    },
    **{f"{family} experts-example": "gates on texts need a family that packs" for family in ("t5", "bart")},
    "t5 layer_norm": "T5Model has no LayerNorm to condition",
}
FEW = ("soft_encoders", "branch", "branch-0", "cross_task_attention", "layer_norm", "layer")
PEFT = ("task_lora", "soft", "experts", "experts-token", "experts-example")
WAYS = [  # a few seconds each: one tuning of every sharing, and what T5 and BART have of their own
    *(f"bert {name} {'lora' if name in PEFT or number % 2 else 'full'}" for number, name in enumerate(SCHEMES)),
    *(f"t5 {name} {'lora' if name in PEFT else 'full'}" for name in (*FEW, "experts-example")),
    *(f"bart {name} full" for name in ("soft_encoders", "layer")),
    "bert experts full",
]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Family → its pretrained folder, and two tasks that write beside one that does not."""
    folder = tmp_path_factory.mktemp("worlds")
    mood = write_tasks(folder / "data", rows=24)[0]
    made = {"bert": (write_base(folder / "bert"), [*write_texts(folder / "own", rows=24, **WRITES, **OWN), mood])}
    texts = write_texts(folder / "texts", rows=24, **WRITES)
    return made | {family: (write_writer(folder / family, family), [*texts, mood]) for family in ("t5", "bart")}


def reason(table, family, name, tuning):
    """What a table says of a way."""
    return next((table[key] for key in (f"{family} {name}", f"{name} {tuning}", name) if key in table), None)


@pytest.mark.parametrize("way", WAYS)
def test_a_decoder_beside_each_sharing_writes_the_same_after_loading_or_is_refused_first(worlds, tmp_path, way):
    family, name, tuning = way.split()
    base, tasks = worlds[family]
    changes = {**SCHEMES[name], **({"lora": LORA} if tuning == "lora" and "task_lora" not in SCHEMES[name] else {})}
    said = config(base, tasks, tmp_path / "run", **changes, training={"max_steps": 2})
    if (why := reason(REFUSED, family, name, tuning)) is not None:
        with pytest.raises((ConfigError, UnsupportedError), match=why):
            train(said)
        assert not list(tmp_path.glob("run/*.safetensors")), "before the first step"
        return
    model = train(said).model.eval()
    texts = ["the red cat", "rain and sun on the old city"]
    answers = mtl.predict(model, texts)
    loaded = mtl.MultiTaskModel.from_pretrained(tmp_path / "run", base=base)
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert mtl.predict(loaded, texts) == answers
    assert [mtl.predict(loaded, text) for text in texts] == answers
    stays = reason(STAY, family, name, tuning)
    for task in ("back", "last"):
        if stays is None:  # generate() of the folder writes the same: the export compares them
            assert mtl.export_task(tmp_path / "run", task, tmp_path / task, base=base).difference < 1e-5
        else:
            with pytest.raises(UnsupportedError, match=stays):
                mtl.export_task(tmp_path / "run", task, tmp_path / task, base=base)


def test_a_lent_decoder_stands_in_the_group_of_its_lender(worlds, tmp_path):
    base, tasks = worlds["bert"]
    tree = {"depth": 1, "groups": {"a": ["back"], "b": ["last", "mood"]}}
    with pytest.raises(ConfigError, match="'last' uses the head of 'back' and so its layers, found them in different"):
        train(config(base, tasks, tmp_path / "run", tree=tree))
