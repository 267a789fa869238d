"""Actions that share an address: the sandbox tells them apart by the fixed parts of a request."""

from urllib.parse import urlencode

import orjson
import pytest

from nhood.sandbox.vendor import build_vendors
from nhood.sandbox.wire_in import Incoming
from schemas.provider import load_catalogue

VENDORS = build_vendors(load_catalogue())
BATCH = "/v4/spreadsheets/1BxiMVs0XRA5:batchUpdate"
RANGE = "/v4/spreadsheets/1BxiMVs0XRA5/values/Q1"
FILL = {"repeatCell": {"fields": "userEnteredValue"}}
RENAME = {"updateSheetProperties": {"fields": "title", "properties": {"sheetId": 7}}}


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "action"),
    [
        ("POST", BATCH, {}, {"requests": [FILL]}, "fill_formula"),
        ("POST", BATCH, {}, {"requests": [RENAME]}, "rename_sheet"),
        ("POST", BATCH, {}, {"requests": [{"sortRange": {}}]}, "update_spreadsheet"),
        ("PUT", RANGE, {"valueInputOption": "USER_ENTERED"}, {}, "update_range"),
        ("PUT", RANGE, {"valueInputOption": "RAW"}, {}, "update_range"),
        ("GET", RANGE, {"valueRenderOption": "FORMULA"}, None, "get_formulas"),
        ("GET", RANGE, {}, None, "get_range"),
    ],
)
def test_request_is_the_action_whose_fixed_parts_it_has(
    method: str, path: str, query: dict[str, str], body: object, action: str
) -> None:
    content = b"" if body is None else orjson.dumps(body)
    headers = {"content-type": "application/json"}
    incoming = Incoming("google_sheets", method, path, urlencode(query), headers, content)
    found = VENDORS["google_sheets"].find(incoming)
    assert found is not None
    assert found.route.plan is not None
    assert found.route.plan.spec.id == action


@pytest.mark.parametrize(
    ("body", "action"),
    [({"fields": {"Name": "x"}}, "create_record"), ({"records": []}, "create_records")],
)
def test_request_is_the_action_whose_required_params_it_holds(
    body: dict[str, object], action: str
) -> None:
    headers = {"content-type": "application/json"}
    path = "/v0/appLkNDICXNqxSDhG/Goods"
    incoming = Incoming("airtable", "POST", path, "", headers, orjson.dumps(body))
    found = VENDORS["airtable"].find(incoming)
    assert found is not None
    assert found.route.plan is not None
    assert found.route.plan.spec.id == action
