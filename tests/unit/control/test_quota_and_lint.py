"""Plans' bounds, and actions checked against the catalogue."""

import pytest

from control.core.lint import CatalogueActions
from control.core.quota import check_settings, check_workflows, effective
from schemas.errors import Forbidden, InvalidInput
from schemas.plan import compile_workflow
from schemas.provider import load_catalogue
from schemas.quotas import PLANS


@pytest.fixture(scope="module")
def actions():
    return CatalogueActions(load_catalogue())


def test_settings_that_were_not_chosen_are_the_plans():
    settings = effective("professional", {"retention_days": 3})
    assert settings["retention_days"] == 3
    assert settings["max_workflows"] == PLANS["professional"].max_workflows
    assert settings["allow_client_integrations"] is False


def test_settings_beyond_the_plan_are_refused_at_every_place():
    with pytest.raises(InvalidInput) as caught:
        check_settings("free", {"max_workflows": 10**6, "retention_days": 365})
    places = [problem.place for problem in caught.value.problems]
    assert places == ["settings.max_workflows", "settings.retention_days"]


@pytest.mark.parametrize(("existing", "fits"), [(0, True), (2, True), (3, False), (9, False)])
def test_one_more_workflow_fits_below_the_bound(existing, fits):
    if fits:
        check_workflows("free", {"max_workflows": 3}, existing)
    else:
        with pytest.raises(Forbidden) as caught:
            check_workflows("free", {"max_workflows": 3}, existing)
        assert caught.value.code == "workflow_limit_reached"


def test_right_action_has_no_problem(actions):
    params = {"channel": "#x", "text": "{{greeting}}"}
    assert actions.check_action("slack", "send_message", params) == []


@pytest.mark.parametrize(
    ("provider", "action", "params", "place", "word"),
    [
        ("slak", "send_message", {}, "provider", "slack"),
        ("slack", "send_mesage", {}, "action", "send_message"),
        ("slack", "send_message", {"channel": 5, "text": "x"}, "config.channel", ""),
        ("slack", "send_message", {"chanel": "#x", "text": "x"}, "config.chanel", "channel"),
    ],
)
def test_wrong_action_or_param_is_named_with_a_way_out(
    actions, provider, action, params, place, word
):
    problems = {p.place: p for p in actions.check_action(provider, action, params)}
    assert place in problems
    assert word in problems[place].message + problems[place].mend


def test_workflow_of_a_vendor_that_was_shut_down_is_for_tests_only(actions):
    params = {"task_id": "1"}
    (problem,) = actions.check_action("height", "get_task", params)
    assert (problem.place, problem.code) == ("provider", "provider_shut_down")
    assert "Height was shut down" in problem.message
    assert actions.in_mode("test").check_action("height", "get_task", params) == []
    (problem,) = actions.check_trigger("height", "task.created")
    assert problem.code == "provider_shut_down"
    (problem,) = actions.in_mode("test").check_trigger("height", "task.created")
    assert problem.code == "no_triggers"


def test_look_up_of_what_cannot_be_looked_up_is_refused_with_those_that_can():
    actions = CatalogueActions(load_catalogue())
    (problem,) = actions.check_look_up("slack", "send_message")
    assert (problem.place, problem.code) == ("on_unknown", "no_look_up")
    assert "github.create_org_repo" in problem.mend
    assert actions.check_look_up("github", "create_org_repo") == []
    assert actions.check_look_up("slack", "list_channels") == []


def test_workflow_with_a_check_that_cannot_be_made_is_not_saved():
    step = {"provider": "slack", "action": "send_message", "on_unknown": "check",
            "config": {"channel": "#a", "text": "b"}}  # fmt: skip
    document = {"name": "W", "trigger": {"type": "webhook", "path": "/x"}, "steps": [step]}
    with pytest.raises(InvalidInput) as caught:
        compile_workflow(document, CatalogueActions(load_catalogue()))
    assert [p.place for p in caught.value.problems] == ["steps[0].on_unknown"]
