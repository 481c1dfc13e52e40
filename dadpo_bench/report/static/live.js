"use strict";
// Served from a living store: a page that has grown old is fetched again, and comparisons are searched by their texts.
(() => {
  const EVERY = 3000; // milliseconds
  let version = document.documentElement.dataset.version; // of the store that this page was made of

  async function refresh() {
    try {
      const told = await (await fetch("live.json")).json();
      const now = typeof dadpo === "undefined" ? told.version : told.judged;
      if (now !== version) {
        if (typeof dadpo === "undefined") await replace();
        else dadpo.reload();
      }
      version = now;
      const box = document.querySelector("[data-underway]");
      if (box) box.replaceChildren(...parsed(told.underway).body.childNodes);
      document.body.classList.remove("gone");
    } catch {
      document.body.classList.add("gone"); // the server was stopped: the page stays as it is
    }
    setTimeout(refresh, EVERY);
  }

  const parsed = (html) => new DOMParser().parseFromString(html, "text/html"); // the server's own, escaped there

  async function replace() {
    const opened = [...document.querySelectorAll("main details")].map((each) => each.open);
    const fresh = parsed(await (await fetch(location.pathname)).text());
    document.querySelector("main").replaceWith(document.adoptNode(fresh.querySelector("main")));
    document.querySelectorAll("main details").forEach((each, at) => { each.open = opened[at] ?? false; });
  }

  refresh();
})();
