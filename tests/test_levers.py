"""The levers' record: complete, of the steps that the code takes today; and the sheet that is made of it."""

import dataclasses
import re

import pytest
from trl import SFTConfig

from helpers import experiments
from helpers.experiments import levers
from helpers.faster import profiling, sheet
from helpers.finale import laptop

RECORD = experiments.read(levers.NAME)
NAMES = [lever.name for lever in levers.LEVERS]


def test_the_record_has_every_lever_in_every_round():
    found = [(point["lever"], point["round"]) for point in RECORD["points"]]
    assert sorted(found) == sorted((name, number) for name in NAMES for number in range(levers.ROUNDS))
    assert RECORD["model"] == laptop.MODEL and {"torch", "transformers"} <= set(RECORD["made_with"])


def test_levers_leave_the_gradients_alone():
    """All but those that compute other weights' gradients, and the one that shows what no walls do."""
    for lever in levers.LEVERS:
        found = sheet.value(RECORD, lever.name, "difference")
        if lever.against is None:
            assert found is None
        elif lever.name == levers.JOINED:
            assert found > 0.05
        else:
            assert found < 1e-5, lever.name


def test_what_the_lesson_says_of_the_record():
    """In every round."""
    for quick, slow, most in (("plain", "padded to 1,024", 0.25), ("packed", "plain", 0.7), ("after", "before", 0.1),
                              ("packed, checkpointed", "before", 1 / 9), ("plain", "checkpointed", 0.8),
                              ("batches of 2, accumulated", "plain", 0.9), ("plain", "NF4 base", 0.99),
                              ("plain", "all weights trained", 0.9),
                              ("1,024 tokens, sdpa", "1,024 tokens, eager", 0.9)):
        assert max(sheet.ratios(RECORD, quick, slow)) < most, (quick, slow)
    assert max(sheet.ratios(RECORD, "checkpointed", "plain", "peak")) < 0.6
    for lever in (levers.BEFORE, levers.AFTER):
        shares = sheet.value(RECORD, lever, "shares")
        assert tuple(shares) == profiling.KINDS and sum(shares.values()) == pytest.approx(1, abs=0.01)


def test_the_steps_are_those_of_the_record(smollm2, monkeypatch):
    monkeypatch.setattr(laptop, "fetch", lambda: smollm2)
    levers.tokenizer.cache_clear()
    for lever in levers.LEVERS:
        if lever.base == "fp32":
            found = levers.cut(lever)
            assert sum(batch["input_ids"].numel() for batch in found) == sheet.value(RECORD, lever.name, "tokens")
            assert sum(levers.steps.labels_in(batch) for batch in found) == sheet.value(RECORD, lever.name, "labels")


# ---- the sheet

MADE_UP = {"points": [
    {"round": n, "lever": name, "seconds": seconds * (1 + n), "difference": 2e-7 * (name == "b")}
    for n, row in enumerate([(2.0, 1.0), (2.0, 1.5)]) for name, seconds in zip("ab", row, strict=True)]}


def test_ratios_are_taken_within_a_round():
    assert sheet.ratios(MADE_UP, "b", "a") == [0.5, 0.75]
    with pytest.raises(ValueError, match="no round has 'peak' of both 'b' and 'a'"):
        sheet.ratios(MADE_UP, "b", "a", "peak")


@pytest.mark.parametrize("numbers, said", [
    ([0.5, 0.75], "× 0.62 (0.50–0.75)"), ([0.5, 0.501], "× 0.50"), ([2], "× 2.00")])
def test_a_spread_is_shown_where_there_is_one(numbers, said):
    assert sheet.spread(numbers) == said


def test_a_line_of_the_sheet():
    line = sheet.Line("title", "`switch`", "b", "a price", "a", memory=False)
    assert sheet.sheet(MADE_UP, [line]).splitlines()[-1] == (
        "| title | `switch` | × 0.62 (0.50–0.75) | – | 2e-7 | a price |")
    unmeasured = sheet.Line("title", "", None, "a price")
    assert sheet.sheet(MADE_UP, [unmeasured]).splitlines()[-1] == "| title |  | – | – | – | a price |"


def test_the_names_on_the_sheet_are_those_of_the_libraries():
    fields = {field.name for field in dataclasses.fields(SFTConfig)}
    page = sheet.sheet(RECORD)
    for switch in ("train_sampling_strategy", "packing", "gradient_accumulation_steps", "activation_checkpointing",
                   "torch_compile", "activation_offloading"):
        assert switch in fields and f"`{switch}" in page
    for name in re.findall(r'optim="(\w+)"', page):
        SFTConfig(optim=name, report_to="none", use_cpu=True, bf16=False)
    assert page.count("\n") == 1 + len(sheet.LINES)
