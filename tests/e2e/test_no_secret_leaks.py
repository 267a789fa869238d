"""After a full run of the product no secret is found in any sink: every one is looked through.

Sinks: logs of all processes, answers, records of every topic, the database as text and as files,
metrics, arguments of processes, addresses that vendors were called at.
"""

import asyncio
import base64
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import psutil
import psycopg
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from nhood.embedded.server import free_port
from schemas.settings import Settings
from tests.folders import folder_for_servers
from tests.product import Product, Workspace, wait_for
from token_vault.vault import Vault
from wire.database import open_pool

PASSWORD = f"plum-{secrets.token_hex(6)}-kettle"
CLIENT_SECRET = f"live-app-secret-{secrets.token_hex(8)}"
SIGN_UP_TOKEN = f"sign-up-{secrets.token_hex(8)}"
CUSTOMER = {"customer": {"name": "Ada", "first_name": "A", "last_name": "L", "company": "C",
                         "email": "a@example.com"}}  # fmt: skip


@dataclass
class Known:
    """What must not be found, by name; and what was answered where it must not be."""

    secrets: dict[str, bytes] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)

    def add(self, name: str, value: str) -> str:
        assert len(value) >= 12, f"{name} is too short to be looked for"
        self.secrets[name] = value.encode()
        return value

    def keep(self, answer: httpx.Response) -> httpx.Response:
        """Keep an answer that has no business to hold a secret."""
        # Not its address: it is what the test asked for (a callback holds code and state).
        self.answers.append(f"{answer.url.path} {answer.headers} {answer.text}")
        return answer

    def forms(self) -> Iterator[tuple[str, bytes]]:
        """Every form in which a secret may lie somewhere."""
        for name, raw in self.secrets.items():
            yield name, raw
            yield f"{name} in hex", raw.hex().encode()
            yield f"{name}, escaped", quote(raw, safe="").encode()
            for shift in range(3):  # base 64 of a text that it stands in, wherever it begins
                packed = base64.b64encode(bytes(shift) + raw)
                yield f"{name} in base 64", packed[4 if shift else 0 : len(packed) // 4 * 4 - 4]

    def found_in(self, sink: str, content: bytes) -> list[str]:
        return [f"{name} in {sink}" for name, form in self.forms() if form in content]


@pytest.fixture(scope="module")
def product() -> Iterator[Product]:
    sandbox = free_port()
    vendor = f"http://127.0.0.1:{sandbox}/slack"
    env = {
        "NHOOD_SANDBOX_PORT": str(sandbox),
        "NHOOD_LOG_LEVEL": "debug",
        "NHOOD_SIGNUP_TOKEN": SIGN_UP_TOKEN,
        "NHOOD_PROVIDER_SLACK_CLIENT_ID": "sandbox_client",
        "NHOOD_PROVIDER_SLACK_CLIENT_SECRET": CLIENT_SECRET,
        "NHOOD_PROVIDER_SLACK_AUTHORIZE_URL": f"{vendor}/oauth/v2/authorize",
        "NHOOD_PROVIDER_SLACK_TOKEN_URL": f"{vendor}/api/oauth.v2.access",
    }
    with folder_for_servers("leaks") as folder:
        found = Product(folder, env)
        try:
            found.up()
            yield found
        finally:
            found.down()


def run_everything(product: Product, known: Known) -> None:
    """Use everything that handles a secret, with what goes wrong as well."""
    known.add("client secret", CLIENT_SECRET)
    known.add("sign-up token", SIGN_UP_TOKEN)
    key_file = Path(product.state.env["NHOOD_MASTER_KEY_FILE"]).read_text().strip()
    known.add("root key", key_file)
    known.secrets["root key's bytes"] = base64.b64decode(key_file)
    people(product, known)
    with httpx.Client(base_url=product.url, timeout=30) as client:
        made = client.post(
            "/api/v1/workspaces", json={"name": "T", "email": "t@example.com", "plan": "free"},
            headers={"Idempotency-Key": "make-it-once"},
        ).raise_for_status().json()  # fmt: skip
        workspace = Workspace(
            product, client, made["workspace_id"], known.add("test key", made["test_api_key"]),
            known.add("webhook secret", made["webhook_secret"]),
        )  # fmt: skip
        live = known.add("live key", made["api_key"])
        workspace.save_example("welcome-new-customer")
        consents(workspace, known, live)
        tokens(product, workspace, known)
        executions(workspace, known)
        read_everything(workspace, known)


def people(product: Product, known: Known) -> None:
    known.add("password", PASSWORD)
    body = {"email": "p@example.com", "name": "P", "password": PASSWORD}
    with httpx.Client(base_url=f"{product.url}/api/v1/auth", timeout=30) as client:
        client.post("/register", json=body).raise_for_status()
        login = {"email": body["email"], "password": PASSWORD}
        tokens = client.post("/login", json=login).raise_for_status().json()
        known.add("person's access token", tokens["access_token"])
        known.add("person's refresh token", tokens["refresh_token"])
        wrong = known.add("wrong password", f"wrong-{secrets.token_hex(8)}")
        known.keep(client.post("/login", json=login | {"password": wrong}))
        used = {"refresh_token": tokens["refresh_token"]}
        newer = client.post("/refresh", json=used).raise_for_status().json()
        known.add("person's next refresh token", newer["refresh_token"])
        bad = {"email": body["email"], "password": [PASSWORD]}
        known.keep(client.post("/login", json=bad))


def consents(workspace: Workspace, known: Known, live: str) -> None:
    workspace.connect("slack")
    workspace.connect("salesforce")
    workspace.connect("zendesk", subdomain="acme")
    for provider, key in (("zendesk", workspace.key), ("slack", live)):
        body = {"provider": provider, "user_id": "u2", "variables": {}}
        if provider == "zendesk":
            body["variables"] = {"subdomain": "acme"}
        headers = {"authorization": f"Bearer {key}"}
        offer = workspace.client.post(
            "/api/v1/integrations/auth-url", json=body, headers=headers
        ).raise_for_status().json()  # fmt: skip
        known.add(f"state of {provider}", offer["state"])
        with httpx.Client(timeout=30) as browser:
            sent = browser.get(offer["url"] + "&sandbox_auto=allow&sandbox_account=Leak")
            back = sent.headers["location"]
            known.add(f"code of {provider}", parse_qs(urlsplit(back).query)["code"][0])
            if provider == "slack":  # live, with a secret that the vendor does not take
                known.keep(browser.get(back))
    pasted = known.add("pasted", f"sandbox_token_{secrets.token_hex(9)}")
    answer = workspace.call(
        "POST", f"{workspace.path}/connections",
        json={"provider": "slack", "user_id": "u3", "credentials": {"bot_token": pasted}},
    )  # fmt: skip
    known.keep(answer)


def tokens(product: Product, workspace: Workspace, known: Known) -> None:
    """Open what the vault holds, as the product's own stages do."""

    async def look() -> None:
        settings = Settings.from_env(product.state.env)
        pool = await open_pool(settings.database_url.reveal())
        vault = await Vault.open(settings, pool)
        for row in await vault.store.page(workspace.id, "test", {}, "", 50):
            held = await vault.sealer.open_credential(row)
            if held.access_token.reveal():
                known.add(
                    f"access token of {row.provider} {row.user_id}", held.access_token.reveal()
                )
            for name, value in held.fields.items():
                known.add(f"{name} of {row.provider} {row.user_id}", value.reveal())
            if held.refresh_token is not None:
                known.add(f"refresh token of {row.provider}", held.refresh_token.reveal())
        async with pool.connection() as on:
            cursor = await on.execute(
                "SELECT digest, verifier FROM oauth_states"
                " WHERE verifier IS NOT NULL AND used_at IS NULL"
            )
            states = await cursor.fetchall()
        assert states
        for digest, verifier in states:
            name = f"verifier/{bytes(digest).hex()}"
            opened = await vault.open_text(workspace.id, name, bytes(verifier))
            known.add("PKCE verifier", opened.reveal())
        await vault.close()
        await pool.close()

    asyncio.run(look())


def executions(workspace: Workspace, known: Known) -> None:
    sandbox = httpx.Client(base_url=workspace.product.state.sandbox_url, timeout=30)
    event = workspace.post("/new-customer?user_id=u1", CUSTOMER)
    assert workspace.finished(event["event_id"])["status"] == "succeeded"
    # A vendor that repeats the token it was given, where it refuses and where it takes.
    echo = f"bad token {known.secrets['access token of slack u1'].decode()}"
    for status in (400, 200):
        fault = {"status": status, "body": {"ok": status == 200, "error": echo, "ts": "1"}}
        sandbox.post(
            "/_sandbox/faults",
            json={"provider": "slack", "action": "send_message", "times": 1, "fault": fault},
        ).raise_for_status()
        workspace.finished(workspace.post("/new-customer?user_id=u1", CUSTOMER)["event_id"])
    # A token that ends, and a vendor that refuses to refresh it and says too much.
    refresh = known.secrets["refresh token of zendesk"].decode()
    workspace.save({
        "name": "Ticket", "trigger": {"type": "webhook", "path": "/ticket"},
        "steps": [{"provider": "zendesk", "action": "create_ticket",
                   "config": {"subject": "s", "comment": "c"}}],
    })  # fmt: skip
    told = {"error": "invalid_grant", "error_description": f"unknown refresh token {refresh}"}
    sandbox.post(
        "/_sandbox/faults",
        json={"provider": "zendesk", "action": "oauth.token", "times": 1,
              "fault": {"status": 400, "body": told}},
    ).raise_for_status()  # fmt: skip
    sandbox.post("/_sandbox/expire", json={"provider": "zendesk"}).raise_for_status()
    event = workspace.post("/ticket?user_id=u1", {})
    wait_for(lambda: _states(workspace, "zendesk") == {"needs_reauth"}, "the refused refresh", 60)
    workspace.outcome(event["event_id"])
    sandbox.close()


def _states(workspace: Workspace, provider: str) -> set[str]:
    found = workspace.call("GET", f"{workspace.path}/connections", params={"provider": provider})
    return {item["state"] for item in found.json()["items"]}


def read_everything(workspace: Workspace, known: Known) -> None:
    """Ask for all that can be read, and wrongly for more."""
    base = workspace.path
    paths = ["", "/connections", "/workflows", "/executions", "/api-keys", "/members", "/events"]
    for path in paths:
        known.keep(workspace.call("GET", base + path))
    for item in workspace.call("GET", f"{base}/executions").json()["items"]:
        known.keep(workspace.call("GET", f"{base}/executions/{item['execution_id']}"))
    for item in workspace.call("GET", f"{base}/connections").json()["items"]:
        known.keep(workspace.call("GET", f"{base}/connections/{item['id']}"))
        known.keep(workspace.call("GET", f"{base}/connections/{item['id']}/uses"))
    bad = known.add("bad key", f"nhood_sk_test_{secrets.token_hex(16)}")
    refused = workspace.client.get(base, headers={"authorization": f"Bearer {bad}"})
    assert refused.status_code == 401
    known.keep(refused)
    known.keep(workspace.call("POST", f"{base}/workflows", content=b'{"name": '))
    known.keep(workspace.client.get("/openapi.json"))


def sinks(product: Product) -> Iterator[tuple[str, bytes]]:
    """Every place in which something of it may have been written down."""
    state = product.state
    for log in sorted((product.folder / "logs").glob("*")):
        yield f"the log {log.name}", log.read_bytes()
    for part in state.parts:
        process = psutil.Process(part.pid)
        for each in (process, *process.children(recursive=True)):
            yield f"the arguments of {part.name}", "\0".join(each.cmdline()).encode()
        if part.kind == "stage":
            yield f"the metrics of {part.name}", httpx.get(f"{part.url}/metrics").content
    yield from topics(product)
    yield from database(state.env["DATABASE_URL"])
    received = httpx.get(f"{state.sandbox_url}/_sandbox/received").json()["items"]
    assert received
    # But for the consent pages, whose addresses bear the state: that is the protocol.
    called = [(e["path"], e["query"]) for e in received if "state" not in e["query"]]
    yield "addresses that were called", str(called).encode()
    for path in sorted(product.folder.rglob("*")):
        if path.is_file() and path.name not in ("master.key", "run.json"):
            yield f"the file {path.relative_to(product.folder)}", path.read_bytes()


def topics(product: Product) -> Iterator[tuple[str, bytes]]:
    consumer = Consumer({"bootstrap.servers": product.kafka, "group.id": "looks-for-secrets",
                         "enable.auto.commit": False, "enable.partition.eof": True})  # fmt: skip
    places = [
        TopicPartition(name, number, OFFSET_BEGINNING)
        for name, topic in consumer.list_topics(timeout=20).topics.items()
        if not name.startswith("__")
        for number in topic.partitions
    ]
    consumer.assign(places)
    left = {(place.topic, place.partition) for place in places}
    count = 0
    while left:
        message = consumer.poll(20)
        assert message is not None, f"no end of {left}"
        if message.error():
            left.discard((message.topic(), message.partition()))
            continue
        count += 1
        parts = [message.key() or b"", message.value() or b""]
        parts += [value for _, value in message.headers() or [] if isinstance(value, bytes)]
        yield f"the topic {message.topic()}", b"\n".join(parts)
    consumer.close()
    assert count > 10


def database(address: str) -> Iterator[tuple[str, bytes]]:
    with psycopg.connect(address) as on:
        tables = on.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        ).fetchall()
        assert len(tables) > 20
        for (name,) in tables:
            for (text,) in on.execute(f'SELECT to_jsonb(t)::text FROM "{name}" t'):
                yield f"the table {name}", text.encode()


@pytest.mark.timeout(300)
def test_no_secret_is_found_in_any_sink_after_a_full_run(
    product: Product, capsys: pytest.CaptureFixture[str]
) -> None:
    known = Known()
    run_everything(product, known)
    found = [hit for text in known.answers for hit in known.found_in(text[:100], text.encode())]
    count = size = 0
    for name, content in sinks(product):
        count, size = count + 1, size + len(content)
        found += known.found_in(name, content)
    with capsys.disabled():
        print(
            f"\n{len(known.secrets)} secrets, {len(known.answers)} answers and {count} sinks of"
            f" {size >> 20} MB: {len(set(found))} found"
        )
    assert not found, "\n".join(sorted(set(found)))


def test_test_finds_what_is_there(product: Product) -> None:
    """The search itself: each form of a secret is noticed."""
    known = Known()
    known.add("x", "very/secret+text")
    for content in (
        b"..very/secret+text..",
        b"very/secret+text".hex().encode(),
        b"a=very%2Fsecret%2Btext",
        base64.b64encode(b"client:very/secret+text:x"),
        base64.b64encode(b"very/secret+text"),
    ):
        assert known.found_in("here", content), content
    # And the sinks hold what they should.
    assert any(b"nhood" in content for _, content in sinks(product))


def test_processes_with_secrets_write_no_core_dumps(product: Product) -> None:
    stages = [part for part in product.state.parts if part.kind == "stage"]
    assert {"gateway", "executors"} <= {part.name for part in stages}
    for part in stages:
        limits = Path(f"/proc/{part.pid}/limits").read_text()
        line = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert line.split()[4:6] == ["0", "0"], part.name


def test_files_with_secrets_are_for_their_owner_only(product: Product) -> None:
    for name in ("run.json", "master.key"):
        assert (product.folder / name).stat().st_mode & 0o077 == 0, name
