"""The pages as HTML: made by Jinja with every value escaped; no script, nothing from elsewhere.

They work without JavaScript, on a narrow screen, with a keyboard, in the dark and read aloud.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from token_vault.core.sentences import sentence

STYLES: Final = Path(__file__).with_name("connect.css")
STYLES_ADDRESS: Final = "/assets/connect/connect.css"
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src data:; form-action 'self';"
        " base-uri 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
}
_SOMEBODY: Final = "whoever sent you here"


@functools.cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    version = hashlib.sha256(STYLES.read_bytes()).hexdigest()[:12]
    made.globals["styles"] = f"{STYLES_ADDRESS}?v={version}"
    made.globals["hue"] = _hue
    return made


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:  # noqa: ANN401
    """Make a page.

    Args:
        template: File under `templates/`.
        status: HTTP status.
        values: What the template names; a name that is missing is an error.
    """
    text = _environment().get_template(template).render(**values)
    return HTMLResponse(text, status, headers=HEADERS)


def connected(name: str, account: str | None) -> HTMLResponse:
    """Say that it worked, where there is no link to go back to.

    Args:
        name: The provider's.
        account: What the vendor calls the account, where it says.
    """
    return page(
        "connected.html",
        provider=name,
        account=account,
        workspace=None,
        missing=False,
        onward=None,
        test=False,
    )


def choose(name: str, slug: str, state: str, choices: Sequence[Mapping[str, Any]]) -> HTMLResponse:
    """Ask which of the accounts that a grant covers is to be connected.

    Links, not a form: a browser goes on from here to the developer's address, which the policy on
    forms would not let it.
    """
    links = [
        (
            choice["name"] or choice["id"],
            f"/oauth/callback/{slug}?{urlencode({'state': state, 'account': choice['id']})}",
        )
        for choice in choices
    ]
    return page("choose.html", provider=name, links=links, workspace=None, test=False)


def failed(  # noqa: PLR0913 - what a failure's page shows
    name: str,
    code: str,
    status: int,
    *,
    workspace: str | None = None,
    again: str | None = None,
    onward: str | None = None,
    test: bool = False,
) -> HTMLResponse:
    """Say that it did not work, why, and what to do.

    Args:
        name: The provider's.
        code: The error's; shown, so that it can be reported.
        status: The error's HTTP status.
        workspace: Whom the customer deals with, where that is known.
        again: Where they can try again.
        onward: Where they can go back to.
        test: Whether this is test mode.
    """
    told = sentence(code, name, workspace or _SOMEBODY)
    return page(
        "failed.html",
        status,
        provider=name,
        code=code,
        told=told,
        workspace=workspace,
        again=again if told.action != "restart" else None,
        onward=onward,
        test=test,
    )


def _hue(name: str) -> int:
    """Give each name one of twelve colours, always the same."""
    return hashlib.sha256(name.encode()).digest()[0] % 12


def with_query(url: str, told: Mapping[str, str]) -> str:
    """Add to an address's query."""
    parts = urlsplit(url)
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *told.items()])
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))
