"""What an end customer is told when a connection does not come about, and what they can do; pure.

The developer gets the error's own sentence over the API; these are for people who know neither
OAuth nor us. `{provider}` and `{workspace}` are filled in by whoever shows them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

# again: begin once more here · admin: ask whoever administers the account · contact: tell the
# developer · restart: a new link is needed
Action = Literal["again", "admin", "contact", "restart"]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One failure, for people.

    Attributes:
        says: What happened.
        do: What to do about it.
        action: Which of the ways on is offered.
    """

    says: str
    do: str
    action: Action


_LATER: Final = "Wait a few minutes, then try again."
_TELL: Final = "This is not yours to mend: tell {workspace}, and name the code below."
_NEW_LINK: Final = "Go back to {workspace} and start again; that gives you a new link."

SENTENCES: Final[Mapping[str, Sentence]] = {
    "consent_denied": Sentence(
        "Access was declined, so nothing was connected.",
        "If you did want to connect, try again and allow it on the page of {provider}.",
        "again",
    ),
    "consent_failed": Sentence(
        "{provider} did not let the connection come about.",
        "Some accounts take an administrator to approve an app first: ask yours, or try again.",
        "admin",
    ),
    "state_expired": Sentence(
        "This took longer than ten minutes, so for your safety it was stopped.",
        "Try again; it takes a minute.",
        "again",
    ),
    "state_used": Sentence(
        "This step was done already; each one works once.",
        "If your account is not connected yet, try again.",
        "again",
    ),
    "state_unknown": Sentence(
        "This address is not complete, or it was not made here.", _NEW_LINK, "restart"
    ),
    "state_foreign": Sentence("This address does not belong here.", _NEW_LINK, "restart"),
    "other_browser": Sentence(
        "This was begun in another browser, so for your safety it was stopped here.",
        "Go on in the browser in which you began. If that was not you, close this page: nothing"
        " was connected.",
        "restart",
    ),
    "session_unknown": Sentence(
        "This link is not complete, or it was not made here.",
        "Check that you have the whole link, or ask whoever sent it to you for a new one.",
        "restart",
    ),
    "session_expired": Sentence("This link has expired.", _NEW_LINK, "restart"),
    "session_used": Sentence(
        "This link was opened already, and it works in one browser only.",
        "Go on in the browser where it was opened first. Or go back to {workspace} for a new link.",
        "restart",
    ),
    "form_foreign": Sentence(
        "This form was not sent from its own page, so for your safety it was not used.",
        "Try again.",
        "again",
    ),
    "vendor_unavailable": Sentence(
        "{provider} is not answering properly at the moment.", _LATER, "again"
    ),
    "account_unknown": Sentence(
        "{provider} is not answering properly at the moment.", _LATER, "again"
    ),
    "no_account": Sentence(
        "{provider} gave access, but to no account.",
        "Choose an account on the page of {provider}, or ask its administrator to give you access.",
        "admin",
    ),
    "bad_account": Sentence(
        "{provider} did not say enough about the account to connect it.",
        "Check that you chose the right account and try again.",
        "again",
    ),
    "account_differs": Sentence(
        "This is another {provider} account than the one that was connected before.",
        "Try again with the account you used before, or tell {workspace} that you have changed it.",
        "again",
    ),
    "scopes_missing": Sentence(
        "Not everything was allowed, so nothing was connected.",
        "Try again and allow all that is asked for on the page of {provider}.",
        "again",
    ),
    "credentials_refused": Sentence(
        "{provider} did not accept what was entered.",
        "Check that it is complete and of the right account, then try again.",
        "again",
    ),
    "exchange_refused": Sentence(
        "{provider} did not accept the connection.",
        "Try again. If it fails again, tell {workspace} and name the code below.",
        "contact",
    ),
    "oauth_app_missing": Sentence(
        "{provider} is not set up here yet.",
        _TELL,
        "contact",
    ),
    "unknown_provider": Sentence("There is nothing of this name to connect.", _TELL, "contact"),
    "not_offered": Sentence("This link is not for {provider}.", _TELL, "contact"),
    "no_oauth": Sentence("{provider} is connected in another way.", _TELL, "contact"),
    "connection_not_found": Sentence(
        "The connection that was to be renewed is no longer there.", _NEW_LINK, "restart"
    ),
    "database_down": Sentence("We cannot do this at the moment.", _LATER, "again"),
    "database_busy": Sentence("We cannot do this at the moment.", _LATER, "again"),
    "secret_unavailable": Sentence("We cannot do this at the moment.", _LATER, "again"),
}
_OTHER: Final = Sentence(
    "Something went wrong on the way.",
    "Try again. If it fails again, tell {workspace} and name the code below.",
    "contact",
)


def sentence(code: str, provider: str, workspace: str) -> Sentence:
    """Give what to say of an error.

    Args:
        code: The error's.
        provider: Its name, or `the account`.
        workspace: Whom the customer deals with, or `whoever sent you here`.
    """
    found = SENTENCES.get(code, _OTHER)
    names = {"provider": provider, "workspace": workspace}
    says = found.says.format_map(names)
    return Sentence(says[:1].upper() + says[1:], found.do.format_map(names), found.action)
