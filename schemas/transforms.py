"""The closed list of transforms that a `${… | name}` reference may apply.

A transform is a pure function of one value. A new one is worth adding when two vendors need it;
what one vendor alone does belongs into its `hooks.py`.
"""

import base64
import re
import zlib
from collections.abc import Callable, Mapping
from email.utils import formataddr, getaddresses, parseaddr
from typing import Any, Final
from urllib.parse import quote, unquote

import orjson

from schemas.errors import InvalidInput


def adf(value: object) -> object:
    """Turn plain text into an Atlassian Document Format document; a document passes as it is.

    A blank line starts a new paragraph, a single line break is kept.
    https://developer.atlassian.com/cloud/jira/platform/apis/document/structure/
    """
    if isinstance(value, Mapping):
        return value
    paragraphs: list[dict[str, object]] = []
    for block in _text(value).replace("\r\n", "\n").split("\n\n"):
        content: list[dict[str, object]] = []
        for line in block.strip("\n").split("\n"):
            if content:
                content.append({"type": "hardBreak"})
            if line:  # ADF refuses an empty text node
                content.append({"type": "text", "text": line})
        paragraphs.append({"type": "paragraph", "content": content})
    return {"type": "doc", "version": 1, "content": paragraphs}


def csv(value: object) -> object:
    """Join a list with commas, as many vendors want lists in a query; text passes as it is."""
    if isinstance(value, list | tuple):
        return ",".join(_text(item) for item in value)
    return _text(value)


def json_text(value: object) -> object:
    """Write a value as JSON text, for JSON inside a form field; text passes as it is."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def text(value: object) -> object:
    """Write a value as text (a number that must stay a string)."""
    return _text(value)


def number(value: object) -> object:
    """Read a number out of text; a number passes as it is."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidInput(f"{value!r} is not a number", code="not_a_number")
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    raise InvalidInput(f"{value!r} is not a number", code="not_a_number")


def base64_text(value: object) -> object:
    """Encode text (as UTF-8) in base 64, the standard alphabet with padding."""
    return base64.b64encode(_text(value).encode()).decode()


def from_base64(value: object) -> object:
    """Read text (UTF-8) out of base 64 that may be broken into lines; what is none gives null."""
    try:
        return base64.b64decode("".join(_text(value).split()), validate=True).decode()
    except ValueError:
        return None


def base64_json(value: object) -> object:
    """Open JSON in base 64, as Pub/Sub wraps it; what is none gives null."""
    try:
        return orjson.loads(base64.urlsafe_b64decode(_text(value) + "=="))
    except ValueError:
        return None


def from_json(value: object) -> object:
    """Read JSON out of a text, as SNS wraps it; what is none passes as it is."""
    try:
        return orjson.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def crc32(value: object) -> object:
    """Reckon the CRC-32 of a text or a request's raw body, a number without a sign.

    PayPal signs it: https://developer.paypal.com/api/rest/webhooks/rest/
    """
    return zlib.crc32(_text(value).encode("utf-8", "surrogateescape"))


def last_segment(value: object) -> object:
    """Give what stands behind the last slash: `gid://shopify/Product/7` is 7, and so is `7`."""
    return _text(value).rpartition("/")[2]


def cost_wait(value: object) -> object:
    """Reckon how long a GraphQL call must wait for its cost, in seconds; null where none is told.

    A bucket fills by `restoreRate` points a second; the call wants `requestedQueryCost`.
    https://shopify.dev/docs/api/usage/limits#the-leaky-bucket-algorithm
    """
    cost = value if isinstance(value, Mapping) else {}
    bucket = cost.get("throttleStatus")
    found = bucket if isinstance(bucket, Mapping) else {}
    wanted, there = cost.get("requestedQueryCost"), found.get("currentlyAvailable")
    rate = found.get("restoreRate")
    numbers = (wanted, there, rate)
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers) or not rate:
        return None
    return max(0.0, (wanted - there) / rate)  # type: ignore[operator]  # numbers, as checked


def update_kind(value: object) -> object:
    """Name what a Telegram update holds: its one key beside update_id; null where there is none.

    https://core.telegram.org/bots/api#update
    """
    if not isinstance(value, Mapping):
        return None
    return next((name for name in value if name != "update_id"), None)


def zulu(value: object) -> object:
    """Write a time of UTC as SOQL reads it: Salesforce tells `…16.000+0000`, and takes `…16.000Z`.

    https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select_dateformats.htm
    """
    return re.sub(r"\+00:?00$", "Z", _text(value))


def delta_token(value: object) -> object:
    """Give the token of a delta or next link of Microsoft Graph: `…?token=ab` or `…(token='ab')`.

    https://learn.microsoft.com/graph/api/driveitem-delta
    """
    found = re.search(r"token=(?:'([^']+)'|([^&)]+))", _text(value))
    return unquote(found[1] or found[2]) if found else None


def last_part(value: object) -> object:
    """Give what stands behind the last dot: `#microsoft.graph.chatMessage` is a chatMessage."""
    return _text(value).rpartition(".")[2]


def first_label(value: object) -> object:
    """Give the first part of a host: `acme.myshopify.com` is acme."""
    return _text(value).partition(".")[0]


def lower(value: object) -> object:
    """Write text in lower case."""
    return _text(value).lower()


def as_id(value: object) -> object:
    """Wrap a bare id as `{id: …}`; an object passes as it is."""
    return value if isinstance(value, Mapping) else {"id": _text(value)}


def as_email(value: object) -> object:
    """Wrap a bare address as `{email: …}`; an object passes as it is."""
    return value if isinstance(value, Mapping) else {"email": _text(value)}


def address(value: object) -> object:
    """Write `Ada <ada@acme.example>` as `{email: …, name: …}`; an object passes as it is."""
    if not isinstance(value, str):
        return value
    name, email = parseaddr(value)
    return {"email": email or value, **({"name": name} if name else {})}


def addresses(value: object) -> object:
    """Write a list of addresses, or text with commas between them, as a list of objects."""
    found = [value] if isinstance(value, str | Mapping) else value
    if not isinstance(found, list | tuple):
        return value
    made: list[object] = []
    for one in found:
        if isinstance(one, str):
            made.extend(address(formataddr(pair)) for pair in getaddresses([one]))
        else:
            made.append(one)
    return made


def key_or_id(value: object) -> object:
    """Wrap `12345` as `{id: "12345"}` and `PROJ` as `{key: "PROJ"}`; an object passes as it is."""
    if isinstance(value, Mapping):
        return value
    text_value = _text(value)
    return {"id": text_value} if text_value.isdigit() else {"key": text_value}


def name_or_id(value: object) -> object:
    """Wrap `10004` as `{id: "10004"}` and `Bug` as `{name: "Bug"}`; an object passes as it is."""
    if isinstance(value, Mapping):
        return value
    text_value = _text(value)
    return {"id": text_value} if text_value.isdigit() else {"name": text_value}


def body_text(value: object) -> object:
    """Wrap text as `{body: …}`; an object passes as it is."""
    return value if isinstance(value, Mapping) else {"body": _text(value)}


def names(value: object) -> object:
    """Wrap each bare name of a list as `{name: …}`; objects pass as they are."""
    items = value if isinstance(value, list) else [value]
    return [item if isinstance(item, Mapping) else {"name": _text(item)} for item in items]


def slashed(value: object) -> object:
    """Percent-encode an id that a path's slashes would break: it is encoded once more in a path.

    Zoom wants it so for a meeting's UUID that begins with / or holds //.
    https://developers.zoom.us/docs/api/using-zoom-apis/#meeting-id-and-uuid
    """
    text_value = _text(value)
    if text_value.startswith("/") or "//" in text_value:
        return quote(text_value, safe="")
    return text_value


def notion_text(value: object) -> object:
    """Write text as Notion's rich text, in runs of at most 2,000 characters; a list passes.

    https://developers.notion.com/reference/request-limits#limits-for-property-values
    """
    if isinstance(value, list):
        return value
    text_value = _text(value)
    runs = [text_value[at : at + _RUN] for at in range(0, len(text_value), _RUN)]
    return [{"text": {"content": run}} for run in runs]


def notion_blocks(value: object) -> object:
    """Write text as Notion's blocks; a list of blocks passes as it is.

    A blank line ends a paragraph. Lines that begin as in Markdown become headings (#), items
    (- and 1.), things to do (- [ ]) and quotes (>).
    """
    if isinstance(value, list):
        return value
    blocks: list[dict[str, Any]] = []
    paragraph: list[str] = []

    def close() -> None:
        if paragraph:
            blocks.append(_notion_block("paragraph", "\n".join(paragraph)))
            paragraph.clear()

    for line in _text(value).splitlines():
        match = _NOTION_LINE.match(line)
        if match is None and line.strip():
            paragraph.append(line)
            continue
        close()
        if match is not None:
            blocks.append(_notion_line(match[1], line[match.end() :]))
    close()
    return blocks


def _notion_line(mark: str, words: str) -> dict[str, Any]:
    if mark.startswith("#"):
        return _notion_block(f"heading_{len(mark)}", words)
    if mark.startswith("- ["):
        block = _notion_block("to_do", words)
        block["to_do"]["checked"] = mark[3] != " "
        return block
    kinds = {"-": "bulleted_list_item", "*": "bulleted_list_item", ">": "quote"}
    return _notion_block(kinds.get(mark, "numbered_list_item"), words)


def _notion_block(kind: str, words: str) -> dict[str, Any]:
    return {"object": "block", "type": kind, kind: {"rich_text": notion_text(words)}}


def last_id(value: object) -> object:
    """Give the id of a list's last thing, where the next page starts behind it; null of none."""
    last = value[-1] if isinstance(value, list) and value else None
    return last.get("id") if isinstance(last, Mapping) else None


def sorted_pairs(value: object) -> object:
    """Write a form's pairs in the order of their names, names and values without anything between.

    A pair that comes twice stands once, as Twilio signs it.
    """
    if not isinstance(value, list):
        return value
    pairs = sorted({(str(name), str(one)) for name, one in value})
    return "".join(name + one for name, one in pairs)


def next_link(value: object) -> object:
    """Find the address of the next page in a Link header; null where there is none.

    RFC 8288: `<https://…?page=2>; rel="next", <https://…?page=9>; rel="last"`.
    """
    for part in _LINK.finditer(_text(value)):
        if "next" in part["rel"].lower().split():
            return part["url"]
    return None


def sentences(value: object) -> object:
    """Write a vendor's list or map of errors as one text: `summary: is required; due: is past`."""
    if isinstance(value, Mapping):
        told = value.get("description") or value.get("message")
        if told is not None:
            return _text(told)
        return "; ".join(f"{name}: {sentences(item)}" for name, item in value.items())
    if isinstance(value, list):
        return "; ".join(str(sentences(item)) for item in value)
    return _text(value)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return orjson.dumps(value).decode()


as_text = _text

_RUN: Final = 2_000
_NOTION_LINE: Final = re.compile(r"(#{1,3}|- \[[ xX]\]|[-*>]|\d{1,3}\.)[ \t]+(?=\S)")
_LINK: Final = re.compile(r"""<(?P<url>[^>]*)>[^,]*?;\s*rel="?(?P<rel>[^",;]*)"?""")

TRANSFORMS: Final[Mapping[str, Callable[[object], object]]] = {
    "address": address,
    "addresses": addresses,
    "adf": adf,
    "base64": base64_text,
    "base64_json": base64_json,
    "body": body_text,
    "cost_wait": cost_wait,
    "crc32": crc32,
    "csv": csv,
    "delta_token": delta_token,
    "email": as_email,
    "first_label": first_label,
    "from_base64": from_base64,
    "from_json": from_json,
    "id": as_id,
    "json": json_text,
    "last_id": last_id,
    "last_part": last_part,
    "last_segment": last_segment,
    "key_or_id": key_or_id,
    "lower": lower,
    "name_or_id": name_or_id,
    "names": names,
    "next_link": next_link,
    "notion_blocks": notion_blocks,
    "notion_text": notion_text,
    "number": number,
    "sentences": sentences,
    "slashed": slashed,
    "sorted_pairs": sorted_pairs,
    "text": text,
    "update_kind": update_kind,
    "zulu": zulu,
}
