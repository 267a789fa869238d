"""What the customer is asked for before an account can be connected, as fields of a form; pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from schemas.errors import Problem
from schemas.provider import ProviderSpec

# A pasted credential may be long (keys in PEM); anything else is a word.
SECRET_CHARS_MAX: Final = 8_192
WORD_CHARS_MAX: Final = 500
# Only what Python and JavaScript (with its flag `v`, which browsers use) read alike.
_ALIKE = re.compile(r"\\[dwsDWS.\-/]|\(\?:|\[|[^\\(]|\((?!\?)")
# https://tc39.es/ecma262/#prod-ClassSetSyntaxCharacter
_CLASS_SYNTAX: Final = frozenset("()[{}/|")

Kind = Literal["variable", "credential"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the form.

    Attributes:
        name: As the provider declares it.
        kind: A fact about the account, or part of its credential.
        label: For people.
        help: What to enter.
        pattern: For the browser's own check; None: it has no way to say it, the server checks.
        secret: Not to be seen while it is typed, and never given back.
        suffix: What follows the value in the account's address, such as `.zendesk.com`.
        value: What stands in it.
        error: What is wrong with that; empty: nothing.
        usual: Whether nearly everybody leaves it as it is.
    """

    name: str
    kind: Kind
    label: str
    help: str
    pattern: str | None
    secret: bool
    required: bool
    suffix: str = ""
    value: str = ""
    error: str = ""
    usual: bool = False

    @property
    def key(self) -> str:
        """The field's name in the form; the two kinds cannot meet."""
        return f"{self.kind}.{self.name}"


def fields_of(spec: ProviderSpec, *, with_credentials: bool) -> list[Field]:
    """List what is to be asked for.

    Args:
        spec: The provider, with the way to connect as its `auth`.
        with_credentials: For its credentials (an API key); else only for what a consent needs.
    """
    found = [
        Field(
            name=name,
            kind="variable",
            label=_label(name),
            help=variable.help,
            pattern=browser_pattern(variable.pattern) if variable.pattern else None,
            secret=False,
            required=variable.default is None,
            suffix=_suffix(spec, name),
            value=variable.default or "",
            usual=variable.default is not None,
        )
        for name, variable in spec.auth.variables.items()
        if variable.source == "customer"
    ]
    if with_credentials:
        found += [
            Field(
                name=item.name,
                kind="credential",
                label=_label(item.name),
                help=item.help,
                pattern=browser_pattern(item.pattern) if item.pattern else None,
                secret=item.secret,
                required=item.required,
            )
            for item in spec.auth.credentials
        ]
    return found


def filled(fields: Iterable[Field], form: Mapping[str, str], spec: ProviderSpec) -> list[Field]:
    """Give the fields with what was entered, and what is wrong with it; secrets are checked too."""
    return [_filled(field, form.get(field.key, "").strip(), spec) for field in fields]


def blamed(fields: Iterable[Field], problems: Iterable[Problem]) -> list[Field]:
    """Give the fields with what the vault found wrong: its places end in a field's name."""
    said = {problem.place.rpartition(".")[2]: problem for problem in problems}
    return [
        replace(field, error=_sentence(said[field.name])) if field.name in said else field
        for field in fields
    ]


def values(fields: Iterable[Field], kind: Kind) -> dict[str, str]:
    """Give what was entered, by name; what was left empty is not there."""
    return {field.name: field.value for field in fields if field.kind == kind and field.value}


def _filled(field: Field, value: str, spec: ProviderSpec) -> Field:
    value = value or ("" if field.secret or field.required else field.value)
    error = ""
    bound = SECRET_CHARS_MAX if field.kind == "credential" else WORD_CHARS_MAX
    if not value:
        error = "Please fill this in." if field.required else ""
    elif len(value) > bound:
        error = f"This is too long: at most {bound:,} characters."
    elif field.kind == "variable" and not spec.auth.variables[field.name].accepts(value):
        error = "This does not look right."
    return replace(field, value=value, error=error)


def _sentence(problem: Problem) -> str:
    if problem.code == "refused":
        return "This was not accepted. Check that it is complete and still good."
    return "Please fill this in." if problem.code == "missing" else "This does not look right."


def _label(name: str) -> str:
    text = name.replace("_", " ").strip()
    words = [_SPELLED.get(word, word) for word in text.split()]
    return (words[0][:1].upper() + words[0][1:] + " " + " ".join(words[1:])).strip()


_SPELLED: Final = {
    "api": "API",
    "id": "ID",
    "sid": "SID",
    "url": "URL",
    "aws": "AWS",
    "email": "e-mail address",
}


def _suffix(spec: ProviderSpec, name: str) -> str:
    """Give what follows a value in the account's address, where the value is the host's start."""
    for template in (spec.auth.authorize_url, spec.api.base_url):
        if template is None:
            continue
        found = re.match(
            r"https://\$\{connection\." + re.escape(name) + r"\}(\.[a-z0-9.-]+)", template.source
        )
        if found is not None:
            return found[1]
    return ""


def browser_pattern(pattern: str) -> str | None:
    r"""Write a Python pattern for HTML's `pattern`, which browsers read with the flag `v`.

    Both are matched as a whole. In a class, `v` wants `- ( ) [ { } / |` escaped where they stand
    for themselves: https://html.spec.whatwg.org/multipage/input.html#attr-input-pattern

    Returns:
        `[a-z0-9\-]` for `[a-z0-9-]`; None where the two languages differ otherwise.
    """
    text = pattern.removeprefix("^").removesuffix("$")
    written: list[str] = []
    at = 0
    while at < len(text):
        found = _ALIKE.match(text, at)
        if found is None:
            return None
        if found[0] != "[":
            written.append(found[0])
            at = found.end()
            continue
        end = _class_end(text, at)
        if end is None:
            return None
        inside = _class(text[at + 1 : end])
        if inside is None:
            return None
        written.append(f"[{inside}]")
        at = end + 1
    return "".join(written)


def _class_end(text: str, at: int) -> int | None:
    at += 1
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == "]":
            return at
        at += 1
    return None


def _class(text: str) -> str | None:
    """Escape what stands for itself inside a class."""
    head = "^" if text.startswith("^") else ""
    rest, written, at = text.removeprefix("^"), [head], 0
    while at < len(rest):
        sign = rest[at]
        if sign == "\\":
            if at + 1 == len(rest) or rest[at + 1] not in "dwsDWS.-/\\]":
                return None
            written.append(rest[at : at + 2])
            at += 2
            continue
        if sign == "-" and (at == 0 or at + 1 == len(rest)):
            written.append("\\-")
        elif sign in _CLASS_SYNTAX:
            written.append("\\" + sign)
        elif rest[at : at + 2] in ("&&", "--"):
            return None
        else:
            written.append(sign)
        at += 1
    return "".join(written)
