"""The commands of docker-compose.yml, run without containers on the same settings."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from nhood.embedded.server import free_port

ROOT = Path(__file__).parents[2]
STAGES = ("gateway", "router", "executors", "projector", "sandbox")
READY_S = 60
STOP_S = 45


def here(environment, settings, folder):
    """Point a service's settings at the servers of the tests, and at ports that are free."""
    own = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "DATABASE_URL": settings.database_url.reveal(),
        "REDIS_URL": settings.redis_url.reveal(),
        "NHOOD_MASTER_KEY_FILE": settings.master_key_file,
        "NHOOD_HOST": "127.0.0.1",
        "NHOOD_STATE_DIR": str(folder),
    }
    ports = {name: str(free_port()) for name in environment if name.endswith("_PORT")}
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**inherited, **environment, **own, **ports}


def wait_until_ready(process, url):
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        assert process.poll() is None, "it ended"
        try:
            if httpx.get(f"{url}/readyz", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(f"{url} did not become ready")


@pytest.mark.parametrize("name", STAGES)
def test_service_becomes_ready_and_ends_when_asked(name, settings, tmp_path):
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][name]
    env = here(service["environment"], settings, tmp_path)
    port = env["NHOOD_PORT" if name == "gateway" else "NHOOD_OPS_PORT"]
    assert ("8080" if name == "gateway" else "9100") in service["healthcheck"]["test"][-1]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "nhood", *service["command"]], env=env, stderr=log, cwd=tmp_path
        )
        try:
            wait_until_ready(process, f"http://127.0.0.1:{port}")
            metrics = httpx.get(f"http://127.0.0.1:{port}/metrics")
            assert "python_info" in metrics.text
            process.send_signal(signal.SIGTERM)
            code = process.wait(STOP_S)
        finally:
            process.kill()
            process.wait()
    assert code == 0, (tmp_path / "log").read_text()


def test_setup_makes_topics_and_a_key(settings, tmp_path):
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["setup"]
    (script,) = service["command"]
    env = here(service["environment"], settings, tmp_path)
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    script = script.replace("/keys/", f"{tmp_path}/keys/")
    (tmp_path / "keys").mkdir()
    for _ in range(2):
        subprocess.run([*service["entrypoint"], script], env=env, check=True, cwd=tmp_path)
    key = tmp_path / "keys" / "master.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(key.read_bytes()) == 45
