"""Attention on accelerators by code path: which kernel is chosen, and what it is given.

No CUDA kernel runs here unless there is a GPU (the last test, skipped by name without one). In their place stand
functions of the same signature that compute exact attention of each segment, as the packages describe it; so what is
tested is everything around the kernels. `sdpa_groups` needs no GPU and runs as it is.
"""

from __future__ import annotations

import itertools
import sys
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_mtl import attention, packing, varlen
from nlp_mtl.errors import ConfigError
from nlp_mtl.layout import Layout
from nlp_mtl.testing import tiny_encoder
from tests.unit.test_attention import alone, inputs_of, lengths_of

quick = settings(max_examples=40, deadline=None)
close = {"rtol": 1e-5, "atol": 1e-5}
HALF = (torch.float16, torch.bfloat16)


def segments(q, k, v, cumulative, longest, scale, sides):
    """Exact attention of each segment in float32; `sides` how far a token sees to the left and right, −1 for all."""
    assert cumulative.dtype == torch.int32 and cumulative[0] == 0 and cumulative[-1] == len(q)
    assert longest == int(cumulative.diff().max())
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    out = []
    for begin, end in itertools.pairwise(cumulative.tolist()):
        one, two, three = (x[begin:end].float() for x in (q, k, v))
        distance = torch.arange(end - begin)[:, None] - torch.arange(end - begin)
        left, right = sides
        unseen = (distance > left if left >= 0 else distance < -(10**6)) | (
            -distance > right if right >= 0 else distance < -(10**6)
        )
        scores = torch.einsum("qhd,khd->hqk", one, two) * scale
        out.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(unseen, -torch.inf).softmax(-1), three))
    return torch.cat(out).to(q.dtype)


class Reference:
    """In the place of both packages' functions; counts calls, and notes the dropout."""

    def __init__(self):
        self.calls, self.dropout, self.wrong = 0, [], 1.0

    def flash_attn(
        self,
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        dropout_p=0.0,
        softmax_scale=None,
        causal=False,
        window_size=(-1, -1),
        deterministic=False,
    ):
        assert torch.equal(cu_seqlens_q, cu_seqlens_k) and max_seqlen_q == max_seqlen_k
        self.calls += 1
        self.dropout.append(dropout_p)
        sides = (window_size[0], 0) if causal else window_size
        return segments(q, k, v, cu_seqlens_q, max_seqlen_q, softmax_scale, sides) * self.wrong

    def torch_varlen(
        self,
        query,
        key,
        value,
        cu_seq_q,
        cu_seq_k,
        max_q,
        max_k,
        *,
        scale=None,
        window_size=(-1, -1),
        enable_gqa=False,
    ):
        assert torch.equal(cu_seq_q, cu_seq_k) and max_q == max_k
        assert enable_gqa or query.shape[1] == key.shape[1]
        self.calls += 1
        return segments(query, key, value, cu_seq_q, max_q, scale, window_size) * self.wrong


@pytest.fixture
def reference(monkeypatch):
    """Both packages are installed, as references; nothing is remembered from test to test."""
    made = Reference()
    flash = types.ModuleType("flash_attn")
    flash.flash_attn_varlen_func = made.flash_attn
    theirs = types.ModuleType("torch.nn.attention.varlen")
    theirs.varlen_attn = made.torch_varlen
    monkeypatch.setitem(sys.modules, "flash_attn", flash)
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", theirs)
    monkeypatch.delenv(varlen.SWITCH, raising=False)
    varlen.installed.cache_clear()
    varlen._works.cache_clear()
    yield made
    varlen.installed.cache_clear()
    varlen._works.cache_clear()


@pytest.fixture
def nothing(monkeypatch):
    """Neither package is there."""
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    monkeypatch.delenv(varlen.SWITCH, raising=False)
    varlen.installed.cache_clear()
    yield
    varlen.installed.cache_clear()


# -------------------------------------------------------------------------------------------------------- the choice


@pytest.mark.parametrize(
    ("asked", "there", "dtype", "dropout", "size", "kernel"),
    [
        ("auto", ["flash_attn", "torch_varlen"], torch.bfloat16, 0.1, 64, "flash_attn"),
        ("auto", ["flash_attn", "torch_varlen"], torch.float16, 0.0, 32, "flash_attn"),
        ("auto", ["torch_varlen"], torch.bfloat16, 0.0, 64, "torch_varlen"),
        ("auto", ["torch_varlen"], torch.bfloat16, 0.1, 64, "sdpa_groups"),  # it has no dropout
        ("auto", ["flash_attn", "torch_varlen"], torch.float32, 0.0, 64, "sdpa_groups"),
        ("auto", ["flash_attn", "torch_varlen"], torch.bfloat16, 0.0, 20, "sdpa_groups"),  # heads of 8 · n only
        ("auto", ["flash_attn", "torch_varlen"], torch.bfloat16, 0.0, 512, "sdpa_groups"),
        ("auto", [], torch.bfloat16, 0.0, 64, "sdpa_groups"),
        ("torch_varlen", ["flash_attn", "torch_varlen"], torch.bfloat16, 0.0, 64, "torch_varlen"),
        ("torch_varlen", ["flash_attn", "torch_varlen"], torch.bfloat16, 0.1, 64, "sdpa_groups"),
        ("flash_attn", ["flash_attn", "torch_varlen"], torch.float32, 0.0, 64, "sdpa_groups"),
        ("sdpa_groups", ["flash_attn", "torch_varlen"], torch.bfloat16, 0.0, 64, "sdpa_groups"),
        ("groups", ["flash_attn", "torch_varlen"], torch.bfloat16, 0.0, 64, "groups"),
    ],
)
def test_the_kernel_of_a_call(asked, there, dtype, dropout, size, kernel):
    assert varlen.choose(asked, there, dtype=dtype, head_size=size, dropout=dropout) == kernel


def test_the_log_names_the_kernel_and_what_else_takes(reference, monkeypatch):
    assert varlen.state() == "attention on CUDA: flash_attn in float16 and bfloat16, else sdpa_groups"
    monkeypatch.setenv(varlen.SWITCH, "torch_varlen")
    said = "attention on CUDA: torch_varlen in float16 and bfloat16 without attention dropout, else sdpa_groups"
    assert varlen.state() == said
    monkeypatch.setenv(varlen.SWITCH, "sdpa_groups")
    assert varlen.state() == "attention on CUDA: sdpa_groups (NLP_MTL_ATTENTION=sdpa_groups)"


def test_the_log_says_why_a_kernel_is_not_there(nothing):
    assert varlen.state().startswith("attention on CUDA: sdpa_groups; no flash_attn: ModuleNotFoundError")


def test_a_model_for_cuda_says_it_beside_the_encoder_pass(nothing, monkeypatch):
    assert "attention on CUDA" not in packing.choose_way(tiny_encoder("bert"))[1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "; attention on CUDA: sdpa_groups; no flash_attn" in packing.choose_way(tiny_encoder("bert"))[1]


def test_a_wrong_name_is_refused(reference, monkeypatch):
    monkeypatch.setenv(varlen.SWITCH, "flash")
    with pytest.raises(ConfigError, match=r"NLP_MTL_ATTENTION is auto, flash_attn, torch_varlen.*found 'flash'"):
        varlen.state()


def test_a_kernel_asked_for_that_is_not_there_is_refused(nothing, monkeypatch):
    monkeypatch.setenv(varlen.SWITCH, "flash_attn")
    with pytest.raises(ConfigError, match="NLP_MTL_ATTENTION=flash_attn, but it is not there: ModuleNotFoundError"):
        varlen.state()


def test_a_torch_whose_varlen_knows_no_window_is_left_out(reference, monkeypatch):
    monkeypatch.setattr(sys.modules["torch.nn.attention.varlen"], "varlen_attn", lambda query, key, value: None)
    assert "knows no window" in varlen.installed("torch_varlen")[1]


def test_torchs_own_function_is_called_as_it_is_declared():
    """The reference above must not drift from what this torch has."""
    import inspect

    theirs = pytest.importorskip("torch.nn.attention.varlen").varlen_attn
    mine = inspect.signature(Reference().torch_varlen).parameters
    known = inspect.signature(theirs).parameters
    assert all(known[name].kind == one.kind for name, one in mine.items())


# ----------------------------------------------------------------------------------------------- what kernels are given


@quick
@given(lengths=lengths_of)
def test_cumulative_lengths_are_the_segments(lengths):
    layout = Layout(lengths)
    assert layout.cumulative.dtype == torch.int32
    assert layout.cumulative.diff().tolist() == lengths
    assert [int(layout.cumulative[0]), int(layout.cumulative[-1])] == [0, sum(lengths)]
    assert layout.longest == max(lengths)
    numbers = torch.arange(layout.tokens)
    parts = [numbers[a:b] for a, b in itertools.pairwise(layout.cumulative.tolist())]
    assert [int(part[0]) for part in parts] == layout.firsts.tolist()
    assert [int(part[-1]) for part in parts] == layout.lasts.tolist()


@pytest.mark.parametrize("kernel", ["flash_attn", "torch_varlen", "sdpa_groups"])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
@quick
@given(lengths=lengths_of, causal=st.booleans(), window=st.none() | st.integers(1, 30), seed=st.integers(0, 99))
def test_every_kernel_is_attention_of_each_sequence_alone(kernel, heads, lengths, causal, window, seed):
    made = Reference()
    function = {"flash_attn": made.flash_attn, "torch_varlen": made.torch_varlen}.get(kernel)
    given_, same = (inputs_of(sum(lengths), *heads, seed=seed) for _ in range(2))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(varlen, "installed", lambda name: (function, ""))
        out = varlen.attention(kernel, *given_, Layout(lengths), scale=0.3, causal=causal, window=window)
    wanted = alone(*same, lengths, scale=0.3, causal=causal, window=window)
    torch.testing.assert_close(out, wanted, **close)
    gradient = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(seed + 1))
    out.backward(gradient)
    wanted.backward(gradient)
    for one, other in zip(given_, same, strict=True):
        torch.testing.assert_close(one.grad, other.grad, **close)


def test_groups_off_the_cpu_are_few_and_hold_no_more_than_a_padded_batch():
    lengths = [11] * 12 + [30] * 12 + [70, 128]
    layout = Layout(lengths, "meta")
    assert len(layout.groups) == 1, "a launch costs more than the padding of so few"
    assert sum(group.rows for group in layout.groups) == len(lengths), "no rows are added"
    assert all(group.length % 8 == 0 for group in layout.groups)
    many = Layout([16] * 4000 + [512] * 100, "meta").groups
    assert [(group.rows, group.length) for group in many] == [(4000, 16), (100, 512)]


def test_the_mask_for_few_groups_is_exact(monkeypatch):
    """The plan of other devices, with its padded rows, computed here."""
    lengths = [3, 11, 12, 30]
    monkeypatch.setattr("nlp_mtl.layout._GROUP_COST", 1_000_000)
    for causal, window in itertools.product((False, True), (None, 4)):
        layout = Layout(lengths)
        assert len(layout.groups) == 1
        given_, same = (inputs_of(sum(lengths)) for _ in range(2))
        out = varlen.attention("sdpa_groups", *given_, layout, scale=0.3, causal=causal, window=window)
        wanted = alone(*same, lengths, scale=0.3, causal=causal, window=window)
        torch.testing.assert_close(out, wanted, **close)
        out.sum().backward()
        wanted.sum().backward()
        for one, other in zip(given_, same, strict=True):
            assert torch.isfinite(one.grad).all()
            torch.testing.assert_close(one.grad, other.grad, **close)


def test_off_the_cpu_the_choice_is_asked_and_taken():
    """On torch's device without numbers, as one that is no CPU."""
    layout = Layout([3, 9, 20], "meta")
    query, key, value = (x.detach().to("meta") for x in inputs_of(layout.tokens + 4, 4, 2))
    seen = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(varlen, "attention", lambda *given, **how: seen.append((given[0], how)) or given[1])
        out = attention.packed_attention(query, key, value, layout, scale=0.5, dropout=0.1, causal=True, window=4)
    assert seen == [("sdpa_groups", {"scale": 0.5, "dropout": 0.1, "causal": True, "window": 4})]
    assert out.shape == query.shape and out.device.type == "meta"


def test_dropout_of_sdpa_groups_keeps_the_mean_and_the_seed():
    layout = Layout([5, 17, 30])
    inputs = [x.detach() for x in inputs_of(layout.tokens)]
    exact = varlen.attention("sdpa_groups", *inputs, layout, scale=0.3)
    torch.manual_seed(0)
    drawn = [varlen.attention("sdpa_groups", *inputs, layout, scale=0.3, dropout=0.3) for _ in range(400)]
    assert not torch.equal(drawn[0], drawn[1])
    assert float((torch.stack(drawn).mean(0) - exact).abs().max()) < 0.25
    torch.manual_seed(0)
    assert torch.equal(varlen.attention("sdpa_groups", *inputs, layout, scale=0.3, dropout=0.3), drawn[0])


def test_dropout_reaches_flash_attention_and_keeps_torchs_own_away(reference):
    layout, query = Layout([4, 3]), inputs_of(7, dtype=torch.bfloat16)[0]
    varlen.attention("flash_attn", query, query, query, layout, scale=1.0, dropout=0.1)
    assert reference.dropout == [0.1]
    assert varlen.chosen(query.bfloat16(), 0.1) == "flash_attn"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(varlen.SWITCH, "torch_varlen")
        assert varlen.chosen(query.bfloat16(), 0.1) == "sdpa_groups"
        assert varlen.chosen(query.bfloat16(), 0.0) == "torch_varlen"


# ------------------------------------------------------------------------------------------- tried before it is used


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("kernel", ["flash_attn", "torch_varlen"])
def test_a_right_kernel_passes_its_trial(reference, kernel, dtype):
    assert varlen._works(kernel, torch.device("cpu"), dtype)
    assert reference.calls == 4


@pytest.mark.parametrize("wrong", ["numbers", "error"])
def test_a_kernel_that_is_wrong_on_a_device_is_left_out_and_told(reference, wrong, monkeypatch, caplog):
    if wrong == "numbers":
        reference.wrong = 1.5
        said = "its numbers differ by 0.5"
    else:
        monkeypatch.setattr(
            sys.modules["flash_attn"],
            "flash_attn_varlen_func",
            lambda *a, **k: (_ for _ in ()).throw(RuntimeError("x")),
        )
        said = "RuntimeError: x"
    monkeypatch.setenv(varlen.SWITCH, "flash_attn")
    query = inputs_of(7, dtype=torch.float32)[0].bfloat16()
    with caplog.at_level("WARNING", logger="nlp_mtl"):
        assert varlen.chosen(query, 0.0) == "sdpa_groups"
        assert varlen.chosen(query, 0.0) == "sdpa_groups"
    assert caplog.text.count("flash_attn is not used on cpu in torch.bfloat16") == 1
    assert said in caplog.text


def test_the_packed_pass_goes_through_the_chosen_kernel(reference, monkeypatch):
    """What follows the look at the device, in one encoder: the reference is called once a layer, and the result is
    that of each row alone.
    """
    encoder = tiny_encoder("modernbert")  # sliding windows in some layers
    assert packing.choose_way(encoder)[0] == "packed"
    layout = Layout([5, 40, 12])
    ids = torch.arange(layout.tokens) % 50 + 5
    with torch.no_grad():
        plain = packing.encode(encoder, {"input_ids": ids}, layout, "packed")

        def through(query, key, value, layout, **how):
            parts = [x[: layout.tokens] for x in (query, key, value)]
            return attention._filled(varlen.attention("flash_attn", *parts, layout, **how), len(query) - layout.tokens)

        monkeypatch.setattr(packing, "packed_attention", through)
        again = packing.encode(encoder, {"input_ids": ids}, layout, "packed")
    assert reference.calls == encoder.config.num_hidden_layers
    torch.testing.assert_close(again, plain, **close)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: the CUDA kernels themselves are not run")
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("kernel", ["flash_attn", "torch_varlen", "sdpa_groups"])
def test_on_a_gpu_every_kernel_equals_the_definition(kernel, dtype):
    if kernel != "sdpa_groups" and varlen.installed(kernel)[1]:
        pytest.skip(f"{kernel} is not installed: {varlen.installed(kernel)[1]}")
    lengths = [5, 1, 40, 128, 77]
    for (heads, causal), window in itertools.product((((4, 4), False), ((4, 2), True)), (None, 9)):
        given_ = [x.detach().to(dtype) for x in inputs_of(sum(lengths), *heads, size=32)]
        there = [x.cuda().requires_grad_() for x in given_]
        same = [x.float().requires_grad_() for x in given_]
        out = varlen.attention(kernel, *there, Layout(lengths, "cuda"), scale=0.2, causal=causal, window=window)
        wanted = alone(*same, lengths, scale=0.2, causal=causal, window=window)
        torch.testing.assert_close(out.float().cpu(), wanted, rtol=0.03, atol=0.03)
        out.float().sum().backward()
        wanted.sum().backward()
        for one, other in zip(there, same, strict=True):
            torch.testing.assert_close(one.grad.float().cpu(), other.grad, rtol=0.05, atol=0.05)
