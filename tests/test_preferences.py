"""The DPO loss by hand: its corners, its reference, and equal to TRL's DPOTrainer."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from helpers import preferences
from helpers.exercises.lesson_12 import equation
from helpers.experiments import rlhf, tuning
from helpers.lora import add_lora, lora_layers
from helpers.pocket import load_pocket, world

PAIRS = world.preference_pairs(tuning.people().taught[:4], seed=1)


def awake(model):
    """The model with LoRA whose B says something, so that it differs from its reference."""
    torch.manual_seed(0)
    add_lora(model, r=4, alpha=8)
    for _, layer in lora_layers(model):
        torch.nn.init.normal_(layer.B, std=0.05)
    return model


@pytest.fixture(scope="module")
def batch():
    return next(tuning.pair_batches(load_pocket()[1], PAIRS, steps=1, seed=0, rows=6))


def test_log_probabilities_are_minus_the_summed_cross_entropy(pocket, batch):
    ids, labels = batch
    with torch.no_grad():
        logits = pocket(input_ids=ids).logits
        loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none").sum(1)
        torch.testing.assert_close(preferences.answer_logps(pocket, ids, labels), -loss)
    with pytest.raises(ValueError, match="same rows and length"):
        preferences.sequence_logps(logits, labels[:, 1:])


def test_padding_changes_nothing(pocket, batch):
    ids, labels = batch
    wider, empty = F.pad(ids, (0, 5), value=3), F.pad(labels, (0, 5), value=-100)
    with torch.no_grad():
        torch.testing.assert_close(preferences.answer_logps(pocket, wider, empty),
                                   preferences.answer_logps(pocket, ids, labels))


def test_a_stack_has_labels_on_the_answers_only():
    ids, labels = preferences.stack(iter([([1, 2], [3]), ([4], [5, 6, 7])]), pad=9)
    assert ids.tolist() == [[1, 2, 3, 9], [4, 5, 6, 7]]
    assert labels.tolist() == [[-100, -100, 3, -100], [-100, 5, 6, 7]] and labels.dtype == ids.dtype == torch.int64


def test_the_loss_is_log_2_at_the_reference_and_falls_with_the_margin():
    zero = torch.zeros(3)
    assert preferences.dpo_loss(zero, zero - 5, zero, zero - 5).tolist() == pytest.approx([math.log(2)] * 3)
    margins = torch.tensor([-1000.0, -2.0, 0.0, 2.0, 1000.0])
    losses = preferences.dpo_loss(margins, 0 * margins, 0 * margins, 0 * margins, beta=1.0)
    assert losses.isfinite().all() and (losses.diff() < 0).all()
    assert losses[0] == 1000
    rewards = preferences.rewards(torch.tensor([-3.0]), torch.tensor([-5.0]), beta=0.5)
    assert rewards.item() == 1
    with pytest.raises(ValueError, match="beta=0"):
        preferences.dpo_loss(zero, zero, zero, zero, beta=0)


def test_only_the_adapter_gets_a_gradient_and_is_on_again_afterwards(pocket, batch):
    model = awake(copy.deepcopy(pocket))
    before = model(input_ids=batch[0]).logits
    preferences.preference_loss(model, *batch).backward()
    assert {name.split(".")[-1] for name, p in model.named_parameters() if p.grad is not None} == {"A", "B"}
    assert torch.equal(model(input_ids=batch[0]).logits, before)
    with preferences.reference(model):
        torch.testing.assert_close(model(input_ids=batch[0]).logits, pocket(input_ids=batch[0]).logits)
    with pytest.raises(ValueError, match="add_lora"):
        preferences.reference(pocket).__enter__()


def test_what_the_student_writes_is_the_helpers_own(batch):
    torch.manual_seed(0)
    logits, four = torch.randn(*batch[1].shape, 768), torch.randn(4, 5)
    torch.testing.assert_close(equation.sequence_logps(logits, batch[1]), preferences.sequence_logps(logits, batch[1]))
    assert torch.equal(equation.dpo_loss(*four, beta=0.3), preferences.dpo_loss(*four, beta=0.3))


def test_equal_to_trl_in_tokens_loss_rewards_and_gradients(tmp_path):
    import trl

    model, tokenizer = load_pocket()
    trainer = trl.DPOTrainer(
        model, args=trl.DPOConfig(str(tmp_path), beta=0.2, per_device_train_batch_size=len(PAIRS), **rlhf.QUIET),
        train_dataset=rlhf.for_trl(PAIRS), processing_class=tokenizer, peft_config=rlhf.adapter("CAUSAL_LM"))
    theirs = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    torch.manual_seed(1)
    for name, p in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.05)
    batch = next(iter(trainer.get_train_dataloader()))
    ids, labels = batch["input_ids"], batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    own = [sorted(map(tuple, next(tuning.pair_batches(tokenizer, PAIRS, 1, seed=0, rows=len(PAIRS)))[0].tolist())),
           sorted(map(tuple, ids.tolist()))]
    assert own[0] == own[1]

    trained = [p for p in theirs.parameters() if p.requires_grad]
    theirs.train()
    their, mine = trainer.compute_loss(theirs, batch), preferences.preference_loss(theirs, ids, labels, beta=0.2)
    assert abs(their - mine).item() < 1e-6 and abs(mine - math.log(2)).item() > 1e-3
    for a, b in zip(torch.autograd.grad(their, trained), torch.autograd.grad(mine, trained), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
    with torch.no_grad():
        logps = preferences.answer_logps(theirs, ids, labels)
        with preferences.reference(theirs):
            rewards = preferences.rewards(logps, preferences.answer_logps(theirs, ids, labels), beta=0.2)
    logged = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    for side, mean in zip(("chosen", "rejected"), rewards.chunk(2), strict=True):
        assert logged[f"rewards/{side}"] == pytest.approx(mean.mean().item(), abs=1e-5)
