// Draws the points, shows a frame of the one that is near, and lets people go about by mouse, finger and keys.
"use strict";
const canvas = document.getElementById("map");
const PICTURES = 48; // of so few videos in sight, pictures are drawn in place of points
const NEAR_PIXELS = 22;
const LARGEST_SCALE = 200;

async function points() {
  for (;;) {
    const answer = await fetch("/map/points");
    if (answer.status === 202) {
      await new Promise((done) => setTimeout(done, 1500));
      continue;
    }
    if (!answer.ok) throw new Error(String(answer.status));
    return answer.json();
  }
}

function start(data) {
  const paper = document.getElementById("paper");
  const card = document.getElementById("card");
  const told = document.getElementById("near");
  const context = canvas.getContext("2d");
  const count = data.ids.length;
  const view = { scale: 1, x: 500, y: 500 }; // the middle, in thousandths of the map
  const pictures = new Map();
  const titles = new Map();
  let colours = [];
  let ground = "#fff";
  let ink = "#000";
  let chosen = -1;
  let only = -1;
  let asked = 0;
  paper.hidden = false;

  // Colours are said by the style sheet alone, which knows light from dark.
  function readColours() {
    colours = data.groups.map((_, group) => getComputedStyle(document.querySelector(`#groups .group-${group}`)).fill);
    ground = getComputedStyle(paper).backgroundColor;
    ink = getComputedStyle(document.body).color;
  }

  const size = () => ({ width: canvas.clientWidth, height: canvas.clientHeight });
  function unit() { const { width, height } = size(); return (Math.min(width, height) * 0.86 * view.scale) / 1000; }
  function onCanvas(place) {
    const { width, height } = size();
    return [width / 2 + (data.x[place] - view.x) * unit(), height / 2 + (data.y[place] - view.y) * unit()];
  }

  function picture(place) {
    const id = data.ids[place];
    if (!pictures.has(id)) {
      const image = new Image();
      image.addEventListener("load", draw);
      image.src = `/api/v1/videos/${id}/thumbnail?width=160`;
      pictures.set(id, image);
    }
    return pictures.get(id);
  }

  let planned = false;
  function draw() {
    if (planned) return;
    planned = true;
    requestAnimationFrame(() => { planned = false; paint(); });
  }

  function paint() {
    const { width, height } = size();
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = ground;
    context.fillRect(0, 0, width, height);
    const seen = [];
    for (let place = 0; place < count; place += 1) {
      const [x, y] = onCanvas(place);
      if (x > -40 && y > -40 && x < width + 40 && y < height + 40) seen.push(place);
    }
    const drawn = seen.filter((place) => only < 0 || data.of[place] === only);
    const radius = Math.max(2, Math.min(7, 60 / Math.sqrt(seen.length + 1)));
    context.globalAlpha = 0.12;
    for (const place of seen) if (only >= 0 && data.of[place] !== only) dot(place, radius);
    context.globalAlpha = seen.length > 2000 ? 0.75 : 0.9;
    const framed = drawn.length <= PICTURES;
    for (const place of drawn) if (!framed || !frame(place, 56)) dot(place, radius);
    context.globalAlpha = 1;
    if (chosen >= 0) {
      const [x, y] = onCanvas(chosen);
      context.lineWidth = 3;
      context.strokeStyle = ink;
      context.beginPath();
      context.arc(x, y, framed ? 40 : radius + 5, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  function dot(place, radius) {
    const [x, y] = onCanvas(place);
    context.fillStyle = colours[data.of[place]];
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
  }

  function frame(place, wide) {
    const image = picture(place);
    if (!image.complete || !image.naturalWidth) return false;
    const [x, y] = onCanvas(place);
    const high = Math.min(wide * 1.4, (wide * image.naturalHeight) / image.naturalWidth);
    context.fillStyle = colours[data.of[place]];
    context.fillRect(x - wide / 2 - 3, y - high / 2 - 3, wide + 6, high + 6);
    context.drawImage(image, x - wide / 2, y - high / 2, wide, high);
    return true;
  }

  // --- what is near ---

  async function titleOf(id) {
    if (!titles.has(id)) {
      const answer = await fetch("/library/cards?id=" + id);
      if (!answer.ok) return "";
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      titles.set(id, page.querySelector("h2")?.textContent.trim() ?? "");
    }
    return titles.get(id);
  }

  async function choose(place, quiet) {
    if (place === chosen) return;
    chosen = place;
    draw();
    if (place < 0) { card.hidden = true; return; }
    const id = data.ids[place];
    const question = (asked += 1);
    const image = new Image();
    image.alt = "";
    image.src = `/api/v1/videos/${id}/thumbnail?width=240`;
    const words = document.createElement("p");
    words.textContent = data.groups[data.of[place]];
    card.replaceChildren(image, words);
    card.hidden = false;
    placeCard();
    // A mouse that runs over a hundred points asks for one title.
    await new Promise((done) => setTimeout(done, 120));
    if (question !== asked) return;
    const title = await titleOf(id).catch(() => "");
    if (question !== asked || !title) return;
    const name = document.createElement("strong");
    name.textContent = title;
    words.replaceChildren(name, " · " + data.groups[data.of[place]]);
    if (!quiet) told.textContent = `${title}, ${data.groups[data.of[place]]}`;
  }

  function placeCard() {
    const [x, y] = onCanvas(chosen);
    const { width, height } = size();
    card.style.left = Math.max(0, Math.min(x + 16, width - card.offsetWidth - 4)) + "px";
    card.style.top = Math.max(0, Math.min(y + 16, height - card.offsetHeight - 4)) + "px";
  }

  function nearest(x, y, most) {
    let best = -1;
    let least = most * most;
    for (let place = 0; place < count; place += 1) {
      if (only >= 0 && data.of[place] !== only) continue;
      const [px, py] = onCanvas(place);
      const far = (px - x) ** 2 + (py - y) ** 2;
      if (far < least) { least = far; best = place; }
    }
    return best;
  }

  function open() { if (chosen >= 0) location.assign("/videos/" + data.ids[chosen]); }

  // --- moving about ---

  function zoom(factor, x, y) {
    const { width, height } = size();
    const before = unit();
    view.scale = Math.max(1, Math.min(LARGEST_SCALE, view.scale * factor));
    const after = unit();
    // What lies under the pointer stays there.
    view.x += (x - width / 2) * (1 / before - 1 / after);
    view.y += (y - height / 2) * (1 / before - 1 / after);
    if (view.scale === 1) { view.x = 500; view.y = 500; }
    if (chosen >= 0) placeCard();
    draw();
  }

  const fingers = new Map();
  let moved = 0;
  canvas.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
    moved = 0;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) { choose(nearest(event.offsetX, event.offsetY, NEAR_PIXELS), true); return; }
    const others = [...fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
    moved += Math.hypot(event.offsetX - before[0], event.offsetY - before[1]);
    if (others.length) {
      const [x, y] = others[0];
      const now = Math.hypot(event.offsetX - x, event.offsetY - y);
      zoom(now / (Math.hypot(before[0] - x, before[1] - y) || 1), (event.offsetX + x) / 2, (event.offsetY + y) / 2);
    } else {
      view.x -= (event.offsetX - before[0]) / unit();
      view.y -= (event.offsetY - before[1]) / unit();
      draw();
    }
  });
  canvas.addEventListener("pointerup", (event) => {
    fingers.delete(event.pointerId);
    if (moved > 6) return;
    const place = nearest(event.offsetX, event.offsetY, NEAR_PIXELS);
    // A finger cannot hover: the first touch shows, the second opens.
    if (place >= 0 && (event.pointerType === "mouse" || place === chosen)) { chosen = place; open(); } else choose(place, false);
  });
  canvas.addEventListener("pointercancel", (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("pointerleave", () => { if (document.activeElement !== canvas) choose(-1, true); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
  }, { passive: false });

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const { width, height } = size();
    if (event.key in ARROWS) {
      event.preventDefault();
      step(...ARROWS[event.key]);
    } else if (event.key === "Enter") {
      open();
    } else if (event.key === "+" || event.key === "=") {
      const [x, y] = chosen >= 0 ? onCanvas(chosen) : [width / 2, height / 2];
      zoom(1.6, x, y);
    } else if (event.key === "-") {
      zoom(1 / 1.6, width / 2, height / 2);
    } else if (event.key === "Escape") {
      choose(-1, true);
    }
  });

  function step(right, down) {
    if (chosen < 0) { const { width, height } = size(); choose(nearest(width / 2, height / 2, Infinity), false); return; }
    let best = -1;
    let least = Infinity;
    for (let place = 0; place < count; place += 1) {
      if (place === chosen || (only >= 0 && data.of[place] !== only)) continue;
      const dx = data.x[place] - data.x[chosen];
      const dy = data.y[place] - data.y[chosen];
      const along = dx * right + dy * down;
      const aside = Math.abs(dx * down) + Math.abs(dy * right);
      // Ahead, and more ahead than aside.
      if (along <= 0 || aside > 1.5 * along) continue;
      const far = along + 2 * aside;
      if (far < least) { least = far; best = place; }
    }
    if (best < 0) return;
    const [x, y] = onCanvas(best);
    const { width, height } = size();
    if (x < 0 || y < 0 || x > width || y > height) { view.x = data.x[best]; view.y = data.y[best]; }
    choose(best, false);
  }

  canvas.addEventListener("focus", () => { if (chosen < 0 && canvas.matches(":focus-visible")) step(0, 0); });
  canvas.addEventListener("blur", () => choose(-1, true));
  const middle = () => { const { width, height } = size(); return [width / 2, height / 2]; };
  document.getElementById("in").addEventListener("click", () => zoom(1.6, ...middle()));
  document.getElementById("out").addEventListener("click", () => zoom(1 / 1.6, ...middle()));
  document.getElementById("whole").addEventListener("click", () => { view.scale = 1; zoom(1, 0, 0); });

  for (const link of document.querySelectorAll("[data-group]")) {
    link.setAttribute("role", "button");
    link.setAttribute("aria-pressed", "false");
    const toggle = (event) => {
      event.preventDefault();
      const group = Number(link.dataset.group);
      only = only === group ? -1 : group;
      for (const other of document.querySelectorAll("[data-group]")) {
        other.setAttribute("aria-pressed", String(Number(other.dataset.group) === only));
      }
      draw();
    };
    link.addEventListener("click", toggle);
    link.addEventListener("keydown", (event) => { if (event.key === " ") toggle(event); });
  }

  new ResizeObserver(draw).observe(canvas);
  const repaint = () => { readColours(); draw(); };
  new MutationObserver(repaint).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  repaint();
}

if (canvas) {
  points().then((data) => { if (data.ids.length) start(data); });
} else if (document.querySelector("[data-drawing]")) {
  points().then(() => location.reload());
}
