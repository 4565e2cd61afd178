"""Laws of regularizers: zero at the anchor, gradients as autograd's, the Fisher as computed row by row."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from transformers import AutoModelForMaskedLM
from transformers.training_args import OptimizerNames

from nlp_mtl import MultiTaskModel, registry
from nlp_mtl.batches import Collator
from nlp_mtl.data import load_data
from nlp_mtl.errors import ConfigError, NotFoundError, UnsupportedError
from nlp_mtl.heads import vanilla
from nlp_mtl.penalties import Penalties
from nlp_mtl.regularizers import EWC, L2SP, importance_of, load_importance, save_importance
from nlp_mtl.tasks import load_tasks
from nlp_mtl.testing import tiny_encoder, tiny_model
from tests.integration.tiny import write_base, write_tasks, write_texts, write_writer

LORA = {"r": 2, "target_modules": "all-linear"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("data"), rows=20)


def world(files, **settings):
    model = tiny_model(load_tasks(files[:3]), dropout=0.1, **settings)
    model.fresh = True
    return model, load_data(model.heads, model.tokenizer, max_length=64)


def move(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=generator) * 0.05)


def value(one):
    return float(one.penalty().detach())


def test_l2_sp_is_its_formula(files):
    model, data = world(files)
    one = L2SP(alpha=0.3, beta=0.7)
    one.setup(model, data)
    one.begin()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    move(model)
    shared = sum(((p - start[n]) ** 2).sum() for n, p in model.named_parameters() if n.startswith("sharing."))
    new = sum((p**2).sum() for n, p in model.named_parameters() if n.startswith("modules_."))
    assert value(one) == pytest.approx(0.15 * float(shared.detach()) + 0.35 * float(new.detach()), rel=1e-5)


def test_l2_sp_holds_heads_that_were_taken_over_near_their_start(files):
    model, data = world(files)
    model.begun = {"mood"}
    one = L2SP(alpha=0.3, beta=0.0)
    one.setup(model, data)
    one.begin()
    assert value(one) == 0.0
    with torch.no_grad():
        for p in model.module_of("mood").parameters():
            p.add_(1.0)
        for p in model.module_of("alike").parameters():
            p.add_(1.0)
    count = sum(p.numel() for p in model.module_of("mood").parameters())
    assert value(one) == pytest.approx(0.15 * count, rel=1e-5)


@pytest.mark.parametrize("family", ["t5", "bart", "bert"])
def test_l2_sp_holds_a_pretrained_decoder_near_its_start_too(tmp_path, family):
    """What a head has of the checkpoint does not begin anew; a decoder's new cross-attention does."""
    base = write_base(tmp_path / "base") if family == "bert" else write_writer(tmp_path / "base", family)
    decoder = {"decoder": base} if family == "bert" else {}
    model = MultiTaskModel.from_base(base, write_texts(tmp_path / "data", **decoder)[:1])
    known = {name: p for name, p in model.named_parameters() if name.startswith("modules_.back.")}
    new = {name for name in known if family == "bert" and ("crossattention" in name or ".cls." in name)}
    assert len(known) > len(new) + 10
    one = L2SP(alpha=0.3, beta=0.7)
    one.setup(model, None)
    one.begin()
    assert value(one) == pytest.approx(0.35 * sum(float((known[name] ** 2).sum().detach()) for name in new), rel=1e-5)


def test_l2_sp_holds_a_pretrained_masked_lm_head_near_its_start_too(tmp_path):
    encoder = tiny_encoder("bert")
    whole = AutoModelForMaskedLM.from_config(encoder.config)
    whole.save_pretrained(tmp_path / "whole")
    head = vanilla.build("AutoModelForMaskedLM", encoder, {}, source=tmp_path / "whole")
    own = {name for name, _ in head.named_parameters()}
    assert own and {name for name in own if "embeddings" not in name} <= head.from_checkpoint
    assert not vanilla.build("AutoModelForMaskedLM", encoder, {}).from_checkpoint


def test_l2_sp_holds_heads_of_a_model_that_was_trained_near_their_start(files):
    model, data = world(files)
    model.fresh = False
    one = L2SP(alpha=0.3, beta=0.7)
    one.setup(model, data)
    one.begin()
    assert value(one) == 0.0


@pytest.mark.parametrize("settings", [{}, {"lora": LORA}], ids=["full", "lora"])
def test_the_fisher_is_the_mean_of_squared_gradients_row_by_row(files, settings):
    model, data = world(files, **settings)
    move(model)
    model.train()
    found = importance_of(model, data, rows=1000)
    assert model.training, "it is left as it was"
    assert all(p.grad is None for p in model.parameters())
    model.eval()
    expected = {}
    for task, head in model.heads.items():
        pool = data.pool_of(task, "train")
        for row in range(len(pool)):
            batch = Collator([pool], data.heads)([(0, row, -1)])
            model.zero_grad()
            out = model(**batch)
            head.loss(out["logits"][task], batch["targets"][task]).backward()
            for name, p in model.named_parameters():
                if name.startswith("sharing.") and p.grad is not None:
                    expected[name] = expected.get(name, 0) + p.grad.double() ** 2 / len(pool)
    expected = {name: value for name, value in expected.items() if value.any()}
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert torch.allclose(found[name].double(), value, rtol=1e-3, atol=1e-12 + 1e-6 * float(value.max())), name


def test_the_fisher_is_the_same_where_training_has_put_an_autocast_on_the_model(files):
    """As accelerate does, and leaves it: a run's importance at its end is that of the folder it saved."""
    model, data = world(files)
    plain = importance_of(model, data, ["mood"], rows=4)
    model.forward = torch.autocast("cpu", dtype=torch.bfloat16)(model.forward)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = importance_of(model, data, ["mood"], rows=4)
    assert found.keys() == plain.keys()
    assert all(torch.equal(value, plain[name]) for name, value in found.items())


@pytest.mark.parametrize("spec", [{"name": "ewc", "tasks": ["mood"]}, "synaptic_intelligence"], ids=str)
def test_with_everything_shared_frozen_there_is_nothing_to_keep(files, spec):
    model, data = world(files, freeze="*")
    with pytest.raises(ConfigError, match=r"weights that tasks share and that are trained, found none.*`freeze`"):
        Penalties([spec], model, data)
    with pytest.raises(ConfigError, match="importance_of: is about the weights that tasks share"):
        importance_of(model, data)


def test_heads_that_begin_anew_are_told_to_know_nothing_of_earlier_tasks(files, caplog):
    model, data = world(files)
    for fresh, begun, told in ((True, set(), True), (True, {"mood"}, False), (False, set(), False)):
        model.fresh, model.begun = fresh, begun
        caplog.clear()
        EWC(tasks=["mood"]).setup(model, data)
        assert ("the heads of mood begin anew" in caplog.text) == told


def test_what_a_run_did_not_learn_is_not_important_for_it(files):
    model, data = world(files)
    one = EWC(tasks=["alike"], rows=4, carry=True)
    one.setup(model, data)
    for learned, counted in ((["mood"], ["alike", "mood"]), (["alike"], ["alike"]), (None, model.tasks)):
        found, wanted = one.carried(learned), importance_of(model, data, counted, rows=4)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(value, wanted[name]) for name, value in found.items())


def test_ewc_is_its_formula_and_leaves_alone_what_earlier_tasks_do_not_use(files):
    model, data = world(files)
    one = EWC(strength=5.0, tasks=["mood"], rows=8)
    one.setup(model, data)
    one.begin()
    fisher = importance_of(model, data, ["mood"], rows=8)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    move(model)
    known = dict(model.named_parameters())
    expected = sum((f * (known[name] - start[name]) ** 2).sum() for name, f in fisher.items())
    assert value(one) == pytest.approx(2.5 * float(expected.detach()), rel=1e-5)
    _, parameters, _ = one.penalty_gradients()
    heads = {id(p) for p in model.modules_.parameters()}
    assert not any(id(p) in heads for p in parameters)


def test_importance_is_saved_read_and_added(files, tmp_path):
    model, data = world(files)
    first = importance_of(model, data, ["mood"], rows=4)
    assert save_importance(tmp_path, first).name == "importance.safetensors"
    assert all(torch.equal(value, first[name]) for name, value in load_importance(tmp_path).items())
    one = EWC(importance=str(tmp_path), tasks=["alike"], rows=4, carry=True, decay=0.5)
    one.setup(model, data)
    one.begin()
    second = importance_of(model, data, ["alike"], rows=4)
    both = {name: 1000 * (first.get(name, 0) + second.get(name, 0)) for name in {*first, *second}}
    assert all(torch.allclose(one.state_dict()["weights"][name], value, rtol=1e-4) for name, value in both.items())
    every = importance_of(model, data, rows=4)
    carried = one.carried()
    assert all(torch.allclose(carried[n], 0.5 * first.get(n, 0) + every.get(n, 0), rtol=1e-4) for n in carried)


def test_synaptic_intelligence_counts_what_each_change_did(files):
    model, data = world(files)
    one = registry.regularizers.build({"name": "synaptic_intelligence", "damping": 0.1})
    one.setup(model, data)
    one.begin()
    name, p = next(iter(model.sharing.named_parameters(prefix="sharing")))
    total, start = torch.zeros_like(p), p.detach().clone()
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        p.grad = torch.randn(p.shape, generator=generator) * 4.0
        before = p.detach().clone()
        one.before_step(4.0)
        with torch.no_grad():
            p -= 0.01 * p.grad / 4.0
        total -= p.grad / 4.0 * (p.detach() - before)
        one.after_step()
    expected = total.clamp_min(0) / ((p.detach() - start) ** 2 + 0.1)
    assert torch.allclose(one.carried()[name], expected)


def test_a_step_that_was_left_out_for_overflow_counts_nothing(files):
    """With fp16 gradients may be infinite; the optimizer's step is passed over then."""
    model, data = world(files)
    one = registry.regularizers.build("synaptic_intelligence")
    one.setup(model, data)
    one.begin()
    for bad in (float("inf"), float("nan")):
        for p in model.parameters():
            p.grad = torch.full_like(p, bad)
        one.before_step(2.0**16)
        one.after_step()
    assert one.carried() == {}


def test_what_does_not_fit_is_refused(files, tmp_path):
    model, data = world(files)
    other, _ = world(files, lora=LORA)
    save_importance(tmp_path, importance_of(other, data, rows=1))
    with pytest.raises(ConfigError, match=r"no parameter that it names is trained here.*init_from"):
        EWC(importance=str(tmp_path)).setup(model, data)
    with pytest.raises(NotFoundError, match="is not there"):
        EWC(importance=str(tmp_path / "nowhere")).setup(model, data)
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(ConfigError, match="is damaged"):
        EWC(importance=str(tmp_path / "bad.safetensors")).setup(model, data)
    with pytest.raises(ConfigError, match="'moood' is not a task with training rows; did you mean 'mood'"):
        EWC(tasks=["moood"]).setup(model, data)
    with pytest.raises(ConfigError, match="each once, found l2_sp, l2_sp"):
        Penalties(["l2_sp", {"name": "l2_sp", "alpha": 1.0}], model, data)
    with pytest.raises(ConfigError, match=r"one of them leaves importance.*ewc and synaptic_intelligence"):
        Penalties([{"name": "ewc", "carry": True}, "synaptic_intelligence"], model, data)


def test_gradients_that_are_not_there_as_a_whole_are_refused(files):
    model, data = world(files)
    made = Penalties(["l2_sp"], model, data)
    usual = SimpleNamespace(optim=OptimizerNames.ADAMW_TORCH)
    with pytest.raises(UnsupportedError, match=r"l2_sp compares parameters.*use DDP"):
        made.check(SimpleNamespace(distributed_type=DistributedType.FSDP), usual)
    alone = SimpleNamespace(distributed_type=DistributedType.NO)
    with pytest.raises(UnsupportedError, match=r"optim 'lomo' updates the weights in it"):
        made.check(alone, SimpleNamespace(optim=OptimizerNames.LOMO))
    made.check(alone, usual)
