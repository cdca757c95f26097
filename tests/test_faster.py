"""Lesson 13's levers: batches without padding, and the same gradients another way."""

import random

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM
from trl import pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from helpers.faster import batches, profiling, steps
from helpers.lora import add_lora

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    found = add_lora(LlamaForCausalLM(LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64)), r=4)
    for name, weight in found.named_parameters():
        if name.endswith(".B"):
            nn.init.normal_(weight, std=0.1)
    return found.train()


def rows(*lengths, seed=0, learnt=0.5):
    generator = torch.Generator().manual_seed(seed)
    found = []
    for n in lengths:
        ids = torch.randint(1, 96, (n,), generator=generator)
        labels = ids.masked_fill(torch.rand(n, generator=generator) > learnt, -100)
        found.append((ids.tolist(), labels.tolist()))
    return found


ROWS = rows(9, 4, 17, 6)


@pytest.fixture(scope="module")
def plain(model):
    return steps.gradients(model, lambda: steps.accumulate(model, [batches.pad_rows(ROWS, 0)]))


def off(model, plain, found, loss=steps.summed_loss):
    return steps.difference(steps.gradients(model, lambda: steps.accumulate(model, found, loss)), plain)


# ---- batches

def test_padding_is_masked_and_has_no_label():
    batch = batches.pad_rows(rows(3, 5, learnt=1), 7, length=6)
    assert batch["input_ids"].shape == batch["labels"].shape == (2, 6)
    assert batch["input_ids"][0, 3:].tolist() == [7, 7, 7] and batch["labels"][0, 3:].tolist() == [-100] * 3
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]]


@pytest.mark.parametrize("given, length", [([], None), (ROWS, 16), ([([], [])], None)])
def test_padding_refuses(given, length):
    with pytest.raises(ValueError, match="cannot be filled up"):
        batches.pad_rows(given, 0, length)


@pytest.mark.parametrize("seed", range(6))
def test_bins_are_those_of_trl(seed):
    lengths = random.Random(seed).choices(range(1, 33), k=8 + 30 * seed)
    packed = pack_dataset(Dataset.from_dict({"input_ids": [[i] * n for i, n in enumerate(lengths)]}), 32, "bfd")
    mine = batches.pack(lengths, 32)
    assert sorted(i for chosen in mine for i in chosen) == list(range(len(lengths)))
    assert sorted([lengths[i] for i in chosen] for chosen in mine) == sorted(packed["seq_lengths"])


def test_a_row_longer_than_a_bin_is_named():
    with pytest.raises(ValueError, match="row 1 has 9 tokens, a bin holds 8"):
        batches.pack([3, 9], 8)


def test_packed_rows_are_those_of_trls_collator():
    mine = batches.pack_rows(ROWS)
    theirs = DataCollatorForLanguageModeling(0, padding_free=True)(
        [{"input_ids": ids, "labels": labels} for ids, labels in ROWS])
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name


@given(LENGTHS, st.integers(1, 9), st.integers(0, 3))
def test_batches_hold_every_row_once_and_grouping_does_not_cost_more(lengths, size, pool):
    for seed in (0, 1):
        at_random = batches.in_order(len(lengths), size, seed)
        grouped = batches.grouped(lengths, size, seed, pool=pool + 1)
        for found in (at_random, grouped):
            assert sorted(i for chosen in found for i in chosen) == list(range(len(lengths)))
            assert max(map(len, found)) <= size
        assert sum(lengths) <= batches.computed(lengths, grouped)
    everything = batches.grouped(lengths, size, pool=len(lengths))
    if len(lengths) % size == 0:  # a smaller last batch may hold the short rows
        assert batches.computed(lengths, everything) <= batches.computed(lengths, at_random)


def test_grouping_depends_on_its_seed_only():
    lengths = list(range(1, 41))
    assert batches.grouped(lengths, 4, 1) == batches.grouped(lengths, 4, 1) != batches.grouped(lengths, 4, 2)
    assert batches.computed([2, 5, 3], [[0, 1], [2]]) == 13
    assert list(batches.take("abc", [[2, 0], [1]])) == [["c", "a"], ["b"]]


# ---- the same gradients

def test_ways_that_leave_the_gradients_alone(model, plain):
    padded = batches.pad_rows(ROWS, 0)
    assert off(model, plain, [batches.pad_rows(ROWS, 5, 40)]) < 1e-5
    assert off(model, plain, [batches.pack_rows(ROWS)]) < 1e-5
    assert off(model, plain, [batches.pad_rows([row], 0) for row in ROWS]) < 1e-5
    assert off(model, plain, [padded], steps.labelled_loss) < 1e-5
    for layers in (1, 3):
        with steps.checkpointed(model, layers):
            assert off(model, plain, [padded]) < 1e-5


def test_ways_that_do_not(model, plain):
    packed = batches.pack_rows(ROWS)
    del packed["position_ids"]
    assert off(model, plain, [packed]) > 0.05
    means = [batches.pad_rows([row], 0) for row in ROWS]

    def mean_of_means():
        for batch in means:
            (steps.summed_loss(model, batch) / steps.labels_in(batch) / len(means)).backward()

    assert steps.difference(steps.gradients(model, mean_of_means), plain) > 0.05


def test_a_first_token_is_no_label_of_the_row_before(model):
    """With it, the packed loss would count more labels than the padded one."""
    learnt = rows(9, 4, 17, learnt=1)
    assert steps.labels_in(batches.pack_rows(learnt)) == steps.labels_in(batches.pad_rows(learnt, 0)) == 27


def test_the_loss_is_the_mean_over_all_labels(model):
    pieces = [batches.pad_rows([row], 0) for row in ROWS]
    whole = model(**batches.pad_rows(ROWS, 0)).loss.item()
    assert steps.accumulate(model, pieces) == pytest.approx(whole, rel=1e-5)
    model.zero_grad()
    with pytest.raises(ValueError, match="nothing to learn"):
        steps.accumulate(model, [batches.pad_rows([([1, 2, 3], [-100] * 3)], 0)])


def test_the_dial_keeps_less_and_computes_more(model):
    batch = batches.pad_rows(ROWS, 0)
    kept, operations = [], []
    for layers in range(4):
        with steps.checkpointed(model, layers), FlopCounterMode(display=False) as counter:
            steps.accumulate(model, [batch])
        with steps.checkpointed(model, layers):
            kept.append(steps.kept_bytes(model, lambda: steps.summed_loss(model, batch)))
        operations.append(counter.get_total_flops())
    model.zero_grad()
    assert kept == sorted(kept, reverse=True) and len(set(kept)) == 4
    assert operations == sorted(operations) and 1.2 < operations[3] / operations[0] < 1.6
    assert "forward" not in vars(model.model.layers[0]), "the layers are as they were"
    with pytest.raises(ValueError, match="layers=4: the model has 3"), steps.checkpointed(model, 4):
        pass


def test_what_autograd_keeps_is_counted_once():
    layer = nn.Linear(8, 4, bias=False)
    x = torch.randn(5, 8, requires_grad=True)
    assert steps.kept_bytes(layer, lambda: layer(x)) == x.nbytes  # the weight is the model's own
    assert steps.kept_bytes(layer, lambda: layer(x) + layer(x)) == x.nbytes
    assert steps.kept_bytes(layer, lambda: layer(x).exp()) == x.nbytes + 5 * 4 * 4


# ---- where the time goes

@pytest.mark.parametrize("name, shapes, kind", [
    ("aten::mm", [[8, 32], [32, 96]], "head and loss"), ("aten::mm", [[8, 32], [32, 64]], "matrix products"),
    ("aten::_log_softmax", [[8, 4], [], []], "head and loss"), ("aten::silu", [[8, 64]], "pointwise"),
    ("aten::_scaled_dot_product_flash_attention_for_cpu", [[1, 4, 8, 8]], "attention"),
    ("aten::_softmax", [[1, 4, 8, 8], [], []], "attention"), ("bitsandbytes::gemm_4bit", [[8, 32]], "matrix products"),
    ("Optimizer.step#AdamW.step", [], "optimizer"), ("aten::_foreach_mul_", [], "optimizer"),
    ("aten::copy_", [[3], [3]], "moving data"), ("aten::view", [[3]], "the rest")])
def test_operators_are_put_into_kinds(name, shapes, kind):
    assert profiling.kind(name, shapes, 96) == kind


def test_shares_are_of_the_whole_and_see_the_work():
    a = torch.randn(300, 300)
    found = profiling.shares(lambda: [a @ a for _ in range(20)], vocab=96)
    assert sum(found.values()) == pytest.approx(1) and tuple(found) == profiling.KINDS
    assert found["matrix products"] > 0.5
    calls = []
    profiling.shares(lambda: calls.append(a + a), vocab=96, repeat=2, warm=False)
    assert len(calls) == 2
