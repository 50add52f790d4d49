// Everything on the page that has a time seeks; the page follows the player; stages tick off as they end.
"use strict";
const player = document.querySelector("video");
const duration = Number(player.dataset.duration);

player.addEventListener("error", () => { document.getElementById("unplayable").hidden = false; });

function seek(seconds) {
  player.currentTime = seconds;
  player.scrollIntoView({ block: "nearest" });
  // A browser that will not start by itself still shows the moment.
  player.play().catch(() => {});
}

document.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  const link = event.target.closest("[data-seek]");
  if (link) {
    event.preventDefault();
    seek(Number(link.dataset.seek));
    return;
  }
  const strip = event.target.closest("[data-strip]");
  if (strip && duration) {
    const box = strip.getBoundingClientRect();
    seek(Math.max(0, (event.clientX - box.left) / box.width) * duration);
  }
});

function follow() {
  const now = player.currentTime;
  for (const line of document.querySelectorAll(".said-lines li")) {
    const spoken = now >= Number(line.dataset.start) && now < Number(line.dataset.end);
    if (spoken) line.setAttribute("aria-current", "true");
    else line.removeAttribute("aria-current");
  }
  const head = document.querySelector("[data-playhead]");
  const strip = document.querySelector("[data-strip]");
  if (!head || !strip || !duration) return;
  const lines = head.parentElement.getBoundingClientRect();
  const box = strip.getBoundingClientRect();
  head.hidden = false;
  head.style.left = box.left - lines.left + box.width * Math.min(1, now / duration) + "px";
}
player.addEventListener("timeupdate", follow);
window.addEventListener("resize", follow);

// --- the loudness, read from the sound itself, in this browser ---

const LARGEST_BYTES = 64 * 2 ** 20;
const BY_ITSELF_BYTES = 12 * 2 ** 20;
const POINTS = 500;

async function curve(svg) {
  const told = document.querySelector("[data-curve-told]");
  told.textContent = "Reading the sound …";
  try {
    const answer = await fetch(svg.dataset.curve);
    if (!answer.ok) throw new Error(String(answer.status));
    const context = new OfflineAudioContext(1, 1, 8000);
    const sound = await context.decodeAudioData(await answer.arrayBuffer());
    const samples = sound.getChannelData(0);
    const seconds = Number(svg.dataset.seconds);
    const levels = [];
    for (let point = 0; point < POINTS; point += 1) {
      const first = Math.floor((point / POINTS) * seconds * sound.sampleRate);
      const last = Math.min(samples.length, Math.floor(((point + 1) / POINTS) * seconds * sound.sampleRate));
      let energy = 0;
      for (let place = first; place < last; place += 1) energy += samples[place] ** 2;
      levels.push(last > first ? Math.sqrt(energy / (last - first)) : 0);
    }
    const loudest = Math.max(...levels, 1e-6);
    const half = levels.map((level) => 48 * Math.sqrt(level / loudest));
    const step = 1000 / POINTS;
    const above = half.map((height, place) => `${(place * step).toFixed(1)} ${(50 - height).toFixed(1)}`);
    const below = half.map((height, place) => `${(place * step).toFixed(1)} ${(50 + height).toFixed(1)}`).reverse();
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", "M" + above.join("L") + "L" + below.join("L") + "Z");
    svg.replaceChildren(path);
    told.textContent = "";
  } catch {
    told.textContent = "This browser cannot read the sound; the colours say what is heard when.";
  }
}

function prepareCurve() {
  const svg = document.querySelector("[data-curve]");
  const button = document.querySelector("[data-draw]");
  if (!svg || !button || svg.childElementCount) return;
  const bytes = Number(svg.dataset.bytes);
  if (bytes > LARGEST_BYTES) return;
  if (bytes <= BY_ITSELF_BYTES) {
    curve(svg);
    return;
  }
  button.hidden = false;
  button.addEventListener("click", () => { button.hidden = true; curve(svg); }, { once: true });
}
// After what people came for.
window.addEventListener("load", prepareCurve);

// --- stages, live ---

async function renew() {
  const answer = await fetch(location.pathname);
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.title = page.title;
  for (const part of ["#understood", ".about"]) {
    document.querySelector(part).replaceWith(page.querySelector(part));
  }
  follow();
  prepareCurve();
}

const live = document.querySelector("[data-live]");
if (live) {
  const source = new EventSource(live.dataset.live);
  source.addEventListener("status", (event) => {
    const seen = JSON.parse(event.data);
    for (const item of live.querySelectorAll("[data-stage]")) {
      const stage = seen.stages[item.dataset.stage];
      if (!stage) continue;
      const chip = item.querySelector("[data-state]");
      chip.textContent = stage.state;
      chip.className = "chip state-" + stage.state;
    }
    live.querySelector("[data-done]").value = seen.done;
    live.querySelector("[data-told]").textContent = `${seen.done} of ${seen.of} stages done`;
  });
  source.addEventListener("end", () => { source.close(); renew().catch(() => location.reload()); });
}
