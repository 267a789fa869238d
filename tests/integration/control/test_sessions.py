"""Log-ins over real HTTP: how they begin, go on and end, and what a thief gets."""

import asyncio
import time
from collections import Counter
from dataclasses import replace

import argon2
import httpx
import pytest
import structlog

from control.api import auth
from control.api.auth import BY_ACCOUNT, BY_PAIR
from control.core.tokens import REFRESH_S, REUSE_GRACE_S, SESSION_S
from control.sessions import SESSIONS_MAX
from control.store import signing
from control.throttle import Rule
from schemas.settings import Secret
from tests.integration.control.people_parts import (
    AUTH,
    PASSWORD,
    V1,
    refused_within,
    running_gateway,
)


async def test_person_registers_logs_in_and_is_known(gateway):
    ada = await gateway.register(email="Ada@Acme.Example")
    assert ada.tokens["person"]["email"] == "ada@acme.example"
    assert ada.tokens["expires_in"] == 900
    again = await gateway.login(" ADA@acme.example")
    assert again.status_code == 200
    assert again.headers["cache-control"] == "no-store"
    assert "set-cookie" not in again.headers
    shown = (await ada.call("GET", f"{AUTH}/me")).json()
    assert shown == {"person_id": ada.id, "email": "ada@acme.example", "name": "Ada"}


async def test_address_registers_once(gateway):
    ada = await gateway.register()
    body = {"email": ada.email.upper(), "password": PASSWORD}
    answer = await gateway.client.post(f"{AUTH}/register", json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")


async def test_weak_password_is_refused_and_not_repeated(gateway):
    body = {"email": "weak@acme.example", "password": "password1234"}
    answer = await gateway.client.post(f"{AUTH}/register", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "weak_password")
    assert "password1234" not in answer.text


async def test_password_keeps_its_spaces(gateway):
    spaced = f"  {PASSWORD}  "
    ada = await gateway.register(password=spaced)
    assert (await gateway.login(ada.email, spaced)).status_code == 200
    assert (await gateway.login(ada.email, PASSWORD)).status_code == 401


async def test_wrong_password_and_unknown_address_are_told_alike(gateway, monkeypatch):
    ada, calls = await gateway.register(), Counter()
    real = argon2.PasswordHasher.verify

    def counted(self, stored, password):
        calls[str(argon2.extract_parameters(stored))] += 1
        return real(self, stored, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counted)
    wrong = await gateway.login(ada.email, "not the password")
    after_wrong = dict(calls)
    unknown = await gateway.login("nobody@acme.example", "not the password")
    answers = [answer.json() | {"instance": ""} for answer in (wrong, unknown)]
    assert answers[0] == answers[1]
    assert answers[0]["code"] == "wrong_login"
    # As much work for an address that nobody has: one hash, of the same cost.
    assert list(after_wrong.values()) == [1]
    assert calls == dict.fromkeys(after_wrong, 2)


async def test_guessing_locks_the_guesser_out_and_not_the_owner(gateway):
    ada = await gateway.register()
    for _ in range(BY_PAIR.most):
        assert (await gateway.login(ada.email, "wrong guess no 1")).status_code == 401
    locked = await gateway.login(ada.email)  # right, but too late
    assert (locked.status_code, locked.json()["code"]) == (429, "login_locked")
    assert 0 < int(locked.headers["retry-after"]) <= BY_PAIR.window_s
    other_place = await gateway.client.post(
        f"{AUTH}/login", json={"email": ada.email, "password": PASSWORD}
    )
    assert other_place.status_code == 429
    assert (await ada.refresh()).status_code == 200


async def test_nobodys_address_is_locked_just_like_somebodys(gateway):
    codes = [(await gateway.login("nobody@x.example", "a guess")).status_code for _ in range(7)]
    assert codes == [401] * BY_PAIR.most + [429] * 2


async def test_guesses_at_the_same_time_do_not_slip_through(gateway):
    ada = await gateway.register()
    answers = await asyncio.gather(*(gateway.login(ada.email, "guess") for _ in range(20)))
    codes = Counter(answer.status_code for answer in answers)
    assert codes == {401: BY_PAIR.most, 429: 20 - BY_PAIR.most}


async def test_good_log_ins_are_never_locked(gateway):
    ada = await gateway.register()
    for _ in range(BY_PAIR.most + 2):
        assert (await gateway.login(ada.email)).status_code == 200


async def test_account_has_a_bound_for_guesses_from_many_addresses(live_settings, gateway):
    proxied = replace(live_settings, trusted_proxies="127.0.0.1")
    async with running_gateway(proxied) as found:
        ada = await found.register()
        body, codes = {"email": ada.email, "password": "guess"}, Counter()
        for number in range(BY_ACCOUNT.most + 1):
            headers = {"X-Forwarded-For": f"192.0.2.{number}"}
            answer = await found.client.post(f"{AUTH}/login", json=body, headers=headers)
            codes[answer.status_code] += 1
    assert codes == {401: BY_ACCOUNT.most, 429: 1}


async def test_refresh_gives_the_next_pair_and_uses_up_the_old_token(gateway):
    ada = await gateway.register()
    first = dict(ada.tokens)
    assert (await ada.refresh()).status_code == 200
    assert ada.tokens["refresh_token"] != first["refresh_token"]
    assert ada.tokens["session_id"] == first["session_id"]
    assert (await ada.call("GET", f"{AUTH}/me")).status_code == 200


async def test_reused_refresh_token_kills_the_whole_family(gateway):
    ada = await gateway.register()
    elsewhere = (await gateway.login(ada.email)).json()
    stolen = ada.tokens["refresh_token"]
    await ada.refresh()
    gateway.clock.forward(seconds=REUSE_GRACE_S + 1)
    thief = await gateway.refresh(stolen)
    assert (thief.status_code, thief.json()["code"]) == (401, "refresh_token_reused")
    owner = await gateway.refresh(ada.tokens["refresh_token"])
    assert (owner.status_code, owner.json()["code"]) == (401, "session_ended")
    assert (await ada.call("GET", f"{AUTH}/me")).json()["code"] == "session_ended"
    # The person's other log-ins go on.
    assert (await gateway.refresh(elsewhere["refresh_token"])).status_code == 200


async def test_two_refreshes_at_once_give_one_pair_and_end_nothing(gateway):
    ada = await gateway.register()
    token = ada.tokens["refresh_token"]
    answers = await asyncio.gather(*(gateway.refresh(token) for _ in range(8)))
    codes = Counter(answer.status_code for answer in answers)
    assert codes == {200: 1, 409: 7}
    assert {a.json()["code"] for a in answers if a.status_code == 409} == {"already_refreshed"}
    (pair,) = [answer.json() for answer in answers if answer.status_code == 200]
    assert (await gateway.refresh(pair["refresh_token"])).status_code == 200
    live = await gateway.sql(
        "SELECT count(*) FROM refresh_tokens WHERE used_at IS NULL AND session_id = %s",
        ada.tokens["session_id"],
    )
    assert live == [(1,)]


async def test_session_ends_after_7_days_of_silence(gateway):
    ada = await gateway.register()
    gateway.clock.forward(seconds=REFRESH_S - 60)
    assert (await ada.refresh()).status_code == 200
    gateway.clock.forward(seconds=REFRESH_S + 1)
    assert (await ada.refresh()).json()["code"] == "session_ended"


async def test_session_ends_after_30_days_however_often_it_is_refreshed(gateway):
    ada = await gateway.register()
    for _ in range(SESSION_S // REFRESH_S):
        gateway.clock.forward(seconds=REFRESH_S - 1)
        assert (await ada.refresh()).status_code == 200
    gateway.clock.forward(seconds=SESSION_S % REFRESH_S + 60)
    assert (await ada.refresh()).json()["code"] == "session_ended"


async def test_access_token_ends_after_15_minutes(gateway):
    ada = await gateway.register()
    gateway.clock.forward(minutes=14)
    assert (await ada.call("GET", f"{AUTH}/me")).status_code == 200
    gateway.clock.forward(minutes=2)
    answer = await ada.call("GET", f"{AUTH}/me")
    assert (answer.status_code, answer.json()["code"]) == (401, "bad_access_token")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("token", ["", "nonsense", "nhood_rt_" + "x" * 43, "nhood_rt_" + "é" * 43])
async def test_unknown_refresh_token_is_refused(gateway, token):
    answer = await gateway.refresh(token)
    assert answer.status_code == 401
    assert answer.json()["code"] in ("unknown_refresh_token", "missing_refresh_token")


async def test_log_out_ends_the_session_with_its_access_token_at_once(gateway):
    ada = await gateway.register()
    body = {"refresh_token": ada.tokens["refresh_token"]}
    for _ in range(2):
        assert (await gateway.client.post(f"{AUTH}/logout", json=body)).status_code == 204
    assert (await ada.call("GET", f"{AUTH}/me")).json()["code"] == "session_ended"
    assert (await ada.refresh()).json()["code"] == "session_ended"


async def test_log_out_with_the_access_token_alone_ends_the_session_too(gateway):
    ada = await gateway.register()
    assert (await ada.call("POST", f"{AUTH}/logout")).status_code == 204
    assert (await ada.refresh()).json()["code"] == "session_ended"


async def test_log_out_is_known_to_other_processes_within_a_second(gateway, live_settings):
    ada = await gateway.register()
    same_site = replace(live_settings, public_url=gateway.url)
    async with running_gateway(same_site) as other:
        token = ada.tokens["access_token"]
        issued_here = {"Authorization": f"Bearer {token}"}
        assert (await other.client.get(f"{AUTH}/me", headers=issued_here)).status_code == 200
        await ada.call("POST", f"{AUTH}/logout")
        await refused_within(lambda: other.client.get(f"{AUTH}/me", headers=issued_here), 1.0)


async def test_log_out_everywhere_ends_every_session(gateway):
    ada = await gateway.register()
    others = [(await gateway.login(ada.email)).json() for _ in range(2)]
    assert (await ada.call("POST", f"{AUTH}/logout-everywhere")).status_code == 204
    for tokens in (ada.tokens, *others):
        answer = await gateway.refresh(tokens["refresh_token"])
        assert answer.json()["code"] == "session_ended"


async def test_new_password_ends_the_other_sessions_and_not_this_one(gateway):
    ada = await gateway.register()
    other = (await gateway.login(ada.email)).json()
    change = {"current_password": PASSWORD, "new_password": "quartz ladder monsoon bishop"}
    wrong = await ada.call(
        "POST", f"{AUTH}/password", json=change | {"current_password": "not it at all"}
    )
    assert (wrong.status_code, wrong.json()["code"]) == (401, "wrong_login")
    weak = await ada.call("POST", f"{AUTH}/password", json=change | {"new_password": "short"})
    assert weak.json()["problems"][0]["place"] == "new_password"
    assert (await ada.call("POST", f"{AUTH}/password", json=change)).status_code == 204
    assert (await gateway.refresh(other["refresh_token"])).json()["code"] == "session_ended"
    assert (await ada.refresh()).status_code == 200
    assert (await gateway.login(ada.email)).status_code == 401
    assert (await gateway.login(ada.email, change["new_password"])).status_code == 200


async def test_sessions_are_listed_by_cursor_and_ended_one_by_one(gateway):
    ada = await gateway.register()
    second = (await gateway.login(ada.email)).json()
    page = (await ada.call("GET", f"{AUTH}/sessions", params={"limit": 1})).json()
    assert [item["session_id"] for item in page["items"]] == [second["session_id"]]
    more = {"limit": 1, "cursor": page["next_cursor"]}
    rest = (await ada.call("GET", f"{AUTH}/sessions", params=more)).json()
    assert [(item["session_id"], item["current"]) for item in rest["items"]] == [
        (ada.tokens["session_id"], True)
    ]
    assert rest["items"][0]["address"] == "127.0.0.1"
    assert "httpx" in rest["items"][0]["user_agent"]
    assert rest["next_cursor"] is None
    path = f"{AUTH}/sessions/{second['session_id']}"
    assert (await ada.call("DELETE", path)).status_code == 204
    assert (await ada.call("DELETE", path)).json()["code"] == "session_not_found"
    assert (await gateway.refresh(second["refresh_token"])).json()["code"] == "session_ended"


async def test_session_of_somebody_else_is_neither_seen_nor_ended(gateway):
    ada, eve = await gateway.register(), await gateway.register()
    answer = await eve.call("DELETE", f"{AUTH}/sessions/{ada.tokens['session_id']}")
    assert answer.status_code == 404
    assert (await ada.refresh()).status_code == 200


async def test_oldest_session_makes_room_for_one_too_many(gateway):
    ada = await gateway.register()
    await gateway.sql(
        "INSERT INTO sessions (id, person_id, created_at, refreshed_at, expires_at)"
        " SELECT 'ses_filler' || n, %s, now() + n * interval '1 second', now(),"
        " now() + interval '1 day' FROM generate_series(1, %s) n",
        ada.id,
        SESSIONS_MAX - 1,
    )
    await gateway.sql("UPDATE sessions SET created_at = created_at - interval '1 hour'")
    assert (await gateway.login(ada.email)).status_code == 200
    assert (await ada.refresh()).json()["code"] == "session_ended"


async def test_api_key_is_no_person(gateway):
    made = await (await gateway.register()).make_workspace()
    answer = await gateway.with_key(made["api_key"], "GET", f"{AUTH}/sessions")
    assert (answer.status_code, answer.json()["code"]) == (401, "session_required")


async def test_browsers_refresh_token_is_in_a_cookie_that_no_script_sees(gateway):
    ada = await gateway.register()
    async with httpx.AsyncClient(base_url=gateway.url) as browser:
        body = {"email": ada.email, "password": PASSWORD, "cookie": True}
        answer = await browser.post(f"{AUTH}/login", json=body)
        assert answer.json()["refresh_token"] is None
        cookie = answer.headers["set-cookie"].lower()
        for word in ("httponly", "samesite=strict", "path=/", "max-age=60"):
            assert word in cookie
        before = browser.cookies["nhood_refresh"]
        refreshed = await browser.post(f"{AUTH}/refresh")
        assert refreshed.status_code == 200
        assert refreshed.json()["refresh_token"] is None
        assert browser.cookies["nhood_refresh"] != before
        assert (await browser.post(f"{AUTH}/logout")).status_code == 204
        assert "nhood_refresh" not in browser.cookies
        assert (await browser.post(f"{AUTH}/refresh")).json()["code"] == "missing_refresh_token"


async def test_cookie_over_https_is_bound_to_the_host(live_settings, gateway):
    secure = replace(live_settings, public_url="https://nhood.example")
    async with running_gateway(secure) as found:
        email = (await found.register()).email
        body = {"email": email, "password": PASSWORD, "cookie": True}
        cookie = (await found.client.post(f"{AUTH}/login", json=body)).headers["set-cookie"]
    assert cookie.startswith("__Host-nhood_refresh=")
    assert "; secure" in cookie.lower()


async def test_page_of_another_site_cannot_use_the_cookie(gateway):
    ada = await gateway.register()
    async with httpx.AsyncClient(base_url=gateway.url) as browser:
        body = {"email": ada.email, "password": PASSWORD, "cookie": True}
        await browser.post(f"{AUTH}/login", json=body)
        foreign = {"Origin": "https://evil.example"}
        for path in ("refresh", "logout"):
            answer = await browser.post(f"{AUTH}/{path}", headers=foreign)
            assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
        own = {"Origin": gateway.url}
        assert (await browser.post(f"{AUTH}/refresh", headers=own)).status_code == 200


async def test_cookie_alone_opens_nothing_else(gateway):
    ada = await gateway.register()
    async with httpx.AsyncClient(base_url=gateway.url) as browser:
        body = {"email": ada.email, "password": PASSWORD, "cookie": True}
        await browser.post(f"{AUTH}/login", json=body)
        for path in (f"{AUTH}/me", f"{AUTH}/sessions", V1):
            assert (await browser.get(path)).status_code == 401


async def test_access_tokens_of_a_retired_signing_key_are_refused_and_refreshing_mends_it(gateway):
    ada = await gateway.register()
    async with gateway.ports.pool.connection() as on:
        assert await signing.retire_all(on) == 1
    gateway.ports.sessions._signing.forget()
    assert (await ada.call("GET", f"{AUTH}/me")).json()["code"] == "bad_access_token"
    assert (await ada.refresh()).status_code == 200
    assert (await ada.call("GET", f"{AUTH}/me")).status_code == 200


async def test_gateways_share_one_signing_key(gateway, live_settings):
    async with running_gateway(live_settings) as other:
        await gateway.sql("DELETE FROM signing_keys")
        gateway.ports.sessions._signing.forget()
        email = f"both{time.monotonic_ns()}@acme.example"
        await asyncio.gather(gateway.register(email="1" + email), other.register(email="2" + email))
        assert await gateway.sql("SELECT count(*) FROM signing_keys") == [(1,)]


async def test_production_takes_people_with_the_operators_token_only(live_settings, gateway):
    closed = replace(live_settings, environment="production", key_file_in_production=True)
    body = {"email": "new@acme.example", "password": PASSWORD}
    async with running_gateway(closed) as found:
        answer = await found.client.post(f"{AUTH}/register", json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "sign_up_closed")
    async with running_gateway(replace(closed, signup_token=Secret("t0ken"))) as found:
        for header in ({}, {"Authorization": "Bearer wrong"}):
            answer = await found.client.post(f"{AUTH}/register", json=body, headers=header)
            assert (answer.status_code, answer.json()["code"]) == (401, "sign_up_token")
        ada = await found.register(headers={"Authorization": "Bearer t0ken"})
        # And who is logged in makes workspaces without it.
        assert (await ada.make_workspace())["workspace_id"]
        answer = await found.client.post(V1, json={"name": "x", "email": "a@b.c"})
        assert answer.json()["code"] == "sign_up_token"


async def test_sign_ups_of_one_address_are_limited(gateway, monkeypatch):
    monkeypatch.setattr(auth, "SIGN_UPS", Rule("sign-up-test", 3, 60))
    body = {"name": "Acme", "email": "dev@acme.example"}
    codes = [(await gateway.client.post(V1, json=body)).status_code for _ in range(4)]
    assert codes == [201, 201, 201, 429]
    refused = await gateway.client.post(V1, json=body)
    assert refused.json()["code"] == "sign_up_limited"
    assert 0 < int(refused.headers["retry-after"]) <= 60


async def test_no_secret_lies_in_the_database_or_the_log(gateway):
    with structlog.testing.capture_logs() as logs:
        ada = await gateway.register()
        made = await ada.make_workspace()
        await ada.refresh()
        await gateway.login(ada.email, "a wrong but secret guess")
        invited = await ada.call(
            "POST",
            f"{V1}/{made['workspace_id']}/invitations",
            json={"email": "bob@acme.example", "role": "viewer"},
        )
    secrets = [
        PASSWORD,
        "a wrong but secret guess",
        ada.tokens["refresh_token"],
        ada.tokens["access_token"],
        invited.json()["token"],
        made["api_key"],
    ]
    tables = ("people", "sessions", "refresh_tokens", "invitations", "signing_keys", "api_keys")
    kept = "".join([str(await gateway.sql(f"SELECT t::text FROM {name} t")) for name in tables])
    assert '"d":' not in kept  # the private part of a signing key
    for secret in secrets:
        assert secret not in kept
        assert secret not in str(logs)
    assert ada.email not in str(logs)


async def test_database_that_is_away_lets_nobody_in(gateway):
    ada = await gateway.register()
    await gateway.ports.pool.close()
    gateway.ports.sessions.forget()
    for answer in (
        await ada.call("GET", f"{AUTH}/me"),
        await gateway.login(ada.email),
        await ada.refresh(),
    ):
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0


async def test_redis_that_is_away_locks_guessers_out_all_the_same(live_settings):
    away = replace(live_settings, redis_url=Secret("redis://127.0.0.1:9/0"))
    async with running_gateway(away) as found:
        ada = await found.register()
        codes = [(await found.login(ada.email, "a guess")).status_code for _ in range(7)]
        assert codes == [401] * BY_PAIR.most + [429] * 2
        answer = await ada.call("GET", f"{AUTH}/me")
        assert answer.status_code == 200
        assert "ratelimit" not in answer.headers
