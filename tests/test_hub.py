"""The hub's answers and failures, against a stand-in that speaks its API over HTTP on this machine."""

import errno
import os
import shutil
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants, snapshot_download
from standins import (
    GUANACO,
    GUANACO_REVISION,
    LLAMA,
    LLAMA_REVISION,
    HubStandIn,
    fill_datasets_cache,
    fill_hub_cache,
    guanaco_rows,
    repository_files,
)

from helpers.finale.hub import DATASET_FILES, MODEL_FILES, HubError, find_token, hub_errors, look_up
from helpers.finale.machine import Machine
from helpers.finale.preflight import PreflightError, preflight
from helpers.finale.tiers import TIERS

ROOT = Path(__file__).parent.parent
SEVEN = TIERS["llama-2-7b"]
BIG = Machine("Tesla T4", (7, 5), 14.6, 14.3, ram=12, disk=70, flops=1.5e13)
SHARD = "model-00004-of-00004.safetensors"


@pytest.fixture(autouse=True)
def no_trace_of_the_user(monkeypatch, tmp_path):
    """An empty cache, no token, no waiting between the library's own retries."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    huggingface_hub.utils.close_session()
    yield
    huggingface_hub.utils.close_session()


def point_at(monkeypatch, url):
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(monkeypatch, checkpoint, guanaco):
    repositories = {("model", LLAMA, LLAMA_REVISION): checkpoint, ("dataset", GUANACO, GUANACO_REVISION): guanaco}
    with HubStandIn(repositories) as standin:
        point_at(monkeypatch, standin.url)
        yield standin


@pytest.fixture
def nowhere(monkeypatch):
    """An address where nobody listens."""
    with HubStandIn({}) as standin:
        url = standin.url
    point_at(monkeypatch, url)


def fetch(**more):
    """The lesson's own call."""
    with hub_errors():
        return snapshot_download(SEVEN.model, revision=SEVEN.revision, allow_patterns=MODEL_FILES, **more)


# ---- downloading

def test_whole_download(hub, checkpoint):
    path = Path(fetch())
    assert path.name == LLAMA_REVISION
    for file in repository_files(checkpoint):
        if file.name in ("pytorch_model.bin", "README.md"):
            assert file.name not in hub.fetched() and not (path / file.name).exists()  # no pickles on this disk
        else:
            assert (path / file.name).read_bytes() == file.read_bytes()
    assert not any("xet" in path.lower() for _, path in hub.requests)
    before = hub.requests.copy()
    assert fetch() == str(path) and hub.requests == before  # complete and pinned: no further request at all


def test_connection_that_breaks_in_the_middle(hub, checkpoint):
    hub.cut[SHARD] = 100_000
    with pytest.raises(HubError, match="Run the cell again") as error:
        fetch(max_workers=1)
    assert error.value.state == "unreachable" and hub.sent[SHARD] == 100_000
    finished = {path.name for path in Path(constants.HF_HUB_CACHE).rglob("snapshots/*/*")}
    assert "model-00001-of-00004.safetensors" in finished and SHARD not in finished
    report = preflight(SEVEN, BIG, (look_up(LLAMA, LLAMA_REVISION), None))
    left = report.model.bytes
    names = [f.name for f in repository_files(checkpoint) if f.suffix in (".json", ".safetensors")]
    assert left == sum((checkpoint / name).stat().st_size for name in names if name not in finished)
    hub.cut.clear()
    hub.sent.clear()
    path = Path(fetch())
    assert not finished & hub.fetched()  # what was complete is not fetched again
    assert sum(hub.sent.values()) == left
    assert (path / SHARD).read_bytes() == (checkpoint / SHARD).read_bytes()
    assert look_up(LLAMA, LLAMA_REVISION).state == "cached"


def test_a_short_break_heals_itself(hub, checkpoint, monkeypatch):
    """One dropped connection is retried by the library, which asks only for the chunks that it has not written yet."""
    hub.cut[SHARD] = 100_000
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    monkeypatch.setattr("time.sleep", lambda seconds: hub.cut.clear())
    assert (Path(fetch()) / SHARD).stat().st_size == (checkpoint / SHARD).stat().st_size == hub.sent[SHARD]


def test_gated_then_with_a_token(hub, monkeypatch):
    hub.gated = True
    with pytest.raises(HubError, match="(?s)licence.*HF_TOKEN") as error:
        fetch()
    assert error.value.state == "gated"
    monkeypatch.setenv("HF_TOKEN", hub.key)
    fetch(token=find_token())
    assert f"Bearer {hub.key}" in hub.tokens


@pytest.mark.parametrize("status, state, words", [
    (500, "down", "500"), (503, "down", "503"), (429, "busy", "429"), (403, "refused", "403.*token"),
])
def test_faults_of_the_hub(hub, status, state, words):
    hub.status = status
    with pytest.raises(HubError, match=f"(?s){words}") as error:
        fetch()
    source = look_up(LLAMA, LLAMA_REVISION)
    assert error.value.state == source.state == state and not source.ok and source.remedy == error.value.remedy


def test_a_wrong_token(hub, monkeypatch):
    """The hub answers 401 to it even where no token is needed."""
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    with pytest.raises(HubError, match="(?s)401.*token"):
        fetch(token=find_token())
    assert look_up(LLAMA, LLAMA_REVISION).state == "refused"


def test_unknown_revision_and_repository(hub):
    with pytest.raises(HubError, match="(?s)revision.*helpers/finale/tiers.py"), hub_errors():
        snapshot_download(LLAMA, revision="f" * 40)
    with pytest.raises(HubError, match="nobody/nothing"), hub_errors("nobody/nothing"):
        snapshot_download("nobody/nothing")
    assert look_up(LLAMA, "f" * 40).state == "no such revision"
    assert look_up("nobody/nothing").state == "not found"


def test_no_network(nowhere):
    with pytest.raises(HubError, match="COURSE_TIER=pocket"):
        fetch()


@pytest.mark.parametrize("error, state", [
    (OSError(errno.ENOSPC, "No space left on device"), "disk full"),
    (RuntimeError("I/O error: No space left on device (os error 28)"), "disk full"),  # as hf_xet says it
    (huggingface_hub.errors.XetDownloadError("stream ended"), "unreachable"),
    (TimeoutError("slow"), "unreachable"), (ConnectionResetError("reset"), "unreachable"),
    (OSError("Consistency check failed: file should be of size 9 but has size 8"), "unreachable"),
    (huggingface_hub.errors.OfflineModeIsEnabled("off"), "offline"),
    (huggingface_hub.errors.LocalEntryNotFoundError("not here"), "unreachable"),
])
def test_other_errors_of_a_download(error, state):
    with pytest.raises(HubError) as told, hub_errors():
        raise error
    assert told.value.state == state and told.value.__cause__ is error


def test_the_cause_of_an_error_counts():
    with pytest.raises(HubError, match="disk"), hub_errors():
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError as error:
            raise RuntimeError("a thread failed") from error


@pytest.mark.parametrize("error", [ValueError("mine"), FileNotFoundError("mine"), KeyboardInterrupt()])
def test_errors_that_are_not_the_hubs_pass(error):
    with pytest.raises(type(error)) as raised, hub_errors():
        raise error
    assert raised.value is error


def test_datasets_errors_are_told_too():
    """`datasets` wraps a gated repository in its own error and drops the cause."""
    from datasets.exceptions import DatasetNotFoundError

    for text, state in (("Dataset 'a/b' is a gated dataset on the Hub.", "gated"), ("It doesn't exist", "not found")):
        with pytest.raises(HubError) as told, hub_errors():
            raise DatasetNotFoundError(text)
        assert told.value.state == state


# ---- preflight asks before anything is fetched

def test_preflight_on_the_hub_downloads_nothing(hub, checkpoint):
    report = preflight(SEVEN, BIG)
    assert report.ok and not hub.sent and not Path(constants.HF_HUB_CACHE).exists()
    assert report.model.state == report.dataset.state == "reachable"
    assert report.dataset.revision == GUANACO_REVISION  # not pinned: resolved now, to be recorded with the run
    wanted = [f for f in repository_files(checkpoint) if f.suffix in (".json", ".safetensors")]
    assert report.model.bytes == sum(f.stat().st_size for f in wanted)


def test_preflight_of_a_gated_model(hub, monkeypatch):
    hub.gated = True
    report = preflight(SEVEN, BIG)
    with pytest.raises(PreflightError, match="(?s)model.*licence"):
        report.raise_if_not_ok()
    monkeypatch.setenv("HF_TOKEN", hub.key)
    assert preflight(SEVEN, BIG).ok


def test_preflight_without_a_network(nowhere, checkpoint, guanaco):
    report = preflight(SEVEN, BIG)
    assert [c.name for c in report.failures] == ["model", "data set"]
    assert "COURSE_TIER=pocket" in report.failures[0].remedy
    fill_hub_cache(constants.HF_HUB_CACHE, LLAMA, LLAMA_REVISION, checkpoint)
    fill_hub_cache(constants.HF_HUB_CACHE, GUANACO, GUANACO_REVISION, guanaco, "dataset")
    report = preflight(SEVEN, replace(BIG, gpu=None, flops=5e10))  # so small a checkpoint trains on a CPU
    assert report.ok and report.model.state == report.dataset.state == "cached"
    assert report.dataset.revision == GUANACO_REVISION


def test_a_cache_with_a_shard_missing_is_not_complete(nowhere, checkpoint):
    folder = fill_hub_cache(constants.HF_HUB_CACHE, LLAMA, LLAMA_REVISION, checkpoint)
    assert look_up(LLAMA, LLAMA_REVISION).state == "cached"
    (folder / SHARD).unlink()
    assert look_up(LLAMA, LLAMA_REVISION).state == "unreachable"


def test_offline_mode(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    source = look_up(LLAMA, LLAMA_REVISION)
    assert source.state == "offline" and "HF_HUB_OFFLINE" in source.remedy and not hub.requests


def test_pickles_only(hub, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "old", ignore=shutil.ignore_patterns("*.safetensors*"))
    hub.repositories["model", "old/model"] = ("e" * 40, tmp_path / "old")
    source = look_up("old/model")
    assert not source.ok and "pickles" in source.problem


def test_downloading_the_dataset_by_its_resolved_revision(hub, tmp_path):
    from datasets import load_dataset

    source = look_up(GUANACO, repo_type="dataset")
    with hub_errors():
        path = snapshot_download(GUANACO, repo_type="dataset", revision=source.revision, allow_patterns=DATASET_FILES)
    rows = load_dataset(path, split="train", cache_dir=str(tmp_path / "tables"))
    assert rows["text"] == [row["text"] for row in guanaco_rows()]


# ---- tokens

def test_tokens_in_their_order_and_never_shown(monkeypatch, tmp_path):
    assert find_token() is None
    Path(constants.HF_TOKEN_PATH).write_text("hf_stored\n")
    assert find_token() == "hf_stored"
    monkeypatch.setenv("HF_TOKEN", "hf_environment")
    assert find_token() == "hf_environment"
    secrets = types.SimpleNamespace(get=lambda name: {"HF_TOKEN": "hf_colab"}[name])
    colab = types.ModuleType("google.colab")
    colab.userdata = secrets
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    assert find_token() == "hf_colab" and repr(find_token()) == "Token(hidden)"

    def refused(name):
        raise RuntimeError("SecretNotFoundError")

    secrets.get = refused
    assert find_token() == "hf_environment"


def test_a_cell_that_ends_in_the_token_hides_it(monkeypatch):
    from IPython.core.formatters import PlainTextFormatter

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert "hf_secret" not in PlainTextFormatter()(find_token())


def test_no_message_holds_the_token(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    hub.gated = True
    report = preflight(SEVEN, BIG)
    with pytest.raises(HubError) as error:
        fetch(token=find_token())
    seen = [str(error.value), repr(error.value.__cause__), report.table(), report._repr_html_(), repr(report.model)]
    assert not any("hf_verysecret" in text for text in seen) and "Bearer hf_verysecret" in hub.tokens


# ---- the lesson's calls in a process of their own, by the environment alone

SCRIPT = """
import os
from datasets import load_dataset
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer
from helpers.finale.hub import MODEL_FILES, hub_errors
from helpers.finale.machine import Machine
from helpers.finale.preflight import preflight
from helpers.finale.rows import read
from helpers.finale.tiers import choose_tier
tier = choose_tier(); report = preflight(tier, Machine(ram=8, disk=9)); report.raise_if_not_ok()
with hub_errors():
    model_path = report.model.folder or snapshot_download(tier.model, revision=tier.revision,
                                                          allow_patterns=MODEL_FILES)
rows = read(report.dataset)
assert len(rows) == 20 and len(load_dataset(tier.dataset, split="train")) == 20
model = AutoModelForCausalLM.from_pretrained(model_path)
by_name = AutoModelForCausalLM.from_pretrained(tier.model, revision=tier.revision)
assert model.num_parameters() == by_name.num_parameters()
assert AutoTokenizer.from_pretrained(tier.model, revision=tier.revision).pad_token is None
print("REACHED", report)
"""


def test_the_lessons_calls_offline(checkpoint, guanaco, tmp_path):
    fill_hub_cache(tmp_path / "hub", LLAMA, LLAMA_REVISION, checkpoint)
    fill_hub_cache(tmp_path / "hub", GUANACO, GUANACO_REVISION, guanaco, "dataset")
    fill_datasets_cache(tmp_path / "datasets", GUANACO, guanaco)
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "COURSE_TIER": "llama-2-7b",
                   "PYTHONPATH": str(ROOT)}
    for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "COURSE_MODEL", "COURSE_DATASET"):
        environment.pop(name, None)
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "REACHED Preflight of the llama-2-7b tier: ready" in done.stdout
