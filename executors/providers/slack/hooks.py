"""Slack's file upload, which takes three requests.

https://docs.slack.dev/messaging/working-with-files
"""

import base64
import binascii

from executors.core.action import Call, Steps
from executors.core.outcome import Rejected, Succeeded, Unavailable
from executors.core.request import Request


def call_upload_file(call: Call) -> Steps:
    """Ask for an address, send the bytes there, share the file.

    Nothing is to be seen in Slack before the last request, so an earlier failure is harmless.
    """
    params = call.params
    try:
        content = _content(params["content"], params["encoding"])
    except ValueError as error:
        return Rejected(code="invalid_params", message=f"content is not base 64: {error}.")
    wanted = {"filename": params["filename"], "length": len(content)}
    if "alt_text" in params:
        wanted["alt_text"] = params["alt_text"]
    first = call.other("get_upload_url", wanted)
    outcome = first.outcome((yield first.request()))
    if not isinstance(outcome, Succeeded):
        return outcome
    url, file_id = outcome.output.get("upload_url"), outcome.output.get("file_id")
    if not isinstance(url, str) or not file_id:
        return Unavailable(
            status=outcome.status,
            code="unreadable_answer",
            message="Slack gave no address to upload to.",
        )
    sent = yield Request("POST", url, content=content, with_token=False)
    if sent.status != 200:
        return Unavailable(
            status=sent.status,
            code="upload_failed",
            message="Slack did not take the file.",
            detail=f"HTTP {sent.status} from the upload address",
        )
    shared = {
        name: params[name] for name in ("channel", "initial_comment", "thread_ts") if name in params
    }
    shared["files"] = [{"id": file_id, "title": params.get("title", params["filename"])}]
    last = call.other("complete_upload", shared)
    return last.outcome((yield last.request()))


def _content(text: str, encoding: str) -> bytes:
    if encoding == "text":
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
