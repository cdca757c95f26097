"""A hub on this machine that takes uploads: the part of its API that `HfApi.upload_folder` speaks, Xet left out."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from standins import LocalServer


class UploadStandIn(LocalServer):
    """`with UploadStandIn() as hub:` then point HF_ENDPOINT at `hub.url`. Every token but `key` is refused (401).

    Switches: refuse = {word in the path: status}, answered with `body`; cut = {word in the path}: the connection is
    closed in the middle of the request; large = names whose bytes go by LFS instead of inside the commit.
    files: repository -> {name: bytes} as committed. objects: what arrived by LFS, by sha256. requests: Counter of
    (method, path). seen: all that was sent, headers left out.
    """

    def __init__(self, key: str = "hf_standin", large: str = ".safetensors"):
        self.key, self.large = key, large
        self.refuse: dict[str, int] = {}
        self.body = b"out of order"
        self.cut: set[str] = set()
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: Counter[tuple[str, str]] = Counter()
        self.seen: list[bytes] = []


class _Handler(BaseHTTPRequestHandler):
    standin: UploadStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        hub, path = self.standin, unquote(urlsplit(self.path).path)
        hub.requests[self.command, path] += 1
        length = int(self.headers.get("Content-Length", 0))
        if any(word in path for word in hub.cut):
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        hub.seen.append(body)
        for word, status in hub.refuse.items():
            if word in path:
                return self.send(status, hub.body)
        if path.startswith("/lfs/"):  # a signed address: no token
            return self.put(path.removeprefix("/lfs/"), body)
        if self.headers.get("Authorization") != f"Bearer {hub.key}":
            return self.send(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        if path == "/api/validate-yaml":
            return self.send_json({"warnings": [], "errors": []})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        repo = "/".join(path.removeprefix("/api/models").strip("/").split("/")[:2]).removesuffix(".git")
        if repo not in hub.files:
            return self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
        if "/preupload/" in path:
            return self.send_json({"files": [
                {"path": file["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if file["path"].endswith(hub.large) else "regular"}
                for file in json.loads(body)["files"]]})
        if path.endswith("/info/lfs/objects/batch"):
            return self.batch(json.loads(body))
        if "/commit/" in path:
            return self.commit(repo, body)
        if path == f"/api/models/{repo}":
            return self.send_json({"id": repo, "sha": "0" * 40, "siblings": []})
        return self.send_json([]) if "/tree/" in path else self.send(404, b"")

    def create(self, wanted: dict) -> None:
        repo = f"{wanted['organization']}/{wanted['name']}"
        if repo in self.standin.files:
            return self.send_json({"url": f"{self.standin.url}/{repo}"}, 409)
        self.standin.files[repo] = {}
        self.standin.private[repo] = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.send_json({"url": f"{self.standin.url}/{repo}", "id": repo})

    def batch(self, wanted: dict) -> None:
        objects = [{**thing, **({} if thing["oid"] in self.standin.objects else {
            "actions": {"upload": {"href": f"{self.standin.url}/lfs/{thing['oid']}"}}})} for thing in wanted["objects"]]
        self.send_json({"transfer": "basic", "objects": objects})

    def put(self, oid: str, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self.send(400, b"")
        self.standin.objects[oid] = body
        self.send(200, b"")

    def commit(self, repo: str, body: bytes) -> None:
        files = {}
        for line in filter(None, body.split(b"\n")):
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.standin.objects:
                    return self.send(400, b"the object did not arrive")
                files[value["path"]] = self.standin.objects[value["oid"]]
        self.standin.files[repo].update(files)
        oid = hashlib.sha1(body).hexdigest()
        self.send_json({"success": True, "commitOid": oid, "commitUrl": f"{self.standin.url}/{repo}/commit/{oid}"})

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def send_json(self, value: object, status: int = 200) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


UploadStandIn.handler = _Handler
