"""What the operator does to people from the command line, where no log-in is needed."""

from control.core.passwords import check, normal
from control.core.roles import ROLES, Role
from control.core.tokens import normal_email
from control.passwords import Passwords
from control.store import members, people, signing, workspaces
from control.store.query import Row
from schemas.errors import Conflict, InvalidInput, NotFound
from schemas.settings import Secret
from wire.clock import mint, now
from wire.database import Pool, connection


async def create(pool: Pool, email: str, name: str, password: Secret) -> str:
    """Make a person.

    Returns:
        Their id.

    Raises:
        InvalidInput: `weak_password` or `bad_email`.
        Conflict: `email_taken`.
    """
    address = normal_email(email)
    if address.count("@") != 1 or any(part == "" for part in address.split("@")):
        raise InvalidInput(f"{email!r} is no e-mail address.", code="bad_email")
    text = normal(password.reveal())
    check(text, (address, name))
    hashed, person = await Passwords().hash(text), mint("per")
    async with connection(pool) as on:
        if not await people.insert(on, person, address, name, hashed):
            raise Conflict(f"There is a person with {address} already.", code="email_taken")
    return person


async def join(pool: Pool, email: str, workspace: str, role: str) -> Role:
    """Make a person a member of a workspace, or give the member another role.

    Raises:
        NotFound: No such person or workspace.
        InvalidInput: `bad_role`.
        Conflict: `last_owner`.
    """
    known = next((name for name in ROLES if name == role), None)
    if known is None:
        raise InvalidInput(f"{role!r} is no role: {', '.join(ROLES)}.", code="bad_role")
    person = await _find(pool, email)
    async with connection(pool) as on:
        if await workspaces.get(on, workspace) is None:
            raise NotFound(f"There is no workspace {workspace!r}.", code="workspace_not_found")
        await members.lock(on, workspace)
        if await members.add(on, workspace, person["id"], known):
            return known
        was = await members.role_of(on, workspace, person["id"])
        if was == "owner" != known and await members.owners(on, workspace) == 1:
            raise Conflict("This is the last owner of the workspace.", code="last_owner")
        await members.set_role(on, workspace, person["id"], known)
    return known


async def reset_password(pool: Pool, email: str, password: Secret) -> int:
    """Give a person another password and end all their sessions.

    Returns:
        How many sessions there were.
    """
    person = await _find(pool, email)
    text = normal(password.reveal())
    check(text, (person["email"], person["name"]))
    hashed = await Passwords().hash(text)
    async with connection(pool) as on:
        await people.set_password(on, person["id"], hashed)
        return await people.revoke_sessions(on, person["id"], now(), "password_reset")


async def retire_signing_keys(pool: Pool) -> int:
    """Make every access token that was signed until now bad; people go on by a refresh.

    Returns:
        How many keys there were. Running gateways follow within `control.signing.KNOWN_S`.
    """
    async with connection(pool) as on:
        return await signing.retire_all(on)


async def _find(pool: Pool, email: str) -> Row:
    async with connection(pool) as on:
        found = await people.by_email(on, normal_email(email))
    if found is None:
        raise NotFound(f"There is nobody with {email!r}.", code="person_not_found")
    return found
