"""The command: starting twice, looking, dying parts, wrong words, and nothing left behind."""

import json
import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from nhood.supervisor import STAGES
from tests.product import ROOT, Product, wait_for

SERVERS = ("kafka", "postgres", "valkey")


def status(product: Product) -> dict:
    return json.loads(product.nhood("status", "--json").stdout)


def test_up_a_second_time_changes_nothing(product):
    before = [part.pid for part in product.state.parts]
    done = product.nhood("up", "--detach")
    assert done.returncode == 0
    assert "Already up" in done.stdout
    assert [part.pid for part in product.state.parts] == before


def test_status_shows_every_part_ready(product):
    found = status(product)
    assert found["up"] is True
    assert {part["part"] for part in found["parts"]} == {*STAGES, *SERVERS}
    assert all(part["ready"] for part in found["parts"])
    assert product.nhood("status").returncode == 0


def test_doctor_finds_nothing_wrong_with_a_running_stack(product):
    done = product.nhood("doctor")
    assert done.returncode == 0, done.stdout
    assert "PROBLEM" not in done.stdout


def test_topics_are_as_declared(product):
    done = product.nhood("topics", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "as topics.yaml declares" in done.stdout


def test_killed_stage_is_started_again(product):
    (router,) = [part for part in product.state.parts if part.name == "router"]
    psutil.Process(router.pid).kill()

    def back() -> bool:
        (now,) = [part for part in status(product)["parts"] if part["part"] == "router"] or [{}]
        return bool(now) and now["pid"] != router.pid and now["ready"]

    wait_for(back, "the router to be back", 60, 0.5)


def test_rebuild_gives_the_same_rows(product, workspace):
    workspace.save_example("welcome-new-customer")
    event = workspace.post("/new-customer", {"customer": {}})["event_id"]
    before = workspace.finished(event)
    done = product.nhood("rebuild", "executions")
    assert done.returncode == 0, done.stderr
    assert workspace.finished(event) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["serve", "kitchen"], "There is no stage 'kitchen'"),
        (["serve", "executors", "--providers", "slak"], "slack"),
        (["serve", "router", "--providers", "slack"], "belongs to the stage executors"),
        (["rebuild", "pyramids"], "cannot be rebuilt"),
    ],
)
def test_wrong_words_get_one_clear_sentence(product, words, says):
    env = {**product.env, **product.state.env}
    done = subprocess.run([sys.executable, "-m", "nhood", *words], env=env, capture_output=True,
                          text=True, timeout=60, check=False, cwd=ROOT)  # fmt: skip
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_stage_without_servers_says_what_to_set(tmp_path):
    names = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL")
    env = {name: value for name, value in os.environ.items() if name not in names}
    env["NHOOD_STATE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-m", "nhood", "serve", "gateway"], env=env, timeout=60,
                          capture_output=True, text=True, check=False, cwd=ROOT)  # fmt: skip
    assert done.returncode == 1
    assert "KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL" in done.stderr


def test_bad_settings_are_told_all_at_once(tmp_path):
    env = {**os.environ, "NHOOD_STATE_DIR": str(tmp_path), "NHOOD_PORT": "eighty",
           "NHOOD_ENVIRONMENT": "stage"}  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "nhood", "status"], env=env, timeout=60,
                          capture_output=True, text=True, check=False, cwd=ROOT)  # fmt: skip
    assert done.returncode == 1
    assert "NHOOD_PORT" in done.stderr
    assert "NHOOD_ENVIRONMENT" in done.stderr


def test_asked_for_port_that_is_taken_is_told_and_nothing_is_left_behind(tmp_path):
    for parent in (tmp_path, *list(tmp_path.parents)[:3]):
        parent.chmod(parent.stat().st_mode | 0o011)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        product = Product(tmp_path / "state", {"NHOOD_PORT": str(port)})
        done = product.nhood("up", "--detach")
    assert done.returncode == 1
    assert f"Port {port} is taken" in done.stderr
    assert product.state.parts == []
    assert product.nhood("status").returncode == 1


def test_interrupt_drains_and_leaves_nothing_behind(tmp_path):
    for parent in (tmp_path, *list(tmp_path.parents)[:3]):
        parent.chmod(parent.stat().st_mode | 0o011)
    product = Product(tmp_path / "state")
    process = subprocess.Popen([sys.executable, "-m", "nhood", "up"], env=product.env, cwd=ROOT,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    try:
        wait_for(lambda: product.state.ready or process.poll() is not None, "the stack", 90)
        parts = product.state.parts
        assert len(parts) == len(STAGES) + len(SERVERS)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=90)
        assert process.returncode == 0, out
        assert not any(part.alive for part in parts)
        assert product.nhood("down").returncode == 0
    finally:
        if process.poll() is None:
            process.kill()
        product.down()
