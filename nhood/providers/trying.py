"""Calls an action as the executors do, with an account of the sandbox, step by step.

What a step does besides (ledger, limits, retries, results) is left out: this shows what is sent
and how the answer is read.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from executors.core.action import call
from executors.core.outcome import Outcome
from executors.core.request import Request, Response
from nhood.sandbox.entered import PASTED_TOKEN
from schemas.files import FILE, StoredFile, clean_type
from schemas.ids import derived_id
from schemas.provider import ProviderSpec
from schemas.settings import Secret, Settings
from token_vault import endpoints
from token_vault.core.headers import Proof, proof_of, roots_of
from wire.clock import now

Watch = Callable[[Request, str, Response], None]


def told_of(name: str, answer: httpx.Response) -> dict[str, Any]:
    """Describe a download as the file store would; here nothing is kept."""
    digest = hashlib.sha256(answer.content).hexdigest()
    kind = answer.headers.get("content-type")
    file_id = derived_id("fil", digest)
    size = len(answer.content)
    return StoredFile(file_id, name, clean_type(kind, name), size, digest).told()


@dataclass(frozen=True, slots=True)
class Trial:
    """An account at a vendor that the sandbox plays.

    Attributes:
        settings: Name the sandbox's address.
        account: The account's variables.
        token: An access token of a consent, or what the sandbox takes for any credential.
        watch: Told of every request, where it went, and its answer.
    """

    spec: ProviderSpec
    client: httpx.AsyncClient
    settings: Settings
    account: Mapping[str, str]
    token: str = PASTED_TOKEN
    watch: Watch | None = None

    async def act(self, action: str, params: Mapping[str, Any], key: str) -> Outcome:
        """Carry an action out.

        Args:
            action: Its name.
            params: As in a step's `config`, without templates.
            key: The effect's.

        Raises:
            NotFound: There is no such action; the nearest name is told.
        """
        steps = call(self.spec, self.spec.action(action), params, self.account, key)
        try:
            request = next(steps)
            while True:
                request = steps.send(await self._send(request))
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome

    async def _send(self, request: Request) -> Response:
        content, kind = request.payload()
        headers = dict(request.headers)
        if kind is not None:
            headers["content-type"] = kind
        url = self._address(request.full_url)
        whole = url
        if request.with_token:
            proof = self._proof()
            headers |= proof.headers(request.method, url, headers, content, now(), request.proof)
            whole = proof.url(url)
        answer = await self.client.request(request.method, whole, headers=headers, content=content)
        content = answer.content
        if request.download and answer.is_success:
            content = orjson.dumps({FILE: told_of(request.download, answer)})
        response = Response(answer.status_code, answer.headers, content, now().timestamp())
        if self.watch is not None:
            self.watch(request, url, response)
        return response

    def _address(self, url: str) -> str:
        """Put the sandbox in the vendor's place."""
        connection = self.spec.connection(self.account)
        usual = self.spec.api.base_url.text({"connection": connection}).rstrip("/")
        if url.startswith(usual):
            base = endpoints.base_url(self.spec, "test", self.account, self.settings)
            return base + url[len(usual) :]
        return endpoints.resolve(url, self.spec, "test", self.settings)

    def _proof(self) -> Proof:
        entered = {item.name: Secret(self.token) for item in self.spec.auth.credentials}
        return proof_of(self.spec.auth, roots_of(self.spec, self.token, entered, self.account))
