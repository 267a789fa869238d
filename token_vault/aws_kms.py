"""The root key in AWS KMS: it never leaves there.

A root key's name is `aws-kms:<ARN>`. The place is the encryption context, so what is wrapped opens
with the same one only, and CloudTrail shows which workspace's key was asked for:
https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html
AWS's own yearly rotation changes what is behind an ARN and needs nothing here; a move to another
key is a root rotation.

boto3 blocks, so it is called on threads, each call bounded in time.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from schemas.errors import DependencyDown, SecretUnavailable
from schemas.settings import Settings
from token_vault.core.envelope import (
    AWS_KMS,
    Place,
    ciphertext_of,
    key_id_of,
    wrapped_elsewhere,
    wrong_root,
)

CONNECT_S: Final = 3.0
READ_S: Final = 5.0
CALL_S: Final = 15.0
# How long an alias is believed to point where it did.
KEY_KEPT_S: Final = 10.0
_PREFIX: Final = "aws-kms:"
_TRY_AGAIN: Final = frozenset(
    (
        *("ThrottlingException", "KMSInternalException", "DependencyTimeoutException"),
        *("KeyUnavailableException", "InternalFailure", "ServiceUnavailable", "RequestTimeout"),
        "LimitExceededException",
    )
)
_GONE: Final = frozenset(
    (
        "NotFoundException",
        "DisabledException",
        "KMSInvalidStateException",
        "InvalidKeyUsageException",
    )
)


class KmsKeyProvider:
    """Has AWS KMS wrap and unwrap keys."""

    def __init__(self, settings: Settings) -> None:
        self._key = settings.aws_kms_key
        self._newest: tuple[float, str] | None = None
        try:
            self._client = boto3.session.Session().client(
                "kms",
                region_name=settings.aws_region or None,
                endpoint_url=settings.aws_endpoint_url or None,
                config=Config(
                    connect_timeout=CONNECT_S,
                    read_timeout=READ_S,
                    retries={"mode": "standard", "max_attempts": 2},
                ),
            )
        except (BotoCoreError, ValueError) as error:
            raise SecretUnavailable(
                f"AWS KMS cannot be set up ({type(error).__name__}): set NHOOD_AWS_REGION, and give"
                " credentials in one of the ways that boto3 knows.",
                code="bad_key_provider",
            ) from None

    async def current(self) -> str:
        """Name the key that the setting points to now."""
        if self._newest is not None and self._newest[0] > time.monotonic():
            return self._newest[1]
        answer = await self._ask(self._client.describe_key, KeyId=self._key)
        return self._remember(answer["KeyMetadata"]["Arn"])

    async def wrap(self, material: bytes, place: Place) -> bytes:
        """Encrypt a key."""
        answer = await self._ask(
            self._client.encrypt,
            KeyId=self._key,
            Plaintext=material,
            EncryptionContext=_context(place),
        )
        name = self._remember(answer["KeyId"])
        return wrapped_elsewhere(AWS_KMS, name, bytes(answer["CiphertextBlob"]))

    async def unwrap(self, wrapped: bytes, place: Place) -> bytes:
        """Decrypt a key with the one that wrapped it; the IAM policy says which may be used.

        Raises:
            SecretUnavailable: Another root key wrapped it, it was moved, or AWS refuses.
            DependencyDown: AWS does not answer.
        """
        blob, name = ciphertext_of(wrapped, AWS_KMS), key_id_of(wrapped)
        if not name.startswith(_PREFIX):
            raise wrong_root(name)
        answer = await self._ask(
            self._client.decrypt,
            KeyId=name.removeprefix(_PREFIX),
            CiphertextBlob=blob,
            EncryptionContext=_context(place),
        )
        return bytes(answer["Plaintext"])

    async def renew(self) -> None:
        """Do nothing: a new key is made in AWS, and the setting or its alias pointed to it."""
        self._newest = None

    def _remember(self, arn: str) -> str:
        name = f"{_PREFIX}{arn}"
        self._newest = (time.monotonic() + KEY_KEPT_S, name)
        return name

    async def _ask(self, call: Callable[..., Any], **more: Any) -> dict[str, Any]:  # noqa: ANN401
        try:
            async with asyncio.timeout(CALL_S):
                answer: dict[str, Any] = await asyncio.to_thread(partial(call, **more))
        except ClientError as error:
            raise self._refused(error) from None
        except (BotoCoreError, TimeoutError) as error:
            raise _unreachable(error) from None
        return answer

    def _refused(self, error: ClientError) -> DependencyDown | SecretUnavailable:
        """Say what a refusal means; boto's own text may hold what we sent, so it stays here."""
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _TRY_AGAIN or status >= 500:
            return _unreachable(error, code)
        if code in _GONE:
            return SecretUnavailable(
                f"AWS KMS cannot use the root key {self._key} or one that wrapped before it: it"
                " does not exist in this region and account, or it is disabled or being deleted.",
                code="no_master_key",
                detail=code,
            )
        if code == "IncorrectKeyException":
            return wrong_root(code, self._key)
        if code == "InvalidCiphertextException":
            return SecretUnavailable(
                "AWS KMS does not open a wrapped key: it was changed, or moved from where it"
                " belongs.",
                code="secret_damaged",
                detail=code,
            )
        return SecretUnavailable(
            f"AWS KMS refuses us the root key {self._key} ({code}); look at our credentials and at"
            " the key's policy (docs/security.md shows what is needed).",
            code="root_key_refused",
            detail=code,
        )


def _context(place: Place) -> dict[str, str]:
    return {"workspace": place.workspace, "owner": place.owner, "field": place.field}


def _unreachable(error: Exception, code: str = "") -> DependencyDown | SecretUnavailable:
    kind = code or type(error).__name__
    if kind in ("NoCredentialsError", "PartialCredentialsError", "NoRegionError"):
        return SecretUnavailable(
            f"AWS KMS cannot be asked ({kind}): set NHOOD_AWS_REGION, and give credentials in one"
            " of the ways that boto3 knows.",
            code="bad_key_provider",
        )
    return DependencyDown(
        "AWS KMS, which keeps the root key, does not answer.",
        code="root_key_unreachable",
        detail=kind,
    )
