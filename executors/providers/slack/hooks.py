"""Slack's file upload, which takes three requests.

https://docs.slack.dev/messaging/working-with-files
"""

from executors.core.action import Call, Steps
from executors.core.outcome import Rejected, Succeeded, Unavailable
from executors.core.request import Request
from schemas import files
from schemas.errors import InvalidInput


def call_upload_file(call: Call) -> Steps:
    """Ask for an address, send the bytes there, share the file.

    Nothing is to be seen in Slack before the last request, so an earlier failure is harmless.
    """
    params = call.params
    try:
        file = files.known(params["file"])
        upload = files.Upload(files.UNKNOWN_TYPE, (files.piece(file),))
    except InvalidInput as error:
        return Rejected(code=error.code, message=error.public)
    filename = params.get("filename", file["name"])
    wanted = {"filename": filename, "length": upload.size}
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
    sent = yield Request("POST", url, upload=upload, with_token=False)
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
    shared["files"] = [{"id": file_id, "title": params.get("title", filename)}]
    last = call.other("complete_upload", shared)
    return last.outcome((yield last.request()))
