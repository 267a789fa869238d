"""Workspaces, their API keys and webhook secrets."""

import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from control.api.api_keys import OVERLAP_DEFAULT_H, OVERLAP_MAX_H, KeyAnswer, require_mode
from control.api.auth import may_sign_up
from control.api.shapes import (
    Body,
    Email,
    Member,
    Name,
    PortsDep,
    Text,
    failures,
    moment,
)
from control.core.access import (
    KEY_BYTES,
    MODES,
    WEBHOOK_SECRET_BYTES,
    Mode,
    NewKey,
    bearer_token,
    new_api_key,
    new_webhook_secret,
)
from control.core.cursor import LIMIT_MAX
from control.core.quota import PARK_HOURS_MAX, check_settings, effective
from control.core.roles import ALL, of_scopes, require_grantable
from control.core.tokens import kid_of
from control.doors import Person
from control.ports import Ports
from control.store import keys, members, workspaces
from control.store.query import Borrowed, Row
from schemas.access import Caller, needs
from schemas.errors import NotFound
from schemas.events import rfc3339
from wire.database import connection

_URL_MAX: Final = 2_000
_DOMAINS_MAX: Final = 20
# More live secrets at a time help nobody, and each costs ingest a comparison.
_SECRETS_MAX: Final = 5
_US_PER_HOUR: Final = 3_600_000_000

Plan = Literal["free", "professional", "enterprise"]


def _http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("https", "http") and bool(parts.hostname)
        usable = usable and parts.username is None and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be an address such as https://example.com/hooks, without a password")
    return text


WebhookUrl = Annotated[Text, StringConstraints(max_length=_URL_MAX), AfterValidator(_http_url)]
Domain = Annotated[
    str,
    StringConstraints(
        to_lower=True,
        max_length=253,
        pattern=r"(?i)^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z][a-z0-9-]{0,61}[a-z0-9]$",
    ),
]


class SettingsBody(Body):
    """What a workspace chooses; null: as the plan says."""

    allow_client_integrations: bool | None = Field(
        None, description="Whether customers' browsers may begin a connection without an API key."
    )
    max_workflows: Annotated[int, Field(ge=1)] | None = None
    max_executions_per_month: Annotated[int, Field(ge=1)] | None = None
    retention_days: Annotated[int, Field(ge=1)] | None = None
    park_for_hours: Annotated[int, Field(ge=0, le=PARK_HOURS_MAX)] | None = Field(
        None,
        description="How long steps wait for a customer to connect again, from when they were asked"
        " for, before they fail; 0: they fail at once.",
    )
    custom_domains: Annotated[list[Domain], Field(max_length=_DOMAINS_MAX)] | None = Field(
        None, description="Hosts that a connection's return_url may lead to.", examples=[["a.dev"]]
    )


class WorkspaceBody(Body):
    """A new workspace."""

    name: Name = Field(examples=["Acme"])
    email: Email = Field(examples=["dev@acme.example"])
    plan: Plan = "free"
    webhook_url: WebhookUrl | None = None
    settings: SettingsBody | None = None


class WorkspaceChange(Body):
    """What is to change; what is left out stays."""

    name: Name | None = None
    email: Email | None = None
    webhook_url: WebhookUrl | None = Field(None, description="null takes it away.")
    settings: SettingsBody | None = Field(None, description="Only the fields that are there.")

    @model_validator(mode="after")
    def _not_null(self) -> Self:
        for name in ("name", "email", "settings"):
            if name in self.model_fields_set and getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null; leave it out to keep it")
        return self


class RotateKey(Body):
    """Which key is to be replaced."""

    mode: Mode
    overlap_hours: Annotated[int, Field(ge=0, le=OVERLAP_MAX_H)] = Field(
        OVERLAP_DEFAULT_H, description="How long the old key goes on working."
    )


class RotateSecret(Body):
    """How long the old webhook secret stays good."""

    overlap_hours: Annotated[int, Field(ge=0, le=OVERLAP_MAX_H)] = OVERLAP_DEFAULT_H


class NewWorkspace(BaseModel):
    """A workspace was made. The keys and the secret are shown this once."""

    workspace_id: str
    api_key: str = Field(examples=["nhood_sk_live_…"])
    test_api_key: str = Field(examples=["nhood_sk_test_…"])
    webhook_secret: str = Field(examples=["whsec_…"])


class SettingsAnswer(BaseModel):
    """The settings in force."""

    allow_client_integrations: bool
    max_workflows: int
    max_executions_per_month: int
    retention_days: int
    park_for_hours: int
    custom_domains: list[str]


class WorkspaceAnswer(BaseModel):
    """A workspace."""

    workspace_id: str
    name: str
    email: str
    plan: Plan
    webhook_url: str | None
    settings: SettingsAnswer
    keys: list[KeyAnswer]
    created_at: datetime
    updated_at: datetime


class WhoAnswer(BaseModel):
    """Whose key or log-in this is; null: a log-in that names no workspace."""

    workspace_id: str | None
    workspace_name: str | None
    mode: Mode | None
    key_id: str = Field(description="`key_…`, or `ses_…` of a log-in.")
    person_id: str | None = Field(description="null: a program.")
    permissions: list[str] = Field(description="What may be done in the workspace.")


class NewKeyAnswer(BaseModel):
    """The new key, shown this once."""

    key_id: str
    mode: Mode
    api_key: str
    old_keys_expire_at: datetime


class NewSecretAnswer(BaseModel):
    """The new secret, shown this once."""

    webhook_secret: str
    old_secrets_expire_at: datetime


async def create_workspace(
    body: WorkspaceBody, ports: PortsDep, request: Request, response: Response
) -> NewWorkspace:
    """Make a workspace with a live key, a test key and a webhook secret.

    Whoever is logged in becomes its owner.
    """
    person = await _signs_up(ports, request)
    chosen = _given(body.settings)
    check_settings(body.plan, chosen)
    workspace = ports.mint("ws")
    made = {mode: new_api_key(mode, os.urandom(KEY_BYTES)) for mode in MODES}
    secret = new_webhook_secret(os.urandom(WEBHOOK_SECRET_BYTES))
    async with connection(ports.pool) as on:
        values = body.model_dump(include={"name", "email", "plan", "webhook_url"})
        await workspaces.insert(on, workspace, values | {"settings": chosen})
        for key in made.values():
            by = person.person_id if person else None
            await keys.insert(on, workspace, ports.mint("key"), key, created_by=by)
        if person is not None:
            await members.add(on, workspace, person.person_id, "owner")
        sealed = await ports.sealer.seal_webhook_secret(workspace, secret, on)
        secrets = [{"ciphertext": sealed, "expires_at": None}]
        await workspaces.set_webhook_secrets(on, workspace, secrets)
    ports.sessions.forget()
    response.headers["Location"] = f"/api/v1/workspaces/{workspace}"
    return NewWorkspace(
        workspace_id=workspace,
        api_key=made["live"].text.reveal(),
        test_api_key=made["test"].text.reveal(),
        webhook_secret=secret.reveal(),
    )


async def get_workspace(caller: Member, ports: PortsDep) -> WorkspaceAnswer:
    """Show the workspace, its settings in force and its keys."""
    async with connection(ports.pool) as on:
        return await _show(on, await _found(on, caller.workspace_id), caller)


async def who_am_i(request: Request, ports: PortsDep) -> WhoAnswer:
    """Tell whose API key or log-in this is, and what it may do."""
    caller = await ports.doors.who(request.scope)
    if isinstance(caller, Person):
        return WhoAnswer(
            workspace_id=None,
            workspace_name=None,
            mode=None,
            key_id=caller.session_id,
            person_id=caller.person_id,
            permissions=[],
        )
    async with connection(ports.pool) as on:
        found = await _found(on, caller.workspace_id)
    return WhoAnswer(
        workspace_id=caller.workspace_id,
        workspace_name=found["name"],
        mode="live" if caller.mode == "live" else "test",
        key_id=caller.key_id,
        person_id=caller.person_id,
        permissions=sorted(caller.permissions),
    )


async def update_workspace(
    body: WorkspaceChange, caller: Member, ports: PortsDep
) -> WorkspaceAnswer:
    """Change what is given, keep the rest."""
    change = body.model_dump(include=body.model_fields_set - {"settings"})
    async with connection(ports.pool) as on:
        there = await _found(on, caller.workspace_id, lock=True)
        if body.settings is not None:
            chosen = {**there["settings"], **_given(body.settings)}
            chosen = {name: value for name, value in chosen.items() if value is not None}
            check_settings(there["plan"], chosen)
            change["settings"] = chosen
        await workspaces.update(on, caller.workspace_id, {**there, **change})
        return await _show(on, await _found(on, caller.workspace_id), caller)


async def rotate_key(body: RotateKey, caller: Member, ports: PortsDep) -> NewKeyAnswer:
    """Make a new unrestricted key; the old unrestricted ones of this mode work on for the overlap.

    Keys with scopes of their own stay as they are; each is rotated by itself.
    """
    require_grantable(caller, of_scopes([ALL], body.mode), "unrestricted keys")
    require_mode(caller, body.mode)
    key: NewKey = new_api_key(body.mode, os.urandom(KEY_BYTES))
    key_id = ports.mint("key")
    ends_at = moment(ports.clock()) + timedelta(hours=body.overlap_hours)
    async with connection(ports.pool) as on:
        await _found(on, caller.workspace_id, lock=True)
        await keys.expire_full(on, caller.workspace_id, body.mode, ends_at)
        by = caller.person_id or caller.key_id
        await keys.insert(on, caller.workspace_id, key_id, key, created_by=by)
    ports.keys.forget()
    return NewKeyAnswer(
        key_id=key_id, mode=body.mode, api_key=key.text.reveal(), old_keys_expire_at=ends_at
    )


async def rotate_webhook_secret(
    caller: Member, ports: PortsDep, body: RotateSecret | None = None
) -> NewSecretAnswer:
    """Make a new webhook secret; the old one is accepted for the overlap."""
    overlap = (body or RotateSecret()).overlap_hours
    secret = new_webhook_secret(os.urandom(WEBHOOK_SECRET_BYTES))
    ends_us = ports.clock() + overlap * _US_PER_HOUR
    async with connection(ports.pool) as on:
        old = await workspaces.webhook_secrets(on, caller.workspace_id)
        sealed = await ports.sealer.seal_webhook_secret(caller.workspace_id, secret, on)
        secrets = [{"ciphertext": sealed, "expires_at": None}, *_until(old, ends_us, ports)]
        await workspaces.set_webhook_secrets(on, caller.workspace_id, secrets[:_SECRETS_MAX])
    return NewSecretAnswer(webhook_secret=secret.reveal(), old_secrets_expire_at=moment(ends_us))


def _until(secrets: list[dict[str, Any]], ends_us: int, ports: Ports) -> list[dict[str, Any]]:
    """Let secrets end by a time, and leave out those that ended; RFC 3339 in UTC sorts as text."""
    ends, now = rfc3339(ends_us), rfc3339(ports.clock())
    shortened = [{**item, "expires_at": min(item["expires_at"] or ends, ends)} for item in secrets]
    return [item for item in shortened if item["expires_at"] > now]


async def _signs_up(ports: Ports, request: Request) -> Person | None:
    """Give who is logged in and makes a workspace; without a log-in, only where that may be.

    Raises:
        Unauthenticated: The access token is not good, or the operator's is missing or wrong.
        Forbidden: Production, and there is no token that could be sent.
        RateLimited: This address made too many.
    """
    token = bearer_token(request.headers.get("authorization"))
    if token is not None and kid_of(token) is not None:
        return await ports.doors.person(request.scope)
    await may_sign_up(ports, request)
    return None


def _given(settings: SettingsBody | None) -> dict[str, Any]:
    return {} if settings is None else settings.model_dump(exclude_unset=True)


async def _found(on: Borrowed, workspace: str, *, lock: bool = False) -> Row:
    found = await workspaces.get(on, workspace, lock=lock)
    if found is None:
        raise NotFound("The workspace is gone.", code="workspace_not_found")
    return found


async def _show(on: Borrowed, found: Mapping[str, Any], caller: Caller) -> WorkspaceAnswer:
    sees_keys = "keys:read" in caller.permissions
    shown = await keys.page(on, found["id"], None, LIMIT_MAX) if sees_keys else []
    return WorkspaceAnswer(
        **{name: found[name] for name in ("name", "email", "plan", "webhook_url")},
        workspace_id=found["id"],
        settings=SettingsAnswer(**effective(found["plan"], found["settings"])),
        keys=[KeyAnswer(**key) for key in shown],
        created_at=found["created_at"],
        updated_at=found["updated_at"],
    )


def add_routes(router: APIRouter) -> None:
    """Add this noun's routes."""
    one = "/api/v1/workspaces/{workspace_id}"
    tags: list[Any] = ["workspaces"]
    router.add_api_route(
        "/api/v1/workspaces",
        create_workspace,
        methods=["POST"],
        status_code=201,
        tags=tags,
        summary="Make a workspace",
        openapi_extra=needs("public"),
        responses=failures(401, 403, 422, 429),
    )
    router.add_api_route(
        "/api/v1/whoami",
        who_am_i,
        methods=["GET"],
        tags=tags,
        summary="Tell whose key this is",
        openapi_extra=needs("anyone"),
        responses=failures(401),
    )
    router.add_api_route(
        one,
        get_workspace,
        methods=["GET"],
        tags=tags,
        summary="Get the workspace",
        openapi_extra=needs("workspace:read"),
        responses=failures(401, 404),
    )
    router.add_api_route(
        one,
        update_workspace,
        methods=["PATCH"],
        tags=tags,
        summary="Change the workspace",
        openapi_extra=needs("workspace:write"),
        responses=failures(401, 404, 422),
    )
    router.add_api_route(
        f"{one}/keys/rotate",
        rotate_key,
        methods=["POST"],
        status_code=201,
        tags=tags,
        summary="Replace an API key",
        openapi_extra=needs("keys:write"),
        responses=failures(401, 404, 422),
    )
    router.add_api_route(
        f"{one}/webhook-secret/rotate",
        rotate_webhook_secret,
        methods=["POST"],
        status_code=201,
        tags=tags,
        summary="Replace the webhook secret",
        openapi_extra=needs("workspace:write"),
        responses=failures(401, 404, 422),
    )
