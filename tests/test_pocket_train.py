"""The batches and the training loop of the adapter lessons."""

import itertools

import torch

from helpers.pocket import load_pocket
from helpers.pocket.train import question_batches, train


def test_only_the_answer_and_its_end_are_learnt():
    _, tokenizer = load_pocket()
    rows = [{"prompt": "Where does Ada live?", "completion": "Ada lives in Dunmere."},
            {"prompt": "Who?", "completion": "Nobody."}]
    ids, labels = next(question_batches(tokenizer, steps=1, batch=2, rows=rows))
    assert ids.shape == labels.shape and ids.dtype == labels.dtype == torch.int64
    for row, target in zip(ids, labels, strict=True):
        learnt = target != -100
        assert (row[learnt] == target[learnt]).all() and target[learnt][-1] == tokenizer.eos_token_id
        text = tokenizer.decode(target[learnt], skip_special_tokens=True)
        assert text.strip() in ("Ada lives in Dunmere.", "Nobody.")
        assert not learnt[row == tokenizer.pad_token_id].any() and row[0] == tokenizer.bos_token_id


def test_batches_depend_on_the_seed_only():
    _, tokenizer = load_pocket()
    first, again, other = (list(question_batches(tokenizer, steps=3, batch=4, seed=seed)) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True))
    assert not all(x[0].shape == y[0].shape and torch.equal(x[0], y[0]) for x, y in zip(first, other, strict=True))


def test_training_lowers_the_loss_and_moves_only_what_requires_a_gradient():
    model, tokenizer = load_pocket()
    model.requires_grad_(False)
    head, body = model.lm_head.weight, model.model.layers[0].mlp.up_proj.weight.clone()
    head.requires_grad_(True)
    before = head.detach().clone()
    batch = next(iter(question_batches(tokenizer, steps=1, batch=8)))
    losses = train(model, itertools.repeat(batch, 6), lr=1e-2, steps=6)
    assert losses[-1] < 0.7 * losses[0] and not model.training
    assert not torch.equal(head, before) and torch.equal(model.model.layers[0].mlp.up_proj.weight, body)
