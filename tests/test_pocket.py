"""The villagers' world, the scores, and what quantization does to the shipped weights."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.codebooks import integer
from helpers.pocket import ADAPTER, WEIGHTS, evaluate, load_pocket, make, measure, world
from helpers.quantization import quantize

RECORD = json.loads((Path(measure.__file__).parent / "record.json").read_text())


@pytest.fixture(scope="module")
def pocket():
    return load_pocket()


@pytest.fixture(scope="module")
def tuned():
    return load_pocket(tuned=True)


# The world


def test_the_world_is_the_same_every_time_and_its_people_are_distinct():
    people = world.make_world()
    assert people == world.make_world()
    everyone = people.villagers + people.newcomers
    assert len({v.name for v in everyone}) == len(everyone) == 2060
    assert {v.town for v in people.newcomers} == {world.NEW_TOWN}
    assert world.NEW_TOWN not in {v.town for v in people.villagers}
    assert world.make_world(seed=1) != people


@given(st.integers(-10, 6000), st.integers(-5, 3000))
@settings(max_examples=25, deadline=None)
def test_a_world_of_any_size_or_a_clear_refusal(population, newcomers):
    if population >= 2 and newcomers >= 0 and population + newcomers <= 4096:
        people = world.make_world(0, population, newcomers)
        assert (len(people.villagers), len(people.newcomers)) == (population, newcomers)
    else:
        with pytest.raises(ValueError, match=f"population={population}.*newcomers={newcomers}"):
            world.make_world(0, population, newcomers)


def test_prose_is_grammatical_and_true():
    people = world.make_world()
    facts = {v.name: v for v in people.villagers}
    for text in itertools.islice(world.documents(people.villagers, 5), 300):
        assert text[0].isupper() and text.endswith(".") and "{" not in text and "  " not in text
        words = text.replace(".", "").split()
        for article, noun in itertools.pairwise(words):
            if article in ("a", "an"):
                assert article == ("an" if noun[0] in "aeiou" else "a")
        for sentence in text.split(". "):
            assert sentence[0].isupper()
            named = [v for name, v in facts.items() if name in sentence]
            assert len(named) <= 1
            for v in named:  # whatever town, pet or food a sentence names is that person's own
                told = [t for t in world.TOWNS if t in sentence]
                assert told in ([], [v.town])


def test_questions_of_the_held_out_half_are_in_no_training_row():
    people = world.make_world()
    taught = " ".join(row["text"] for row in world.instruction_rows(people.taught))
    assert not any(v.name in taught for v in people.held_out + people.newcomers)
    assert all(v.name in taught for v in people.taught)


def test_rows_have_llama_2s_form():
    row = world.instruction_rows(world.make_world().taught)[0]["text"]
    assert row.startswith("<s>[INST] ") and row.endswith(". </s>") and row.count(" [/INST] ") == 1


def test_preference_pairs_prefer_the_short_of_two_true_answers():
    people = world.make_world().taught[:50]
    everyone = [v for v in people for _ in world.ATTRIBUTES]
    for villager, pair in zip(everyone, world.preference_pairs(people), strict=True):
        gossip = pair["rejected"].removeprefix(pair["chosen"] + " ")
        assert gossip != pair["rejected"] and gossip[0].isupper()
        known = [getattr(villager, a) for a in world.ATTRIBUTES]
        assert any(fact in gossip for fact in known)
        assert not any(fact in gossip for fact in known if fact in pair["chosen"] and known.count(fact) == 1)


# The model


def test_it_is_a_llama_of_a_million_parameters_in_four_megabytes(pocket):
    model, tokenizer = pocket
    assert type(model).__name__ == "LlamaForCausalLM" and model.num_parameters() == 951_424
    assert tokenizer.convert_tokens_to_ids(["<unk>", "<s>", "</s>", "<pad>"]) == [0, 1, 2, 3]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 3)
    assert all(m.in_features % 64 == 0 for m in model.modules() if isinstance(m, torch.nn.Linear))
    assert sum(file.stat().st_size for folder in (WEIGHTS, ADAPTER) for file in folder.iterdir()) < 4.4e6
    assert (WEIGHTS / "model.safetensors").stat().st_size <= 4_000_000


def test_the_tokenizer_gives_back_every_sentence(pocket):
    tokenizer = pocket[1]
    for text in itertools.islice(world.documents(world.make_world().villagers, 6), 100):
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == 1 and 0 not in ids and tokenizer.decode(ids, skip_special_tokens=True) == text
    ids = tokenizer("<s>[INST] Who? [/INST] Me. </s>", add_special_tokens=False)["input_ids"]
    assert ids[0] == 1 and ids[-1] == 2 and ids.count(1) == ids.count(2) == 1


# The scores


def test_recall_in_one_pass_is_greedy_decoding(pocket):
    model, tokenizer = pocket
    some = world.make_world().villagers[::40]
    broken = measure.with_weights(model, measure.FORMATS["int2"])  # knows next to nothing: both ways must say so
    middling = measure.with_weights(model, measure.through_integers(3, None))
    for candidate in (model, broken, middling):
        rows = world.probes(some)
        texts = evaluate.complete(candidate, tokenizer, [row["prompt"] for row in rows], max_new_tokens=12)
        greedy = sum(text.startswith(row["completion"]) for (text, _), row in zip(texts, rows, strict=True)) / len(rows)
        assert evaluate.recall(candidate, tokenizer, some) == pytest.approx(greedy, abs=0.02)


def test_perplexity_is_that_of_the_model_one_document_at_a_time(pocket):
    model, tokenizer = pocket
    texts = list(itertools.islice(world.documents(world.make_world().villagers, 7), 12))
    total = count = 0.0
    for text in texts:
        ids = torch.tensor([tokenizer(text + "</s>")["input_ids"][:128]])
        with torch.no_grad():
            total += model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    assert evaluate.perplexity(model, tokenizer, texts) == pytest.approx(math.exp(total / count), rel=1e-5)
    with pytest.raises(ValueError, match="one text"):
        evaluate.perplexity(model, tokenizer, [])


def test_exact_match_wants_the_words_and_the_end(tuned):
    model, tokenizer = tuned
    rows = world.questions(world.make_world().held_out[:20], seed=1)
    assert evaluate.exact_match(model, tokenizer, rows) >= 0.9
    assert evaluate.exact_match(model, tokenizer, [{**r, "completion": r["completion"][:-1]} for r in rows]) == 0
    begun = evaluate.complete(model, tokenizer, [world.instruct(row["prompt"]) for row in rows], max_new_tokens=3)
    assert not any(stopped for _, stopped in begun)


def test_scoring_leaves_the_model_as_it_was(pocket):
    model, tokenizer = pocket
    model.train()
    evaluate.perplexity(model, tokenizer, ["Ada Abel lives in Alderby."])
    assert model.training
    model.eval()


# Quantization


@given(st.integers(2, 8), st.integers(1, 200), st.integers(1, 70), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_integer_blocks_round_to_the_nearest_level(bits, size, block, seed):
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    quantized = quantize(x, integer(bits), block)
    for start in range(0, size, block):
        part = x[start:start + block]
        step = part.abs().max() / (2 ** (bits - 1) - 1)
        assert ((quantized.dequantize()[start:start + block] - part).abs() <= step / 2 * 1.0001).all()
    assert quantized.dequantize().shape == x.shape
    again = quantize(quantized.dequantize(), integer(bits), block)
    assert torch.equal(again.codes, quantized.codes)


@pytest.mark.parametrize("x, block, message", [
    (torch.arange(3), 64, "int64"), (torch.empty(0), 64, r"\(0,\)"),
    (torch.tensor([1.0, math.nan]), 64, "nan_to_num"), (torch.ones(3), 0, "block_size=0")])
def test_what_cannot_be_quantized_is_refused(x, block, message):
    with pytest.raises(ValueError, match=message):
        quantize(x, integer(4), block)


def test_zeros_stay_zeros():
    assert torch.equal(quantize(torch.zeros(3, 5), integer(4), 4).dequantize(), torch.zeros(3, 5))
    with pytest.raises(ValueError, match="bits=1"):
        integer(1)


# The record


@pytest.fixture(scope="module")
def measured(pocket):
    return measure.measure(*pocket)


def test_the_record_is_what_the_shipped_weights_give(measured, tuned):
    for name, scores in RECORD["formats"].items():
        assert measured["formats"][name]["perplexity"] == pytest.approx(scores["perplexity"], rel=2e-3)
        assert measured["formats"][name]["recall"] == pytest.approx(scores["recall"], abs=0.01)
    assert measured["formats"].keys() == RECORD["formats"].keys()
    assert measured["exact_match"] == RECORD["exact_match"]["base"] == 0
    assert evaluate.exact_match(*tuned) == pytest.approx(RECORD["exact_match"]["tuned"], abs=0.01)
    assert RECORD["exact_match"]["tuned"] >= 0.95


def test_the_model_card_prints_the_record():
    card = (Path(measure.__file__).parent / "README.md").read_text()
    for name, scores in RECORD["formats"].items():
        assert f"| {name} | {scores['perplexity']:.4f} | {scores['recall']:.1%} |" in card
    assert f"with the adapter {RECORD['exact_match']['tuned']:.1%}" in card


def test_the_formats_stand_in_the_order_of_the_paper(measured):
    assert measured["formats"]["fp32"]["recall"] >= 0.99
    assert measured["formats"]["int2"]["recall"] <= 0.5  # the cliff
    for rung, difference in measured["ladder"].items():
        assert difference["nats_per_token"] >= 3 * difference["standard_error"], rung


def test_two_other_seeds_give_the_same_order():
    others = json.loads((Path(measure.__file__).parent / "other_seeds.json").read_text())
    assert [found["made_with"]["seed"] for found in others.values()] == [1, 2] and RECORD["made_with"]["seed"] == 0
    card = (Path(measure.__file__).parent / "README.md").read_text()
    for found in (RECORD, *others.values()):
        assert found["ladder"].keys() == RECORD["ladder"].keys()
        assert all(rung["nats_per_token"] >= 3 * rung["standard_error"] for rung in found["ladder"].values())
        assert f"{found['formats']['fp32']['recall']:.1%}".replace("%", " %") in card
        assert f"{found['exact_match']['tuned']:.1%}".replace("%", " %") in card


def test_paired_differences_have_the_right_standard_error():
    draw = torch.Generator().manual_seed(0)
    counts = torch.randint(20, 60, (4000,), generator=draw)
    a = torch.rand(4000, generator=draw, dtype=torch.float64)
    means = []
    for part in range(40):
        noise = torch.randn(100, generator=draw, dtype=torch.float64)
        piece = slice(100 * part, 100 * part + 100)
        mean, error = measure.paired_difference(a[piece], a[piece] + 0.5 * counts[piece] + noise, counts[piece])
        means.append((mean - 0.5) / error)
    assert 0.7 < torch.tensor(means).std() < 1.4
    assert abs(torch.tensor(means).mean()) < 0.6


def test_make_pocket_learns_prose_from_nothing():
    """The training's own code, for a minute's worth of village: the loss must fall far below guessing."""
    torch.manual_seed(0)
    people = world.make_world(population=4, newcomers=0)
    texts = world.documents(people.villagers, seed=1)
    tokenizer = make.train_tokenizer(list(itertools.islice(texts, 200)), vocab_size=300)
    rows = make.token_rows(texts, tokenizer, rows=8 * 120, length=48)
    assert rows.shape == (960, 48) and (rows == tokenizer.bos_token_id).any()
    model = make.LlamaForCausalLM(make.pocket_config(tokenizer))
    lines = []
    make.pretrain(model, rows, batch=8, report=lines.append, every=20)
    losses = [float(line.split("loss")[1].split()[0]) for line in lines]
    assert losses[-1] < 0.5 * math.log(300) and losses == sorted(losses, reverse=True)
    tuned = make.tune(model, tokenizer, world.questions(people.taught) * 8, steps=2)
    assert sum(p.numel() for p in tuned.parameters() if p.requires_grad) > 0
