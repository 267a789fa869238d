"""Whatever is sent to whichever route: never a 500, always JSON, errors always as problems."""

import json
import random
import string
from urllib.parse import quote

import pytest

SEEDS = range(4)
REQUESTS = 150
WORDS = ("name", "plan", "trigger", "steps", "input", "mode", "reason", "settings", "user_id", "x")
JUNK = (
    *("", " ", "0", "-1", "null", "ws_", "../..", "a/b", "%00", "\x00", "é", "'; --", "x" * 300),
    *("wf_" + "0" * 26, "ex_" + "z" * 26, "{}", "[]", "\ud7ff", "1e400", "ev_1", "*"),
)


class Fuzz:
    """Makes requests from a seed."""

    def __init__(self, seed, known):
        self.rng = random.Random(seed)
        self.known = known

    def text(self):
        rng = self.rng
        if rng.random() < 0.5:
            return rng.choice(JUNK)
        return "".join(rng.choices(string.printable + "äß漢🙂\x00", k=rng.randint(0, 12)))

    def value(self, depth=0):
        rng = self.rng
        kind = rng.randint(0, 7 if depth < 3 else 5)
        if kind == 6:
            return [self.value(depth + 1) for _ in range(rng.randint(0, 3))]
        if kind == 7:
            names = [rng.choice([*WORDS, self.text()]) for _ in range(rng.randint(0, 5))]
            return {name: self.value(depth + 1) for name in names}
        return [
            None,
            True,
            rng.randint(-(2**70), 2**70),
            rng.random() * 1e308,
            self.text(),
            "free",
        ][kind]

    def body(self):
        rng = self.rng
        shape = rng.random()
        if shape < 0.1:
            return bytes(rng.randbytes(rng.randint(0, 30)))
        value = self.value()
        if shape < 0.8 and not isinstance(value, dict):
            value = {rng.choice(WORDS): value}
        return json.dumps(value).encode()

    def path(self, pattern):
        parts = []
        for part in pattern.split("/"):
            if part.startswith("{"):
                name = part.strip("{}")
                is_known = name in self.known and self.rng.random() < 0.75
                part = self.known[name] if is_known else quote(self.text(), safe="")
            parts.append(part)
        return "/".join(parts)

    def query(self):
        names = ("limit", "cursor", "status", "since", "wait", "include", "user_id", "zzz")
        count = self.rng.randint(0, 2)
        found = {self.rng.choice(names): self.text() for _ in range(count)}
        found["wait"] = self.rng.choice(["0", "0", "0", self.text()])
        return found


@pytest.mark.parametrize("seed", SEEDS)
async def test_any_request_gets_an_answer_and_no_500(api, client, seed):
    workflow = {
        "name": "x",
        "trigger": {"type": "event", "event_type": "x"},
        "steps": [
            {"provider": "slack", "action": "send_message", "config": {"channel": "c", "text": "t"}}
        ],
    }
    saved = (await api.call("POST", "/workflows", workflow)).json()
    known = {
        "workspace_id": api.workspace["workspace_id"],
        "workflow_id": saved["workflow_id"],
        "version": "1",
        "provider": "slack",
    }
    fuzz = Fuzz(seed, known)
    document = (await client.get("/openapi.json")).json()
    routes = [(m.upper(), p) for p, item in document["paths"].items() for m in item]
    routes = [
        route
        for route in routes
        if route != ("POST", "/api/v1/workspaces/{workspace_id}/keys/rotate")
    ]
    for number in range(REQUESTS):
        method, pattern = fuzz.rng.choice(routes)
        path, query = fuzz.path(pattern), fuzz.query()
        body = fuzz.body() if method in ("POST", "PUT", "PATCH") else b""
        headers = {"Authorization": f"Bearer {api.workspace['test_api_key']}"}
        headers["Content-Type"] = "application/json"
        if method == "POST" and fuzz.rng.random() < 0.3:
            headers["Idempotency-Key"] = fuzz.rng.choice(["k1", "k2", "k" * 300, "ok ok"])
        answer = await client.request(method, path, content=body, params=query, headers=headers)
        told = f"seed={seed} number={number} {method} {path} {query} {body!r} → {answer.text[:300]}"
        assert answer.status_code < 500, told
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json", told
            assert answer.json()["code"], told
