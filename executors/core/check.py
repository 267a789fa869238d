"""Looks whether an effect is there, before what may have been done is done again; pure.

look-up ─▶ found    the effect is there: the step has succeeded
─▶ absent   it is not: the action is carried out now
─▶ neither  nobody can say: the outcome stays unknown, nothing is sent
"""

from collections.abc import Mapping
from typing import Any

from executors.core.action import Call, Steps, call
from executors.core.outcome import Outcome, Unknown, succeeded
from executors.core.request import Response
from schemas.errors import InvalidInput
from schemas.provider import ActionSpec, CheckSpec, ProviderSpec


def call_checked(
    spec: ProviderSpec,
    action: ActionSpec,
    params: Mapping[str, Any],
    connection: Mapping[str, Any],
    effect_key: str,
) -> Steps:
    """Carry out an action of which nobody knows whether it was carried out before.

    Args:
        spec: The provider.
        action: The action; one that has no look-up is carried out at once.
        params: As of `executors.core.action.call`, and so are the others.
        connection: The account's variables.
        effect_key: The key of the effect.
    """
    again = call(spec, action, params, connection, effect_key)
    if action.check is None or action.check_params(params):
        return again  # wrong params send nothing, and say so
    made = Call(spec, action, action.prepare(params), connection, effect_key)
    return _checked(made, action.check, again)


def _checked(made: Call, check: CheckSpec, again: Steps) -> Steps:
    roots: dict[str, Any] = {
        "params": made.params,
        "connection": made.connection,
        "effect_key": made.effect_key,
    }
    try:
        look = made.other(check.action, check.params.render(roots))
        request = look.request()
    except InvalidInput as error:
        return _not_told(made, error.public)
    response = yield request
    roots |= {"body": response.body, "headers": response.headers, "status": response.status}
    if check.found_when.holds(roots):
        return _found(made, check, response, roots)
    if check.absent_when.holds(roots):
        return (yield from again)
    return _not_told(made, f"the look-up was answered with HTTP {response.status}")


def _found(made: Call, check: CheckSpec, response: Response, roots: Mapping[str, Any]) -> Outcome:
    """Give the outcome as the action itself would have."""
    body = response.body if check.answer is None else check.answer.render(roots)
    return succeeded(made.spec, made.action, {**roots, "body": body})


def _not_told(made: Call, detail: str) -> Unknown:
    return Unknown(
        code="not_checked",
        message=f"It may have been done at {made.spec.name}, and could not be looked up.",
        detail=detail,
    )
