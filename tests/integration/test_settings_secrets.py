"""Settings from AWS Secrets Manager, played by moto's server over real HTTP."""

import json
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from nhood.embedded.server import free_port
from nhood.secrets import with_secrets
from schemas.errors import DependencyDown, InvalidInput, SecretUnavailable
from schemas.settings import Settings

NAME = "nhood/production"


@pytest.fixture(scope="module")
def env() -> Iterator[dict[str, str]]:
    server = ThreadedMotoServer("127.0.0.1", free_port(), verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTESTTEST")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret-of-the-tests")
        server.start()
        host, port = server.get_host_and_port()
        yield {
            "NHOOD_SECRETS": f"aws-secretsmanager:{NAME}",
            "NHOOD_AWS_REGION": "eu-central-1",
            "NHOOD_AWS_ENDPOINT_URL": f"http://{host}:{port}",
        }
        server.stop()


def put(env: dict[str, str], text: str) -> None:
    client = boto3.client(
        "secretsmanager", region_name="eu-central-1", endpoint_url=env["NHOOD_AWS_ENDPOINT_URL"]
    )
    try:
        client.create_secret(Name=NAME, SecretString=text)
    except client.exceptions.ResourceExistsException:
        client.put_secret_value(SecretId=NAME, SecretString=text)


def test_settings_come_from_the_secret_and_the_environment_goes_first(env: dict[str, str]) -> None:
    stored = {
        "DATABASE_URL": "postgresql://u:from-aws@db/nhood",
        "NHOOD_LOG_LEVEL": "debug",
        "NHOOD_PROVIDER_SLACK_CLIENT_ID": "1.2",
        "NHOOD_PROVIDER_SLACK_CLIENT_SECRET": "slack-secret",
    }
    put(env, json.dumps(stored))
    settings = Settings.from_env(with_secrets({**env, "NHOOD_LOG_LEVEL": "warning"}))
    assert settings.database_url.reveal() == stored["DATABASE_URL"]
    assert settings.log_level == "warning"
    slack = settings.providers["slack"].client_secret
    assert slack is not None
    assert slack.reveal() == "slack-secret"
    assert "from-aws" not in repr(settings)
    assert "slack-secret" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hunter2-not-json", "must be a JSON object"),
        ('{"DATABASE_URL": {"host": "hunter2"}}', "must be a JSON object"),
        ('{"DATABSE_URL": "hunter2"}', "DATABSE_URL"),
        ('{"NHOOD_SECRETS": "hunter2"}', "NHOOD_SECRETS"),
    ],
)
def test_secret_that_cannot_be_used_is_told_without_its_values(
    env: dict[str, str], text: str, told: str
) -> None:
    put(env, text)
    with pytest.raises(InvalidInput, match=told) as caught:
        with_secrets(env)
    assert "hunter2" not in caught.value.public + caught.value.detail
    assert caught.value.__cause__ is None


def test_secret_that_is_not_there_is_told(env: dict[str, str]) -> None:
    with pytest.raises(SecretUnavailable, match="ResourceNotFoundException"):
        with_secrets({**env, "NHOOD_SECRETS": "aws-secretsmanager:nobody"})


def test_nobody_at_the_address_is_told(env: dict[str, str]) -> None:
    gone = {**env, "NHOOD_AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    with pytest.raises(DependencyDown, match="NHOOD_AWS_REGION"):
        with_secrets(gone)


@pytest.mark.parametrize("value", ["vault:x", "aws-secretsmanager", "aws-secretsmanager:"])
def test_setting_of_another_form_is_told(value: str) -> None:
    with pytest.raises(InvalidInput, match="must look like"):
        with_secrets({"NHOOD_SECRETS": value})


def test_without_the_setting_nothing_is_asked() -> None:
    assert with_secrets({"A": "b"}) == {"A": "b"}
