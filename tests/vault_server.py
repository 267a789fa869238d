"""A stand-in for HashiCorp Vault's transit engine, over real HTTP.

Written from https://developer.hashicorp.com/vault/api-docs/secret/transit and
https://developer.hashicorp.com/vault/api-docs#http-status-codes, since no server can be installed
from the registries: paths, fields, statuses and error bodies are those of the documentation; the
encryption (AES-256-GCM with associated data) is real.
"""

import base64
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TOKEN = "hvs.test-token-of-the-service"
_PATH = re.compile(r"/v1/(?P<mount>[\w/-]+?)/(?P<what>keys|encrypt|decrypt)/(?P<name>[\w-]+)"
                   r"(?P<more>/rotate)?")  # fmt: skip


@dataclass
class TransitServer:
    """What the server holds, open to the tests.

    Attributes:
        takes_associated_data: False: as a version before 1.13, which ignores the field.
        may_rotate: Whether the token's policy covers `keys/<name>/rotate`.
    """

    keys: dict[str, list[bytes]] = field(default_factory=lambda: {"nhood": [os.urandom(32)]})
    url: str = ""
    token: str = TOKEN
    sealed: bool = False
    slow_s: float = 0.0
    takes_associated_data: bool = True
    may_rotate: bool = True
    min_decryption_version: int = 1
    type: str = "aes256-gcm96"
    requests: list[tuple[str, str]] = field(default_factory=list)

    def answer(self, method: str, path: str, token: str, body: dict[str, Any]) -> tuple[int, Any]:
        self.requests.append((method, path))
        time.sleep(self.slow_s)
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        found = _PATH.fullmatch(path)
        if token != self.token or found is None or found["mount"] != "transit":
            return 403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
        name, what = found["name"], found["what"]
        if what == "keys":
            return self._keys(method, name, rotate=bool(found["more"]))
        if name not in self.keys:
            return 400, {"errors": ["encryption key not found"]}
        return self._encrypt(name, body) if what == "encrypt" else self._decrypt(name, body)

    def _keys(self, method: str, name: str, *, rotate: bool) -> tuple[int, Any]:
        if name not in self.keys:
            return 404, {"errors": []}
        if rotate and method in ("POST", "PUT"):
            if not self.may_rotate:
                return 403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
            self.keys[name].append(os.urandom(32))
        versions = {str(n + 1): 1_700_000_000 + n for n in range(len(self.keys[name]))}
        return 200, {
            "data": {
                "type": self.type,
                "derived": False,
                "keys": versions,
                "latest_version": len(versions),
                "min_decryption_version": self.min_decryption_version,
                "min_encryption_version": 0,
                "name": name,
                "supports_encryption": True,
                "supports_decryption": True,
            }
        }

    def _bound(self, body: dict[str, Any]) -> bytes | None:
        if not self.takes_associated_data:
            return None
        return base64.b64decode(body.get("associated_data", ""))

    def _encrypt(self, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        nonce, version = os.urandom(12), len(self.keys[name])
        plaintext = base64.b64decode(body["plaintext"])
        sealed = nonce + AESGCM(self.keys[name][-1]).encrypt(nonce, plaintext, self._bound(body))
        text = f"vault:v{version}:{base64.b64encode(sealed).decode()}"
        return 200, {"data": {"ciphertext": text, "key_version": version}}

    def _decrypt(self, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        found = re.fullmatch(r"vault:v(\d+):(.+)", body["ciphertext"])
        if found is None:
            return 400, {"errors": ["invalid ciphertext: no prefix"]}
        version, sealed = int(found[1]), base64.b64decode(found[2])
        if version < self.min_decryption_version:
            text = "ciphertext or signature version is disallowed by policy (too old)"
            return 400, {"errors": [text]}
        if version > len(self.keys[name]):
            return 400, {"errors": ["invalid ciphertext: version is too new"]}
        cipher = AESGCM(self.keys[name][version - 1])
        try:
            plaintext = cipher.decrypt(sealed[:12], sealed[12:], self._bound(body))
        except InvalidTag:
            return 400, {"errors": ["cipher: message authentication failed"]}
        return 200, {"data": {"plaintext": base64.b64encode(plaintext).decode()}}


@contextmanager
def running_transit() -> Iterator[TransitServer]:
    transit = TransitServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            token = self.headers.get("x-vault-token", "")
            status, answer = transit.answer(self.command, self.path, token, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
    ).start()
    transit.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield transit
    finally:
        server.shutdown()
        server.server_close()
