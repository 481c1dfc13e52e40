"use strict";
// The comparisons' page: lists, filters and shows. Data arrive as calls (`dadpo.index`, `dadpo.part`), since a page
// opened from disk may not fetch. Everything in them is other people's text: it becomes text nodes, or Markdown in
// which HTML, images and addresses stay text.
const dadpo = (() => {
  const SHOWN = 100; // rows of the list at a time
  const LONG = 20000; // characters of a text that are shown before one asks for the rest
  const VIEWS = { m: "Markdown", r: "raw", d: "differences" };
  const $ = (id) => document.getElementById(id);
  const form = $("filters");
  let data, found = [], shown = 0, view = "m";
  const parts = new Map(), waiting = new Map();
  let hits = { q: "", keys: null }; // of the search that a live page has

  // As report/text.py: what would not be seen, or would reorder what is, becomes visible.
  const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\u{d800}-\u{dfff}\u{e0000}-\u{e007f}]/gu;
  const visible = (text) => text.replace(/\r\n/g, "\n").replace(UNSEEN, (c) => `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);

  const make = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== undefined && child !== null));
    return made;
  };

  const markdown = markdownit({ html: false, linkify: false });
  markdown.renderer.rules.image = (tokens, i) => markdown.utils.escapeHtml(`[image: ${tokens[i].content}] (${tokens[i].attrGet("src")})`);
  markdown.renderer.rules.link_open = (tokens, i) => `<span class="link" title="${markdown.utils.escapeHtml(tokens[i].attrGet("href") || "")}">`;
  markdown.renderer.rules.link_close = () => "</span>";

  function textOf(text, other) {
    const whole = visible(text);
    const box = make("div", { class: "text", dir: "auto" });
    const fill = (given) => {
      box.replaceChildren();
      box.classList.toggle("raw", view !== "m");
      if (view === "m") box.innerHTML = markdown.render(given);
      else if (view === "d" && other !== undefined) marked(box, given, visible(other));
      else box.textContent = given;
    };
    fill(whole.slice(0, LONG));
    if (whole.length <= LONG) return box;
    const rest = make("button", { type: "button", onclick: () => { fill(whole); rest.remove(); } }, `Show all ${whole.length.toLocaleString("en")} characters`);
    return make("div", {}, box, rest);
  }

  function marked(box, text, other) {
    const changes = Diff.diffWordsWithSpace(other.slice(0, LONG), text, { timeout: 300 });
    if (!changes) { box.textContent = text; return; }
    for (const part of changes) if (!part.removed) box.append(part.added ? make("mark", { class: "added" }, part.value) : part.value);
  }

  function load(number) {
    if (parts.has(number)) return Promise.resolve(parts.get(number));
    if (!waiting.has(number)) {
      waiting.set(number, new Promise((done, failed) => {
        const script = make("script", { src: `data/part-${String(number).padStart(4, "0")}.js` });
        script.onload = () => { script.remove(); done(parts.get(number)); };
        script.onerror = () => { waiting.delete(number); failed(new Error("its texts are not beside this page")); };
        document.head.append(script);
      }));
    }
    return waiting.get(number);
  }

  function choices(name, values, every) {
    const select = form.elements[name];
    select.replaceChildren(make("option", { value: "" }, every), ...values.map(([value, label]) => make("option", { value }, label)));
  }

  function wanted() {
    const at = (name) => form.elements[name].value;
    return { q: form.elements.q ? at("q").trim() : "", board: at("board"), task: at("task"), category: at("category"), contestant: at("contestant"), outcome: at("outcome"), above: at("above"), below: at("below"), flipped: form.elements.flipped.checked ? "1" : "" };
  }

  function matching(w) {
    const is = (column, value) => value === "" ? null : [data[column], Number(value)];
    const equal = [is("board", w.board), is("task", w.task), is("category", w.category), is("contestant", w.contestant), is("outcome", w.outcome), is("flipped", w.flipped)].filter(Boolean);
    const above = w.above === "" ? null : Number(w.above), below = w.below === "" ? null : Number(w.below);
    const rows = [];
    next: for (let i = 0; i < data.key.length; i++) {
      for (const [column, value] of equal) if (column[i] !== value) continue next;
      if (above !== null || below !== null) {
        const ratio = data.ratio[i];
        if (ratio === null || (above !== null && ratio < above) || (below !== null && ratio > below)) continue;
      }
      if (hits.keys && !hits.keys.has(data.key[i])) continue;
      rows.push(i);
    }
    return rows;
  }

  const named = (i) => data.contestants[data.contestant[i]] + (data.seed[i] === null ? "" : `, seed ${data.seed[i]}`);
  const worth = (i) => data.worth[i] === null ? "" : data.outcomes[data.outcome[i]] === "rated" ? ` ${data.worth[i]}` : [0, 0.5, 1].includes(data.worth[i]) ? "" : ` ${data.worth[i]}`;
  const badge = (i) => make("span", { class: `outcome ${data.outcomes[data.outcome[i]]}` }, data.outcomes[data.outcome[i]] + worth(i));

  function row(i) {
    return make("tr", { "data-key": data.key[i] },
      make("td", {}, make("a", { href: `#${address(i)}` }, visible(data.prompts[data.prompt[i]]))),
      make("td", {}, visible(data.tasks[data.task[i]]) + (data.categories[data.category[i]] ? `, ${visible(data.categories[data.category[i]])}` : "")),
      make("td", {}, visible(named(i))),
      make("td", {}, badge(i), data.flipped[i] ? " flipped" : ""),
      make("td", {}, data.ratio[i] === null ? "–" : `× ${data.ratio[i]}`));
  }

  function address(i) {
    const chosen = Object.entries(wanted()).filter(([, value]) => value !== "");
    return new URLSearchParams(i === null ? chosen : [...chosen, ["c", data.key[i]]]).toString();
  }

  function list() {
    found = matching(wanted());
    shown = 0;
    $("list").tBodies[0].replaceChildren();
    $("count").textContent = `${found.length.toLocaleString("en")} of ${data.key.length.toLocaleString("en")} comparisons`;
    more();
  }

  function more() {
    $("list").tBodies[0].append(...found.slice(shown, shown + SHOWN).map(row));
    shown = Math.min(found.length, shown + SHOWN);
    $("more").hidden = shown >= found.length;
  }

  const seconds = (value) => value ? `${value.toFixed(1)} s` : null;
  const tokens = (said) => said.tokens ? `${said.tokens.toLocaleString("en")} tokens` + (said.answer_tokens ? `, ${said.answer_tokens.toLocaleString("en")} of them written` : "") : null;
  const ORDERS = { ab: "contestant shown first", ba: "contestant shown second", contestant: "of the contestant's response", baseline: "of the baseline's response" };

  function judged(said) {
    const value = said.value === undefined ? null : String(Math.round(said.value * 10000) / 10000);
    const words = [ORDERS[said.about], said.outcome, value, said.by_turn ? `by turn ${said.by_turn.join(", ")}` : null, said.reason ? `unscored: ${said.reason}` : null, said.model, tokens(said), seconds(said.seconds)];
    return make("div", { class: "message" }, make("h4", {}, visible(words.filter(Boolean).join(" · "))), said.raw ? textOf(said.raw) : undefined);
  }

  function show(i, part) {
    const entry = part.comparisons[data.key[i]], prompt = part.prompts[entry.prompt];
    const ours = part.responses[entry.ours] || [], theirs = part.responses[entry.theirs] || [];
    const place = found.indexOf(i), baseline = data.baselines[data.baseline[i]];
    const go = (step) => make("button", { type: "button", disabled: place < 0 || found[place + step] === undefined, onclick: () => walk(step) }, step < 0 ? "← previous" : "next →");
    const side = (name, reply, other) => make("div", { class: "side" }, make("h4", {}, visible(name) + (reply && reply.cut ? " · cut by the token limit" : "")), reply ? textOf(reply.text, other && other.text) : make("p", { class: "soft" }, "no response"));
    const turns = prompt.turns.flatMap((turn, at) => [
      make("div", { class: "message" }, make("h4", {}, prompt.turns.length > 1 ? `user, turn ${at + 1}` : "user"), textOf(turn)),
      make("div", { class: baseline ? "sides" : "" }, side(named(i), ours[at], theirs[at]), baseline ? side(`${baseline} (baseline)`, theirs[at], ours[at]) : undefined),
      prompt.reference[at] ? make("details", {}, make("summary", {}, "Reference answer"), textOf(prompt.reference[at])) : undefined,
    ]);
    const box = $("comparison");
    box.replaceChildren(
      make("div", { class: "bar" }, go(-1), go(1), make("span", { class: "soft" }, place < 0 ? "outside of the list's filters" : `${place + 1} of ${found.length}`),
        ...Object.entries(VIEWS).map(([key, name]) => make("button", { type: "button", "aria-pressed": String(view === key), onclick: () => look(key) }, name)),
        make("button", { type: "button", onclick: close }, "close")),
      make("h2", {}, visible(named(i)), baseline ? ` against ${visible(baseline)} ` : " ", badge(i)),
      make("p", { class: "soft" }, visible([data.boards[data.board[i]].name, `judge ${data.boards[data.board[i]].judge}`, data.tasks[data.task[i]], data.categories[data.category[i]]].filter(Boolean).join(" · ")), data.flipped[i] ? " · the verdict changed with the order" : ""),
      prompt.system ? make("div", { class: "message" }, make("h4", {}, "system"), textOf(prompt.system)) : "",
      ...turns.filter(Boolean),
      make("h3", {}, "What the judge said"),
      ...(entry.said.length ? entry.said.map(judged) : [make("p", { class: "soft" }, "nothing is stored")]));
    box.hidden = false;
    for (const each of $("list").tBodies[0].rows) each.setAttribute("aria-current", String(each.dataset.key === data.key[i]));
  }

  const current = () => data.key.indexOf(new URLSearchParams(location.hash.slice(1)).get("c"));
  function look(key) { view = key; if (current() >= 0) route(); }
  function close() { location.hash = address(null); }
  function walk(step) {
    const place = found.indexOf(current()), next = found[place < 0 ? 0 : place + step];
    if (next !== undefined) location.hash = address(next);
  }

  async function route() {
    const asked = new URLSearchParams(location.hash.slice(1));
    for (const element of form.elements) {
      if (!element.name) continue;
      if (element.type === "checkbox") element.checked = asked.get(element.name) === "1";
      else element.value = asked.get(element.name) ?? "";
    }
    await search(wanted().q);
    list();
    const i = current(), box = $("comparison");
    if (i < 0) {
      box.hidden = true;
      if (asked.get("c")) { box.replaceChildren(make("p", {}, "There is no such comparison in this report.")); box.hidden = false; }
      return;
    }
    try {
      const part = await load(data.part[i]);
      if (current() !== i) return;
      const opening = box.hidden;
      show(i, part);
      if (opening) box.scrollIntoView({ block: "start" });
    } catch (error) {
      box.replaceChildren(make("p", { class: "warning" }, `It cannot be shown: ${error.message}.`));
      box.hidden = false;
    }
  }

  function fill() {
    const all = (values) => values.map((value, at) => [String(at), visible(value) || "–"]);
    choices("board", all(data.boards.map((board) => `${board.name}, judge ${board.judge}`)), "every board");
    choices("task", all(data.tasks), "every task");
    choices("category", all(data.categories), "every category");
    choices("contestant", all(data.contestants), "everybody");
    choices("outcome", all(data.outcomes).filter(([at]) => data.outcome.includes(Number(at))), "every outcome");
  }

  async function search(q) {
    if (q === hits.q) return;
    hits = { q, keys: null };
    if (q === "") return;
    const found = await (await fetch(`search.json?${new URLSearchParams({ q })}`)).json();
    if (hits.q === q) hits.keys = new Set(found.keys);
  }

  function reload() { // the store has changed: the index anew, then what was shown
    parts.clear();
    waiting.clear();
    hits = { q: "", keys: null };
    const script = make("script", { src: `data/index.js?${Date.now()}` });
    script.onload = () => script.remove();
    document.head.append(script);
  }

  function begin() {
    fill();
    form.addEventListener("input", () => history.replaceState(null, "", `#${address(null)}`) ?? route());
    form.addEventListener("reset", (event) => { event.preventDefault(); location.hash = ""; route(); });
    form.addEventListener("submit", (event) => event.preventDefault());
    $("more").addEventListener("click", more);
    addEventListener("hashchange", route);
    addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
      if (event.key === "j") walk(1);
      else if (event.key === "k") walk(-1);
      else if (event.key === "Escape") close();
      else if (event.key in VIEWS) look(event.key);
    });
    route();
  }

  return {
    index(given) { const first = !data; data = given; if (first) begin(); else { fill(); route(); } },
    reload,
    part(number, given) { parts.set(number, given); },
  };
})();
