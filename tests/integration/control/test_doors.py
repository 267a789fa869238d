"""Every route of the whole gateway: declared, and open to exactly those whom the table names."""

import re
from typing import get_args

import pytest

from control.core.roles import EVERYTHING, PERMISSIONS, ROLES
from schemas.access import Permission, declared
from tests.integration.control.people_parts import V1

# What takes no credential of ours. Whoever adds one says here why it may be so.
PUBLIC = {
    ("POST", "/api/v1/workspaces"): "makes the first credential; has limits of its own",
    ("POST", "/api/v1/auth/register"): "makes the first credential; has limits of its own",
    ("POST", "/api/v1/auth/login"): "takes a password",
    ("POST", "/api/v1/auth/refresh"): "takes a refresh token",
    ("POST", "/api/v1/auth/logout"): "takes a refresh token or an access token",
    ("GET", "/api/v1/integrations"): "the catalogue",
    ("GET", "/api/v1/integrations/{provider}"): "the catalogue",
    ("POST", "/api/integrations/{provider}/connect"): "customers' browsers, where allowed",
    ("GET", "/oauth/callback/{provider}"): "vendors send browsers here; takes a state",
    ("*", "/webhooks/{workspace_id}/{path:path}"): "takes a signature",
    ("*", "/hooks/{endpoint_id}"): "vendors; takes their signature, or nobody can guess it",
    ("*", "/connect"): "customers' browsers; takes a single-use session",
    ("GET", "/api/v1/statement-keys"): "public keys, for whoever checks a statement",
    ("GET", "/"): "the portal's page",
    ("GET", "/docs"): "documentation",
    ("GET", "/openapi.json"): "documentation",
    ("GET", "/healthz"): "probe",
    ("GET", "/readyz"): "probe",
    ("GET", "/metrics"): "probe",
    ("*", "/assets"): "files of the pages",
}


def walk(routes):
    """Every route, those of included routers too."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from walk(inner.routes)
        else:
            yield route


def methods_of(route):
    return sorted((getattr(route, "methods", None) or {"GET"}) - {"HEAD"})


def is_public(method, path):
    for known, pattern in PUBLIC:
        is_prefix = known == "*" and path.startswith(f"{pattern}/")
        if known in ("*", method) and (path == pattern or is_prefix):
            return True
    return False


def guarded(app):
    """(method, path, need) of each route that takes a credential."""
    for route in walk(app.routes):
        for method in methods_of(route):
            if not is_public(method, route.path):
                yield method, route.path, declared(route)


def address(pattern, workspace):
    filled = pattern.replace("{workspace_id}", workspace).replace("{path:path}", "x")
    return re.sub(r"\{(\w+)\}", lambda found: f"{found[1][:4]}_{'0' * 26}", filled)


async def ask(call, method, path):
    """Ask with a body that is JSON where one may be; what becomes of it does not matter."""
    body = {"json": {}} if method in ("POST", "PUT", "PATCH") else {}
    return await call(method, path, **body)


def is_refused(answer):
    if answer.status_code != 403:
        return False
    return answer.json()["code"] == "missing_permission"


def test_every_route_declares_what_it_needs(gateway):
    known = set(get_args(Permission)) | {"person", "anyone"}
    routes = list(guarded(gateway.app))
    assert len(routes) > 35
    forgot = [(method, path) for method, path, need in routes if need not in known]
    assert not forgot, f"these say nothing of what they need (schemas.access.needs): {forgot}"


def test_public_routes_are_the_ones_that_were_meant(gateway):
    for route in walk(gateway.app.routes):
        if declared(route) == "public":
            for method in methods_of(route):
                assert is_public(method, route.path), f"{method} {route.path} is public: why?"


def test_what_changes_something_needs_more_than_to_read(gateway):
    harmless = {("POST", "/api/v1/workspaces/{workspace_id}/leave")}  # one's own membership only
    for method, path, need in guarded(gateway.app):
        if method != "GET" and need in EVERYTHING and (method, path) not in harmless:
            assert need.endswith(":write"), f"{method} {path} needs only {need}"


def test_needs_stand_in_the_openapi_document(gateway):
    document = gateway.app.openapi()
    for method, path, need in guarded(gateway.app):
        item = document["paths"].get(path, {}).get(method.lower())
        if item is not None:
            assert item["x-permission"] == need


async def test_without_a_credential_nothing_but_the_public_routes_answers(gateway):
    workspace = (await (await gateway.register()).make_workspace())["workspace_id"]
    for method, path, _ in guarded(gateway.app):
        answer = await ask(gateway.client.request, method, address(path, workspace))
        assert answer.status_code == 401, f"{method} {path}: {answer.status_code} {answer.text}"


@pytest.mark.parametrize("role", ROLES)
async def test_role_opens_exactly_what_the_table_says(gateway, role):
    owner, person = await gateway.register(), await gateway.register()
    workspace = (await owner.make_workspace())["workspace_id"]
    headers = {"Nhood-Workspace": workspace}

    async def call(method, path, **more):
        return await person.call(method, path, headers=headers, **more)

    opened = set()
    for method, path, need in guarded(gateway.app):
        if need not in EVERYTHING:
            continue
        await person.join(workspace, role)  # an answer before may have taken it away
        answer = await ask(call, method, address(path, workspace))
        told = f"{role}: {method} {path} needs {need}: {answer.status_code} {answer.text[:200]}"
        assert answer.status_code != 401, told
        assert is_refused(answer) == (need not in PERMISSIONS[role]), told
        opened |= set() if is_refused(answer) else {need}
    assert opened <= PERMISSIONS[role]


async def test_key_with_one_scope_opens_what_needs_it_and_nothing_else(gateway):
    owner = await gateway.register()
    workspace = (await owner.make_workspace())["workspace_id"]
    for scope in sorted(EVERYTHING):
        body = {"name": "narrow", "mode": "live", "scopes": [scope]}
        made = await owner.call("POST", f"{V1}/{workspace}/api-keys", json=body)
        await check_scope(gateway, workspace, scope, made.json()["api_key"])


async def check_scope(gateway, workspace, scope, key):

    async def call(method, path, **more):
        return await gateway.with_key(key, method, path, **more)

    for method, path, need in guarded(gateway.app):
        if need not in EVERYTHING:
            continue
        answer = await ask(call, method, address(path, workspace))
        told = f"{scope}: {method} {path} needs {need}: {answer.status_code} {answer.text[:200]}"
        assert is_refused(answer) == (need != scope), told


async def test_strangers_session_is_told_nothing_of_a_workspace(gateway):
    owner, stranger = await gateway.register(), await gateway.register()
    workspace = (await owner.make_workspace())["workspace_id"]
    headers = {"Nhood-Workspace": workspace}
    for method, path, need in guarded(gateway.app):
        if need not in EVERYTHING:
            continue
        there = address(path, workspace)
        body = {"json": {}} if method in ("POST", "PUT", "PATCH") else {}
        answer = await stranger.call(method, there, headers=headers, **body)
        missing = await stranger.call(
            method,
            address(path, f"ws_{'0' * 26}"),
            headers={"Nhood-Workspace": f"ws_{'0' * 26}"},
            **body,
        )
        for found in (answer, missing):
            assert (found.status_code, found.json()["code"]) == (404, "workspace_not_found"), path


async def test_route_that_declares_nothing_is_open_to_nobody(gateway):
    owner = await gateway.register()
    made = await owner.make_workspace()

    class Route:
        openapi_extra = None

    for token in (owner.tokens["access_token"], made["api_key"]):
        scope = {
            "type": "http",
            "path": f"{V1}/{made['workspace_id']}",
            "headers": [(b"authorization", f"Bearer {token}".encode())],
            "route": Route(),
        }
        with pytest.raises(Exception, match="not open to anybody") as caught:
            await gateway.ports.doors.caller(scope)
        assert caught.value.code == "nothing_declared"


async def test_person_says_workspace_and_mode_by_headers(gateway):
    owner = await gateway.register()
    workspace = (await owner.make_workspace())["workspace_id"]
    alone = (await owner.call("GET", "/api/v1/whoami")).json()
    assert (alone["workspace_id"], alone["person_id"]) == (None, owner.id)
    named = {"Nhood-Workspace": workspace}
    shown = (await owner.call("GET", "/api/v1/whoami", headers=named)).json()
    assert (shown["workspace_id"], shown["mode"]) == (workspace, "test")
    assert set(shown["permissions"]) == EVERYTHING
    live = named | {"Nhood-Mode": "live"}
    assert (await owner.call("GET", "/api/v1/whoami", headers=live)).json()["mode"] == "live"
    wrong = await owner.call("GET", "/api/v1/whoami", headers=named | {"Nhood-Mode": "prod"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "bad_mode")
    body = {"provider": "slack", "user_id": "u1"}
    lost = await owner.call("POST", "/api/v1/integrations/auth-url", json=body)
    assert (lost.status_code, lost.json()["code"]) == (422, "workspace_missing")


async def test_person_works_in_the_mode_they_name(gateway):
    owner = await gateway.register()
    workspace = (await owner.make_workspace())["workspace_id"]
    workflow = {
        "name": "Hello",
        "trigger": {"type": "webhook", "path": "/hello"},
        "steps": [
            {
                "provider": "slack",
                "action": "send_message",
                "config": {"channel": "#x", "text": "hi"},
            }
        ],
    }
    path = f"{V1}/{workspace}/workflows"
    saved = await owner.call("POST", path, json=workflow, headers={"Nhood-Mode": "live"})
    assert saved.status_code == 201, saved.text
    counts = {
        mode: len((await owner.call("GET", path, headers={"Nhood-Mode": mode})).json()["items"])
        for mode in ("live", "test")
    }
    assert counts == {"live": 1, "test": 0}


async def test_answer_kept_for_a_strong_caller_is_not_given_to_a_weaker_one(gateway):
    """An answer that is given again has passed no check: it must not leak to who may do less."""
    owner, viewer = await gateway.register(), await gateway.register()
    workspace = (await owner.make_workspace())["workspace_id"]
    await viewer.join(workspace, "viewer")
    body = {"name": "secret", "mode": "live"}
    key = {"Idempotency-Key": "same"}
    path = f"{V1}/{workspace}/api-keys"
    made = await owner.call("POST", path, json=body, headers=key)
    assert made.status_code == 201
    again = await owner.call("POST", path, json=body, headers=key)
    assert again.json()["api_key"] == made.json()["api_key"]
    leaked = await viewer.call("POST", path, json=body, headers=key)
    assert is_refused(leaked)


async def test_workspace_made_once_by_a_person_whose_token_was_refreshed_between(gateway):
    owner = await gateway.register()
    body, key = {"name": "Acme", "email": owner.email}, {"Idempotency-Key": "sign-up"}
    first = await owner.call("POST", V1, json=body, headers=key)
    gateway.clock.forward(seconds=20)
    await owner.refresh()
    again = await owner.call("POST", V1, json=body, headers=key)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
