"""The gradient that a trainer leaves for the optimizer equals TorchJD's on plain Jacobians, for every method."""

import pytest
import torch
from torchjd import aggregation, scalarization
from transformers import TrainerCallback, TrainingArguments

import nlp_mtl as mtl
from nlp_mtl import registry
from nlp_mtl.balancers.base import seed_of
from nlp_mtl.balancers.projections import nnls_projector
from nlp_mtl.testing import tiny_model
from tests.integration.tiny import write_tasks
from tests.unit.test_gradients import by_autograd

SEED = 3
COUNT = 4  # tasks
SHARES = torch.full((COUNT,), 1 / COUNT, dtype=torch.float64)
GIVEN = {"fixed": {"weights": {"mood": 2.0}}, "cr_mogm": {"of": "pcgrad"}, "pcd": {"tau": 0.3}}


def smoothed():
    return aggregation.GramianWeightedAggregator(aggregation.CRMOGMWeighting(aggregation.PCGradWeighting(), 0.9))


AGGREGATORS = {
    "pcgrad": aggregation.PCGrad,
    "gradvac": aggregation.GradVac,
    "upgrad": lambda: aggregation.UPGrad(projector=nnls_projector()),
    "dualproj": lambda: aggregation.DualProj(projector=nnls_projector()),
    "pcd": lambda: aggregation.PCD(0.3),
    "mgda": aggregation.MGDA,
    "cagrad": lambda: aggregation.CAGrad(0.5),
    "imtl_g": aggregation.IMTLG,
    "aligned_mtl": aggregation.AlignedMTL,
    "fairgrad": lambda: aggregation.FairGrad(2.0),
    "nash_mtl": lambda: aggregation.NashMTL(COUNT, 1.0, 1, 20),
    "config": aggregation.ConFIG,
    "krum": lambda: aggregation.Krum(0, 1),
    "cr_mogm": smoothed,
    "graddrop": aggregation.GradDrop,
    "trimmed_mean": lambda: aggregation.TrimmedMean(1),
    "excess_mtl": aggregation.ExcessMTL,
    "gradnorm": aggregation.Sum,  # in its first step
    "equal": aggregation.Mean,
    "fixed": lambda: aggregation.Constant(torch.tensor([2.0, 1.0, 1.0, 1.0], dtype=torch.float64)),
}
SCALARIZERS = {
    "uncertainty": lambda: scalarization.UW(COUNT),
    "imtl_l": lambda: scalarization.IMTLL(COUNT),
    "famo": lambda: scalarization.FAMO(COUNT),
    "dwa": scalarization.DWA,
    "random": scalarization.Random,
    "geometric_mean": scalarization.GeometricMean,
    "stch": lambda: scalarization.STCH(0.1, weights=SHARES),
    "cosmos": lambda: scalarization.COSMOS(1.0, SHARES),
    "pbi": lambda: scalarization.PBI(1.0, SHARES),
}
OF_FACTS = {"rows", "log_classes"}  # their weights are tried in test_balancers.py


def test_every_method_is_tried_here():
    ours = {"a_gem", "reptile", "fomaml"}  # test_a_gem.py, test_meta.py
    assert {*AGGREGATORS, *SCALARIZERS, *OF_FACTS, *ours} == set(registry.balancers.names())


class Take(TrainerCallback):
    """The gradients as the optimizer finds them."""

    def __init__(self, parameters):
        self.parameters = parameters

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.found = torch.cat([p.grad.flatten() for p in self.parameters])


class Kept(mtl.MultiTaskTrainer):
    """Keeps the batches that it was given."""

    def _get_num_items_in_batch(self, batch_samples, device):
        self.batches = batch_samples
        return super()._get_num_items_in_batch(batch_samples, device)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"), rows=40)


@pytest.mark.parametrize("tuning", [{}, {"lora": {"r": 2, "target_modules": "all-linear"}}], ids=["full", "lora"])
@pytest.mark.parametrize("name", [*AGGREGATORS, *SCALARIZERS])
def test_the_gradient_is_torchjds(tasks, tmp_path, name, tuning):
    torch.manual_seed(0)
    model = tiny_model(tasks, **tuning).double()
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.1)
    shared = list(model.sharing.shared_parameters())
    take = Take(shared)
    trainer = Kept(
        model,
        TrainingArguments(
            str(tmp_path),
            max_steps=1,
            per_device_train_batch_size=16,
            learning_rate=0.0,
            weight_decay=0.0,
            max_grad_norm=0.0,
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=SEED,
            use_cpu=True,
        ),
        balancer={"name": name, **GIVEN.get(name, {})},
        sampler="uniform",
        precision="args",
        callbacks=[take],
    )
    trainer.train()
    model.train()
    (batch,) = trainer.batches
    jacobian, losses = by_autograd(model, batch, shared)
    values = torch.stack([losses[task] for task in model.tasks])
    torch.manual_seed(seed_of(SEED, 0))
    if name in AGGREGATORS:
        expected = AGGREGATORS[name]()(jacobian)
    else:
        values = values.detach().double().requires_grad_()
        expected = torch.autograd.grad(SCALARIZERS[name]().double()(values), values)[0] @ jacobian
    assert float((take.found - expected).abs().max() / expected.abs().max()) < 1e-6
