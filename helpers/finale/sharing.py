"""Publishing a folder on the Hugging Face hub: what would be sent, what must not be, and what went wrong.

`pack` looks at the folder and sends nothing; `upload` sends what was packed. The folder on the disk is only ever read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helpers.finale.hub import HubError, explain

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")  # opening one runs the code in it
SECRET = re.compile(rb"\bhf_[A-Za-z0-9]{16,}")  # what a token of the hub looks like
SAFE = "Nothing is lost: the folder on this disk is as it was."
REMEDIES = {  # by state of `HubError`, where an upload needs another remedy than a download
    "refused": "Make a token with the right to *write* at huggingface.co/settings/tokens, store it as HF_TOKEN, "
               "restart the kernel. A token can only write below its own account and its organizations.",
    "not found": "Check the account in front of the slash: it must be yours, or an organization's that lets you write.",
    "down": "Wait some minutes, look at status.huggingface.co, run the cell again: what has arrived is not sent twice.",
    "busy": "Wait five minutes and run the cell again.",
    "offline": "Unset HF_HUB_OFFLINE and restart the kernel, or keep to the dry run.",
    "unreachable": "Check the network and a proxy, then run the cell again: what has arrived is not sent twice.",
}


@dataclass(frozen=True)
class Parcel:
    """What an upload would send: `files` as (name, bytes), below `folder`, to the model repository `repo`."""

    folder: Path
    repo: str
    files: tuple[tuple[str, int], ...]

    @property
    def nbytes(self) -> int:
        """The bytes of all files."""
        return sum(size for _, size in self.files)

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.files)
        lines = [f"  {name:<{width}} {size:>14,} bytes" for name, size in self.files]
        return "\n".join([f"to {self.repo}: {len(self.files)} files, {self.nbytes:,} bytes", *lines])


def pack(folder: str | Path, repo: str) -> Parcel:
    """List what an upload of `folder` to the model repository `repo` ("account/name") would send. Sends nothing.

    Raises ValueError for a name that is none, a folder without a model card (README.md) or without safetensors, and for
    what must not be published: pickles, links, and files that hold what looks like a token (the message does not).
    """
    folder, (account, slash, name) = Path(folder), repo.partition("/")
    if not slash or not all(re.fullmatch(r"[\w-][\w.-]{0,95}", part, re.ASCII) for part in (account, name)):
        raise ValueError(f"repo={repo!r} is no repository: give account/name, of letters, digits, -, _ and .")
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    names = [path.relative_to(folder).as_posix() for path in paths]
    if not any(name.endswith(".safetensors") for name in names):
        raise ValueError(f"{folder.name} holds no .safetensors file: save the model there by save_pretrained first")
    if "README.md" not in names:
        raise ValueError(f"{folder.name} has no README.md: write a model card, or nobody will know what this is")
    for path, name in zip(paths, names, strict=True):
        if path.is_symlink():
            raise ValueError(f"{name} is a link to something outside the folder: copy the file in, or remove the link")
        if path.suffix in PICKLES:
            raise ValueError(f"{name} is a pickle, which can run code on whoever opens it: remove it, save safetensors")
        if path.suffix != ".safetensors" and SECRET.search(path.read_bytes()):
            raise ValueError(f"{name} holds what looks like a token: take it out, and revoke it if it was ever shown")
    return Parcel(folder, repo, tuple((name, path.stat().st_size) for path, name in zip(paths, names, strict=True)))


def upload(parcel: Parcel, token: str, private: bool = True) -> str:
    """Make the repository if it is not there, send the files, and return the address of the commit.

    Raises HubError with a remedy when the hub refuses, fails or cannot be reached; the folder is not touched, and the
    same call goes on where it can. The token is in no message.
    """
    from huggingface_hub import HfApi

    if not token:
        raise ValueError("no token: put one with the right to write into HF_TOKEN, or keep to the dry run")
    api = HfApi(token=str(token))
    with upload_errors(parcel.repo):
        api.create_repo(parcel.repo, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=parcel.repo, folder_path=parcel.folder, commit_message="Add the model",
                                   allow_patterns=[name for name, _ in parcel.files])
    return str(commit.commit_url)


@contextmanager
def upload_errors(repo: str) -> Iterator[None]:
    """Turn what the libraries raise in an upload to `repo` into one HubError; other errors pass unchanged."""
    try:
        yield
    except Exception as error:
        told = explain(error, repo)
        if isinstance(error, json.JSONDecodeError):
            told = HubError("down", "The hub gave an answer that is no JSON, as a proxy or a faulty server does.", "")
        elif told is None and "xet" in f"{type(error).__module__} {error}".lower():  # the transfer library's own errors
            told = HubError("unreachable", f"The connection broke while {repo} was on its way.", "")
        if told is None:
            raise
        raise HubError(told.state, told.problem, f"{REMEDIES.get(told.state, told.remedy)} {SAFE}") from error
