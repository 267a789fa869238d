"""What ingest answers besides 202."""

from starlette.responses import Response

from schemas.errors import InvalidInput, NeighbourhoodError, TooLarge
from wire.problems import answer, problem

CLIENT_CLOSED = 499  # nobody reads it; the access log's word for a sender that hung up
_STATUS = {"malformed_json": 400, "body_timeout": 408}


def refusal(error: NeighbourhoodError) -> Response:
    """Give the problem that tells the sender what to mend."""
    if isinstance(error, InvalidInput) and error.code in _STATUS:
        return problem(_STATUS[error.code], error.code, error.public)
    response = answer(error)
    if isinstance(error, TooLarge):
        # The rest of the body is still under way: do not read it just to throw it away.
        response.headers["connection"] = "close"
    return response


def unsigned(code: str, reason: str) -> Response:
    """Refuse a post for its signature."""
    return problem(
        401, code, reason, headers={"WWW-Authenticate": 'StandardWebhooks realm="nhood"'}
    )
