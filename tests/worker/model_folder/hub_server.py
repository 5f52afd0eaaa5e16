"""A small hub: the parts of Hugging Face's HTTP interface by which a repository is listed and its files are fetched."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves the folder `files` as the repository `repository`; `fetched` lists the files that were asked for whole."""

    def __init__(self, repository: str, files: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repository, self.files, self.fetched = repository, files, list[str]()

    @property
    def names(self) -> list[str]:
        return sorted(path.relative_to(self.files).as_posix() for path in self.files.rglob("*") if path.is_file())


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(whole=False)

    def do_GET(self) -> None:
        self._answer(whole=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, whole: bool) -> None:
        path = self.path.split("?")[0]
        api = f"/api/models/{self.server.repository}"
        resolve = f"/{self.server.repository}/resolve/"
        if path.startswith(f"{api}/tree/"):
            files = [
                {"type": "file", "path": name, "size": (self.server.files / name).stat().st_size, "oid": COMMIT}
                for name in self.server.names
            ]
            self._send(json.dumps(files).encode(), whole)
        elif path.startswith(api):
            siblings = [{"rfilename": name} for name in self.server.names]
            described = {
                "id": self.server.repository,
                "sha": COMMIT,
                "siblings": siblings,
                "tags": [],
                "private": False,
            }
            self._send(json.dumps(described).encode(), whole)
        elif path.startswith(resolve) and (name := path.removeprefix(resolve).split("/", 1)[1]) in self.server.names:
            if whole:
                self.server.fetched.append(name)
            self._send((self.server.files / name).read_bytes(), whole)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send(self, body: bytes, whole: bool) -> None:
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if whole:
            self.wfile.write(body)


@contextmanager
def serving(repository: str, files: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Let huggingface_hub find `repository` here, and nothing else, with `cache` as its cache."""
    hub = Hub(repository, files)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{hub.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # its attempts at a closed hub are 23 s apart in all
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
