// Takes over the theme that Airflow shows, before anything is drawn. Airflow keeps it as a class of its own page
// (dark, light) and in the storage under "theme"; without either, the system decides.
(function () {
  "use strict";
  var root = document.documentElement;

  function parentRoot() {
    try {
      return window.parent !== window ? window.parent.document.documentElement : null;
    } catch {
      return null;
    }
  }

  function airflowTheme() {
    var frame = parentRoot();
    if (frame && frame.classList.contains("dark")) return "dark";
    if (frame && frame.classList.contains("light")) return "light";
    try {
      var kept = window.localStorage.getItem("theme");
      return kept === "dark" || kept === "light" ? kept : null;
    } catch {
      return null;
    }
  }

  function apply() {
    var theme = airflowTheme();
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
  }

  apply();
  window.addEventListener("storage", apply);
  var frame = parentRoot();
  if (frame) {
    root.dataset.framed = "";
    new MutationObserver(apply).observe(frame, { attributes: true, attributeFilter: ["class"] });
  }
})();
