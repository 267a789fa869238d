"""People: they register, log in, stay logged in, log out.

access token    15 min, `Authorization: Bearer …`; never in a cookie, so no other site's page can
                make a browser send it
refresh token   good once. A program gets it in the body. A browser asks for `"cookie": true` and
                gets it as an HttpOnly, SameSite=Strict cookie, and then never in a body: scripts
                do not see it. The two addresses that read the cookie look at `Origin` as well.
"""

import hmac
from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from control.api.members import invited, join
from control.api.shapes import (
    NAME_MAX,
    Body,
    Email,
    PageDep,
    PersonDep,
    PortsDep,
    Text,
    address_of,
    failures,
)
from control.core.access import bearer_token
from control.core.address import grouped
from control.core.cursor import read_cursor, write_cursor
from control.core.passwords import check, normal
from control.core.tokens import ACCESS_S, normal_email
from control.ports import Ports
from control.sessions import Opened
from control.store import people
from control.store.query import Row
from control.throttle import Rule
from schemas.access import needs
from schemas.errors import Conflict, Forbidden, NotFound, RateLimited, Unauthenticated
from wire.database import connection

# Failed log-ins. One address that guesses at one account is locked out of it first, so that nobody
# can lock another one's account from a single address; the account's own bound is for many of them.
BY_PAIR: Final = Rule("login-pair", 5, 15 * 60)
BY_ADDRESS: Final = Rule("login-address", 100, 15 * 60)
BY_ACCOUNT: Final = Rule("login-account", 50, 3600)
# Registrations and workspaces of one address, wrong sign-up tokens included.
SIGN_UPS: Final = Rule("sign-up", 100, 3600)

COOKIE: Final = "nhood_refresh"
# `__Host-`: browsers take it over https only, from this very host, for all paths
# (https://www.rfc-editor.org/rfc/rfc6265 and its successor, "Cookie Name Prefixes").
COOKIE_SECURE: Final = f"__Host-{COOKIE}"
_PASSWORD: Final = Field(min_length=1, max_length=1_024)
_TAGS: Final[list[Any]] = ["people"]


class _Exact(Body):
    """Spaces around a text stay: they may be part of a password."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=False)


class _Cookie(_Exact):
    cookie: bool = Field(
        default=False, description="For browsers: the refresh token as a cookie, not in the body."
    )


class RegisterBody(_Cookie):
    """A new person."""

    email: Email = Field(examples=["ada@acme.example"])
    password: Annotated[SecretStr, _PASSWORD] = Field(description="12 to 256 characters.")
    name: Annotated[Text, StringConstraints(max_length=NAME_MAX, strip_whitespace=True)] = ""
    invitation: Annotated[str, Field(max_length=100)] | None = Field(
        None, description="The token of an invitation: it is accepted at once."
    )


class LoginBody(_Cookie):
    """Who logs in."""

    email: Email = Field(examples=["ada@acme.example"])
    password: Annotated[SecretStr, _PASSWORD]


class RefreshBody(Body):
    """The refresh token, where it is not in a cookie."""

    refresh_token: Annotated[SecretStr, Field(max_length=200)] | None = None


class PasswordBody(_Exact):
    """The password as it is and as it is to be."""

    current_password: Annotated[SecretStr, _PASSWORD]
    new_password: Annotated[SecretStr, _PASSWORD] = Field(description="12 to 256 characters.")


class PersonAnswer(BaseModel):
    """A person."""

    person_id: str
    email: str
    name: str


class TokenAnswer(BaseModel):
    """What keeps somebody logged in; shown this once."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - no secret, the name of a scheme
    expires_in: int = Field(default=ACCESS_S, description="Seconds that the access token lives.")
    refresh_token: str | None = Field(description="null where it is in the cookie.")
    refresh_expires_at: datetime
    session_id: str


class LoginAnswer(TokenAnswer):
    """Logged in."""

    person: PersonAnswer


class SessionAnswer(BaseModel):
    """A log-in that lives."""

    session_id: str
    current: bool
    user_agent: str
    address: str
    created_at: datetime
    refreshed_at: datetime
    expires_at: datetime


class SessionPage(BaseModel):
    """Sessions, newest first."""

    items: list[SessionAnswer]
    next_cursor: str | None


async def register(
    body: RegisterBody, ports: PortsDep, request: Request, response: Response
) -> LoginAnswer:
    """Make a person and log them in; in production with the operator's token or an invitation."""
    await may_sign_up(ports, request, invited=body.invitation is not None)
    email, password = normal_email(body.email), normal(body.password.get_secret_value())
    check(password, (email, body.name))
    if body.invitation is not None:  # before anything is told of the address, or hashed
        async with connection(ports.pool) as on:
            await invited(on, body.invitation, email, ports.sessions.clock())
    hashed = await ports.passwords.hash(password)
    person = ports.mint("per")
    async with connection(ports.pool) as on:
        if not await people.insert(on, person, email, body.name, hashed):
            raise Conflict(
                "Somebody has registered with this address; log in instead.", code="email_taken"
            )
        if body.invitation is not None:
            now = ports.sessions.clock()
            await join(on, await invited(on, body.invitation, email, now), person, now)
        opened = await _open(on, person, request, ports)
    shown = {"id": person, "email": email, "name": body.name}
    return await _logged_in(opened, shown, body, response, ports)


async def login(
    body: LoginBody, ports: PortsDep, request: Request, response: Response
) -> LoginAnswer:
    """Log in."""
    email, password = normal_email(body.email), normal(body.password.get_secret_value())
    found = await authenticate(ports, email, password, address_of(request, ports))
    async with connection(ports.pool) as on:
        opened = await _open(on, found["id"], request, ports)
    return await _logged_in(opened, found, body, response, ports)


async def authenticate(ports: Ports, email: str, password: str, address: str) -> Row:
    """Give the person whose password this is; as slow for an address that nobody has.

    Raises:
        RateLimited: `login_locked`; too many tries failed.
        Unauthenticated: `wrong_login`; which of the two is wrong is not told.
    """
    counted = (
        (BY_ADDRESS, (grouped(address),)),
        (BY_PAIR, (grouped(address), email)),
        (BY_ACCOUNT, (email,)),
    )
    for rule, subject in counted:
        wait_s = await ports.throttle.take(rule, *subject)
        if wait_s:
            raise RateLimited(
                f"Too many log-ins failed; try again in about {-(-wait_s // 60)} min.",
                retry_after_s=wait_s,
                code="login_locked",
            )
    async with connection(ports.pool) as on:
        found = await people.by_email(on, email)
    hashed = found["password"] if found is not None else None
    if not await ports.passwords.matches(hashed, password) or found is None:
        raise Unauthenticated("Address or password is not right.", code="wrong_login")
    for rule, subject in counted:
        await ports.throttle.give_back(rule, *subject)
    await ports.throttle.clear(BY_PAIR, grouped(address), email)
    if ports.passwords.is_outdated(found["password"]):
        newer = await ports.passwords.hash(password)
        async with connection(ports.pool) as on:
            await people.rehash(on, found["id"], found["password"], newer)
    return found


async def refresh(
    ports: PortsDep, request: Request, response: Response, body: RefreshBody | None = None
) -> TokenAnswer:
    """Give the next pair of tokens; the refresh token that was sent is good no more."""
    token, is_cookie = _presented(body, request, ports)
    if not token:
        raise Unauthenticated("Send your refresh token, or log in.", code="missing_refresh_token")
    opened = await ports.sessions.refresh(token)
    return await _tokens(opened, is_cookie, response, ports)


async def logout(
    ports: PortsDep, request: Request, response: Response, body: RefreshBody | None = None
) -> None:
    """End the session of the refresh token, the cookie or the access token; harmless twice."""
    token, is_cookie = _presented(body, request, ports)
    if token:
        await ports.sessions.revoke(token, "logout")
    if bearer_token(request.headers.get("authorization")) is not None:
        person = await ports.doors.person(request.scope)
        async with connection(ports.pool) as on:
            now = ports.sessions.clock()
            await people.revoke_session(on, person.person_id, person.session_id, now, "logout")
        ports.sessions.forget()
    if is_cookie:
        _set_cookie(response, "", 0, ports)
    response.status_code = 204


async def logout_everywhere(person: PersonDep, ports: PortsDep, response: Response) -> None:
    """End all sessions of the person, this one too."""
    async with connection(ports.pool) as on:
        now = ports.sessions.clock()
        await people.revoke_sessions(on, person.person_id, now, "logout_everywhere")
    ports.sessions.forget()
    _set_cookie(response, "", 0, ports)
    response.status_code = 204


async def change_password(
    body: PasswordBody, person: PersonDep, ports: PortsDep, request: Request
) -> None:
    """Change the password; all other sessions end."""
    async with connection(ports.pool) as on:
        found = await _known(await people.get(on, person.person_id))
    old = normal(body.current_password.get_secret_value())
    await authenticate(ports, found["email"], old, address_of(request, ports))
    new = normal(body.new_password.get_secret_value())
    check(new, (found["email"], found["name"]), "new_password")
    hashed = await ports.passwords.hash(new)
    async with connection(ports.pool) as on:
        await people.set_password(on, person.person_id, hashed)
        now = ports.sessions.clock()
        await people.revoke_sessions(
            on, person.person_id, now, "password_changed", but=person.session_id
        )
    ports.sessions.forget()


async def me(person: PersonDep, ports: PortsDep) -> PersonAnswer:
    """Show who is logged in."""
    async with connection(ports.pool) as on:
        return _show(await _known(await people.get(on, person.person_id)))


async def list_sessions(person: PersonDep, ports: PortsDep, page: PageDep) -> SessionPage:
    """List the person's sessions that live."""
    kind, filters = "sessions", person.person_id
    after = read_cursor(kind, filters, page.cursor) if page.cursor else None
    async with connection(ports.pool) as on:
        now = ports.sessions.clock()
        found = await people.sessions_page(on, person.person_id, now, after, page.limit + 1)
    shown = found[: page.limit]
    last = (shown[-1]["sort_us"], shown[-1]["session_id"]) if len(found) > page.limit else None
    return SessionPage(
        items=[
            SessionAnswer(**row, current=row["session_id"] == person.session_id) for row in shown
        ],
        next_cursor=write_cursor(kind, filters, last) if last else None,
    )


async def end_session(
    session_id: Annotated[str, Path(max_length=64)], person: PersonDep, ports: PortsDep
) -> None:
    """End one of the person's sessions."""
    async with connection(ports.pool) as on:
        now = ports.sessions.clock()
        done = await people.revoke_session(on, person.person_id, session_id, now, "logout")
    ports.sessions.forget()
    if not done:
        raise NotFound("There is no session of yours with this id.", code="session_not_found")


async def may_sign_up(ports: Ports, request: Request, *, invited: bool = False) -> None:
    """Let anybody in in development; in production those with the operator's token or invited.

    Raises:
        RateLimited: `sign_up_limited`; this address came too often.
        Forbidden: `sign_up_closed`; production, and there is no token that could be sent.
        Unauthenticated: `sign_up_token`; it is missing or wrong.
    """
    wait_s = await ports.throttle.take(SIGN_UPS, grouped(address_of(request, ports)))
    if wait_s:
        raise RateLimited(
            f"Your address made {SIGN_UPS.most} of them within an hour; try again in about"
            f" {-(-wait_s // 60)} min.",
            retry_after_s=wait_s,
            code="sign_up_limited",
        )
    if not ports.settings.is_production or invited:
        return
    token = ports.settings.signup_token
    if not token:
        raise Forbidden(
            "This takes a log-in, and nobody can register by themselves here: the operator has not"
            " set NHOOD_SIGNUP_TOKEN. Ask for an invitation.",
            code="sign_up_closed",
        )
    given = bearer_token(request.headers.get("authorization")) or ""
    if not hmac.compare_digest(given.encode(), token.reveal().encode()):
        raise Unauthenticated(
            "This takes a log-in or the operator's token: `Authorization: Bearer …`.",
            code="sign_up_token",
        )


async def _open(on: Any, person: str, request: Request, ports: Ports) -> Opened:  # noqa: ANN401
    agent = request.headers.get("user-agent", "")
    return await ports.sessions.open(on, person, agent, address_of(request, ports))


async def _logged_in(
    opened: Opened, person: Row, body: _Cookie, response: Response, ports: Ports
) -> LoginAnswer:
    tokens = await _tokens(opened, body.cookie, response, ports)
    return LoginAnswer(**tokens.model_dump(), person=_show(person))


async def _tokens(
    opened: Opened,
    in_cookie: bool,  # noqa: FBT001 - the client's own wish
    response: Response,
    ports: Ports,
) -> TokenAnswer:
    access = await ports.sessions.access_token(opened)
    response.headers["Cache-Control"] = "no-store"
    if in_cookie:
        left = opened.expires_at - ports.sessions.clock()
        _set_cookie(response, opened.refresh.reveal(), int(left.total_seconds()), ports)
    return TokenAnswer(
        access_token=access.reveal(),
        refresh_token=None if in_cookie else opened.refresh.reveal(),
        refresh_expires_at=opened.expires_at,
        session_id=opened.session_id,
    )


def _show(row: Row) -> PersonAnswer:
    return PersonAnswer(person_id=row["id"], email=row["email"], name=row["name"])


async def _known(row: Row | None) -> Row:
    if row is None:
        raise NotFound("This person is gone.", code="person_not_found")
    return row


def _presented(body: RefreshBody | None, request: Request, ports: Ports) -> tuple[str | None, bool]:
    """Find the refresh token, and whether it came as a cookie.

    Raises:
        Forbidden: `foreign_origin`; a page of another site made the browser send it.
    """
    if body is not None and body.refresh_token is not None:
        return body.refresh_token.get_secret_value(), False
    found = request.cookies.get(_cookie_name(ports))
    origin = request.headers.get("origin")
    if found is not None and origin is not None:
        ours = {urlsplit(ports.settings.gateway_url).netloc, request.headers.get("host")}
        if urlsplit(origin).netloc not in ours:
            raise Forbidden("This cookie is for our own pages.", code="foreign_origin")
    return found, found is not None


def _cookie_name(ports: Ports) -> str:
    return COOKIE_SECURE if _is_https(ports) else COOKIE


def _is_https(ports: Ports) -> bool:
    return ports.settings.is_production or ports.settings.gateway_url.startswith("https:")


def _set_cookie(response: Response, value: str, seconds: int, ports: Ports) -> None:
    response.set_cookie(
        _cookie_name(ports),
        value,
        max_age=seconds,
        path="/",
        secure=_is_https(ports),
        httponly=True,
        samesite="strict",
    )


def add_routes(router: APIRouter) -> None:
    """Add this noun's routes."""
    base = "/api/v1/auth"
    public, person = needs("public"), needs("person")
    for path, endpoint, method, status, extra, summary, told in (
        ("register", register, "POST", 201, public, "Register", (401, 403, 404, 409, 422, 429)),
        ("login", login, "POST", 200, public, "Log in", (401, 422, 429)),
        ("refresh", refresh, "POST", 200, public, "Get the next tokens", (401, 403, 409)),
        ("logout", logout, "POST", 204, public, "Log out", (401, 403)),
        ("logout-everywhere", logout_everywhere, "POST", 204, person, "End all sessions", (401,)),
        ("password", change_password, "POST", 204, person, "Change the password", (401, 422, 429)),
        ("me", me, "GET", 200, person, "Show who is logged in", (401,)),
        ("sessions", list_sessions, "GET", 200, person, "List sessions", (401, 422)),
        ("sessions/{session_id}", end_session, "DELETE", 204, person, "End a session", (401, 404)),
    ):
        router.add_api_route(
            f"{base}/{path}",
            endpoint,
            methods=[method],
            status_code=status,
            tags=_TAGS,
            summary=summary,
            openapi_extra=extra,
            responses=failures(*told),
        )
