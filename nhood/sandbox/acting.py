"""Carries out an action: checks it as the vendor would, does it to the account's things, answers.

token -> scopes -> required and well-formed params -> the vendor's own rules -> things that are
named must be there -> idempotency key -> create, get, list, update, delete or do
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nhood.sandbox import entered, feeding, likeness, mime, paging
from nhood.sandbox.grants import Grant
from nhood.sandbox.plan import Plan, dig, read_header
from nhood.sandbox.records import Account, Record, Shelf
from nhood.sandbox.sheet import ReferenceSheet, Shape
from nhood.sandbox.subscribing import HookCall
from nhood.sandbox.vendor import Vendor, World
from nhood.sandbox.wire_in import Answer, Incoming, SentFile, json_answer
from schemas.expression import ABSENT

REPLAYS_MAX: Final = 10_000


@dataclass(slots=True)
class Act:
    """One action under way."""

    world: World
    vendor: Vendor
    plan: Plan
    account: Account
    params: dict[str, Any]
    sent: dict[str, Any]
    incoming: Incoming

    @property
    def salt(self) -> str:
        """What tells this account's ids from others'."""
        return f"{self.account.slug}/{self.account.key}/{self.plan.spec.resource}"

    def note(self, record: Record, *, removed: bool = False) -> None:
        """Note that something was made, changed or taken out."""
        now_s = self.world.clock()
        self.account.note(self.plan.spec.resource, record, now_s, removed=removed)

    def missing(self, shape: Shape | None = None) -> Answer:
        """Answer that there is no such thing."""
        shape = shape or self.plan.sheet.not_found or self.plan.resource.not_found
        shape = shape or self.vendor.sheet.errors["not_found"]
        name = self.params.get(self.plan.id_param or "", "")
        said = {"message": "Not found", "id": name, "params": self.params, "field": ""}
        return self.vendor.fill(shape, said)


def token_of(vendor: Vendor, incoming: Incoming) -> str | None:
    """Take the token out of the header that the provider declares, or its account step."""
    auth = vendor.spec.auth
    step = auth.account.request if auth.account is not None else None
    own = step.headers.items() if step is not None else ()
    for name, template in (auth.token_header, *own):
        value = incoming.headers.get(name.lower())
        before, found, after = template.source.partition("${token}")
        if value is not None and found and value.startswith(before) and value.endswith(after):
            return value[len(before) : len(value) - len(after)]
    return None


def who(world: World, vendor: Vendor, incoming: Incoming) -> tuple[str, Grant | None] | None:
    """Find the account that a request's token opens; None where it opens none."""
    key = entered.account_of(vendor, incoming)
    if key is not None:
        return key, None
    token = token_of(vendor, incoming)
    if token is None:
        return None
    grant = world.grants.find_access(token)
    if grant is None or grant.slug != vendor.spec.slug:
        return None
    return grant.account, grant


def act(
    world: World, vendor: Vendor, plan: Plan, incoming: Incoming, groups: Mapping[str, str]
) -> tuple[Answer, str | None]:
    """Carry out an action.

    Returns:
        The answer, and the key of the account (None where the token opens none).
    """
    found = who(world, vendor, incoming)
    if found is None:
        return vendor.error("unauthorised", message="The access token is invalid or expired"), None
    key, grant = found
    lacking = _lacking(vendor, plan, grant)
    if lacking:
        said = {"message": f"The token lacks the scope {lacking}", "needed": lacking}
        return vendor.error("forbidden", **said), key
    account = world.accounts.get(vendor.spec.slug, key)
    params = plan.read(incoming, groups)
    sent = _sent(vendor, plan, incoming, groups)
    refused = _refused(vendor, plan, params, sent)
    if refused is not None:
        return refused, key
    doing = Act(world, vendor, plan, account, params, sent, incoming)
    for reference in vendor.sheet.references:
        if reference.param in params and not _refer(doing, reference):
            resource = vendor.sheet.resources.get(reference.resource)
            return doing.missing(resource.not_found if resource else None), key
    return _once(doing, incoming), key


def subscribe(
    world: World, vendor: Vendor, call: HookCall, incoming: Incoming, groups: Mapping[str, str]
) -> tuple[Answer, str | None]:
    """Make, renew or remove a subscription; gives what `act` does."""
    found = who(world, vendor, incoming)
    if found is None:
        return vendor.error("unauthorised", message="The access token is invalid or expired"), None
    account = found[0]
    answer = world.subscriptions.play(vendor.spec.slug, account, call, incoming, groups)
    return answer or vendor.error("not_found", message="Not found"), account


def _lacking(vendor: Vendor, plan: Plan, grant: Grant | None) -> str:
    """Name the scopes that a grant lacks; only those that a usual consent asks for count."""
    if grant is None:
        return ""
    usual, granted = set(vendor.spec.auth.default_scopes), set(grant.scopes)
    wanted = plan.spec.scopes
    return " ".join(scope for scope in wanted if scope in usual and scope not in granted)


def _sent(
    vendor: Vendor, plan: Plan, incoming: Incoming, groups: Mapping[str, str]
) -> dict[str, Any]:
    sent: dict[str, Any] = {
        leaf.name: groups[leaf.name] for leaf in plan.leaves if leaf.place == "path"
    }
    if incoming.method != "GET":
        sent = {} if plan.id_param in sent and len(sent) == 1 else sent
        sent.update(incoming.query_data())
    sent.update(_in_headers(plan, incoming))
    file = _file(plan, incoming)
    if file is not None:
        sent["size"] = len(file.content)
    data = incoming.data if plan.whole_file is None else None
    if isinstance(data, Mapping):
        if incoming.is_multipart:  # what describes the file stands in a part of its own
            data = _flattened(data)
        sent.update(variables_of(data) if vendor.spec.api.graphql else data)
    return sent


def _in_headers(plan: Plan, incoming: Incoming) -> dict[str, Any]:
    """Give what the request's JSON headers hold."""
    found: dict[str, Any] = {}
    request = plan.spec.request
    for name in request.json_headers if request is not None else ():
        value = read_header(incoming.headers.get(name.lower(), ""))
        found.update(value if isinstance(value, Mapping) else {})
    return found


def _flattened(parts: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parts.items():
        found.update(value if isinstance(value, Mapping) else {name: value})
    return found


def _file(plan: Plan, incoming: Incoming) -> SentFile | None:
    """Give the file that a request carries, of an action that sends one."""
    leaf = next((leaf for leaf in plan.leaves if leaf.place == "file"), None)
    return incoming.files.get(leaf.name) if leaf is not None else None


def variables_of(posted: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give what a GraphQL request is about: its variables, an input object spread out."""
    given = posted.get("variables") or {}
    flat: dict[str, Any] = {}
    for name, value in given.items():
        flat.update(value if isinstance(value, Mapping) else {name: value})
    return flat


def _refused(
    vendor: Vendor, plan: Plan, params: Mapping[str, Any], sent: Mapping[str, Any]
) -> Answer | None:
    for trouble in plan.troubles(params):
        message = f"{trouble.field} {trouble.message}"
        return vendor.error("invalid", field=trouble.field, message=message, params=params)
    for rule in plan.sheet.refuse:
        if rule.when.holds({"params": params, "body": sent}):
            return vendor.fill(rule.shape, {"params": params, "message": "", "field": ""})
    return None


def _refer(doing: Act, reference: ReferenceSheet) -> bool:
    """Find the thing that a param names, and put its id in the param's place."""
    value = doing.params[reference.param]
    shelf = doing.account.shelf(reference.resource)
    if isinstance(value, int):
        return shelf.find(value) is not None
    if not isinstance(value, str):
        return True
    record = shelf.find(value)
    if record is None:
        name = value.removeprefix(reference.strip) if reference.strip else value
        if not reference.is_name(value):
            return reference.accept is not None and reference.accept.fullmatch(value) is not None
        record = shelf.find_by(reference.by, name)
        if record is None:
            number = doing.account.next_number()
            alike = doing.vendor.likeness(reference.resource)
            salt = f"{doing.account.slug}/{doing.account.key}/{reference.resource}"
            now_s = int(doing.world.clock())
            names = {k: likeness.alike(v, number, salt, now_s) for k, v in alike.items()}
            record = Record(number, names, {reference.by: name})
            shelf.add(record)
    own = next(iter(record.names.values()))
    doing.params[reference.param] = own
    if doing.sent.get(reference.param) == value:
        doing.sent[reference.param] = own
    return True


def _once(doing: Act, incoming: Incoming) -> Answer:
    """Do it, or give the first answer again where the same idempotency key came before."""
    key = idempotency_key(doing.plan, incoming)
    if not key:
        return _do(doing)
    replays = doing.account.replays
    place = f"{doing.plan.spec.id}/{key}"
    fingerprint = hashlib.blake2b(incoming.path.encode() + incoming.body, digest_size=16).digest()
    before = replays.get(place)
    if before is not None:
        if before[0] != fingerprint:
            message = "The idempotency key was used with another request"
            return doing.vendor.error("idempotency", message=message, params=doing.params)
        answer: Answer = before[1]
        headers = {**answer.headers, "x-idempotency-lookup": "hit"}
        return Answer(answer.status, answer.body, headers, answer.content_type)
    answer = _do(doing)
    if answer.status < 500:
        replays[place] = (fingerprint, answer)
        if len(replays) > REPLAYS_MAX:
            replays.popitem(last=False)
    headers = {**answer.headers, "x-idempotency-lookup": "miss"}
    return Answer(answer.status, answer.body, headers, answer.content_type)


def idempotency_key(plan: Plan, incoming: Incoming) -> str:
    """Give the key that a request carries where this action takes one."""
    if plan.spec.idempotency is None:
        return ""
    place, name = plan.spec.idempotency
    if place == "header":
        return incoming.headers.get(name.lower(), "")
    data = incoming.data
    return str(data.get(name, "")) if isinstance(data, Mapping) else ""


def _do(doing: Act) -> Answer:
    kind, plan = doing.plan.kind, doing.plan
    if kind == "create":
        return _create(doing)
    if kind in ("list", "do"):
        if not _is_there(doing):
            return doing.missing()
        return paging.listed(doing) if kind == "list" else _plain(doing)
    if plan.sheet.upsert:
        return _upsert(doing)
    named = doing.params.get(plan.id_param or "")
    shelves = [doing.account.shelf(kind) for kind in (plan.spec.resource, *plan.sheet.also)]
    shelf = next((shelf for shelf in shelves if shelf.find(named) is not None), shelves[0])
    record = shelf.find(named)
    if record is None:
        return doing.missing()
    if kind == "delete":
        shelf.remove(record)
        doing.note(record, removed=True)
    elif kind == "update":
        _change(doing, shelf, record)
    return _content(doing, record) if plan.downloads else answer_of(doing, record)


def _content(doing: Act, record: Record) -> Answer:
    """Answer with what was uploaded of a thing, or with a line where nothing was."""
    named = next(iter(record.names.values()), "")
    seeded = SentFile("file", "text/plain", f"Content of {named} in the sandbox.\n".encode())
    place = (doing.plan.spec.resource, record.number)
    file = doing.account.contents.get(place, seeded)
    return Answer(200, file.content, {}, file.content_type)


def _is_there(doing: Act) -> bool:
    """Say whether the thing in the path is there, where the path names one."""
    plan = doing.plan
    if not any(leaf.place == "path" and leaf.plain == plan.id_param for leaf in plan.leaves):
        return True
    return (
        doing.account.shelf(plan.spec.resource).find(doing.params.get(plan.id_param or ""))
        is not None
    )


def _create(doing: Act, further: Mapping[str, Any] | None = None) -> Answer:
    account, plan = doing.account, doing.plan
    number = account.next_number()
    now_s = int(doing.world.clock())
    names = {n: likeness.alike(v, number, doing.salt, now_s) for n, v in plan.names.items()}
    for name, path in plan.resource.prefix.items():
        front = dig(doing.sent, tuple(path.split(".")))
        if isinstance(front, str) and name in names:
            names[name] = f"{front}-{str(names[name]).rpartition('-')[2]}"
    for name, path in plan.resource.taken.items():
        told = dig(doing.sent, tuple(path.split("."))) or doing.params.get(path)
        names[name] = told or names.get(name)
    sent = doing.sent
    if plan.sheet.mime is not None:
        sent = {**sent, **mime.shown(dig(sent, tuple(plan.sheet.mime.split("."))))}
    record = Record(number, {**names, **(further or {})}, sent)
    _keep(doing, record)
    account.shelf(plan.spec.resource).add(record)
    doing.note(record)
    return answer_of(doing, record)


def _keep(doing: Act, record: Record) -> None:
    """Keep the content that came with a thing, for who downloads it."""
    file = _file(doing.plan, doing.incoming)
    if file is not None:
        doing.account.keep((doing.plan.spec.resource, record.number), file)


def _change(doing: Act, shelf: Shelf, record: Record) -> None:
    """Lay what was sent over a thing."""
    shelf.update(record, doing.sent)
    _keep(doing, record)
    doing.note(record)


def _upsert(doing: Act) -> Answer:
    """Change the thing that has this external name, or make it."""
    plan, shelf = doing.plan, doing.account.shelf(doing.plan.spec.resource)
    key = plan.id_param or ""
    outer = doing.params.get(key)
    record = shelf.find(f"external/{outer}")
    if record is None:
        found = reversed(shelf.records.values())
        record = next((r for r in found if likeness.unwrapped(r.sent).get(key) == outer), None)
    if record is None or outer is None:
        return _create(doing, {"external": f"external/{outer}"})
    _change(doing, shelf, record)
    answer = made_of(doing, record)
    if isinstance(answer, dict) and "created" in answer:
        answer = {**answer, "created": False}
    return json_answer(200, answer)


def _plain(doing: Act) -> Answer:
    example, plan = doing.plan.spec.example, doing.plan
    if plan.sheet.feed is not None:
        return feeding.fed(doing, plan.sheet.feed)
    body = likeness.overlaid(example.body, doing.sent)
    own = doing.params.get(plan.id_param or "")
    if own is not None and plan.names:
        name, old = next(iter(plan.names.items()))
        body = likeness.renamed(body, {name: (old, own)})
    return json_answer(example.status, body, example.headers)


def answer_of(doing: Act, record: Record) -> Answer:
    """Answer with a thing, in the form of the action's example."""
    example = doing.plan.spec.example
    return json_answer(example.status, made_of(doing, record), example.headers)


def made_of(doing: Act, record: Record) -> Any:  # noqa: ANN401 - JSON
    """Give an action's example with a thing's own names and contents."""
    plan = doing.plan
    body = plan.body
    if body is None:
        return None
    extend = plan.resource.extend and plan.kind == "get"
    where = doing.vendor.thing_at
    thing = likeness.overlaid(dig(body, where), record.sent, extend=extend)
    body = put(body, where, thing)
    for place, source in plan.sheet.echo.items():
        value = dig(record.sent, tuple(source.split(".")))
        if value is not ABSENT:
            body = put(body, tuple(place.split(".")), value)
    pairs = {
        name: (old, likeness.same_type(old, record.names[name]))
        for name, old in plan.names.items()
        if name in record.names
    }
    return likeness.renamed(body, pairs)


def put(body: Any, path: tuple[str, ...], value: Any) -> Any:  # noqa: ANN401 - JSON
    """Give a body with a value at a path."""
    if not path:
        return value
    inside = body if isinstance(body, Mapping) else {}
    return {**inside, path[0]: put(inside.get(path[0]), path[1:], value)}
