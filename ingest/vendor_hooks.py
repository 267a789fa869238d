"""`/hooks/{endpoint_id}`: vendors' own webhooks, verified, taken apart and put onto the log.

address → handshake? → signature → events → whose account → Kafka's ack → the vendor's answer

401 the signature does not hold     404 no such address     503 Kafka is away: it sends again
An event of an account that nobody connected goes onto the log marked, starts nothing, and its
outcome says so.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import httpx
from starlette.requests import Request
from starlette.responses import Response

from ingest.answers import CLIENT_CLOSED, refusal
from ingest.body import Gone, header_texts, read_body
from ingest.core import handshake
from ingest.core.normalise import kept_headers
from ingest.core.signature import Invalid, Valid, Verdict
from ingest.core.vendor_event import Draft, Origin, build, split
from ingest.core.vendor_request import VendorRequest
from ingest.core.vendor_signature import check, choose
from ingest.metrics import answered
from ingest.pace import Admit, everybody
from ingest.vendor_keys import VendorKeys
from ingest.webhooks import event_record
from schemas.errors import NeighbourhoodError, NotFound
from schemas.incoming import EVENT_BYTES_MAX
from schemas.provider import Catalogue
from schemas.settings import Secret
from schemas.triggers import HandshakeSpec, SignatureSpec, TriggerSpec, triggers_of
from wire.bus import Publisher, Record, publish_all
from wire.clock import mint as mint_id
from wire.clock import now_us
from wire.problems import problem

# A changed secret or a deleted address is noticed by then.
KNOWN_US: Final = 10_000_000
KNOWN_MAX: Final = 10_000
US_PER_S: Final = 1_000_000


class Endpoint(Protocol):
    """An address (`token_vault.hooks.Endpoint`)."""

    @property
    def id(self) -> str:
        """Its name, `hook_…`."""

    @property
    def workspace_id(self) -> str:
        """Whose."""

    @property
    def mode(self) -> str:
        """`live` or `test`."""

    @property
    def provider(self) -> str:
        """Its slug."""

    @property
    def connection_id(self) -> str | None:
        """The one connection that it is for."""

    @property
    def user(self) -> str | None:
        """Whose connection that is."""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The live ones."""


@dataclass(frozen=True, slots=True)
class HookPorts:
    """What vendors' webhooks need from outside.

    Attributes:
        find: Gives an address; raises NotFound.
        owners: Gives connection and user of everybody who connected an account, by workspace, mode,
            provider and account.
        learn: Stores the secret that a vendor told in its handshake.
        client: For vendors' public keys.
        base_url: Under which vendors reach us.
    """

    publisher: Publisher
    catalogue: Catalogue
    find: Callable[[str], Awaitable[Endpoint]]
    owners: Callable[[str, str, str, str], Awaitable[Sequence[tuple[str, str]]]]
    learn: Callable[[str, str, Secret], Awaitable[None]]
    client: httpx.AsyncClient
    base_url: str
    clock: Callable[[], int] = now_us
    mint: Callable[[str], str] = mint_id
    admit: Admit = everybody


class VendorHooks:
    """Takes vendors' webhooks."""

    def __init__(self, ports: HookPorts) -> None:
        self._ports = ports
        self._known: OrderedDict[str, tuple[int, Endpoint]] = OrderedDict()
        self._keys = VendorKeys(ports.client, ports.clock)

    async def take(self, request: Request) -> Response:
        """Take one request."""
        started_us = self._ports.clock()
        try:
            response = await self._take(request)
        except Gone:
            return Response(status_code=CLIENT_CLOSED)
        except NeighbourhoodError as error:
            response = refusal(error)
        answered("hooks", response.status_code, self._ports.clock() - started_us)
        return response

    async def _take(self, http: Request) -> Response:
        headers = header_texts(http)
        endpoint = await self._endpoint(http.path_params["endpoint_id"])
        spec = self._spec(endpoint)
        query = http.scope["query_string"].decode("latin-1")
        address = f"{self._ports.base_url}/hooks/{endpoint.id}"
        request = VendorRequest(
            method=http.method,
            url=f"{address}?{query}" if query else address,
            query=query,
            headers=headers,
            content=await read_body(http, headers, EVENT_BYTES_MAX),
        )
        greeting = handshake.find(spec, request)
        if greeting is not None:
            if greeting.signed:
                verdict = await self._verify(endpoint, spec, request)
                if isinstance(verdict, Invalid):
                    return _refused(verdict)
            return await self._greet(endpoint, greeting, request)
        if request.method != "POST":
            return problem(
                405,
                "method_not_allowed",
                f"This address takes the webhooks of {endpoint.provider} by POST.",
                headers={"Allow": "POST"},
            )
        verdict = await self._verify(endpoint, spec, request)
        if isinstance(verdict, Invalid):
            return _refused(verdict)
        if spec.skip_when is None or not spec.skip_when.holds(request.roots()):
            await self._publish(endpoint, spec, request, signed=isinstance(verdict, Valid))
        answer = spec.answer
        return Response(answer.body, answer.status, media_type=answer.content_type)

    def _spec(self, endpoint: Endpoint) -> TriggerSpec:
        spec = triggers_of(self._ports.catalogue.get(endpoint.provider))
        if spec is None:
            raise NotFound(f"{endpoint.provider} sends no webhooks.", code="no_triggers")
        return spec

    async def _endpoint(self, name: str, *, fresh: bool = False) -> Endpoint:
        now = self._ports.clock()
        kept = self._known.get(name)
        if kept is not None and now < kept[0] and not fresh:
            return kept[1]
        self._known.pop(name, None)
        found = await self._ports.find(name)
        self._known[name] = (now + KNOWN_US, found)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return found

    async def _greet(
        self, endpoint: Endpoint, spec: HandshakeSpec, request: VendorRequest
    ) -> Response:
        secrets = [secret.reveal() for secret in endpoint.secrets]
        answer = handshake.reply(spec, request, secrets)
        if answer.secret:
            await self._ports.learn(endpoint.workspace_id, endpoint.id, Secret(answer.secret))
            self._known.pop(endpoint.id, None)
        return Response(
            answer.content,
            answer.status,
            headers=dict(answer.headers),
            media_type=answer.content_type,
        )

    async def _verify(
        self, endpoint: Endpoint, spec: TriggerSpec, request: VendorRequest
    ) -> Verdict:
        scheme = choose(spec.signatures, request.headers)
        verdict = await self._checked(endpoint, spec, scheme, request)
        if isinstance(verdict, Invalid) and verdict.code in ("wrong_signature", "no_secret"):
            fresh = await self._endpoint(endpoint.id, fresh=True)
            if fresh.secrets != endpoint.secrets:
                verdict = await self._checked(fresh, spec, scheme, request)
        return verdict

    async def _checked(
        self,
        endpoint: Endpoint,
        spec: TriggerSpec,
        scheme: SignatureSpec | None,
        request: VendorRequest,
    ) -> Verdict:
        secrets = [secret.reveal() for secret in endpoint.secrets]
        now_s = self._ports.clock() / US_PER_S
        keys = await self._keys.get(scheme, request) if scheme is not None else None
        if scheme is None or scheme.algorithm != "token" or spec.each is None:
            return check(scheme, request, secrets, now_s, keys)
        # Each event of the request bears the secret: one that does not spoils all.
        for draft in split(spec, request):
            verdict = check(scheme, request, secrets, now_s, keys, draft.item)
            if not isinstance(verdict, Valid):
                return verdict
        return Valid()

    async def _publish(
        self, endpoint: Endpoint, spec: TriggerSpec, request: VendorRequest, *, signed: bool
    ) -> None:
        now_us = self._ports.clock()
        headers = kept_headers(request.headers)
        records: list[Record] = []
        for draft in split(spec, request):
            for origin in await self._origins(endpoint, draft, signed=signed):
                envelope, event, key = build(
                    draft, origin, new_id=self._ports.mint("ev"), now_us=now_us, headers=headers
                )
                records.append(event_record(envelope, event, key))
        if records:
            await self._ports.admit(endpoint.workspace_id, len(records))
        await publish_all(self._ports.publisher, records)

    async def _origins(self, endpoint: Endpoint, draft: Draft, *, signed: bool) -> list[Origin]:
        """Say for whom an event is: everybody who connected its account."""

        def origin(connection: str | None, user: str | None, why: str = "") -> Origin:
            return Origin(
                endpoint=endpoint.id,
                workspace=endpoint.workspace_id,
                mode=endpoint.mode,
                provider=endpoint.provider,
                signed=signed,
                connection=connection,
                user=user,
                quarantine=why,
            )

        if endpoint.connection_id is not None or draft.account is None:
            return [origin(endpoint.connection_id, endpoint.user)]
        found = await self._ports.owners(
            endpoint.workspace_id, endpoint.mode, endpoint.provider, draft.account
        )
        if not found:
            return [origin(None, None, f"no connection of the account {draft.account[:100]!r}")]
        users: dict[str, str] = {}
        for connection_id, user in found:  # one event a user, however often they connected it
            users.setdefault(user, connection_id)
        return [origin(connection_id, user) for user, connection_id in users.items()]


def _refused(verdict: Invalid) -> Response:
    return problem(401, verdict.code, verdict.reason)
