"""Calibration against what defines it: least squares for GPTQ, PEFT for LoftQ and PiSSA, and brute force."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import loftq_utils
from torch import nn

from helpers.calibration import (
    ALPHAS,
    Inputs,
    awq,
    best_awq,
    collect_inputs,
    compensate,
    gptq,
    keep_channels,
    loftq,
    output_error,
    pissa,
    salient,
    weighted_pair,
)
from helpers.codebooks import NF4, integer
from helpers.quantization import quantize


@pytest.fixture(scope="module")
def layer() -> tuple[torch.Tensor, torch.Tensor, Inputs]:
    """A weight (48, 64), inputs (500, 64) of which two channels are loud and neighbours alike, and their moments."""
    g = torch.Generator().manual_seed(0)
    W = torch.randn(48, 64, generator=g) * 0.1
    x = torch.randn(500, 64, generator=g)
    x = x + x.roll(1, 1)
    x[:, 5] *= 20
    x[:, 41] *= 8
    return W, x, Inputs(x.T @ x / len(x), x.abs().mean(0))


def nf4(W: torch.Tensor) -> torch.Tensor:
    return quantize(W, NF4, 64).dequantize()


def int4(W: torch.Tensor) -> torch.Tensor:
    return quantize(W, integer(4), 64).dequantize()


def test_the_output_error_is_that_of_the_outputs(layer):
    W, x, inputs = layer
    E = nf4(W) - W
    assert output_error(E, inputs.moment) == pytest.approx((x @ E.T).square().sum(1).mean().item(), rel=1e-5)


def test_inputs_are_collected_over_all_batches():
    torch.manual_seed(0)
    model = nn.ModuleDict({"embed": nn.Embedding(11, 8), "inner": nn.Linear(8, 3), "unused": nn.Linear(8, 3)})
    model.forward = lambda input_ids, use_cache: model["inner"](model["embed"](input_ids))
    batches = [torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5], [1, 1]])]
    found = collect_inputs(model, {"inner": model["inner"]}, batches)["inner"]
    x = model["embed"](torch.tensor([1, 2, 3, 4, 5, 1, 1])).detach()
    torch.testing.assert_close(found.moment, x.T @ x / 7)
    torch.testing.assert_close(found.magnitude, x.abs().mean(0))
    assert not model["inner"]._forward_pre_hooks
    with pytest.raises(ValueError, match="no input reached unused"):
        collect_inputs(model, {"inner": model["inner"], "unused": model["unused"]}, batches)
    with pytest.raises(ValueError, match="batches"):
        collect_inputs(model, {"inner": model["inner"]}, [])


def test_salient_channels_are_the_loud_ones(layer):
    W, _, inputs = layer
    assert salient(inputs.magnitude, 2 / 64).nonzero().flatten().tolist() == [5, 41]
    assert salient(inputs.magnitude, 0.001).sum() == salient(inputs.magnitude).sum() == 1
    kept = keep_channels(W, salient(inputs.magnitude, 2 / 64), int4)
    assert torch.equal(kept[:, [5, 41]], W[:, [5, 41]]) and torch.equal(kept[:, :5], int4(W)[:, :5])
    assert output_error(kept - W, inputs.moment) < 0.3 * output_error(int4(W) - W, inputs.moment)


def test_awq_makes_loud_channels_exact_and_costs_little_elsewhere(layer):
    W, _, inputs = layer
    assert torch.equal(awq(W, inputs, int4, 0.0), int4(W))
    s = inputs.magnitude.sqrt() / (inputs.magnitude.max() * inputs.magnitude.min()) ** 0.25
    seen = []
    awq(W, replace(inputs, magnitude=inputs.magnitude / 1000), lambda scaled: seen.append(scaled) or scaled, 0.5)
    torch.testing.assert_close(seen[0], W * s)
    plain, (scaled, alpha) = int4(W) - W, best_awq(W, inputs, int4)
    assert alpha in ALPHAS and alpha > 0
    errors = [output_error(awq(W, inputs, int4, tried) - W, inputs.moment) for tried in ALPHAS]
    assert output_error(scaled - W, inputs.moment) == min(errors) < max(errors)
    assert output_error(scaled - W, inputs.moment) < 0.6 * output_error(plain, inputs.moment)
    assert (scaled - W)[:, 5].norm() < 0.5 * plain[:, 5].norm()
    assert (scaled - W).norm() > plain.norm()  # the plain error of the weights is greater: that is the trade


def test_gptq_fixes_each_column_and_the_rest_is_the_least_squares_answer(layer):
    """Equation 2 by definition: with the first columns fixed, no other rest has a smaller output error."""
    W, x, inputs = layer
    W, damping = W[:5].double(), 0.01
    H = inputs.moment.double() + damping * inputs.moment.double().diagonal().mean() * torch.eye(64)
    S = torch.linalg.cholesky(H)  # |(W - V)·S|² is the damped output error
    done = gptq(W, inputs.moment, NF4, 16, damping)
    for j in (0, 1, 15, 16, 40, 63):
        absmax_from = j // 16 * 16
        def rest_after(fixed):
            """The least-squares choice of the columns from `fixed` on, the ones before it as GPTQ left them."""
            left = (W - torch.cat([done[:, :fixed], torch.zeros_like(W[:, fixed:])], 1)) @ S
            return torch.linalg.lstsq(S[fixed:].T, left.T).solution.T
        absmax = rest_after(absmax_from)[:, :16].abs().amax(1)
        wanted = rest_after(j)[:, 0]
        levels = NF4.double()[(wanted[:, None] / absmax[:, None] - NF4.double()).abs().argmin(1)] * absmax
        torch.testing.assert_close(done[:, j], levels, rtol=1e-6, atol=1e-9)


def test_the_rest_makes_good_what_it_can(layer):
    """Against least squares, and step by step the same as `gptq`."""
    W, _, inputs = layer
    W, H = W[:5].double(), inputs.moment.double() + 0.01 * torch.eye(64)
    for j in (0, 7, 62, 63):
        fixed = W[:, j].round(decimals=1)
        moved = compensate(W, H, j, fixed)
        assert torch.equal(moved[:, j], fixed) and torch.equal(moved[:, :j], W[:, :j])
        S = torch.linalg.cholesky(H)
        error = torch.zeros_like(W)
        error[:, j] = fixed - W[:, j]
        best = torch.linalg.lstsq(S[j + 1:].T, -(error @ S).T).solution.T if j < 63 else W[:, :0]
        torch.testing.assert_close(moved[:, j + 1:] - W[:, j + 1:], best, rtol=1e-6, atol=1e-9)
    V, absmax = W.clone(), W.abs().amax(1)
    for j in range(64):
        V = compensate(V, H, j, NF4.double()[(V[:, j, None] / absmax[:, None] - NF4).abs().argmin(1)] * absmax)
    torch.testing.assert_close(V, gptq(W, H, NF4, 64, damping=0), rtol=1e-9, atol=1e-12)


def test_gptq_beats_rounding_and_equals_it_where_channels_do_not_speak_to_each_other(layer):
    W, _, inputs = layer
    for codebook, rounding in ((NF4, nf4), (integer(4), int4)):
        better = gptq(W, inputs.moment, codebook, 64) - W
        assert output_error(better, inputs.moment) < 0.7 * output_error(rounding(W) - W, inputs.moment)
    alone = gptq(W, torch.eye(64), NF4, 64)
    torch.testing.assert_close(alone, nf4(W), rtol=1e-6, atol=1e-7)
    wide, moment = torch.cat([W, 3 * W], 1), torch.block_diag(inputs.moment, inputs.moment)
    assert torch.equal(gptq(wide, moment, NF4), gptq(wide, moment, NF4, 64, 0.01))
    assert gptq(torch.zeros(2, 64), torch.eye(64), NF4).abs().sum() == 0


def test_gptq_is_near_the_best_there_is():
    """Brute force over all 3⁶ roundings of a row of six to three levels."""
    g = torch.Generator().manual_seed(3)
    levels = torch.tensor([-1.0, 0.0, 1.0])
    better, worse = 0.0, 0.0
    for _ in range(20):
        w, x = torch.randn(1, 6, generator=g), torch.randn(40, 6, generator=g) + torch.randn(40, 1, generator=g)
        w = w / w.abs().max()
        w[0, 0] = 1.0  # so that the scale is 1, for all alike
        H = x.T @ x / 40
        best = min(output_error(torch.tensor([row]) - w, H) for row in itertools.product((-1.0, 0, 1), repeat=6))
        rounded = levels[(w[..., None] - levels).abs().argmin(-1)]
        found = output_error(gptq(w, H, levels, 6, damping=1e-6) - w, H)
        assert best <= found * (1 + 1e-5)
        better, worse = better + found / best, worse + output_error(rounded - w, H) / best
    assert better < worse


def test_loftq_is_peft_s(layer, monkeypatch):
    W = layer[0]
    monkeypatch.setattr(torch.Tensor, "to", _on_the_cpu(torch.Tensor.to))  # PEFT's function wants a GPU
    monkeypatch.setattr(loftq_utils, "clear_device_cache", lambda: None)
    for steps in (1, 3):
        theirs, A, B = loftq_utils.loftq_init(W, num_bits=4, reduced_rank=8, num_iter=steps)
        Q, ours_B, ours_A = loftq(W, nf4, 8, steps)
        torch.testing.assert_close(Q, theirs, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours_B @ ours_A, B @ A, rtol=1e-4, atol=1e-5)


def _on_the_cpu(to):
    def patched(self, *arguments, **options):
        options = {name: "cpu" if str(value) == "cuda" else value for name, value in options.items()}
        return to(self, *("cpu" if str(a) == "cuda" else a for a in arguments), **options)
    return patched


def test_pissa_is_peft_s():
    torch.manual_seed(0)
    linear = nn.Linear(24, 16, bias=False)
    W = linear.weight.detach().clone()
    model = get_peft_model(nn.Sequential(linear), LoraConfig(r=4, lora_alpha=4, target_modules=["0"],
                                                             init_lora_weights="pissa"))
    theirs = model.base_model.model[0]
    rest, B, A = pissa(W, 4)
    torch.testing.assert_close(theirs.base_layer.weight.detach(), rest)
    for ours, peft in ((A, theirs.lora_A["default"].weight), (B, theirs.lora_B["default"].weight)):
        signs = (ours.flatten() @ peft.detach().flatten()).sign()
        torch.testing.assert_close(ours.abs(), peft.detach().abs())
        assert signs != 0
    torch.testing.assert_close(rest + B @ A, W)


def test_a_pair_for_the_output_is_better_there_and_worse_for_the_weight(layer):
    W, _, inputs = layer
    E = W - nf4(W)
    for r in (2, 8):
        plain, weighted = loftq(W, nf4, r)[1:], weighted_pair(E, inputs.moment, r)
        errors = [output_error(E - B @ A, inputs.moment) for B, A in (plain, weighted)]
        assert errors[1] < errors[0] < output_error(E, inputs.moment)
        assert (E - weighted[0] @ weighted[1]).norm() > (E - plain[0] @ plain[1]).norm()
        H = inputs.moment.double() + 0.01 * inputs.moment.diagonal().mean() * torch.eye(64)
        least = torch.linalg.svdvals(E.double() @ torch.linalg.cholesky(H))[r:].square().sum().item()
        B, A = weighted_pair(E.double(), inputs.moment, r)
        assert output_error(E.double() - B @ A, H) == pytest.approx(least, rel=1e-6)  # no pair has less
    B, A = weighted_pair(E, torch.eye(64), 8)
    torch.testing.assert_close(B @ A, loftq(W, nf4, 8)[1] @ loftq(W, nf4, 8)[2], rtol=1e-4, atol=1e-6)
