"""What a credential adds to a request: a header made by the provider's template, or a signature."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from schemas.expression import ABSENT
from schemas.provider import ProviderSpec
from schemas.provider_auth import AuthSpec
from schemas.settings import Secret
from schemas.transforms import as_text
from token_vault.core.sigv4 import AwsKeys, sign


@dataclass(frozen=True, slots=True)
class Proof:
    """What shows a vendor who calls.

    Attributes:
        header, value: The header that carries the credential; empty where requests are signed.
        keys: What requests are signed with.
    """

    header: str
    value: Secret
    keys: AwsKeys | None = None

    def headers(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, at: datetime
    ) -> dict[str, str]:
        """Give the headers to add to a request.

        Args:
            method: HTTP method.
            url: Absolute and encoded, with its query, as it will be sent.
            headers: That are sent besides.
            body: As it will be sent; None: none.
            at: UTC; it stands in signatures.
        """
        if self.keys is None:
            return {self.header: self.value.reveal()}
        return sign(self.keys, method, url, headers, body or b"", at)


def roots_of(
    spec: ProviderSpec, token: str, fields: Mapping[str, Secret], variables: Mapping[str, str]
) -> dict[str, Any]:
    """Give what templates of headers and requests of one connection read.

    Args:
        spec: The provider, with the way to connect as its `auth`.
        token: The access token; empty where credentials were entered.
        fields: The credentials that were entered.
        variables: The connection's.
    """
    roots: dict[str, Any] = {
        "token": token,
        "connection": spec.connection(variables),
        "credentials": {name: value.reveal() for name, value in fields.items()},
    }
    if spec.auth.basic is not None:
        user, password = (part.text(roots) for part in spec.auth.basic)
        roots["basic"] = base64.b64encode(f"{user}:{password}".encode()).decode()
    return roots


def proof_of(auth: AuthSpec, roots: Mapping[str, Any]) -> Proof:
    """Make the proof of a connection.

    Args:
        auth: The way in which it is connected.
        roots: Of `roots_of`.

    Raises:
        MissingPath: A credential that it needs is not there.
    """
    signing = auth.signing
    if signing is not None:
        temporary = signing.session_token.find(roots) if signing.session_token else ABSENT
        return Proof(
            "",
            Secret(""),
            AwsKeys(
                access_key_id=signing.access_key_id.text(roots),
                secret_access_key=Secret(signing.secret_access_key.text(roots)),
                session_token=None if temporary in (ABSENT, None) else Secret(as_text(temporary)),
                region=signing.region.text(roots),
                service=signing.service,
            ),
        )
    name, template = auth.token_header
    return Proof(name, Secret(template.text(roots)))
