"""The JSON Schema for editors says what the reader of workflows says."""

import json
from pathlib import Path

import jsonschema
import pytest

import schemas
from schemas.errors import InvalidInput
from schemas.plan import compile_workflow

FILE = Path(schemas.__file__).parent / "workflow.schema.json"
EXAMPLES = Path(__file__).parents[3] / "examples"
VALIDATOR = jsonschema.Draft202012Validator(json.loads(FILE.read_text()))
STEP = {"provider": "slack", "action": "send_message"}


def workflow(**more: object) -> dict:
    return {"name": "W", "trigger": {"type": "webhook", "path": "/x"}, "steps": [STEP], **more}


def test_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_examples_fit(path):
    VALIDATOR.validate(json.loads(path.read_text()))


@pytest.mark.parametrize(
    ("document", "good"),
    [
        (workflow(), True),
        (workflow(steps=[{"action": "slack.send_message", "retry": 3, "timeout": "5m"}]), True),
        (workflow(trigger={"type": "event", "event_type": "a", "filter": "{{n}} > 1"}), True),
        (workflow(steps=[{"condition": "true", "then": "b"}, {**STEP, "id": "b"}]), True),
        (workflow(steps=[{"type": "delay", "duration": "366d"}]), True),
        (workflow(steps=[{"type": "delay", "duration": "{{n}}m"}]), True),
        (workflow(steps=[{"type": "delay", "until": "{{at}}"}]), True),
        (workflow(steps=[{"type": "wait_event", "event_type": "a", "subject": "s"}]), True),
        (
            workflow(
                steps=[
                    {
                        "type": "wait_event",
                        "event_type": "a",
                        "match": {"o.id": "{{o.id}}"},
                        "timeout": "3d",
                        "then": "b",
                    },
                    {**STEP, "id": "b"},
                ]
            ),
            True,
        ),
        (workflow(steps=[{"type": "wait_event", "event_type": "a"}]), False),
        (workflow(steps=[{**STEP, "deadline": "2d"}], timeout="3d"), True),
        (workflow(timeout="soon"), False),
        (
            workflow(
                trigger={
                    "type": "webhook",
                    "path": "/x",
                    "debounce": {"key": "{{c.id}}", "wait": "10s", "max_wait": 60},
                }
            ),
            True,
        ),
        (
            workflow(
                trigger={"type": "event", "event_type": "a", "throttle": {"limit": 5, "per": 1}}
            ),
            True,
        ),
        (workflow(trigger={"type": "event", "event_type": "a", "batch": {"size": 5}}), False),
        (
            workflow(
                trigger={
                    "type": "schedule",
                    "cron": "0 9 * * MON-FRI",
                    "timezone": "Europe/Berlin",
                    "catch_up": "all",
                }
            ),
            True,
        ),
        (workflow(trigger={"type": "schedule"}), False),
        (workflow(steps=[{"type": "delay"}]), False),
        (workflow(steps=[{"type": "delay", "duration": 1, "until": "{{at}}"}]), False),
        (workflow(name=""), False),
        (workflow(steps=[]), False),
        (workflow(trigger={"type": "webhook"}), False),
        (workflow(trigger={"type": "webhook", "path": "/a?b"}), False),
        (workflow(trigger={"type": "event", "event_type": "nhood.x"}), False),
        (workflow(steps=[{**STEP, "confg": {}}]), False),
        (workflow(steps=[{**STEP, "retry": 21}]), False),
        (workflow(steps=[{**STEP, "timeout": "5 parsecs"}]), False),
        (workflow(steps=[{**STEP, "on_error": 7}]), False),
        (workflow(steps=[{**STEP, "on_error": []}]), False),
        (workflow(steps=[{**STEP, "on_error": ["b"]}, {**STEP, "id": "b"}]), True),
        (workflow(steps=[{**STEP, "compensate": {"action": "delete_message"}}]), True),
        (workflow(steps=[{**STEP, "compensate": {"action": "x", "id": "y"}}]), False),
        (workflow(steps=[{**STEP, "compensate": {}}]), False),
        (workflow(steps=[{**STEP, "id": "a b"}]), False),
        (workflow(steps=[{"condition": "true"}]), False),
        (workflow(steps=[{**STEP, "items": "{{lines}}", "max_parallel": 5}]), True),
        (workflow(steps=[{**STEP, "type": "for_each", "items": [1, "{{n}}"]}]), True),
        (workflow(steps=[{**STEP, "type": "for_each"}]), False),
        (workflow(steps=[{**STEP, "items": "all {{lines}}"}]), False),
        (workflow(steps=[{**STEP, "items": [1], "on_item_error": "halt"}]), False),
        (workflow(steps=[{**STEP, "max_parallel": 5}]), False),
    ],
)
def test_schema_and_reader_agree(document, good):
    assert VALIDATOR.is_valid(document) is good
    if good:
        assert compile_workflow(document, None).order
    else:
        with pytest.raises(InvalidInput):
            compile_workflow(document, None)
