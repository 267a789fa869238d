"""Subscriptions that a vendor's API makes: created, renewed before they end, removed.

What is sent is what the provider file says (`schemas.registration`), with the credential of the
address's connection. The row is there before the vendor is asked, since some vendors try the
address while they answer. What dies between the vendor's answer and our note of it leaves a
subscription at the vendor whose address is good or gone; it is removed by hand, or by the vendor.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import httpx
import orjson
import structlog

from schemas.errors import Conflict, DependencyDown, InvalidInput, NeighbourhoodError, Problem
from schemas.events import rfc3339_seconds
from schemas.expression import ABSENT
from schemas.provider import Catalogue, ProviderSpec, render_all
from schemas.registration import CallSpec, RegistrationSpec, registration_of
from schemas.segments import path_segment
from schemas.settings import Secret, Settings
from token_vault import endpoints
from token_vault.exchange import TIMEOUT_S, json_of
from token_vault.hooks import HookRow, Hooks
from token_vault.subscribed import Subscribed
from token_vault.tokens import Credential, TokenSource
from wire.http import map_http_failure
from wire.redact import without

# Renewals under way in a process.
TASKS_MAX: Final = 16
_GONE: Final = frozenset({404, 410})
_THROTTLED: Final = 429
_TEXT_CHARS_MAX: Final = 300
_log = structlog.get_logger("vault")


class SubscriptionGone(Conflict):
    """The vendor does not know the subscription any more."""

    default_code = "subscription_gone"


@dataclass(frozen=True, slots=True)
class _Talk:
    """What the calls for one subscription have in common."""

    spec: ProviderSpec
    plan: RegistrationSpec
    row: HookRow
    roots: Mapping[str, Any]
    credential: Credential


class Subscriptions:
    """Asks vendors; one a process.

    Attributes:
        hooks: The addresses.
    """

    def __init__(  # noqa: PLR0913 - the composition root hands everything over
        self,
        settings: Settings,
        catalogue: Catalogue,
        tokens: TokenSource,
        hooks: Hooks,
        rows: Subscribed,
        client: httpx.AsyncClient,
        clock: Callable[[], datetime],
    ) -> None:
        self.hooks = hooks
        self._settings = settings
        self._catalogue = catalogue
        self._tokens = tokens
        self._rows = rows
        self._client = client
        self._clock = clock

    def plan(self, provider: str, params: Mapping[str, Any]) -> RegistrationSpec:
        """Give how a vendor's subscriptions are made.

        Raises:
            InvalidInput: `no_registration`: only by hand; `invalid_params`: some are missing or not
                known.
        """
        spec = self._catalogue.get(provider)
        plan = registration_of(spec)
        if plan is None:
            text = f"{spec.name}'s webhooks are set up by hand; leave `params` out"
            problem = Problem("params", text, "", "no_registration")
            raise InvalidInput(f"{text}.", problems=[problem], code="no_registration")
        wanted = f"{spec.name} wants {', '.join(plan.params) or 'none'}."
        problems = [
            Problem(f"params.{name}", f"{name} is missing", wanted, "required")
            for name in plan.params
            if params.get(name) in (None, "", [])
        ]
        problems += [
            Problem(f"params.{name}", f"{name} is not known", wanted, "unknown")
            for name in params
            if name not in plan.params
        ]
        if problems:
            text = "; ".join(problem.message for problem in problems)
            raise InvalidInput(f"{text}. {wanted}", problems=problems, code="invalid_params")
        return plan

    async def create(self, row: HookRow) -> None:
        """Subscribe an address; its secret is stored where the vendor makes it.

        Raises:
            NeighbourhoodError: The vendor does not (InvalidInput `subscription_refused`), cannot
                just now (DependencyDown), or the connection is not usable (as
                `TokenSource.resolve`). Nothing is noted then.
        """
        talk = await self._talk(row)
        body = await self._ask(talk, talk.plan.create)
        named = talk.plan.id.find({"body": body}) if talk.plan.id is not None else None
        if talk.plan.id is not None and named in (ABSENT, None, ""):
            raise self._refused(talk, 200, body)
        made = {"id": named}
        plan = talk.plan
        if plan.secret is not None:
            if plan.ask_secret is not None:
                roots = {**talk.roots, "subscription": made}
                body = await self._ask(replace(talk, roots=roots), plan.ask_secret)
            told = plan.secret.find({"body": body})
            if told in (ABSENT, None, ""):
                raise self._refused(talk, 200, None)
            await self.hooks.set_secret(row.workspace_id, row.id, Secret(str(told)))
        await self._rows.made(row, made, self._next(plan))
        _log.info("vault.subscribed", provider=row.provider, endpoint=row.id)

    async def remove(self, row: HookRow) -> bool:
        """Take a subscription back; False where the vendor could not be told."""
        if row.subscription is None or row.connection_id is None:
            return True
        try:
            talk = await self._talk(row)
            if talk.plan.remove is not None:
                await self._ask(talk, talk.plan.remove, of_known=True)
        except SubscriptionGone:
            return True
        except NeighbourhoodError as error:
            _log.warning("vault.not_unsubscribed", endpoint=row.id, code=error.code)
            return False
        return True

    async def remove_all(self, workspace: str, connection_id: str) -> None:
        """Take back all that were made with a connection, as far as the vendor lets us."""
        rows = await self._rows.of_connection(workspace, connection_id)
        await asyncio.gather(*(self.remove(row) for row in rows))

    async def turn(self) -> bool:
        """Renew what is due; say whether there was something.

        Raises:
            DependencyDown: The database is away.
        """
        rows = await self._rows.lease_due(TASKS_MAX)
        await asyncio.gather(*(self._renew(row) for row in rows))
        return bool(rows)

    async def _renew(self, row: HookRow) -> None:
        try:
            await self._renewed(row)
        except NeighbourhoodError as error:
            _log.warning("vault.not_renewed", endpoint=row.id, code=error.code)
            await self._rows.failed(row, error.public)

    async def _renewed(self, row: HookRow) -> None:
        talk = await self._talk(row)
        if talk.plan.renew is None:
            await self.create(row)
            return
        try:
            await self._ask(talk, talk.plan.renew, of_known=True)
        except SubscriptionGone:
            await self.create(row)
            return
        await self._rows.made(row, row.subscription or {}, self._next(talk.plan))

    def _next(self, plan: RegistrationSpec) -> datetime | None:
        if plan.renew_s is None:
            return None
        return self._clock() + timedelta(seconds=plan.renew_s)

    async def _talk(self, row: HookRow) -> _Talk:
        spec = self._catalogue.get(row.provider)
        plan = self.plan(row.provider, row.params or {})
        credential = await self._tokens.resolve(
            row.workspace_id, row.mode, row.provider, None, row.connection_id
        )
        secrets = (await self.hooks.find(row.id)).secrets
        roots: dict[str, Any] = {
            "params": row.params or {},
            "connection": credential.variables,
            "callback_url": f"{self._settings.gateway_url}/hooks/{row.id}",
            "secret": secrets[0].reveal() if secrets else "",
            "subscription": row.subscription or {},
        }
        if plan.life_s is not None:
            until = self._clock() + timedelta(seconds=plan.life_s)
            roots["expires_at"] = rfc3339_seconds(until)
        return _Talk(spec, plan, row, roots, credential)

    async def _ask(self, talk: _Talk, step: CallSpec, *, of_known: bool = False) -> Any:  # noqa: ANN401 - JSON values
        """Make one call and give its answer's body; a refused token is refreshed once."""
        answer = await self._send(talk, step, talk.credential)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            answer = await self._send(talk, step, await self._tokens.refreshed(talk.credential))
        body = json_of(answer)
        roots = {"status": answer.status_code, "headers": dict(answer.headers), "body": body}
        failure = talk.spec.api.failure.when
        if of_known and answer.status_code in _GONE:
            raise SubscriptionGone(f"{talk.spec.name} has no such subscription any more.")
        if answer.status_code >= 400 or (failure is not None and failure.holds(roots)):
            raise self._refused(talk, answer.status_code, body)
        return body

    async def _send(self, talk: _Talk, step: CallSpec, credential: Credential) -> httpx.Response:
        spec, row = talk.spec, talk.row
        path = step.path.text_with(talk.roots, path_segment)
        base = endpoints.base_url(spec, row.mode, credential.variables, self._settings)
        headers = {**render_all(spec.api.headers, talk.roots)}
        content = None
        if step.json is not None:
            content = orjson.dumps(step.json.render(talk.roots))
            headers["Content-Type"] = "application/json"
        request = self._client.build_request(
            step.method,
            credential.proof.url(base + path),
            headers=headers,
            content=content,
            timeout=TIMEOUT_S,
        )
        signed = {
            name: request.headers[name] for name in ("content-type",) if name in request.headers
        }
        request.headers.update(
            credential.proof.headers(
                request.method, str(request.url), signed, content, self._clock()
            )
        )
        try:
            return await self._client.send(request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            code = map_http_failure(error)[1]
            text = f"{spec.name} gave no answer ({code}); try again in a while."
            raise DependencyDown(text, code="vendor_unavailable") from error

    def _refused(self, talk: _Talk, status: int, body: object) -> NeighbourhoodError:
        """Say what the vendor said, without what it was told in confidence."""
        spec = talk.spec
        texts = (text.find({"body": body, "status": status}) for text in spec.api.failure.texts)
        said = next((str(text) for text in texts if text not in (ABSENT, None, "")), "")
        token = talk.credential.header_value.reveal().rpartition(" ")[2]
        said = without(said, (token, talk.roots["secret"]))[:_TEXT_CHARS_MAX]
        about = f"HTTP {status}" + (f": {said}" if said else "")
        if status >= 500 or status == _THROTTLED:
            return DependencyDown(
                f"{spec.name} cannot be asked just now ({about}).", code="vendor_unavailable"
            )
        text = f"{spec.name} does not take the subscription ({about})."
        return InvalidInput(text, code="subscription_refused")
