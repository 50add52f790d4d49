// Renews the tables every five seconds; without script the page reloads by itself.
"use strict";
const live = document.getElementById("live");
const age = document.getElementById("age");
let edited = false;
live.addEventListener("input", () => { edited = true; });

async function renew() {
  // What somebody is typing is not taken from under their hands.
  if (document.hidden || edited) return;
  try {
    const answer = await fetch("/operations/live", { credentials: "same-origin" });
    if (!answer.ok) throw new Error(String(answer.status));
    const text = await answer.text();
    if (edited) return;
    const focused = document.activeElement && live.contains(document.activeElement) ? document.activeElement.id : "";
    live.innerHTML = text;
    if (focused) {
      const again = document.getElementById(focused)
        || document.getElementById(focused.replace(/^(pause|resume)-/, (m, verb) => (verb === "pause" ? "resume-" : "pause-")));
      if (again) again.focus({ preventScroll: true });
    }
    age.textContent = "";
  } catch (error) {
    age.textContent = "The tables could not be renewed (" + error.message + "); trying again.";
  }
}
setInterval(renew, 5000);
