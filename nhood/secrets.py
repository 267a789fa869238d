"""Reads settings from a secrets store before anything else is read: `NHOOD_SECRETS`.

`aws-secretsmanager:<name or ARN>` names a secret of AWS Secrets Manager whose text is a JSON object
of variables, such as `{"DATABASE_URL": "…", "NHOOD_PROVIDER_SLACK_CLIENT_SECRET": "…"}`.
What the environment says itself goes first, so one variable can be overridden by hand. It is read
once, at the start: restart the stages after a change.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Final

import orjson

from schemas.errors import DependencyDown, InvalidInput, SecretUnavailable
from schemas.settings import Settings

VARIABLE: Final = "NHOOD_SECRETS"
_KIND: Final = "aws-secretsmanager"
_CONNECT_S: Final = 3.0
_READ_S: Final = 10.0
_KNOWN: Final = frozenset(item.metadata["env"] for item in fields(Settings)) - {"", VARIABLE}


def with_secrets(env: Mapping[str, str]) -> dict[str, str]:
    """Give the environment with what the secrets store adds to it.

    Args:
        env: The environment; `NHOOD_AWS_REGION` and `NHOOD_AWS_ENDPOINT_URL` say where AWS is.

    Raises:
        InvalidInput: The setting or what is stored cannot be used; values are never told.
        SecretUnavailable: There is no such secret, or we may not read it.
        DependencyDown: AWS does not answer.
    """
    kind, _, name = env.get(VARIABLE, "").partition(":")
    if not kind:
        return dict(env)
    if kind != _KIND or not name:
        raise InvalidInput(
            f"{VARIABLE} must look like {_KIND}:<name or ARN of the secret>.", code="bad_setting"
        )
    return {**_parsed(name, _fetched(name, env)), **env}


def _fetched(name: str, env: Mapping[str, str]) -> str:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client = boto3.session.Session().client(
            "secretsmanager",
            region_name=env.get("NHOOD_AWS_REGION") or None,
            endpoint_url=env.get("NHOOD_AWS_ENDPOINT_URL") or None,
            config=Config(connect_timeout=_CONNECT_S, read_timeout=_READ_S),
        )
        answer = client.get_secret_value(SecretId=name)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        raise SecretUnavailable(
            f"The settings cannot be read from AWS Secrets Manager: {code} for {name!r}. Our role"
            " needs secretsmanager:GetSecretValue on it.",
            code="secrets_unavailable",
        ) from None
    except (BotoCoreError, ValueError) as error:
        raise DependencyDown(
            "AWS Secrets Manager cannot be asked for the settings"
            f" ({type(error).__name__}); are NHOOD_AWS_REGION and our credentials right?",
            code="secrets_unreachable",
        ) from None
    return str(answer.get("SecretString", ""))


def _parsed(name: str, text: str) -> dict[str, str]:
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict) or not all(isinstance(value, str) for value in body.values()):
        raise InvalidInput(
            f"The secret {name!r} must be a JSON object of variables, each with a text.",
            code="bad_secrets",
        )
    unknown = sorted(key for key in body if not _is_known(key))
    if unknown:
        raise InvalidInput(
            f"The secret {name!r} has variables that we do not know:"
            f" {', '.join(key[:80] for key in unknown)}.",
            code="bad_secrets",
        )
    return body


def _is_known(key: str) -> bool:
    return key in _KNOWN or key.startswith("NHOOD_PROVIDER_")
