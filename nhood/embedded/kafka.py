"""One real Apache Kafka broker in KRaft mode, sized for a developer's machine."""

import base64
import logging
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from nhood.embedded.jars import Progress, ensure_jars
from nhood.embedded.java import find_java
from nhood.embedded.server import (
    Running,
    claim_folder,
    free_port,
    keep_port,
    last_error,
    running,
    spawn,
    wait_until,
)
from schemas.errors import StackError
from schemas.settings import Settings

_CLUSTER_ID = re.compile(r"^cluster\.id=(\S+)$", re.MULTILINE)
_ANSWER_S = 1.0

# Small heap, serial collector: the broker's work is bounded by its page cache, not by its heap.
_JVM = (
    "-Xms96m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:MaxMetaspaceSize=128m",
    "-XX:ReservedCodeCacheSize=48m",
    "-Xss512k",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
)
# The first compiler only: the second one costs more than it saves in runs of some minutes
# (docs/performance.md).
_QUICK = "-XX:TieredStopAtLevel=1"

_LOG4J = """\
Configuration:
  status: warn
  Appenders:
    Console:
      name: out
      target: SYSTEM_OUT
      PatternLayout: {pattern: "%d{ISO8601} %p %c{1} %m%n"}
  Loggers:
    Root: {level: WARN, AppenderRef: {ref: out}}
"""


def _server_properties(port: int, controller: int, data: Path) -> str:
    """Write the broker's settings; https://kafka.apache.org/43/configuration/broker-configs/."""
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "num.network.threads": 2,
        "num.io.threads": 2,
        "background.threads": 2,
        "num.recovery.threads.per.data.dir": 2,
        "log.cleaner.threads": 1,
        # Compaction may use 8 MB for its index of keys instead of 128 MB.
        "log.cleaner.dedupe.buffer.size": 8388608,
        "message.max.bytes": 8388608,
        "replica.fetch.max.bytes": 8388608,
        "offsets.topic.num.partitions": 4,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        # A consumer that comes gets its partitions at once; one that died is noticed soon.
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        # A broker that was killed may register again as soon as its old session is over.
        "broker.session.timeout.ms": 2000,
        "broker.heartbeat.interval.ms": 500,
        "log.segment.bytes": 134217728,
        "log.index.size.max.bytes": 2097152,
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def start(
    state_dir: Path,
    settings: Settings,
    env: Mapping[str, str],
    *,
    port: int | None = None,
    progress: Progress | None = None,
) -> Running:
    """Start the broker and wait until it answers.

    Args:
        state_dir: Keeps its data, its settings and its log.
        settings: For the cache of jars and where they come from.
        env: For JAVA_HOME.
        port: Where to listen; None: where it did before, or a free one.
        progress: Told while jars are downloaded.

    Raises:
        StackError: It cannot be had or does not start; the sentence says how to mend it.
    """
    jars = ensure_jars(settings, progress)
    java = find_java(env)
    folder = claim_folder(state_dir / "kafka")
    chosen = port if port is not None else keep_port(folder, "kafka")
    config = folder / "server.properties"
    data = folder / "data"
    config.write_text(_server_properties(chosen, free_port(), data))
    log_config = folder / "log4j2.yaml"
    log_config.write_text(_LOG4J)
    jvm = _JVM if settings.kafka_steady else (*_JVM, _QUICK)
    base = [java, *jvm, f"-Dlog4j2.configurationFile={log_config}", "-cp", f"{jars}/*"]
    log = state_dir / "logs" / "kafka.log"
    cluster = _format(base, config, folder, log)
    command = [*base, "kafka.Kafka", str(config)]
    process = spawn(command, log, _java_env(env), owned=folder)
    address = f"127.0.0.1:{chosen}"
    # Without this librdkafka writes "connection refused" for every try before the broker listens.
    admin = AdminClient(
        {"bootstrap.servers": address, "log_level": 0, "reconnect.backoff.max.ms": 100},
        logger=_silent(),
    )
    wait_until("Kafka", process, lambda: _answers(admin, cluster), log)
    return running("kafka", process, chosen, address)


def _java_env(env: Mapping[str, str]) -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")
    return {name: env[name] for name in kept if name in env}


def _silent() -> logging.Logger:
    logger = logging.getLogger("nhood.kafka.start")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


def _answers(admin: AdminClient, cluster: str) -> bool:
    """Say whether this very cluster answers: another Kafka may have taken the port."""
    try:
        answer = admin.list_topics(timeout=_ANSWER_S)
        return bool(answer.brokers) and answer.cluster_id == cluster
    except KafkaException:
        return False


def _format(base: list[str], config: Path, folder: Path, log: Path) -> str:
    """Prepare the data folder once.

    Returns:
        The cluster's id, which stays the same for ever.

    Raises:
        StackError: The folder is damaged.
    """
    meta = folder / "data" / "meta.properties"
    kept = folder / "cluster.id"
    if meta.exists():
        found = _CLUSTER_ID.search(meta.read_text(errors="replace"))
        if found is None or (kept.exists() and kept.read_text().strip() != found[1]):
            raise StackError(
                f"Kafka's data folder {folder / 'data'} is damaged (meta.properties). Put a backup "
                f"back, or move {folder} away to begin with an empty Kafka.",
                code="data_damaged",
            )
        return found[1]
    if kept.exists() and (folder / "data").exists() and any((folder / "data").iterdir()):
        raise StackError(
            f"Kafka's data folder {folder / 'data'} lost its meta.properties. Put a backup back, "
            f"or move {folder} away to begin with an empty Kafka.",
            code="data_damaged",
        )
    cluster = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=").replace("-", "A")
    command = [
        *(*base, "kafka.tools.StorageTool", "format", "--cluster-id", cluster),
        *("--standalone", "--config", str(config)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603
    if done.returncode != 0:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as out:
            out.write(done.stdout + done.stderr)
        raise StackError(
            f"Kafka's data folder could not be prepared. {last_error(log)} See {log}.",
            code="format_failed",
        )
    kept.write_text(f"{cluster}\n")
    return cluster
