// Formulas, from the copy of KaTeX bundled with the site and only on pages that have any; answers that can be hidden.
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

  // The bodies of a chapter's exercises can be hidden. Without this script they are shown.
  const root = document.documentElement;
  function exercises() {
    const lines = [...document.querySelectorAll(".tt-code .hll")];
    const place = document.querySelector(".tt-write");
    if (!lines.length || !place) return;
    for (const line of lines) {
      const before = line.previousElementSibling;
      if (before?.classList.contains("tt-body") && before.nextSibling === line) before.append(line);
      else {
        const body = Object.assign(document.createElement("span"), { className: "tt-body" });
        line.replaceWith(body);
        body.append(line);
        const indent = line.textContent.match(/^ */)[0];
        const button = Object.assign(document.createElement("button"), { type: "button", className: "tt-reveal", textContent: "show an answer" });
        button.addEventListener("click", () => body.classList.add("tt-shown"));
        const row = Object.assign(document.createElement("span"), { className: "tt-yours" });
        row.append(indent + "...  ", button, "\n");
        body.before(row);
      }
    }
    const label = Object.assign(document.createElement("label"), { className: "tt-switch" });
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: root.classList.contains("tt-hide") });
    box.addEventListener("change", () => {
      root.classList.toggle("tt-hide", box.checked);
      document.querySelectorAll(".tt-shown").forEach(shown => shown.classList.remove("tt-shown"));
      try { localStorage.setItem("tt-hide", box.checked ? "1" : "0"); } catch (_) {}
    });
    label.append(box, " Hide what I write");
    place.append(" ", label);
  }

  // What scrolls sideways can be reached and scrolled with the keyboard.
  function scrollers() {
    for (const box of document.querySelectorAll("pre > code, .tt-figure, .tt-diagram, .tt-terminal, .md-typeset__scrollwrap, div.arithmatex")) {
      const scrolls = box.scrollWidth > box.clientWidth + 1;
      if (scrolls) box.tabIndex = 0; else box.removeAttribute("tabindex");
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    exercises();
    const math = [...document.querySelectorAll(".arithmatex")];
    Promise.resolve(math.length && formulas(math)).then(scrollers);
    addEventListener("resize", scrollers);
    document.querySelectorAll("details").forEach(fold => fold.addEventListener("toggle", scrollers));
  });
})();
