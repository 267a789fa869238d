"""A workspace's own OAuth apps over the API.

PUT, GET, DELETE /api/v1/workspaces/{ws}/integrations/{provider}/credentials
"""

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends

from schemas.access import Caller, needs
from schemas.errors import Forbidden, InvalidInput, Problem
from schemas.provider import ProviderSpec
from schemas.settings import Secret
from token_vault.apps import OwnApp, no_own_app
from token_vault.core.addresses import web_problems
from token_vault.core.grants import App
from token_vault.oauth import check_scopes
from token_vault.shapes import PROVIDER, OwnAppAnswer, OwnAppBody
from token_vault.vault import Vault
from wire.clock import now

_PLACE = "/api/v1/workspaces/{workspace_id}/integrations/{provider}/credentials"
_log = structlog.get_logger("vault")


def add_apps(router: APIRouter, vault: Vault, caller_of: Any) -> None:  # noqa: ANN401
    """Add the routes."""

    @router.put(
        _PLACE,
        tags=["connections"],
        summary="Set the workspace's own OAuth app",
        openapi_extra=needs("integrations:write"),
    )
    async def put(
        workspace_id: str,
        provider: Annotated[str, PROVIDER],
        body: OwnAppBody,
        caller: Annotated[Caller, Depends(caller_of)],
    ) -> OwnAppAnswer:
        workspace = caller.require(workspace_id)
        _require_live(caller)
        spec = _spec(vault, provider)
        _check(vault, spec, body)
        made = await vault.apps.put(
            workspace,
            spec,
            App(body.client_id, Secret(body.client_secret or "")),
            scopes=body.scopes,
            redirect_uri=body.redirect_uri,
            by=caller.key_id,
            at=now(),
        )
        _log.info("vault.own_app_set", workspace=workspace, provider=provider, by=caller.key_id)
        return _show(vault, made)

    @router.get(
        _PLACE,
        tags=["connections"],
        summary="See the workspace's own OAuth app",
        openapi_extra=needs("integrations:read"),
    )
    async def get(
        workspace_id: str,
        provider: Annotated[str, PROVIDER],
        caller: Annotated[Caller, Depends(caller_of)],
    ) -> OwnAppAnswer:
        workspace, spec = caller.require(workspace_id), _spec(vault, provider)
        found = await vault.apps.look(workspace, spec)
        if found is None:
            raise no_own_app(spec)
        return _show(vault, found)

    @router.delete(
        _PLACE,
        status_code=204,
        tags=["connections"],
        summary="Forget the workspace's own OAuth app",
        openapi_extra=needs("integrations:write"),
    )
    async def delete(
        workspace_id: str,
        provider: Annotated[str, PROVIDER],
        caller: Annotated[Caller, Depends(caller_of)],
    ) -> None:
        workspace = caller.require(workspace_id)
        _require_live(caller)
        await vault.apps.forget(workspace, _spec(vault, provider))
        _log.info("vault.own_app_gone", workspace=workspace, provider=provider, by=caller.key_id)


def _require_live(caller: Caller) -> None:
    if caller.mode != "live":
        raise Forbidden(
            "OAuth apps are for live connections; a test key cannot change them (test mode has the"
            " sandbox's).",
            code="beyond_own_mode",
        )


def _spec(vault: Vault, provider: str) -> ProviderSpec:
    return vault.catalogue.get(provider).connected_by("oauth2")


def _check(vault: Vault, spec: ProviderSpec, body: OwnAppBody) -> None:
    if spec.auth.authorize_url is None:
        raise InvalidInput(f"{spec.name} is not connected by OAuth.", code="no_oauth")
    urls = {"redirect_uri": body.redirect_uri}
    problems = web_problems(urls, is_production=vault.settings.is_production)
    problems += check_scopes(body.scopes)
    secret = body.client_secret
    if secret is None and spec.auth.client_auth != "none":
        mend = f"{spec.name} takes no app without its secret."
        problems.append(Problem("client_secret", "is missing", mend, "missing"))
    if secret is not None and (not secret.isprintable() or secret != secret.strip()):
        mend = "Copy it anew, without what stands around it."
        problems.append(Problem("client_secret", "cannot be a secret", mend, "bad_value"))
    if problems:
        first = problems[0]
        raise InvalidInput(f"{first.place} {first.message}.", problems=problems)


def _show(vault: Vault, app: OwnApp) -> OwnAppAnswer:
    ours = f"{vault.settings.gateway_url}/oauth/callback/{app.provider}"
    return OwnAppAnswer(
        provider=app.provider,
        client_id=app.client_id,
        has_secret=app.has_secret,
        scopes=list(app.scopes) if app.scopes is not None else None,
        redirect_uri=app.redirect_uri or ours,
        set_by=app.set_by,
        set_at=app.set_at,
    )
