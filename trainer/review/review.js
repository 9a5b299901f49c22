// The review's page: a grid of which only what is in sight exists, decisions that are sent until they are saved.
"use strict";

const TOKEN = new URLSearchParams(location.search).get("token") || "";
const SHEET = 100, ROWS = 200, MOST = 1000, HELD = 60;
const at = (id) => document.getElementById(id);
const address = (path, words = {}) => `${path}?${new URLSearchParams({ token: TOKEN, ...words })}`;

let facts, view = { view: 0, count: 0 }, columns = 1, cell = { w: 100, h: 110 }, side = 96;
let here = 0, detailOf = -1, logged = 0;
const chosen = new Set(), decisions = new Map(), undone = [];
let rows = new Map(), sheets = new Map(), shown = new Map();
let pending = [], sending = false;

class Gone extends Error {}

async function ask(path, words) {
  const answer = await fetch(address(path, words));
  if (answer.status === 410) throw new Gone();
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer;
}

function made(tag, values = {}, ...inside) {
  const element = Object.assign(document.createElement(tag), values);
  element.append(...inside);
  return element;
}

// ---- views -------------------------------------------------------------------------------------------------------

let looking = Promise.resolve(); // what acts on what is shown waits for the view that was asked for last
const look = (keep = false) => (looking = looking.then(() => change(keep)).catch(() => {}));

async function change(keep) {
  const words = { by: at("by").value, decided: at("decided").value, group: at("group").value, text: at("text").value };
  if (at("column").value) Object.assign(words, { column: at("column").value, value: at("value").value });
  const found = await (await ask("/view", words)).json();
  for (const sheet of sheets.values()) sheet.then((url) => URL.revokeObjectURL(url), () => {});
  view = found; rows = new Map(); sheets = new Map();
  for (const element of shown.values()) element.remove();
  shown = new Map();
  if (!keep) { here = 0; at("grid").scrollTop = 0; }
  here = Math.max(0, Math.min(here, view.count - 1));
  choose([]);
  measure();
  go(here);
}

function measure() {
  const width = at("grid").clientWidth - 4;
  const scale = Math.max(1, Math.round(92 / facts.side));
  side = facts.side * scale;
  cell = { w: side + 12, h: side + 34 };
  columns = Math.max(1, Math.floor(width / cell.w));
  cell.w = Math.floor(width / columns);
  at("all").style.height = `${Math.ceil(view.count / columns) * cell.h + 8}px`;
  draw();
}

function chunk(map, size, n, load) {
  const first = Math.floor(n / size) * size;
  if (!map.has(first)) {
    map.set(first, load(first).catch((error) => { map.delete(first); throw error; }));
    if (map.size > HELD) {
      const oldest = map.keys().next().value;
      map.get(oldest).then((url) => typeof url === "string" && URL.revokeObjectURL(url), () => {});
      map.delete(oldest);
    }
  }
  return map.get(first);
}

const rowsAt = (n) => {
  const asked = view.view;
  return chunk(rows, ROWS, n, async (first) => {
    const found = await (await ask("/rows", { view: asked, first, count: ROWS })).json();
    for (const row of found) if (!isPending(row.i)) decisions.set(row.i, row.decision);
    return found;
  });
};
const sheetAt = (n) => {
  const asked = view.view;
  return chunk(sheets, SHEET, n, async (first) =>
    URL.createObjectURL(await (await ask("/sheet", { view: asked, first, count: SHEET })).blob()));
};
const rowOf = async (n) => (await rowsAt(n))[n % ROWS];

function draw() {
  const grid = at("grid"), margin = 2;
  const from = Math.max(0, Math.floor(grid.scrollTop / cell.h) - margin) * columns;
  const to = Math.min(view.count, (Math.ceil((grid.scrollTop + grid.clientHeight) / cell.h) + margin) * columns);
  for (const [n, element] of shown) if (n < from || n >= to) { element.remove(); shown.delete(n); }
  for (let n = from; n < to; n++) if (!shown.has(n)) place(n);
}

function place(n) {
  const tile = made("span", { className: "tile" }), caption = made("span", { textContent: `${n + 1}` });
  const element = made("button", { className: "cell", tabIndex: -1 }, tile, caption);
  element.setAttribute("role", "option");
  Object.assign(element.style, { left: `${(n % columns) * cell.w}px`, top: `${Math.floor(n / columns) * cell.h + 4}px`,
    width: `${cell.w}px`, height: `${cell.h}px` });
  Object.assign(tile.style, { width: `${side}px`, height: `${side}px` });
  element.onclick = (event) => { go(n); if (event.ctrlKey || event.metaKey) toggle(n); else if (event.shiftKey) toggle(n); };
  element.ondblclick = () => at("side").classList.add("open");
  shown.set(n, element);
  at("all").append(element);
  const current = view.view, k = n % SHEET;
  fill(n, element, caption, current);
  sheetAt(n).then((url) => {
    if (view.view !== current) return;
    tile.style.backgroundImage = `url("${url}")`;
    tile.style.backgroundSize = `${facts.across * side}px auto`;
    tile.style.backgroundPosition = `-${(k % facts.across) * side}px -${Math.floor(k / facts.across) * side}px`;
  }).catch(lost);
}

async function fill(n, element, caption, current) {
  try {
    const row = await rowOf(n);
    if (view.view !== current || !row) return;
    element.dataset.i = row.i;
    element.title = row.key;
    element.setAttribute("aria-label", `${n + 1}: ${row.key}`);
    caption.textContent = `${n + 1} · p ${short(row.p)}`;
    paint(element, n);
  } catch (error) { lost(error); }
}

function paint(element, n) {
  const i = Number(element.dataset.i), choice = decisions.get(i) || "open";
  element.dataset.decision = choice;
  element.classList.toggle("chosen", chosen.has(i));
  element.classList.toggle("here", n === here);
  element.setAttribute("aria-selected", String(chosen.has(i)));
}
const repaint = () => { for (const [n, element] of shown) if (element.dataset.i) paint(element, n); };
const short = (p) => (p >= 0.01 ? p.toFixed(2) : p.toExponential(0));

function lost(error) {
  if (error instanceof Gone) look(true);
}

// ---- the image in hand -------------------------------------------------------------------------------------------

async function go(n) {
  if (!view.count) { at("detail").textContent = "No image is shown: choose other filters above."; return; }
  here = Math.max(0, Math.min(n, view.count - 1));
  const grid = at("grid"), top = Math.floor(here / columns) * cell.h;
  if (top < grid.scrollTop) grid.scrollTop = top;
  if (top + cell.h > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + cell.h + 8 - grid.clientHeight;
  draw();
  repaint();
  try {
    const row = await rowOf(here);
    if (row && row.i !== detailOf) { detailOf = row.i; await detail(row.i); }
  } catch (error) { lost(error); }
}

async function detail(i) {
  await new Promise((later) => setTimeout(later, 60)); // whoever only passes by asks for nothing
  if (detailOf !== i) return;
  const found = await (await ask("/detail", { i })).json();
  if (detailOf !== i) return;
  const picture = (words, alt) => made("img", { src: address("/picture", words), alt });
  const few = (list) => {
    const box = made("div", { className: "few" });
    for (const row of list) {
      const button = made("button", { title: row.key }, picture({ i: row.i }, row.key));
      button.onclick = () => { detailOf = row.i; detail(row.i); };
      box.append(button);
    }
    return box;
  };
  const about = made("dl");
  for (const [name, value] of Object.entries({ key: found.key, score: found.score.toPrecision(4), p: short(found.p), ...found.origin }))
    about.append(made("dt", { textContent: name }), made("dd", { textContent: value }));
  const large = made("div", { className: "large" }, picture({ i }, "the image"));
  if (facts.heat) large.append(picture({ i, heat: 1 }, "where it is unusual"));
  const parts = made("div");
  for (const part of found.parts) {
    const bar = made("i");
    bar.style.width = `${Math.min(100, (-100 * Math.log10(part.p)) / found.full)}%`;
    parts.append(made("div", { className: "part" }, part.name, bar, `p ${short(part.p)}`));
  }
  const box = at("detail");
  box.replaceChildren(large, about, made("h2", { textContent: "Terms: longer is more unusual" }), parts);
  if (found.alike.length) box.append(made("h2", { textContent: "Look most like it (L selects them)" }), few(found.alike));
  else if (found.looking) box.append(made("p", { className: "caption", textContent: "Look-alikes are still being found." }));
  if (found.object.length) box.append(made("h2", { textContent: "Other crops of its object (O selects them)" }), few(found.object));
  box.dataset.i = i;
  box.found = found;
}

// ---- selecting ---------------------------------------------------------------------------------------------------

function choose(images) {
  chosen.clear();
  for (const i of images) chosen.add(i);
  at("chosen").textContent = chosen.size ? `${chosen.size} selected` : "";
  repaint();
}

async function toggle(n, on) {
  const row = await rowOf(n);
  if (!row) return;
  if (on || !chosen.has(row.i)) chosen.add(row.i); else chosen.delete(row.i);
  choose([...chosen]);
}

async function chooseAll() {
  await looking;
  const found = [];
  for (let n = 0; n < Math.min(view.count, MOST); n += ROWS) found.push(...(await rowsAt(n)));
  choose(found.slice(0, MOST).map((row) => row.i));
}

function chooseWith(name) {
  const found = at("detail").found;
  if (found) choose([found.i, ...found[name].map((row) => row.i)]);
}

async function group() {
  if (at("group").value !== "-1") at("group").value = "-1";
  else if (at("detail").found?.group >= 0) at("group").value = String(at("detail").found.group);
  else return;
  await look();
}

// ---- deciding ----------------------------------------------------------------------------------------------------

async function decide(choice) {
  await looking;
  const n = here, several = [...chosen].slice(0, MOST);
  if (several.length) choose([]);
  else go(n + 1); // at once: the next key may come before the server has answered
  const row = several.length ? null : await rowOf(n), images = row ? [row.i] : several;
  if (!images.length) return;
  undone.push(images.map((i) => [i, decisions.get(i) || "open"]));
  apply(images, choice);
}

function undo() {
  const last = undone.pop();
  if (!last) return;
  const before = new Map();
  for (const [i, choice] of last) before.set(choice, [...(before.get(choice) || []), i]);
  for (const [choice, images] of before) apply(images, choice);
}

function apply(images, decision) {
  for (const i of images) decisions.set(i, decision);
  pending.push({ images, decision });
  keep();
  repaint();
  send();
}

const unsent = () => `stratagan review ${facts.run} ${facts.count}`;
const isPending = (i) => pending.some((each) => each.images.includes(i));

function keep() { // for a browser that is closed before the server has answered
  try { localStorage.setItem(unsent(), JSON.stringify(pending)); } catch { /* private windows have none */ }
}

async function send() {
  if (sending) return;
  sending = true;
  while (pending.length) {
    tell();
    try {
      const answer = await fetch(address("/decide"), { method: "POST", headers: { "Content-Type": "application/json" },
        body: JSON.stringify(pending[0]) });
      const said = await answer.json();
      if (answer.status === 400) { pending.shift(); alert(said.error); }
      else if (!answer.ok) throw new Error(said.error);
      else { pending.shift(); count(said.counts); }
      keep();
    } catch (error) {
      tell(error);
      await new Promise((later) => setTimeout(later, 1500));
    }
  }
  sending = false;
  tell();
}

function tell(error) {
  const saved = at("saved"), n = pending.reduce((sum, each) => sum + each.images.length, 0);
  const reason = error instanceof TypeError ? "the server does not answer" : error?.message;
  saved.textContent = !n ? "all saved" : reason ? `${n} not saved yet: ${reason}` : "saving ...";
  saved.classList.toggle("alarm", Boolean(n && reason));
}

function count(counts) {
  const number = (name) => made("b", { className: name, textContent: counts[name].toLocaleString("en") });
  at("counts").replaceChildren(number("junk"), " junk, ", number("fine"), " fine, ", number("unsure"), " unsure, ",
    number("open"), " not yet");
}

async function poll() {
  try {
    const found = await (await ask("/since", { log: logged })).json();
    logged = found.log;
    for (const [i, choice] of found.changed) if (!isPending(i)) decisions.set(i, choice);
    count(found.counts);
    if (found.groups && at("group").options.length === 1) await groups();
    repaint();
  } catch { /* it is asked again */ }
  setTimeout(poll, 2000);
}

async function groups() {
  const found = await (await ask("/start")).json();
  found.groups.forEach((size, number) => at("group").append(made("option", { value: number, textContent: `${number + 1}: ${size} images` })));
}

// ---- keys and buttons --------------------------------------------------------------------------------------------

const moves = { ArrowLeft: () => -1, ArrowRight: () => 1, ArrowUp: () => -columns, ArrowDown: () => columns,
  PageUp: () => -columns * Math.max(1, Math.floor(at("grid").clientHeight / cell.h)),
  PageDown: () => columns * Math.max(1, Math.floor(at("grid").clientHeight / cell.h)),
  Home: () => -view.count, End: () => view.count };
const keys = { j: () => decide("junk"), f: () => decide("fine"), u: () => decide("unsure"), z: undo, a: chooseAll,
  l: () => chooseWith("alike"), o: () => chooseWith("object"), g: group, r: () => look(true), " ": () => toggle(here),
  d: () => at("side").classList.toggle("open"), Escape: () => { choose([]); at("side").classList.remove("open"); },
  "/": () => at("text").focus(), "?": () => at("keys").showModal() };

document.addEventListener("keydown", async (event) => {
  if (["INPUT", "SELECT"].includes(event.target.tagName)) {
    if (event.key === "Escape" || event.key === "Enter") at("grid").focus();
    return;
  }
  if (at("keys").open || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in moves) {
    event.preventDefault();
    const from = here, to = Math.max(0, Math.min(view.count - 1, here + moves[event.key]()));
    if (event.shiftKey) for (let n = Math.min(from, to); n <= Math.max(from, to) && chosen.size < MOST; n++) await toggle(n, true);
    await go(to);
  } else {
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (act && (event.target.tagName !== "BUTTON" || event.key !== " " || event.target.classList.contains("cell"))) {
      event.preventDefault();
      act();
    }
  }
});

for (const button of document.querySelectorAll("[data-choice]")) button.onclick = () => { decide(button.dataset.choice); at("grid").focus(); };
at("undo").onclick = undo;
at("choose").onclick = chooseAll;
at("details").onclick = () => at("side").classList.add("open");
at("close").onclick = () => at("side").classList.remove("open");
at("help").onclick = () => at("keys").showModal();
at("again").onclick = () => look(true);
at("grid").addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
addEventListener("resize", measure);
for (const id of ["by", "decided", "group", "value"]) at(id).onchange = () => look();
at("column").onchange = () => {
  const values = facts.columns[at("column").value] || [];
  at("value").replaceChildren(...values.map((value) => made("option", { value, textContent: value || "(none)" })));
  at("value").hidden = !values.length;
  look();
};
let typing;
at("text").oninput = () => { clearTimeout(typing); typing = setTimeout(look, 300); };

(async () => {
  facts = await (await ask("/start")).json();
  logged = facts.log;
  for (const name of ["score", ...facts.terms]) at("by").append(made("option", { value: name, textContent: name }));
  for (const name of Object.keys(facts.columns)) at("column").append(made("option", { value: name, textContent: name }));
  count(facts.counts);
  try { pending = JSON.parse(localStorage.getItem(unsent()) || "[]"); } catch { pending = []; }
  for (const { images, decision } of pending) for (const i of images) decisions.set(i, decision);
  send();
  if (facts.groups.length) await groups();
  await look();
  at("grid").focus();
  poll();
})().catch((error) => { at("saved").textContent = error.message; });
