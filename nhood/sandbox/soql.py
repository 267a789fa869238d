"""As much of Salesforce's query language as finds again what was made: fields, kind, comparison.

    SELECT Id, Name FROM Lead WHERE Email = 'jane@acme.example' AND Company = 'Acme' LIMIT 10

https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select.htm
"""

import re
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from nhood.sandbox.likeness import stamp
from nhood.sandbox.records import Record

if TYPE_CHECKING:
    from nhood.sandbox.acting import Act

_QUERY: Final = re.compile(
    r"\s*SELECT\s+(?P<fields>[\w\s,.()]+?)\s+FROM\s+(?P<kind>\w+)(?:\s+WHERE\s+(?P<where>.+?))?"
    r"(?:\s+ORDER\s+BY\s+(?P<order>\w+)[\w\s,.]*?)?(?:\s+LIMIT\s+(?P<limit>\d+))?\s*",
    re.IGNORECASE | re.DOTALL,
)
_TERM: Final = re.compile(r"\s*(\w+)\s*(=|>=|>)\s*('(?:[^'\\]|\\.)*'|[\w.:+-]+)\s*")
_AND: Final = re.compile(r"\s+AND\s+", re.IGNORECASE)
_STANDARD: Final = "fields(standard)"


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
    order, found = (match["order"] or "").lower(), []
    for record in reversed(doing.account.shelf(resource).records.values()):
        shown = _fields(record)
        fields = {name.lower(): value for name, value in shown.items()}
        if all(_holds(str(fields.get(name, "")), *term) for name, *term in asked):
            url = f"/services/data/v62.0/sobjects/{match['kind']}/{shown['Id']}"
            if _STANDARD not in map(str.lower, wanted):
                shown = {name: fields.get(name.lower()) for name in wanted if "(" not in name}
            item = {"attributes": {"type": match["kind"], "url": url}, **shown}
            found.append((str(fields.get(order, "")), item))
    items = [item for _, item in (sorted(found, key=itemgetter(0)) if order else found)]
    return items[: int(match["limit"])] if match["limit"] else items


def _holds(own: str, sign: str, asked: str) -> bool:
    if sign == "=":
        return own.lower() == asked.lower()
    one, other = (re.sub(r"(\+00:?00|Z)$", "", text)[:19] for text in (own, asked))
    return one >= other if sign == ">=" else one > other


def _path(plan: Any) -> str:  # noqa: ANN401 - a Plan
    return str(plan.spec.request.path.source)


def _conditions(where: str | None) -> list[tuple[str, str, str]] | None:
    if where is None:
        return []
    found = []
    for part in _AND.split(where):
        match = _TERM.fullmatch(part)
        if match is None:
            return None
        value = match[3]
        if value.startswith("'"):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        found.append((match[1].lower(), match[2], value))
    return found


def _fields(record: Record) -> dict[str, Any]:
    fields = {"Id": next(iter(record.names.values())), **record.sent}
    names = (record.sent.get("FirstName"), record.sent.get("LastName"))
    fields.setdefault("Name", " ".join(str(name) for name in names if name) or None)
    for name, moment_s in (("CreatedDate", record.made_s), ("SystemModstamp", record.changed_s)):
        # https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/intro_valid_date_formats.htm
        fields.setdefault(name, stamp(moment_s).replace("Z", ".000+0000"))
    return fields
