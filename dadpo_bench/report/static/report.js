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
  let data, places, found = [], shown = 0, listed = "", view = "m";
  const parts = new Map(), waiting = new Map();
  let hits = { q: "", keys: null, failed: null }; // of the search that a live page has

  // As report/text.py: what would not be seen, or would reorder what is, becomes visible.
  const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u180b-\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufeff\uffa0\ufff9-\ufffb\u{d800}-\u{dfff}\u{e0000}-\u{e0fff}]/gu;
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
  // Entities are read by now: what they stand for is seen too.
  markdown.renderer.rules.text = (tokens, i) => markdown.utils.escapeHtml(visible(tokens[i].content));
  markdown.renderer.rules.image = (tokens, i) => markdown.utils.escapeHtml(visible(`[image: ${tokens[i].content}] (${tokens[i].attrGet("src")})`));
  markdown.renderer.rules.link_open = (tokens, i) => `<span class="link" title="${markdown.utils.escapeHtml(visible(tokens[i].attrGet("href") || ""))}">`;
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
    const changes = Diff.diffWordsWithSpace(text.length > LONG ? other : other.slice(0, LONG), text, { timeout: 300 });
    if (!changes) { box.append(text, make("p", { class: "soft" }, "Too different to be marked.")); return; }
    for (const part of changes) if (!part.removed) box.append(part.added ? make("mark", { class: "added" }, part.value) : part.value);
  }

  function load(name) {
    if (parts.has(name)) return Promise.resolve(parts.get(name));
    if (!waiting.has(name)) {
      waiting.set(name, new Promise((done, failed) => {
        const script = make("script", { src: `data/part-${name}.js` });
        script.onload = () => { script.remove(); done(parts.get(name)); };
        script.onerror = () => { waiting.delete(name); failed(new Error("its texts are not beside this page")); };
        document.head.append(script);
      }));
    }
    return waiting.get(name);
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
    const is = (column) => w[column] === "" ? null : [data[column], places[column].get(w[column])];
    const equal = ["board", "task", "category", "contestant", "outcome"].map(is).filter(Boolean);
    if (w.flipped) equal.push([data.flipped, 1]);
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

  function list(keep) {
    const given = wanted(), asked = JSON.stringify(given);
    if (keep && asked === listed) return;
    const many = asked === listed ? shown : SHOWN; // the same filters over other data: as far as one had got
    listed = asked;
    found = matching(given);
    shown = 0;
    $("list").tBodies[0].replaceChildren();
    $("count").textContent = hits.failed ? `The search failed: ${hits.failed}.` : `${found.length.toLocaleString("en")} of ${data.key.length.toLocaleString("en")} comparisons`;
    more(many);
  }

  function more(count = SHOWN) {
    $("list").tBodies[0].append(...found.slice(shown, shown + count).map(row));
    shown = Math.min(found.length, shown + count);
    $("more").hidden = shown >= found.length;
    mark();
  }

  function mark() {
    const key = new URLSearchParams(location.hash.slice(1)).get("c");
    for (const each of $("list").tBodies[0].rows) each.setAttribute("aria-current", String(each.dataset.key === key));
  }

  const seconds = (value) => typeof value === "number" && value ? `${value.toFixed(1)} s` : null;
  const written = (given, at) => { // of a turn its tokens, behind the last one the time of all
    const reply = given.replies[at], last = at === given.replies.length - 1;
    if (!reply) return "";
    return (reply.tokens ? ` · ${reply.tokens.toLocaleString("en")} tokens` : "") + (last && given.seconds ? ` · ${seconds(given.seconds)}${at ? " in all" : ""}` : "");
  };
  const tokens = (said) => said.tokens ? `${said.tokens.toLocaleString("en")} tokens` + (said.answer_tokens ? `, ${said.answer_tokens.toLocaleString("en")} of them written` : "") : null;

  function judged(said) {
    const value = said.value === undefined ? null : String(Math.round(said.value * 10000) / 10000);
    const words = [data.orders[said.about], said.outcome, value === null ? null : `${said.outcome ? "preference" : "rating"} ${value}`, said.by_turn ? `by turn ${said.by_turn.join(", ")}` : null, said.reason ? `unscored: ${said.reason}` : null, said.model, tokens(said), seconds(said.seconds)];
    return make("div", { class: "message" }, make("h4", {}, visible(words.filter(Boolean).join(" · "))), said.raw ? textOf(said.raw) : undefined);
  }

  function show(i, part) {
    const entry = part.comparisons[data.key[i]], prompt = part.prompts[entry.prompt];
    const none = { replies: [], seconds: null }, mine = part.responses[entry.ours] || none, other = part.responses[entry.theirs] || none;
    const ours = mine.replies, theirs = other.replies;
    const place = found.indexOf(i), baseline = data.baselines[data.baseline[i]];
    const go = (step) => make("button", { type: "button", "data-act": step, disabled: place < 0 || found[place + step] === undefined, onclick: () => walk(step) }, step < 0 ? "← previous" : "next →");
    const side = (name, given, at, against) => {
      const reply = given.replies[at];
      return make("div", { class: "side" }, make("h4", {}, visible(name) + written(given, at) + (reply && reply.cut ? " · cut by the token limit" : "")), reply ? textOf(reply.text, against && against.text) : make("p", { class: "soft" }, "no response"));
    };
    const turns = prompt.turns.flatMap((turn, at) => [
      make("div", { class: "message" }, make("h4", {}, prompt.turns.length > 1 ? `user, turn ${at + 1}` : "user"), textOf(turn)),
      make("div", { class: baseline ? "sides" : "" }, side(named(i), mine, at, theirs[at]), baseline ? side(`${baseline} (baseline)`, other, at, ours[at]) : undefined),
      prompt.reference[at] ? make("details", {}, make("summary", {}, "Reference answer"), textOf(prompt.reference[at])) : undefined,
    ]);
    const box = $("comparison"), opening = box.hidden;
    const act = box.contains(document.activeElement) ? document.activeElement.dataset.act : undefined;
    box.replaceChildren(
      make("div", { class: "bar" }, go(-1), go(1), make("span", { class: "soft" }, place < 0 ? "outside of the list's filters" : `${place + 1} of ${found.length}`),
        ...Object.entries(VIEWS).map(([key, name]) => make("button", { type: "button", "data-act": key, "aria-pressed": String(view === key), onclick: () => look(key) }, name)),
        make("button", { type: "button", onclick: close }, "close")),
      make("h2", { tabindex: "-1" }, visible(named(i)), baseline ? ` against ${visible(baseline)} ` : " ", badge(i)),
      make("p", { class: "soft" }, visible([data.boards[data.board[i]].name, `judge ${data.boards[data.board[i]].judge}`, data.tasks[data.task[i]], data.categories[data.category[i]]].filter(Boolean).join(" · ")), data.flipped[i] ? " · the verdict changed with the order" : ""),
      prompt.system ? make("div", { class: "message" }, make("h4", {}, "system"), textOf(prompt.system)) : "",
      ...turns.filter(Boolean),
      make("h3", {}, "What the judge said"),
      ...(entry.said.length ? entry.said.map(judged) : [make("p", { class: "soft" }, "nothing is stored")]));
    box.hidden = false;
    mark();
    // Whoever used a button here goes on with it; whoever came from elsewhere starts at the heading.
    const again = act && box.querySelector(`[data-act="${CSS.escape(act)}"]:not(:disabled)`);
    (again || box.querySelector("h2")).focus({ preventScroll: true });
    const top = box.getBoundingClientRect().top;
    if (opening || top < 0 || top > innerHeight / 2) box.scrollIntoView({ block: "start" });
  }

  const current = () => data.key.indexOf(new URLSearchParams(location.hash.slice(1)).get("c"));
  function look(key) { view = key; if (current() >= 0) route(false); }
  function close() {
    const key = data.key[current()];
    location.hash = address(null);
    $("list").querySelector(`tr[data-key="${CSS.escape(key || "")}"] a`)?.focus({ preventScroll: true });
  }
  function walk(step) {
    const place = found.indexOf(current()), next = found[place < 0 ? 0 : place + step];
    if (next !== undefined) location.hash = address(next);
  }

  // The address says what is shown. Fields are written from it where it changed, never while one types into them.
  async function route(fields) {
    const asked = new URLSearchParams(location.hash.slice(1));
    for (const element of fields ? form.elements : []) {
      if (!element.name) continue;
      if (element.type === "checkbox") element.checked = asked.get(element.name) === "1";
      else element.value = asked.get(element.name) ?? "";
    }
    if (!(await search(wanted().q))) return; // another search has begun
    list(true);
    const i = current(), box = $("comparison");
    if (i < 0) {
      box.hidden = true;
      if (asked.get("c")) { box.replaceChildren(make("p", {}, "There is no such comparison in this report.")); box.hidden = false; }
      mark();
      return;
    }
    try {
      const part = await load(data.parts[data.part[i]]);
      if (current() === i) show(i, part);
    } catch (error) {
      box.replaceChildren(make("p", { class: "warning" }, `It cannot be shown: ${error.message}.`));
      box.hidden = false;
    }
  }

  function fill() {
    const boards = data.boards.map((board) => `${board.name}, judge ${board.judge}`);
    const names = { board: boards, task: data.tasks, category: data.categories, contestant: data.contestants, outcome: data.outcomes };
    const every = { board: "every board", task: "every task", category: "every category", contestant: "everybody", outcome: "every outcome" };
    places = {};
    for (const [column, values] of Object.entries(names)) {
      places[column] = new Map(values.map((value, at) => [value, at]));
      const there = new Set(data[column]);
      choices(column, values.filter((value, at) => value !== "" && there.has(at)).map((value) => [value, visible(value)]), every[column]);
    }
  }

  async function search(q) { // whether it is still what is asked for
    if (q === hits.q) return true;
    const mine = (hits = { q, keys: null, failed: null });
    listed = "";
    if (q === "") return true;
    try {
      mine.keys = new Set((await (await fetch(`search.json?${new URLSearchParams({ q })}`)).json()).keys);
    } catch (error) {
      mine.failed = error.message;
    }
    return hits === mine;
  }

  function reload() { // the store has changed: the index anew, then what was shown
    parts.clear();
    waiting.clear();
    hits = { q: "", keys: null, failed: null };
    const script = make("script", { src: `data/index.js?${Date.now()}` });
    script.onload = () => script.remove();
    document.head.append(script);
  }

  function again() { // over other data
    const given = wanted();
    fill();
    for (const [name, value] of Object.entries(given)) if (form.elements[name] && form.elements[name].type !== "checkbox") form.elements[name].value = value;
    const key = new URLSearchParams(location.hash.slice(1)).get("c"), open = !$("comparison").hidden;
    search(wanted().q).then(() => { list(false); if (!open || !data.key.includes(key)) route(false); });
  }

  function begin() {
    fill();
    let typed;
    form.addEventListener("input", (event) => {
      const apply = () => { history.replaceState(null, "", `#${address(null)}`); route(false); };
      clearTimeout(typed);
      if (event.target.name === "q") typed = setTimeout(apply, 150); // words are asked of the server
      else apply();
    });
    form.addEventListener("reset", (event) => { event.preventDefault(); history.replaceState(null, "", "#"); route(true); });
    form.addEventListener("submit", (event) => event.preventDefault());
    $("more").addEventListener("click", () => more());
    addEventListener("hashchange", () => route(true));
    addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
      if (event.key === "j") walk(1);
      else if (event.key === "k") walk(-1);
      else if (event.key === "Escape") close();
      else if (event.key in VIEWS) look(event.key);
    });
    route(true);
  }

  return {
    index(given) { const first = !data; data = given; if (first) begin(); else again(); },
    reload,
    part(name, given) { parts.set(name, given); },
  };
})();
