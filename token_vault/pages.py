"""The pages that an end customer sees at the end of a consent; plain HTML, no script, no look-ups.

They work on a narrow screen, with a keyboard and read aloud, and say what to do next.
"""

from html import escape
from typing import Final

from starlette.responses import HTMLResponse

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; form-action 'none';"
        " base-uri 'none'"
    ),
}

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1.05rem/1.5 system-ui, sans-serif; margin: 0; padding: 1.5rem; }}
main {{ max-width: 34rem; margin: 10vh auto 0; padding: 1.5rem 2rem; border: 1px solid #8886;
  border-top: .4rem solid {colour}; border-radius: .5rem; }}
h1 {{ font-size: 1.4rem; line-height: 1.25; margin: 0 0 .75rem; overflow-wrap: anywhere; }}
p {{ margin: .5rem 0; overflow-wrap: anywhere; }}
code {{ font-size: .9em; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""

# What the customer can do, by error; anything else means: start again.
_ADVICE: Final = {
    "consent_denied": "If you did want to connect, go back to where you started and choose Allow.",
    "state_expired": "Go back to where you started and connect again; it takes a minute.",
    "state_used": "If your account is not connected yet, go back and start again.",
    "vendor_unavailable": "Wait a few minutes, then go back to where you started and try again.",
    "account_unknown": "Wait a few minutes, then go back to where you started and try again.",
    "no_account": "Choose an account on the consent page, or ask its administrator for access.",
    "oauth_app_missing": "This is not yours to mend: tell whoever sent you here.",
    "exchange_refused": "Go back and try again. If it fails again, tell whoever sent you here.",
}
_START_AGAIN: Final = "Go back to where you started and try again."

# What the customer is told; the developer gets the error's own sentence.
_REASONS: Final = {
    "consent_denied": "Access was declined, so nothing was connected.",
    "state_expired": "This took longer than ten minutes, so for your safety it was stopped.",
    "state_used": "This link was used already; each one works once.",
    "state_unknown": "This link is not complete, or it was not made here.",
    "state_foreign": "This link does not belong here.",
    "vendor_unavailable": "{name} is not answering properly at the moment.",
    "account_unknown": "{name} is not answering properly at the moment.",
    "no_account": "{name} gave access, but to no account.",
    "exchange_refused": "{name} did not accept the connection.",
}


def connected(name: str, account: str | None) -> HTMLResponse:
    """Say that it worked.

    Args:
        name: The provider's.
        account: What the vendor calls the account, where it says.
    """
    whose = f" (<strong>{escape(account)}</strong>)" if account else ""
    body = (
        f'<p role="status">Your {escape(name)} account{whose} is connected.</p>'
        "<p>You can close this window and go back to where you started.</p>"
    )
    return _page(f"{name} is connected", body, "#1a7f37", 200)


def failed(name: str, code: str, status: int) -> HTMLResponse:
    """Say that it did not work, why, and what to do.

    Args:
        name: The provider's.
        code: The error's; shown, so that it can be reported.
        status: The error's HTTP status.
    """
    reason = _REASONS.get(code, "Something went wrong on the way.").format(name=name)
    body = (
        f'<p role="alert">{escape(reason)}</p><p>{escape(_ADVICE.get(code, _START_AGAIN))}</p>'
        f"<p><small>Code for support: <code>{escape(code)}</code></small></p>"
    )
    return _page(f"{name} is not connected", body, "#b3261e", status)


def _page(title: str, body: str, colour: str, status: int) -> HTMLResponse:
    page = _PAGE.format(title=escape(title), body=body, colour=colour)
    return HTMLResponse(page, status, headers=_HEADERS)
