// Prose jumps when its formulas are typeset: show it when they are, at the latest after a second.
(() => {
  const page = document.documentElement;
  const show = () => page.classList.remove("is-typesetting");
  page.classList.add("is-typesetting");
  setTimeout(show, 1000);
  document.addEventListener("DOMContentLoaded", () => {
    if (!document.querySelector(".math") || !window.MathJax?.startup?.promise) return show();
    MathJax.startup.promise.then(show, show);
  });
})();
