"""`nhood providers`: the catalogue, its pages, and the tools to add to it."""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from schemas.provider import Catalogue, ProviderSpec

DOCS = Path("docs/integrations")
_URL = "http://sandbox.example"
_Slug = Annotated[str, typer.Argument(help="Provider, such as slack.")]
_Json = Annotated[bool, typer.Option("--json", help="For programs.")]
_Account = Annotated[
    list[str] | None,
    typer.Option("--account", help="A fact about the account: subdomain=acme. May be repeated."),
]
_Category = Annotated[
    str, typer.Option(help="communication, email_marketing, project_management, crm_sales, …")
]


def build(say: Callable[[str], None]) -> typer.Typer:
    """Build the command.

    Args:
        say: Prints a sentence.
    """
    app = typer.Typer(
        help="Providers: what there is, whether it is whole, and a beginning for a new one.",
        no_args_is_help=True,
    )
    _add_list(app, say)
    _add_show(app, say)
    _add_check(app, say)
    _add_try(app, say)
    _add_new(app, say)
    _add_docs(app, say)
    return app


def _add_list(app: typer.Typer, say: Callable[[str], None]) -> None:
    @app.command("list")
    def list_(category: _Category = "", *, as_json: _Json = False) -> None:
        """List the providers."""
        from schemas.tiers import standing

        rows = [
            {
                "provider": spec.slug,
                "name": spec.name,
                "category": spec.category,
                "status": spec.status,
                "tier": standing(spec).tier,
                "actions": len(spec.actions),
            }
            for spec in _catalogue()
            if category in ("", spec.category)
        ]
        if as_json:
            say(json.dumps({"items": rows}))
            return
        for row in rows:
            gone = "" if row["status"] == "live" else f"  ({row['status']})"
            say(
                f"{row['provider']:18} {row['actions']:3} actions  {row['tier']:6}"
                f"  {row['category']:18} {row['name']}{gone}"
            )
        if not rows:
            raise NotFound(f"No provider is in {category!r}; see `nhood providers list`.")


def _add_show(app: typer.Typer, say: Callable[[str], None]) -> None:
    @app.command()
    def show(
        provider: _Slug,
        action: Annotated[str, typer.Argument(help="One of its actions.")] = "",
    ) -> None:
        """Show a provider, or one of its actions with params and an example."""
        from nhood.providers.page import action_page, page
        from schemas.tiers import standing

        spec = _catalogue().get(provider)
        if action:
            say(action_page(spec, spec.action(action)))
        else:
            say(page(spec, standing(spec)))


def _add_check(app: typer.Typer, say: Callable[[str], None]) -> None:
    @app.command()
    def check(
        provider: Annotated[
            list[str] | None, typer.Argument(help="All where none is named.")
        ] = None,
        account: _Account = None,
    ) -> None:
        """Look whether providers are whole; exit code 1 where something is wrong.

        Shape, references, examples, documented failures, signatures, samples of webhooks.
        """
        from nhood.providers.checking import faults
        from schemas.tiers import standing

        catalogue = _catalogue()
        chosen = [catalogue.get(slug) for slug in provider] if provider else list(catalogue)
        wrong = 0
        for spec in chosen:
            found = faults(spec, _pairs(account, "--account"))
            wrong += bool(found)
            at = standing(spec)
            say(f"{spec.slug}: {'wrong' if found else at.tier}, {len(spec.actions)} actions")
            for fault in found:
                say(f"  {fault}")
            if not found and at.lacking and provider:
                say(f"  for the next tier: {'; '.join(at.lacking)}")
        if wrong:
            raise typer.Exit(1)


def _add_try(app: typer.Typer, say: Callable[[str], None]) -> None:
    @app.command("try")
    def try_(
        provider: _Slug,
        action: Annotated[str, typer.Argument(help="Action, such as send_message.")],
        params: Annotated[
            str, typer.Option(help="As in a step's `config`, JSON; without: the example's.")
        ] = "",
        account: _Account = None,
        key: Annotated[str, typer.Option(help="Key of the effect.")] = "try-1",
    ) -> None:
        """Call an action against the sandbox, and show what is sent and how the answer is read."""
        spec = _catalogue().get(provider)
        found = spec.action(action)
        given = _params(params) if params else dict(found.example.params)
        outcome = asyncio.run(_tried(spec, action, given, _pairs(account, "--account"), key, say))
        say(f"{outcome.kind}{f' ({outcome.code})' if outcome.code else ''}")
        if outcome.kind == "succeeded":
            say(_pretty(getattr(outcome, "output", None)))
            return
        say(outcome.message)
        raise typer.Exit(1)


async def _tried(
    spec: "ProviderSpec",
    action: str,
    params: Mapping[str, Any],
    told: Mapping[str, str],
    key: str,
    say: Callable[[str], None],
) -> Any:  # noqa: ANN401 - an outcome; its module is slow to load
    import httpx

    from executors.core.request import Request, Response
    from nhood.providers.account import variables_of
    from nhood.providers.trying import Trial
    from nhood.sandbox.app import build_app
    from schemas.provider import Catalogue
    from schemas.settings import Settings

    def watch(request: Request, url: str, response: Response) -> None:
        body = request.payload()[0] or b""
        say(f"→ {request.method} {url.removeprefix(f'{_URL}/{spec.slug}')}")
        if body:
            say(f"  {body.decode(errors='replace')}")
        say(f"← {response.status} {response.content.decode(errors='replace')}")

    settings = Settings.from_env({"NHOOD_SANDBOX_URL": _URL})
    sandbox = httpx.ASGITransport(build_app(Catalogue({spec.slug: spec})))
    async with httpx.AsyncClient(transport=sandbox) as client:
        trial = Trial(spec, client, settings, variables_of(spec, told), watch=watch)
        return await trial.act(action, params, key)


def _add_new(app: typer.Typer, say: Callable[[str], None]) -> None:
    @app.command()
    def new(
        slug: Annotated[str, typer.Argument(help="Lower case, such as acme_crm.")],
        base_url: Annotated[str, typer.Option(help="https://… of its API.")],
        name: Annotated[str, typer.Option(help="As people know it.")] = "",
        category: _Category = "crm_sales",
        auth: Annotated[str, typer.Option(help="oauth2 or api_key.")] = "oauth2",
    ) -> None:
        """Begin a new provider: a folder that works in the sandbox as it stands."""
        from nhood.providers.scaffold import scaffold
        from schemas.provider import FOLDER

        if auth not in ("oauth2", "api_key"):
            raise InvalidInput(f"--auth is oauth2 or api_key, not {auth!r}; other kinds by hand.")
        place = scaffold(Path(FOLDER), slug, name or slug.title(), category, base_url, auth)
        say(f"{place} is there. Now fill in provider.yaml, then:")
        say(f"  nhood providers check {slug}")
        say(f"  nhood providers try {slug} create_thing")
        say("docs/adding-a-provider.md goes through it.")


def _add_docs(app: typer.Typer, say: Callable[[str], None]) -> None:
    @app.command()
    def docs(
        folder: Annotated[Path, typer.Option(help="Where the pages go.")] = DOCS,
        *,
        check: Annotated[bool, typer.Option("--check", help="Only say what is not true.")] = False,
    ) -> None:
        """Write a page for each provider and the table of all."""
        from nhood.providers.pages import pages

        wanted = pages(_catalogue())
        there = {path.name: path.read_text() for path in folder.glob("*.md")}
        old = [name for name in {*wanted, *there} if wanted.get(name) != there.get(name)]
        if check:
            for name in sorted(old):
                say(f"{folder / name} is not as its provider says; run `nhood providers docs`.")
            raise typer.Exit(1 if old else 0)
        folder.mkdir(parents=True, exist_ok=True)
        for name in old:
            if name in wanted:
                (folder / name).write_text(wanted[name])
            else:
                (folder / name).unlink()
        say(f"{len(wanted)} pages in {folder}, {len(old)} changed.")


def _catalogue() -> "Catalogue":
    from schemas.provider import load_catalogue

    return load_catalogue()


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    pairs = [item.partition("=") for item in given or ()]
    for name, sign, _ in pairs:
        if not sign:
            raise InvalidInput(f"{option} wants name=value, not {name!r}.")
    return {name: value for name, _, value in pairs}


def _params(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"--params is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput('--params is an object, such as \'{"channel": "#ops"}\'.')
    return value


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
