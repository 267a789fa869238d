"""The catalogue: which providers there are, what they can do, what connecting them takes."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from control.api.shapes import failures
from schemas.access import needs
from schemas.provider import ActionSpec, Catalogue, ProviderSpec
from schemas.tiers import standing


class ActionShape(BaseModel):
    """Something that a step can do."""

    action: str = Field(examples=["send_message"])
    resource: str
    summary: str
    description: str
    doc: str = Field(description="The vendor's own page about it.")
    idempotent: bool = Field(description="Doing it twice leaves the vendor as doing it once does.")
    takes_effect_key: bool = Field(description="The vendor itself tells repeats apart.")
    read_only: bool
    scopes: list[str]
    params: dict[str, Any] = Field(description="JSON Schema of a step's `config`.")
    example: dict[str, Any] = Field(description="A `config` that works in test mode.")


class ConnectField(BaseModel):
    """Something that the customer tells before the consent, since addresses depend on it."""

    name: str = Field(examples=["subdomain"])
    required: bool
    pattern: str | None
    default: str | None
    help: str


class CredentialField(BaseModel):
    """Something that the customer enters instead of a consent."""

    name: str = Field(examples=["bot_token"])
    secret: bool
    required: bool
    pattern: str | None
    help: str


class CredentialWay(BaseModel):
    """A way to connect with what the customer enters: `kind` and fields go to `…/connections`."""

    kind: str = Field(examples=["bot_token"])
    fields: list[CredentialField]


class AuthShape(BaseModel):
    """How an account is connected."""

    kind: str = Field(examples=["oauth2"])
    scopes: list[str]
    pkce: str
    refresh: str


class LimitShape(BaseModel):
    """A rate that the vendor documents."""

    key: str
    rate: float
    per_seconds: float
    actions: list[str]


class IntegrationShape(BaseModel):
    """A provider."""

    slug: str
    name: str
    category: str
    status: Literal["live", "shut_down"]
    resources: list[str]
    notes: list[str]
    auth: AuthShape
    connect: list[ConnectField]
    credentials: list[CredentialWay]
    limits: list[LimitShape]
    tier: Literal["bronze", "silver", "gold"]
    actions: list[ActionShape]


class IntegrationList(BaseModel):
    """All providers, by name."""

    items: list[IntegrationShape]
    next_cursor: None = None


class Integrations:
    """The routes; the whole answer is made once, since the catalogue never changes meanwhile."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        found = sorted(catalogue, key=lambda spec: spec.name.lower())
        self._all = IntegrationList(items=[_shape(spec) for spec in found]).model_dump_json()

    async def list_integrations(self) -> Response:
        """List the providers with their actions; needs no key."""
        headers = {"Cache-Control": "public, max-age=60"}
        return Response(self._all, media_type="application/json", headers=headers)

    async def get_integration(
        self, provider: Annotated[str, Path(max_length=64, examples=["slack"])]
    ) -> IntegrationShape:
        """Show one provider."""
        return _shape(self._catalogue.get(provider))

    def add_routes(self, router: APIRouter) -> None:
        """Add this noun's routes."""
        router.add_api_route(
            "/api/v1/integrations",
            self.list_integrations,
            methods=["GET"],
            tags=["integrations"],
            summary="List the catalogue",
            openapi_extra=needs("public"),
            response_model=None,
            responses={200: {"model": IntegrationList}},
        )
        router.add_api_route(
            "/api/v1/integrations/{provider}",
            self.get_integration,
            methods=["GET"],
            tags=["integrations"],
            summary="Get a provider",
            openapi_extra=needs("public"),
            responses=failures(404),
        )


def _shape(spec: ProviderSpec) -> IntegrationShape:
    return IntegrationShape(
        slug=spec.slug,
        name=spec.name,
        category=spec.category,
        status=spec.status,
        resources=list(spec.resources),
        notes=list(spec.notes),
        auth=AuthShape(
            kind=spec.auth.kind,
            scopes=list(spec.auth.default_scopes),
            pkce=spec.auth.pkce,
            refresh=spec.auth.refresh,
        ),
        connect=[
            ConnectField(
                name=variable.name,
                required=variable.default is None,
                pattern=variable.pattern,
                default=variable.default,
                help=variable.help,
            )
            for variable in spec.auth.variables.values()
            if variable.source == "customer"
        ],
        credentials=[
            CredentialWay(
                kind=way.kind,
                fields=[
                    CredentialField(
                        name=item.name,
                        secret=item.secret,
                        required=item.required,
                        pattern=item.pattern,
                        help=item.help,
                    )
                    for item in way.credentials
                ],
            )
            for way in spec.auth.entered
        ],
        limits=[
            LimitShape(
                key=limit.key,
                rate=limit.rate,
                per_seconds=limit.per_seconds,
                actions=sorted(limit.actions),
            )
            for limit in spec.limits
        ],
        tier=standing(spec).tier,
        actions=[_action(action) for action in spec.actions.values()],
    )


def _action(action: ActionSpec) -> ActionShape:
    return ActionShape(
        action=action.id,
        resource=action.resource,
        summary=action.summary,
        description=action.description,
        doc=action.doc,
        idempotent=action.idempotent,
        takes_effect_key=action.is_keyed,
        read_only=action.read_only,
        scopes=list(action.scopes),
        params=dict(action.params),
        example=dict(action.example.params),
    )
