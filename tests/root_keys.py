"""Root keys for the tests: one a database, since a vault refuses another's."""

import base64
import hashlib
from pathlib import Path


def write_root_key(path: Path, database: str) -> Path:
    """Write the key file of this database."""
    path.touch(mode=0o600)
    path.write_text(base64.b64encode(hashlib.sha256(database.encode()).digest()).decode() + "\n")
    return path
