"""The pages over HTTP.

    GET  /connect/{token}              opens the link: cookie, then on to the page
    POST /connect/{token}              the same, by a button, for what does not look like a person
    GET  /connect/{id}                 what can be connected
    GET  /connect/{id}/to/{provider}   one provider, with what must be known first
    POST /connect/{id}/to/{provider}   on to the vendor, or the credential is checked and stored
    GET  /connect/{id}/result          how it ended, and the way on

The token is in the address of the first request alone. A browser that merely looks ahead, a mail
scanner or a chat's preview would use a link up before the customer sees it: only what a browser
calls a visit opens it at once, everything else gets the button.
"""

import hmac
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, RedirectResponse, Response

from schemas.access import needs
from schemas.errors import Forbidden, InvalidInput, NeighbourhoodError, NotFound, TooLarge
from schemas.ids import is_id
from schemas.provider import ProviderSpec
from token_vault.connect import pages
from token_vault.connect.flow import Connect, Way, form_token
from token_vault.connect.sessions import READ_LIFE, Session
from token_vault.core.fields import Field, blamed, fields_of, filled
from token_vault.oauth import AccountChoice
from token_vault.vault import Vault

# Ten credential fields of the largest size.
FORM_BYTES_MAX: Final = 100_000
FORM_FIELDS_MAX: Final = 40
QUERY_CHARS_MAX: Final = 60
# As many fit on a screen.
WITHOUT_SEARCH_MAX: Final = 8
_STYLES_LIFE_S: Final = 86_400
_UNPROCESSABLE: Final = 422
# How the ways to connect are called, for people.
_WAYS: Final = {
    "oauth": "Log in at {provider}",
    "api_key": "Use an API key",
    "bot_token": "Use a bot token",
    "basic": "Use a user name and a secret",
    "aws_sigv4": "Use AWS access keys",
    "client_credentials": "Use a client id and secret",
}
_MEND: Final = "Please look at what is marked below."


class ConnectPages:
    """The pages; one for a gateway."""

    def __init__(self, vault: Vault, connect: Connect) -> None:
        self._vault = vault
        self._connect = connect
        self._secure = vault.settings.gateway_url.startswith("https://")

    def add_routes(self, router: APIRouter) -> None:
        """Add them to a router."""
        for path, endpoint, method in (
            (pages.STYLES_ADDRESS, _styles, "GET"),
            ("/connect/{name}", self._visit, "GET"),
            ("/connect/{name}", self._press, "POST"),
            ("/connect/{name}/to/{slug}", self._provider, "GET"),
            ("/connect/{name}/to/{slug}", self._submit, "POST"),
            ("/connect/{name}/result", self._result, "GET"),
        ):
            router.add_api_route(
                path,
                endpoint,
                methods=[method],
                response_model=None,
                include_in_schema=False,
                openapi_extra=needs("public"),
            )

    async def callback(self, provider: str, request: Request) -> Response | None:
        """Take a browser back whose consent was begun on a page; None: it was begun elsewhere."""
        answer = dict(request.query_params)
        try:
            session = await self._connect.begun_with(answer.get("state", ""))
            if session is None:
                return None
            if not session.belongs_to(self._cookie(request, session.id)):
                raise Forbidden("This was begun in another browser.", code="other_browser")
            landing = await self._connect.come_back(session, provider, answer)
            if isinstance(landing.error, AccountChoice):
                choices = landing.error.choices
                return pages.choose(self._name(provider), provider, answer["state"], choices)
        except NeighbourhoodError as error:
            return pages.failed(self._name(provider), error.code, error.status)
        return _to(f"/connect/{session.id}/result")

    async def _visit(
        self,
        name: str,
        request: Request,
        q: Annotated[str, Query(max_length=QUERY_CHARS_MAX)] = "",
    ) -> Response:
        if not is_id("cs", name):
            return await self._open(name, request, pressed=False)
        session: Session | None = None
        try:
            session = await self._connect.opened(name, self._cookie(request, name))
            if session.status == "connected":
                return _to(f"/connect/{name}/result")
            self._connect.require_live(session)
            return await self._list(session, q.strip())
        except NeighbourhoodError as error:
            return self._failed(error, session, None)

    async def _press(self, name: str, request: Request) -> Response:
        return await self._open(name, request, pressed=True)

    async def _open(self, token: str, request: Request, *, pressed: bool) -> Response:
        session: Session | None = None
        try:
            session = await self._connect.find(token)
            if session.belongs_to(self._cookie(request, session.id)):
                return _to(f"/connect/{session.id}")  # the same browser once more
            if session.opened_at is None:
                self._connect.require_live(session)
            if session.opened_at is None and not pressed and not _is_visit(request):
                return pages.page(
                    "open.html",
                    workspace=session.workspace_name,
                    test=session.mode == "test",
                    address=f"/connect/{token}",
                )
            cookie = await self._connect.open(session)
        except NeighbourhoodError as error:
            return self._failed(error, session, None, own=False)
        answer = _to(f"/connect/{session.id}")
        answer.set_cookie(
            self._cookie_name(session.id),
            cookie,
            max_age=int(READ_LIFE.total_seconds()),
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="lax",
        )
        return answer

    async def _list(self, session: Session, query: str) -> Response:
        offered = await self._connect.offered(session)
        only = session.providers if session.providers is not None else ()
        if len(offered) == 1 or (not offered and len(only) == 1):
            slug = offered[0].slug if offered else only[0]
            return _to(f"/connect/{session.id}/to/{slug}")
        wanted = query.casefold()
        found = [s for s in offered if wanted in s.name.casefold() or wanted in s.slug]
        return pages.page(
            "list.html",
            **self._frame(session),
            providers=found,
            total=len(offered),
            searchable=len(offered) > WITHOUT_SEARCH_MAX,
            query=query,
        )

    async def _provider(self, name: str, slug: str, request: Request, way: str = "") -> Response:
        session: Session | None = None
        try:
            cookie = self._cookie(request, name)
            session = await self._connect.opened(name, cookie)
            if session.status == "connected":
                return _to(f"/connect/{name}/result")
            self._connect.require_live(session)
            spec = self._connect.choose(session, slug)
            ways = await self._connect.ways(session, spec)
            chosen = next((item for item in ways if item == way), None) or _first(ways, spec)
            fields = _fields(spec, chosen)
            return await self._form(session, spec, (chosen, ways), fields, cookie or "")
        except NeighbourhoodError as error:
            return self._failed(error, session, slug)

    async def _submit(self, name: str, slug: str, request: Request) -> Response:
        session: Session | None = None
        try:
            cookie = self._cookie(request, name)
            session = await self._connect.opened(name, cookie)
            form = await _form_of(request)
            _check_origin(request, form, cookie or "")
            if session.status == "connected":
                return _to(f"/connect/{name}/result")
            self._connect.require_live(session)
            spec = self._connect.choose(session, slug)
            return await self._go(session, spec, form, cookie or "")
        except NeighbourhoodError as error:
            return self._failed(error, session, slug)

    async def _go(
        self, session: Session, spec: ProviderSpec, form: Mapping[str, str], cookie: str
    ) -> Response:
        ways = await self._connect.ways(session, spec)
        way = next((item for item in ways if item == form.get("way")), None) or _first(ways, spec)
        fields = filled(_fields(spec, way), form, spec)
        said = _MEND if any(field.error for field in fields) else ""
        if not said:
            try:
                if way == "oauth":
                    address = await self._connect.begin(session, spec, fields)
                    frame = self._frame(session)
                    return pages.page("leaving.html", **frame, provider=spec.name, address=address)
                await self._connect.enter(session, spec, way, fields)
            except InvalidInput as error:
                fields, said = blamed(fields, error.problems), _MEND
                if not any(field.error for field in fields):
                    raise
            except NeighbourhoodError as error:
                await self._connect.note_failure(session, spec.slug, error)
                return _to(f"/connect/{session.id}/result")
            else:
                return _to(f"/connect/{session.id}/result")
        return await self._form(session, spec, (way, ways), fields, cookie, said)

    async def _form(
        self,
        session: Session,
        spec: ProviderSpec,
        way: tuple[Way, Sequence[Way]],
        fields: Sequence[Field],
        cookie: str,
        said: str = "",
    ) -> Response:
        chosen, ways = way
        asked = [field for field in fields if field.error] or [f for f in fields if not f.usual]
        return pages.page(
            "provider.html",
            _UNPROCESSABLE if said else 200,
            **self._frame(session),
            provider=spec.name,
            slug=spec.slug,
            way=chosen,
            others=[(item, _WAYS.get(item, item)) for item in ways if item != chosen],
            fields=fields,
            focus=asked[0].key if asked else "",
            said=said,
            again=session.connection_id is not None,
            token=form_token(cookie),
            several=session.providers is None or len(session.providers) > 1,
        )

    async def _result(self, name: str, request: Request) -> Response:
        session: Session | None = None
        try:
            session = await self._connect.opened(name, self._cookie(request, name))
            if session.status is None or session.provider is None:
                return _to(f"/connect/{name}")
            if session.status == "connected":
                return await self._connected(session, session.provider)
        except NeighbourhoodError as error:
            return self._failed(error, session, None)
        live = self._connect.state_of(session) != "expired"
        told = {"error": session.error or "internal", "provider": session.provider}
        return pages.failed(
            self._name(session.provider),
            session.error or "internal",
            200,
            workspace=session.workspace_name,
            again=f"/connect/{name}/to/{session.provider}" if live else None,
            onward=_onward(session, "failed", told),
            test=session.mode == "test",
        )

    async def _connected(self, session: Session, slug: str) -> Response:
        made = await self._connect.result(session)
        told = {"provider": slug, "connection_id": session.result_id or ""}
        frame = self._frame(session)
        return pages.page(
            "connected.html",
            workspace=frame["workspace"],
            test=frame["test"],
            provider=self._name(slug),
            account=made.account_name if made is not None else None,
            missing=made is not None and bool(self._vault.missing_scopes(made)),
            onward=_onward(session, "connected", told),
        )

    def _failed(
        self,
        error: NeighbourhoodError,
        session: Session | None,
        slug: str | None,
        *,
        own: bool = True,
    ) -> Response:
        """Show an error; `own`: this browser opened the link, so it may go on from here."""
        again = onward = None
        if session is not None and own:
            if self._connect.state_of(session) != "expired":
                again = f"/connect/{session.id}" + (f"/to/{slug}" if slug is not None else "")
            onward = _onward(session, "failed", {"error": error.code})
        return pages.failed(
            self._name(slug),
            error.code,
            error.status,
            workspace=session.workspace_name if session is not None else None,
            again=again,
            onward=onward,
            test=session is not None and session.mode == "test",
        )

    def _frame(self, session: Session) -> dict[str, Any]:
        """Give what every page of a link shows."""
        return {
            "workspace": session.workspace_name,
            "test": session.mode == "test",
            "here": f"/connect/{session.id}",
            "cancel": _onward(session, "cancelled", {}),
        }

    def _name(self, slug: str | None) -> str:
        if slug is not None and slug in self._vault.catalogue:
            return self._vault.catalogue.get(slug).name
        return "the account"

    def _cookie_name(self, session_id: str) -> str:
        # The prefix makes browsers insist on https and on this very host.
        return f"{'__Host-' if self._secure else ''}nhood_connect_{session_id}"

    def _cookie(self, request: Request, session_id: str) -> str | None:
        return request.cookies.get(self._cookie_name(session_id))


async def _styles() -> Response:
    headers = {
        "Cache-Control": f"public, max-age={_STYLES_LIFE_S}",
        "X-Content-Type-Options": "nosniff",
    }
    return FileResponse(pages.STYLES, media_type="text/css", headers=headers)


def _to(address: str) -> RedirectResponse:
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return RedirectResponse(address, 303, headers)


def _is_visit(request: Request) -> bool:
    """Say whether a browser says that a person is going there (Fetch Metadata).

    https://www.w3.org/TR/fetch-metadata/; `Sec-Purpose` marks what is fetched ahead of a visit.
    """
    headers = request.headers
    ahead = headers.get("sec-purpose", "") + headers.get("purpose", "")
    is_navigation = headers.get("sec-fetch-mode") == "navigate"
    return is_navigation and headers.get("sec-fetch-dest") == "document" and not ahead


async def _form_of(request: Request) -> dict[str, str]:
    """Read a form, up to a bound.

    Raises:
        TooLarge: It is larger.
        InvalidInput: It is no form.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES_MAX:
            raise TooLarge(f"The form is larger than {FORM_BYTES_MAX} bytes.")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX)
    except ValueError:
        raise InvalidInput("This is not a form.", code="not_a_form") from None
    return dict(pairs)


def _check_origin(request: Request, form: Mapping[str, str], cookie: str) -> None:
    """Refuse a form that another page sent.

    Raises:
        Forbidden: `form_foreign`.
    """
    site = request.headers.get("sec-fetch-site", "same-origin")
    given = form.get("token", "").encode()
    if site != "same-origin" or not hmac.compare_digest(given, form_token(cookie).encode()):
        raise Forbidden("This form was not sent from its own page.", code="form_foreign")


def _first(ways: Sequence[Way], spec: ProviderSpec) -> Way:
    if not ways:
        raise NotFound(f"{spec.name} cannot be connected here.", code="oauth_app_missing")
    return ways[0]


def _fields(spec: ProviderSpec, way: Way) -> list[Field]:
    kind = "oauth2" if way == "oauth" else way
    return fields_of(spec.connected_by(kind), with_credentials=way != "oauth")


def _onward(session: Session, status: str, told: Mapping[str, str]) -> str | None:
    if session.return_url is None:
        return None
    known = {"status": status, "session_id": session.id}
    return pages.with_query(session.return_url, {**known, **told})
