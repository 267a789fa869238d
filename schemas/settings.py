"""All settings of all stages, read once from the environment; errors are told all at once."""

import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, cast
from urllib.parse import urlsplit

from schemas.errors import InvalidInput, Problem


class Secret:
    """Text that must never be shown: repr and str are `***`; `reveal()` gives it out."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Give the text out; only where it is used, never to a log."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


def _setting(env: str, default: object, doc: str, unit: str = "") -> Any:  # noqa: ANN401
    return field(default=default, metadata={"env": env, "doc": doc, "unit": unit})


@dataclass(frozen=True, slots=True)
class ProviderOverride:
    """Where one provider is reached and with which OAuth app, where the environment says so.

    Set by `NHOOD_PROVIDER_<SLUG>_BASE_URL`, `_AUTHORIZE_URL`, `_TOKEN_URL`, `_CLIENT_ID` and
    `_CLIENT_SECRET`.
    """

    base_url: str | None = None
    authorize_url: str | None = None
    token_url: str | None = None
    client_id: str | None = None
    client_secret: Secret | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """One frozen value with everything a stage may be told from outside."""

    kafka_bootstrap_servers: str = _setting(
        "KAFKA_BOOTSTRAP_SERVERS", "", "Kafka brokers; empty: `nhood up` starts its own."
    )
    database_url: Secret = _setting(
        "DATABASE_URL", Secret(""), "PostgreSQL address; empty: `nhood up` starts its own."
    )
    redis_url: Secret = _setting(
        "REDIS_URL", Secret(""), "Redis or Valkey address; empty: `nhood up` starts its own."
    )
    environment: str = _setting(
        "NHOOD_ENVIRONMENT", "development", "`development` or `production`."
    )
    state_dir: str = _setting("NHOOD_STATE_DIR", ".nhood", "Folder of the embedded stack's state.")
    cache_dir: str = _setting(
        "NHOOD_CACHE_DIR", "", "Folder for downloads; empty: the user's cache folder."
    )
    maven_repository: str = _setting(
        "NHOOD_MAVEN_REPOSITORY",
        "https://repo1.maven.org/maven2",
        "Where Apache Kafka's jars are downloaded from.",
    )
    kafka_steady: bool = _setting(
        "NHOOD_KAFKA_STEADY",
        False,  # noqa: FBT003 - a default
        "Let the embedded broker compile its code for long runs: half its CPU after some minutes"
        " of load, more before, and some 150 MB of memory.",
    )
    host: str = _setting("NHOOD_HOST", "127.0.0.1", "Address that the HTTP servers bind to.")
    port: int = _setting("NHOOD_PORT", 8080, "Port of the gateway: webhooks, control API, portal.")
    ops_port: int = _setting(
        "NHOOD_OPS_PORT", 0, "Port of a stage's /healthz, /readyz, /metrics; 0: a free one."
    )
    sandbox_port: int = _setting("NHOOD_SANDBOX_PORT", 8090, "Port of the sandbox.")
    public_url: str = _setting(
        "NHOOD_PUBLIC_URL",
        "",
        "Address under which the gateway is reached from outside; empty: host and port.",
    )
    sandbox_url: str = _setting(
        "NHOOD_SANDBOX_URL", "", "Address of the sandbox; empty: host and sandbox port."
    )
    master_key_file: str = _setting(
        "NHOOD_MASTER_KEY_FILE",
        "",
        "File with the vault's root key (development); empty: `<state_dir>/master.key`.",
    )
    key_provider: str = _setting(
        "NHOOD_KEY_PROVIDER",
        "file",
        "Who keeps the vault's root key: `file` (development), `vault` (HashiCorp Vault's transit"
        " engine, or OpenBao's) or `aws-kms`; see docs/security.md.",
    )
    key_file_in_production: bool = _setting(
        "NHOOD_KEY_FILE_IN_PRODUCTION",
        False,  # noqa: FBT003 - a default
        "Accept a root key in a file in production too.",
    )
    vault_addr: str = _setting(
        "NHOOD_VAULT_ADDR", "", "HashiCorp Vault's address, https except on this machine."
    )
    vault_token: Secret = _setting(
        "NHOOD_VAULT_TOKEN",
        Secret(""),
        "Token for HashiCorp Vault; better a file, which can change.",
    )
    vault_token_file: str = _setting(
        "NHOOD_VAULT_TOKEN_FILE",
        "",
        "File with that token, as Vault Agent writes it; read again when it changes.",
    )
    vault_namespace: str = _setting(
        "NHOOD_VAULT_NAMESPACE", "", "Namespace in HashiCorp Vault Enterprise; empty: none."
    )
    vault_ca_file: str = _setting(
        "NHOOD_VAULT_CA_FILE", "", "Certificate authority of HashiCorp Vault; empty: the system's."
    )
    vault_mount: str = _setting(
        "NHOOD_VAULT_MOUNT", "transit", "Where the transit engine is mounted."
    )
    vault_key: str = _setting("NHOOD_VAULT_KEY", "nhood", "Name of the transit key.")
    aws_kms_key: str = _setting(
        "NHOOD_AWS_KMS_KEY", "", "Id, ARN or alias (`alias/…`) of the AWS KMS key."
    )
    aws_region: str = _setting(
        "NHOOD_AWS_REGION",
        "",
        "AWS region; empty: as boto3 finds it. Credentials: as boto3 finds them.",
    )
    aws_endpoint_url: str = _setting(
        "NHOOD_AWS_ENDPOINT_URL",
        "",
        "Address of AWS's services, such as a VPC endpoint; empty: AWS.",
    )
    secrets: str = _setting(
        "NHOOD_SECRETS",
        "",
        "`aws-secretsmanager:<name or ARN>`: a JSON object of these variables, read before all"
        " others; what the environment says itself goes first.",
    )
    signup_token: Secret = _setting(
        "NHOOD_SIGNUP_TOKEN",
        Secret(""),
        "Bearer token with which workspaces are made and people register in production;"
        " empty: only people who are invited or made by `nhood people` come in.",
    )
    trusted_proxies: str = _setting(
        "NHOOD_TRUSTED_PROXIES",
        "",
        "Addresses or networks of your proxies, by commas: X-Forwarded-For is believed from them"
        " only, and without it limits per address count all who come through a proxy as one.",
    )
    topic_partitions: int = _setting(
        "NHOOD_TOPIC_PARTITIONS", 0, "Overrides the partitions of topics.yaml; 0: as declared."
    )
    replication_factor: int = _setting(
        "NHOOD_REPLICATION_FACTOR", 1, "Copies of each partition; 3 in production."
    )
    executor_calls: int = _setting(
        "NHOOD_EXECUTOR_CALLS",
        128,
        "Calls to vendors at a time in one executor process: as many effects at most are repeated"
        " at vendors without idempotency keys when it is killed.",
    )
    ledger_days: int = _setting(
        "NHOOD_LEDGER_DAYS",
        14,
        "How long the ledger of effects is kept at least: within it a replay or a late redelivery"
        " repeats no call.",
        "days",
    )
    ingest_rate: int = _setting(
        "NHOOD_INGEST_RATE", 100, "Events that a workspace may send, for long.", "events/s"
    )
    ingest_burst: int = _setting(
        "NHOOD_INGEST_BURST", 6_000, "Events that a workspace may send at once.", "events"
    )
    file_bytes_max: int = _setting(
        "NHOOD_FILE_BYTES_MAX", 104_857_600, "Size of one file that steps hand on.", "bytes"
    )
    files_bytes_max: int = _setting(
        "NHOOD_FILES_BYTES_MAX", 5_368_709_120, "Size of all files of a workspace.", "bytes"
    )
    file_days: int = _setting(
        "NHOOD_FILE_DAYS",
        14,
        "How long a file is kept: at least as long as the ledger, or a replay cannot send it anew.",
        "days",
    )
    log_level: str = _setting("NHOOD_LOG_LEVEL", "info", "debug, info, warning or error.")
    providers: Mapping[str, ProviderOverride] = field(
        default_factory=dict, metadata={"env": "", "doc": "", "unit": ""}
    )

    @property
    def gateway_url(self) -> str:
        """Where the gateway is reached, without a slash at the end."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def sandbox_base(self) -> str:
        """Where the sandbox is reached, without a slash at the end."""
        return (self.sandbox_url or f"http://{self.host}:{self.sandbox_port}").rstrip("/")

    @property
    def is_production(self) -> bool:
        """Whether development's comforts are off."""
        return self.environment == "production"

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> "Settings":
        """Read every setting.

        Raises:
            InvalidInput: With one problem per setting that cannot be used.
        """
        source = os.environ if env is None else env
        values: dict[str, object] = {}
        problems: list[Problem] = []
        for item in fields(cls):
            name = item.metadata["env"]
            if not name or name not in source:
                continue
            try:
                values[item.name] = _parse(item, source[name])
            except ValueError as error:
                problems.append(Problem(name, str(error), item.metadata["doc"], "bad_setting"))
        if values.get("environment", "development") not in ("development", "production"):
            problems.append(
                Problem(
                    "NHOOD_ENVIRONMENT",
                    f"{values['environment']!r} is not an environment",
                    "Say development or production.",
                    "bad_setting",
                )
            )
        problems += _key_problems(values)
        if problems:
            text = "; ".join(f"{p.place}: {p.message}. {p.mend}" for p in problems)
            raise InvalidInput(f"Settings cannot be used: {text}", problems=problems)
        return cls(**values, providers=_provider_overrides(source))  # type: ignore[arg-type]

    def to_env(self) -> dict[str, str]:
        """Give the environment that makes `from_env` build these settings again."""
        env: dict[str, str] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            name = item.metadata["env"]
            if name and (item.default is MISSING or value != item.default):
                env[name] = value.reveal() if isinstance(value, Secret) else str(value)
        for slug, override in self.providers.items():
            for part in fields(override):
                value = getattr(override, part.name)
                if value is not None:
                    name = f"NHOOD_PROVIDER_{slug.upper()}_{part.name.upper()}"
                    env[name] = value.reveal() if isinstance(value, Secret) else value
        return env


def _key_problems(values: Mapping[str, object]) -> list[Problem]:
    """Say what the chosen key provider lacks."""
    chosen = values.get("key_provider", "file")
    wrong: list[tuple[str, str, str]] = []
    if chosen not in ("file", "vault", "aws-kms"):
        wrong.append(
            ("KEY_PROVIDER", f"{chosen!r} is no key provider", "Say file, vault or aws-kms.")
        )
    if chosen == "vault":
        address = str(values.get("vault_addr", ""))
        try:
            host = urlsplit(address).hostname
        except ValueError:
            host = None
        if not host:
            wrong.append(("VAULT_ADDR", "is not an address", "Say https://vault.example.com:8200."))
        elif not address.startswith("https://") and host not in ("127.0.0.1", "::1", "localhost"):
            wrong.append(("VAULT_ADDR", "is not https", "Root keys are not asked for in clear."))
        if not values.get("vault_token") and not values.get("vault_token_file"):
            mend = "Set it, or NHOOD_VAULT_TOKEN."
            wrong.append(("VAULT_TOKEN_FILE", "is missing", mend))
    if chosen == "aws-kms" and not values.get("aws_kms_key"):
        wrong.append(("AWS_KMS_KEY", "is missing", "Name the key: its ARN or alias/…."))
    return [Problem(f"NHOOD_{name}", message, mend, "bad_setting") for name, message, mend in wrong]


def _parse(item: "Field[Any]", text: str) -> object:
    if isinstance(item.default, Secret):
        return Secret(text)
    if isinstance(item.default, bool):
        if text.lower() not in ("1", "0", "true", "false", "yes", "no"):
            raise ValueError(f"{text!r} is neither true nor false")
        return text.lower() in ("1", "true", "yes")
    if isinstance(item.default, int):
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a whole number") from None
    return text


def _provider_overrides(source: Mapping[str, str]) -> dict[str, ProviderOverride]:
    found: dict[str, dict[str, object]] = {}
    parts = {f"_{item.name.upper()}": item.name for item in fields(ProviderOverride)}
    for name, value in source.items():
        if not name.startswith("NHOOD_PROVIDER_") or not value:
            continue
        rest = name.removeprefix("NHOOD_PROVIDER_")
        for suffix, part in parts.items():
            if rest.endswith(suffix):
                slug = rest.removesuffix(suffix).lower()
                parsed = Secret(value) if part == "client_secret" else value
                found.setdefault(slug, {})[part] = parsed
    return {slug: ProviderOverride(**cast("Any", parts)) for slug, parts in found.items()}
