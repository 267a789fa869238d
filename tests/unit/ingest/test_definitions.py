"""What ingest knows of who listens."""

import pytest
from msgspec.structs import replace

from ingest.definitions import Hook, Listeners, must_be_signed
from schemas.events import Place
from schemas.ids import derived_id
from tests.unit.ingest.conftest import OTHER_WS, WS, saved
from wire.bus import Stored

ONE = derived_id("wf", 1)


def known(*records):
    table = Listeners()
    for record in records:
        table.take(record)
    return table


def test_saved_workflow_listens_on_its_path():
    table = known(saved("new-customer/", verify="required"), saved("/b", number=2, mode="test"))
    assert table.on_path(WS, "/new-customer") == (Hook(ONE, "live", verify=True),)
    assert table.on_path(WS, "/b") == (Hook(derived_id("wf", 2), "test", verify=False),)
    assert table.on_path(OTHER_WS, "/b") == ()


def test_saved_again_it_listens_on_the_new_path_only():
    table = known(saved("/a"), saved("/b"))
    assert (table.on_path(WS, "/a"), len(table.on_path(WS, "/b"))) == ((), 1)


def test_several_workflows_listen_on_one_path():
    table = known(saved(number=1), saved(number=2), saved(number=1))
    assert {hook.workflow_id for hook in table.on_path(WS, "/new-customer")} == {
        ONE,
        derived_id("wf", 2),
    }


@pytest.mark.parametrize(
    "gone",
    [
        saved(status="deleted"),
        Stored(Place("nhood.definitions.v1", 0, 9), ONE.encode(), None),
    ],
)
def test_deleted_workflow_listens_no_more(gone):
    assert known(saved(), gone).on_path(WS, "/new-customer") == ()


def test_paused_workflow_still_counts():
    assert len(known(saved(status="paused")).on_path(WS, "/new-customer")) == 1


def test_old_versions_do_not_count():
    old = replace(saved("/old"), key=f"{ONE}@1".encode())
    assert known(saved("/new"), old).on_path(WS, "/old") == ()


@pytest.mark.parametrize(
    "record",
    [
        replace(saved(), value=b"\x00"),
        replace(saved(), key=None),
        replace(saved(), key=b"\xff"),
    ],
)
def test_record_that_cannot_be_read_is_left_out(record):
    assert known(record, saved("/b", number=2)).on_path(WS, "/b")


def test_signature_is_required_by_workflows_of_the_same_mode_only():
    hooks = [Hook("a", "live", verify=True), Hook("b", "test", verify=False)]
    assert must_be_signed(hooks, "live")
    assert not must_be_signed(hooks, "test")
