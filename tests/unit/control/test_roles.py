"""Who may do what: the table itself, scopes, and that nobody gives away more than they hold."""

from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.roles import (
    EVERYTHING,
    PERMISSIONS,
    ROLES,
    check_scopes,
    of_role,
    of_scopes,
    require,
    require_grantable,
)
from schemas.access import Caller, Permission
from schemas.errors import Forbidden, InvalidInput
from schemas.ids import WorkspaceId

# Written out a second time on purpose: a change of the table must be meant.
TABLE = {
    "workspace:read": "owner admin developer viewer",
    "workspace:write": "owner admin",
    "members:read": "owner admin developer viewer",
    "members:write": "owner admin",
    "owners:write": "owner",
    "keys:read": "owner admin developer",
    "keys:write": "owner admin",
    "workflows:read": "owner admin developer viewer",
    "workflows:write": "owner admin developer",
    "executions:read": "owner admin developer viewer",
    "executions:write": "owner admin developer",
    "events:read": "owner admin developer viewer",
    "events:write": "owner admin developer",
    "connections:read": "owner admin developer viewer",
    "connections:write": "owner admin developer",
    "integrations:read": "owner admin developer viewer",
    "integrations:write": "owner admin",
    "vault:read": "owner admin",
    "vault:write": "owner admin",
    "audit:read": "owner admin developer",
    "proxy:write": "owner admin developer",
    "files:read": "owner admin developer viewer",
    "files:write": "owner admin developer",
}
scopes = st.lists(
    st.sampled_from([*sorted(EVERYTHING), "*", "workflows:*", "keys:*", "nonsense", "x:y", ""])
)


def caller(permissions, person="per_1", mode="live"):
    return Caller(WorkspaceId("ws_1"), mode, "key_1", frozenset(permissions), person)


def test_table_is_the_one_that_was_meant():
    assert set(TABLE) == set(get_args(Permission)) == EVERYTHING
    for permission, able in TABLE.items():
        assert {role for role in ROLES if permission in PERMISSIONS[role]} == set(able.split())


def test_each_role_holds_all_that_the_next_one_does():
    for greater, lesser in pairwise(ROLES):
        assert PERMISSIONS[greater] > PERMISSIONS[lesser]


def test_role_that_nobody_knows_may_nothing():
    assert of_role("root") == of_role("") == frozenset()


@pytest.mark.parametrize(
    ("given_scopes", "mode", "able"),
    [
        (["workflows:read"], "live", {"workflows:read"}),
        (["workflows:*"], "test", {"workflows:read", "workflows:write"}),
        (["events:write", "keys:read"], "live", {"events:write", "keys:read"}),
        (["*"], "live", EVERYTHING),
        (["*"], "test", EVERYTHING - {"members:write", "owners:write"}),
        (["members:*"], "test", {"members:read"}),
        ([], "live", set()),
        (["from:a:newer:version", "*:read", ":", "workflows"], "live", set()),
    ],
)
def test_scopes_mean_what_they_say_and_unknown_ones_nothing(given_scopes, mode, able):
    assert of_scopes(given_scopes, mode) == able


@given(scopes, scopes)
def test_more_scopes_never_mean_less(some, more):
    assert of_scopes(some, "live") <= of_scopes(some + more, "live") <= EVERYTHING
    assert of_scopes(some, "test") <= of_scopes(some, "live")


def test_unknown_scopes_are_all_told_at_once():
    with pytest.raises(InvalidInput) as caught:
        check_scopes(["workflows:read", "workflow:read", "everything"])
    assert [problem.place for problem in caught.value.problems] == ["scopes[1]", "scopes[2]"]
    assert check_scopes(["*", "*", "keys:read"]) == ["*", "keys:read"]


@pytest.mark.parametrize(("person", "word"), [(None, "scope"), ("per_1", "role")])
def test_refusal_says_what_is_lacking_and_how_to_get_it(person, word):
    require(caller({"workflows:write"}, person), "workflows:write")
    with pytest.raises(Forbidden) as caught:
        require(caller({"workflows:read"}, person), "workflows:write")
    assert caught.value.code == "missing_permission"
    assert word in caught.value.public
    assert "workflows:write" in caught.value.public


@pytest.mark.parametrize("holder", ROLES)
@pytest.mark.parametrize("given_role", ROLES)
def test_nobody_gives_a_role_above_their_own(holder, given_role):
    is_below = ROLES.index(given_role) >= ROLES.index(holder)
    who = caller(PERMISSIONS[holder])
    if is_below:
        require_grantable(who, of_role(given_role), "it")
    else:
        with pytest.raises(Forbidden, match="do not have yourself"):
            require_grantable(who, of_role(given_role), "it")
