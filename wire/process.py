"""Keeps a process's memory to itself: it holds keys and tokens in clear."""

import ctypes
import resource
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # prctl(2)


def keep_memory_private() -> bool:
    """Let no core dump of this process be written, and nobody else of this user look into it.

    The limit stops dumps to files; the kernel ignores it for dumps that are piped to a program
    (core(5)), which "not dumpable" stops as well. That also keeps debuggers of the same user out.

    Returns:
        Whether the second was possible; it is a matter of Linux.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
