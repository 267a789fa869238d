"""`nhood people`: the operator makes people, puts them into workspaces and resets passwords.

("Users" are the developers' customers everywhere here, so these are people.)
A password is asked for, or read from standard input where that is no terminal; never an argument,
which other processes could see.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from schemas.errors import InvalidInput
from schemas.settings import Secret, Settings

if TYPE_CHECKING:
    from wire.database import Pool

T = TypeVar("T")
_Email = Annotated[str, typer.Argument(help="Their e-mail address.")]
_MAKE_HELP = "Their name."


def build(settings: Callable[[], Settings], say: Callable[[str], None]) -> typer.Typer:
    """Build the command.

    Args:
        settings: Gives the settings, with the addresses of the running stack where it runs.
        say: Prints a sentence.
    """
    app = typer.Typer(help="Make people, give them roles, reset passwords.", no_args_is_help=True)

    @app.command()
    def create(email: _Email, name: Annotated[str, typer.Option(help=_MAKE_HELP)] = "") -> None:
        """Make a person who can log in; asks for the password."""
        from control import operator

        password = _password()
        person = _run(settings(), lambda pool: operator.create(pool, email, name, password))
        say(f"Made {person}.")

    @app.command()
    def add(
        email: _Email,
        workspace: Annotated[str, typer.Argument(help="ws_…")],
        role: Annotated[str, typer.Option(help="owner, admin, developer or viewer.")] = "owner",
    ) -> None:
        """Make a person a member of a workspace, or change their role there."""
        from control import operator

        _run(settings(), lambda pool: operator.join(pool, email, workspace, role))
        say(f"{email} is {role} of {workspace}.")

    @app.command()
    def reset_password(email: _Email) -> None:
        """Give a person another password; ends all their sessions."""
        from control import operator

        password = _password()
        ended = _run(settings(), lambda pool: operator.reset_password(pool, email, password))
        say(f"Done; {ended} sessions ended.")

    @app.command()
    def retire_signing_keys() -> None:
        """Make all access tokens bad at once; people go on by refreshing."""
        from control import operator

        retired = _run(settings(), operator.retire_signing_keys)
        say(f"Retired {retired} keys; running gateways follow within 10 s.")

    return app


def _password() -> Secret:
    if sys.stdin.isatty():
        return Secret(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    return Secret(sys.stdin.readline().rstrip("\n"))


def _run(settings: Settings, work: "Callable[[Pool], Awaitable[T]]") -> T:
    from wire.database import migrate, open_pool

    url = settings.database_url.reveal()
    if not url:
        raise InvalidInput("Set DATABASE_URL, or start it with `nhood up`.", code="missing_setting")
    migrate(url)

    async def run() -> T:
        pool = await open_pool(url, max_size=2, name="people")
        try:
            return await work(pool)
        finally:
            await pool.close()

    return asyncio.run(run())
