// Light, dark, or as the system has it: before anything is painted, so that nothing flashes.
"use strict";
(() => {
  const KEY = "reelsense-theme";
  const NEXT = { auto: "dark", dark: "light", light: "auto" };
  let chosen = "auto";
  try {
    const stored = localStorage.getItem(KEY);
    if (stored in NEXT) chosen = stored;
  } catch { /* a browser that stores nothing follows the system */ }

  function show() {
    if (chosen === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    const name = document.getElementById("theme-name");
    if (name) name.textContent = chosen;
  }

  show();
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    button.hidden = false;
    button.addEventListener("click", () => {
      chosen = NEXT[chosen];
      try { localStorage.setItem(KEY, chosen); } catch { /* then it holds for this page */ }
      show();
    });
    show();
  });
})();
