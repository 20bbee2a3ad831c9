"use strict";
// Light or dark: the system's setting, until the switch is used.
const Theme = (() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const choices = ["system", "light", "dark"];
  let choice = "system";
  let onChange = () => {};

  let isPrinting = false; // on white paper

  const isDark = () => !isPrinting && (choice === "system" ? system.matches : choice === "dark");

  function apply() {
    const root = document.documentElement;
    root.dataset.theme = choice;
    root.toggleAttribute("data-dark", isDark());
    d3.schemeCategory10.splice(0, 10, ...Page.headColours[isDark() ? "dark" : "light"]); // which bertviz takes
    onChange();
  }

  function choose(next) {
    if (!choices.includes(next) || next === choice) return;
    choice = next;
    byId("theme").value = choice;
    apply();
  }

  // `changed` is called whenever the colours change.
  function start(first, changed) {
    if (choices.includes(first)) choice = first;
    byId("theme").value = choice;
    apply();
    onChange = changed;
    byId("theme").addEventListener("change", () => choose(byId("theme").value));
    system.addEventListener("change", () => { if (choice === "system") apply(); });
  }

  // `repaint` is called before and after printing, for what keeps the colours it was painted with.
  function whenPrinting(repaint) {
    for (const [type, is] of [["beforeprint", true], ["afterprint", false]]) {
      addEventListener(type, () => {
        isPrinting = is;
        repaint(is);
      });
    }
  }

  return { whenPrinting, isDark, start, choose, chosen: () => choice };
})();
