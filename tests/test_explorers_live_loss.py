"""The growing loss curve: when it draws, what it costs, what it survives, how it looks to a trainer and to nbval."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from test_explorers_village import tiny
from transformers import AutoTokenizer, Trainer, TrainingArguments

from helpers import pocket
from helpers.explorers.live_loss import LiveLoss


def test_live_loss_draws_now_and_then_and_at_the_end():
    live = LiveLoss(every=60)
    for step in range(1, 101):
        live.add(step, 5 / step)
    assert live.drawn == 1 and len(live.losses) == 100
    live.draw()
    assert live.drawn == 2 and 'alt="Loss 0.05 at step 100"' in live.ui.value
    assert live.ui.value.startswith("<img") and "data:image/png;base64," in live.ui.value


@pytest.mark.parametrize("every, drawings", [(0, (9, 11)), (3, (4, 5))])
def test_live_loss_costs_little_even_if_asked_too_often(monkeypatch, every, drawings):
    """On a clock on which a drawing takes 50 ms and a step 5 ms: at most every `every` seconds, and 5 % of the time."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("helpers.explorers.live_loss.time", clock)

    class Slow(LiveLoss):
        def figure(self):
            clock.now += 0.05
            return super().figure()

    live, step = Slow(every=every), 0
    while clock.now < 10:
        live.add(step := step + 1, 1.0)
        clock.now += 0.005
    assert drawings[0] <= live.drawn <= drawings[1]


def test_live_loss_survives_a_broken_run_and_a_resumed_one():
    live = LiveLoss(every=0)
    live.draw()
    assert 'alt="No loss yet"' in live.ui.value
    live.add(10, 2.0)
    live.add(20, float("nan"))
    live.draw()
    assert "loss nan at step 20" in live.ui.value
    live.add(20, 1.0)  # resumed from step 10
    assert live.steps == [10, 20] and live.losses == [2.0, 1.0]
    live.draw()
    assert "Loss 1 at step 20" in live.ui.value
    with pytest.raises(ValueError, match="every=-1"):
        LiveLoss(every=-1)


def test_live_loss_listens_to_a_real_trainer(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(pocket.WEIGHTS)
    ids = tokenizer("An owl lives in the old mill.")["input_ids"]
    rows = [{"input_ids": ids, "labels": ids}] * 8
    live = LiveLoss()
    args = TrainingArguments(output_dir=str(tmp_path), max_steps=6, logging_steps=2, per_device_train_batch_size=4,
                             report_to=[], disable_tqdm=True, save_strategy="no", use_cpu=True)
    trainer = Trainer(tiny(tokenizer, 4), args, train_dataset=rows, callbacks=[live])
    trainer.train()
    assert live.steps == [2, 4, 6] and live.total == 6 and "at step 6" in live.ui.value
    assert live.losses == [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert live.figure().axes[0].get_xlim()[1] >= 6


def test_strict_nbval_accepts_a_notebook_with_a_growing_curve(tmp_path):
    path = tmp_path / "live.ipynb"
    cells = [new_code_cell(source) for source in (
        "import helpers; helpers.start()\nfrom helpers.explorers.live_loss import LiveLoss\n"
        "from helpers.plots import show",
        "live = LiveLoss(every=0)\nlive",
        "import random\nfor step in range(1, 30):\n    live.add(step, random.uniform(1, 2))\nlive.draw()",
        'show(live.figure(), alt="The loss wanders between 1 and 2.")',
        "print(live.steps[-1], live.drawn > 0)",
    )]
    nbformat.write(new_notebook(cells=cells), path)
    execute = [sys.executable, "-m", "jupyter", "execute", "--inplace", "--kernel_name=python3", str(path)]
    validate = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir",
                str(tmp_path), "--nbval", "--nbval-current-env", str(path)]
    for command in (execute, validate):
        run = subprocess.run(command, capture_output=True, text=True, cwd=pocket.WEIGHTS.parent.parent.parent)
        assert run.returncode == 0, run.stdout + run.stderr
    outputs = [cell.outputs for cell in nbformat.read(path, as_version=4).cells]
    assert outputs[1][0].data["text/plain"] == LiveLoss().text
    assert outputs[3][0].metadata["image/png"]["alt"] == outputs[3][0].data["text/plain"]
    assert [output.text for cell in outputs[:4] for output in cell if output.output_type == "stream"] == []
