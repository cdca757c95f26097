"""Only positions with a label reach the head, and what is learnt from them is the same."""

from types import SimpleNamespace

import pytest
import torch
from trl.trainer import utils

from helpers.finale.heads import label_positions_only
from helpers.pocket import load_pocket


@pytest.fixture
def heads(monkeypatch):
    """How many positions each call of TRL's head computed."""
    seen, apply = [], utils._ChunkedLogProbFunction.apply

    def counted(hidden, *more):
        seen.append(len(hidden))
        return apply(hidden, *more)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", SimpleNamespace(apply=counted))
    return seen


def loss_and_gradient(model, ids, labels):
    model.zero_grad()
    loss = model(input_ids=ids, labels=labels, fused_lm_head=True).loss
    loss.backward()
    return loss.detach(), model.model.layers[0].self_attn.q_proj.weight.grad.clone()


def test_same_loss_and_gradient_from_fewer_positions(heads):
    model, _ = load_pocket()
    utils.add_fused_lm_head(model)
    ids = torch.arange(100, 160).view(2, 30)
    labels = ids.masked_fill(torch.arange(30) < 24, -100)
    whole = loss_and_gradient(model, ids, labels)
    with label_positions_only():
        short = loss_and_gradient(model, ids, labels)
    assert loss_and_gradient(model, ids, labels)[0] == whole[0]
    assert heads == [2 * 29, 2 * 6, 2 * 29]  # and afterwards TRL is as it was
    for a, b in zip(whole, short, strict=True):
        assert a.abs().max() > 0 and torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_another_trl_trains_as_it_is(monkeypatch):
    monkeypatch.delattr(utils, "_use_triton")
    with label_positions_only():
        assert not hasattr(utils, "_use_triton")
