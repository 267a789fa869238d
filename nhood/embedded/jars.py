"""Apache Kafka's jars: pinned by SHA-256, downloaded once, kept in the user's cache.

`kafka-jars.lock` has a line per jar: SHA-256, size in bytes, path in a Maven repository. It lists
what `org.apache.kafka:kafka_2.13` of this version and log4j need at run time, as Maven resolves it:

    mvn dependency:copy-dependencies -DincludeScope=runtime -Dmdep.useRepositoryLayout=true
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import httpx
import platformdirs

from schemas.errors import StackError
from schemas.settings import Settings

KAFKA_VERSION = "4.3.1"
FREE_BYTES_MIN = 512 * 1024 * 1024  # jars, a first log and room to breathe
_OWN_KAFKA = ", or KAFKA_BOOTSTRAP_SERVERS to a Kafka of your own"
_LOCK = Path(__file__).with_name("kafka-jars.lock")
_PARALLEL = 8
_TIMEOUT_S = 60

# Told after each jar: bytes that are there, bytes in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock."""

    sha256: str
    size: int
    path: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.rpartition("/")[2]


def locked_jars(lock: Path = _LOCK) -> list[Jar]:
    """Read a lock; Kafka's where none is given."""
    lines = (line.split() for line in lock.read_text().splitlines() if line)
    return [Jar(digest, int(size), path) for digest, size, path in lines]


def cache_folder(settings: Settings) -> Path:
    """Say where downloads are kept: shared by all checkouts of a user."""
    return Path(settings.cache_dir or platformdirs.user_cache_dir("neighbourhood"))


def jars_folder(settings: Settings) -> Path:
    """Say where Kafka's jars are kept."""
    return cache_folder(settings) / f"kafka-{KAFKA_VERSION}"


def missing_jars(folder: Path) -> list[Jar]:
    """List the jars that are not there or have another size (quick: reads no file)."""
    return [jar for jar in locked_jars() if not _has_size(folder / jar.name, jar.size)]


def damaged_jars(folder: Path) -> list[Jar]:
    """List the jars whose checksum is wrong (reads every file)."""
    return [
        jar
        for jar in locked_jars()
        if (path := folder / jar.name).exists() and _digest(path.read_bytes()) != jar.sha256
    ]


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def ensure_jars(settings: Settings, progress: Progress | None = None) -> Path:
    """Download what is missing.

    Returns:
        The folder that holds every jar.

    Raises:
        StackError: No network, a wrong checksum, no room; the sentence says how to mend it.
    """
    folder = jars_folder(settings)
    missing = missing_jars(folder)
    if missing:
        fetch(missing, folder, settings, what="Kafka", instead=_OWN_KAFKA, progress=progress)
    return folder


def fetch(
    files: list[Jar],
    folder: Path,
    settings: Settings,
    *,
    what: str,
    instead: str = "",
    progress: Progress | None = None,
) -> None:
    """Download pinned files into a folder, checking each.

    Args:
        files: Which, with their checksums.
        folder: Where to; made where it is not there.
        settings: For the Maven repository.
        what: The program that needs them.
        instead: What else can be set where no download is possible, as the end of a sentence.
        progress: Told after each file.

    Raises:
        StackError: No network, a wrong checksum, no room; the sentence says how to mend it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise StackError(
            f"The cache folder {folder} cannot be used ({error.strerror}). Set NHOOD_CACHE_DIR "
            "to a folder that can be written.",
            code="cache_unusable",
        ) from error
    if free < FREE_BYTES_MIN:
        raise StackError(
            f"{folder} has {free >> 20} MB left and {what} needs {FREE_BYTES_MIN >> 20} MB: free "
            "some room or set NHOOD_CACHE_DIR to another disk.",
            code="disk_full",
        )
    _download_all(files, folder, settings.maven_repository.rstrip("/"), instead, progress)


def _download_all(
    missing: list[Jar], folder: Path, repository: str, instead: str, progress: Progress | None
) -> None:
    total, there = sum(jar.size for jar in missing), 0
    with (
        httpx.Client(timeout=_TIMEOUT_S, follow_redirects=True) as client,
        ThreadPoolExecutor(_PARALLEL) as pool,
    ):
        tasks = {
            pool.submit(_download, client, repository, jar, folder, instead): jar for jar in missing
        }
        try:
            for task in as_completed(tasks):
                task.result()
                there += tasks[task].size
                if progress is not None:
                    progress(there, total)
        except StackError:
            for task in tasks:
                task.cancel()
            raise


def _download(client: httpx.Client, repository: str, jar: Jar, folder: Path, instead: str) -> None:
    url = f"{repository}/{jar.path}"
    try:
        answer = client.get(url)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        what = (
            f"HTTP {error.response.status_code}"
            if isinstance(error, httpx.HTTPStatusError)
            else str(error) or type(error).__name__
        )
        raise StackError(
            f"{jar.name} could not be downloaded from {repository} ({what}). Check the network, "
            f"set NHOOD_MAVEN_REPOSITORY to a mirror of Maven Central{instead}.",
            code="download_failed",
        ) from error
    if _digest(answer.content) != jar.sha256:
        raise StackError(
            f"{jar.name} from {repository} is not the file that was pinned (its SHA-256 differs): "
            "the repository or something on the way changed it. Set another "
            "NHOOD_MAVEN_REPOSITORY.",
            code="wrong_checksum",
        )
    # Two starts at once may download the same jar: each writes its own file, the name comes last.
    part = folder / f".{jar.name}.{os.getpid()}"
    try:
        part.write_bytes(answer.content)
        part.replace(folder / jar.name)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StackError(
            f"{folder / jar.name} could not be written ({error.strerror}): free some room or set "
            "NHOOD_CACHE_DIR to another disk.",
            code="disk_full",
        ) from error
