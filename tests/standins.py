"""What the tests put in place of a hub that they cannot reach: a checkpoint in Llama-2's layout, a filled hub cache,
and an HTTP server on this machine that speaks the part of the hub's API that a download uses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from math import log
from pathlib import Path
from random import Random
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from helpers.pocket.world import documents, instruct, make_world, questions

LLAMA = "NousResearch/Llama-2-7b-hf"
LLAMA_REVISION = "dacdfcde31297e34b19ee0e7532f29586d2c17bc"
GUANACO = "mlabonne/guanaco-llama2-1k"
GUANACO_REVISION = "0123456789abcdef0123456789abcdef01234567"  # made up: no public record of the real one is known
VOCABULARY = 32_000


def write_llama2_tokenizer(folder: Path) -> None:
    """A 32,000-token tokenizer laid out as Llama-2's: <unk> <s> </s>, 256 byte tokens, pieces with "▁"; no pad token.

    Its pieces are trained on the villagers' prose, the rest of the table is filled with tokens that no text contains.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    prose = documents(make_world().villagers, seed=1)
    texts = [next(prose) for _ in range(300)]
    texts += [f"[INST] {row['prompt']} [/INST]" for row in questions(make_world().taught[:50])]
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=1500, show_progress=False))
    learnt = json.loads(trained.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += sorted(learnt["vocab"], key=learnt["vocab"].get)
    pieces += [f"▁filler{i}" for i in range(VOCABULARY - len(pieces))]
    model = models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[tuple(m) for m in learnt["merges"]],
                       unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B",
                                                             special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>", "</s>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>",
        "eos_token": "</s>", "unk_token": "<unk>", "pad_token": None, "legacy": False,
        "clean_up_tokenization_spaces": False, "model_max_length": 1000000000000000019884624838656,
        "sp_model_kwargs": {}, "padding_side": "right"})
    write_json(folder / "special_tokens_map.json", {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})


def write_llama2_checkpoint(folder: str | Path, layers: int = 2, seed: int = 0, whole: bool = False) -> Path:
    """A checkpoint in the layout of Llama-2-7b-hf (hidden 64, 4 heads, fp16, sharded safetensors), random N(0, 0.02).

    About 9 MB; whole: in the exact configuration of Llama-2-7B, 13.5 GB. One shard for each decoder layer, one for the
    rest on either side, each drawn and written before the next: whole takes 1.1 GiB of memory.
    A `pytorch_model.bin` lies beside the weights, as in the original repository: a download leaves it out.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    from helpers.memory import skeleton

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=64, intermediate_size=192, num_hidden_layers=layers,
                         num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=4096, rms_norm_eps=1e-5,
                         bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False,
                         initializer_range=0.02, architectures=["LlamaForCausalLM"], dtype="float16")
    if whole:
        config.update({"hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
                       "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128})
    shapes = {name: tensor.shape for name, tensor in skeleton(config).state_dict().items()}
    layer_of = lambda name: name.split(".")[2] if ".layers." in name else None  # noqa: E731
    shards = [list(names) for _, names in groupby(shapes, layer_of)]
    random, index = torch.Generator().manual_seed(seed), {}

    def drawn(name: str, shape: torch.Size) -> torch.Tensor:
        return torch.ones(shape).half() if "norm" in name else torch.randn(shape, generator=random).mul_(0.02).half()

    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file({name: drawn(name, shapes[name]) for name in names}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(names, file)
    write_json(folder / "model.safetensors.index.json", {
        "metadata": {"total_size": 2 * sum(shape.numel() for shape in shapes.values())}, "weight_map": index})
    config.save_pretrained(folder)
    write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
                                                   "do_sample": True, "temperature": 0.9, "top_p": 0.6,
                                                   "max_length": 4096, "transformers_version": "4.31.0"})
    write_llama2_tokenizer(folder)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle that nobody may load")
    (folder / "README.md").write_text("---\nlicense: other\n---\nA stand-in.\n")
    return folder


def guanaco_rows(count: int = 20, characters: int = 0) -> list[dict[str, str]]:
    """Rows shaped like guanaco-llama2-1k: {"text": "<s>[INST] … [/INST] … </s>"}; every third has a second turn.

    characters: answers go on in prose until rows have that many in the middle, spread log-normally as chats are
    (sigma 0.6); else they are a sentence.
    """
    asked = questions(make_world().taught[:count])
    prose, random = documents(make_world().villagers, seed=2), Random(0)

    def turn(row: dict[str, str], least: float) -> str:
        answer = row["completion"]
        while len(answer) < least:
            answer += " " + next(prose)
        return instruct(row["prompt"], answer[:max(int(least), len(row["completion"]))])

    rows = []
    for i in range(count):
        turns = asked[2 * i:2 * i + (2 if i % 3 == 2 else 1)]
        least = characters and random.lognormvariate(log(characters), 0.6) / len(turns)
        rows.append({"text": "".join("<s>" + turn(row, least) for row in turns)})
    return rows


def write_guanaco(folder: str | Path, count: int = 20, characters: int = 0) -> Path:
    """The data set's repository: a README and data/train-00000-of-00001.parquet with the column `text`."""
    from datasets import Dataset

    folder = Path(folder)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    Dataset.from_list(guanaco_rows(count, characters)).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
                                      "    path: data/train-*\n---\nA stand-in.\n")
    return folder


def fill_hub_cache(cache_dir: str | Path, repo_id: str, revision: str, folder: str | Path,
                   repo_type: str = "model", pickles: bool = False) -> Path:
    """Lay `folder` into a hub cache as a download of `repo_id` at `revision` would; gives the snapshot's folder.

    Works for HF_HUB_CACHE=cache_dir with HF_HUB_OFFLINE=1: `from_pretrained(repo_id, revision=revision)`. Pickles are
    left out, unless asked for.
    """
    repo = Path(cache_dir) / f"{repo_type}s--{repo_id.replace('/', '--')}"
    snapshot = repo / "snapshots" / revision
    (repo / "blobs").mkdir(parents=True, exist_ok=True)
    (repo / "refs").mkdir(exist_ok=True)
    (repo / "refs" / "main").write_text(revision)
    for file in repository_files(folder):
        name = file.relative_to(folder)
        if pickles or file.suffix != ".bin":
            blob = repo / "blobs" / etag(file)
            shutil.copyfile(file, blob)
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / name).unlink(missing_ok=True)
            (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
    return snapshot


def fill_datasets_cache(cache_dir: str | Path, repo_id: str, folder: str | Path) -> None:
    """Lay the data set in `folder` into a cache of `datasets`: `load_dataset(repo_id)` then finds it offline by name.

    `datasets` does not read the hub's cache offline, only tables that it prepared itself (HF_DATASETS_CACHE=cache_dir).
    """
    from datasets import load_dataset_builder

    builder = load_dataset_builder("parquet", data_files={"train": str(Path(folder) / "data" / "train-*")},
                                   cache_dir=str(Path(cache_dir) / "making"))
    builder.download_and_prepare()
    owner, name = repo_id.split("/")
    made = Path(cache_dir) / f"{owner}___{name}" / "default" / "0.0.0" / GUANACO_REVISION
    shutil.copytree(builder.cache_dir, made)
    for file in made.glob("parquet-*.arrow"):
        file.rename(made / file.name.replace("parquet-", f"{name}-"))
    info = json.loads((made / "dataset_info.json").read_text())
    write_json(made / "dataset_info.json", {**info, "config_name": "default", "dataset_name": name})
    shutil.rmtree(Path(cache_dir) / "making")


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2))


def etag(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def repository_files(folder: str | Path) -> list[Path]:
    return sorted(p for p in Path(folder).rglob("*") if p.is_file())


class LocalServer:
    """`with` it, a server of `handler` runs on this machine at `url`; the handler finds this object as `standin`."""

    handler: type[BaseHTTPRequestHandler]

    def __enter__(self) -> Self:
        served = type("Handler", (self.handler,), {"standin": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), served)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class HubStandIn(LocalServer):
    """A hub on this machine: `with HubStandIn({("model", LLAMA, LLAMA_REVISION): folder}) as hub: … hub.url`.

    Point HF_ENDPOINT (or `endpoint=`) at `hub.url`. It never offers Xet storage, so downloads are plain HTTP.
    Every token but `key` is refused (401). Switches, all changeable while it runs: gated (401 GatedRepo without a
    token), status (answer everything with this one), cut = {file name: bytes} (send that many bytes of the file, then
    close this and every later connection for it).
    requests: Counter of (method, path). sent: Counter of bytes by file name. tokens: the Authorization headers seen.
    """

    def __init__(self, repositories: dict[tuple[str, str, str], Path], gated: bool = False, key: str = "hf_standin"):
        self.repositories = {(kind, repo): (revision, Path(folder))
                             for (kind, repo, revision), folder in repositories.items()}
        self.gated, self.key = gated, key
        self.status: int | None = None
        self.cut: dict[str, int] = {}
        self.requests: Counter[tuple[str, str]] = Counter()
        self.sent: Counter[str] = Counter()
        self.tokens: set[str] = set()

    def fetched(self) -> set[str]:
        """The names of the files of which a body was asked for."""
        return set(self.sent)


class _Handler(BaseHTTPRequestHandler):
    standin: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        hub, parts = self.standin, urlsplit(self.path)
        path = [unquote(part) for part in parts.path.strip("/").split("/")]
        hub.requests[self.command, parts.path] += 1
        authorization = self.headers.get("Authorization", "")
        hub.tokens.add(authorization)
        if hub.status is not None:
            return self.send(hub.status, b"out of order")
        if authorization not in ("", f"Bearer {hub.key}"):
            return self.send(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        api = path[0] == "api"
        path = path[1:] if api else path
        kind = "dataset" if path[0] == "datasets" else "model"
        path = path[1:] if path[0] in ("datasets", "models") else path
        known = hub.repositories.get((kind, "/".join(path[:2])))
        if known is None:
            return self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
        revision, folder = known
        what, path = (path[2], path[3:]) if len(path) > 2 else ("revision", ["main"])
        if hub.gated and not authorization and what in ("resolve", "auth-check"):
            return self.send(401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
        if what != "auth-check" and path[0] not in ("main", revision):
            return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if what == "resolve":
            return self.send_file(folder, "/".join(path[1:]), revision)
        if what == "tree":
            return self.send_json([{"type": "file", "path": name, "size": file.stat().st_size, "oid": etag(file)[:40]}
                                   for name, file in self.files(folder)])
        if what == "revision":
            blobs = "blobs" in parse_qs(parts.query)
            return self.send_json({"id": "/".join(path), "sha": revision, "siblings": [
                {"rfilename": name} | ({"size": file.stat().st_size} if blobs else {})
                for name, file in self.files(folder)]})
        return self.send(200 if what == "auth-check" else 404, b"")

    def files(self, folder: Path) -> Iterable[tuple[str, Path]]:
        return [(file.relative_to(folder).as_posix(), file) for file in repository_files(folder)]

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def send_json(self, value: object) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send_file(self, folder: Path, name: str, revision: str) -> None:
        headers = {"X-Repo-Commit": revision, "Accept-Ranges": "bytes"}
        file = folder / name
        if not file.is_file():
            return self.send(404, b"", {**headers, "X-Error-Code": "EntryNotFound"})
        headers["ETag"] = f'"{etag(file)}"'
        body, status = file.read_bytes(), 200
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            status, headers["Content-Range"] = 206, f"bytes {start}-{len(body) - 1}/{len(body)}"
            body = body[start:]
        if self.command == "HEAD":
            return self.send(200, body, headers)
        cut = self.standin.cut.get(name)
        if cut is None:
            self.standin.sent[name] += len(body)
            return self.send(status, body, headers)
        self.standin.cut[name] = 0  # gone from now on
        self.close_connection = True
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[:cut])
        self.standin.sent[name] += len(body[:cut])


HubStandIn.handler = _Handler
