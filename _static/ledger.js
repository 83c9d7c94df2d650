// The ledger's filters. Without scripts the form stays hidden and every row is shown.
document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector(".ledger-filter");
  if (!form) return;
  const rows = [...document.querySelectorAll(".row-claim")];
  const facts = rows.map(row => ({ ...row.querySelector(".claim-head").dataset, text: row.textContent.toLowerCase() }));
  const fields = ["chapter", "verdict", "state"];

  function apply() {
    const wanted = Object.fromEntries(new FormData(form));
    const words = wanted.words.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      const ok = fields.every(f => !wanted[f] || facts[i][f] === wanted[f])
        && words.every(w => facts[i].text.includes(w));
      row.classList.toggle("is-filtered", !ok);
      shown += ok;
    });
    for (const section of new Set(rows.map(r => r.closest("section"))))
      section.classList.toggle("is-filtered", !section.querySelector(".row-claim:not(.is-filtered)"));
    form.querySelector("output").textContent = `${shown} of ${rows.length} claims`;
  }

  form.addEventListener("input", apply);
  form.addEventListener("submit", event => event.preventDefault());
  // a link to a row that a filter hides shows the row
  window.addEventListener("hashchange", () => {
    const row = document.getElementById(location.hash.slice(1));
    if (row?.classList.contains("is-filtered")) { form.reset(); apply(); row.scrollIntoView(); }
  });
  form.hidden = false;
  apply();
});
