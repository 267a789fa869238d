"""What a provider is, read from its folder `executors/providers/<slug>/provider.yaml` as data.

Four readers, one file: the vault reads `auth`, ingest `triggers`, the control API each action's
params, the executors the rest; none of them imports `executors` for it. A catalogue is built by
`load_catalogue`, which scans a folder: adding a provider takes a folder and no list to edit.
Nothing here is read or compiled at import, and everything that a catalogue holds is immutable.
"""

import difflib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar
from urllib.parse import urlsplit

from schemas.errors import InvalidInput, NotFound, Problem
from schemas.expression import ABSENT, Condition, Roots, Template, Tree
from schemas.params import ParamsChecker
from schemas.provider_auth import AuthSpec
from schemas.provider_request import RequestSpec
from schemas.settings import ProviderOverride

OutcomeKind = Literal["rejected", "throttled", "unavailable", "unauthorised", "unknown"]
DelayForm = Literal["auto", "seconds", "epoch", "epoch_ms", "iso", "http_date"]

Kept = TypeVar("Kept")

FOLDER: Final = "executors/providers"


@dataclass(frozen=True, slots=True)
class RetryHint:
    """Where a vendor says how long to wait, and in which form."""

    value: Template
    form: DelayForm = "auto"


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """One line of an error map; every condition that is given must hold.

    Attributes:
        statuses: HTTP statuses that it is for; empty: any.
        codes: The vendor's codes that it is for; empty: any.
        code: What to call it, a template over body, headers, status, code, text.
        message: One sentence for the customer, a template over the same and params; where it refers
            to something that is not there the vendor's own words are taken.
        may_have_happened: The vendor may have done it all the same: of an action that is not
            idempotent the outcome is then unknown.
    """

    outcome: OutcomeKind
    statuses: frozenset[int] = frozenset()
    codes: frozenset[str] = frozenset()
    when: Condition | None = None
    code: Template | None = None
    message: Template | None = None
    retry_after: RetryHint | None = None
    may_have_happened: bool = False


@dataclass(frozen=True, slots=True)
class FailureShape:
    """How the vendor's failures look.

    Attributes:
        when: Holds for an answer that is a failure although its status is below 400.
        codes: Where the vendor's code stands: the first that is there and not empty.
        texts: Where its own words stand.
    """

    when: Condition | None
    codes: tuple[Template, ...]
    texts: tuple[Template, ...]


@dataclass(frozen=True, slots=True)
class LimitSpec:
    """A rate limit that the vendor documents.

    Attributes:
        key: What it is counted per: connection, app, or connection_action.
        rate: Calls in `per_seconds`.
        actions: The actions that it is for; empty: all.
        headers: Answer headers to learn from: any of limit, remaining, reset.
    """

    key: Literal["connection", "app", "connection_action"]
    rate: float
    per_seconds: float
    burst: int | None
    actions: frozenset[str]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ApiSpec:
    """Where and how the API is reached.

    Attributes:
        nesting: How lists and objects stand in a form or query: as `json` text, or in `brackets`
            (`items[0][price]=…`).
        graphql: Path of its GraphQL endpoint, None where it has none.
        output: What of every answer is a step's output; None: all of it.
    """

    base_url: Template
    headers: Mapping[str, Template]
    failure: FailureShape
    retry_after: tuple[RetryHint, ...]
    retryable: frozenset[int]
    nesting: Literal["json", "brackets"] = "json"
    graphql: str | None = None
    output: Template | None = None


@dataclass(frozen=True, slots=True)
class PagesSpec:
    """How a list goes on.

    Attributes:
        items: Path of the items in an answer, such as `body.members`.
        param: The param that carries on (a cursor, an offset, a page number).
        next: What to give it, from the answer; absent, null or empty means the end.
        next_url: The address of the next page, on the same host; instead of `param`.
        step: `cursor`: `next` is the param's value; `offset`: the items seen so far are added;
            `page`: one is added.
        more: Must hold for another page to be there, where it is given.
    """

    items: Template
    param: str | None
    next: Template | None
    next_url: Template | None
    step: Literal["cursor", "offset", "page"]
    more: Condition | None


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """How to find out whether an action was carried out, where a step says `on_unknown: check`.

    Attributes:
        action: A reading action of one request.
        params: Its params, of this action's.
        found_when: Holds for an answer that shows the effect.
        absent_when: Holds for one that shows that it is not there. Where neither does: unknown.
        answer: What stands for the action's own answer where it was found; None: all of the body.
    """

    action: str
    params: Tree
    found_when: Condition
    absent_when: Condition
    answer: Tree | None


@dataclass(frozen=True, slots=True)
class Example:
    """An example of an action: what a developer writes and what the vendor answers.

    Attributes:
        earlier: Statuses and bodies of the answers before the last, where a hook asks for several.
    """

    params: Mapping[str, Any]
    status: int
    headers: Mapping[str, str]
    body: Any
    earlier: tuple[tuple[int, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """One thing that can be done at a provider.

    Attributes:
        idempotent: Doing it twice leaves the vendor as doing it once does.
        read_only: It changes nothing.
        params: JSON Schema (2020-12) of what a developer writes in `config`.
        aliases: Other names that a param may be written under.
        synonyms: Per param, other words for some of its values (`medium` for Zendesk's `normal`).
        result: What is lifted into the output beside the answer's body; `id` names the thing.
        idempotency: Where the effect key goes: `("header", name)` or `("body", name)`.
        hook: Name of the generator in `hooks.py` that carries it out, None for one request.
        files: The params that take a file (`schemas.files`).
    """

    id: str
    resource: str
    summary: str
    description: str
    doc: str
    operation_id: str | None
    method: str
    idempotent: bool
    read_only: bool
    scopes: tuple[str, ...]
    params: Mapping[str, Any]
    defaults: Mapping[str, Any]
    aliases: Mapping[str, str]
    synonyms: Mapping[str, Mapping[str, Any]]
    request: RequestSpec | None
    success: Condition | None
    failure_when: Condition | None
    errors: tuple[ErrorRule, ...]
    result: Mapping[str, Template]
    output: Template | None
    idempotency: tuple[Literal["header", "body"], str] | None
    pages: PagesSpec | None
    check: CheckSpec | None
    hook: str | None
    example: Example
    notes: tuple[str, ...]
    checker: ParamsChecker = field(repr=False, compare=False)
    files: frozenset[str] = frozenset()

    def check_params(self, params: Mapping[str, Any], *, templated: bool = False) -> list[Problem]:
        """Check what a developer wrote in `config`.

        Args:
            params: The params.
            templated: True when a workflow is saved: a value that is a whole `{{template}}` may
                become anything, and a text with a template in it any text.

        Returns:
            Every problem, with its place inside the params (`blocks[0].type`); none if it is good.
        """
        renamed = self._rename(params)
        problems = [
            Problem(name, f"{name} is given twice", f"{self.aliases[name]} is the same.", "twice")
            for name in params
            if name in self.aliases and self.aliases[name] in params
        ]
        found = self.checker.check(renamed, templated=templated)
        return problems + [self._as_written(problem, params) for problem in found]

    def prepare(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give the params under their own names and words, with the declared defaults."""
        renamed = self._rename(params)
        return {**self.defaults, **renamed} if self.defaults else renamed

    def _rename(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.aliases and not self.aliases.keys().isdisjoint(params):
            params = {self.aliases.get(name, name): value for name, value in params.items()}
        for name, words in self.synonyms.items():
            value = params.get(name)
            if isinstance(value, str) and value in words:
                params = {**params, name: words[value]}
        return params

    def _as_written(self, problem: Problem, params: Mapping[str, Any]) -> Problem:
        for alias, name in self.aliases.items():
            if alias in params and problem.place == name:
                message = problem.message.replace(name, alias, 1)
                return replace(problem, place=alias, message=message)
        return problem

    @property
    def is_keyed(self) -> bool:
        """Whether the vendor takes our effect key and does a repeat only once."""
        return self.idempotency is not None

    @property
    def repeatable(self) -> bool:
        """Whether a repeat does no harm: idempotent by nature or by our key."""
        return self.idempotent or self.idempotency is not None


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """One provider, whole."""

    slug: str
    name: str
    category: str
    status: Literal["live", "shut_down"]
    resources: tuple[str, ...]
    notes: tuple[str, ...]
    auth: AuthSpec
    api: ApiSpec
    limits: tuple[LimitSpec, ...]
    errors: tuple[ErrorRule, ...]
    actions: Mapping[str, ActionSpec]
    triggers: Mapping[str, Any] | None
    polls: Mapping[str, Any] | None
    folder: Path
    hooks: "Hooks" = field(repr=False, compare=False)

    def is_open(self, mode: str) -> bool:
        """Say whether there is somebody to call: what was shut down only the sandbox plays."""
        return self.status == "live" or mode != "live"

    def require_open(self, mode: str) -> None:
        """See that there is somebody to call.

        Raises:
            NotFound: `provider_shut_down`: in live mode there is not.
        """
        if not self.is_open(mode):
            text = f"{self.name} was shut down and can be called no more; test keys still reach it"
            raise NotFound(f"{text} in the sandbox.", code="provider_shut_down")

    def action(self, name: str) -> ActionSpec:
        """Give an action.

        Raises:
            NotFound: With the nearest name there is.
        """
        if name in self.actions:
            return self.actions[name]
        hint = nearest(name, self.actions)
        text = f"{self.name} has no action {name!r}{hint or '; it has: ' + ', '.join(self.actions)}"
        raise NotFound(text, code="unknown_action")

    def connected_by(self, kind: str) -> "ProviderSpec":
        """Give this provider with another of its ways to connect as its `auth`.

        Args:
            kind: Of the way (a connection's `auth_kind`); one that it does not have: the usual one.
        """
        way = next((way for way in self.auth.ways if way.kind == kind), self.auth)
        return self if way is self.auth else replace(self, auth=way)

    def connection(self, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give the connection's variables with the declared defaults."""
        defaults = self.auth.variable_defaults
        return {**defaults, **variables} if defaults else variables


class Unchanging(Generic[Kept]):
    """Lets what never changes be a key of a cache by which one it is."""

    __slots__ = ("value",)

    def __init__(self, value: Kept) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unchanging) and other.value is self.value


class Hooks:
    """The functions of a provider's `hooks.py`, loaded when one is first asked for."""

    __slots__ = ("_found", "_path", "_slug")

    def __init__(self, slug: str, path: Path) -> None:
        self._slug = slug
        self._path = path
        self._found: Mapping[str, Any] | None = None

    def get(self, name: str) -> Callable[..., Any]:
        """Give a hook.

        Raises:
            NotFound: If the provider has none of this name.
        """
        if self._found is None:
            self._found = vars(self._load()) if self._path.is_file() else {}
        hook = self._found.get(name)
        if not callable(hook):
            raise NotFound(f"{self._path} defines no {name}", code="unknown_hook")
        return hook  # type: ignore[no-any-return]  # vars() is untyped

    def _load(self) -> Any:  # noqa: ANN401 - a module
        name = f"executors.providers.{self._slug}.hooks"
        spec = importlib.util.spec_from_file_location(name, self._path)
        if spec is None or spec.loader is None:
            raise NotFound(f"{self._path} cannot be loaded", code="unknown_hook")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All providers, by slug."""

    providers: Mapping[str, ProviderSpec]

    def get(self, slug: str) -> ProviderSpec:
        """Give a provider.

        Raises:
            NotFound: With the nearest name there is.
        """
        if slug in self.providers:
            return self.providers[slug]
        hint = nearest(slug, self.providers) or f"; known: {', '.join(self.providers)}"
        raise NotFound(f"There is no provider {slug!r}{hint}", code="unknown_provider")

    def action(self, slug: str, name: str) -> ActionSpec:
        """Give an action of a provider.

        Raises:
            NotFound: If there is no such provider or action, with the nearest name there is.
        """
        return self.get(slug).action(name)

    def __iter__(self) -> Iterator[ProviderSpec]:
        return iter(self.providers.values())

    def __len__(self) -> int:
        return len(self.providers)

    def __contains__(self, slug: object) -> bool:
        return slug in self.providers


def nearest(name: str, known: Mapping[str, object]) -> str:
    """Give `: did you mean 'x'?`, or nothing where no name is near."""
    close = difflib.get_close_matches(name.lower().replace("-", "_"), list(known), n=1, cutoff=0.6)
    return f": did you mean {close[0]!r}?" if close else ""


def providers_folder() -> Path:
    """Find `executors/providers` as installed, without importing it.

    Raises:
        NotFound: If the package `executors` is not installed.
    """
    spec = importlib.util.find_spec("executors")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "providers"
        if folder.is_dir():
            return folder
    raise NotFound(f"The folder {FOLDER} is not installed", code="no_providers")


def load_catalogue(
    folder: Path | None = None, overrides: Mapping[str, ProviderOverride] | None = None
) -> Catalogue:
    """Read every `<slug>/provider.yaml` of a folder.

    Args:
        folder: Where the providers are; None: as installed.
        overrides: Where providers are reached, from the settings (`Settings.providers`).

    Raises:
        InvalidInput: If any file is wrong; `problems` tells every place of every file at once.
    """
    from schemas.provider_file import read_provider

    found = folder if folder is not None else providers_folder()
    providers: dict[str, ProviderSpec] = {}
    problems: list[Problem] = []
    for path in sorted(found.glob("*/provider.yaml")):
        override = (overrides or {}).get(path.parent.name, ProviderOverride())
        try:
            spec = read_provider(path, override)
        except InvalidInput as error:
            problems.extend(error.problems)
            continue
        providers[spec.slug] = spec
    if problems:
        lines = "\n".join(f"  {p.place}: {p.message}" for p in problems)
        raise InvalidInput(
            f"Provider files cannot be used:\n{lines}", problems=problems, code="bad_provider"
        )
    return Catalogue(providers)


def sandbox_address(url: str, sandbox_base: str, slug: str) -> str:
    """Give the address under which the sandbox plays a vendor's address (test mode).

    The origin is swapped and the path kept: `https://slack.com/api/chat.postMessage` becomes
    `<sandbox>/slack/api/chat.postMessage`; an address already under the sandbox stays.
    """
    base = sandbox_base.rstrip("/")
    if url == base or url.startswith((f"{base}/", f"{base}?")):
        return url
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return f"{base}/{slug}{parts.path}{query}"


def render_all(templates: Mapping[str, Template], roots: Roots) -> dict[str, Any]:
    """Render a mapping of templates, leaving out those whose path is not there."""
    found = {name: template.find(roots) for name, template in templates.items()}
    return {name: value for name, value in found.items() if value is not ABSENT}
