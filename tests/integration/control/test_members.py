"""Members and invitations over real HTTP."""

import asyncio
from collections import Counter

import pytest

from control.core.roles import ROLES
from control.core.tokens import INVITATION_S
from tests.integration.control.people_parts import AUTH, PASSWORD, V1, forget_tries

ACCEPT = "/api/v1/invitations/accept"


@pytest.fixture
async def acme(gateway):
    """An owner and the path of their workspace."""
    owner = await gateway.register()
    made = await owner.make_workspace()
    return owner, f"{V1}/{made['workspace_id']}", made


async def _member(gateway, path, role):
    person = await gateway.register()
    await person.join(path.rpartition("/")[2], role)
    return person


async def _roles(owner, path):
    items = (await owner.call("GET", f"{path}/members")).json()["items"]
    return {item["person_id"]: item["role"] for item in items}


async def test_who_makes_a_workspace_owns_it_and_finds_it_again(gateway, acme):
    owner, path, made = acme
    assert await _roles(owner, path) == {owner.id: "owner"}
    mine = (await owner.call("GET", V1)).json()["items"]
    assert [(item["workspace_id"], item["role"]) for item in mine] == [
        (made["workspace_id"], "owner")
    ]
    assert (await (await gateway.register()).call("GET", V1)).json()["items"] == []


async def test_lists_go_on_by_cursor(gateway, acme):
    owner, path, _ = acme
    people = {(await _member(gateway, path, "viewer")).id for _ in range(3)} | {owner.id}
    seen, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await owner.call("GET", f"{path}/members", params=query)).json()
        seen += [item["person_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == 4
    assert set(seen) == people


async def test_invited_person_registers_with_the_token_and_is_a_member(gateway, acme):
    owner, path, _ = acme
    body = {"email": "Grace@Acme.Example", "role": "developer"}
    invited = await owner.call("POST", f"{path}/invitations", json=body)
    assert invited.status_code == 201
    listed = (await owner.call("GET", f"{path}/invitations")).json()["items"]
    assert [item["email"] for item in listed] == ["grace@acme.example"]
    assert invited.json()["token"] not in str(listed)
    grace = await gateway.register(email="grace@acme.example", invitation=invited.json()["token"])
    assert (await _roles(owner, path))[grace.id] == "developer"
    assert (await grace.call("GET", path)).status_code == 200
    assert (await owner.call("GET", f"{path}/invitations")).json()["items"] == []


async def test_invited_person_who_is_registered_accepts_once(gateway, acme):
    owner, path, _ = acme
    grace = await gateway.register()
    body = {"email": grace.email, "role": "admin"}
    token = (await owner.call("POST", f"{path}/invitations", json=body)).json()["token"]
    answers = await asyncio.gather(
        *(grace.call("POST", ACCEPT, json={"token": token}) for _ in range(4))
    )
    assert Counter(answer.status_code for answer in answers) == {200: 1, 404: 3}
    assert (await _roles(owner, path))[grace.id] == "admin"
    more = (await owner.call("POST", f"{path}/invitations", json=body)).json()["token"]
    again = await grace.call("POST", ACCEPT, json={"token": more})
    assert (again.status_code, again.json()["code"]) == (409, "already_member")


async def test_invitation_is_for_one_address_and_7_days(gateway, acme):
    owner, path, _ = acme
    grace, eve = await gateway.register(), await gateway.register()
    body = {"email": grace.email, "role": "viewer"}
    token = (await owner.call("POST", f"{path}/invitations", json=body)).json()["token"]
    stolen = await eve.call("POST", ACCEPT, json={"token": token})
    assert (stolen.status_code, stolen.json()["code"]) == (403, "invitation_for_another")
    for nonsense in ("", "nhood_inv_" + "x" * 43):
        answer = await grace.call("POST", ACCEPT, json={"token": nonsense})
        assert (answer.status_code, answer.json()["code"]) == (404, "invitation_not_found")
    gateway.clock.forward(seconds=INVITATION_S + 1)
    fresh = (await gateway.login(grace.email)).json()["access_token"]
    late = await gateway.with_key(fresh, "POST", ACCEPT, json={"token": token})
    assert (late.status_code, late.json()["code"]) == (404, "invitation_not_found")


async def test_withdrawn_invitation_is_good_no_more(gateway, acme):
    owner, path, _ = acme
    grace = await gateway.register()
    body = {"email": grace.email, "role": "viewer"}
    made = (await owner.call("POST", f"{path}/invitations", json=body)).json()
    one = f"{path}/invitations/{made['invitation_id']}"
    assert (await owner.call("DELETE", one)).status_code == 204
    assert (await owner.call("DELETE", one)).json()["code"] == "invitation_not_found"
    answer = await grace.call("POST", ACCEPT, json={"token": made["token"]})
    assert answer.json()["code"] == "invitation_not_found"


async def test_forged_invitation_tells_nothing_of_who_is_registered(gateway):
    ada = await gateway.register()
    for email in (ada.email, "nobody@acme.example"):
        body = {"email": email, "password": PASSWORD, "invitation": "nhood_inv_" + "x" * 43}
        answer = await gateway.client.post(f"{AUTH}/register", json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "invitation_not_found")


@pytest.mark.parametrize("role", ROLES)
async def test_admin_deals_with_everybody_but_owners(gateway, acme, role):
    _, path, _ = acme
    admin = await _member(gateway, path, "admin")
    someone = await _member(gateway, path, role)
    expected = 403 if role == "owner" else 200
    invited = await admin.call(
        "POST", f"{path}/invitations", json={"email": "x@y.example", "role": role}
    )
    assert invited.status_code == (403 if role == "owner" else 201)
    one = f"{path}/members/{someone.id}"
    assert (await admin.call("PATCH", one, json={"role": "viewer"})).status_code == expected
    promoted = await admin.call("PATCH", one, json={"role": "owner"})
    assert (promoted.status_code, promoted.json()["code"]) == (403, "beyond_own_rights")
    removed = await admin.call("DELETE", one)
    assert removed.status_code == (403 if role == "owner" else 204)


async def test_last_owner_cannot_go_in_any_way(gateway, acme):
    owner, path, _ = acme
    one = f"{path}/members/{owner.id}"
    for answer in (
        await owner.call("PATCH", one, json={"role": "admin"}),
        await owner.call("DELETE", one),
        await owner.call("POST", f"{path}/leave"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "last_owner")
    assert (await owner.call("PATCH", one, json={"role": "owner"})).status_code == 200


async def test_two_owners_who_go_at_once_leave_one(gateway, acme):
    owner, path, _ = acme
    second = await _member(gateway, path, "owner")
    answers = await asyncio.gather(
        owner.call("POST", f"{path}/leave"), second.call("POST", f"{path}/leave")
    )
    assert sorted(answer.status_code for answer in answers) == [204, 409]


async def test_change_of_role_and_removal_hold_at_once(gateway, acme):
    owner, path, _ = acme
    grace = await _member(gateway, path, "admin")
    change = {"name": "Acme Ltd"}
    assert (await grace.call("PATCH", path, json=change)).status_code == 200
    one = f"{path}/members/{grace.id}"
    await owner.call("PATCH", one, json={"role": "viewer"})
    refused = await grace.call("PATCH", path, json=change)
    assert (refused.status_code, refused.json()["code"]) == (403, "missing_permission")
    assert "workspace:write" in refused.json()["detail"]
    assert "admin or owner" in refused.json()["detail"]
    await owner.call("DELETE", one)
    assert (await grace.call("GET", path)).json()["code"] == "workspace_not_found"
    assert (await owner.call("DELETE", one)).json()["code"] == "member_not_found"


async def test_everybody_may_leave(gateway, acme):
    _, path, _ = acme
    viewer = await _member(gateway, path, "viewer")
    assert (await viewer.call("POST", f"{path}/leave")).status_code == 204
    assert (await viewer.call("GET", path)).status_code == 404


async def test_viewer_sees_no_keys(gateway, acme):
    owner, path, _ = acme
    viewer = await _member(gateway, path, "viewer")
    assert (await viewer.call("GET", path)).json()["keys"] == []
    assert len((await owner.call("GET", path)).json()["keys"]) == 2


async def test_workspace_without_members_gets_its_owner_by_its_live_key(gateway, stack):
    await forget_tries(stack.valkey)
    made = (await gateway.client.post(V1, json={"name": "Old", "email": "dev@acme.example"})).json()
    path = f"{V1}/{made['workspace_id']}"
    grace = await gateway.register()
    body = {"email": grace.email, "role": "owner"}
    test = await gateway.with_key(made["test_api_key"], "POST", f"{path}/invitations", json=body)
    assert (test.status_code, test.json()["code"]) == (403, "missing_permission")
    live = await gateway.with_key(made["api_key"], "POST", f"{path}/invitations", json=body)
    token = live.json()["token"]
    assert (await grace.call("POST", ACCEPT, json={"token": token})).json()["role"] == "owner"
    assert await _roles(grace, path) == {grace.id: "owner"}
