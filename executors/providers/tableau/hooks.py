"""Tableau's requests and answers that are no JSON: files in a multipart body, and pictures.

https://help.tableau.com/current/api/rest_api/en-us/REST/rest_api_concepts_publish.htm
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import quoteattr

from executors.core.action import Call, Steps
from executors.core.outcome import Rejected, Succeeded
from executors.core.request import Request
from schemas.segments import path_segment
from schemas.transforms import as_text


def call_query_view_image(call: Call) -> Steps:
    """Ask for the picture and give its bytes in base 64."""
    params = call.params
    asked = {"resolution": params.get("resolution"), "maxAge": params.get("max_age")}
    view = path_segment(params["view_id"])
    query = _query({**asked, **params.get("filters", {})})
    answer = yield Request("GET", _url(call, f"/views/{view}/image"), query=query, read_only=True)
    outcome = call.outcome(answer)
    if not isinstance(outcome, Succeeded):
        return outcome
    kind = answer.headers.get("content-type", "image/png")
    content = base64.b64encode(answer.content).decode()
    return Succeeded(answer.status, output={"content": content, "content_type": kind})


def call_publish_workbook(call: Call) -> Steps:
    """Send a workbook's file."""
    params = call.params
    asked = {
        "overwrite": params.get("overwrite"),
        "skipConnectionCheck": params.get("skip_connection_check"),
    }
    more = {"showTabs": as_text(params["show_tabs"])} if "show_tabs" in params else {}
    return _publish(call, "workbook", "/workbooks", asked, more)


def call_publish_data_source(call: Call) -> Steps:
    """Send a data source's file."""
    asked = {name: call.params.get(name) for name in ("overwrite", "append")}
    return _publish(call, "datasource", "/datasources", asked, {})


def _publish(
    call: Call, kind: str, path: str, asked: Mapping[str, Any], more: Mapping[str, str]
) -> Steps:
    params = call.params
    try:
        file = _content(params["content"], params["encoding"])
    except binascii.Error as error:
        return Rejected(code="invalid_params", message=f"content is not base 64: {error}.")
    told = {"name": params["name"], **more}
    named = " ".join(f"{name}={quoteattr(value)}" for name, value in told.items())
    project = f"<project id={quoteattr(params['project_id'])}/>"
    described = f"<tsRequest><{kind} {named}>{project}</{kind}></tsRequest>".encode()
    boundary = hashlib.sha256(described + file).hexdigest()[:40]
    parts = [
        (b'name="request_payload"', b"text/xml", described),
        (
            f'name="tableau_{kind}"; filename="{params["filename"]}"'.encode(),
            b"application/octet-stream",
            file,
        ),
    ]
    mark = b"--" + boundary.encode()
    body = b"".join(
        b"%b\r\nContent-Disposition: %b\r\nContent-Type: %b\r\n\r\n%b\r\n" % (mark, *part)
        for part in parts
    )
    kind_of_body = f"multipart/mixed; boundary={boundary}"
    headers = {"Accept": "application/json", "Content-Type": kind_of_body}
    request = Request(
        "POST", _url(call, path), headers=headers, query=_query(asked), content=body + mark + b"--"
    )
    return call.outcome((yield request))


def _url(call: Call, path: str) -> str:
    known = call.spec.connection(call.connection)
    base = call.spec.api.base_url.text({"connection": known})
    return f"{base}/sites/{path_segment(str(known['site_id']))}{path}"


def _query(asked: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name, as_text(value)) for name, value in asked.items() if value is not None)


def _content(text: str, encoding: str) -> bytes:
    return text.encode() if encoding == "text" else base64.b64decode(text, validate=True)
