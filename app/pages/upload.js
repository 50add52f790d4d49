// Many files at once by the tus protocol, each taken up again where it broke off; then the stages of each, live.
// Without this script the form sends one file by itself.
"use strict";
const API = "/api/v1/uploads";
const TUS = { "Tus-Resumable": "1.0.0" };
const PIECE_BYTES = 8 * 2 ** 20;
const AT_ONCE = 2;
// A browser opens six connections to a host; a stream holds one.
const STREAMS = 3;
const LONGEST_PAUSE_SECONDS = 30;
const CAPTIONS = /\.(srt|vtt|ass|ssa)$/i;
const KEPT = "reelsense-upload ";

const form = document.getElementById("upload");
const list = document.getElementById("list");
const told = document.getElementById("told");
const stages = form.dataset.stages.split(" ");
const mostBytes = Number(form.dataset.mostBytes);
const fileInput = document.getElementById("file");
const waiting = [];
const watching = [];
let running = 0;
let streams = 0;

document.getElementById("drop-words").textContent = "Drop videos here, or choose them";
document.getElementById("title-note").textContent = "(where it is one video)";
fileInput.multiple = true;

// --- small things ---

function bytes(count) {
  return count >= 2 ** 20 ? (count / 2 ** 20).toFixed(1) + " MB" : Math.ceil(count / 1024) + " kB";
}

function base64(text) {
  let binary = "";
  for (const byte of new TextEncoder().encode(text)) binary += String.fromCharCode(byte);
  return btoa(binary);
}

const kept = {
  key: (file) => KEPT + [file.size, file.lastModified, file.name].join(" "),
  get(file) { try { return JSON.parse(localStorage.getItem(this.key(file))); } catch { return null; } },
  set(file, url) {
    try { localStorage.setItem(this.key(file), JSON.stringify({ url, name: file.name, size: file.size })); } catch { /* it can still be sent */ }
  },
  drop(file) { try { localStorage.removeItem(this.key(file)); } catch { /* nothing was kept */ } },
};

class Refused extends Error {
  constructor(problem, status) {
    super(`${problem.code}: ${problem.title}` + (problem.detail ? " " + problem.detail : ""));
    this.code = problem.code;
    this.status = status;
  }
}

// --- requests: an answer that is no success is a Refused, no answer at all any other error ---

function refusal(status, text, retryAfter) {
  let problem = { code: "http." + status, title: "The server answered " + status + "." };
  try { problem = JSON.parse(text); } catch { /* not one of ours */ }
  const error = new Refused(problem, status);
  error.retrySeconds = Number(retryAfter) || 0;
  return error;
}

async function ask(method, url, headers = {}, body = undefined) {
  const answer = await fetch(url, { method, headers, body });
  if (!answer.ok) throw refusal(answer.status, method === "HEAD" ? "" : await answer.text(), answer.headers.get("Retry-After"));
  return answer;
}

function sendPiece(upload, from) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    upload.request = request;
    request.open("PATCH", upload.url);
    request.setRequestHeader("Tus-Resumable", "1.0.0");
    request.setRequestHeader("Upload-Offset", String(from));
    request.setRequestHeader("Content-Type", "application/offset+octet-stream");
    request.upload.addEventListener("progress", (event) => upload.sent(from + event.loaded));
    request.addEventListener("load", () => {
      if (request.status === 204) done(Number(request.getResponseHeader("Upload-Offset")));
      else failed(refusal(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    });
    for (const name of ["error", "abort", "timeout"]) request.addEventListener(name, () => failed(new Error(name)));
    request.send(upload.file.slice(from, Math.min(from + PIECE_BYTES, upload.file.size)));
  });
}

// --- one file ---

class Upload {
  constructor(file, words, captions) {
    this.file = file;
    this.words = words;
    this.captions = captions;
    this.url = null;
    this.paused = false;
    this.ended = false;
    this.request = null;
    this.row = document.getElementById("row").content.firstElementChild.cloneNode(true);
    this.row.querySelector(".name").textContent = file.name;
    this.row.querySelector(".size").textContent = bytes(file.size);
    this.bar = this.row.querySelector("progress");
    this.bar.setAttribute("aria-label", "Sent of " + file.name);
    this.pauseButton = this.row.querySelector(".pause");
    this.dropButton = this.row.querySelector(".drop-it");
    this.pauseButton.addEventListener("click", () => (this.paused ? this.goOn() : this.pause()));
    this.dropButton.addEventListener("click", () => this.cancel());
    list.append(this.row);
    this.say("Waits for its turn");
  }

  say(words) { this.row.querySelector(".state").textContent = words; }

  sent(count) {
    this.bar.value = this.file.size ? count / this.file.size : 1;
    this.say(`${bytes(count)} of ${bytes(this.file.size)}`);
  }

  end(words, good) {
    this.ended = true;
    this.row.classList.toggle("bad", !good);
    this.pauseButton.hidden = true;
    this.dropButton.hidden = true;
    if (!good) this.bar.hidden = true;
    this.say(words);
    told.textContent = `${this.file.name}: ${words}`;
  }

  pause() {
    this.paused = true;
    this.pauseButton.textContent = "Go on";
    this.say("Paused");
    if (this.request) this.request.abort();
  }

  goOn() {
    this.paused = false;
    this.pauseButton.textContent = "Pause";
    this.say("Waits for its turn");
    if (!this.active && !waiting.includes(this)) waiting.push(this);
    next();
  }

  async cancel() {
    this.paused = true;
    if (this.request) this.request.abort();
    this.end("Cancelled", false);
    kept.drop(this.file);
    if (this.url) await ask("DELETE", this.url, TUS).catch(() => { /* it expires */ });
  }

  async run() {
    this.active = true;
    let failures = 0;
    let offset = -1;
    while (!this.ended && !this.paused) {
      try {
        offset = await this.send();
        if (offset === this.file.size) { await this.received(); return; }
      } catch (error) {
        if (this.paused || this.ended) return;
        const passing = !(error instanceof Refused) || [408, 409, 423, 425, 429].includes(error.status) || error.status >= 500;
        if (!passing) { kept.drop(this.file); this.end(error.message, false); return; }
        failures = error.progressed ? 1 : failures + 1;
        const seconds = Math.max(error.retrySeconds || 0, Math.min(2 ** (failures - 1), LONGEST_PAUSE_SECONDS));
        this.say(`${error instanceof Refused ? error.message : "The line broke."} Again in ${seconds} s`);
        await new Promise((done) => setTimeout(done, seconds * 1000));
      }
    }
  }

  async send() {
    let offset = await this.begin();
    const first = offset;
    this.sent(offset);
    try {
      while (offset < this.file.size && !this.paused && !this.ended) offset = await sendPiece(this, offset);
    } catch (error) {
      error.progressed = offset > first;
      throw error;
    }
    return offset;
  }

  // Where to go on: at the end of what an earlier try sent, or at the beginning of a new upload.
  async begin() {
    this.url ||= kept.get(this.file)?.url ?? null;
    if (this.url) {
      try {
        return Number((await ask("HEAD", this.url, TUS)).headers.get("Upload-Offset"));
      } catch (error) {
        if (!(error instanceof Refused) || ![403, 404, 410].includes(error.status)) throw error;
        this.url = null;
      }
    }
    const words = Object.entries({ ...this.words, filename: this.file.name }).filter(([, text]) => text);
    const metadata = words.map(([name, text]) => `${name} ${base64(text)}`).join(",");
    const answer = await ask("POST", API, { ...TUS, "Upload-Length": String(this.file.size), "Upload-Metadata": metadata });
    this.url = answer.headers.get("Location");
    kept.set(this.file, this.url);
    for (const captions of this.captions) {
      const language = /\.([A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*)\.[A-Za-z]+$/.exec(captions.name)?.[1] ?? "";
      await ask("PUT", `${this.url}/captions?language=${encodeURIComponent(language)}`, {}, captions);
    }
    return 0;
  }

  // All bytes are there: what the server makes of them.
  async received() {
    this.pauseButton.hidden = true;
    this.dropButton.hidden = true;
    this.bar.value = 1;
    this.say("Being looked at");
    for (;;) {
      const seen = await (await ask("GET", this.url)).json();
      if (seen.state === "refused") {
        kept.drop(this.file);
        this.end(`${seen.error.code}: ${seen.error.message} ${seen.error.hint ?? ""}`, false);
        return;
      }
      if (seen.state === "taken") {
        kept.drop(this.file);
        this.taken(seen.video, seen.outcome);
        return;
      }
      await new Promise((done) => setTimeout(done, 400));
    }
  }

  taken(video, outcome) {
    this.ended = true;
    this.video = video;
    const name = this.row.querySelector(".name");
    const link = document.createElement("a");
    link.href = "/videos/" + video;
    link.append(name.textContent);
    name.replaceChildren(link);
    this.known = outcome === "duplicate" ? "It was here already. " : outcome === "updated" ? "It was here already, and has its new words. " : "";
    this.bar.setAttribute("aria-label", "Stages done of " + this.file.name);
    this.bar.max = stages.length;
    this.bar.value = 0;
    const steps = this.row.querySelector(".stages");
    steps.hidden = false;
    steps.replaceChildren(...stages.map((stage) => {
      const item = document.createElement("li");
      item.dataset.stage = stage;
      item.dataset.state = "missing";
      item.textContent = stage;
      return item;
    }));
    this.say(this.known + "Stored; its processing waits");
    watching.push(this);
    watch();
  }

  show(seen) {
    for (const item of this.row.querySelectorAll("[data-stage]")) {
      const stage = seen.stages[item.dataset.stage];
      if (!stage || item.dataset.state === stage.state) continue;
      item.dataset.state = stage.state;
      item.setAttribute("aria-label", `${item.dataset.stage}: ${stage.state}`);
    }
    this.bar.value = seen.done;
    if (seen.state === "failed") this.end(`${this.known}${seen.error.code}: ${seen.error.message}`, false);
    else if (seen.state === "ready") this.end(this.known + "Ready", true);
    else this.say(`${this.known}${seen.done} of ${seen.of} stages done`);
  }
}

// --- several at once ---

function next() {
  while (running < AT_ONCE && waiting.length) {
    const upload = waiting.shift();
    if (upload.ended || upload.paused) continue;
    running += 1;
    upload.run().catch((error) => upload.end(String(error.message ?? error), false)).finally(() => {
      upload.active = false;
      running -= 1;
      next();
    });
  }
}

function watch() {
  while (streams < STREAMS && watching.length) {
    const upload = watching.shift();
    streams += 1;
    const source = new EventSource(`/api/v1/videos/${upload.video}/events`);
    const close = () => { source.close(); streams -= 1; watch(); };
    source.addEventListener("status", (event) => upload.show(JSON.parse(event.data)));
    source.addEventListener("end", close);
    // A stream that breaks is taken up again by the browser; one that is refused is not.
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) { upload.say(upload.known + "Stored; see its own page"); close(); }
    });
  }
}

function add(files) {
  const all = [...files];
  const captions = [...all.filter((file) => CAPTIONS.test(file.name)), ...document.getElementById("captions").files];
  const videos = all.filter((file) => !CAPTIONS.test(file.name));
  if (!videos.length) return;
  const words = {};
  for (const name of ["title", "tags", "description", "creator", "region", "language"]) {
    words[name] = form.elements[name].value.trim();
  }
  if (videos.length > 1) delete words.title;
  document.getElementById("uploads").hidden = false;
  for (const file of videos) {
    const stem = file.name.replace(/\.[^.]*$/, "");
    const own = videos.length === 1 ? captions : captions.filter((item) => item.name.startsWith(stem + "."));
    const upload = new Upload(file, words, own);
    if (!file.size) upload.end("media.empty: The file is empty.", false);
    else if (file.size > mostBytes) upload.end(`media.too_large: At most ${bytes(mostBytes)} are taken.`, false);
    else waiting.push(upload);
  }
  showBroken();
  next();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  add(fileInput.files);
  form.reset();
});

const drop = document.getElementById("drop");
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  add(event.dataTransfer.files);
});
window.addEventListener("beforeunload", (event) => { if (running || waiting.length) event.preventDefault(); });

// --- what broke off in an earlier visit ---

function showBroken() {
  const rows = document.getElementById("broken-list");
  rows.replaceChildren();
  let keys = [];
  try { keys = Object.keys(localStorage).filter((key) => key.startsWith(KEPT)); } catch { return; }
  const current = new Set([...list.children].map((row) => row.querySelector(".name").textContent));
  for (const key of keys) {
    let entry = null;
    try { entry = JSON.parse(localStorage.getItem(key)); } catch { localStorage.removeItem(key); }
    if (!entry || current.has(entry.name) || !String(entry.url).startsWith(API + "/")) continue;
    const item = document.createElement("li");
    const name = document.createElement("bdi");
    name.textContent = entry.name;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Give up";
    button.setAttribute("aria-label", "Give up " + entry.name);
    button.addEventListener("click", async () => {
      localStorage.removeItem(key);
      item.remove();
      document.getElementById("broken").hidden = !rows.childElementCount;
      await ask("DELETE", entry.url, TUS).catch(() => { /* it expires */ });
    });
    item.append(name, ` (${bytes(entry.size)}) `, button);
    rows.append(item);
  }
  document.getElementById("broken").hidden = !rows.childElementCount;
}
showBroken();
