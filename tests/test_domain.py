"""The domain recipe: what is chosen, what is fetched, and lesson 12's own cells on a checkpoint in OPT's layout."""

import ast
import fnmatch
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import standins
import standins_domain
import torch
from IPython.core.inputtransformer2 import TransformerManager
from notebook_tools import source
from transformers import OPTConfig, OPTForCausalLM

from helpers.finale import domain
from helpers.finale.hub import HubError
from helpers.finale.machine import Machine
from helpers.pocket import load_pocket

NOTEBOOKS = list((Path(__file__).resolve().parents[1] / "notebooks").glob("12_*.ipynb"))
HEADING = "### Digression: the recipe of the source documents"
OPT = domain.RECIPES["opt-6.7b"]


def section() -> str:
    """The setup and import cells of lesson 12, then those of the recipe's section, as one program.

    `from __future__` is left out: in a program it would have to stand first.
    """
    cells, inside = [], False
    for cell in nbformat.read(NOTEBOOKS[0], as_version=4).cells:
        if cell.cell_type == "markdown":
            inside = cell.source.startswith(HEADING) or inside and not cell.source.startswith("## ")
        elif inside or not cells or all(isinstance(node, ast.Import | ast.ImportFrom)
                                        for node in source.parse(cell.source).body):
            cells.append(TransformerManager().transform_cell(cell.source))
    return "\n".join(cells).replace("from __future__ import annotations\n", "")


@pytest.fixture(scope="module")
def opt(tmp_path_factory):
    return standins_domain.write_opt_checkpoint(tmp_path_factory.mktemp("opt"))


@pytest.fixture(scope="module")
def cache(opt, tmp_path_factory):
    """A hub cache under the names and revisions of the recipe."""
    cache = tmp_path_factory.mktemp("hub")
    standins.fill_hub_cache(cache, OPT.model, OPT.revision, opt, pickles=True)
    text = standins_domain.write_wikitext(tmp_path_factory.mktemp("wikitext"))
    standins.fill_hub_cache(cache, OPT.dataset, OPT.data_revision, text, repo_type="dataset")
    return cache


@pytest.mark.skipif(not NOTEBOOKS, reason="lesson 12 is not there yet")
def test_the_lessons_cells_tune_opt_from_an_offline_cache(cache, tmp_path):
    code = section().replace("recipe = domain.choose()", "import dataclasses\nrecipe = dataclasses.replace("
                             "domain.choose(), steps=6, block=64, scored=4, learning_rate=1e-2)")
    code += "\nprint(type(domain_model.base_model.model).__name__, sum('lora_' in n for n, _ in " \
            "domain_model.named_parameters()), len(domain_tokenizer), before_domain > 1.2 * after_domain)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, timeout=280, env={
        **os.environ, "COURSE_DOMAIN": "opt-6.7b", "COURSE_RUNS": str(tmp_path), "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "datasets"), "MPLBACKEND": "Agg"})
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert lines[-1] == "OPTForCausalLM 24 50265 True"  # A and B of 6 linears in 2 layers
    assert "opt-6.7b reads Salesforce/wikitext" in lines
    assert any(line.startswith("trainable params: 36,864 ||") for line in lines)  # 2 · 16 · (4 · 128 + 2 · 320)


def test_the_machine_and_the_reader_choose(monkeypatch):
    monkeypatch.delenv("COURSE_DOMAIN", raising=False)
    assert domain.choose(on=Machine()).name == "pocket"
    assert domain.choose(on=Machine(gpu="T4", gpu_free=14.6)) == OPT
    assert domain.choose(on=Machine(gpu="small", gpu_free=6)).name == "pocket"
    assert domain.choose("pocket", on=Machine(gpu="T4", gpu_free=14.6)).name == "pocket"
    monkeypatch.setenv("COURSE_DOMAIN", "opt-7b")
    with pytest.raises(ValueError, match="'opt-7b': use one of pocket, opt-6.7b"):
        domain.choose()


def test_what_is_fetched_is_the_pickles_and_no_other_copy_of_the_weights(cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    calls = []
    real = domain._snapshot
    monkeypatch.setattr(domain, "_snapshot", lambda *given: calls.append(given) or real(*given))
    assert domain.fetch(OPT).name == OPT.revision
    train, held_out = domain.texts(OPT)
    assert len(train) == 30 and len(held_out) == 10 and not set(train) & set(held_out)
    assert all(text.startswith("= The ") and "= = Part 2 = =" in text for text in train)
    assert calls[0][2] == domain.PICKLED and calls[1][2:] == (["wikitext-2-raw-v1/*.parquet"], "dataset")
    wanted = {name for name in ("pytorch_model-00001-of-00002.bin", "tf_model.h5", "flax_model.msgpack", "vocab.json")
              if any(fnmatch.fnmatch(name, pattern) for pattern in domain.PICKLED)}
    assert wanted == {"pytorch_model-00001-of-00002.bin", "vocab.json"}


def test_without_hub_and_cache_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="facebook/opt-6.7b is not on this disk"):
        domain.fetch(OPT)


def test_articles_begin_with_their_titles():
    lines = ["", " = One = \n", "", " Text , of one . \n", " = = Part = = \n", " More . \n",
             " = Two = \n", " Text . \n"]
    assert domain.articles(lines) == ["= One = \n Text , of one . \n = = Part = = \n More .", "= Two = \n Text ."]
    assert domain.articles(["", ""]) == []


def test_paragraphs_of_the_lessons_are_read_where_there_is_no_gpu():
    recipe = domain.choose("pocket")
    train, held_out = domain.texts(recipe)
    assert len(train) > 100 and len(held_out) > 30 and not set(train) & set(held_out)
    assert (domain.fetch(recipe) / "model.safetensors").is_file()


def test_perplexity_is_that_of_the_labels():
    model, tokenizer = load_pocket()
    ids = tokenizer("Ada lives in")["input_ids"]
    logits = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    wanted = -sum(logits[n, i].item() for n, i in enumerate(ids[1:])) / (len(ids) - 1)
    found = domain.perplexity(model, [{"input_ids": ids, "labels": ids}])
    assert found == pytest.approx(torch.tensor(wanted).exp().item(), rel=1e-4)
    with pytest.raises(ValueError, match="no blocks to score"):
        domain.perplexity(model, [])


def test_opt_has_the_weights_that_are_counted_on():
    """All linears at r 16 are 37,748,736 weights; q and v alone 8,388,608, as PEFT's own notebook prints."""
    with torch.device("meta"):
        model = OPTForCausalLM(OPTConfig(vocab_size=50_272, hidden_size=4096, ffn_dim=16_384, num_hidden_layers=32,
                                         num_attention_heads=32, word_embed_proj_dim=4096))
    linears = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and name != "lm_head"}
    adapters = {name: OPT.r * (m.in_features + m.out_features) for name, m in linears.items()}
    assert sum(adapters.values()) == 37_748_736
    assert sum(size for name, size in adapters.items() if name.endswith(("q_proj", "v_proj"))) == 8_388_608
    bits = sum(m.weight.numel() for m in linears.values()) * (4 + 8 / 64 + 32 / (64 * 256)) / 8 / 2**30
    assert round(bits, 1) == 3.1
