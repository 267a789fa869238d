"""`nhood sandbox`: sends what vendors send, lets things go wrong, shows what came in."""

import asyncio
import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from schemas.errors import InvalidInput
from schemas.settings import Settings

_Provider = Annotated[str, typer.Argument(help="Provider, such as slack.")]
_TIMEOUT_S = 10


def build(settings: Callable[[], Settings], say: Callable[[str], None]) -> typer.Typer:
    """Build the command.

    Args:
        settings: Gives the settings, with the addresses of the running stack where it runs.
        say: Prints a sentence.
    """
    app = typer.Typer(
        help="The vendors that test keys go to: send their webhooks, let calls fail, see what came"
        " in. Its page for people is at the sandbox's address (nhood status).",
        no_args_is_help=True,
    )
    _add_send(app, say)
    _add_events(app, say)
    _add_faults(app, settings, say)
    _add_received(app, settings, say)
    return app


def _add_send(app: typer.Typer, say: Callable[[str], None]) -> None:
    @app.command()
    def send(
        provider: _Provider,
        event: Annotated[str, typer.Argument(help="Event; without one the first sample.")] = "",
        to: Annotated[str, typer.Option(help="The address of a webhook endpoint: …/hooks/…")] = "",
        secret: Annotated[
            str, typer.Option(envvar="NHOOD_WEBHOOK_SECRET", help="What the endpoint was told.")
        ] = "",
        body: Annotated[str, typer.Option(help="JSON to send in place of the sample's body.")] = "",
    ) -> None:
        """Send a webhook, signed as the vendor signs, and show what is answered."""
        from nhood.sandbox.sending import send as deliver
        from schemas.provider import load_catalogue

        if not to:
            raise InvalidInput(
                "Say where to: --to with the `url` of a webhook endpoint"
                " (POST /api/v1/workspaces/{ws}/webhook-endpoints)."
            )
        own = _json(body, "--body") if body else None
        spec = load_catalogue().get(provider)
        done = asyncio.run(deliver(spec, event, to, secret, own))
        say(f"{done.event}: {len(done.sent.content)} bytes to {to}")
        say(f"{done.status} {done.answer}")
        if done.status >= 300:  # the vendor would send it again
            raise typer.Exit(1)


def _add_events(app: typer.Typer, say: Callable[[str], None]) -> None:
    @app.command()
    def events(
        provider: Annotated[str, typer.Argument(help="Provider; all without.")] = "",
    ) -> None:
        """List the webhooks that can be sent."""
        from nhood.sandbox.sheet import read_sheet
        from schemas.provider import load_catalogue

        catalogue = load_catalogue()
        for spec in [catalogue.get(provider)] if provider else catalogue:
            names = ", ".join(read_sheet(spec.folder).events)
            if names or provider:
                say(f"{spec.slug}: {names or 'none'}")


def _add_faults(
    app: typer.Typer, settings: Callable[[], Settings], say: Callable[[str], None]
) -> None:
    @app.command()
    def faults(  # noqa: PLR0913 - options of a command
        provider: Annotated[str, typer.Argument(help="Without one: list what waits.")] = "",
        action: Annotated[str, typer.Argument(help="An action, oauth.token …; any without.")] = "",
        status: Annotated[int, typer.Option(help="Answer so instead.")] = 0,
        retry_after: Annotated[int, typer.Option(help="Seconds, as Retry-After.")] = -1,
        delay_ms: Annotated[int, typer.Option(help="Answer so much later.")] = 0,
        reset: Annotated[str, typer.Option(help="Break off: before or after doing it.")] = "",
        times: Annotated[int, typer.Option(help="How many calls.")] = 1,
        *,
        unauthorised: Annotated[bool, typer.Option(help="As for an ended token.")] = False,
        truncate: Annotated[bool, typer.Option(help="Do it, send half the answer.")] = False,
        clear: Annotated[bool, typer.Option("--clear", help="Let nothing go wrong.")] = False,
    ) -> None:
        """Let the next calls of a vendor go wrong; list or clear what waits to."""
        if clear:
            _ask(settings(), "DELETE", "/_sandbox/faults")
            say("Nothing goes wrong any more.")
            return
        if not provider:
            waiting = _ask(settings(), "GET", "/_sandbox/faults")
            for script in waiting:
                say(json.dumps(script))
            say(f"{len(waiting)} faults wait.")
            return
        fault: dict[str, Any] = {"unauthorised": unauthorised, "truncate": truncate}
        fault |= {"status": status} if status else {}
        fault |= {"delay_ms": delay_ms} if delay_ms else {}
        fault |= {"reset": reset} if reset else {}
        fault |= {"headers": {"retry-after": str(retry_after)}} if retry_after >= 0 else {}
        script = {"provider": provider, "times": times, "fault": fault}
        script |= {"action": action} if action else {}
        _ask(settings(), "POST", "/_sandbox/faults", script)
        say(f"The next {times} calls of {provider} {action or '(any action)'} go wrong.")


def _add_received(
    app: typer.Typer, settings: Callable[[], Settings], say: Callable[[str], None]
) -> None:
    @app.command()
    def received(
        provider: Annotated[str, typer.Argument(help="Of all vendors without one.")] = "",
        limit: Annotated[int, typer.Option(help="How many of the last.", min=1)] = 20,
        *,
        as_json: Annotated[bool, typer.Option("--json", help="Whole, a line each.")] = False,
    ) -> None:
        """Show what vendors received last, oldest first."""
        query = {"provider": provider} if provider else {}
        for item in _ask(settings(), "GET", "/_sandbox/received", None, query)["items"][-limit:]:
            if as_json:
                say(json.dumps(item))
                continue
            answer = item["status"] or f"fault: {item['fault']}"
            say(f"{item['number']:6} {item['provider']}.{item['action']}  {item['method']}"
                f" {item['path']}  {answer}")  # fmt: skip


def _ask(
    settings: Settings,
    method: str,
    path: str,
    body: object = None,
    query: dict[str, str] | None = None,
) -> Any:  # noqa: ANN401 - JSON
    import httpx

    base = settings.sandbox_base
    try:
        answer = httpx.request(method, base + path, json=body, params=query, timeout=_TIMEOUT_S)
    except httpx.TransportError as error:
        text = f"The sandbox at {base} does not answer; `nhood up` starts it."
        raise InvalidInput(text, code="sandbox_down") from error
    if answer.status_code >= 400:
        raise InvalidInput(answer.json().get("detail", answer.text))
    return answer.json() if answer.content else None


def _json(text: str, option: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{option} is no JSON: {error}") from None
