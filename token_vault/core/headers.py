"""What a credential adds to a request: a header made by the provider's template, or a signature."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

from schemas.expression import ABSENT
from schemas.provider import ProviderSpec
from schemas.provider_auth import IN_URL, AuthSpec
from schemas.settings import Secret
from schemas.transforms import as_text
from token_vault.core.sigv4 import AwsKeys, sign


@dataclass(frozen=True, slots=True)
class Proof:
    """What shows a vendor who calls.

    Attributes:
        header, value: The header that carries the credential; empty where requests are signed,
            `IN_URL` where it stands in the address.
        keys: What requests are signed with.
        others: Further headers, by the names that requests give where they want one of these.
    """

    header: str
    value: Secret
    keys: AwsKeys | None = None
    others: Mapping[str, tuple[str, Secret]] = field(default_factory=dict)

    def url(self, url: str) -> str:
        """Give the address to send to: with the credential in it, where the vendor wants it there.

        It is for the socket alone. What is logged, told and recorded is the address as it was. Only
        the first mark is the provider's own, in its base address: one that somebody wrote behind it
        stays as it is, or they could have the credential sent to where they read it.
        """
        if self.header != IN_URL:
            return url
        return url.replace(IN_URL, quote(self.value.reveal(), safe=":"), 1)

    def carried(self, name: str = "") -> Secret:
        """Give the value of the usual header, or of the one of `others` with this name."""
        return self.others[name][1] if name else self.value

    def headers(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        at: datetime,
        name: str = "",
    ) -> dict[str, str]:
        """Give the headers to add to a request.

        Args:
            method: HTTP method.
            url: Absolute and encoded, with its query, as it will be sent.
            headers: That are sent besides.
            body: As it will be sent; None: none.
            at: UTC; it stands in signatures.
            name: Of one of `others`; empty: the usual one.
        """
        if name:
            return {self.others[name][0]: self.carried(name).reveal()}
        if self.header == IN_URL:
            return {}
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
    others = {
        name: (header, Secret(template.text(roots)))
        for name, (header, template) in auth.proofs.items()
    }
    header, template = auth.token_header
    return Proof(header, Secret(template.text(roots)), others=others)
