"""The paging explorer: the simulation's arithmetic, the ledger behind it, and the widget driven from Python."""

from __future__ import annotations

import inspect

import bitsandbytes
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.explorers import paging
from helpers.explorers.paging import Step, page_the_optimizer, simulate
from helpers.memory import GIB, LLAMAS, forecast_training


def test_pages_leave_for_a_long_sequence_and_come_back():
    short, long, again = simulate(memory=100, fixed=40, paged=30, passing=[20, 45, 20], tokens=[1, 9, 1], page=10)
    assert short == Step(tokens=1, needed=60, resident=30, out=0, back=0, fits=True)
    assert long == Step(tokens=9, needed=85, resident=10, out=20, back=20, fits=True)  # room 15: one whole page
    assert again == short


def test_what_does_not_fit_is_said():
    (step,) = simulate(memory=100, fixed=40, paged=30, passing=[61], page=10)
    assert not step.fits and step.out == step.back == 0
    (step,) = simulate(memory=100, fixed=40, paged=30, passing=[60], page=10)
    assert step.fits and step.resident == 0 and step.out == 30


def test_an_optimizer_larger_than_the_room_is_read_through_in_every_step():
    first, second = simulate(memory=100, fixed=80, paged=50, passing=[5, 5], page=10)
    assert first.resident == second.resident == 10
    assert first.out == first.back == second.out == second.back == 40  # 30 never fit, 10 give way to the activations


@given(st.integers(0, 300), st.integers(0, 100), st.integers(0, 100), st.lists(st.integers(0, 100), min_size=1),
       st.integers(1, 20))
def test_memory_is_never_exceeded_and_nothing_gets_lost(memory, fixed, paged, passing, page):
    paged = paged // page * page
    for step, activation in zip(simulate(memory, fixed, paged, passing, page=page), passing, strict=True):
        assert step.needed == fixed + activation and step.fits == (step.needed <= memory)
        assert step.out >= 0 and step.back >= 0 and step.out == step.back
        if step.fits:
            assert step.needed + step.resident <= memory and 0 <= step.resident <= paged
            free = memory - step.needed - step.resident
            assert step.resident == paged or free < page  # no page leaves without need


@pytest.mark.parametrize("values", [(-1, 0, 0, [0]), (0, -1, 0, [0]), (0, 0, -1, [0]), (0, 0, 0, [-1])])
def test_negative_bytes_are_refused(values):
    with pytest.raises(ValueError, match="0 or more"):
        simulate(*values)
    with pytest.raises(ValueError, match="page"):
        simulate(1, 0, 0, [0], page=0)


def test_bytes_are_those_of_the_ledger():
    config = LLAMAS["Llama-2-7B"]
    for checkpointing in (True, False):
        whole = forecast_training(config, r=64, sequence=700, checkpointing=checkpointing)
        fixed, paged = paging.ledger("Llama-2-7B", 64)
        assert fixed + paged + paging.activations("Llama-2-7B", 64, checkpointing, 700) == whole.total
    assert paged == whole["optimizer"]  # at r = 64 every A and B is large enough
    assert paging.ledger("Llama-2-7B", 8)[1] == 0
    assert paging.ledger("Llama-2-7B", 16)[1] == 8 * 32 * 3 * 16 * 11008  # the three sides of 11,008


def test_the_smallest_paged_tensor_is_that_of_bitsandbytes():
    source = inspect.getsource(bitsandbytes.optim.optimizer.Optimizer8bit.get_state_buffer)
    assert "p.numel() < 1e5" in source and paging.SMALLEST_PAGED == 1e5


def test_the_default_pages_and_less_or_more_does_not():
    explorer = page_the_optimizer()
    assert explorer.verdict.startswith("Paging saves the run: in 6 of 12 steps") and len(explorer.steps) == 12
    explorer.controls["longest"].value = 512
    assert explorer.verdict.startswith("Everything fits") and "No page moves" in explorer.shown.value
    explorer.controls["memory"].value = 24
    assert explorer.verdict.startswith("Out of memory") and explorer.shown.value.count(">out of memory<") == 12
    assert explorer.report().count("out of memory") == 12
    explorer.set("Llama-2-7B", 8, 4096, 8)
    assert explorer.paged == 0 and sum(step.out for step in explorer.steps) == 0


def test_without_checkpointing_more_is_needed():
    explorer = page_the_optimizer("Llama-2-7B", 16, 1024, 64)
    before = [step.needed for step in explorer.steps]
    explorer.controls["checkpointing"].value = False
    assert all(after.needed > now for after, now in zip(explorer.steps, before, strict=True))
    assert "checkpointing off" in explorer.report()


def test_the_figure_keeps_below_the_line():
    explorer = page_the_optimizer()
    top, below = explorer.figure().axes
    ends = [max(bar.get_y() + bar.get_height() for container in top.containers for bar in [container[n]])
            for n in range(12)]
    assert max(ends) <= explorer.room / GIB + 1e-6
    assert [bar.get_height() > 0 for bar in below.containers[0]] == [step.out > 0 for step in explorer.steps]
