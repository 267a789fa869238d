"""An action as a generator that yields requests and is sent responses; pure, it holds no socket.

The driver owns the network, tokens, limits, retries and traces:

    steps = call(spec, action, params, variables, effect_key)
    request = next(steps)
    while True:
        response = ...send request...
        try:
            request = steps.send(response)
        except StopIteration as end:
            outcome = end.value

Where no answer came the driver closes the generator and asks `classify_failure`.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from executors.core.outcome import Outcome, Rejected, classify
from executors.core.pages import collect
from executors.core.request import Request, Response, render
from schemas.errors import InvalidInput, Problem
from schemas.provider import ActionSpec, ProviderSpec
from schemas.provider_file import ITEMS_PARAM

Steps = Generator[Request, Response, Outcome]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one action: what a hook is given.

    Attributes:
        params: Checked, with the declared defaults.
        connection: The account's variables.
    """

    spec: ProviderSpec
    action: ActionSpec
    params: Mapping[str, Any]
    connection: Mapping[str, Any]
    effect_key: str

    def request(self) -> Request:
        """Make the action's request (an action of one request)."""
        return render(self.spec, self.action, self.params, self.connection, self.effect_key)

    def outcome(self, response: Response) -> Outcome:
        """Read an answer by the provider's error map."""
        return classify(self.spec, self.action, response, self.params)

    def other(self, action: str, params: Mapping[str, Any]) -> "Call":
        """Make a call of another action of the same provider, as a part of this one."""
        spec = self.spec
        found = spec.action(action)
        return Call(spec, found, found.prepare(params), self.connection, self.effect_key)


def call(
    spec: ProviderSpec,
    action: ActionSpec,
    params: Mapping[str, Any],
    connection: Mapping[str, Any],
    effect_key: str,
) -> Steps:
    """Carry out an action.

    Args:
        spec: The provider.
        action: The action.
        params: Rendered params; they are checked here, and wrong ones end it as `Rejected` with the
            code `invalid_params` before anything is sent.
        connection: The account's variables (subdomain, instance_url, cloudid …).
        effect_key: The key of this effect (`schemas.ids.effect_key`).

    Returns:
        A generator of requests that is sent responses and returns the outcome.
    """
    problems = action.check_params(params)
    if problems:
        return _rejected("invalid_params", _sentence(problems))
    made = Call(spec, action, action.prepare(params), connection, effect_key)
    try:
        if action.hook is not None:
            return cast("Steps", spec.hooks.get(action.hook)(made))
        if action.pages is not None and ITEMS_PARAM in params:
            return collect(
                spec, action, made.params, connection, effect_key, int(params[ITEMS_PARAM])
            )
        first = made.request()
    except InvalidInput as error:
        return _rejected(error.code, error.public)
    return _one(made, first)


def _one(made: Call, first: Request) -> Steps:
    response = yield first
    return made.outcome(response)


def _rejected(code: str, message: str) -> Steps:
    return Rejected(code=code, message=message)
    yield  # makes it a generator that asks for nothing


def _sentence(problems: list[Problem]) -> str:
    return (
        "; ".join(f"{problem.message}. {problem.mend}".rstrip(". ") for problem in problems) + "."
    )
