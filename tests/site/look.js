// What is wrong with the page as it stands: a list of sentences. Run in the page by test_pages.
({ scheme }) => {
  const faults = [];
  const root = document.documentElement;
  const article = document.querySelector("article.bd-article")
    ?? document.querySelector("main") ?? document.body;
  const name = e => {
    const said = e.querySelector("[role=img]")?.ariaLabel ?? e.textContent;
    const text = said.trim().replace(/\s+/g, " ").slice(0, 50);
    const kind = [...e.classList].map(c => `.${c}`).join("");
    return `<${e.tagName.toLowerCase()}${e.id ? `#${e.id}` : ""}${kind}> "${text}"`;
  };
  const ancestors = function* (e) { for (; e; e = e.parentElement) yield e; };
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // nothing makes the page scroll sideways
  if (root.scrollWidth > root.clientWidth) {
    const free = e => [...ancestors(e)].every(p => {
      const { overflowX, position } = getComputedStyle(p);
      return position !== "fixed"
        && (p === e || p === document.body || p === root || overflowX === "visible");
    });
    const wide = all("body *").map(e => [e.getBoundingClientRect(), e])
      .filter(([r, e]) => r.right > root.clientWidth + 0.5 && r.width && free(e))
      .sort(([a], [b]) => b.right - a.right || a.width - b.width);
    const [box, element] = wide[0] ?? [null, root];
    faults.push(`scrolls sideways: the page is ${root.scrollWidth} px wide in a window of `
      + `${root.clientWidth} px, because of ${name(element)}`
      + (box ? `, which ends at ${Math.round(box.right)} px` : ""));
  }

  // the theme is the one that was asked for
  const channels = color => {
    const found = color.match(/^rgba?\(([^)]+)\)$/);
    if (!found) return null;
    const [r, g, b, a = 1] = found[1].split(/[\s,/]+/).map(Number);
    return [r, g, b, a];
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = e => {
    for (const p of ancestors(e)) {
      const c = channels(getComputedStyle(p).backgroundColor);
      if (c && c[3] > 0.99) return c;
    }
    return [255, 255, 255, 1];
  };
  const light = luminance(behind(article));
  if (root.dataset.theme !== scheme || (scheme === "light" ? light < 0.8 : light > 0.1))
    faults.push(`theme: asked for ${scheme}, got data-theme=${root.dataset.theme} on a `
      + `background of luminance ${light.toFixed(2)}`);

  // formulas are typeset, and no markup is left over
  for (const math of all(".math"))
    if (!math.querySelector("mjx-container")) faults.push(`formula not typeset: ${name(math)}`);
  for (const error of all("mjx-merror, [data-mjx-error]"))
    faults.push(`formula wrong: ${error.dataset.mjxError ?? error.textContent} in `
      + name(error.closest("mjx-container")?.parentElement ?? error));
  const texts = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  const left = /\\[([]|\\begin\{|\$[^$\s](?:[^$\n]*[^$\s])?\$|\{[a-z]+(?::[a-z]+)?\}`/;
  while (texts.nextNode()) {
    const node = texts.currentNode, parent = node.parentElement;
    const found = node.data.match(left);
    if (found && !parent.closest("script, style, pre, code, mjx-container, .math"))
      faults.push(`markup left: ${found[0]} in ${name(parent)}`);
  }

  // figures fit their column; their text can be read
  const column = article.getBoundingClientRect();
  for (const e of all(".tt-figure, .tt-figure *:is(svg, img), svg, img", article)) {
    if (!e.checkVisibility()) continue;
    const box = e.getBoundingClientRect();
    if (box.width && (box.left < column.left - 1 || box.right > column.right + 1))
      faults.push(`figure wider than its column: ${name(e)} spans ${Math.round(box.left)} to `
        + `${Math.round(box.right)} px, the column ${Math.round(column.left)} to `
        + `${Math.round(column.right)} px`);
  }
  for (const svg of all("svg", article)) {
    if (!svg.checkVisibility()) continue;
    const frame = svg.getBoundingClientRect(), drawn = [];
    const figure = svg.closest("figure") ?? svg;
    const small = [], faint = [];  // [value, text]
    for (const text of all("text", svg)) {
      // in a hidden frame a text has no box (checkVisibility does not see that inside SVG)
      if (!text.getClientRects().length || !text.textContent.trim()) continue;
      const box = text.getBoundingClientRect(), matrix = text.getScreenCTM();
      const words = text.textContent.trim(), scale = Math.hypot(matrix.a, matrix.b);
      const leaves = [text, ...text.querySelectorAll("*")].filter(
        e => [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.data.trim()));
      for (const leaf of leaves) {
        const style = getComputedStyle(leaf), ground = behind(svg);
        small.push([parseFloat(style.fontSize) * scale, words]);
        const ink = channels(style.fill);
        if (!ink) { faults.push(`text without a plain colour: ${words}, ${style.fill}`); continue; }
        let alpha = ink[3] * style.fillOpacity;
        for (const p of ancestors(leaf)) alpha *= getComputedStyle(p).opacity;
        const mixed = ink.slice(0, 3).map((v, i) => alpha * v + (1 - alpha) * ground[i]);
        const [a, b] = [luminance(mixed), luminance(ground)].sort((x, y) => y - x);
        faint.push([(a + 0.05) / (b + 0.05), words]);
      }
      const out = Math.max(frame.left - box.left, box.right - frame.right,
        frame.top - box.top, box.bottom - frame.bottom);
      if (out > 3) faults.push(`text cut off: "${words}", ${out.toFixed(0)} px outside ${name(figure)}`);
      for (const [other, already] of drawn) {
        const w = Math.min(box.right, other.right) - Math.max(box.left, other.left);
        const h = Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top);
        const least = Math.min(box.width * box.height, other.width * other.height);
        if (w > 0 && h > 0 && w * h > 0.25 * least)
          faults.push(`text on text: "${already}" and "${words}" in ${name(figure)}`);
      }
      drawn.push([box, words]);
    }
    const report = (what, found, least, unit) => {
      const bad = found.filter(([value]) => value < least).sort(([a], [b]) => a - b);
      if (!bad.length) return;
      const rest = bad.length > 1 ? ` and ${bad.length - 1} more` : "";
      faults.push(`${what}: ${bad[0][0].toFixed(1)} ${unit}, "${bad[0][1]}"${rest} in ${name(figure)}`);
    };
    report("text too small", small, 8.5, "px");
    report("text too faint", faint, 4.5, "to 1");
  }
  return faults;
}
