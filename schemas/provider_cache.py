"""Provider files that were read and found right before, kept as JSON beside the other downloads.

Reading a YAML file and checking everything in it takes tens of milliseconds, and every process
reads all of them at its start. What is kept is named after the content of the file, of its hooks
and of the code that reads it, so it is never out of date; where nothing can be written or what is
there cannot be read, the file is read as if it were new.
"""

import contextlib
import functools
import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson
import platformdirs

_READERS: Final = (
    *("auth_file.py", "cel_engine.py", "expression.py", "file_reader.py", "files.py"),
    *("params.py", "provider.py", "provider.schema.json", "provider_auth.py"),
    *("provider_file.py", "provider_request.py", "transforms.py"),
)


class Cached:
    """The place of one provider's file in the cache.

    Args:
        path: `<folder>/<slug>/provider.yaml`.
        source: Its bytes.
    """

    def __init__(self, path: Path, source: bytes) -> None:
        hooks = path.parent / "hooks.py"
        digest = hashlib.blake2b(_code(), digest_size=16)
        digest.update(source)
        digest.update(hooks.read_bytes() if hooks.is_file() else b"")
        self._slug = path.parent.name
        self._path = _folder() / f"{self._slug}-{digest.hexdigest()}.json"

    def find(self) -> Mapping[str, Any] | None:
        """Give what was kept; None: nothing, or nothing that can be used."""
        try:
            found = orjson.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def keep(self, data: Mapping[str, Any]) -> None:
        """Keep a file that was found right, instead of what was kept of it before."""
        with contextlib.suppress(OSError, TypeError):
            content = orjson.dumps(data)
            folder = self._path.parent
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=folder)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(name).replace(self._path)
            for old in folder.glob(f"{self._slug}-*.json"):
                if old != self._path and len(old.name) == len(self._path.name):
                    old.unlink(missing_ok=True)


@functools.cache
def _folder() -> Path:
    return Path(platformdirs.user_cache_dir("neighbourhood")) / "catalogue"


@functools.cache
def _code() -> bytes:
    here = Path(__file__).parent
    digest = hashlib.blake2b(digest_size=16)
    for name in _READERS:
        digest.update((here / name).read_bytes())
    return digest.digest()
