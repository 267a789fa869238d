"""A provider's page, `docs/integrations/<slug>.md`, from its folder; pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from schemas.polling import polls_of
from schemas.provider import ActionSpec, ErrorRule, ProviderSpec
from schemas.provider_auth import AuthSpec
from schemas.registration import registration_of
from schemas.tiers import Standing
from schemas.triggers import SignatureSpec, TriggerSpec, triggers_of

CATEGORIES: Final = {
    "communication": "Communication",
    "email_marketing": "E-mail and marketing",
    "project_management": "Project management",
    "crm_sales": "CRM and sales",
    "development": "Development",
    "storage": "Storage",
    "payment": "Payment and e-commerce",
    "data_analytics": "Data and analytics",
}
KINDS: Final = {
    "oauth2": "OAuth 2.0",
    "api_key": "API key",
    "bot_token": "bot token",
    "basic": "user name and password",
    "aws_sigv4": "AWS keys (Signature Version 4)",
    "client_credentials": "client credentials",
    "none": "nothing",
}
_REFRESH: Final = {
    "rotating": "each refresh gives a new refresh token and ends the old one",
    "reusable": "the refresh token stays the same",
    "none": "tokens are not refreshed",
}
_OUTCOMES: Final = {
    "rejected": "the step fails; a repeat would fail as well",
    "throttled": "the step waits as long as the vendor says and is tried again",
    "unavailable": "the step is tried again",
    "unauthorised": "the token is refreshed once; else the connection needs re-authorisation",
    "unknown": "nobody knows whether it was done: `on_unknown` decides",
}


def page(spec: ProviderSpec, standing: Standing) -> str:
    """Give a provider's page, Markdown."""
    return "\n".join(_lines(spec, standing)).rstrip("\n") + "\n"


def action_page(spec: ProviderSpec, action: ActionSpec) -> str:
    """Give the part of the page that is about one action."""
    return "\n".join(_action(spec, action)).rstrip("\n") + "\n"


def _lines(spec: ProviderSpec, standing: Standing) -> Iterator[str]:
    yield f"# {spec.name}"
    yield ""
    yield (
        f"{CATEGORIES[spec.category]} · `{spec.slug}` · {len(spec.actions)} actions"
        f" · {standing.tier}"
    )
    yield ""
    yield "Written by `nhood providers docs` from the provider's folder."
    yield ""
    if spec.status == "shut_down":
        yield (
            f"**{spec.name} was shut down.** It runs in the sandbox only; live keys are refused."
        )
        yield ""
    if spec.notes:
        yield from (f"- {_cell(note)}" for note in spec.notes)
        yield ""
    yield from _connect(spec)
    yield from _actions(spec)
    yield from _triggers(spec)
    yield from _limits(spec)
    yield from _errors(spec)
    if standing.lacking:
        yield f"The next tier wants: {'; '.join(standing.lacking)}."


def _connect(spec: ProviderSpec) -> Iterator[str]:
    yield "## Connect"
    yield ""
    for way in spec.auth.ways:
        yield from _way(spec, way)
    told = [item for item in spec.auth.variables.values() if item.source == "customer"]
    if told:
        yield "Your customer tells besides:"
        yield ""
        for item in told:
            usual = f" (`{item.default}` where nothing is said)" if item.default else ""
            yield f"- `{item.name}`: {_cell(item.help) or 'see the vendor'}{usual}"
        yield ""


def _way(spec: ProviderSpec, way: AuthSpec) -> Iterator[str]:
    kind = KINDS[way.kind]
    if way.kind != "oauth2":
        fields = ", ".join(
            f"`{item.name}`{'' if item.required else ' (optional)'}: {_cell(item.help)}"
            for item in way.credentials
        )
        yield f"**{kind[0].upper()}{kind[1:]}**{': ' + fields if fields else ''}"
        yield ""
        return
    yield f"**{kind}**: `POST /api/v1/integrations/auth-url`, or the connect page."
    yield ""
    yield f"- Scopes asked for: {_codes(way.default_scopes) or 'none'}"
    pkce = {"required": "required by the vendor", "supported": "sent", "unsupported": "not taken"}
    yield f"- PKCE (S256): {pkce[way.pkce]}"
    life = f"{way.access_token_seconds} s" if way.access_token_seconds else "as the vendor says"
    yield f"- Access tokens live {life}; {_REFRESH[way.refresh]}"
    yield f"- Revocation at the vendor: {'yes' if way.revoke else 'the vendor offers none'}"
    upper = spec.slug.upper()
    yield (
        f"- Your OAuth app: `NHOOD_PROVIDER_{upper}_CLIENT_ID`, `…_CLIENT_SECRET`, or a"
        f" workspace's own by `PUT /api/v1/workspaces/{{ws}}/integrations/{spec.slug}/credentials`"
    )
    yield ""


def _actions(spec: ProviderSpec) -> Iterator[str]:
    yield "## Actions"
    yield ""
    yield "| resource | action | does |"
    yield "|---|---|---|"
    for action in _in_order(spec):
        yield (f"| {action.resource} | [`{action.id}`](#{action.id}) | {_cell(action.summary)} |")
    yield ""
    for action in _in_order(spec):
        yield from _action(spec, action)


def _in_order(spec: ProviderSpec) -> list[ActionSpec]:
    return sorted(spec.actions.values(), key=lambda one: spec.resources.index(one.resource))


def _action(spec: ProviderSpec, action: ActionSpec) -> Iterator[str]:
    yield f"### {action.id}"
    yield ""
    yield f"{_sentence(action.summary)} [{spec.name}'s description]({action.doc})"
    yield ""
    if action.description:
        yield _cell(action.description)
        yield ""
    yield from _params(action)
    facts = [_repeats(action)]
    if action.scopes:
        facts.append(f"scopes {_codes(action.scopes)}")
    if action.result:
        facts.append(f"gives {_codes(action.result)}")
    if action.pages is not None:
        facts.append("`max_items` collects over pages")
    if action.check is not None:
        facts.append("`on_unknown: check` looks it up")
    yield f"{'; '.join(facts)}."
    yield ""
    yield from (f"- {_cell(note)}" for note in action.notes)
    if action.notes:
        yield ""
    step = {"provider": spec.slug, "action": action.id, "config": dict(action.example.params)}
    yield "```json"
    yield orjson.dumps(step, option=orjson.OPT_INDENT_2).decode()
    yield "```"
    yield ""


def _repeats(action: ActionSpec) -> str:
    if action.read_only:
        return "Reads only"
    if action.is_keyed:
        return "A repeat is done once: the vendor takes our effect key"
    if action.idempotent:
        return "A repeat does no harm"
    return "A repeat does it again: see [guarantees](../guarantees.md)"


def _params(action: ActionSpec) -> Iterator[str]:
    properties: Mapping[str, Any] = action.params.get("properties", {})
    if not properties:
        return
    required = set(action.params.get("required", ()))
    yield "| param | type | meaning |"
    yield "|---|---|---|"
    for name, schema in properties.items():
        must = " (required)" if name in required else ""
        yield f"| `{name}`{must} | {_type(schema)} | {_cell(schema.get('description', ''))} |"
    yield ""


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return " or ".join(kinds)
    if kinds == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kinds is None:
        parts = schema.get("oneOf") or schema.get("anyOf") or ()
        return " or ".join(dict.fromkeys(_type(part) for part in parts)) or "any"
    return str(kinds)


def _triggers(spec: ProviderSpec) -> Iterator[str]:
    yield "## Triggers"
    yield ""
    found = triggers_of(spec)
    if found is None or not found.receivable:
        yield f"{spec.name} sends no webhooks that could start a workflow."
        yield ""
        yield from _polls(spec)
        return
    trigger = {"type": "provider", "provider": spec.slug, "event": found.events[0]}
    yield f"`{orjson.dumps(trigger).decode()}`"
    yield ""
    yield "[How to take them](../webhooks.md#vendors-own-webhooks)"
    yield ""
    more = " and any other that it sends" if found.open else ""
    yield f"- Events: {_codes(found.events)}{more}"
    yield f"- Registered: {_cell(_registered(spec, found))}"
    yield f"- Signed: {'; '.join(_signed(one) for one in found.signatures) or 'not at all'}"
    if found.handshakes:
        yield "- The vendor's handshake is answered by itself"
    told = "by the vendor's id" if found.delivery_id else "by nothing that the vendor says"
    yield f"- Deliveries that come twice are told apart {told}"
    yield ""
    yield from _polls(spec)


def _polls(spec: ProviderSpec) -> Iterator[str]:
    polls = polls_of(spec)
    if not polls:
        return
    yield "What it does not tell is looked for: [polls](../webhooks.md#looked-for)"
    yield ""
    yield "| event | what | params | calls |"
    yield "|---|---|---|---|"
    for event, poll in polls.items():
        needed = poll.schema.get("required") or ()
        params = "; ".join(
            f"`{name}`{'' if name in needed else ' (may be left out)'}: {schema['description']}"
            for name, schema in (poll.schema.get("properties") or {}).items()
        )
        said = " ".join(map(_sentence, (poll.summary, *poll.notes)))
        calls = f"`{poll.action}` every {poll.every_s} s or less often"
        yield f"| `{event}` | {_cell(said)} | {_cell(params) or 'none'} | {calls} |"
    yield ""


def _registered(spec: ProviderSpec, triggers: TriggerSpec) -> str:
    plan = registration_of(spec)
    if plan is None:
        return triggers.register
    renewed = "; renewed before it ends" if plan.renew_s is not None else ""
    wanted = ", ".join(f"`{name}`" for name in plan.params) or "none"
    return f"by the platform over the vendor's API, with the params {wanted}{renewed}"


def _signed(signature: SignatureSpec) -> str:
    if signature.algorithm == "none":
        return "not at all; the address is secret"
    where = f" in `{signature.header}`" if signature.header else ""
    age = f", at most {signature.tolerance_s} s old" if signature.tolerance_s else ""
    return f"{signature.algorithm}{where}{age}"


def _limits(spec: ProviderSpec) -> Iterator[str]:
    yield "## Limits"
    yield ""
    if not spec.limits:
        yield f"{spec.name} documents no rate; its answers are kept to."
        yield ""
        return
    for limit in spec.limits:
        which = f" of {_codes(sorted(limit.actions))}" if limit.actions else ""
        learned = f"; learned from {_codes(limit.headers.values())}" if limit.headers else ""
        per = limit.key.replace("_", " and ")
        yield f"- {limit.rate:g} calls in {limit.per_seconds:g} s per {per}{which}{learned}"
    yield ""


def _errors(spec: ProviderSpec) -> Iterator[str]:
    yield "## Errors"
    yield ""
    yield "| answer | outcome | what happens |"
    yield "|---|---|---|"
    for rule in dict.fromkeys((_answer(rule), rule.outcome) for rule in spec.errors):
        yield f"| {rule[0]} | {rule[1]} | {_OUTCOMES[rule[1]]} |"
    yield ""
    yield "What is not listed is read as HTTP says. [Outcomes](../workflows.md)"
    yield ""


def _answer(rule: ErrorRule) -> str:
    parts = []
    if rule.statuses:
        parts.append(", ".join(map(str, sorted(rule.statuses))))
    if rule.codes:
        parts.append(_codes(sorted(rule.codes)))
    if rule.when is not None:
        parts.append(f"`{_cell(rule.when.source)}`")
    return " with ".join(parts) or "any other failure"


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
