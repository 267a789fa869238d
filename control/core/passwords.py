"""Passwords: which ones are taken; pure.

Length and guessability count, not character classes (NIST SP 800-63B §3.1.1). Guessability is
zxcvbn's estimate, which knows common passwords, names, keyboard walks and repetitions.
"""

import unicodedata
from collections.abc import Sequence
from typing import Final

from schemas.errors import InvalidInput, Problem

CHARS_MIN: Final = 12
# Nobody types more; hashing and estimating much longer ones would be work for an attacker's sake.
CHARS_MAX: Final = 256
# zxcvbn looks at this many characters at most: its time grows with their square.
_ESTIMATED_CHARS: Final = 72
# Of 0 to 4: 10^10 guesses and more. At 3, "Summer2026!!" and a name with a digit pass.
SCORE_MIN: Final = 4


def normal(password: str) -> str:
    """Give the one form of a password (NFKC), so that every keyboard writes the same."""
    return unicodedata.normalize("NFKC", password)


def check(password: str, known: Sequence[str], place: str = "password") -> None:
    """Refuse a new password that is too short, too long or easily guessed.

    Args:
        password: In its normal form.
        known: What others know of the person: address, name; it must not be made of them.
        place: The field's name, for the error.

    Raises:
        InvalidInput: `weak_password`, with how to do better; never with the password.
    """
    problem = _problem(password, known)
    if problem is not None:
        message, mend = problem
        found = Problem(place, message, mend, "weak_password")
        raise InvalidInput(f"{place} {message}. {mend}", problems=[found], code="weak_password")


def _problem(password: str, known: Sequence[str]) -> tuple[str, str] | None:
    if len(password) < CHARS_MIN:
        return f"has fewer than {CHARS_MIN} characters", "A few words in a row are fine."
    if len(password) > CHARS_MAX:
        return f"has more than {CHARS_MAX} characters", "Choose a shorter one."
    # 12 MB of word lists: only who sets a password pays for them.
    from zxcvbn import zxcvbn

    words = [part for text in known for part in (text, *text.replace("@", " ").split()) if part]
    found = zxcvbn(password[:_ESTIMATED_CHARS], user_inputs=words)
    if found["score"] >= SCORE_MIN:
        return None
    warning = str(found["feedback"]["warning"]).rstrip(".")
    why = f" ({warning[:1].lower()}{warning[1:]})" if warning else ""
    return f"is easily guessed{why}", "Add a few uncommon words."
