"""Vendors' own SDKs against the sandbox: it answers well enough for programs we did not write."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import pytest
import stripe
from github import Auth, Github, GithubException, UnknownObjectException
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler

from tests.integration.sandbox_parts import PASTED_TOKEN, Playground, running_sandbox

Answer = TypeVar("Answer")


@pytest.fixture
async def sandbox() -> AsyncIterator[Playground]:
    async with running_sandbox() as playground:
        yield playground


async def apart(work: Callable[[], Answer]) -> Answer:
    """Run a blocking client beside the sandbox."""
    return await asyncio.to_thread(work)


async def test_slacks_own_sdk_posts_lists_and_sees_errors(sandbox: Playground) -> None:
    def work() -> list[Any]:
        client = WebClient(PASTED_TOKEN, base_url=f"{sandbox.url}/slack/api/")
        channel = client.conversations_create(name="launch")["channel"]["id"]
        posted = client.chat_postMessage(channel=channel, text="Hello")
        history = client.conversations_history(channel=channel)["messages"]
        with pytest.raises(SlackApiError) as unknown:
            client.chat_postMessage(channel="C0NOWHERE", text="Hello")
        with pytest.raises(SlackApiError) as stranger:
            WebClient("xoxb-wrong", base_url=f"{sandbox.url}/slack/api/").auth_test()
        codes = [error.value.response["error"] for error in (unknown, stranger)]
        return [posted["message"]["text"], history[0]["text"], *codes]

    told = await apart(work)
    assert told == ["Hello", "Hello", "channel_not_found", "invalid_auth"]


async def test_slacks_own_sdk_waits_as_long_as_it_is_told(sandbox: Playground) -> None:
    fault = {"status": 429, "headers": {"retry-after": "1"}, "body": {"ok": False}}
    await sandbox.fault("slack", "send_message", fault)

    def work() -> bool:
        client = WebClient(PASTED_TOKEN, base_url=f"{sandbox.url}/slack/api/")
        client.retry_handlers.append(RateLimitErrorRetryHandler(max_retry_count=1))
        return bool(client.chat_postMessage(channel="#ops", text="Hello")["ok"])

    assert await apart(work)
    assert len([one for one in await sandbox.received("slack") if one["action"]]) == 2


async def test_stripes_own_sdk_makes_pages_and_repeats_by_key(sandbox: Playground) -> None:
    def work() -> list[Any]:
        client = stripe.StripeClient(PASTED_TOKEN, base_addresses={"api": f"{sandbox.url}/stripe"})
        made = [
            client.v1.customers.create(
                {"email": f"no{n}@acme.example"}, {"idempotency_key": f"key-{n}"}
            )
            for n in (0, 1, 2, 2)
        ]
        ours = [c.email for c in client.v1.customers.list({"limit": 2}).auto_paging_iter()]
        with pytest.raises(stripe.InvalidRequestError) as missing:
            client.v1.customers.retrieve("cus_nobody")
        with pytest.raises(stripe.AuthenticationError):
            stripe.StripeClient(
                "sk_test_wrong", base_addresses={"api": f"{sandbox.url}/stripe"}
            ).v1.customers.list()
        return [made[2].id == made[3].id, ours[:3], missing.value.code]

    told = await apart(work)
    emails = [f"no{n}@acme.example" for n in (2, 1, 0)]
    assert told == [True, emails, "resource_missing"]


async def test_pygithub_opens_finds_and_closes_an_issue(sandbox: Playground) -> None:
    def github(token: str) -> Github:
        address = f"{sandbox.url}/github"
        return Github(base_url=address, auth=Auth.Token(token), retry=None, lazy=True)

    def work() -> list[Any]:
        repository = github(PASTED_TOKEN).get_repo("octocat/Hello-World")
        issue = repository.create_issue(title="Found a bug", body="It breaks")
        # by its number: PyGithub follows no address of another host, and answers name GitHub's own
        repository.get_issue(issue.number).edit(state="closed")
        again = repository.get_issue(issue.number)
        with pytest.raises(UnknownObjectException):
            repository.get_issue(999_999).complete()
        with pytest.raises(GithubException) as refused:
            github("wrong").get_repo("octocat/Hello-World").get_issue(1).complete()
        return [again.title, again.state, refused.value.status]

    assert await apart(work) == ["Found a bug", "closed", 401]
