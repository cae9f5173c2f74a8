// Keeps the page up to date. It asks for the page again, and takes over what has changed: how things look is said in one
// place, by relayd, whether scripts run or not. What comes is parsed, not run, and the policy of the page allows no
// script but this one.
"use strict";
(() => {
  const EVERY_MS = 2000;
  const PATIENCE_MS = 5000;
  const TYPING_MS = 300;
  const search = document.getElementById("q");
  const contact = document.getElementById("contact");
  let timer = 0;
  let asking = null;
  let silentSince = null;
  // "omit" where this page came without a token, "same-origin" where with one; not to be seen before somebody asks.
  // With what it has, the browser would open a window for a token each time that it has none.
  let credentials = "";

  function address() {
    const query = new URLSearchParams(location.search);
    if (search.value.trim()) query.set("q", search.value.trim());
    else query.delete("q");
    const text = query.toString();
    return text ? "/?" + text : "/";
  }

  // Only what differs is touched: what somebody has selected, or has the focus on, stays.
  function update(old, now) {
    const there = Array.from(old.childNodes);
    const come = Array.from(now.childNodes);
    come.forEach((node, index) => {
      if (index >= there.length) old.append(document.importNode(node, true));
      else if (!there[index].isEqualNode(node)) there[index].replaceWith(document.importNode(node, true));
    });
    there.slice(come.length).forEach((node) => node.remove());
  }

  function say(text) {
    if (contact.textContent !== text) contact.textContent = text; // said once, not every two seconds
    document.body.classList.toggle("stale", text !== "");
  }

  // What keeps the page as it was, "" where nothing does.
  async function ask(signal) {
    // In full: relative to an address with a password in it, it would have one too, and that is refused.
    const request = (by) => fetch(location.origin + address(), { signal, cache: "no-store", credentials: by });
    let answer = await request(credentials || "omit");
    if (!credentials) {
      credentials = answer.status === 401 ? "same-origin" : "omit";
      if (answer.status === 401) answer = await request(credentials);
    }
    const text = await answer.text();
    if (answer.status === 401) return "A token is asked for now. What you see is from before: load the page again.";
    if (answer.status >= 400 && answer.status < 500) {
      return "This page may not ask any more (" + answer.status + "). What you see is from before: load the page again.";
    }
    if (!answer.ok) throw new Error("status " + answer.status);
    const page = new DOMParser().parseFromString(text, "text/html");
    for (const old of document.querySelectorAll("[data-live]")) {
      const now = page.getElementById(old.id);
      if (now) update(old, now);
    }
    return "";
  }

  async function turn() {
    clearTimeout(timer);
    if (asking) asking.abort();
    if (document.hidden) return; // `visibilitychange` goes on
    const mine = (asking = new AbortController());
    const late = setTimeout(() => mine.abort(), PATIENCE_MS);
    try {
      const obstacle = await ask(mine.signal);
      silentSince = null;
      say(obstacle);
    } catch (error) {
      if (asking !== mine) return; // another turn has begun, and this is its doing
      silentSince = silentSince || new Date();
      say("No answer since " + silentSince.toLocaleTimeString() + ". What you see is from before; the page keeps trying.");
    } finally {
      clearTimeout(late);
    }
    if (asking === mine) timer = setTimeout(turn, EVERY_MS);
  }

  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      history.replaceState(null, "", address());
      turn();
    }, TYPING_MS);
  });
  document.addEventListener("visibilitychange", turn);
  timer = setTimeout(turn, EVERY_MS);
})();
