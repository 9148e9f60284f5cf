"""A server that speaks the part of Google Cloud Storage's JSON API that a run needs.

Objects, their generations and preconditions, ranges, listings in pages: in memory, and strictly
consistent as the real one is. https://cloud.google.com/storage/docs/json_api/v1
"""

import itertools
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

_PAGE = 3  # items of a page, few so that listings come in several


class Stored(NamedTuple):
    content: bytes
    generation: int


class Bucket:
    """What the server holds, and what it was asked."""

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.asked: list[str] = []
        self.sent = 0  # bytes, of answers
        self.refusing, self.silent = False, 0.0  # seconds before each answer
        self._lock, self._count = threading.Lock(), itertools.count(1)

    def empty(self) -> None:
        """Forgets all that it holds and was asked."""
        with self._lock:
            self.objects, self.asked, self.refusing, self.silent = {}, [], False, 0.0

    def write(self, name: str, content: bytes, wanted: str | None) -> Stored | None:
        """Writes an object if its generation is the wanted one; 0 is that of no object."""
        with self._lock:
            here = self.objects.get(name, Stored(b"", 0)).generation
            if wanted is not None and int(wanted) != here:
                return None
            self.objects[name] = Stored(content, next(self._count))
            return self.objects[name]


def _described(bucket: str, name: str, stored: Stored) -> dict[str, Any]:
    return {
        "kind": "storage#object",
        "bucket": bucket,
        "name": name,
        "id": f"{bucket}/{name}/{stored.generation}",
        "size": str(len(stored.content)),
        "generation": str(stored.generation),
        "metageneration": "1",
        "timeCreated": "2026-01-01T00:00:00.000Z",
        "updated": "2026-01-01T00:00:00.000Z",
        "storageClass": "STANDARD",
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is sent as one piece, which clients do not wait for
    bucket: Bucket

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def _read(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        time.sleep(self.bucket.silent)
        self.bucket.asked.append(f"{self.command} {self.path}")
        asked = parse_qs(parts.query, keep_blank_values=True)
        return parts.path, {key: values[0] for key, values in asked.items()}

    def _answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.bucket.sent += len(content)
            self.wfile.write(content)

    def _json(self, status: int, value: Any) -> None:
        self._answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def _refuse(self, status: int, reason: str) -> None:
        self._json(status, {"error": {"code": status, "message": reason, "errors": []}})

    def do_GET(self) -> None:
        path, asked = self._read()
        if found := re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)/o/(.+)", path):
            self._object(found[1], unquote(found[2]), asked, path.startswith("/download"))
        elif found := re.fullmatch(r"/storage/v1/b/([^/]+)/o/?", path):
            self._json(200, self._listed(found[1], asked))
        elif found := re.fullmatch(r"/storage/v1/b/([^/]+)", path):
            self._json(200, {"kind": "storage#bucket", "name": found[1], "id": found[1]})
        else:
            self._refuse(404, f"no such path {path}")

    do_HEAD = do_GET

    def _object(self, bucket: str, name: str, asked: dict[str, str], download: bool) -> None:
        stored = self.bucket.objects.get(name)
        if stored is None:
            return self._refuse(404, f"no such object {name}")
        generation = str(stored.generation)
        if asked.get("ifGenerationMatch", generation) != generation:
            return self._refuse(412, "another generation")
        if asked.get("ifGenerationNotMatch") == generation:
            return self._answer(304)
        if not download and asked.get("alt") != "media":
            return self._json(200, _described(bucket, name, stored))
        content, size = stored.content, len(stored.content)
        headers = {"x_goog_generation": generation, "Content_Type": "application/octet-stream"}
        headers |= {"x_goog_stored_content_length": str(size)}
        if found := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            start = int(found[1]) if found[1] else max(size - int(found[2]), 0)
            stop = min(int(found[2]) + 1, size) if found[1] and found[2] else size
            if start >= size:
                return self._answer(416, Content_Range=f"bytes */{size}")
            headers |= {"Content_Range": f"bytes {start}-{stop - 1}/{size}"}
            return self._answer(206, content[start:stop], **headers)
        return self._answer(200, content, **headers)

    def _listed(self, bucket: str, asked: dict[str, str]) -> dict[str, Any]:
        prefix, cut = asked.get("prefix", ""), asked.get("delimiter", "")
        low = max(asked.get("startOffset", ""), asked.get("pageToken", ""))
        high, found, prefixes = asked.get("endOffset", ""), [], set()
        for name in sorted(self.bucket.objects):
            if not name.startswith(prefix) or name < low or (high and name >= high):
                continue
            rest = name[len(prefix) :]
            if cut and cut in rest:
                prefixes.add(prefix + rest.split(cut)[0] + cut)
            else:
                found.append(name)
        page = {"items": [_described(bucket, n, self.bucket.objects[n]) for n in found[:_PAGE]]}
        if found[_PAGE:]:
            page["nextPageToken"] = found[_PAGE]
        if prefixes:
            page["prefixes"] = sorted(prefixes)
        return {"kind": "storage#objects", **page}

    def do_POST(self) -> None:
        path, asked = self._read()
        content = self.rfile.read(int(self.headers["Content-Length"]))
        found = re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", path)
        if found is None or asked.get("uploadType") != "media":
            return self._refuse(404, f"no such upload {self.path}")
        if self.bucket.refusing:
            return self._refuse(403, "this bucket may not be written")
        stored = self.bucket.write(asked["name"], content, asked.get("ifGenerationMatch"))
        if stored is None:
            return self._refuse(412, "another generation")
        return self._json(200, _described(found[1], asked["name"], stored))

    def do_DELETE(self) -> None:
        path, _ = self._read()
        found = re.fullmatch(r"/storage/v1/b/([^/]+)/o/(.+)", path)
        if found is None or self.bucket.objects.pop(unquote(found[2]), None) is None:
            return self._refuse(404, f"no such object {path}")
        return self._answer(204)


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # clients ask for many things at once


@contextmanager
def serving() -> Iterator[tuple[Bucket, str]]:
    """A server of one bucket, of whatever name; gives what it holds and its address."""
    bucket = Bucket()
    handler = type("Handler", (_Handler,), {"bucket": bucket})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield bucket, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
