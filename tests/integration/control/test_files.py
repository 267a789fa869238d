"""The files API over real HTTP."""

import os

CONTENT = os.urandom(1_500_000)


async def test_file_is_put_in_listed_fetched_and_dropped(gateway):
    ada = await gateway.register()
    workspace = await ada.make_workspace()
    key, base = workspace["test_api_key"], f"/api/v1/workspaces/{workspace['workspace_id']}/files"
    made = await gateway.with_key(
        key,
        "POST",
        f"{base}?name=report%202.pdf",
        content=CONTENT,
        headers={"content-type": "application/pdf"},
    )
    assert made.status_code == 201, made.text
    file = made.json()
    assert (file["name"], file["size"], file["content_type"]) == (
        "report 2.pdf",
        len(CONTENT),
        "application/pdf",
    )
    again = (await gateway.with_key(key, "POST", f"{base}?name=b.txt", content=b"b")).json()
    assert again["content_type"] == "text/plain"
    first = (await gateway.with_key(key, "GET", base, params={"limit": 1})).json()
    more = {"limit": 1, "cursor": first["next_cursor"]}
    rest = (await gateway.with_key(key, "GET", base, params=more)).json()
    ids = [item["file_id"] for item in (*first["items"], *rest["items"])]
    assert ids == [again["file_id"], file["file_id"]]
    assert rest["next_cursor"] is None
    one = f"{base}/{file['file_id']}"
    assert (await gateway.with_key(key, "GET", one)).json() == file
    content = await gateway.with_key(key, "GET", f"{one}/content")
    assert content.content == CONTENT
    assert content.headers["content-disposition"] == "attachment; filename*=UTF-8''report%202.pdf"
    assert content.headers["x-content-type-options"] == "nosniff"
    assert (await gateway.with_key(key, "DELETE", one)).status_code == 204
    gone = await gateway.with_key(key, "GET", f"{one}/content")
    assert (gone.status_code, gone.json()["code"]) == (404, "file_not_found")


async def test_files_of_the_other_mode_and_of_others_are_not_there(gateway):
    ada, bob = await gateway.register(), await gateway.register()
    mine, theirs = await ada.make_workspace(), await bob.make_workspace()
    base = f"/api/v1/workspaces/{mine['workspace_id']}/files"
    test_key = mine["test_api_key"]
    file = (await gateway.with_key(test_key, "POST", f"{base}?name=a", content=b"a")).json()
    for key in (mine["api_key"], theirs["test_api_key"]):
        for path in (f"{base}/{file['file_id']}", f"{base}/{file['file_id']}/content"):
            assert (await gateway.with_key(key, "GET", path)).status_code == 404
    assert (await gateway.with_key(mine["api_key"], "GET", base)).json()["items"] == []


async def test_too_large_a_file_is_refused_and_nothing_of_it_kept(gateway):
    ada = await gateway.register()
    workspace = await ada.make_workspace()
    base = f"/api/v1/workspaces/{workspace['workspace_id']}/files"
    bound = gateway.ports.settings.file_bytes_max

    async def endless():
        for _ in range(bound // len(CONTENT) + 1):
            yield CONTENT

    key = workspace["test_api_key"]
    answer = await gateway.with_key(key, "POST", f"{base}?name=a", content=endless())
    assert (answer.status_code, answer.json()["code"]) == (413, "file_too_large")
    assert (await gateway.with_key(key, "GET", base)).json()["items"] == []
    nameless = await gateway.with_key(workspace["test_api_key"], "POST", base, content=b"x")
    assert (nameless.status_code, nameless.json()["problems"][0]["place"]) == (422, "query.name")
