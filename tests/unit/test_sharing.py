"""How tasks share: what each scheme is equal to at its limits, and that it learns, leaves and comes back."""

from __future__ import annotations

import copy
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn import functional

from nlp_mtl import MultiTaskModel
from nlp_mtl.batches import collate
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.experts import Gate
from nlp_mtl.exporting.plain import whole_class
from nlp_mtl.heads import make_heads
from nlp_mtl.layout import Layout
from nlp_mtl.packing import Packed, base_of
from nlp_mtl.prediction import predict
from nlp_mtl.rates import chosen_rates
from nlp_mtl.sharing import Sharing
from nlp_mtl.sharing.cross_stitch import Stitch
from nlp_mtl.sharing.distances import apartness, products
from nlp_mtl.taskfile import Task
from nlp_mtl.tasklora import NOBODY
from nlp_mtl.testing import tiny_encoder, tiny_model, tiny_tokenizer

torch.set_num_threads(1)

LORA = {"r": 2, "target_modules": "all-linear"}
MOOD = Task(
    name="mood", head="sequence_classification", dataset={"path": "x"}, inputs=["text"], target="y", labels=["a", "b"]
)
KIND = MOOD.with_(name="kind", labels=["a", "b", "c"])
WORDS = Task(
    name="words",
    head="token_classification",
    dataset={"path": "x"},
    inputs=["tokens"],
    target="tags",
    labels=["O", "B-X"],
)
TASKS = [MOOD, KIND, WORDS]
# Every scheme, with what it needs besides.
SCHEMES = {
    "hard": ({"name": "hard"}, {}),
    "conditioned": ({"name": "hard", "condition": ["embedding", "layer_norm"]}, {}),
    "conditioned-lora": ({"name": "hard", "condition": ["embedding", "layer_norm"]}, {"lora": LORA}),
    "prefix": ({"name": "hard", "condition": "prefix", "prefix_length": 3}, {"lora": LORA}),
    "layers": ({"name": "hard"}, {"heads": {"mood": {"layer": 1}, "kind": {"layer": "mix"}}}),
    "layers-task_lora": (
        {"name": "hard"},
        {"heads": {"mood": {"layer": 1}, "kind": {"layer": "mix"}}, "task_lora": LORA},
    ),
    "branch": ({"name": "branch", "depth": 1, "groups": {"texts": ["mood", "kind"]}}, {}),
    "branch-lora": ({"name": "branch", "depth": 1}, {"lora": LORA}),
    "soft": ({"name": "soft"}, {"lora": LORA, "task_lora": LORA}),
    "soft_encoders": ({"name": "soft_encoders"}, {}),
    "cross_stitch": ({"name": "cross_stitch", "layers": 1}, {}),
    "sluice-lora": ({"name": "cross_stitch", "layers": 2, "subspaces": 2}, {"lora": LORA}),
    "experts": ({"name": "mixture_of_experts", "experts": 3}, {"lora": LORA}),
    "experts-per_layer": ({"name": "mixture_of_experts", "experts": 3, "per_layer": True}, {"lora": LORA}),
    "experts-token": (
        {"name": "mixture_of_experts", "gates": "token", "experts": 3, "private": 1, "top_k": 2, "balance": 0.1},
        {"lora": LORA},
    ),
    "experts-example": ({"name": "mixture_of_experts", "gates": "example", "private": 1}, {"lora": LORA}),
    "cross_task_attention": ({"name": "cross_task_attention", "size": 8}, {}),
    "cross_task_attention-lora": ({"name": "cross_task_attention", "size": 8}, {"lora": LORA}),
}
LEAVES = {
    "experts-per_layer",
    "layers",
    "layers-task_lora",
    "hard",
    "conditioned",
    "conditioned-lora",
    "branch",
    "branch-lora",
    "soft",
    "soft_encoders",
    "experts",
}


def made(name, family="bert", tasks=TASKS, **more):
    sharing, how = SCHEMES[name]
    return model_of(tasks, family, sharing=sharing, **how, **more)


def model_of(tasks, family="bert", **how):
    torch.manual_seed(0)  # of LoRA's first weights
    return tiny_model(tasks, family, **copy.deepcopy(how))


def shaken(model, size=0.1, seed=1):
    """The same model with other weights everywhere that is trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * size)
    return model


def row(length, seed, **labels):
    ids = torch.randint(5, 90, (length,), generator=torch.Generator().manual_seed(seed)).numpy()
    own = {f"labels:{task}": value for task, value in labels.items()}
    words = torch.arange(len(labels["words"])).numpy() if "words" in labels else None
    more = {"word_positions": words} if words is not None else {}
    return {"input_ids": ids, "lengths": [length], "token_type_ids": 0 * ids, **own, **more}


def rows_of(model):
    tags = torch.tensor([0, 1, 1, 0, 1]).numpy()
    rows = [row(4, 0, mood=1), row(7, 1, kind=2), row(6, 2, words=tags), row(3, 3, mood=0), row(9, 4, kind=0)]
    both = row(5, 5, mood=1, kind=1)
    readers = [["mood"], ["kind"], ["words"], ["mood"], ["kind"], ["mood", "kind"]]
    return collate([*rows, both], readers, model.heads)


def logits(model, batch=None):
    with torch.no_grad():
        return model.eval()(**(batch or rows_of(model)))["logits"]


def same(a, b, atol=1e-6):
    for task, value in a.items():
        torch.testing.assert_close(b[task], value, atol=atol, rtol=1e-5, msg=lambda text, task=task: f"{task}: {text}")


def trained(model, steps=4, rate=0.02, penalty=True):
    """A few steps of plain SGD, with the sharing's penalty."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(**rows_of(model))["loss"]
        extra = model.sharing.penalty() if penalty else None
        (loss if extra is None else loss + extra).backward()
        optimizer.step()
    return model


# --------------------------------------------------------------------------------------------------------- every scheme


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_every_trained_parameter_gets_a_gradient(name):
    model = shaken(made(name))
    model.train()
    out = model(**rows_of(model))
    extra = model.sharing.penalty()
    (out["loss"] if extra is None else out["loss"] + extra).backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    tagger = {n for n in without if ".pooler." in n and "words" in n}  # its class has no pooler
    below = {n for n in without if "mood" in n and "layer.1." in n and "layers" in name}  # it reads the first layer
    top_k = {
        n for n in without if name == "experts-token" and (".lora_" in n or ".gate." in n)
    }  # some are never chosen
    assert not without - tagger - below - top_k
    assert len(top_k) <= 4


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_saved_and_loaded_it_is_the_same_to_the_bit(name, tmp_path):
    model = shaken(made(name))
    model.save_pretrained(tmp_path / "run")
    plain = tiny_encoder("bert")
    plain.save_pretrained(tmp_path / "base")
    model.tokenizer.save_pretrained(tmp_path / "base")
    adapted = {"base": tmp_path / "base"} if {"lora", "task_lora"} & set(SCHEMES[name][1]) else {}
    back = MultiTaskModel.from_pretrained(tmp_path / "run", **adapted)
    ours, theirs = model.state_dict(), back.state_dict()
    assert set(ours) == set(theirs)
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    for task, value in logits(model).items():
        assert torch.equal(logits(back)[task], value), task
    at_root = {file.name for file in (tmp_path / "run").iterdir()} & {"model.safetensors", "adapter_model.safetensors"}
    assert bool(at_root) == model.sharing.ordinary, "no root file that would load and be wrong"


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_a_task_leaves_as_an_ordinary_encoder_or_is_refused_with_the_reason(name):
    model = shaken(made(name))
    batch, expected = rows_of(model), logits(model)
    for task in model.tasks:
        layers = getattr(getattr(model.sharing, "reads", None), "layers", {})
        if name not in LEAVES or layers.get(task) == "mix":
            with pytest.raises(UnsupportedError, match=f"task '{task}' .{{20}}"):
                whole_class(model, task)
            continue
        plain = whole_class(model, task)
        texts = batch["input_ids"].split(batch["lengths"].tolist())
        places = [number for number, text in enumerate(texts) if len(text) == 6]
        if task != "words":
            places = batch["targets"][task]["sequences"].flatten().tolist()
        found = []
        for place in places:
            ids = texts[place][None]
            with torch.no_grad():
                found.append(plain(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0])
        if task == "words":
            assert torch.allclose(found[0][: len(expected[task])], expected[task], atol=1e-5)
        else:
            assert torch.allclose(torch.stack(found), expected[task], atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(SCHEMES) - {"experts-example"}))
@pytest.mark.parametrize("family", ["bert", "deberta-v2", "qwen2"])
def test_alone_or_in_a_mixed_batch_a_row_gets_the_same(name, family):
    """Packed or padded by groups: no row sees another."""
    if family == "qwen2" and "conditioned" in name:
        with pytest.raises(UnsupportedError, match="has no LayerNorm to condition"):
            made(name, family)
        return
    model = shaken(made(name, family))
    together = logits(model)
    alone = {
        "mood": logits(model, collate([row(4, 0, mood=1)], [["mood"]], model.heads))["mood"],
        "kind": logits(model, collate([row(5, 5, kind=1)], [["kind"]], model.heads))["kind"],
    }
    assert torch.allclose(together["mood"][0], alone["mood"][0], atol=1e-5)
    assert torch.allclose(together["kind"][-1], alone["kind"][0], atol=1e-5)


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_a_batch_where_no_row_is_copied_gives_each_task_its_own_pooler(name):
    """What heads pool together is not that of the first task: poolers have adapters and gates too."""
    model = shaken(made(name))
    rows = [row(4, 0, mood=1), row(7, 1, kind=2), row(3, 3, mood=0), row(9, 4, kind=0)]
    together = logits(model, collate(rows, [["mood"], ["kind"]] * 2, model.heads))
    for first, task in enumerate(("mood", "kind")):
        alone = logits(model, collate(rows[first::2], [[task]] * 2, model.heads))
        assert torch.allclose(together[task], alone[task], atol=1e-5), task


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_one_call_answers_every_task(name):
    model = shaken(made(name))
    answers = predict(model, [{"text": "a good cat", "tokens": ["a", "cat"]}, {"text": "no", "tokens": ["red"]}])
    assert all(set(answer) == {"mood", "kind", "words"} for answer in answers)


@pytest.mark.parametrize("name", ["branch", "branch-lora", "cross_stitch", "layers", "experts"])
def test_threads_that_predict_at_once_get_their_own_answers(name):
    """What stops a pass, or says whose its rows are, is kept with the encoder; another thread's pass is another's."""
    model = shaken(made(name))
    texts = [" ".join(["good", "cat", "dog", "sun"][number % 4 :]) for number in range(8)]
    asked = [["mood"], ["kind"]]
    expected = [[predict(model, {"text": text}, tasks=tasks) for text in texts] for tasks in asked]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            jobs = [
                (tasks, number, pool.submit(predict, model, {"text": text}, tasks=asked[tasks]))
                for _ in range(4)
                for number, text in enumerate(texts)
                for tasks in (0, 1)
            ]
            for tasks, number, job in jobs:
                assert job.result() == expected[tasks][number]
    finally:
        sys.setswitchinterval(usual)


@pytest.mark.parametrize(
    ("sharing", "how"),
    [
        ("hard", {}),
        ("hard", {"lora": LORA}),
        ({"name": "hard", "condition": "embedding"}, {}),
        ({"name": "soft"}, {"lora": LORA, "task_lora": LORA}),
        ({"name": "cross_task_attention", "size": 8}, {}),
        ("mixture_of_experts", {"lora": LORA}),
    ],
    ids=str,
)
def test_some_tasks_of_a_run_where_several_mix_layers_can_be_opened(sharing, how, tmp_path):
    heads = {"mood": {"layer": "mix"}, "kind": {"layer": "mix"}}
    model = shaken(model_of(TASKS, sharing=sharing, heads=heads, **how))
    model.save_pretrained(tmp_path / "run")
    tiny_encoder("bert").save_pretrained(tmp_path / "base")
    model.tokenizer.save_pretrained(tmp_path / "base")
    adapted = {"base": tmp_path / "base"} if how else {}
    for task in ("kind", "words"):
        back = MultiTaskModel.from_pretrained(tmp_path / "run", tasks=[task], **adapted)
        text = {"text": "a good cat", "tokens": ["a", "good", "cat"]}
        assert predict(back, text)[task] == predict(model, text)[task]


def test_a_lent_head_reads_the_mix_of_its_lender():
    again = MOOD.with_(name="again", head_of="mood")
    model = shaken(model_of([*TASKS, again], heads={"mood": {"layer": "mix"}}))
    answers = predict(model, {"text": "a good cat"}, tasks=["mood", "again"])
    assert answers["again"] == answers["mood"]
    assert sorted(model.sharing.reads.mixes) == ["mood"]


def test_a_lent_heads_rows_cost_what_its_lenders_would():
    """Its text was seen by the lender's gates, so their balance is part of its loss."""
    again = MOOD.with_(name="again", head_of="mood")
    sharing = {"name": "mixture_of_experts", "gates": "token", "balance": 0.5}
    model = shaken(model_of([*TASKS, again], sharing=sharing, lora=LORA)).train()
    losses = []
    for task in ("mood", "again"):
        batch = collate([row(4, 0, **{task: 1})], [[task]], model.heads)
        out = model(**batch)
        losses.append(out["loss"])
        assert out["loss"] > out["losses"][task] + 0.4  # even use costs 1 times 0.5
    assert losses[0] == losses[1]


@pytest.mark.parametrize("name", ["cross_task_attention", "soft_encoders", "experts"])
def test_a_run_loaded_in_part_is_not_saved(name, tmp_path):
    shaken(made(name)).save_pretrained(tmp_path / "run")
    tiny_encoder("bert").save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    part = MultiTaskModel.from_pretrained(tmp_path / "run", tasks=["kind"], base=tmp_path / "base")
    with pytest.raises(UnsupportedError, match=r"was learned for mood, words too.*leave out `tasks`"):
        part.save_pretrained(tmp_path / "part")
    assert not (tmp_path / "part").exists()


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_the_rate_of_the_encoder_is_that_of_all_that_is_shared(name):
    model = made(name)
    rates = chosen_rates(model, {"encoder": 0.5})
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert set(rates) == {id(p) for n, p in trained.items() if n.startswith("sharing.")}
    assert set(chosen_rates(model, {"encoder": 0.5, "heads": 0.1})) == {id(p) for p in trained.values()}


@pytest.mark.parametrize("name", ["train", "keys", "type", "forward"])
def test_a_task_is_not_named_as_what_pytorch_modules_have(name):
    with pytest.raises(ConfigError, match=f"task '{name}'.*rename the task"):
        model_of([MOOD.with_(name=name), KIND])


def test_a_frozen_encoder_gives_the_same_features_also_to_who_mixes_its_layers():
    shape = {"dropout": 0.5, "freeze": "*", "heads": {"mood": {"layer": "mix"}}}
    for how in (shape, {**shape, "heads": {}, "sharing": {"name": "cross_task_attention", "size": 8}}):
        assert not model_of(TASKS, **how).train().sharing.encoder.training


@pytest.mark.parametrize("name", ["conditioned", "branch", "soft_encoders", "cross_stitch", "cross_task_attention"])
@pytest.mark.parametrize("patterns", [["embeddings.*"], ["encoder.layer.1.*", "pooler.*"]], ids=str)
def test_what_was_frozen_is_frozen_when_it_comes_back(name, patterns, tmp_path):
    model = shaken(made(name, freeze=patterns))
    model.save_pretrained(tmp_path)
    back = MultiTaskModel.from_pretrained(tmp_path)
    assert {n: p.requires_grad for n, p in back.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }
    same(logits(model), logits(back), atol=0)


def test_a_group_may_be_called_as_peft_calls_its_adapter():
    groups = {"default": ["mood", "kind"]}
    ours, theirs = (
        shaken(model_of(TASKS, sharing={"name": "branch", "depth": 1, "groups": said}, lora=LORA))
        for said in (groups, {"texts": ["mood", "kind"]})
    )
    same(logits(theirs), logits(ours), atol=0)


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "electra"])
def test_a_masked_lm_told_its_task_in_the_words_leaves_whole(family):
    """What is added to the words is not added to the tied output layer."""
    guess = Task(name="guess", head="masked_lm", dataset={"path": "x"}, inputs=["text"])
    condition = {"name": "hard", "condition": ["embedding", "layer_norm"]}
    model = shaken(model_of([MOOD, guess], family, sharing=condition)).eval()
    ids, places = torch.tensor([2, 20, 4, 30, 3]), torch.tensor([2])
    with torch.no_grad():
        layout = Layout([5])
        layout.read_by = {"guess": places}
        packed = model.sharing.encode({"input_ids": ids}, layout, ["guess"])["guess"]
        expected = model.heads["guess"].forward(model.module_of("guess"), packed, {"positions": places})
        found = whole_class(model, "guess")(input_ids=ids[None]).logits[0, places]
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("family", "room"), [("bert", 512), ("roberta", 512)])
def test_texts_that_leave_no_room_for_prefixes_are_refused_before_training(family, room):
    """RoBERTa's first two positions are never a token's."""

    def made_for(length):
        encoder, heads = tiny_encoder(family), make_heads([MOOD])
        sharing = {"name": "hard", "condition": "prefix", "prefix_length": 8}
        return MultiTaskModel.assemble(encoder, tiny_tokenizer(), heads, sharing=sharing, max_length=length)

    with pytest.raises(ConfigError, match=f"set max_length to {room - 8} or less"):
        made_for(room - 7)
    model = made_for(room - 8)
    logits(model, collate([row(room - 8, 0, mood=1)], [["mood"]], model.heads))


def test_recomputed_activations_give_the_same_gradients():
    for name in ("experts", "experts-example", "conditioned", "branch", "cross_stitch", "layers"):
        found = []
        for again in (False, True):
            model = shaken(made(name))
            model.train()
            if again:
                model.activation_checkpointing_enable()
            model(**rows_of(model))["loss"].backward()
            found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        assert set(found[0]) == set(found[1])
        for key, value in found[0].items():
            torch.testing.assert_close(
                found[1][key], value, atol=1e-6, rtol=1e-4, msg=lambda t, k=(name, key): f"{k} {t}"
            )


# --------------------------------------------------------------------------------------------------------- their limits


@pytest.mark.parametrize("name", sorted(set(SCHEMES) - {"prefix", "layers", "layers-task_lora"}))
def test_training_starts_as_hard_sharing(name):
    """Copies are copies, gates are 0, adapters add nothing; stitches mix what is still the same."""
    same(logits(model_of(TASKS)), logits(made(name)), atol=1e-6)


@pytest.mark.parametrize("name", ["branch", "branch-lora", "sluice-lora", "experts", "soft", "experts-token"])
@pytest.mark.parametrize("family", ["roberta", "distilbert", "electra", "modernbert", "gpt2", "llama", "gpt_neox"])
def test_training_starts_as_hard_sharing_in_every_family(name, family):
    same(logits(model_of(TASKS, family)), logits(made(name, family)), atol=1e-5)


@pytest.mark.parametrize("gates", ["task", "token", "example"])
def test_one_expert_is_hard_sharing(gates):
    one = {"name": "mixture_of_experts", "experts": 1, "gates": gates}
    ours = trained(model_of(TASKS, sharing=one, lora=dict(LORA)))
    theirs = trained(model_of(TASKS, lora=dict(LORA)))
    same(logits(theirs), logits(ours), atol=1e-5)


def test_soft_without_penalty_is_an_adapter_per_task_and_with_much_they_come_together():
    def distance(model):
        return float(model.sharing.penalty()) / model.sharing.strength

    none = trained(model_of(TASKS, sharing={"name": "soft", "penalty": 0.0}, task_lora=dict(LORA)))
    apart = trained(model_of(TASKS, task_lora=dict(LORA)))
    same(logits(apart), logits(none))
    far = []
    for strength in (1e-9, 1.0, 30.0):
        sharing = {"name": "soft", "penalty": strength}
        model = shaken(model_of(TASKS, sharing=sharing, task_lora=dict(LORA)), 0.3)
        far.append(distance(trained(model, steps=30, rate=2e-4)))
    assert far[0] > far[1] > far[2]
    assert far[2] < 0.05 * far[0]


@pytest.mark.parametrize("shared", [False, True])
def test_the_penaltys_gradients_are_autograds(shared):
    how = {"task_lora": {**LORA, "lora_alpha": 3}, **({"lora": LORA} if shared else {})}
    sharing = shaken(model_of(TASKS, sharing={"name": "soft", "penalty": 0.7}, **how)).sharing
    value, parameters, gradients = sharing.penalty_gradients()
    expected, their, theirs = Sharing.penalty_gradients(sharing)
    assert value == pytest.approx(expected, rel=1e-5)
    known = {id(p): g for p, g in zip(their, theirs, strict=True) if g.any()}
    assert {id(p) for p, g in zip(parameters, gradients, strict=True) if g.any()} == set(known)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert gradient.is_contiguous() and gradient.shape == parameter.shape
        torch.testing.assert_close(gradient, known[id(parameter)], atol=1e-6, rtol=1e-4)


def test_tied_encoders_without_penalty_are_separate_ones_and_with_much_they_come_together():
    ours = trained(model_of(TASKS, sharing={"name": "soft_encoders", "penalty": 0.0}))
    for task in TASKS:
        alone = model_of([task])
        optimizer = torch.optim.SGD(alone.parameters(), lr=0.02)
        alone.train()
        for _ in range(4):
            optimizer.zero_grad()
            batch = rows_of(ours)
            batch["targets"] = {task.name: batch["targets"][task.name]}
            alone(**batch)["loss"].backward()
            optimizer.step()
        batch["targets"] = {task.name: rows_of(ours)["targets"][task.name]}
        same(logits(alone, batch), logits(ours, batch), atol=1e-5)
    model = shaken(model_of(TASKS, sharing={"name": "soft_encoders", "penalty": 10.0}))
    before = float(model.sharing.penalty())
    assert float(trained(model, steps=10, rate=0.01).sharing.penalty()) < 0.05 * before


def test_cross_stitch_units_at_the_identity_are_separate_towers():
    stitched = model_of(TASKS, sharing={"name": "cross_stitch", "layers": 1, "own": 1.0})
    for unit in stitched.sharing.stitches:
        unit.weights.requires_grad_(False)
    same(
        logits(trained(model_of(TASKS, sharing={"name": "branch", "depth": 1}))),
        logits(trained(stitched)),
        atol=1e-5,
    )


def test_a_branch_at_the_top_is_hard_sharing():
    top = model_of(TASKS, sharing={"name": "branch", "depth": 2})
    assert not top.sharing.towers and top.sharing.ordinary
    same(logits(trained(model_of(TASKS))), logits(trained(top)))


def test_cross_task_attention_with_gates_at_0_is_hard_sharing():
    ours = model_of(TASKS, sharing={"name": "cross_task_attention", "size": 8})
    for gate in ours.sharing.gates.values():
        gate.requires_grad_(False)
    same(logits(trained(model_of(TASKS))), logits(trained(ours)))


def test_a_task_looks_at_the_others_features_and_not_at_its_own():
    model = shaken(made("cross_task_attention"))
    sharing, before = model.sharing, logits(model)
    size, number = sharing.size, sharing.tasks.index("mood")
    with torch.no_grad():
        for part in sharing.features.weight.chunk(2):
            part[number * size : (number + 1) * size] += 1.0
    after = logits(model)
    assert torch.equal(after["mood"], before["mood"])
    assert not torch.allclose(after["kind"], before["kind"])


# ----------------------------------------------------------------------------------------------------- what is computed


def counted(model):
    """How many rows of tokens go through each layer of the shared part."""
    from nlp_mtl.depth import layers_of

    seen = []
    for layer in layers_of(base_of(model.sharing.encoder)):
        layer.register_forward_pre_hook(
            lambda _, given, named, place=len(seen): seen.__setitem__(
                place, seen[place] + (given[0] if given else named["hidden_states"]).shape[-2]
            ),
            with_kwargs=True,
        )
        seen.append(0)
    return seen


def test_the_shared_part_is_computed_once_whoever_reads_a_row():
    model = made("branch-lora")
    seen = counted(model)
    rows = collate([row(16, 0, mood=1, kind=1)], [["mood", "kind"]], model.heads)
    logits(model, rows)
    assert seen[0] == 16


def test_the_pass_stops_at_the_highest_layer_that_is_read():
    model = made("layers")
    seen = counted(model)
    logits(model, collate([row(16, 0, mood=1)], [["mood"]], model.heads))
    assert seen == [16, 16], "the second is met, and not run"
    ran = []
    base_of(model.sharing.encoder).encoder.layer[1].attention.register_forward_hook(lambda *_: ran.append(1))
    logits(model, collate([row(16, 0, mood=1)], [["mood"]], model.heads))
    assert not ran
    logits(model, collate([row(16, 0, words=torch.zeros(16).long().numpy())], [["words"]], model.heads))
    assert ran


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "gpt2", "modernbert"])
def test_a_layer_is_that_of_transformers_and_a_mix_can_be_one(family):
    model = shaken(model_of([MOOD, KIND], family, heads={"mood": {"layer": 1}, "kind": {"layer": "mix"}}))
    ids = [row(length, length)["input_ids"] for length in (5, 9)]
    base = base_of(model.sharing.encoder)
    hidden = [base(input_ids=torch.tensor(one)[None], output_hidden_states=True).hidden_states[1][0] for one in ids]
    inputs, layout = {"input_ids": torch.cat([torch.tensor(one) for one in ids])}, Layout([5, 9])
    with torch.no_grad():
        model.sharing.reads.mixes["kind"].weights.copy_(torch.tensor([0.0, 80.0, 0.0]))
        model.sharing.reads.mixes["kind"].factor.fill_(1.0)
        found = model.eval().sharing.encode(inputs, layout, ["mood", "kind"])
    assert torch.allclose(found["mood"].hidden, torch.cat(hidden), atol=1e-5)
    assert torch.allclose(found["kind"].hidden, torch.cat(hidden), atol=1e-5)


# -------------------------------------------------------------------------------------------------------------- experts


def test_gates_sum_to_one_over_the_experts_a_task_may_use():
    seen = torch.tensor([[True, True, True, False], [True, True, False, True]])
    gate = Gate("token", seen, 6, top_k=2)
    torch.nn.init.normal_(gate.weight)
    whose = functional.one_hot(torch.tensor([0, 1, 1, 0]), 2).float()
    whose[3] = 0.0
    shares, uneven = gate(whose, torch.randn(4, 6))
    assert torch.allclose(shares.sum(1), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert (shares[:3] > 0).sum(1).tolist() == [2, 2, 2]
    assert shares[0, 3] == 0 and shares[1, 2] == 0 and set(uneven) == {0, 1}


def test_even_use_costs_one_and_a_single_expert_as_many_as_there_are():
    gate = Gate("token", torch.ones(1, 4, dtype=torch.bool), 4)
    whose = torch.ones(8, 1)
    with torch.no_grad():
        gate.weight.zero_()
        assert float(gate(whose, torch.randn(8, 4))[1][0]) == pytest.approx(1.0)
        gate.weight[0] = 100.0
        assert float(gate(whose, torch.ones(8, 4))[1][0]) == pytest.approx(4.0)


def test_an_adapter_of_all_experts_is_what_a_task_uses():
    """What is written for PEFT, merged by hand, is what `collapse` gives."""
    model = shaken(made("experts"))
    for task in model.tasks:
        config, tensors = model.sharing.adapter(task)
        plain = dict(model.sharing.collapse(task).state_dict())
        start = dict(tiny_encoder("bert").state_dict())
        for key in [name for name in tensors if name.endswith("lora_A.weight")]:
            name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            delta = tensors[key.replace("lora_A", "lora_B")] @ tensors[key] * (config.lora_alpha / config.r)
            assert torch.allclose(plain[f"{name}.weight"], start[f"{name}.weight"] + delta, atol=1e-6)


def test_use_by_task_says_the_gates():
    model = shaken(made("experts"))
    use = model.sharing.use()
    assert set(use) == {"mood", "kind", "words"}
    assert all(sum(shares) == pytest.approx(1.0, abs=2e-3) for shares in use.values())
    layered = shaken(made("experts-per_layer")).sharing
    assert all(len(layers) == len(layered.names) for layers in layered.use(by_layer=True).values())
    token = made("experts-token")
    token.train()
    token(**rows_of(token))
    assert all(sum(shares) == pytest.approx(1.0, abs=2e-2) for shares in token.sharing.use().values())


def test_gated_products_in_bfloat16_are_those_of_float32():
    from nlp_mtl.kernels import fused, products

    torch.manual_seed(0)
    x, weight, bias = torch.randn(40, 32), torch.randn(24, 32), torch.randn(24)
    down, up, gate = torch.randn(6, 32), torch.randn(24, 6), torch.rand(40, 6)
    if not fused.usable(x.bfloat16()):
        pytest.skip("no compiler for the fused kernels")
    parts = [part.clone().requires_grad_() for part in (x, weight, bias, down, up, gate)]
    expected = parts[0] @ parts[1].t() + parts[2] + 0.5 * ((parts[0] @ parts[3].t()) * parts[5]) @ parts[4].t()
    expected.square().sum().backward()
    ours = [part.clone().requires_grad_() for part in (x, weight, bias, down, up, gate)]
    layer = products.Linear(ours[1], ours[2], ours[3], ours[4], 0.5, gate=ours[5])
    found = products.affine(ours[0].bfloat16(), [layer])
    found.float().square().sum().backward()
    assert float((found.float() - expected).norm() / expected.norm()) < 0.01
    for mine, theirs in zip(ours, parts, strict=True):
        assert float((mine.grad - theirs.grad).norm() / theirs.grad.norm()) < 0.02


# -------------------------------------------------------------------------------------------------------- small parts


def test_distances_are_those_of_the_whole_matrices():
    torch.manual_seed(0)
    downs, ups = [torch.randn(2, 5) for _ in range(3)], [torch.randn(4, 2) for _ in range(3)]
    whole = torch.stack(
        [(scale * up @ down).flatten() for down, up, scale in zip(downs, ups, (1.0, 2.0, 0.5), strict=True)]
    )
    scaled = [scale * up for up, scale in zip(ups, (1.0, 2.0, 0.5), strict=True)]
    gramian = products(torch.stack(downs)[None], torch.stack(scaled)[None])[0]
    assert torch.allclose(gramian, whole @ whole.t(), atol=1e-4)
    squared = (whole - whole.mean(0)).square().sum()
    assert float(apartness(gramian, "l2")) == pytest.approx(float(squared), rel=1e-4)
    nuclear = torch.linalg.svdvals(whole).sum()
    assert float(apartness(gramian, "trace_norm")) == pytest.approx(float(nuclear), rel=1e-4)


def test_a_stitch_of_subspaces_mixes_each_part_by_itself():
    stitch = Stitch(2, own=1.0, subspaces=2)
    with torch.no_grad():
        stitch.weights[0] = torch.tensor([0.0, 0.0, 1.0, 0.0])  # the first task's first part from the second task's
    a, b = torch.arange(4.0)[None], 10 + torch.arange(4.0)[None]
    first, second = stitch([a, b])
    assert first.tolist() == [[10.0, 11.0, 2.0, 3.0]] and torch.equal(second, b)
    assert torch.equal(stitch([a, b], 0)[0], first)


def test_rows_of_nobody_count_for_no_expert():
    from nlp_mtl.experts import Rows

    facts = Rows({"a": "a", "b": "b"})
    facts.let(torch.tensor([1, NOBODY, 0]))
    assert facts.shares(3, torch.device("cpu")).tolist() == [[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
    with pytest.raises(RuntimeError, match="reads 5 rows"):
        facts.shares(5, torch.device("cpu"))


def test_means_for_gates_are_over_each_text():
    packed = Packed(torch.tensor([[1.0], [3.0], [5.0]]), Layout([2, 1]))
    assert packed.means(torch.arange(2)).tolist() == [[2.0], [5.0]]


# -------------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("sharing", "how", "words"),
    [
        ({"name": "mixture_of_experts"}, {"lora": {**LORA, "bias": "all"}}, "leave `bias` and `modules_to_save` out"),
        ("branch", {"lora": {**LORA, "modules_to_save": ["pooler"]}}, "leave `bias` and `modules_to_save` out"),
        ({"name": "hard", "condition": "embedding"}, {"lora": {**LORA, "bias": "all"}}, "more parameters, e.g. "),
        ({"name": "cross_task_attention"}, {"lora": {**LORA, "bias": "all"}}, "leave `bias`"),
        ("soft", {}, "give the run `task_lora` and two tasks"),
        ({"name": "soft", "penalty": -1}, {"task_lora": LORA}, "`penalty` is a number from 0, found -1"),
        ({"name": "soft", "distance": "cosine"}, {"task_lora": LORA}, "`distance` is"),
        ({"name": "soft_encoders", "tied": ["layer.9.*"]}, {}, "layer.9.* matches none"),
        ("mixture_of_experts", {}, "its experts are LoRAs, and the run has no `lora`"),
        ({"name": "mixture_of_experts", "experts": 0}, {"lora": LORA}, "`experts` is at least 1"),
        ({"name": "mixture_of_experts", "top_k": 2}, {"lora": LORA}, "`top_k` and `balance` are of gates on tokens"),
        ({"name": "mixture_of_experts", "gates": "token", "top_k": 9}, {"lora": LORA}, "`top_k` is from 0 to 4"),
        ({"name": "mixture_of_experts"}, {"lora": {**LORA, "use_dora": True}}, "no DoRA"),
        ({"name": "cross_stitch", "layers": 5}, {}, "`layers` is from 1 to 2"),
        ({"name": "cross_stitch", "own": 2}, {}, "`own` is from 0 to 1"),
        ({"name": "cross_stitch", "subspaces": 5}, {}, "`subspaces` divides the hidden size 32"),
        ({"name": "cross_task_attention", "size": 3}, {}, "multiple of 4"),
        ({"name": "branch", "depth": 3}, {}, "`depth` is from 0 to 2 layers"),
        ({"name": "branch", "groups": {"x": ["mod"]}}, {}, "did you mean 'mood'?"),
        ({"name": "branch", "groups": {"x": ["mood"], "y": ["mood"]}}, {}, "a task is in one group"),
        ({"name": "branch", "groups": {"kind": ["mood"]}}, {}, "'kind' is a group and a task"),
        ({"name": "branch", "groups": {"train": ["mood"]}}, {}, "none that PyTorch or PEFT uses, found 'train'"),
        ({"name": "branch", "groups": {"lora_A": ["mood"]}}, {}, "none that PyTorch or PEFT uses, found 'lora_A'"),
        ({"name": "hard", "condition": ["colour"]}, {}, "found 'colour'"),
        ({"name": "hard", "condition": "prefix", "prefix_length": 0}, {}, "`prefix_length` is from 1"),
        ({"name": "hard", "condition": "prefix"}, {"task_lora": LORA}, "which adapters of tasks do already"),
        ("hard", {"heads": {"mood": {"layer": 3}}}, "`layer` is a whole number from 1 to 2, or mix, found 3"),
        ("hard", {"heads": {"mood": {"layer": 0.5}}}, "`layer` is a number of the encoder's layers"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said(sharing, how, words):
    with pytest.raises(ConfigError) as caught:
        model_of(TASKS, sharing=sharing, **how)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("sharing", "family", "how", "words"),
    [
        ("branch", "albert", {}, "no layers with weights of their own"),
        ("branch", "bert", {"task_lora": LORA}, "tasks have adapters of their own"),
        ("cross_stitch", "bert", {"heads": {"mood": {"layer": 1}}}, "leave it out, or use sharing: hard"),
        ({"name": "mixture_of_experts", "gates": "example"}, "deberta-v2", {"lora": LORA}, "a family that packs"),
    ],
    ids=str,
)
def test_what_can_not_be_is_refused(sharing, family, how, words):
    with pytest.raises(UnsupportedError) as caught:
        model_of(TASKS, family, sharing=sharing, **how)
    assert words in str(caught.value)


def test_where_a_layer_is_read_before_the_norm_it_is_said_before_training():
    for family, norm in (("gpt2", True), ("bert", False)):
        said = tiny_model([MOOD], family, heads={"mood": {"layer": 1}}).sharing.log
        assert ("mood: before the norm that" in said) == norm and "layers that are read: mood 1" in said
