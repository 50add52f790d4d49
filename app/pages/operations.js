// Renews the sections every few seconds; without script the page reloads by itself. What somebody is choosing or typing
// in a section is not taken from under their hands: that section waits until they are done.
"use strict";
(() => {
  const SECONDS = 3;
  const live = document.getElementById("live");
  const age = document.getElementById("age");
  const edited = new Set();
  live.addEventListener("input", (event) => {
    const section = event.target.closest("section");
    if (section) edited.add(section.id);
  });

  // A button that turns into its opposite keeps the focus: who pressed Pause is at Resume.
  function again(id) {
    return document.getElementById(id)
      || document.getElementById(id.replace(/^(pause|resume)-/, (_, verb) => (verb === "pause" ? "resume-" : "pause-")));
  }

  function renewed(text) {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const focused = document.activeElement && live.contains(document.activeElement) ? document.activeElement.id : "";
    for (const section of fresh.querySelectorAll("section[id]")) {
      const old = document.getElementById(section.id);
      if (!old || edited.has(section.id) || old.isEqualNode(section)) continue;
      old.replaceWith(section);
    }
    if (focused && document.activeElement.id !== focused) again(focused)?.focus({ preventScroll: true });
  }

  async function renew() {
    if (!document.hidden) {
      try {
        const answer = await fetch("/operations/live", { credentials: "same-origin" });
        if (!answer.ok) throw new Error(String(answer.status));
        renewed(await answer.text());
        age.textContent = "";
      } catch (error) {
        age.textContent = "The tables could not be renewed (" + error.message + "); trying again.";
      }
    }
    setTimeout(renew, SECONDS * 1000);
  }
  setTimeout(renew, SECONDS * 1000);
})();
