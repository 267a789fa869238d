"""What a developer may write in `config`: refused with words that help, at save and at run."""

from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from executors.core.outcome import Rejected
from schemas.provider import ActionSpec, ProviderSpec
from tests.contract.cases import actions, run
from tests.contract.sample import full_params

_WRONG: tuple[Any, ...] = (True, 3.5, {"no_such_key": 1}, [[]], "")


@pytest.mark.parametrize(("spec", "action"), actions())
def test_example_params_are_taken(spec: ProviderSpec, action: ActionSpec) -> None:
    assert action.check_params(dict(action.example.params)) == []


@pytest.mark.parametrize(("spec", "action"), actions())
def test_missing_param_is_named(spec: ProviderSpec, action: ActionSpec) -> None:
    params = full_params(action)
    for name in action.params.get("required", ()):
        less = {key: value for key, value in params.items() if key != name}
        problems = action.check_params(less)
        assert [(p.place, p.code) for p in problems] == [(name, "missing")]
        assert problems[0].mend


@pytest.mark.parametrize(("spec", "action"), actions())
def test_missing_param_sends_nothing(spec: ProviderSpec, action: ActionSpec) -> None:
    for name in action.params.get("required", ()):
        less = {key: value for key, value in full_params(action).items() if key != name}
        sent, outcome = run(spec, action, less, [])
        assert sent == []
        assert isinstance(outcome, Rejected)
        assert outcome.code == "invalid_params"
        assert name in outcome.message


@pytest.mark.parametrize(("spec", "action"), actions())
def test_unknown_param_gets_a_suggestion(spec: ProviderSpec, action: ActionSpec) -> None:
    names = list(action.params["properties"])
    if not names:
        return
    wrong = f"{names[0]}x"
    problems = action.check_params({**full_params(action), wrong: "text"})
    assert [problem.place for problem in problems] == [wrong]
    assert names[0] in problems[0].mend


@pytest.mark.parametrize(("spec", "action"), actions())
def test_value_of_the_wrong_type_is_named(spec: ProviderSpec, action: ActionSpec) -> None:
    params = full_params(action)
    for name, schema in action.params["properties"].items():
        check = Draft202012Validator(schema)
        wrong = next((value for value in _WRONG if not check.is_valid(value)), None)
        if wrong is None:
            continue
        problems = action.check_params({**params, name: wrong})
        assert any(problem.place.startswith(name) for problem in problems), (name, wrong)
        assert all(problem.message for problem in problems)


@pytest.mark.parametrize(("spec", "action"), actions())
def test_template_may_stand_for_any_value_at_save(spec: ProviderSpec, action: ActionSpec) -> None:
    templated = dict.fromkeys(full_params(action), "{{ customer.value }}")
    assert action.check_params(templated, templated=True) == []


@pytest.mark.parametrize(("spec", "action"), actions())
def test_params_are_described(spec: ProviderSpec, action: ActionSpec) -> None:
    for name, schema in action.params["properties"].items():
        assert len(schema["description"]) >= 4, name
        assert schema["description"].endswith("."), name


@pytest.mark.parametrize(("spec", "action"), actions())
def test_other_names_lead_to_the_same_param(spec: ProviderSpec, action: ActionSpec) -> None:
    names = action.params["properties"]
    assert not set(action.aliases) & set(names)
    params = full_params(action)
    for alias, name in action.aliases.items():
        if name in params:
            renamed = {alias if key == name else key: value for key, value in params.items()}
            assert action.check_params(renamed) == []
            assert action.prepare(renamed) == action.prepare(params)
