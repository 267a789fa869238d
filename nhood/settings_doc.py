"""Writes docs/settings.md from the settings themselves: `python -m nhood.settings_doc`."""

from dataclasses import fields
from pathlib import Path

from schemas.settings import Secret, Settings

FILE = Path(__file__).parent.parent / "docs" / "settings.md"

_HEAD = """# Settings

Every stage reads its settings from the environment, once, at its start; everything that is wrong
is told at once. This page is written by `python -m nhood.settings_doc`.

| variable | default | meaning |
|---|---|---|
"""

_PER_PROVIDER = {
    "CLIENT_ID": "the OAuth app that customers connect to",
    "CLIENT_SECRET": "its secret",
    "BASE_URL": "where its API is reached: a gateway, a proxy, the vendor's own mock server",
    "AUTHORIZE_URL": "where its consent page is",
    "TOKEN_URL": "where its token endpoint is",
}

_MIDDLE = """
For each provider, such as Slack (live mode only; test mode always goes to the sandbox):

| variable | meaning |
|---|---|
"""


def settings_page() -> str:
    """Give the page's text."""
    rows = []
    for item in fields(Settings):
        name = item.metadata["env"]
        if not name:
            continue
        default = item.default
        shown = "" if isinstance(default, Secret) or default == "" else f"`{default}`"
        rows.append(f"| `{name}` | {shown} | {item.metadata['doc']} |\n")
    each = [f"| `NHOOD_PROVIDER_SLACK_{part}` | {doc} |\n" for part, doc in _PER_PROVIDER.items()]
    return _HEAD + "".join(rows) + _MIDDLE + "".join(each)


if __name__ == "__main__":
    FILE.write_text(settings_page())
