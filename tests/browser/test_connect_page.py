"""What an end customer sees and does, in a real browser over the real gateway and sandbox."""

import re

import psycopg
import pytest
from playwright.sync_api import expect

from schemas.provider import load_catalogue
from tests.browser.conftest import Person
from token_vault.core.fields import browser_pattern

pytestmark = pytest.mark.browser

NARROW = {"viewport": {"width": 320, "height": 640}}
DARK = {"color_scheme": "dark"}
NO_SCRIPT = {"java_script_enabled": False}


def _link(workspace, **body):
    answer = workspace.call(
        "POST", f"{workspace.path}/connect-sessions", json={"user_id": "u1", **body}
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


def _connections(workspace, user="u1"):
    answer = workspace.call("GET", f"{workspace.path}/connections", params={"user_id": user})
    return answer.json()["items"]


def _sql(product, query, *values):
    with psycopg.connect(product.state.env["DATABASE_URL"], autocommit=True) as on:
        on.execute(query, values)


def _heading(person):
    return person.page.get_by_role("heading", level=1)


@pytest.mark.parametrize("person", [{}, NO_SCRIPT], indirect=True, ids=["usual", "no script"])
def test_customer_connects_and_goes_back(workspace, person, home):
    page = person.page
    page.goto(_link(workspace, return_url=home.url)["url"])
    assert "nhood_cs_" not in page.url
    expect(page.locator(".brand")).to_have_text("Test Inc.")
    page.get_by_role("link", name="Zendesk").click()
    expect(_heading(person)).to_have_text("Connect Zendesk")
    page.get_by_label("Subdomain").fill("acme")
    page.get_by_role("button", name="Continue to Zendesk").click()
    page.get_by_role("button", name="Allow").click()
    expect(_heading(person)).to_have_text("Zendesk is connected")
    expect(page.get_by_role("status")).to_contain_text("acme.zendesk.com")
    (made,) = _connections(workspace)
    page.get_by_role("link", name="Go back to Test Inc.").click()
    page.wait_for_url(re.compile("/back"))
    (came,) = home.came
    assert came.pop("session_id").startswith("cs_")
    assert came == {
        "status": "connected",
        "provider": "zendesk",
        "connection_id": made["id"],
        "referer": "",
    }


@pytest.mark.parametrize("person", [{}, NARROW, DARK, NARROW | DARK], indirect=True,
    ids=["wide", "narrow", "dark", "narrow-dark"])  # fmt: skip
def test_every_page_fits_and_looks_well(product, workspace, person, request, home):
    page, way = person.page, request.node.callspec.id
    page.goto(_link(workspace, return_url=home.url)["url"])
    person.shoot(f"{way}-1-list")
    page.get_by_role("link", name="Zendesk").click()
    person.shoot(f"{way}-2-fields")
    page.locator("form").evaluate("form => form.noValidate = true")
    page.get_by_label("Subdomain").fill("a b!" + "c" * 80)
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("alert")).to_be_visible()
    person.shoot(f"{way}-3-wrong")
    page.get_by_label("Subdomain").fill("acme")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Deny").click()
    expect(_heading(person)).to_have_text("Zendesk is not connected")
    person.shoot(f"{way}-4-denied")
    page.get_by_role("link", name="Try again").click()
    page.get_by_role("link", name="Use a user name and a secret instead").click()
    person.shoot(f"{way}-5-key")
    page.go_back()
    page.get_by_label("Subdomain").fill("acme")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Allow").click()
    expect(_heading(person)).to_have_text("Zendesk is connected")
    person.shoot(f"{way}-6-connected")
    _sql(product, "UPDATE workspaces SET name = %s WHERE id = %s", "Ünbreakable" * 14, workspace.id)
    page.reload()
    person.shoot(f"{way}-7-long-name")


def test_declined_consent_says_so_and_can_be_tried_again(workspace, person, home):
    page = person.page
    page.goto(_link(workspace, providers=["slack"], return_url=home.url)["url"])
    page.get_by_role("button", name="Continue to Slack").click()
    page.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("alert")).to_have_text("Access was declined, so nothing was connected.")
    assert person.focused == "Try again"
    assert _connections(workspace) == []
    page.get_by_role("link", name="Try again").click()
    page.get_by_role("button", name="Continue to Slack").click()
    page.get_by_role("button", name="Allow").click()
    expect(_heading(person)).to_have_text("Slack is connected")


def test_declined_consent_is_told_to_the_developer(workspace, person, home):
    page = person.page
    page.goto(_link(workspace, providers=["slack"], return_url=home.url)["url"])
    page.get_by_role("button", name="Continue to Slack").click()
    page.get_by_role("button", name="Deny").click()
    page.get_by_role("link", name="Go back to Test Inc.").click()
    page.wait_for_url(re.compile("/back"))
    assert (home.came[0]["status"], home.came[0]["error"]) == ("failed", "consent_denied")


def test_expired_link_says_where_to_get_another(product, workspace, person):
    link = _link(workspace)
    _sql(product, "UPDATE connect_sessions SET expires_at = now() WHERE id = %s", link["id"])
    person.page.goto(link["url"])
    expect(person.page.get_by_role("alert")).to_have_text("This link has expired.")
    expect(person.page.get_by_text("Go back to Test Inc. and start again")).to_be_visible()
    person.shoot("expired")


def test_used_link_opens_in_no_other_browser(workspace, person, chromium, tmp_path):
    link = _link(workspace)
    person.page.goto(link["url"])
    mine = person.page.url
    person.page.reload()
    expect(_heading(person)).to_have_text("Connect an account")
    other = chromium.new_context()
    thief = Person(other.new_page(), tmp_path)
    for address in (link["url"], mine):
        thief.page.goto(address)
        expect(thief.page.get_by_role("alert")).to_contain_text("opened already")
    assert thief.complaints == []
    other.close()
    person.page.goto(link["url"])  # the link once more, in its own browser
    expect(_heading(person)).to_have_text("Connect an account")


def test_wrong_subdomain_is_stopped_by_the_browser_and_by_the_server(workspace, person):
    page = person.page
    page.goto(_link(workspace, providers=["zendesk"])["url"])
    field = page.get_by_label("Subdomain")
    field.fill("https://acme.zendesk.com/agent")
    page.get_by_role("button", name="Continue").click()
    assert field.evaluate("field => field.validity.patternMismatch")
    expect(_heading(person)).to_have_text("Connect Zendesk")
    page.locator("form").evaluate("form => form.noValidate = true")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert person.focused == "Subdomain"
    assert field.input_value() == "https://acme.zendesk.com/agent"
    described = field.get_attribute("aria-describedby").split()
    said = [page.locator(f'[id="{name}"]').inner_text() for name in described]
    assert said[0] == "This does not look right."
    assert ".zendesk.com" in said[1]


def test_whole_flow_goes_by_keyboard(workspace, person):
    page = person.page
    page.goto(_link(workspace)["url"])

    def tab_to(name, ours=True):
        for _ in range(120):  # more than there are links
            if person.focused.split("\n")[0].startswith(name):
                ring = "e => getComputedStyle(e).outlineStyle + getComputedStyle(e).outlineWidth"
                seen = page.evaluate(f"({ring})(document.activeElement)")
                assert seen == ("solid3px" if ours else "auto1px")  # the vendor's: as browsers do
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"{name} cannot be reached; the focus is on {person.focused}")

    tab_to("Z")  # the logo's letter comes first in the link's text
    page.keyboard.press("Enter")
    expect(_heading(person)).to_have_text("Connect Zendesk")
    assert person.focused == "Subdomain"
    page.keyboard.type("acme")
    tab_to("Continue to Zendesk")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("authorizations"))
    tab_to("Allow", ours=False)
    page.keyboard.press("Enter")
    expect(_heading(person)).to_have_text("Zendesk is connected")
    assert len(_connections(workspace)) == 1


def test_pasted_key_is_hidden_while_typed_and_connects(workspace, person):
    page = person.page
    page.goto(_link(workspace, providers=["slack"])["url"])
    page.get_by_role("link", name="Use a bot token instead").click()
    field = page.get_by_label("Bot token")
    assert field.get_attribute("type") == "password"
    field.fill("sandbox_token")
    page.get_by_role("button", name="Connect Slack").click()
    expect(_heading(person)).to_have_text("Slack is connected")
    assert "sandbox_token" not in page.content()


def test_patterns_mean_the_same_to_browsers(workspace, person):
    """Every pattern of the catalogue, and what HTML makes of it, on the same values."""
    person.page.goto(_link(workspace)["url"])
    values = ["acme", "a-b", "-a", "a.b", "a/b", "", "login.salesforce.com", "62.0", "x" * 70]
    values += ["https://a.b", "acme.my.salesforce.com", "A_b", "a|b", "(a)", "12", "eu1"]
    compared = 0
    for spec in load_catalogue():
        for variable in spec.auth.variables.values():
            if variable.source != "customer" or variable.pattern is None:
                continue
            pattern = browser_pattern(variable.pattern)
            if pattern is None:
                continue
            seen = person.page.evaluate(
                "([p, all]) => { const r = new RegExp(`^(?:${p})$`, 'v');"
                " return all.map(v => r.test(v)) }",
                [pattern, values],
            )
            assert seen == [variable.accepts(v) for v in values], (spec.slug, variable.name)
            compared += 1
    assert compared >= 3


@pytest.mark.parametrize("person", [{}, DARK], indirect=True, ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(workspace, person):
    """WCAG 2.2 AA: 4.5 to 1 (https://www.w3.org/TR/WCAG22/#contrast-minimum)."""
    page = person.page
    page.goto(_link(workspace)["url"])
    _check_contrast(page)
    page.get_by_role("link", name="Zendesk").click()
    page.locator("form").evaluate("form => form.noValidate = true")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("alert")).to_be_visible()
    _check_contrast(page)


def _check_contrast(page):
    found = page.evaluate(_CONTRAST)
    assert found
    assert {text: ratio for text, ratio in found if ratio < 4.5} == {}


_CONTRAST = """() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const seen = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || !e.getClientRects().length) continue;
    const a = light(parse(getComputedStyle(e).color)), b = light(behind(e));
    seen.push([text, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]);
  }
  return seen;
}"""
