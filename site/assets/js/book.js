// Formulas and diagrams, from the copies bundled with the site and only on pages that have any.
(() => {
  const assets = new URL("..", document.currentScript.src);

  function load(tag, properties) {
    return new Promise((resolve, reject) => {
      const failed = () => reject(new Error(`cannot load ${properties.src || properties.href}`));
      document.head.append(Object.assign(document.createElement(tag), properties, { onload: resolve, onerror: failed }));
    });
  }
  const script = path => load("script", { src: new URL(path, assets) });
  const style = path => load("link", { rel: "stylesheet", href: new URL(path, assets) });

  // \(...\) is a formula in the line, \[...\] one that stands alone: arithmatex leaves them in elements of their own.
  async function formulas(elements) {
    await Promise.all([style("katex/katex.min.css"), script("katex/katex.min.js")]);
    for (const element of elements) {
      const [, open, formula] = element.textContent.trim().match(/^(\\\(|\\\[)([^]*)\\[)\]]$/);
      katex.render(formula, element, { displayMode: open === "\\[", throwOnError: true });
    }
  }

  const diagramStyle = `
    .node rect, .node circle, .node ellipse, .node polygon, .node path { fill: var(--tt-panel) !important; stroke: var(--tt-faint) !important; }
    .cluster rect { fill: transparent !important; stroke: var(--tt-rule) !important; }
    .edgeLabel, .edgeLabel p, .edgeLabel rect, .labelBkg { background: var(--tt-paper) !important; fill: var(--tt-paper) !important; }
    .nodeLabel, .edgeLabel, .cluster-label, .label, text, .messageText, .actor { color: var(--tt-ink) !important; fill: var(--tt-ink) !important; }
    .flowchart-link, .edgePath path, .messageLine0, .messageLine1, .relation { stroke: var(--tt-soft) !important; }
    marker path, .arrowheadPath, .marker { fill: var(--tt-soft) !important; stroke: var(--tt-soft) !important; }`;

  async function diagrams(elements) {
    await script("mermaid/mermaid.min.js");
    const fontFamily = getComputedStyle(document.body).fontFamily;
    mermaid.initialize({ startOnLoad: false, theme: "base", themeCSS: diagramStyle, fontFamily, themeVariables: { fontSize: "15px" } });
    for (const [number, element] of elements.entries()) {
      const { svg } = await mermaid.render(`tt-diagram-${number}`, element.textContent);
      const figure = Object.assign(document.createElement("figure"), { className: "tt-diagram", innerHTML: svg });
      figure.style.setProperty("--width", figure.firstElementChild.style.maxWidth);
      element.replaceWith(figure);
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    const math = [...document.querySelectorAll(".arithmatex")];
    const sketches = [...document.querySelectorAll("pre.tt-mermaid")];
    if (math.length) formulas(math);
    if (sketches.length) document.fonts.ready.then(() => diagrams(sketches));
  });
})();
