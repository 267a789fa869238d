"""Where sealed secrets lie, so that a change of keys reaches all of them.

    root          wraps workspace keys; seals secrets of the platform itself (`RootHolder`)
    workspace     wraps user keys; seals secrets of the workspace (`Holder`)
    user          seals credentials

Whoever adds a column of sealed bytes adds it here: a test compares this with the tables. What ends
by itself within a day (`BRIEF`) is not sealed anew, but keeps its key alive until it has ended.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import sql

from token_vault.core.envelope import Place

# `key_` and 26 characters: ids of workspace and user keys (`schemas.ids`), from the fourth byte on.
_KEY_ID: Final = "from 4 for 30"


def app_field(provider: str) -> str:
    """Name the secret of a workspace's own OAuth app at a provider."""
    return f"oauth_app/{provider}"


@dataclass(frozen=True, slots=True)
class Holder:
    """A column of secrets that are sealed with their workspace's key.

    Attributes:
        ids: The columns that, with `workspace_id`, name a row.
        place: Gives the place from the workspace and the row's ids.
    """

    table: str
    column: str
    ids: tuple[str, ...]
    place: Callable[[str, Mapping[str, Any]], Place]


@dataclass(frozen=True, slots=True)
class RootHolder:
    """A column of secrets that are sealed with the root; rows are named by `id`."""

    table: str
    column: str
    place: Callable[[str], Place]


HOLDERS: Final[tuple[Holder, ...]] = (
    *(
        Holder(
            "webhook_endpoints",
            column,
            ("id",),
            lambda workspace, row: Place(workspace, "-", f"webhook_endpoint/{row['id']}"),
        )
        for column in ("secret", "old_secret")
    ),
    Holder(
        "oauth_apps",
        "secret",
        ("provider",),
        lambda workspace, row: Place(workspace, "-", app_field(row["provider"])),
    ),
)
ROOT_HOLDERS: Final = (
    RootHolder("signing_keys", "sealed", lambda id_: Place("-", "-", f"signing_key/{id_}")),
    RootHolder("statement_keys", "sealed", lambda id_: Place("-", "-", f"statement_key/{id_}")),
)

# Columns that need code of their own in `token_vault.reseal`, or none.
CREDENTIALS: Final = ("connections", "credential")
WRAPPED_KEYS: Final = ("vault_keys", "wrapped")
BRIEF: Final = (
    ("oauth_states", "verifier"),  # ten minutes
    ("oauth_states", "pending"),  # ten minutes
    ("idempotency_keys", "answer"),  # a day
)

_SAME: Final = "= convert_to(k.id, 'UTF8')"
_BRIEF_USES: Final = (
    "SELECT FROM oauth_states s WHERE s.workspace_id = k.workspace_id AND s.used_at IS NULL"
    f" AND s.expires_at > now() AND substring(s.verifier {_KEY_ID}) {_SAME}",
    "SELECT FROM oauth_states s WHERE s.workspace_id = k.workspace_id"
    f" AND s.expires_at > now() AND substring(s.pending {_KEY_ID}) {_SAME}",
    # The workspace's id and a space go before the sealed answer.
    "SELECT FROM idempotency_keys i"
    " WHERE substring(i.answer from 34 for 30) = convert_to(k.id, 'UTF8')",
)
_WORKSPACE_USES: Final = (
    "SELECT FROM vault_keys u WHERE u.workspace_id = k.workspace_id AND u.kind = 'user'"
    " AND u.wrapped_by = k.id",
    "SELECT FROM workspaces w, jsonb_array_elements(w.webhook_secrets) e"
    " WHERE w.id = k.workspace_id"
    f" AND substring(decode(e->>'ciphertext', 'base64') {_KEY_ID}) {_SAME}",
    *_BRIEF_USES,
)
_USER_USES: Final = (
    "SELECT FROM connections c WHERE c.workspace_id = k.workspace_id AND c.user_id = k.user_id"
    f" AND substring(c.credential {_KEY_ID}) {_SAME}",
)
OLD_CREDENTIALS: Final = (
    "FROM connections c WHERE c.workspace_id = %(workspace)s AND c.credential IS NOT NULL"
    " AND NOT EXISTS (SELECT FROM vault_keys k WHERE k.workspace_id = c.workspace_id"
    f" AND k.id = encode(substring(c.credential {_KEY_ID}), 'escape')"
    " AND k.created_at >= %(since)s)"
)


def unused() -> sql.Composed:
    """Give the condition that nothing is sealed with the key `k` of `vault_keys`."""
    held = [
        sql.SQL(
            "SELECT FROM {table} h WHERE h.workspace_id = k.workspace_id"
            " AND substring(h.{column} from 4 for 30) = convert_to(k.id, 'UTF8')"
        ).format(table=sql.Identifier(holder.table), column=sql.Identifier(holder.column))
        for holder in HOLDERS
    ]
    of_workspace = [*(sql.SQL(text) for text in _WORKSPACE_USES), *held]
    return sql.SQL("CASE k.kind WHEN 'user' THEN {user} ELSE {workspace} END").format(
        user=_none_of([sql.SQL(text) for text in _USER_USES]),
        workspace=_none_of(of_workspace),
    )


def _none_of(queries: Sequence[sql.Composable]) -> sql.Composed:
    return sql.SQL("NOT ({})").format(
        sql.SQL(" OR ").join(sql.SQL("EXISTS ({})").format(query) for query in queries)
    )
