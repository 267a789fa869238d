"""Feeds: what changed in an account since a place that the vendor named before.

A sheet says of an action `feed: {of, since, item, answer}`: changes of which resources, the param
that holds the place, how one looks and what the answer says besides. `item` reads `seq`, `id`,
`kind` (file, or deleted), `removed`, `sent` and `time`; `answer` reads `seq`, the newest place.
"""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nhood.sandbox.records import Change
from nhood.sandbox.wire_in import Answer, json_answer

if TYPE_CHECKING:
    from nhood.sandbox.acting import Act
    from nhood.sandbox.sheet import FeedSheet


def fed(doing: "Act", feed: "FeedSheet") -> Answer:
    """Answer with what changed; a place that is none means now."""
    from nhood.sandbox.acting import put

    account, plan = doing.account, doing.plan
    last = account.journal[-1].seq if account.journal else 0
    digits = re.search(r"\d+$", str(doing.params.get(feed.since, ""))) if feed.since else None
    since = int(digits.group()) if digits is not None else last
    body = plan.body
    if plan.items is not None and feed.item is not None:
        shown = [
            feed.item.render(_roots(change))
            for change in account.journal
            if change.seq > since and change.resource in feed.of
        ]
        body = put(body, tuple(map(str, plan.items)), shown)
    told = {} if feed.answer is None else feed.answer.render({"seq": str(last)})
    return json_answer(plan.spec.example.status, {**body, **told}, plan.spec.example.headers)


def _roots(change: Change) -> dict[str, Any]:
    record = change.record
    moment = datetime.fromtimestamp(record.changed_s, UTC)
    return {
        "seq": str(change.seq),
        "id": str(next(iter(record.names.values()))),
        "kind": "deleted" if change.removed else change.resource.removesuffix("s"),
        "removed": change.removed,
        "sent": record.sent,
        "time": moment.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    }
