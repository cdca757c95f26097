"""Tiers and preflight: made-up machines, so that every remedy is seen; sizes against PEFT's own count."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from families import FAMILIES, family_model, write_family
from hypothesis import given, settings
from hypothesis import strategies as st
from standins import GUANACO, LLAMA, LLAMA_REVISION, fill_hub_cache, write_json

from helpers.finale import machine as module
from helpers.finale.hub import HubError, Source
from helpers.finale.machine import Machine, machine
from helpers.finale.preflight import PreflightError, preflight
from helpers.finale.rows import read
from helpers.finale.sizes import COUNTED, checkpoint_size
from helpers.finale.tiers import TIERS, choose_tier
from helpers.memory import lora_weights

GOOD = (("torch>=2.9", "2.13.0+cpu"), ("trl<2,>=1.16", "1.16.0"))
T4 = Machine("Tesla T4", (7, 5), 14.6, 14.3, ram=11.5, disk=70, flops=1.5e13, packages=GOOD)
A100 = Machine("NVIDIA A100-SXM4-40GB", (8, 0), 39.4, 39.0, ram=80, disk=200, flops=9e13, packages=GOOD)
LAPTOP = Machine(ram=6, disk=20, flops=5e10, packages=GOOD)
ON_HUB = (Source(LLAMA, "reachable", revision=LLAMA_REVISION, bytes=13_476_831_232),
          Source(GUANACO, "reachable", revision="a" * 40, bytes=1_000_000))
SEVEN = TIERS["llama-2-7b"]


@pytest.fixture(autouse=True)
def no_course_variables(monkeypatch):
    for name in ("COURSE_TIER", "COURSE_MODEL", "COURSE_DATASET", "COURSE_STEPS"):
        monkeypatch.delenv(name, raising=False)


def failed(report):
    return [check.name for check in report.failures]


# ---- choosing

@pytest.mark.parametrize("on, name", [
    (LAPTOP, "pocket"), (T4, "llama-2-7b"), (A100, "llama-2-7b"), (replace(T4, gpu_total=13.9), "small"),
    (replace(T4, gpu_total=14.0), "llama-2-7b"), (replace(T4, gpu_total=3.9), "pocket"),
    (replace(LAPTOP, gpu_total=24.0), "pocket"),
])
def test_the_machine_chooses(on, name):
    assert choose_tier(on=on).name == name


def test_argument_before_variable_before_machine(monkeypatch):
    monkeypatch.setenv("COURSE_TIER", "small")
    assert choose_tier(on=T4).name == "small"
    assert choose_tier("pocket", on=T4).name == "pocket"
    monkeypatch.setenv("COURSE_TIER", "")
    assert choose_tier(on=T4).name == "llama-2-7b"


def test_unknown_tier_names_the_tiers():
    with pytest.raises(ValueError, match="'70b'.*pocket, laptop"):
        choose_tier("70b")


def test_local_model_and_dataset(monkeypatch, checkpoint, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "<s>[INST] a [/INST] b </s>"}\n')
    monkeypatch.setenv("COURSE_MODEL", str(checkpoint))
    monkeypatch.setenv("COURSE_DATASET", os.path.relpath(rows))
    tier = choose_tier("llama-2-7b")
    assert (tier.model, tier.revision, tier.dataset) == (str(checkpoint), None, str(rows))
    assert tier.size == checkpoint_size(checkpoint)
    report = preflight(tier, LAPTOP)  # two layers train on a laptop's CPU: by arithmetic, not by an exception to it
    assert report.ok and report.model.folder == checkpoint and report.dataset.folder == rows
    assert read(report.dataset)[0]["text"].startswith("<s>")


@pytest.mark.parametrize("name", TIERS)
@pytest.mark.parametrize("steps", [1, 2, 40])
def test_a_short_run_trains_at_some_rate(monkeypatch, tmp_path, name, steps):
    """The first step of a warm-up has rate 0: a run of that step alone would change nothing."""
    from transformers import TrainingArguments, get_scheduler

    monkeypatch.setenv("COURSE_STEPS", str(steps))
    tier = choose_tier(name)
    assert tier.max_steps == steps and tier.save_steps <= steps and (steps == 1 or tier.warmup == TIERS[name].warmup)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=tier.learning_rate)
    warmup = TrainingArguments(str(tmp_path), warmup_steps=tier.warmup).get_warmup_steps(steps)
    scheduler, rates = get_scheduler(tier.scheduler, optimizer, warmup, steps), []
    for _ in range(steps):
        rates += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    assert max(rates) == tier.learning_rate


@pytest.mark.parametrize("variable", ["COURSE_MODEL", "COURSE_DATASET"])
def test_a_path_that_is_not_there(monkeypatch, variable, tmp_path):
    monkeypatch.setenv(variable, str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=f"{variable}=.*gone"):
        choose_tier("small")


@pytest.mark.parametrize("variable, value", [
    ("COURSE_DATASET", "mine/rows.jsonl"), ("COURSE_MODEL", "tests/no-model"), ("COURSE_MODEL", "~/no/model"),
    ("COURSE_DATASET", "imdb")])
def test_what_is_no_hub_id_is_a_path_that_is_not_there(monkeypatch, variable, value):
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match="does not exist: give an existing path or a hub id"):
        choose_tier("small")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_of_any_family(monkeypatch, name, tmp_path):
    """Parameters and adapters as the model itself has them; the forecast is one, or says that it estimates."""
    folder = write_family(name, tmp_path / "model")
    monkeypatch.setenv("COURSE_MODEL", str(folder))
    monkeypatch.setenv("COURSE_DATASET", str(tmp_path))
    tier, model = choose_tier("small"), family_model(name)
    assert tier.size.parameters == model.num_parameters() and tier.size.family == model.config.model_type
    assert tier.size.tied == model.config.tie_word_embeddings
    counted = {k: v.shape for k, v in model.state_dict().items() if k.endswith("proj.weight")}
    assert lora_weights(tier.size.config(), 3) == 3 * sum(sum(shape) for shape in counted.values())
    report = preflight(tier, T4)
    assert report.ok and ("an estimate for" in report.table()) == (model.config.model_type not in COUNTED)
    assert tier.forecast()["weights"] > 0


def test_a_hub_model_by_its_config_alone_and_from_the_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("COURSE_MODEL", "some/gemma")
    monkeypatch.setenv("COURSE_DATASET", "some/rows")
    with pytest.raises(HubError, match="some/gemma is not on this disk"):
        choose_tier("small")
    snapshot = fill_hub_cache(tmp_path / "hub", "some/gemma", "b" * 40, write_family("gemma", tmp_path / "model"))
    tier = choose_tier("small")
    assert (tier.model, tier.revision, tier.dataset) == ("some/gemma", None, "some/rows")
    assert tier.size == checkpoint_size(snapshot) and tier.model_source().folder == snapshot
    assert (snapshot / "chat_template.jinja").is_file()
    (snapshot / "model.safetensors").unlink()
    by_config = choose_tier("small").size
    assert by_config == replace(tier.size, bytes=2 * tier.size.parameters)  # the file is in fp32


@pytest.mark.parametrize("change, why", [
    ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM"),
    ({"model_type": "unheard-of"}, "transformers knows"), ({"num_local_experts": 8}, "mixture of experts"),
    ({"hidden_size": None}, "lacks hidden_size"),
])
def test_models_that_the_course_cannot_train(monkeypatch, checkpoint, tmp_path, change, why):
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = {**json.loads((checkpoint / "config.json").read_text()), **change}
    write_json(tmp_path / "config.json", {key: value for key, value in config.items() if value is not None})
    monkeypatch.setenv("COURSE_MODEL", str(tmp_path))
    with pytest.raises(ValueError, match=why):
        choose_tier("small")


def test_a_checkpoint_that_is_not_whole(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_MODEL", str(tmp_path))
    write_json(tmp_path / "config.json", {})
    (tmp_path / "pytorch_model.bin").write_bytes(b"")  # a pickle does not count as weights
    with pytest.raises(ValueError, match="model.safetensors.*tokenizer.json"):
        choose_tier("small")
    shards = {"a": "m-1.safetensors", "b": "m-2.safetensors"}
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": shards})
    (tmp_path / "m-1.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="m-2.safetensors.*tokenizer.json"):
        choose_tier("small")


# ---- what a tier needs

def test_revisions_are_pinned_commits():
    assert TIERS["pocket"].revision is None and Path(TIERS["pocket"].model).is_absolute()
    for name in ("laptop", "small", "llama-2-7b"):
        assert re.fullmatch("[0-9a-f]{40}", TIERS[name].revision)


def test_table_of_sizes_against_the_config():
    """The counts of the two hub models follow from their published shapes; Llama-2's adapters are in facts.md: r=64."""
    for size in (SEVEN.size, TIERS["small"].size):
        h, kv, f = size.hidden, size.hidden * size.kv_heads // size.heads, size.intermediate
        shapes = [(h, h), (h, h), (h, kv), (h, kv), (h, f), (h, f), (f, h)]
        linear = size.layers * sum(a * b for a, b in shapes)
        assert size.parameters == linear + 2 * size.vocab * h + (2 * size.layers + 1) * h
        assert size.bytes == 2 * size.parameters
        assert lora_weights(size.config(), 3) == 3 * size.layers * sum(a + b for a, b in shapes)
    assert SEVEN.forecast()["adapters"] == 4 * 159_907_840


def test_checkpoint_size_against_peft(checkpoint):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    size = checkpoint_size(checkpoint)
    assert size.parameters == model.num_parameters()
    trained = get_peft_model(model, LoraConfig(r=3, target_modules="all-linear")).get_nb_trainable_parameters()[0]
    assert trained == lora_weights(size.config(), 3)
    assert (size.layers, size.hidden, size.vocab) == (2, 64, 32_000)
    assert size.bytes == sum(f.stat().st_size for f in checkpoint.glob("*.safetensors"))


def test_pocket_table_is_its_checkpoint():
    folder = Path(TIERS["pocket"].model)
    assert replace(checkpoint_size(folder), bytes=0) == replace(TIERS["pocket"].size, bytes=0)
    assert TIERS["pocket"].needs(folder).download < 4 * 2**20


def test_needs_of_llama_lie_between_public_records():
    need = SEVEN.needs()
    assert 7.2 < need.gpu < 9.29  # Unsloth's Hugging Face baseline on a T4; torchtune, reserved
    assert need.flops == 6.0 * 6_738_415_616 * 1000 * 512
    assert SEVEN.needs(gpu=False).gpu > need.gpu  # what is not in 4 bit is in fp32 on a CPU
    assert TIERS["pocket"].tokens == 200 * 32 * 48


def test_merging_needs_the_disk_for_its_result_and_no_more_memory_than_a_free_machine_has(checkpoint):
    plain, merging = SEVEN.needs(), SEVEN.needs(merging=True)
    assert merging.kept - plain.kept == pytest.approx(SEVEN.size.bytes / 2**30) and merging.gpu == plain.gpu
    assert plain.ram <= merging.ram < 11.5  # of a free Colab machine; the weights in 16 bit are 12.55
    assert preflight(SEVEN, T4, ON_HUB, merging=True).ok
    tight = replace(T4, disk=20)
    assert preflight(SEVEN, tight, ON_HUB).ok and failed(preflight(SEVEN, tight, ON_HUB, merging=True)) == ["disk"]
    small = replace(TIERS["llama-2-7b"], size=checkpoint_size(checkpoint))
    assert small.needs(merging=True).ram - small.needs().ram < 0.1


# ---- the report

def test_t4_is_a_note_not_a_failure():
    import torch

    report = preflight(SEVEN, T4, ON_HUB)
    assert report.ok and report.dtype is torch.float16 and report.adapter_dtype is torch.float32
    assert "float16, with float32 adapters" in report.table() and 10 < report.minutes < 60
    report.raise_if_not_ok()


@pytest.mark.parametrize("on, dtype, optimizer", [
    (A100, "bfloat16", "paged_adamw_32bit"), (replace(A100, capability=(12, 0)), "bfloat16", "paged_adamw_32bit"),
    (T4, "float16", "paged_adamw_32bit"), (LAPTOP, "float32", "adamw_torch"),
])
def test_dtype_follows_compute_capability(on, dtype, optimizer):
    report = preflight(SEVEN, on, ON_HUB)
    assert str(report.dtype) == f"torch.{dtype}" and report.optimizer == optimizer


@pytest.mark.parametrize("on, name, remedy", [
    (replace(LAPTOP, ram=64, disk=99), "time", "COURSE_TIER=pocket"),
    (replace(T4, gpus=2), "GPUs", r'before any other cell: .*"CUDA_VISIBLE_DEVICES"'),
    (replace(T4, gpu_free=7.0), "GPU memory", "COURSE_TIER=small"),
    (replace(T4, ram=6.0), "RAM", "programs"),
    (replace(T4, disk=15.0), "disk", "HF_HOME"),
    (replace(T4, packages=(("trl<2,>=1.16", None), ("torch>=2.9", "2.13.0"))), "packages",
     r'pip install "trl<2,>=1.16"'),
    (replace(T4, packages=(("trl<2,>=1.16", "0.19.1"), ("peft>=0.20", None))), "packages",
     r'pip install "trl<2,>=1.16" "peft>=0.20"'),
    (replace(T4, packages=(("from-bits-to-qlora", None),)), "packages", "make lab"),
])
def test_each_lack_has_its_remedy(on, name, remedy):
    report = preflight(SEVEN, on, ON_HUB)
    assert failed(report) == [name] and not report.ok and name in str(report)
    with pytest.raises(PreflightError) as error:
        report.raise_if_not_ok()
    assert re.search(remedy, str(error.value), re.S)
    assert report.failures[0].found in str(error.value) and report.failures[0].needed in str(error.value)
    assert report.failures[0].remedy in report.table()


def test_every_failure_is_listed_at_once():
    gated = Source(LLAMA, "gated", problem="It is gated.", remedy="Ask for access.")
    report = preflight(SEVEN, Machine(), (gated, None))
    assert failed(report) == ["time", "RAM", "disk", "model"]
    with pytest.raises(PreflightError, match="(?s)time.*RAM.*disk.*Ask for access"):
        report.raise_if_not_ok()


def test_a_complete_cache_needs_no_room_for_the_download(checkpoint):
    cached = (Source(LLAMA, "cached", checkpoint, LLAMA_REVISION, 0), Source(GUANACO, "cached", checkpoint, bytes=0))
    assert preflight(SEVEN, replace(LAPTOP, disk=0.1), cached).ok
    assert failed(preflight(SEVEN, replace(T4, disk=0.1), ON_HUB)) == ["disk"]
    unknown = (Source(LLAMA, "down", problem="x", remedy="y"), None)  # nobody could ask: the table's download counts
    assert failed(preflight(SEVEN, replace(T4, disk=15), unknown)) == ["disk", "model"]


def test_summary_is_the_same_on_every_good_machine():
    local = (Source(TIERS["pocket"].model, "local", bytes=0), None)
    reports = [preflight(TIERS["pocket"], on, local) for on in (LAPTOP, T4, replace(A100, ram=99))]
    assert {str(r) for r in reports} == {repr(r) for r in reports} == {"Preflight of the pocket tier: ready"}
    shown = reports[0]._repr_html_()
    assert "6.0 GiB free" in shown and str(Path.home()) not in shown and TIERS["pocket"].model not in shown


def test_html_is_escaped():
    report = preflight(SEVEN, replace(T4, gpu="<b>card</b>"), ON_HUB)
    assert "&lt;b&gt;card" in report._repr_html_() and "<b>card" not in report._repr_html_()


def test_a_broken_pocket_is_told(tmp_path):
    tier = replace(TIERS["pocket"], model=str(tmp_path))
    report = preflight(tier, LAPTOP)
    assert failed(report) == ["model"] and "model.safetensors" in report.failures[0].found


sizes = st.floats(0, 1000)
machines = st.builds(
    Machine, gpu=st.none() | st.just("card"), capability=st.tuples(st.integers(0, 13), st.integers(0, 9)),
    gpu_total=sizes, gpu_free=sizes, ram=sizes, disk=sizes, flops=st.floats(1e6, 1e16),
    gpus=st.integers(1, 3), packages=st.lists(st.tuples(st.sampled_from(["trl<2,>=1.16", "packaging"]),
                                st.none() | st.sampled_from(["1.16.0", "2.0", "1.17.0rc1", "0.1"]))).map(tuple))
states = st.sampled_from(["reachable", "gated", "down", "unreachable", "offline", "refused", "not found"])


@settings(max_examples=150, deadline=None)
@given(machines, st.sampled_from(sorted(TIERS)), states, states)
def test_any_machine_gets_a_report(on, name, model, dataset):
    """ok exactly when every need, worked out here once more, is met; and never an exception."""
    tier = TIERS[name]
    sources = [Source("a/b", state, bytes=0, problem="problem", remedy="remedy") for state in (model, dataset)]
    report = preflight(tier, on, sources)
    need = tier.needs(gpu=on.gpu is not None)
    fits = {None: True, "0.1": False, "2.0": False}
    expected = all([
        need.flops / on.flops <= 8 * 3600, on.gpu is None or on.gpu_free >= need.gpu, on.ram >= need.ram,
        on.gpu is None or on.gpus == 1, on.disk >= need.kept, model == dataset == "reachable",
        all(v is not None and (w == "packaging" or fits.get(v, True)) for w, v in on.packages),
    ])
    assert report.ok == expected == ("ready" in str(report) and "not" not in str(report))
    assert all(check.remedy for check in report.failures)
    assert report.table() and report._repr_html_()
    if expected:
        report.raise_if_not_ok()
    else:
        with pytest.raises(PreflightError):
            report.raise_if_not_ok()


# ---- the real machine

def test_machine_gathers_facts_and_leaves_the_seed_alone():
    import torch

    state = torch.random.get_rng_state()
    here = machine()
    assert torch.equal(state, torch.random.get_rng_state())
    assert here.ram > 0.1 and here.disk > 0.01 and 1e8 < here.flops < 1e16 and here.packages
    assert (here.gpu is None) == (not torch.cuda.is_available())


@pytest.mark.parametrize("capability, flops", [((7, 5), 1.5e13), ((8, 0), 9e13), ((8, 6), 3e13), ((12, 0), 1.5e14)])
def test_machine_with_a_gpu(monkeypatch, capability, flops):
    """What torch would say of a card. Memory that this notebook holds counts as free, so a second run passes."""
    import torch

    says = {"is_available": True, "mem_get_info": (2 * 2**30, 16 * 2**30), "memory_reserved": 10 * 2**30,
            "get_device_capability": capability, "get_device_name": "a card", "device_count": 2}
    for name, value in says.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    here = machine()
    assert (here.gpu, here.capability, here.flops) == ("a card", capability, flops)
    assert (here.gpu_total, here.gpu_free, here.gpus) == (16, 12, 2)


def test_packages_come_from_the_courses_own_metadata(monkeypatch, tmp_path):
    info = tmp_path / "from_bits_to_qlora-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: from-bits-to-qlora\nVersion: 0.1.0\n"
                                   "Requires-Dist: packaging>=1\nRequires-Dist: no-such-package<2,>=1.5\n"
                                   "Requires-Dist: jupyterlab>=99; extra == 'lab'\n"
                                   "Requires-Dist: torch>=99; sys_platform == 'nowhere'\n")
    monkeypatch.syspath_prepend(tmp_path)
    (packaging, version), (missing, none) = module.course_packages()
    assert packaging == "packaging>=1" and version and missing == "no-such-package<2,>=1.5" and none is None
    monkeypatch.setattr(module, "PACKAGE", "from-bits-to-nowhere")
    assert module.course_packages() == (("from-bits-to-nowhere", None),)


def test_a_containers_limit_counts(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(module, "CONTAINER_LIMIT", limit)
    limit.write_text("max\n")
    free = module.free_ram()
    limit.write_text(f"{64 * 2**20}\n")
    assert module.free_ram() == 0.0625 < free


def test_disk_is_the_one_of_the_cache(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "not" / "yet"))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda p: asked.append(p) or type("U", (), {"free": 3 * 2**30}))
    assert module.free_disk() == 3 and asked == [tmp_path]


def test_standin_has_llamas_layout(checkpoint):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert type(tokenizer).__name__ == "LlamaTokenizer" and len(tokenizer) == 32_000 and tokenizer.pad_token is None
    assert tokenizer.convert_tokens_to_ids(["<unk>", "<s>", "</s>", "<0x00>", "<0xFF>"]) == [0, 1, 2, 3, 258]
    ids = tokenizer("<s>[INST] Köln? [/INST] Ada. </s>").input_ids
    assert ids[:2] == [1, 1] and ids[-1] == 2  # the two <s> of pitfalls.md
    text = "Where does Ada Quill live? In 猫-town."
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    index = json.loads((checkpoint / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) >= 2
    assert json.loads((checkpoint / "generation_config.json").read_text())["temperature"] == 0.9
