// What the theme leaves out for those who use a keyboard or a screen reader.
document.addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll("button.search-button-field")) button.removeAttribute("aria-label");
  for (const summary of document.querySelectorAll("nav details > summary")) {
    summary.ariaLabel = `Pages of ${summary.closest("li").querySelector("a").textContent.trim()}`;
  }
  for (const formula of document.querySelectorAll("span.math")) keepTogether(formula);
});

// A line never begins with the comma that follows a formula.
function keepTogether(formula) {
  const text = formula.nextSibling;
  const mark = text?.nodeType === Node.TEXT_NODE && text.data.match(/^[.,;:?)]+/);
  if (!mark) return;
  const together = document.createElement("span");
  together.className = "together";
  formula.replaceWith(together);
  together.append(formula, mark[0]);
  text.data = text.data.slice(mark[0].length);
}

// A formula that is wider than its column scrolls: the keyboard must reach it.
function reachWideFormulas() {
  for (const formula of document.querySelectorAll("mjx-container[display]")) {
    if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
    else formula.removeAttribute("tabindex");
  }
}
window.addEventListener("load", () => window.MathJax?.startup?.promise.then(reachWideFormulas));
window.addEventListener("resize", reachWideFormulas);

// The theme takes the focus from a button that was pressed: give it to the menu that the button has opened.
document.addEventListener("shown.bs.dropdown", (event) => {
  event.target.parentElement.querySelector(".dropdown-item.active")?.focus();
});
