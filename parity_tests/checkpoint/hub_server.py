"""A local HTTP server that speaks as much of the hub's protocol as huggingface_hub asks of it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "1234567890abcdef1234567890abcdef12345678"
LARGE = 10_000  # files above this are served as LFS files: announced by their sha256


@dataclass
class Hub:
    """Files of one repository, and the faults to be shown."""

    repository: str
    files: dict[str, bytes]
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    token: str | None = None
    gated: bool = False
    wrong_bytes: set[str] = field(default_factory=set)
    cut_once: set[str] = field(default_factory=set)
    cut_always: set[str] = field(default_factory=set)
    xet_hashes: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    endpoint: str = ""


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serves a hub on a free local port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(send_body=False)

        def do_GET(self) -> None:
            self._answer(send_body=True)

        def _answer(self, *, send_body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            prefix = f"/{hub.repository}/resolve/"
            if not self.path.startswith(prefix):
                return self._error(404, "RepoNotFound")
            if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self._error(401, "RepoNotFound")
            if hub.gated:
                return self._error(403, "GatedRepo")
            revision, _, name = self.path.removeprefix(prefix).partition("/")
            commit = hub.revisions.get(revision, revision if revision in hub.revisions.values() else None)
            if commit is None:
                return self._error(404, "RevisionNotFound")
            if name not in hub.files:
                return self._error(404, "EntryNotFound", commit)
            self._file(name, commit, send_body=send_body)

        def _file(self, name: str, commit: str, *, send_body: bool) -> None:
            content = hub.files[name]
            large = len(content) > LARGE
            etag = (hashlib.sha256 if large else hashlib.sha1)(content).hexdigest()
            if name in hub.wrong_bytes:
                content = content[:-1] + bytes([content[-1] ^ 1])
            start = 0
            if (asked := self.headers.get("Range", "")).startswith("bytes="):
                start = int(asked.removeprefix("bytes=").split("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{etag}"')
            if large:
                self.send_header("X-Linked-Etag", f'"{etag}"')
                self.send_header("X-Linked-Size", str(len(content)))
            if name in hub.xet_hashes:
                self.send_header("X-Xet-Hash", hub.xet_hashes[name])
                self.send_header("X-Xet-Refresh-Route", f"{hub.endpoint}/xet-read-token")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if not send_body:
                return
            if name in hub.cut_once | hub.cut_always:
                hub.cut_once.discard(name)
                self.wfile.write(content[start : start + (len(content) - start) // 2])
                self.wfile.flush()
                self.close_connection = True
                return
            self.wfile.write(content[start:])

        def _error(self, status: int, code: str, commit: str | None = None) -> None:
            body = json.dumps({"error": code}).encode()
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            if commit:
                self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: the test reads ``hub.requests``."""

    return Handler
