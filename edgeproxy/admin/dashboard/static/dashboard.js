// The dashboard's only script. Pages come from the listener as they are shown; this asks for them
// again every other second, and sends what the buttons do as JSON, as any tool would.

const EVERY_MS = 2000;
const byId = (id) => document.getElementById(id);

async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify(body),
  });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error.message);
  return told;
}

function onSubmit(form, status, act) {
  byId(form)?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const said = byId(status);
    said.classList.remove("bad");
    said.textContent = "…";
    try {
      said.textContent = await act(event);
    } catch (error) {
      said.classList.add("bad");
      said.textContent = error.message;
    }
  });
}

// ---------------------------------------------------------------- signing in and out

onSubmit("sign-in", "said", async () => {
  await post("/session", {token: byId("token").value});
  location.reload();
  return "";
});

byId("token")?.focus(); // autofocus waits for the first picture of the page, which may take a while

byId("sign-out")?.addEventListener("click", async () => {
  await post("/session/end", {});
  location.reload();
});

// ---------------------------------------------------------------- what the buttons do

onSubmit("purge", "purged", async (event) => {
  const [kind, value] = [byId("kind").value, byId("value").value.trim()];
  const what = kind === "everything" ? {everything: true} : {[kind]: value ? [value] : []};
  const act = event.submitter?.value || "purge";
  if (kind === "everything" && !confirm(`Really ${act} everything?`)) return "Nothing was done.";
  const told = await post(`/${act}`, what);
  const left = told.not_written_down_by;
  const done = act === "purge" ? "Purged." : "Taken for stale.";
  return left.length ? `${done} Not written down by: ${left.join(", ")}` : done;
});

byId("kind")?.addEventListener("change", () => {
  byId("value").disabled = byId("kind").value === "everything";
});

onSubmit("reload", "reloaded", async () => {
  const told = await post("/policy/reload", {by: "dashboard"});
  return `Policy ${told.policy} is in force.`;
});

// What cannot be undone at once is asked for again. A button in a panel says, as data, what it would
// do and how to ask; the answer is told above the panels, which show what has become of it.

byId("panels")?.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-act]");
  if (!button) return;
  const told = button.dataset;
  byId("h-confirm").textContent = told.title;
  byId("act-says").textContent = told.says;
  byId("do").textContent = told.do;
  byId("percent").disabled = !told.percent;
  byId("percent").value = told.percent ?? "";
  byId("why").value = byId("acted").textContent = "";
  Object.assign(byId("act").dataset, {path: told.act, body: told.body});
  byId("confirm").showModal();
});

onSubmit("act", "acted", async () => {
  const {path, body} = byId("act").dataset;
  const what = {...JSON.parse(body), by: "dashboard", why: byId("why").value.trim()};
  if (!byId("percent").disabled) what.percent = byId("percent").valueAsNumber;
  const told = await post(path, what);
  byId("confirm").close();
  byId("news").textContent = told.candidate
    ? `Policy ${told.candidate.version} is tried on ${told.candidate.percent} % of the visitors.`
    : `Policy ${told.policy} is in force; none is on trial.`;
  await refresh();
  return "";
});

byId("leave")?.addEventListener("click", () => byId("confirm").close());

onSubmit("explain", "explained", async () => {
  const asked = new URLSearchParams({id: "none", url: byId("url").value});
  if (byId("fact").value.trim()) asked.append("fact", byId("fact").value.trim());
  await explain(asked);
  return "";
});

async function explain(asked) {
  const answer = await fetch(`/panels/request?${asked}`);
  if (!answer.ok) throw new Error((await answer.json()).error.message);
  const dialog = byId("explanation");
  dialog.firstElementChild.replaceChildren(...(await parsed(answer)).body.childNodes);
  dialog.showModal();
}

byId("panels")?.addEventListener("click", async (event) => {
  const button = event.target.closest("button.why");
  if (!button) return;
  try {
    await explain(button.dataset.asked);
  } catch (error) {
    byId("state").textContent = error.message;
  }
});

// The map is one stop of the Tab key; arrow keys lead from country to country.

byId("panels")?.addEventListener("keydown", (event) => {
  const country = event.target.closest(".world [tabindex]");
  const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
  if (!country || !step) return;
  event.preventDefault();
  const all = [...country.parentNode.querySelectorAll("[tabindex]")];
  const next = all[(all.indexOf(country) + step + all.length) % all.length];
  country.setAttribute("tabindex", -1);
  next.setAttribute("tabindex", 0);
  next.focus();
});

// ---------------------------------------------------------------- what is new

async function parsed(answer) {
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

function isPaused() {
  const isPressed = byId("pause").getAttribute("aria-pressed") === "true";
  return document.hidden || document.querySelector("dialog[open]") || isPressed;
}

function show(page) {
  for (const panel of page.querySelectorAll("section")) {
    const old = byId(panel.id);
    if (!old || old.innerHTML === panel.innerHTML) continue;
    const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
    old.replaceChildren(...panel.childNodes);
    if (focused) (byId(focused) ?? byId("panels")).focus({preventScroll: true});
  }
  nameRegions();
}

async function refresh() {
  const state = byId("state");
  try {
    const answer = await fetch("/panels");
    if (answer.status === 401) return location.reload();
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    show(await parsed(answer));
    state.textContent = "live";
    state.className = "state healthy";
  } catch (error) {
    state.textContent = `no news: ${error.message}`;
    state.className = "state down";
  }
}

function nameRegions() {
  const names = new Intl.DisplayNames(["en"], {type: "region", fallback: "none"});
  for (const cell of document.querySelectorAll("[data-region]")) {
    const code = cell.dataset.region;
    const name = code === "ZZ" ? "unknown" : /^[A-Z]{2}$/.test(code) && names.of(code);
    if (!name) continue;
    if (cell instanceof SVGElement) {
      cell.textContent = name;
      continue;
    }
    const small = document.createElement("span");
    small.className = "code";
    small.textContent = code;
    cell.replaceChildren(name, " ", small);
  }
}

async function live() {
  if (!isPaused()) await refresh();
  setTimeout(live, EVERY_MS);
}

byId("pause")?.addEventListener("click", (event) => {
  const pressed = event.target.getAttribute("aria-pressed") !== "true";
  event.target.setAttribute("aria-pressed", pressed);
  byId("state").textContent = pressed ? "paused" : "live";
  byId("state").className = pressed ? "state" : "state healthy";
});

if (byId("panels")) {
  nameRegions();
  live();
}
