"""Keycloak, an OAuth server that others wrote: so that not both sides of a flow come from one hand.

The distribution is pinned in `keycloak.lock`, downloaded once, unpacked and built beside Kafka's
jars. It runs with a database in memory and holds two realms: `vendor` rotates refresh tokens and
kills the whole grant when one is used twice; the codes of `hasty` live for one second. Both insist
on PKCE S256, on exact redirect addresses, and ask the person for consent.

`Browser` is what a person does: it follows redirects, keeps cookies and fills in the forms.
https://www.keycloak.org/docs/26.4.5/server_admin/
"""

import html
import os
import re
import shutil
import signal
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from nhood.embedded.jars import cache_folder, fetch, locked_jars
from nhood.embedded.java import find_java
from nhood.embedded.server import Running, free_port, running, spawn, stop, wait_until
from schemas.settings import Settings

START_S = 120.0  # a cold start takes some 10 s on an idle core
BUILD_S = 300.0
HOPS_MAX = 10
PERSON, PASSWORD = "ada", "correct horse"
APP, SECRET = "neighbourhood", "s3cret/+ &="  # what a form must encode is in it on purpose
CODE_LIFE_S = 1  # of the realm `hasty`
_ADMIN = "admin"
_LOCK = Path(__file__).with_name("keycloak.lock")
_JVM = (
    *("-Xms64m", "-Xmx384m", "-XX:MaxMetaspaceSize=256m"),
    *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
    "-Dfile.encoding=UTF-8",
    "-Duser.language=en",
    "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
    "-Djava.util.concurrent.ForkJoinPool.common.threadFactory="
    "io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
    *(f"--add-opens=java.base/java.{part}=ALL-UNNAMED" for part in ("util", "security")),
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
)


@dataclass(frozen=True)
class OAuthServer:
    """A Keycloak that answers.

    Attributes:
        url: Without a slash at the end.
    """

    url: str
    process: Running

    def endpoint(self, realm: str, part: str) -> str:
        """Give an address: `auth`, `token`, `userinfo`, `revoke`."""
        return f"{self.url}/realms/{realm}/protocol/openid-connect/{part}"

    def admin(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Do what an administrator does."""
        asked = {"grant_type": "password", "client_id": "admin-cli"}
        asked |= {"username": _ADMIN, "password": _ADMIN}
        with httpx.Client(timeout=30) as client:
            token = client.post(self.endpoint("master", "token"), data=asked).json()
            headers = {"Authorization": f"Bearer {token['access_token']}"}
            answer = client.request(
                method, f"{self.url}/admin/realms{path}", json=body, headers=headers
            )
            answer.raise_for_status()
            return answer

    def forget_consents(self, realm: str) -> None:
        """Let the person be asked again; a consent that was given once is remembered."""
        (person,) = self.admin("GET", f"/{realm}/users?username={PERSON}&exact=true").json()
        path = f"/{realm}/users/{person['id']}/consents"
        for given in self.admin("GET", path).json():
            self.admin("DELETE", f"{path}/{given['clientId']}")

    def stop(self) -> None:
        """End it."""
        stop(self.process, number=signal.SIGTERM)


def start(folder: Path, redirects: list[str]) -> OAuthServer:
    """Start Keycloak and make the realms.

    Args:
        folder: For its log and what it writes.
        redirects: Addresses that browsers may be sent back to.

    Raises:
        StackError: It cannot be downloaded or does not start.
    """
    home, port = ready_home(Settings.from_env()), free_port()
    url, log = f"http://127.0.0.1:{port}", folder / "keycloak.log"
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    secrets = {"KC_BOOTSTRAP_ADMIN_USERNAME": _ADMIN, "KC_BOOTSTRAP_ADMIN_PASSWORD": _ADMIN}
    command = [
        *_java(home, f"-Dquarkus.transaction-manager.object-store.directory={folder}/transactions"),
        *("start", "--optimized", "--cache=local", "--log-level=warn"),
        *("--http-enabled=true", "--hostname-strict=false"),
        *("--http-host=127.0.0.1", f"--http-port={port}"),
    ]
    process = spawn(command, log, kept | secrets)
    wait_until("Keycloak", process, lambda: _answers(url), log, START_S)
    server = OAuthServer(url, running("keycloak", process, port, url))
    try:
        for realm, life in (("vendor", 60), ("hasty", CODE_LIFE_S)):
            server.admin("POST", "", _realm(realm, life, redirects))
    except BaseException:
        server.stop()
        raise
    return server


def ready_home(settings: Settings) -> Path:
    """Give Keycloak unpacked and built; downloads and builds it the first time."""
    (archive,) = locked_jars(_LOCK)
    home = cache_folder(settings) / archive.name.removesuffix(".zip")
    if home.is_dir():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".keycloak-") as made:
        work = Path(made)
        fetch([archive], work, settings, what="Keycloak")
        with zipfile.ZipFile(work / archive.name) as packed:
            packed.extractall(work)
        (unpacked,) = work.glob("keycloak-*/")
        subprocess.run(
            [*_java(unpacked), "build", "--db=dev-mem"],
            check=True,
            capture_output=True,
            timeout=BUILD_S,
        )
        try:  # the name comes last: two runs at once build each their own
            unpacked.rename(home)
        except OSError:
            if not home.is_dir():
                raise
            shutil.rmtree(unpacked)
    return home


def _java(home: Path, *more: str) -> list[str]:
    return [
        *(find_java(os.environ), *_JVM, *more, f"-Dkc.home.dir={home}"),
        f"-Djboss.server.config.dir={home}/conf",
        *("-cp", f"{home}/lib/quarkus-run.jar"),
        "io.quarkus.bootstrap.runner.QuarkusEntryPoint",
    ]


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/realms/master", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _realm(name: str, code_life_s: int, redirects: list[str]) -> dict[str, Any]:
    return {
        "realm": name,
        "enabled": True,
        "sslRequired": "none",
        "revokeRefreshToken": True,
        "refreshTokenMaxReuse": 0,
        "accessTokenLifespan": 300,
        "accessCodeLifespan": code_life_s,
        "users": [
            {
                "username": PERSON,
                "enabled": True,
                "email": "ada@acme.example",
                "emailVerified": True,
                "firstName": "Ada",
                "lastName": "Lovelace",
                "credentials": [{"type": "password", "value": PASSWORD, "temporary": False}],
            }
        ],
        "clients": [
            {
                "clientId": APP,
                "secret": SECRET,
                "enabled": True,
                "publicClient": False,
                "standardFlowEnabled": True,
                "consentRequired": True,
                "redirectUris": redirects,
                "attributes": {"pkce.code.challenge.method": "S256"},
            }
        ],
    }


@dataclass
class Browser:
    """One person's browser."""

    server: OAuthServer
    cookies: dict[str, str] = field(default_factory=dict)

    async def consent(self, url: str, *, allow: bool = True) -> str:
        """Sign in, answer the consent page, and give the address that it is sent back to.

        Raises:
            AssertionError: The server shows an error page instead; its words are in it.
        """
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await self._go(client, "GET", url)
            for _ in range(HOPS_MAX):
                if answer.is_redirect:
                    if not answer.headers["location"].startswith(self.server.url):
                        return str(answer.headers["location"])
                    answer = await self._go(client, "GET", answer.headers["location"])
                    continue
                assert answer.status_code == 200, _words(answer.text)
                target, fields = _form(answer.text)
                address = str(httpx.URL(url).join(target))
                if "password" in fields:
                    filled = {"username": PERSON, "password": PASSWORD}
                else:
                    filled = {"accept": "Yes"} if allow else {"cancel": "No"}
                    filled |= {name: fields[name] for name in fields.keys() & {"code"}}
                answer = await self._go(client, "POST", address, filled)
        raise AssertionError(f"more than {HOPS_MAX} pages, the last: {_words(answer.text)}")

    async def _go(
        self, client: httpx.AsyncClient, method: str, url: str, form: dict[str, str] | None = None
    ) -> httpx.Response:
        # Keycloak marks cookies Secure; browsers send those to loopback without TLS, httpx does not
        jar = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = await client.request(method, url, data=form, headers={"Cookie": jar})
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
            if "Max-Age=0" in line:
                del self.cookies[name]
        return answer


def _form(page: str) -> tuple[str, dict[str, str]]:
    """Find a page's form: where it goes, and its fields with what stands in them."""
    action = re.search(r'<form[^>]*\saction="([^"]+)"', page)
    assert action is not None, _words(page)
    fields = {}
    for tag in re.findall(r"<input\s[^>]*>", page):
        parts = dict(re.findall(r'\b(name|value)="([^"]*)"', tag))
        if "name" in parts:
            fields[parts["name"]] = html.unescape(parts.get("value", ""))
    return html.unescape(action[1]), fields


def _words(page: str) -> str:
    text = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(text).split())[-400:]
