"""Folders that real servers can use."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def folder_for_servers(name: str) -> Iterator[Path]:
    """Make a folder that is gone at the end.

    Not below pytest's own: another run of pytest closes that one to PostgreSQL, which runs as
    another user when we are root.
    """
    with tempfile.TemporaryDirectory(prefix=f"nhood-{name}-") as path:
        Path(path).chmod(0o711)
        yield Path(path)
