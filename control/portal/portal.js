// The portal: reads the control API with the key that was entered, and nothing else.
// Whatever comes from the API is set as text, never as HTML.

const KEY = "nhood.key";
const REFRESH_MS = 3000;
const PAGE = 50;
const $ = (id) => document.getElementById(id);
const view = $("view");
let key = sessionStorage.getItem(KEY);
let me = null;
let timer = null;
let turn = 0;

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

class Problem extends Error {
  constructor(status, body) {
    super(body?.detail ?? `The server answered ${status}.`);
    this.status = status;
    this.code = body?.code;
  }
}

async function call(path, options = {}) {
  const headers = { Authorization: `Bearer ${key}`, ...(options.body ? { "Content-Type": "application/json" } : {}) };
  const answer = await fetch(path, { ...options, headers });
  const body = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok) throw new Problem(answer.status, body);
  return body;
}
const base = () => `/api/v1/workspaces/${me.workspace_id}`;

const badge = (word) => el("span", { class: `badge ${word}` }, word.replaceAll("_", " "));
const moment = (text) => (text ? new Date(text).toLocaleString(undefined, { hour12: false }) : "–");
const stamp = (text) => (text ? el("time", { datetime: text, title: text }, moment(text)) : "–");
function span(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${ms < 9.95 ? ms.toFixed(1) : Math.round(ms)} ms`;
  return ms < 120000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 60000)} min`;
}
const placeText = (place) => (place ? `${place.topic}[${place.partition}]@${place.offset}` : null);
const place = (where) => (where ? el("code", { class: "soft", title: "topic[partition]@offset" }, placeText(where)) : null);
const isEmpty = (value) => value === null || value === undefined || (typeof value === "object" && Object.keys(value).length === 0);
function json(title, value) {
  if (isEmpty(value)) return null;
  return el("details", {}, el("summary", {}, title), el("pre", { tabindex: "0" }, el("code", {}, JSON.stringify(value, null, 2))));
}
function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", { class: "facts" }, shown.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}
function table(caption, heads, rows) {
  return el("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" }, el("table", {},
    el("caption", { class: "visually-hidden" }, caption),
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, rows)));
}
const notice = (...text) => el("p", { class: "notice" }, ...text);
const say = (text) => { $("said").textContent = text; };

// --- views ---------------------------------------------------------------------------------------

function signIn(message = "") {
  clearTimeout(timer);
  for (const id of ["nav", "who", "leave"]) $(id).hidden = true;
  const content = $("sign-in").content.cloneNode(true);
  content.querySelector("#curl").textContent =
    `curl -X POST ${location.origin}/api/v1/workspaces -H 'Content-Type: application/json' \\\n  -d '{"name": "Acme", "email": "you@example.com", "plan": "free"}'`;
  content.querySelector("#key-error").textContent = message;
  content.querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    key = new FormData(event.target).get("key").trim();
    await enter();
  });
  view.replaceChildren(content);
  document.title = "NeighbourHood";
  $("key").focus();
}

async function enter() {
  try {
    me = await call("/api/v1/whoami");
  } catch (problem) {
    key = null;
    sessionStorage.removeItem(KEY);
    signIn(problem.message);
    return;
  }
  sessionStorage.setItem(KEY, key);
  for (const id of ["nav", "who", "leave"]) $(id).hidden = false;
  $("who").replaceChildren(me.workspace_name, " ", badge(me.mode));
  await route();
}

async function executions(query) {
  const status = query.get("status") ?? "";
  const workflow = query.get("workflow") ?? "";
  const pages = Number(query.get("pages") ?? 1);
  const items = [];
  let cursor = null;
  for (let page = 0; page < pages; page += 1) {
    const asked = new URLSearchParams({ limit: PAGE });
    if (status) asked.set("status", status);
    if (workflow) asked.set("workflow_id", workflow);
    if (cursor) asked.set("cursor", cursor);
    const found = await call(`${base()}/executions?${asked}`);
    items.push(...found.items);
    cursor = found.next_cursor;
    if (!cursor) break;
  }
  const go = (changes) => {
    const next = new URLSearchParams(query);
    for (const [name, value] of Object.entries(changes)) value ? next.set(name, value) : next.delete(name);
    location.hash = `#/executions${next.size ? `?${next}` : ""}`;
  };
  const choice = el("select", { id: "status", onchange: (event) => go({ status: event.target.value, pages: null }) },
    ["", "running", "succeeded", "failed", "cancelled"].map((word) =>
      el("option", { value: word, selected: word === status }, word || "any status")));
  const rows = items.map((item) => el("tr", {},
    el("td", {}, badge(item.status)),
    el("td", { class: "wide" }, el("a", { href: `#/executions/${item.execution_id}` }, item.workflow_name || item.workflow_id), ` v${item.version}`),
    el("td", {}, item.user_id ?? "–"),
    el("td", {}, stamp(item.started_at)),
    el("td", {}, item.status === "running" ? "…" : span(item.duration_ms)),
    el("td", { class: "wide soft" }, item.error?.message ?? "")));
  return {
    title: "Executions",
    again: true,
    nodes: [
      el("h1", {}, "Executions"),
      el("div", { class: "row card" }, el("label", { for: "status" }, "Status"), choice,
        workflow ? el("button", { type: "button", class: "quiet", onclick: () => go({ workflow: null, pages: null }) }, "All workflows") : null),
      items.length ? table("Executions, newest first", ["Status", "Workflow", "User", "Started", "Took", "Error"], rows)
        : notice("Nothing here yet. Post to a workflow’s webhook, or start one under Workflows."),
      cursor ? el("p", {}, el("button", { type: "button", class: "quiet", onclick: () => go({ pages: String(pages + 1) }) }, "Show more")) : null,
    ],
  };
}

function stepNodes(step) {
  const about = step.type === "condition"
    ? `${step.condition?.text ?? "condition"} → ${step.condition ? step.condition.value : "?"}`
    : [step.provider, step.action].filter(Boolean).join(".");
  return [
    el("div", { class: "line" }, el("strong", {}, step.step_id), about, badge(step.status),
      step.reason ? el("span", { class: "soft" }, step.reason.replaceAll("_", " ")) : null,
      step.duration_ms !== null ? el("span", { class: "soft" }, `${span(step.duration_ms)} at the vendor, ${step.attempts.length} attempt${step.attempts.length === 1 ? "" : "s"}`) : null),
    step.error ? el("p", { class: "error" }, `${step.error.code}: ${step.error.message}`) : null,
    step.command_place ? el("p", { class: "hint" }, "command ", place(step.command_place), " · result ", place(step.result_place)) : null,
    json("What the vendor received", step.request),
    json("What it answered", step.response),
    json("Output", step.output),
    json("Attempts", step.attempts),
    json("Operands", step.condition?.operands),
  ];
}

const WORDS = {
  event_accepted: "Event accepted", event_outcome: "Event", execution_started: "Execution started",
  execution_finished: "Execution finished",
};
function entryNodes(entry, start) {
  const since = entry.at && start ? new Date(entry.at) - new Date(start) : null;
  const when = el("span", { class: "when", title: entry.at ?? "" }, since === null ? "" : `+${span(Math.max(0, since))}`);
  const state = entry.step?.status ?? entry.status ?? (entry.kind === "event_outcome" ? entry.outcome : "succeeded");
  if (entry.step) return el("li", { "data-state": state }, when, stepNodes(entry.step));
  return el("li", { "data-state": state === "matched" ? "succeeded" : state }, when,
    el("div", { class: "line" }, el("strong", {}, WORDS[entry.kind] ?? entry.kind),
      entry.outcome ? badge(entry.outcome) : null, entry.status ? badge(entry.status) : null,
      entry.subject ? el("span", { class: "soft" }, entry.subject) : null, place(entry.place)),
    entry.reason ? el("p", { class: "hint" }, entry.reason) : null,
    entry.error ? el("p", { class: "error" }, `${entry.error.code}: ${entry.error.message}`) : null);
}

async function execution(id) {
  const found = await call(`${base()}/executions/${encodeURIComponent(id)}`);
  const start = found.event_time ?? found.started_at;
  const cancel = async (event) => {
    event.target.disabled = true;
    try {
      await call(`${base()}/executions/${encodeURIComponent(id)}/cancel`, { method: "POST", body: JSON.stringify({ reason: "cancelled in the portal" }) });
      say("Cancellation requested.");
    } catch (problem) { say(problem.message); }
  };
  return {
    title: found.workflow_name,
    again: found.status === "running",
    nodes: [
      el("p", {}, el("a", { href: "#/executions" }, "← Executions")),
      el("h1", {}, found.workflow_name || found.workflow_id, " ", badge(found.status)),
      el("div", { class: "card" }, facts([
        ["Execution", el("code", {}, found.execution_id)],
        ["Workflow", el("a", { href: `#/workflows/${found.workflow_id}` }, `${found.workflow_id}, version ${found.version}`)],
        ["Event", el("code", {}, found.event_id ?? "–")],
        ["User", found.user_id],
        ["Accepted", stamp(found.event_time)],
        ["Took", span(found.duration_ms)],
        ["Error", found.error ? `${found.error.code}: ${found.error.message}` : null],
      ]), found.status === "running" ? el("p", {}, el("button", { type: "button", class: "quiet", onclick: cancel }, "Cancel")) : null),
      el("h2", {}, "Timeline"),
      el("ol", { class: "timeline" }, found.timeline.map((entry) => entryNodes(entry, start))),
    ],
  };
}

async function workflows() {
  const found = await call(`${base()}/workflows?limit=200`);
  const rows = found.items.map((item) => el("tr", {},
    el("td", { class: "wide" }, el("a", { href: `#/workflows/${item.workflow_id}` }, item.name)),
    el("td", {}, `v${item.version}`),
    el("td", { class: "wide" }, item.webhook_address ? el("code", {}, item.webhook_address) : item.definition.trigger.event_type ?? item.definition.trigger.type),
    el("td", {}, stamp(item.updated_at)),
    el("td", {}, el("a", { href: `#/executions?workflow=${item.workflow_id}`, "aria-label": `Executions of ${item.name}` }, "Executions"))));
  return {
    title: "Workflows",
    nodes: [el("h1", {}, "Workflows"),
      rows.length ? table("Workflows, newest first", ["Name", "Version", "Starts on", "Saved", ""], rows)
        : notice("No workflow in this mode yet. Save one with ", el("code", {}, `POST ${base()}/workflows`), "; ", el("a", { href: "/docs" }, "the API documentation"), " has an example.")],
  };
}

async function workflow(id) {
  const address = `${base()}/workflows/${encodeURIComponent(id)}`;
  const [found, versions] = await Promise.all([call(address), call(`${address}/versions`)]);
  const start = async (event) => {
    event.preventDefault();
    const form = event.target;
    const error = form.querySelector(".error");
    error.textContent = "";
    try {
      const input = JSON.parse(form.input.value || "{}");
      const user = form.user.value.trim();
      const receipt = await call(`${address}/execute`, { method: "POST", body: JSON.stringify({ input, ...(user ? { user_id: user } : {}) }) });
      location.hash = `#/executions/${receipt.execution_id}`;
    } catch (problem) { error.textContent = problem.message; }
  };
  return {
    title: found.name,
    nodes: [
      el("p", {}, el("a", { href: "#/workflows" }, "← Workflows")),
      el("h1", {}, found.name),
      el("div", { class: "card" }, facts([
        ["Workflow", el("code", {}, found.workflow_id)],
        ["Version", String(found.version)],
        ["Webhook", found.webhook_address ? el("code", {}, found.webhook_address) : null],
        ["Saved", stamp(found.updated_at)],
        ["Versions", versions.items.map((item) => `v${item.version}`).join(", ")],
      ])),
      el("form", { class: "card", onsubmit: start },
        el("label", { for: "input" }, "Start it with this input (JSON)"),
        el("div", { class: "row" }, el("input", { id: "input", name: "input", value: "{}", spellcheck: "false" }),
          el("input", { name: "user", placeholder: "user id (optional)", "aria-label": "User id" }),
          el("button", { type: "submit" }, "Start")),
        el("p", { class: "error", role: "alert" })),
      el("h2", {}, "Definition"),
      el("pre", { tabindex: "0" }, el("code", {}, JSON.stringify(found.definition, null, 2))),
    ],
  };
}

async function integrations() {
  const found = await call("/api/v1/integrations");
  return {
    title: "Integrations",
    nodes: [el("h1", {}, "Integrations"), found.items.map((item) => el("section", { class: "card" },
      el("div", { class: "line" }, el("strong", {}, item.name), el("code", {}, item.slug), badge(item.status), el("span", { class: "soft" }, `${item.category.replaceAll("_", " ")} · ${item.auth.kind}`)),
      el("details", {}, el("summary", {}, `${item.actions.length} actions`),
        table(`Actions of ${item.name}`, ["Action", "What it does", "Params"], item.actions.map((action) => el("tr", {},
          el("td", {}, el("code", {}, action.action)), el("td", { class: "wide" }, action.summary),
          el("td", { class: "wide" }, Object.keys(action.params.properties ?? {}).map((name) => (action.params.required ?? []).includes(name) ? `${name}*` : name).join(", "))))))))],
  };
}

// --- routing -------------------------------------------------------------------------------------

const ROUTES = [
  [/^#\/executions\/([^/?]+)$/, (id) => execution(id)],
  [/^#\/workflows\/([^/?]+)$/, (id) => workflow(id)],
  [/^#\/workflows$/, () => workflows()],
  [/^#\/integrations$/, () => integrations()],
  [/^#\/executions(?:\?(.*))?$/, (query) => executions(new URLSearchParams(query ?? ""))],
];

// A view that is drawn again keeps what was unfolded and where the focus was.
function redraw(nodes, isAgain) {
  const open = isAgain ? [...view.querySelectorAll("details")].map((node) => node.open) : [];
  view.replaceChildren(...nodes.flat().filter(Boolean));
  if (isAgain) view.querySelectorAll("details").forEach((node, index) => { node.open = open[index] ?? false; });
}

async function route({ again = false } = {}) {
  clearTimeout(timer);
  const mine = (turn += 1);
  const hash = location.hash.length > 2 ? location.hash : "#/executions";
  for (const link of $("nav").querySelectorAll("a")) {
    hash.startsWith(link.getAttribute("href")) ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
  const [pattern, show] = ROUTES.find(([test]) => test.test(hash)) ?? ROUTES.at(-1);
  try {
    const shown = await show(...(hash.match(pattern) ?? []).slice(1).map((part) => part && decodeURIComponent(part)));
    if (mine !== turn) return;
    const focused = again && document.activeElement?.id;
    redraw(shown.nodes, again);
    document.title = `${shown.title} – NeighbourHood`;
    if (focused && $(focused)) $(focused).focus();
    if (!again) { $("main").focus({ preventScroll: true }); say(shown.title); }
    if (shown.again) timer = setTimeout(() => (document.hidden ? waitVisible() : route({ again: true })), REFRESH_MS);
  } catch (problem) {
    if (mine !== turn) return;
    if (problem.status === 401) { leave(problem.message); return; }
    if (!again) redraw([notice(problem.message, " ", el("a", { href: "#/executions" }, "Back to the executions"))], false);
    timer = setTimeout(() => route({ again: true }), REFRESH_MS * 2);
  }
}
function waitVisible() {
  document.addEventListener("visibilitychange", () => route({ again: true }), { once: true });
}

function leave(message = "") {
  key = null;
  me = null;
  turn += 1;
  sessionStorage.removeItem(KEY);
  signIn(message);
}

async function health() {
  const node = $("health");
  try {
    const found = await (await fetch("/readyz")).json();
    const down = Object.entries(found).filter(([name, up]) => name !== "ready" && !up).map(([name]) => name);
    node.className = `health ${found.ready ? "up" : "down"}`;
    node.textContent = found.ready ? "all well" : `not ready: ${down.join(", ")}`;
  } catch {
    node.className = "health down";
    node.textContent = "not reachable";
  }
  setTimeout(health, 15000);
}

$("leave").addEventListener("click", () => leave());
window.addEventListener("hashchange", () => { if (me) route(); });
health();
key ? enter() : signIn();
