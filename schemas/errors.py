"""Every error the platform raises on purpose.

    NeighbourhoodError
    ├── InvalidInput        400/422  the caller can mend it; `problems` lists every place at once
    ├── Unauthenticated     401      no or unknown credentials
    ├── Forbidden           403      known, but not allowed
    ├── NotFound            404      not there, or not in this workspace
    ├── Conflict            409      the state does not allow it
    ├── TooLarge            413      over a named limit
    ├── RateLimited         429      over a rate; `retry_after_s` says when
    ├── DependencyDown      503      Kafka, Postgres, Redis or a vendor cannot be reached
    ├── CorruptEvent        422      unreadable bytes on a topic: they go to the dead-letter topic
    ├── SecretUnavailable   503      a key or credential cannot be had
    └── StackError          500      the embedded stack cannot start; says how to mend it

Expected failures of vendors are not exceptions but values (`executors.core.outcome`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with an input.

    Attributes:
        place: Where, as a path a person can follow: `steps[2].config.channel`.
        message: What is wrong.
        mend: How to put it right.
        code: Stable, snake_case.
    """

    place: str
    message: str
    mend: str = ""
    code: str = "invalid"


class NeighbourhoodError(Exception):
    """Root of the tree.

    Attributes:
        code: Stable machine-readable name of this failure.
        public: One sentence for whoever can mend it; never holds a secret.
        detail: For operators; never holds a secret either.
        problems: The places that are meant, where there are several.
    """

    status = 500
    default_code = "internal"
    problems: tuple[Problem, ...] = ()

    def __init__(self, public: str, *, code: str | None = None, detail: str = "") -> None:
        super().__init__(public)
        self.public = public
        self.code = code or self.default_code
        self.detail = detail


class InvalidInput(NeighbourhoodError):  # noqa: N818 - reads as a sentence where it is raised
    """The input is wrong; `problems` tells every place of it at once."""

    status = 422
    default_code = "invalid_input"

    def __init__(
        self,
        public: str,
        *,
        problems: Sequence[Problem] = (),
        code: str | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(public, code=code, detail=detail)
        self.problems = tuple(problems)


class Unauthenticated(NeighbourhoodError):  # noqa: N818
    """No credentials, or none that we know."""

    status = 401
    default_code = "unauthenticated"


class Forbidden(NeighbourhoodError):  # noqa: N818
    """The caller is known but may not do this."""

    status = 403
    default_code = "forbidden"


class NotFound(NeighbourhoodError):  # noqa: N818
    """The thing is not there, or belongs to another workspace (the two are not told apart)."""

    status = 404
    default_code = "not_found"


class Conflict(NeighbourhoodError):  # noqa: N818
    """The present state does not allow it."""

    status = 409
    default_code = "conflict"


class TooLarge(NeighbourhoodError):  # noqa: N818
    """Over a named size limit."""

    status = 413
    default_code = "too_large"


class RateLimited(NeighbourhoodError):  # noqa: N818
    """Over a rate; try again after `retry_after_s` seconds.

    Attributes:
        headers: For the answer, besides Retry-After: which limit it is, and how much of it is left.
    """

    status = 429
    default_code = "rate_limited"

    def __init__(
        self,
        public: str,
        *,
        retry_after_s: int,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(public, code=code)
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})


class DependencyDown(NeighbourhoodError):  # noqa: N818
    """A server we need cannot be reached or refuses; trying again later may help."""

    status = 503
    default_code = "dependency_down"


class CorruptEvent(NeighbourhoodError):  # noqa: N818
    """Bytes on a topic that cannot be read; they go to the dead-letter topic as they are."""

    status = 422
    default_code = "corrupt_event"


class SecretUnavailable(NeighbourhoodError):  # noqa: N818
    """A key or a credential is missing, destroyed or does not open what it should."""

    status = 503
    default_code = "secret_unavailable"


class StackError(NeighbourhoodError):
    """The embedded stack cannot start or stop; the sentence says how to mend it."""

    default_code = "stack_error"
