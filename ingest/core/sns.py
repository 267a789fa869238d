"""What Amazon SNS signs.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message-verify-message-signature.html
"""

from collections.abc import Mapping
from typing import Any, Final

_NOTIFICATION: Final = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_CONFIRMATION: Final = (
    "Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type",
)  # fmt: skip


def sns_text(body: Mapping[str, Any]) -> str:
    """Give the signed text of a message: names and values in lines; what is not there is left out.

    Raises:
        KeyError: `Type` is missing.
    """
    names = _NOTIFICATION if body["Type"] == "Notification" else _CONFIRMATION
    return "".join(f"{name}\n{body[name]}\n" for name in names if name in body)
