"""As much of Salesforce's query language as finds again what was made: fields, kind, equality.

    SELECT Id, Name FROM Lead WHERE Email = 'jane@acme.example' AND Company = 'Acme' LIMIT 10

https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select.htm
"""

import re
from typing import TYPE_CHECKING, Any, Final

from nhood.sandbox.records import Record

if TYPE_CHECKING:
    from nhood.sandbox.acting import Act

_QUERY: Final = re.compile(
    r"\s*SELECT\s+(?P<fields>[\w\s,.()]+?)\s+FROM\s+(?P<kind>\w+)(?:\s+WHERE\s+(?P<where>.+?))?"
    r"(?:\s+ORDER\s+BY\s+[\w\s,.]+?)?(?:\s+LIMIT\s+(?P<limit>\d+))?\s*",
    re.IGNORECASE | re.DOTALL,
)
_EQUAL: Final = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|[\w.-]+)\s*")
_AND: Final = re.compile(r"\s+AND\s+", re.IGNORECASE)


def select(doing: "Act") -> list[dict[str, Any]] | None:
    """Answer a query over what was made; None where it cannot be read."""
    match = _QUERY.fullmatch(str(doing.params.get("q", "")))
    if match is None:
        return None
    wanted = [part.strip() for part in match["fields"].split(",")]
    asked = _conditions(match["where"])
    kind = match["kind"].lower()
    plans = [p for p in doing.vendor.plans() if p.spec.request is not None]
    resource = next(
        (p.spec.resource for p in plans if f"/sobjects/{kind}" in _path(p).lower()), None
    )
    if asked is None or resource is None:
        return None
    found = []
    for record in reversed(doing.account.shelf(resource).records.values()):
        fields = _fields(record)
        if all(str(fields.get(name, "")).lower() == value.lower() for name, value in asked):
            url = f"/services/data/v62.0/sobjects/{match['kind']}/{fields['id']}"
            shown = {name: fields.get(name.lower()) for name in wanted if "(" not in name}
            found.append({"attributes": {"type": match["kind"], "url": url}, **shown})
    return found[: int(match["limit"])] if match["limit"] else found


def _path(plan: Any) -> str:  # noqa: ANN401 - a Plan
    return str(plan.spec.request.path.source)


def _conditions(where: str | None) -> list[tuple[str, str]] | None:
    if where is None:
        return []
    found = []
    for part in _AND.split(where):
        match = _EQUAL.fullmatch(part)
        if match is None:
            return None
        value = match[2]
        if value.startswith("'"):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        found.append((match[1].lower(), value))
    return found


def _fields(record: Record) -> dict[str, Any]:
    fields = {key.lower(): value for key, value in record.sent.items()}
    fields["id"] = next(iter(record.names.values()))
    names = (fields.get("firstname"), fields.get("lastname"))
    fields.setdefault("name", " ".join(str(name) for name in names if name) or None)
    return fields
