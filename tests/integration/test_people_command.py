"""`nhood people` as the operator types it, on a real PostgreSQL."""

import os
import subprocess
import sys

import psycopg
import pytest

from tests.integration.control.people_parts import running_gateway

PASSWORD = "plum orbit kettle fjord"


@pytest.fixture
def nhood(database, tmp_path):
    env = {**os.environ, "DATABASE_URL": database, "NHOOD_STATE_DIR": str(tmp_path)}

    def run(*words, typed=""):
        command = [sys.executable, "-m", "nhood", "people", *words]
        return subprocess.run(
            command, env=env, input=typed, capture_output=True, text=True, timeout=60, check=False
        )

    return run


async def test_operator_makes_the_first_owner_and_resets_a_password(settings, database, nhood):
    made = nhood("create", "Ops@Acme.example", "--name", "Ops", typed=PASSWORD + "\n")
    assert made.returncode == 0, made.stderr
    async with running_gateway(settings) as gateway:
        tokens = (await gateway.login("ops@acme.example")).json()
        body = {"name": "Acme", "email": "ops@acme.example"}
        workspace = (await gateway.client.post("/api/v1/workspaces", json=body)).json()
        added = nhood("add", "ops@acme.example", workspace["workspace_id"], "--role", "owner")
        assert added.returncode == 0, added.stderr
        path = f"/api/v1/workspaces/{workspace['workspace_id']}"
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        assert (await gateway.client.get(path, headers=headers)).status_code == 200

        kept = nhood("add", "ops@acme.example", workspace["workspace_id"], "--role", "viewer")
        assert kept.returncode == 1
        assert "last owner" in kept.stderr

        reset = nhood("reset-password", "ops@acme.example", typed="quartz ladder monsoon bishop\n")
        assert "1 sessions ended" in reset.stdout
        assert (await gateway.refresh(tokens["refresh_token"])).json()["code"] == "session_ended"
        assert (await gateway.login("ops@acme.example")).status_code == 401
        again = await gateway.login("ops@acme.example", "quartz ladder monsoon bishop")
        assert again.status_code == 200

        retired = nhood("retire-signing-keys")
        assert "Retired 1 keys" in retired.stdout
    with psycopg.connect(database) as on:
        assert PASSWORD not in str(on.execute("SELECT p::text FROM people p").fetchall())


@pytest.mark.parametrize(
    ("words", "typed", "sentence"),
    [
        (("create", "new@acme.example"), "short\n", "fewer than 12"),
        (("create", "nobody"), PASSWORD + "\n", "no e-mail address"),
        (("reset-password", "nobody@acme.example"), PASSWORD + "\n", "nobody with"),
        (("add", "nobody@acme.example", "ws_1"), "", "nobody with"),
        (("add", "nobody@acme.example", "ws_1", "--role", "king"), "", "is no role"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(nhood, words, typed, sentence):
    done = nhood(*words, typed=typed)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
