"use strict";
// What unfolds over the page: the text, the help, what can be saved, and the options where the row of
// controls has no room for them. One closes where a person goes elsewhere, or presses Esc.
const Sheets = (() => {
  const folded = () => ["about", "help", "save"].map(byId);
  const areOptionsOpen = () => byId("options-button").getAttribute("aria-expanded") === "true";
  const showOptions = (isOpen) => byId("options-button").setAttribute("aria-expanded", String(isOpen));

  function start() {
    byId("options-button").addEventListener("click", () => showOptions(!areOptionsOpen()));
    document.addEventListener("pointerdown", ({ target }) => {
      for (const sheet of folded()) if (!sheet.contains(target)) sheet.open = false;
      if (!byId("options-part").contains(target)) showOptions(false);
    });
  }

  // Close what is open. Returns whether anything was.
  function close() {
    const sheet = folded().find(({ open }) => open);
    if (!sheet && !areOptionsOpen()) return false;
    const opener = sheet?.querySelector("summary") ?? byId("options-button");
    if ((sheet ?? byId("options-part")).contains(document.activeElement)) opener.focus({ preventScroll: true });
    if (sheet) sheet.open = false;
    else showOptions(false);
    return true;
  }

  // Let the options stand in the row of controls, or fold them where that would take two rows.
  function pack() {
    const controls = byId("controls");
    controls.classList.remove("packed");
    const boxes = [...controls.querySelectorAll(":scope > :not([hidden], #options-part), #options > :not([hidden])")]
      .filter((each) => each.offsetParent).map((each) => each.getBoundingClientRect());
    const isOneRow = Math.max(...boxes.map(({ top }) => top)) <= Math.min(...boxes.map(({ bottom }) => bottom));
    controls.classList.toggle("packed", !isOneRow);
    if (isOneRow) showOptions(false);
  }

  return { start, close, pack };
})();
