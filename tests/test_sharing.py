"""Publishing a folder: what is packed, what is refused, and an upload to a hub on this machine that may fail."""

from __future__ import annotations

import hashlib
import os
import re
import traceback
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from safetensors.torch import save_file
from standins_upload import UploadStandIn

from helpers.finale.hub import HubError, Token
from helpers.finale.sharing import pack, upload

KEY = "hf_" + "secretsecret" * 3
REPO = "somebody/pocket-villagers"


@pytest.fixture(autouse=True)
def no_trace_of_the_user(monkeypatch, tmp_path):
    """No token, no Xet (which the stand-in cannot speak), no waiting between the library's own retries."""
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", *(f"{k}_proxy" for k in ("http", "https", "all")),
                 *(f"{k}_PROXY" for k in ("HTTP", "HTTPS", "ALL"))):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    close_session()
    yield
    close_session()


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlibrary_name: peft\n---\n# Villagers\n")
    (folder / "adapter_config.json").write_text("{}")
    save_file({"a": torch.randn(100, 100)}, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def hub(monkeypatch):
    with UploadStandIn(KEY) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        yield hub


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def everything_said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + str(error) + repr(error)


# What would be sent.

def test_a_parcel_says_what_would_be_sent(folder):
    parcel = pack(folder, REPO)
    sizes = {name: len(data) for name, data in contents(folder).items()}
    assert dict(parcel.files) == sizes and parcel.nbytes == sum(sizes.values())
    assert f"to {REPO}: 3 files, {parcel.nbytes:,} bytes" in str(parcel)
    assert all(name in str(parcel) and f"{size:,} bytes" in str(parcel) for name, size in sizes.items())


@pytest.mark.parametrize("name, data, said", [
    ("training_args.bin", b"x", "training_args.bin"), ("old/optimizer.pt", b"x", "old/optimizer.pt"),
    ("log.txt", b"token=" + KEY.encode(), "log.txt.*token"),
])
def test_what_must_not_go_out_is_refused(folder, name, data, said):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    with pytest.raises(ValueError, match=said) as caught:
        pack(folder, REPO)
    assert KEY not in everything_said(caught.value)


def test_a_link_is_refused(folder, tmp_path):
    (tmp_path / "secret").write_text("mine")
    os.symlink(tmp_path / "secret", folder / "notes.txt")
    with pytest.raises(ValueError, match="notes.txt"):
        pack(folder, REPO)


@pytest.mark.parametrize("name, said", [
    ("README.md", "README.md"), ("adapter_model.safetensors", ".safetensors")])
def test_an_incomplete_folder_is_refused(folder, name, said):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=said):
        pack(folder, REPO)


@pytest.mark.parametrize("repo", ["villagers", "a/b/c", "/x", "x/", "a b/c", "../up", "é/x", ""])
def test_a_name_that_is_none_is_refused(folder, repo):
    with pytest.raises(ValueError, match=re.escape(repr(repo))):
        pack(folder, repo)


# The upload.

@pytest.mark.parametrize("large", [".safetensors", ".nothing"])
@pytest.mark.parametrize("xet_off", [True, False])
def test_the_upload_arrives_whole(folder, hub, large, xet_off, monkeypatch, capfd):
    if not xet_off and large == ".safetensors":
        large = ".nothing-here"  # with Xet on, large files would go to Xet's own servers
    hub.large = large
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", xet_off)
    before = contents(folder)
    address = upload(pack(folder, REPO), Token(KEY))
    sent = {name: data for name, data in hub.files[REPO].items() if name != ".gitattributes"}
    assert sent == before == contents(folder)
    assert hub.private[REPO] and address.startswith(f"{hub.url}/{REPO}/commit/")
    if large == ".safetensors":
        assert set(hub.objects) == {hashlib.sha256(before["adapter_model.safetensors"]).hexdigest()}
    out = capfd.readouterr()
    assert KEY not in out.out + out.err + address and not any(KEY.encode() in body for body in hub.seen)


def test_an_existing_repository_takes_a_second_upload(folder, hub):
    upload(pack(folder, REPO), Token(KEY))
    (folder / "README.md").write_text("---\nlibrary_name: peft\n---\n# Better words\n")
    upload(pack(folder, REPO), Token(KEY))
    assert hub.files[REPO]["README.md"].endswith(b"Better words\n")
    assert sum(n for (method, path), n in hub.requests.items() if path.startswith("/lfs/")) == 1, "weights sent twice"


def test_only_what_was_packed_is_sent(folder, hub):
    parcel = pack(folder, REPO)
    (folder / "diary.txt").write_text("came later")
    upload(parcel, Token(KEY))
    assert "diary.txt" not in hub.files[REPO]


FAILURES = [
    ("wrong token", lambda hub: setattr(hub, "key", "hf_other"), "refused", "write"),
    ("no right", lambda hub: hub.refuse.update({"/repos/create": 403, "/api/models/": 403}), "refused", "403"),
    ("create fails", lambda hub: hub.refuse.update({"/repos/create": 500}), "down", "500"),
    ("card fails", lambda hub: hub.refuse.update({"/validate-yaml": 502}), "down", "JSON"),
    ("lfs fails", lambda hub: hub.refuse.update({"/lfs/": 503}), "down", "503"),
    ("commit fails", lambda hub: hub.refuse.update({"/commit/": 500}), "down", "500"),
    ("too many", lambda hub: hub.refuse.update({"/preupload/": 429}), "busy", "Wait"),
    ("create cut", lambda hub: hub.cut.add("/repos/create"), "unreachable", "connection"),
    ("weights cut", lambda hub: hub.cut.add("/lfs/"), "unreachable", "connection"),
    ("commit cut", lambda hub: hub.cut.add("/commit/"), "unreachable", "connection"),
]


@pytest.mark.parametrize("break_it, state, said", [case[1:] for case in FAILURES], ids=[case[0] for case in FAILURES])
def test_a_failure_says_what_to_do_and_loses_nothing(folder, hub, break_it, state, said, capfd):
    before = contents(folder)
    break_it(hub)
    with pytest.raises(HubError) as caught:
        upload(pack(folder, REPO), Token(KEY))
    assert caught.value.state == state and said in str(caught.value)
    assert "Remedy: " in str(caught.value) and "Nothing is lost" in str(caught.value)
    assert contents(folder) == before
    assert not hub.files.get(REPO), "half of a commit was published"
    out = capfd.readouterr()
    assert KEY not in everything_said(caught.value) + out.out + out.err
    hub.refuse, hub.cut, hub.key = {}, set(), KEY
    upload(pack(folder, REPO), Token(KEY))
    assert hub.files[REPO]["adapter_model.safetensors"] == before["adapter_model.safetensors"]


def test_nobody_is_there(folder, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError) as caught:
        upload(pack(folder, REPO), Token(KEY))
    assert caught.value.state == "unreachable" and KEY not in everything_said(caught.value)


def test_without_a_token_nothing_is_tried(folder, hub):
    with pytest.raises(ValueError, match="HF_TOKEN"):
        upload(pack(folder, REPO), "")
    assert not hub.requests


def test_other_errors_pass_unchanged(folder, hub):
    parcel = pack(folder, REPO)
    (folder / "adapter_model.safetensors").unlink()
    (folder / "README.md").unlink()
    (folder / "adapter_config.json").unlink()
    folder.rmdir()
    with pytest.raises(ValueError) as caught:
        upload(parcel, Token(KEY))
    assert not isinstance(caught.value, HubError)
