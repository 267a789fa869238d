"""The folder of a new provider, to be filled in: `nhood providers new`."""

from pathlib import Path
from typing import Final

from schemas.errors import Conflict, InvalidInput, NotFound
from schemas.provider_file import read_provider
from schemas.settings import ProviderOverride

_OAUTH: Final = """\
auth:
  kind: oauth2
  authorize_url: {origin}/oauth/authorize
  token_url: {origin}/oauth/token
  revoke: null
  scope_separator: " "
  default_scopes: [things.read, things.write]
  pkce: supported
  client_auth: basic
  token_body: form
  refresh: rotating
  access_token_seconds: 3600
  account:
    request: {{method: GET, url: "{base_url}/me"}}
    id: "${{body.id}}"
    name: "${{body.name}}"
  token_header: "Authorization: Bearer ${{token}}"
"""
_KEY: Final = """\
auth:
  kind: api_key
  credentials:
    - {{name: api_key, secret: true, help: "Where your customer finds the key."}}
  token_header: "Authorization: Bearer ${{credentials.api_key}}"
  account:
    request: {{method: GET, url: "{base_url}/me"}}
    id: "${{body.id}}"
    name: "${{body.name}}"
"""
_FILE: Final = """\
# yaml-language-server: $schema=../../../schemas/provider.schema.json
# {name} API: put the address of its documentation here
slug: {slug}
name: {name}
category: {category}
status: live
resources: [things]

{auth}
api:
  base_url: {base_url}
  headers: {{Accept: application/json}}
  failure:
    code: ["${{body.error.code}}", "${{body.error}}"]
    text: ["${{body.error.message}}", "${{body.message}}"]

# What the vendor documents: calls in so many seconds, per connection or app.
limits:
  - {{key: connection, rate: 100, per_seconds: 60}}

# The first rule that fits counts; what none fits is read as HTTP says.
errors:
  - {{status: 401, outcome: unauthorised}}
  - {{status: 429, outcome: throttled}}

actions:
  create_thing:
    resource: things
    summary: Make a thing
    doc: {origin}/docs
    params:
      type: object
      required: [name]
      additionalProperties: false
      properties:
        name: {{type: string, description: What it is called.}}
    request: {{method: POST, path: /things, json: {{name: "${{params.name}}"}}}}
    result: {{id: "${{body.id}}"}}
    example:
      params: {{name: First}}
      response: {{status: 201, body: {{id: "1", name: First}}}}

  get_thing:
    resource: things
    summary: Get a thing
    doc: {origin}/docs
    params:
      type: object
      required: [thing_id]
      additionalProperties: false
      properties:
        thing_id: {{type: string, description: Its id.}}
    request: {{method: GET, path: "/things/${{params.thing_id}}"}}
    result: {{id: "${{body.id}}"}}
    example:
      params: {{thing_id: "1"}}
      response: {{status: 200, body: {{id: "1", name: First}}}}

triggers: null
"""
_SANDBOX: Final = """\
# How the sandbox plays {name}; see nhood/sandbox/sheet.py for what can be said here.
oauth:
  account: {{id: "${{account.uuid}}", name: "${{account.name}}"}}
resources:
  things: {{extend: true}}
"""


def scaffold(folder: Path, slug: str, name: str, category: str, base_url: str, auth: str) -> Path:
    """Write a new provider's folder; everything in it works in the sandbox as it stands.

    Args:
        folder: Where providers are.
        slug: `[a-z][a-z0-9_]*`; workflows name it.
        name: As people know it.
        category: One of the schema's.
        base_url: `https://…` of its API, without a slash at the end.
        auth: `oauth2` or `api_key`.

    Raises:
        Conflict: There is such a provider already.
        InvalidInput: A value that no provider file may have; nothing is written.
        NotFound: The folder is not there.
    """
    if not folder.is_dir():
        raise NotFound(f"{folder} is not there; run this in a checkout.", code="no_folder")
    place = folder / slug
    if place.exists():
        raise Conflict(f"{place} is there already.", code="provider_exists")
    base = base_url.rstrip("/")
    if not base.startswith("https://"):
        raise InvalidInput(f"The address must begin with https://, not {base_url!r}.")
    parts = base.split("/")
    if len(parts) < 3 or not parts[2]:
        raise InvalidInput(f"{base_url!r} names no host.")
    values = {"slug": slug, "name": name, "category": category, "base_url": base,
              "origin": f"https://{parts[2]}"}  # fmt: skip
    section = (_OAUTH if auth == "oauth2" else _KEY).format(**values)
    place.mkdir()
    file = place / "provider.yaml"
    try:
        file.write_text(_FILE.format(auth=section, **values))
        (place / "sandbox.yaml").write_text(_SANDBOX.format(**values))
        (place / "fixtures").mkdir()
        read_provider(file, ProviderOverride())
    except InvalidInput:
        file.unlink()
        (place / "sandbox.yaml").unlink(missing_ok=True)
        (place / "fixtures").rmdir()
        place.rmdir()
        raise
    return place
