"""The fused kernels compute what plain torch computes, drop with the usual law, and can be done without."""

import gc
import os
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from nlp_mtl.attention import packed_attention, packed_self_attention
from nlp_mtl.errors import ConfigError
from nlp_mtl.kernels import building, fused, products
from nlp_mtl.kernels.checking import check_kernels
from nlp_mtl.layout import Layout

needs_kernels = pytest.mark.skipif(building.compiled() is None, reason=building.state())
quick = settings(max_examples=25, deadline=None)


def drawn(*shape, seed=0, dtype=torch.float32, scale=1.0):
    draw = torch.Generator().manual_seed(seed + 31 * len(shape))
    return (torch.randn(shape, generator=draw) * scale).to(dtype).requires_grad_()


def gradients(out, inputs):
    """Of a sum that weighs every number otherwise."""
    factors = torch.linspace(-1, 1, out.numel()).view(out.shape)
    return torch.autograd.grad((out.float() * factors).sum(), inputs, retain_graph=True)


def same(found, wanted, tolerance):
    for mine, theirs in zip(found, wanted, strict=True):
        theirs = theirs.detach().float()
        bound = tolerance * max(1.0, float(theirs.abs().max())) if theirs.numel() else 0.0
        assert ((mine.detach().float() - theirs).abs() <= bound).all()


@needs_kernels
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.bfloat16, 1.2e-2)])
@pytest.mark.parametrize("biased", [True, False])
@quick
@given(rows=st.integers(0, 9), width=st.sampled_from([1, 15, 16, 17, 33, 384]), seed=st.integers(0, 99))
def test_gelu_is_torchs(dtype, tolerance, biased, rows, width, seed):
    x = drawn(rows, width, seed=seed, dtype=dtype, scale=3.0)
    bias = drawn(width, seed=seed) if biased else None
    inputs = [x, *([bias] if biased else [])]
    found, wanted = fused.gelu(x, bias), functional.gelu(x.float() + (0 if bias is None else bias))
    assert found.dtype == dtype
    same([found], [wanted], tolerance)
    if rows:
        same(gradients(found, inputs), gradients(wanted, inputs), tolerance)


@needs_kernels
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-5), (torch.bfloat16, 2e-2)])
@quick
@given(rows=st.integers(1, 9), width=st.sampled_from([2, 15, 16, 17, 33, 384]), seed=st.integers(0, 99))
def test_add_norm_is_torchs(dtype, tolerance, rows, width, seed):
    x, residual = drawn(rows, width, seed=seed, dtype=dtype), drawn(rows, width, seed=seed + 1)
    bias, weight, shift = (drawn(width, seed=seed + number) for number in (2, 3, 4))
    inputs = [x, bias, residual, weight, shift]
    found, half = fused.add_norm(*inputs, 1e-2, 0.0, narrow=True)
    wanted = functional.layer_norm(x.float() + bias + residual, (width,), weight, shift, 1e-2)
    same([found], [wanted], tolerance)
    if half is None:
        assert dtype == torch.float32
        same(gradients(found, inputs), gradients(wanted, inputs), tolerance)
    else:  # what flows back through the copy is added
        assert torch.equal(half, found.bfloat16())
        both = [2 * gradient for gradient in gradients(wanted, inputs)]
        same(gradients(torch.cat([found, half]).view(2, -1).sum(0), inputs), both, tolerance)
        same(gradients(half, inputs), gradients(wanted, inputs), tolerance)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("together", [True, False])
@quick
@given(
    lengths=st.lists(st.sampled_from([1, 2, 7, 15, 16, 17, 31, 32, 33, 64, 70]), min_size=1, max_size=6),
    beyond=st.integers(0, 9),
    heads=st.sampled_from([1, 3]),
    size=st.sampled_from([4, 16, 20, 32]),
    causal=st.booleans(),
    window=st.none() | st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_attention_is_that_of_plain_torch(dtype, together, lengths, beyond, heads, size, causal, window, seed):
    layout = Layout(lengths)
    asked = drawn(layout.tokens + beyond, 3, heads, size, seed=seed, dtype=dtype)
    how = {"scale": 0.4} if together else {"scale": 0.4, "causal": causal, "window": window}

    def attend(x):
        return packed_self_attention(x, layout, **how) if together else packed_attention(*x.unbind(1), layout, **how)

    found = attend(asked)
    exact = asked.detach().float().requires_grad_()
    with building.switched_off():
        wanted = attend(exact)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    same([found], [wanted], tolerance)
    assert not found[layout.tokens :].any()
    same(gradients(found, [asked]), gradients(wanted, [exact]), tolerance)


@needs_kernels
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_has_the_usual_law(p):
    rows, width = 500, 384
    zero, one = torch.zeros(rows, width), torch.ones(width)

    def mask(seed):
        torch.manual_seed(seed)
        x = torch.ones(rows, width, requires_grad=True)
        out, _ = fused.add_norm(x, None, zero, one, torch.zeros(width), 1e-5, p)
        return torch.autograd.grad(out, x, torch.randn(rows, width))[0] != 0

    kept = mask(0)
    count = kept.numel()
    error = (p * (1 - p)) ** 0.5
    assert abs(float(kept.float().mean()) - (1 - p)) < 5 * error / count**0.5
    for dim in (0, 1):  # no row and no column is treated otherwise
        spread = (kept.float().mean(dim) - (1 - p)) / (error / kept.shape[dim] ** 0.5)
        assert spread.abs().max() < 5 and 0.85 < float(spread.std()) < 1.15
    noise = (kept.float() - (1 - p)) / error
    for other in (noise.roll(1, 1), noise.roll(1, 0), noise.roll(16, 1), (mask(1).float() - (1 - p)) / error):
        assert abs(float((noise * other).mean())) < 5 / count**0.5
    assert torch.equal(kept, mask(0)) and not torch.equal(kept, mask(1))


@needs_kernels
def test_what_is_dropped_forward_is_dropped_backward():
    x, residual = drawn(40, 96), torch.zeros(40, 96)
    weight, shift = torch.ones(96), torch.zeros(96)
    torch.manual_seed(3)
    out, _ = fused.add_norm(x, None, residual, weight, shift, 1e-6, 0.4)
    (slope,) = torch.autograd.grad((out * torch.randn(40, 96)).sum(), x)
    gone = slope == 0
    torch.manual_seed(3)
    other = x.detach() + 100.0 * gone  # what was dropped may be anything
    assert torch.equal(out, fused.add_norm(other, None, residual, weight, shift, 1e-6, 0.4)[0])
    assert 0.35 < float(gone.float().mean()) < 0.45


@needs_kernels
def test_dropped_attention_keeps_the_mean_and_its_gradient_follows_the_mask():
    layout = Layout([5, 40])
    asked = drawn(45, 3, 2, 16)

    def attend(seed, x=asked):
        torch.manual_seed(seed)
        return packed_self_attention(x, layout, scale=0.3, dropout=0.3)

    mean = torch.stack([attend(seed).detach() for seed in range(1500)]).mean(0)
    assert (mean - packed_self_attention(asked, layout, scale=0.3)).abs().max() < 0.12
    direction = drawn(45, 3, 2, 16, seed=5).detach()
    factors = torch.linspace(-1, 1, 45 * 32).view(45, 2, 16)
    (slope,) = torch.autograd.grad((attend(7) * factors).sum(), asked)
    up, down = ((attend(7, asked.detach() + step * direction) * factors).sum() for step in (5e-3, -5e-3))
    assert float((up - down) / 1e-2) == pytest.approx(float((slope * direction).sum()), rel=1e-2)


@needs_kernels
def test_a_nan_stays_one():
    asked = drawn(9, 3, 1, 8).detach()
    asked[2, 0] = torch.nan
    out = packed_self_attention(asked, Layout([4, 5]), scale=1.0)
    assert out[2].isnan().all() and not out[4:].isnan().any()
    x = torch.tensor([[0.0, torch.nan, -torch.inf, torch.inf, -60.0]])
    found = fused.gelu(x)[0]
    assert found[1].isnan() and found[3] == torch.inf and abs(found[4]) < 1e-30 and found[0] == 0


@needs_kernels
def test_any_number_of_threads_gives_the_same_bits_forward():
    asked, before = drawn(300, 3, 4, 32), torch.get_num_threads()
    layout, found = Layout([100, 150, 50]), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            torch.manual_seed(0)
            out = packed_self_attention(asked, layout, scale=0.2, dropout=0.1)
            found.append([out, *gradients(out, [asked])])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for other in found[1:] for pair in zip(found[0], other, strict=True))


# ------------------------------------------------------------------------------------------------- with and without


@pytest.fixture
def afresh(monkeypatch, tmp_path):
    """The choice made anew, in an empty cache folder."""
    monkeypatch.setenv("NLP_MTL_CACHE", str(tmp_path))
    monkeypatch.delenv(building.SWITCH, raising=False)
    monkeypatch.setattr(building, "_refused", [])
    building._load.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    building._load.cache_clear()


@pytest.fixture
def hasty(afresh, tmp_path_factory):
    """The same compiler, in a hurry: where the law is about files, nobody waits for fast code."""
    known = os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))))
    compiler = tmp_path_factory.mktemp("compiler") / "cc"
    compiler.write_text(f'#!/bin/sh\nexec {known} "$@" -O0\n')
    compiler.chmod(0o755)
    afresh.setenv("CC", str(compiler))
    return afresh


def test_off_by_the_switch(afresh):
    afresh.setenv(building.SWITCH, "off")
    assert building.compiled() is None and not fused.usable(torch.zeros(1))
    assert "NLP_MTL_KERNELS=off" in building.state()


def test_without_a_compiler_it_says_so_and_goes_on(afresh):
    afresh.setenv("PATH", "")
    afresh.delenv("CC", raising=False)
    assert building.compiled() is None
    assert "no C compiler found; install one" in building.state()
    building._load.cache_clear()
    afresh.setenv(building.SWITCH, "on")
    with pytest.raises(ConfigError, match="NLP_MTL_KERNELS=on, but the kernels can't be built"):
        building.compiled()


def test_a_switch_of_another_value_is_refused(afresh):
    afresh.setenv(building.SWITCH, "yes")
    with pytest.raises(ConfigError, match="NLP_MTL_KERNELS is auto, on or off, found 'yes'"):
        building.compiled()


@pytest.mark.skipif(shutil.which("false") is None, reason="no `false` here")
def test_a_compiler_that_fails_is_named(afresh):
    afresh.setenv("CC", "false")
    assert building.compiled() is None
    assert "failed" in building.state()


@needs_kernels
def test_built_once_and_what_is_damaged_is_made_again(hasty, tmp_path):
    assert building.compiled() is not None
    (file,) = (tmp_path / "kernels").iterdir()
    made = file.stat().st_mtime_ns
    building._load.cache_clear()
    assert building.compiled() is not None and file.stat().st_mtime_ns == made
    building._load.cache_clear()
    other = tmp_path / "other" / "kernels"
    other.mkdir(parents=True)
    (other / file.name).write_bytes(b"no library")
    hasty.setenv("NLP_MTL_CACHE", str(other.parent))
    assert building.compiled() is not None
    assert (other / file.name).read_bytes() == file.read_bytes()


@needs_kernels
@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners of files here")
def test_a_library_that_others_may_write_is_not_loaded(hasty, tmp_path):
    folder = tmp_path / "kernels"
    folder.mkdir()
    folder.chmod(0o777)
    assert building.compiled() is not None
    assert not list(folder.iterdir()), "built in a folder for this process alone"
    folder.chmod(0o700)
    building._load.cache_clear()
    assert building.compiled() is not None
    (file,) = folder.iterdir()
    file.chmod(0o777)
    made = file.stat().st_ino
    building._load.cache_clear()
    assert building.compiled() is not None and file.stat().st_ino != made and not file.stat().st_mode & 0o022


def test_odd_settings_of_the_compiler_are_no_crash(afresh, tmp_path):
    odd = tmp_path / "odd"
    odd.write_bytes(b"\x00\x01")
    odd.chmod(0o755)
    for value in ("gcc '", str(odd)):
        afresh.setenv("CC", value)
        building._load.cache_clear()
        assert building.compiled() is None and "fused CPU kernels: off" in building.state()


@needs_kernels
def test_what_does_not_fit_is_refused_and_not_read():
    x, vector = torch.zeros(3, 8), torch.zeros(8)
    places = torch.tensor([0, 3]), torch.tensor([0])
    for wrong in (
        lambda: fused.gelu(x.bfloat16(), vector.bfloat16()),
        lambda: fused.gelu(x, vector[:7]),
        lambda: fused.add_norm(x, None, x, vector, None, 1e-5, 0.0),
        lambda: fused.add_norm(x, None, x.bfloat16(), vector, vector, 1e-5, 0.0),
        lambda: fused.attention([torch.zeros(3, 1, 8), torch.zeros(3, 1, 8), torch.zeros(3, 1, 4)], *places, scale=1.0),
        lambda: fused.attention([torch.zeros(2, 3, 1, 8)], *places, scale=1.0),
    ):
        with pytest.raises(ValueError, match="fused kernels: "):
            wrong()


@needs_kernels
def test_a_window_as_large_as_a_number_can_be():
    asked = drawn(20, 3, 1, 8)
    wide = packed_attention(*asked.unbind(1), Layout([20]), scale=1.0, window=2**31 - 10)
    assert torch.equal(wide, packed_attention(*asked.unbind(1), Layout([20]), scale=1.0))


@needs_kernels
def test_kernels_that_are_wrong_on_a_machine_are_left_out(monkeypatch):
    from nlp_mtl import packing
    from nlp_mtl.testing import tiny_encoder

    monkeypatch.setattr(building, "_refused", [])
    right = fused.attention
    monkeypatch.setattr(fused, "attention", lambda *a, **k: right(*a, **k) * 1.5)
    check_kernels.cache_clear()
    try:
        way, why = packing.choose_way(tiny_encoder("bert"))
        assert way == "packed" and "fused CPU kernels: off (attention differs by 0.5 from plain torch" in why
        assert building.compiled() is None
    finally:
        check_kernels.cache_clear()


def test_a_wrong_switch_is_not_taken_for_an_encoder_that_can_not_pack(afresh):
    from nlp_mtl import packing
    from nlp_mtl.testing import tiny_encoder

    afresh.setenv(building.SWITCH, "1")
    check_kernels.cache_clear()
    with pytest.raises(ConfigError, match="found '1'"):
        packing.choose_way(tiny_encoder("bert"))
    check_kernels.cache_clear()


def linears(inner, outs, ranks, biased):
    layers = []
    for number, (out, rank) in enumerate(zip(outs, ranks, strict=False)):
        low = (drawn(rank, inner, seed=number + 5), drawn(out, rank, seed=number + 9)) if rank else (None, None)
        bias = drawn(out, seed=number) if biased else None
        layers.append(products.Linear(drawn(out, inner, seed=number), bias, *low, scale=1.5))
    return layers


@needs_kernels
@quick
@given(
    rows=st.integers(0, 40),
    inner=st.sampled_from([1, 16, 33]),
    outs=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    ranks=st.lists(st.integers(0, 3), min_size=3, max_size=3),
    biased=st.booleans(),
)
def test_affine_is_no_further_from_exact_layers_and_loras_than_autocast(rows, inner, outs, ranks, biased):
    x, layers = drawn(rows, inner, dtype=torch.bfloat16), linears(inner, outs, ranks, biased)
    inputs = [x, *(part for one in layers for part in one.tensors() if part is not None)]

    def plain(x, layers=layers):
        parts = []
        for one in layers:
            out = functional.linear(x, one.weight, one.bias)
            if one.down is not None:
                out = out + functional.linear(functional.linear(x, one.down), one.up) * one.scale
            parts.append(out)
        return torch.cat(parts, 1)

    with torch.autocast("cpu", torch.bfloat16):
        usual = plain(x)
    exact, found = plain(x.float()), products.affine(x, layers)
    assert found.dtype == usual.dtype and found.shape == usual.shape
    mine, theirs, wanted = ([out, *(gradients(out, inputs) if rows else [])] for out in (found, usual, exact))
    assert [(one.dtype, one.shape) for one in mine] == [(one.dtype, one.shape) for one in theirs]
    # What is summed may cancel, so an error is beside the sum of magnitudes, to two roundings to bfloat16.
    sizes = [x.detach().float().abs().requires_grad_() for x in inputs]
    left = iter(sizes[1:])
    large = [products.Linear(*(None if x is None else next(left) for x in one.tensors()), one.scale) for one in layers]
    out = plain(sizes[0], large)
    factors = torch.linspace(-1, 1, out.numel()).view(out.shape).abs()
    size = [out, *(torch.autograd.grad((out * factors).sum(), sizes) if rows else [])]
    for one, other, right, most in zip(mine, theirs, wanted, size, strict=True):
        far, usually = (float((x.detach().float() - right.detach()).norm()) for x in (one, other))
        assert far <= 1.5 * usually + 2**-8 * float(most.detach().norm())


@needs_kernels
def test_affine_leaves_out_gradients_of_frozen_layers():
    x, weight, frozen = drawn(3, 4, dtype=torch.bfloat16), drawn(2, 4), torch.zeros(2, 4)
    products.affine(x, [products.Linear(weight), products.Linear(frozen)]).sum().backward()
    assert weight.grad is not None and x.grad is not None and frozen.grad is None


@needs_kernels
def test_frozen_weights_are_rounded_once_and_anew_when_they_change():
    torch.manual_seed(0)
    x, weight = torch.randn(9, 20).bfloat16(), torch.randn(12, 20)

    def right(weight):
        wanted = x.float() @ weight.bfloat16().float().t()
        return (products.affine(x, [products.Linear(weight)]).float() - wanted).abs().max() < 0.05

    assert right(weight)
    first = products._kept([weight])
    assert products._kept([weight]) is first
    weight.mul_(2)  # e.g. other weights were loaded
    assert right(weight)
    weight.data = torch.randn(12, 20)
    assert right(weight)
    assert products._kept([weight.clone().requires_grad_()]) is None
    before = len(products._FROZEN)
    del weight
    gc.collect()
    assert len(products._FROZEN) == before - 1
