// More cards without leaving the page, and cards of videos that are being processed renewed as they change.
"use strict";
const videos = document.getElementById("videos");
const told = document.getElementById("told");

function parsed(text) {
  return new DOMParser().parseFromString(text, "text/html").body;
}

videos.addEventListener("click", async (event) => {
  const link = event.target.closest("a[data-part]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  link.setAttribute("aria-disabled", "true");
  try {
    const answer = await fetch(link.dataset.part);
    if (!answer.ok) throw new Error(String(answer.status));
    const more = parsed(await answer.text());
    const first = more.querySelector(".card h2 a");
    const shown = more.querySelectorAll(".card").length;
    link.closest(".more").remove();
    videos.append(...more.children);
    if (first) first.focus();
    told.textContent = shown + " more videos";
  } catch {
    // What cannot be fetched can still be gone to.
    location.assign(link.href);
  }
});

async function renew() {
  const changing = [...videos.querySelectorAll("[data-changing]")].slice(0, 100);
  if (!changing.length || document.hidden) return;
  const query = new URLSearchParams(changing.map((card) => ["id", card.dataset.changing]));
  try {
    const answer = await fetch("/library/cards?" + query);
    if (!answer.ok) return;
    for (const card of parsed(await answer.text()).querySelectorAll(".card")) {
      const old = document.getElementById(card.id);
      if (!old || old.isEqualNode(card)) continue;
      const focused = old.contains(document.activeElement);
      old.replaceWith(card);
      if (focused) card.querySelector("h2 a").focus();
    }
  } catch { /* the next try may find the server again */ }
}
setInterval(renew, 3000);
