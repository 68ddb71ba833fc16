// Keeps the marked parts of a page up to date while it is open.
//
// An element with an id and `data-live="<url>"` follows the server-sent events of that URL; one with
// `data-live-every="<seconds>"` is polled. At an event this script fetches the page again, and makes each of these
// elements like the one with the same id in the new page. Nodes that are the same stay: they keep the focus, the
// selection, what is scrolled and what is opened. Without this script, reloading the page does the same.
"use strict";

(() => {
  const MARKED = ".cloudrun-jobs [data-live][id], .cloudrun-jobs [data-live-every][id]";
  const EVENTS = ["status", "progress", "end"];
  const MIN_INTERVAL = 1000; // milliseconds between two requests of the page
  const MAX_RETRY = 30000; // milliseconds
  const SILENCE = 10000; // milliseconds without a connection, after which the page says so
  const GONE = [401, 403, 404, 410]; // statuses after which no request will succeed

  const sources = new Map(); // open EventSources by URL
  const ended = new Set(); // URLs whose run has ended
  let control = null;
  let isPaused = false;
  let isStopped = false;
  let isAway = document.visibilityState === "hidden";
  let isPressed = false; // a pointer is down: to change its target would lose the click
  let request = null;
  let isStale = false; // an event arrived while a request was under way
  let timer = 0;
  let requestedAt = -Infinity;
  let failures = 0;
  let lostTimer = 0;
  let isLost = false;

  const marked = () => [...document.querySelectorAll(MARKED)];
  const isIdle = () => isPaused || isStopped || isAway;
  const retryDelay = () => Math.min(MAX_RETRY, 1000 * 2 ** Math.min(failures, 5));

  // The nodes of the page.

  function update(page) {
    for (const element of marked()) {
      const fresh = page.getElementById(element.id);
      if (fresh === null) {
        element.removeAttribute("data-live");
        element.removeAttribute("data-live-every");
        continue;
      }
      const isRun = element.hasAttribute("data-live");
      const before = statusOf(element);
      morph(element, fresh);
      const after = statusOf(element);
      // A screen reader hears the status of a run that is followed, and none of a list.
      if (isRun && after && after !== before) announce(after);
    }
  }

  function statusOf(element) {
    const status = element.querySelector(".status");
    return status && status.textContent.trim();
  }

  function morph(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== Node.ELEMENT_NODE) {
      old.nodeValue = fresh.nodeValue;
      return;
    }
    morphAttributes(old, fresh);
    let next = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      const match = matching(next, child);
      if (match === null) {
        old.insertBefore(document.importNode(child, true), next);
        continue;
      }
      while (next !== match) next = removed(next);
      next = match.nextSibling;
      morph(match, child);
    }
    while (next !== null) next = removed(next);
  }

  function removed(node) {
    const next = node.nextSibling;
    node.remove();
    return next;
  }

  function morphAttributes(old, fresh) {
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && !isOwn(old, name)) old.removeAttribute(name);
    }
    for (const { name, value } of [...fresh.attributes]) {
      if (old.getAttribute(name) !== value && !isOwn(old, name)) old.setAttribute(name, value);
    }
  }

  // What the user opens and closes.
  const isOwn = (element, name) => name === "open" && element.nodeName === "DETAILS";

  // Return the node from `next` on that `child` is a newer version of.
  function matching(next, child) {
    const key = keyOf(child);
    if (key === null) {
      return next !== null && next.nodeName === child.nodeName && keyOf(next) === null ? next : null;
    }
    for (let node = next; node !== null; node = node.nextSibling) {
      if (node.nodeName === child.nodeName && keyOf(node) === key) return node;
    }
    return null;
  }

  // Rows and items are known by their first link, other elements by their id.
  function keyOf(node) {
    if (node.nodeType !== Node.ELEMENT_NODE) return null;
    if (node.id) return `#${node.id}`;
    const link = ["TR", "LI"].includes(node.nodeName) ? node.querySelector("a[href]") : null;
    return link && link.getAttribute("href");
  }

  // Requests.

  function schedule(delay) {
    if (isIdle()) return;
    const earliest = requestedAt + MIN_INTERVAL - performance.now();
    clearTimeout(timer);
    timer = setTimeout(refresh, Math.max(delay, earliest, 0));
  }

  async function refresh() {
    if (isIdle()) return;
    if (request !== null || isPressed) {
      isStale = true;
      return;
    }
    isStale = false;
    requestedAt = performance.now();
    const own = (request = new AbortController());
    const wait = await fetchPage(own.signal);
    if (request !== own) return; // It was aborted, by a pause for instance.
    request = null;
    if (wait === null) stop();
    follow();
    if (isStale) schedule(0);
    else if (wait) schedule(wait);
    else schedulePoll();
    show();
  }

  // Fetch the page and update this one. Return null if nothing more is to come, or the milliseconds to wait after
  // a failure.
  async function fetchPage(signal) {
    const options = { headers: { "X-Cloudrun-Jobs-Live": "1" }, cache: "no-store", signal };
    let response, text;
    try {
      response = await fetch(location.pathname + location.search, options);
      text = await response.text();
    } catch {
      return failed(signal);
    }
    if (signal.aborted) return 0;
    const isElsewhere = response.redirected && new URL(response.url).pathname !== location.pathname;
    if (isElsewhere || GONE.includes(response.status)) return null; // The user has signed out, for instance.
    if (!response.ok) return Math.max(failed(signal), 1000 * (parseInt(response.headers.get("Retry-After"), 10) || 0));
    update(new DOMParser().parseFromString(text, "text/html"));
    if (!followed().size) failures = 0;
    connected();
    return 0;
  }

  function failed(signal) {
    if (signal.aborted) return 0;
    failures += 1;
    lost();
    return retryDelay();
  }

  function schedulePoll() {
    const seconds = marked().map((element) => Number(element.dataset.liveEvery)).filter((each) => each > 0);
    if (seconds.length) schedule(1000 * Math.min(...seconds));
  }

  // The URLs of the event streams that the page follows.
  function followed() {
    const urls = isIdle() ? [] : marked().map((element) => element.dataset.live);
    return new Set(urls.filter((url) => url && !ended.has(url)));
  }

  // Open these streams, and close those of runs that the page no longer shows.
  function follow() {
    const urls = followed();
    for (const [url, source] of sources) {
      if (!urls.has(url)) {
        source.close();
        sources.delete(url);
      }
    }
    for (const url of urls) {
      if (!sources.has(url)) sources.set(url, open(url));
    }
  }

  function open(url) {
    const source = new EventSource(url);
    for (const name of EVENTS) source.addEventListener(name, () => schedule(0));
    source.addEventListener("end", () => {
      ended.add(url);
      source.close();
      sources.delete(url);
    });
    source.addEventListener("open", () => {
      failures = 0;
      connected();
    });
    source.addEventListener("error", () => {
      lost();
      // The browser tries again by itself, unless the response was an error: then the page's own says more.
      if (source.readyState !== EventSource.CLOSED) return;
      sources.delete(url);
      failures += 1;
      schedule(retryDelay());
    });
    return source;
  }

  function connected() {
    clearTimeout(lostTimer);
    lostTimer = 0;
    isLost = false;
    show();
  }

  function lost() {
    if (lostTimer) return;
    lostTimer = setTimeout(() => {
      isLost = true;
      show();
    }, SILENCE);
  }

  // Starting and stopping.

  function stop() {
    isStopped = true;
    rest();
    if (control) announce(show());
  }

  function rest() {
    clearTimeout(timer);
    clearTimeout(lostTimer);
    lostTimer = 0;
    if (request) request.abort();
    request = null;
    follow();
    show();
  }

  function wake() {
    if (isIdle()) return;
    failures = 0;
    follow();
    schedule(0);
    show();
  }

  const isOver = () => !marked().some((each) => each.dataset.liveEvery || !ended.has(each.dataset.live));

  // Show the state beside the button, and return its text.
  function show() {
    if (control === null) return "";
    const button = control.querySelector(".live-pause");
    const text = control.querySelector(".live-state");
    const isDone = isStopped || isOver();
    const state = isStopped ? "stopped" : isDone ? "ended" : isPaused ? "paused" : isLost ? "reconnecting" : "live";
    button.setAttribute("aria-pressed", String(isPaused));
    // A button that has the focus stays: to remove it would send the reader back to the top of the page.
    button.hidden = isDone && document.activeElement !== button;
    if (isDone) button.setAttribute("aria-disabled", "true");
    control.dataset.state = state;
    if (text.textContent !== text.dataset[state]) text.textContent = text.dataset[state];
    return text.textContent;
  }

  function announce(text) {
    const region = control && control.querySelector("[role=status]");
    if (region) region.textContent = text;
  }

  function addControl(first) {
    const template = document.getElementById("live-control");
    if (template === null) return;
    control = template.content.firstElementChild.cloneNode(true);
    first.before(control);
    control.querySelector(".live-pause").addEventListener("click", () => {
      if (isStopped || isOver()) return;
      isPaused = !isPaused;
      if (isPaused) rest();
      else wake();
    });
  }

  function setAway(value) {
    if (isAway === value) return;
    isAway = value;
    if (isAway) rest();
    else wake();
  }

  function release() {
    isPressed = false;
    if (isStale) schedule(0);
  }

  const first = marked()[0];
  if (first === undefined) return;
  addControl(first);
  document.addEventListener("visibilitychange", () => setAway(document.visibilityState === "hidden"));
  addEventListener("pagehide", () => setAway(true));
  addEventListener("pageshow", () => setAway(document.visibilityState === "hidden"));
  document.addEventListener("pointerdown", (event) => (isPressed = event.button === 0));
  // After the click that follows.
  for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, () => setTimeout(release));
  // A form that is sent has to stay as it is: a second click on its button must send the same.
  document.addEventListener("submit", () => {
    setAway(true);
    setTimeout(() => setAway(document.visibilityState === "hidden"), MAX_RETRY);
  });
  follow();
  schedulePoll();
  show();
})();
