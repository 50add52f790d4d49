// For You: plays the card in sight, measures what is watched of it, sends what is done, and asks again for what waits.
// Without this script the page is a list with players and forms.
"use strict";
(() => {
  const page = document.getElementById("for-you");
  const feed = document.getElementById("feed");
  const queue = document.getElementById("queue");
  const said = document.getElementById("said");
  const answered = document.getElementById("answered");
  const dialog = document.getElementById("why");
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const user = page.dataset.viewer;
  // A phone whose clock is wrong would put what is done now into another hour.
  const skew = Number(page.dataset.now) - Date.now() / 1000;
  const now = () => Date.now() / 1000 + (Math.abs(skew) > 60 ? skew : 0);
  const session = unique();
  const FAR = 2; // cards so far from the one in sight let go of their media
  const PASSED = 60; // as many ids as are sent along at most
  const done = new Set(); // videos with an event that counts: no feed brings them again

  let card = null; // in sight
  let heading = null; // where a key or button scrolls to, until it is in sight
  let watch = null; // what is watched of it
  let muted = true;
  let captions = true;
  let asked = 0;

  function unique() {
    return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }
  function say(text) { said.textContent = text; }
  function cards() { return [...feed.querySelectorAll(".card")]; }
  function videoOf(of) { return of ? of.querySelector("video") : null; }
  function named(of) { return `“${of.dataset.title}”`; }

  // --- what is done, sent once -------------------------------------------------------------------------------------
  // Kept until the answer is here, so that nothing is lost with the network or the page; an id that comes again is known.
  const KEPT = "reelsense-not-sent";
  let outbox = [];
  try { outbox = JSON.parse(sessionStorage.getItem(KEPT) || "[]"); } catch { outbox = []; }
  function keep() {
    try { sessionStorage.setItem(KEPT, JSON.stringify(outbox)); } catch { /* then it lives as long as the page */ }
  }
  function note(of, kind, more = {}) {
    const event = { id: unique(), user, video: of.dataset.video, kind, at: now(), session, language: navigator.language.slice(0, 16), ...more };
    outbox.push(event);
    keep();
    return event;
  }
  async function send() {
    const events = outbox.slice(0, 100);
    if (!events.length) return [];
    const answer = await fetch("/api/v1/events/batch", {
      method: "POST", keepalive: true, credentials: "same-origin",
      headers: { "Content-Type": "application/json" }, body: JSON.stringify(events),
    });
    if (answer.status === 401 || answer.status === 403) {
      location.href = "/key?then=/";
      return [];
    }
    // What makes no sense to the server will make none later.
    const hopeless = answer.status >= 400 && answer.status < 500 && answer.status !== 408 && answer.status !== 429;
    if (!answer.ok && !hopeless) throw new Error(`answered ${answer.status}`);
    const { results } = hopeless ? { results: [] } : await answer.json();
    // Whatever became of each, it has arrived.
    const sent = new Set(events.map((event) => event.id));
    outbox = outbox.filter((event) => !sent.has(event.id));
    keep();
    return results.map((result, place) => ({ ...result, event: events[place] }));
  }
  // One at a time; what is done meanwhile goes with the next, and the list is asked for once for all of it.
  let busy = false;
  let wanted = null;
  async function flush(last) {
    wanted = last || wanted;
    if (busy) return;
    busy = true;
    try {
      do {
        const about = wanted;
        wanted = null;
        const told = tell(await send());
        // What was not taken is said, and not talked over.
        if (about) await ask(about, !told);
      } while (wanted);
    } catch (error) {
      say(outbox.length
        ? `What you did could not be sent (${error.message}); it is kept, and will be tried again.`
        : `What comes next could not be asked for (${error.message}).`);
    } finally {
      busy = false;
    }
  }
  function tell(results) {
    let told = false;
    for (const { event, state, code, message, detail } of results) {
      if (state === "new" || state === "known") { done.add(event.video); continue; }
      told = true;
      if (code === "video.unknown") gone(event.video);
      else say(state === "refused" ? `Not taken: ${message}` : `Set aside: ${detail}`);
    }
    return told;
  }
  setInterval(() => { if (outbox.length && !document.hidden) flush(outbox[outbox.length - 1]); }, 10000);
  addEventListener("online", () => flush(outbox[outbox.length - 1]));
  function leavePage() {
    finishWatching("leave");
    if (outbox.length) navigator.sendBeacon("/api/v1/events/batch", new Blob([JSON.stringify(outbox.slice(-100))], { type: "application/json" }));
  }
  addEventListener("pagehide", leavePage);
  document.addEventListener("visibilitychange", () => {
    const video = videoOf(card);
    if (document.hidden) {
      if (video) video.pause();
      leavePage();
    } else if (card && !card.classList.contains("end")) {
      begin(card);
    }
  });

  addEventListener("pageshow", (event) => {
    if (event.persisted && card && !card.classList.contains("end")) { begin(card); flush({ kind: "", video: "" }); }
  });

  // --- what is watched ---------------------------------------------------------------------------------------------
  function begin(of) {
    watch = { card: of, seconds: 0, at: videoOf(of).currentTime, loops: 0, ended: false };
  }
  function measure(video) {
    if (!watch || watch.card !== card || videoOf(card) !== video) return;
    const passed = video.currentTime - watch.at;
    // What was jumped over was not watched.
    if (passed > 0 && passed < 1.5 * Math.max(video.playbackRate, 1)) watch.seconds += passed;
    watch.at = video.currentTime;
  }
  // Why: `next` (the viewer went on), `leave` (the page is left), `end` (the video is over). The event, or null.
  function finishWatching(why) {
    if (!watch || watch.card.classList.contains("end")) return null;
    const { card: of, seconds, loops, ended } = watch;
    watch = null;
    const length = Number(of.dataset.duration);
    const watched = Math.round(seconds * 1000) / 1000;
    if (of.dataset.gone) return null;
    if (why === "next" && !ended && watched < Number(of.dataset.quick)) {
      // Who said that it is not for them has said more than a skip would.
      return of.dataset.refused ? null : note(of, "skip", { watched_seconds: watched });
    }
    if (watched < 0.3 && why !== "end") return null;
    return note(of, "view", { watched_seconds: why === "end" ? Math.max(watched, Math.min(length, watched + 0.3)) : watched, loops });
  }
  function over(video) {
    measure(video);
    const of = card;
    const loops = watch ? watch.loops : 0;
    const event = finishWatching("end");
    watch = { card: of, seconds: 0, at: 0, loops: loops + 1, ended: true };
    if (event) flush({ kind: "finish", video: event.video });
    if (document.getElementById("go-on").checked && !calm && !dialog.open) {
      go(1);
    } else if (!calm) {
      video.currentTime = 0;
      play(of);
    }
  }

  // --- one plays at a time -----------------------------------------------------------------------------------------
  function play(of) {
    const video = videoOf(of);
    if (!video) return;
    video.muted = muted;
    for (const other of feed.querySelectorAll("video")) if (other !== video) other.pause();
    const started = video.play();
    if (started) started.catch((error) => { if (error.name === "NotAllowedError") shown(of, true); });
  }
  function shown(of, paused) {
    const button = of.querySelector("[data-do=play]");
    if (button) button.hidden = !paused;
  }
  function toggle() {
    const video = videoOf(card);
    if (!video) return;
    if (video.paused) play(card); else video.pause();
  }
  function enter(of) {
    if (of === heading) heading = null;
    if (of === card) return;
    const left = card;
    const event = left ? finishWatching("next") : null;
    if (left) { left.classList.remove("current"); const video = videoOf(left); if (video) video.pause(); }
    card = of;
    of.classList.add("current");
    const near = cards();
    const place = near.indexOf(of);
    near.forEach((other, index) => media(other, Math.abs(index - place) <= FAR, index === place + 1));
    for (const item of [...queue.children]) if (item.dataset.video === of.dataset.video) item.remove();
    if (!of.classList.contains("end")) {
      begin(of);
      tracks(of);
      if (!calm) play(of); else shown(of, true);
    }
    if (event) flush(event);
    else if (near.length - place <= 2 && !of.classList.contains("end")) flush({ kind: "", video: "" });
  }
  // The next card is fetched ahead; what is far lets go of its memory.
  function media(of, keepIt, ahead) {
    const video = videoOf(of);
    if (!video || of.dataset.gone) return;
    if (keepIt && video.dataset.src) { video.src = video.dataset.src; delete video.dataset.src; }
    else if (!keepIt && !video.dataset.src && video.src) { video.dataset.src = video.getAttribute("src"); video.removeAttribute("src"); video.load(); }
    video.preload = ahead ? "auto" : "metadata";
  }
  function tracks(of) {
    for (const track of videoOf(of).textTracks) track.mode = captions ? "showing" : "disabled";
    pressed(of, "captions", captions);
    pressed(of, "sound", !muted);
  }
  function pressed(of, name, value) {
    const button = of.querySelector(`[data-do=${name}], [name=kind][value=${name}]`);
    if (button) button.setAttribute("aria-pressed", String(value));
  }
  function go(step) {
    const all = cards();
    const place = all.indexOf(heading && heading.isConnected ? heading : card);
    for (let at = place + step; at >= 0 && at < all.length; at += step) {
      if (all[at].dataset.gone) continue;
      feed.scrollTo({ top: all[at].offsetTop - feed.offsetTop, behavior: calm ? "auto" : "smooth" });
      all[at].focus({ preventScroll: true });
      heading = all[at];
      if (calm) enter(all[at]);
      return true;
    }
    return false;
  }
  function gone(id) {
    const of = document.getElementById(`card-${id}`);
    if (of) stepOver(of, `${named(of)} was deleted`);
  }
  function stepOver(of, why) {
    if (of.dataset.gone) return;
    of.dataset.gone = "yes";
    const video = videoOf(of);
    video.pause();
    video.hidden = true;
    shown(of, false);
    const word = of.querySelector(".gone");
    word.textContent = `${why}.`;
    word.hidden = false;
    for (const item of [...queue.children]) if (item.dataset.video === of.dataset.video) item.remove();
    if (of !== card) return;
    watch = null;
    say(`${why}: stepped over.`);
    if (!go(1)) flush({ kind: "", video: "" });
  }
  async function failed(of) {
    let why = `${named(of)} cannot be played here`;
    try {
      const answer = await fetch(`/api/v1/videos/${of.dataset.video}/media`, { method: "HEAD", credentials: "same-origin" });
      if (answer.status === 404 || answer.status === 410) why = `${named(of)} was deleted`;
      else if (answer.status === 409) why = `${named(of)} was set aside`;
    } catch { why = `${named(of)} could not be fetched`; }
    stepOver(of, why);
  }

  // --- the feed answers --------------------------------------------------------------------------------------------
  async function ask(last, aloud) {
    const mine = ++asked;
    const all = cards().filter((of) => !of.classList.contains("end"));
    const place = card ? all.indexOf(card) : -1;
    const above = all.slice(0, place < 0 ? all.length : place + 1).map((of) => of.dataset.video);
    const passed = above.filter((video) => !done.has(video)).slice(-PASSED);
    const before = place < 0 ? [] : all.slice(place + 1).map((of) => of.dataset.video);
    const query = new URLSearchParams({ user, passed: passed.join(","), before: before.join(","), kind: last.kind, video: last.video });
    const answer = await fetch(`/feed/cards?${query}`, { credentials: "same-origin" });
    if (!answer.ok) throw new Error(`answered ${answer.status}`);
    const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
    // An answer that another one overtook says nothing any more.
    if (mine !== asked) return;
    take(parsed, aloud);
  }
  function take(parsed, aloud) {
    const fresh = [...parsed.querySelectorAll("[data-cards] > .card")];
    const there = cards();
    const place = card ? there.indexOf(card) : -1;
    const kept = new Set(there.slice(0, place + 1).map((of) => of.id));
    if (card && card.classList.contains("end")) kept.delete(card.id);
    const old = new Map(there.slice(place + 1).map((of) => [of.id, of]));
    const body = feed.querySelector("[data-cards]");
    for (const of of there.slice(place + 1)) of.remove();
    let ended = card && card.classList.contains("end");
    for (const of of fresh) {
      if (kept.has(of.id) || (ended && of.classList.contains("end"))) continue;
      const known = old.get(of.id);
      // A player that has begun to load stays; what is said of it is new.
      if (known && !known.classList.contains("end")) {
        known.querySelector(".words").replaceWith(of.querySelector(".words"));
        body.append(known);
      } else {
        const taken = document.importNode(of, true);
        body.append(taken);
        prepare(taken);
      }
    }
    if (ended && cards().length > there.length) {
      // Something came while the end was in sight.
      const end = card;
      card = null;
      end.remove();
    }
    list(parsed, kept);
    const text = parsed.querySelector("[data-answer]").textContent;
    if (text && aloud) say(text);
    if (text) answered.textContent = text;
    const at = cards().indexOf(card);
    cards().forEach((of, index) => media(of, Math.abs(index - at) <= FAR, index === at + 1));
  }
  function list(parsed, kept) {
    const items = [...parsed.querySelectorAll("[data-waiting] > li")].filter((item) => !kept.has(`card-${item.dataset.video}`));
    queue.replaceChildren(...items.map((item) => document.importNode(item, true)));
  }

  // --- buttons and keys --------------------------------------------------------------------------------------------
  async function act(kind, of = card) {
    if (!of || of.classList.contains("end")) return;
    const button = of.querySelector(`[name=kind][value=${kind}]`);
    if (!button || button.getAttribute("aria-pressed") === "true") return;
    if (kind === "share" && !(await shared(of))) return;
    if (kind === "not_interested") of.dataset.refused = "yes";
    else button.setAttribute("aria-pressed", "true");
    const event = note(of, kind);
    if (kind === "not_interested") go(1);
    flush(event);
  }
  async function shared(of) {
    const url = new URL(`/videos/${of.dataset.video}`, location.href).href;
    if (navigator.share) {
      try { await navigator.share({ title: of.dataset.title, url }); return true; } catch (error) { if (error.name === "AbortError") return false; }
    }
    try { await navigator.clipboard.writeText(url); say("The link is copied."); } catch { say(`The link: ${url}`); }
    return true;
  }
  function sound() {
    muted = !muted;
    const video = videoOf(card);
    if (video) video.muted = muted;
    for (const of of cards()) pressed(of, "sound", !muted);
  }
  function written() {
    captions = !captions;
    for (const of of cards()) if (videoOf(of)) tracks(of);
  }
  function explain(of = card) {
    const body = of && of.querySelector(".why-body");
    if (!body) return;
    document.getElementById("why-title").textContent = `Why ${named(of)}?`;
    document.getElementById("why-body").replaceChildren(...[...body.children].map((part) => part.cloneNode(true)));
    dialog.dataset.video = of.dataset.video;
    dialog.showModal();
  }
  document.getElementById("why-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    const link = event.target.closest("[data-seek]");
    if (event.target === dialog) dialog.close();
    if (!link) return;
    const of = document.getElementById(`card-${dialog.dataset.video}`);
    if (!videoOf(of)) return;
    event.preventDefault();
    dialog.close();
    const start = () => { videoOf(of).currentTime = Number(link.dataset.seek); play(of); };
    if (videoOf(of).readyState > 0) start(); else videoOf(of).addEventListener("loadedmetadata", start, { once: true });
  });
  const KEYS = {
    ArrowDown: () => go(1), ArrowUp: () => go(-1), " ": toggle, l: () => act("like"), s: () => act("share"),
    f: () => act("follow"), n: () => act("not_interested"), m: sound, c: written, w: () => explain(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
    if (!document.getElementById("keys").checked && !event.key.startsWith("Arrow")) return;
    // What has the focus and takes keys itself keeps them.
    const held = event.target.closest("input, textarea, select, summary, button, a");
    if (held && (held.matches("input, textarea, select") ? held.type !== "checkbox" || event.key === " " : event.key === " ")) return;
    const does = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!does) return;
    event.preventDefault();
    does();
  });

  // --- cards -------------------------------------------------------------------------------------------------------
  // Who scrolls by hand goes elsewhere than a key said.
  for (const kind of ["wheel", "touchstart"]) feed.addEventListener(kind, () => { heading = null; }, { passive: true });

  const inSight = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting && entry.intersectionRatio >= 0.6) enter(entry.target);
  }, { root: feed, threshold: [0.6] });

  function prepare(of) {
    inSight.observe(of);
    const video = videoOf(of);
    if (!video) return;
    video.controls = false;
    const seek = of.querySelector(".seek");
    for (const hidden of of.querySelectorAll(".scripted, .seek")) hidden.hidden = false;
    video.addEventListener("timeupdate", () => {
      measure(video);
      if (document.activeElement !== seek) seek.value = String(video.currentTime);
    });
    video.addEventListener("seeking", () => { if (watch && watch.card === of) watch.at = video.currentTime; });
    video.addEventListener("play", () => shown(of, false));
    video.addEventListener("pause", () => { measure(video); if (of === card && !video.ended) shown(of, true); });
    video.addEventListener("ended", () => { if (of === card) over(video); });
    video.addEventListener("error", () => { if (!video.dataset.src) failed(of); });
    video.addEventListener("click", toggle);
    seek.addEventListener("input", () => { video.currentTime = Number(seek.value); });
    of.querySelector("[data-do=play]").addEventListener("click", toggle);
    of.querySelector("[data-do=sound]").addEventListener("click", sound);
    of.querySelector("[data-do=captions]").addEventListener("click", written);
    for (const form of of.querySelectorAll("form")) {
      form.addEventListener("submit", (event) => {
        if (!event.submitter || event.submitter.name !== "kind") return;
        event.preventDefault();
        act(event.submitter.value, of);
      });
    }
    of.addEventListener("click", (event) => {
      if (!event.target.closest("summary")) return;
      event.preventDefault();
      explain(of);
    });
  }

  document.documentElement.classList.add("script");
  const opener = document.getElementById("up-next");
  opener.addEventListener("click", () => {
    opener.setAttribute("aria-expanded", String(document.getElementById("up-next-list").classList.toggle("open")));
  });
  for (const hidden of page.querySelectorAll(".scripted")) hidden.hidden = false;
  for (const button of page.querySelectorAll("[data-go]")) button.addEventListener("click", () => go(Number(button.dataset.go)));
  list(document, new Set());
  cards().forEach(prepare);
  if (cards()[0]) enter(cards()[0]);
  if (outbox.length) flush(null);
})();
