"use strict";
// Served from a living store: a page that has grown old is fetched again, and comparisons are searched by their texts.
(() => {
  const EVERY = 3000; // milliseconds
  let version = document.documentElement.dataset.version; // of the store that this page was made of

  async function refresh() {
    try {
      const now = (await (await fetch("live.json")).json()).version;
      if (now !== version) {
        if (typeof dadpo === "undefined") await replace();
        else dadpo.reload();
      }
      version = now;
      document.body.classList.remove("gone");
    } catch {
      document.body.classList.add("gone"); // the server was stopped: the page stays as it is
    }
    setTimeout(refresh, EVERY);
  }

  async function replace() {
    const opened = [...document.querySelectorAll("main details")].map((each) => each.open);
    const fresh = new DOMParser().parseFromString(await (await fetch(location.pathname)).text(), "text/html");
    document.querySelector("main").replaceWith(document.adoptNode(fresh.querySelector("main")));
    document.querySelectorAll("main details").forEach((each, at) => { each.open = opened[at] ?? false; });
  }

  refresh();
})();
