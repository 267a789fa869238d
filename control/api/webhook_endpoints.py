"""Addresses for vendors' webhooks: made, listed, given a secret, deleted."""

import asyncio
import base64
import secrets
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Path
from pydantic import BaseModel, Field, StringConstraints

from control.api.shapes import Body, Member, PortsDep, ProviderPageDep, Text, failures
from control.core.cursor import read_cursor, write_cursor
from control.ports import Ports
from schemas.access import needs
from schemas.errors import InvalidInput, Problem
from schemas.registration import RegistrationSpec, registration_of
from schemas.settings import Secret
from schemas.triggers import TriggerSpec, triggers_of
from token_vault.hooks import OVERLAP_H, HookRow

_TAGS: Final[list[Any]] = ["vendors' webhooks"]
SECRET_MAX: Final = 4_096
PARAMS_BYTES_MAX: Final = 16_384
_URLSAFE: Final = str.maketrans("+/", "-_", "=")
_Id = Annotated[str, Path(max_length=64, examples=["hook_01jd3k5m7n9p1q3r5s7t9v1w3x"])]
_SecretText = Annotated[Text, StringConstraints(min_length=1, max_length=SECRET_MAX)]


class EndpointBody(Body):
    """A new address."""

    provider: str = Field(max_length=64, examples=["github"])
    label: Annotated[Text, StringConstraints(max_length=200)] = ""
    connection_id: str | None = Field(
        None,
        max_length=64,
        description="Whose account its events are of; null: each event's account tells.",
    )
    secret: _SecretText | None = Field(
        None, description="What the vendor signs with. null: we make one where the vendor takes it."
    )
    params: dict[str, Any] | None = Field(
        None,
        description="Lets the platform subscribe at the vendor, with the connection's token, and"
        " says what to: what `registers_with` names. null: the address is entered by hand.",
        examples=[{"owner": "acme", "repo": "shop", "events": ["issues"]}],
    )


class SecretBody(Body):
    """Another secret."""

    secret: _SecretText
    overlap_hours: Annotated[int, Field(ge=0, le=7 * 24)] = OVERLAP_H


class EndpointAnswer(BaseModel):
    """An address, without its secret."""

    endpoint_id: str
    provider: str
    mode: str
    label: str
    connection_id: str | None
    url: str = Field(description="Enter this at the vendor.")
    has_secret: bool
    old_secret_until: datetime | None = Field(description="Until then the old secret is good too.")
    secret_from: str | None = Field(
        description="Who makes the secret: `app` or `customer`: it stands in the vendor's settings;"
        " `subscription`: it is given at the registration; null: there is none."
    )
    how: str = Field(description="How the address is entered at the vendor.")
    registers_with: list[str] | None = Field(
        description="The `params` with which the platform subscribes by itself; null: it cannot."
    )
    params: dict[str, Any] | None
    subscription: Literal["by_hand", "pending", "active", "failing"] = Field(
        description="`failing`: it could not be renewed (`subscription_error`) and is tried again."
    )
    subscription_error: str | None
    renews_at: datetime | None
    events: list[str]
    created_at: datetime
    updated_at: datetime


class NewEndpointAnswer(EndpointAnswer):
    """A new address; the secret is shown this once, where we made it."""

    secret: str | None


class EndpointPage(BaseModel):
    """Addresses."""

    items: list[EndpointAnswer]
    next_cursor: str | None


async def create_endpoint(body: EndpointBody, caller: Member, ports: PortsDep) -> NewEndpointAnswer:
    """Make an address for one vendor's webhooks; with `params` it is subscribed at the vendor."""
    spec = _spec(ports, body.provider)
    plan = _plan(ports, body)
    secret, shown = body.secret, None
    told = plan is not None and plan.tells_secret
    if secret is None and spec.signed_by == "subscription" and not told:
        secret = _new_secret(spec)
        shown = secret if plan is None else None  # nobody has to enter it
    row = await ports.hooks.create(
        caller.workspace_id,
        caller.mode,
        body.provider,
        body.label,
        body.connection_id,
        Secret(secret) if secret is not None else None,
        body.params,
    )
    if plan is not None:
        try:
            await ports.subscriptions.create(row)
        except BaseException:
            # Also where the caller went: what the vendor may have made leads nowhere.
            await asyncio.shield(ports.hooks.delete(caller.workspace_id, caller.mode, row.id))
            raise
        row = await ports.hooks.get(caller.workspace_id, caller.mode, row.id)
    return NewEndpointAnswer(**_show(row, ports), secret=shown)


async def list_endpoints(
    caller: Member,
    ports: PortsDep,
    page: ProviderPageDep,
) -> EndpointPage:
    """List the addresses of the key's mode."""
    kind, filters = "webhook_endpoints", [caller.workspace_id, caller.mode, page.provider]
    after = read_cursor(kind, filters, page.cursor)[1] if page.cursor else ""
    rows = await ports.hooks.page(
        caller.workspace_id, caller.mode, page.provider, after, page.limit + 1
    )
    shown = rows[: page.limit]
    more = write_cursor(kind, filters, (0, shown[-1].id)) if len(rows) > page.limit else None
    return EndpointPage(
        items=[EndpointAnswer(**_show(row, ports)) for row in shown], next_cursor=more
    )


async def get_endpoint(endpoint_id: _Id, caller: Member, ports: PortsDep) -> EndpointAnswer:
    """Show an address, without its secret."""
    row = await ports.hooks.get(caller.workspace_id, caller.mode, endpoint_id)
    return EndpointAnswer(**_show(row, ports))


async def set_secret(
    endpoint_id: _Id, body: SecretBody, caller: Member, ports: PortsDep
) -> EndpointAnswer:
    """Tell the secret that the vendor signs with; the one before stays good for a while."""
    hooks = ports.hooks
    await hooks.get(caller.workspace_id, caller.mode, endpoint_id)
    await hooks.set_secret(
        caller.workspace_id, endpoint_id, Secret(body.secret), body.overlap_hours
    )
    row = await hooks.get(caller.workspace_id, caller.mode, endpoint_id)
    return EndpointAnswer(**_show(row, ports))


async def delete_endpoint(endpoint_id: _Id, caller: Member, ports: PortsDep) -> None:
    """Delete an address and its subscription; what the vendor still sends there gets 404."""
    row = await ports.hooks.get(caller.workspace_id, caller.mode, endpoint_id)
    await ports.subscriptions.remove(row)
    await ports.hooks.delete(caller.workspace_id, caller.mode, endpoint_id)


def _new_secret(spec: TriggerSpec) -> str:
    """Make a secret in the form in which its vendor's signatures take it."""
    kept = secrets.token_bytes(32)
    form = next((one.key for one in spec.signatures if not one.keyless), "text")
    if form == "hex":
        return kept.hex()
    text = base64.b64encode(kept).decode()
    if form == "text":
        return text.translate(_URLSAFE)
    return f"whsec_{text}" if form == "whsec" else text


def _spec(ports: Ports, provider: str) -> TriggerSpec:
    spec = ports.catalogue.get(provider)
    found = triggers_of(spec)
    if found is None or not found.receivable:
        problem = Problem(
            "provider", f"{spec.name} sends no webhooks that can be taken", "", "no_triggers"
        )
        raise InvalidInput(f"{problem.message}.", problems=[problem], code="no_triggers")
    return found


def _plan(ports: Ports, body: EndpointBody) -> RegistrationSpec | None:
    """Give how to subscribe; None where that is done by hand."""
    if body.params is None:
        return None
    if body.connection_id is None:
        problem = Problem("connection_id", "params need a connection_id", "", "required")
        text = "The platform subscribes with a connection's token: say which by connection_id."
        raise InvalidInput(text, problems=[problem], code="invalid_input")
    if len(orjson.dumps(body.params)) > PARAMS_BYTES_MAX:
        raise InvalidInput(f"params may have {PARAMS_BYTES_MAX} bytes.", code="too_long")
    return ports.subscriptions.plan(body.provider, body.params)


def _state(row: HookRow) -> str:
    if row.params is None:
        return "by_hand"
    if row.subscription is None:
        return "pending"
    return "failing" if row.renew_error is not None else "active"


def _show(row: HookRow, ports: Ports) -> dict[str, Any]:
    spec = _spec(ports, row.provider)
    registers = registration_of(ports.catalogue.get(row.provider))
    return {
        "endpoint_id": row.id,
        "provider": row.provider,
        "mode": row.mode,
        "label": row.label,
        "connection_id": row.connection_id,
        "url": f"{ports.settings.gateway_url}/hooks/{row.id}",
        "has_secret": row.secret is not None,
        "old_secret_until": row.old_until if row.old_secret is not None else None,
        "secret_from": spec.signed_by,
        "how": spec.register,
        "registers_with": list(registers.params) if registers is not None else None,
        "params": row.params,
        "subscription": _state(row),
        "subscription_error": row.renew_error,
        "renews_at": row.renew_at,
        "events": list(spec.events),
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def add_routes(router: APIRouter) -> None:
    """Add this noun's routes."""
    many = "/api/v1/workspaces/{workspace_id}/webhook-endpoints"
    one = f"{many}/{{endpoint_id}}"
    router.add_api_route(
        many,
        create_endpoint,
        methods=["POST"],
        status_code=201,
        tags=_TAGS,
        summary="Make an address for a vendor's webhooks",
        openapi_extra=needs("integrations:write"),
        responses=failures(401, 403, 404, 409, 422, 503),
    )
    router.add_api_route(
        many,
        list_endpoints,
        methods=["GET"],
        tags=_TAGS,
        summary="List addresses for vendors' webhooks",
        openapi_extra=needs("integrations:read"),
        responses=failures(401, 404, 422),
    )
    router.add_api_route(
        one,
        get_endpoint,
        methods=["GET"],
        tags=_TAGS,
        summary="Get an address for a vendor's webhooks",
        openapi_extra=needs("integrations:read"),
        responses=failures(401, 404),
    )
    router.add_api_route(
        f"{one}/secret",
        set_secret,
        methods=["PUT"],
        tags=_TAGS,
        summary="Tell the secret that the vendor signs with",
        openapi_extra=needs("integrations:write"),
        responses=failures(401, 403, 404, 422),
    )
    router.add_api_route(
        one,
        delete_endpoint,
        methods=["DELETE"],
        status_code=204,
        tags=_TAGS,
        summary="Delete an address for a vendor's webhooks",
        openapi_extra=needs("integrations:write"),
        responses=failures(401, 403, 404),
    )
