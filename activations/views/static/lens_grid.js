"use strict";
// The likeliest token of each layer at each position: layers down, tokens across. Only the columns in view
// are made, and the one that the tab key stops at.
const LensGrid = (() => {
  const COLUMN = { least: 48, narrow: 66, most: 132, alone: 240 }; // pixels
  const LABEL = { usual: 80, narrow: 78 };
  const ROW = { usual: 36, low: 24, lowFrom: 40 };
  const HEADS = 28; // the names of the columns, and of what came
  const NARROW = 700; // pixels of a window
  const PADDING = 6;
  const BESIDE = 4; // columns that are made out of view
  let at = { column: 0, layer: 0 }; // where the tab key stops
  let chosen = null; // {column, layer}
  let made = new Map(); // the elements of columns that are there
  let choose = () => {};
  let inner = null;
  let measures = null;

  const layers = () => Predicted.lens.layers.length;
  const columns = () => Predicted.lens.rows.length;
  const columnOf = (row) => Predicted.lens?.rows.indexOf(row) ?? -1;

  // {text, share, isHit}, the likeliest first, of a layer at a row; empty where the lens is not there.
  function likeliest(layer, row) {
    const column = columnOf(row);
    return column < 0 ? [] : Predicted.listOf(Predicted.lens, layer * columns() + column, row);
  }
  const actual = (layer, row) => Predicted.actualOf(Predicted.lens.actual, layer * columns() + columnOf(row), row);

  function measure(root) {
    const isNarrow = innerWidth < NARROW;
    const label = LABEL[isNarrow ? "narrow" : "usual"];
    const least = COLUMN[isNarrow ? "narrow" : "least"];
    const most = columns() === 1 ? COLUMN.alone : COLUMN.most;
    const width = Math.min(Math.max((root.clientWidth - PADDING - label) / columns(), least), most);
    return { label, width, high: layers() > ROW.lowFrom ? ROW.low : ROW.usual };
  }

  // onChoose(row, layer) is called where a person chooses a cell.
  function start(root, onChoose) {
    choose = onChoose;
    at = { column: 0, layer: layers() - 1 };
    root.setAttribute("role", "region");
    root.setAttribute("aria-label", "What each layer would say");
    root.addEventListener("scroll", () => fill(root));
    root.addEventListener("keydown", (event) => move(root, event));
    root.addEventListener("focusin", ({ target }) => { if (target.dataset.cell) stopAt(target.dataset.cell); });
    draw(root);
  }

  function draw(root) {
    const focused = root.contains(document.activeElement);
    measures = measure(root);
    const { label, width, high } = measures;
    made = new Map();
    const names = Predicted.lens.layers.map((name, layer) =>
      element("span", { title: Predicted.lens.modules[layer] }, name));
    const isNext = Predicted.isOf("next_token");
    const foot = hasCame() ? [element("span", { class: "edge" }, "What came")] : [];
    const side = element("div", { class: "lens-layers", "aria-hidden": "true" },
      element("span", { class: "edge" }, isNext ? "After" : Predicted.isOf("label") ? "" : "At"), ...names, ...foot);
    inner = element("div", { class: "lens-columns", role: "group", "aria-label": "Layers down, tokens across" });
    inner.style.width = `${width * columns()}px`;
    root.style.setProperty("--row", `${high}px`);
    root.style.setProperty("--layers", `${label}px`);
    root.style.setProperty("--height", `${HEADS * (hasCame() ? 2 : 1) + high * layers()}px`);
    root.replaceChildren(element("div", { class: "lens-inner" }, side, inner));
    fill(root);
    if (focused) cell(at)?.focus({ preventScroll: true });
  }

  const hasCame = () => !Predicted.isOf("label");
  const cell = ({ column, layer }) => made.get(column)?.querySelector(`[data-cell="${layer} ${column}"]`);

  // Make what came into view, and forget what left it.
  function fill(root) {
    const { label, width } = measures;
    const from = Math.max(Math.floor(root.scrollLeft / width) - BESIDE, 0);
    const to = Math.min(Math.ceil((root.scrollLeft + root.clientWidth - label) / width) + BESIDE, columns());
    const wanted = new Set([...d3.range(from, to), at.column]);
    for (const [column, shown] of made) {
      if (wanted.has(column)) continue;
      shown.remove();
      made.delete(column);
    }
    const added = [...wanted].filter((column) => !made.has(column)).sort((a, b) => a - b);
    for (const column of added) made.set(column, columnAt(column));
    for (const column of added) {
      const after = [...made.keys()].filter((other) => other > column && inner.contains(made.get(other)));
      inner.insertBefore(made.get(column), after.length ? made.get(Math.min(...after)) : null);
    }
    mark();
  }

  function columnAt(column) {
    const row = Predicted.lens.rows[column];
    const name = Predicted.token(row);
    const shown = element("div", { class: "lens-column" },
      element("span", { class: "lens-token", title: shorten(name ?? "", 400) }, element("bdi", {}, shorten(name ?? "", 40))),
      ...d3.range(layers()).map((layer) => cellAt(layer, column, row)));
    if (hasCame()) shown.append(element("span", { class: "lens-came" }, element("bdi", {}, shorten(Predicted.came(row) ?? "–", 40))));
    shown.style.left = `${column * measures.width}px`;
    shown.style.width = `${measures.width}px`;
    return shown;
  }

  function cellAt(layer, column, row) {
    const [first] = likeliest(layer, row);
    const said = `${Predicted.lens.layers[layer]} ${Predicted.placed(row)}: ${shorten(first.text, 40)} ${Predicted.share(first.share)}${first.isHit ? ", what came" : ""}`;
    const made = button(element("bdi", {}, shorten(first.text, 40)), () => choose(row, layer),
      { class: first.isHit ? "came" : "", title: said, "aria-label": said, tabindex: "-1", "data-cell": `${layer} ${column}` });
    const { css, ink } = Tints.amount(first.share ?? 0);
    made.style.background = css;
    made.style.color = ink;
    return made;
  }

  // ------------------------------------------------------------------------------------ where one is

  function stopAt(place) {
    cell(at)?.setAttribute("tabindex", "-1");
    const [layer, column] = place.split(" ").map(Number);
    at = { layer, column };
    cell(at)?.setAttribute("tabindex", "0");
  }

  function move(root, event) {
    if (!event.target.dataset.cell || event.ctrlKey || event.metaKey || event.altKey) return;
    const { column, layer } = at;
    const next = {
      ArrowLeft: [column - 1, layer], ArrowRight: [column + 1, layer], ArrowUp: [column, layer - 1], ArrowDown: [column, layer + 1],
      Home: [0, layer], End: [columns() - 1, layer],
    }[event.key];
    if (!next) return;
    event.preventDefault();
    const clamp = (value, size) => Math.min(Math.max(value, 0), size - 1);
    stopAt(`${clamp(next[1], layers())} ${clamp(next[0], columns())}`);
    show(root, at.column);
    cell(at).focus({ preventScroll: true });
    reachable(cell(at));
  }

  // Scroll the grid so that a column is in view.
  function show(root, column) {
    const { label, width } = measures;
    const [left, right] = [(column - 1) * width, (column + 2) * width - (root.clientWidth - PADDING - label)]; // its neighbours too
    root.scrollLeft = Math.max(Math.min(root.scrollLeft, left), right);
    fill(root);
  }

  // And the page, where the cell is above or below.
  function reachable(target) {
    const { top, bottom } = target.getBoundingClientRect();
    if (top < 0) scrollBy(0, top - 8);
    else if (bottom > innerHeight) scrollBy(0, bottom - innerHeight + 8);
  }

  // Mark a cell, and the name of its column; `layer` null: that of the output. -1: none.
  function choice(root, row, layer, scrolls) {
    const column = columnOf(row);
    chosen = column < 0 ? null : { column, layer: layer ?? layers() - 1 };
    if (!chosen) {
      mark();
      return;
    }
    if (!root.contains(document.activeElement)) stopAt(`${chosen.layer} ${column}`);
    if (scrolls) show(root, column);
    else fill(root);
  }

  function mark() {
    for (const [column, shown] of made) {
      shown.classList.toggle("on", column === chosen?.column);
      for (const each of shown.querySelectorAll("button")) {
        each.setAttribute("aria-pressed", String(column === chosen?.column && each.dataset.cell === `${chosen.layer} ${column}`));
        each.setAttribute("tabindex", each.dataset.cell === `${at.layer} ${at.column}` ? "0" : "-1");
      }
    }
  }

  // ------------------------------------------------------------------------------------ as a picture

  // All of it, {text, width, height}, as Save makes pictures.
  function picture(caption) {
    const { label, high } = measures;
    const wide = Math.max(measures.width, COLUMN.narrow);
    const dark = Number(Theme.isDark());
    const { color: ink, fontFamily } = getComputedStyle(document.body);
    const fitting = new Map();
    const fit = (text) => {
      if (!fitting.has(text)) fitting.set(text, cut(shorten(text, 40), wide - 16, 12));
      return fitting.get(text);
    };
    const write = (x, y, text, fill = ink) => svgElement("text", { x, y, fill, "font-size": "12px", "font-family": fontFamily }, text);
    const height = HEADS * 2 + high * layers();
    const all = svgElement("g");
    all.append(...Predicted.lens.layers.map((name, layer) => write(0, HEADS + high * (layer + 0.5) + 4, name)));
    if (hasCame()) all.append(write(0, height - 10, "What came"));
    Predicted.lens.rows.forEach((row, column) => {
      const x = label + column * wide;
      all.append(write(x + 5, 16, fit(Predicted.token(row) ?? "")));
      for (let layer = 0; layer < layers(); layer++) {
        const [first] = likeliest(layer, row);
        const { colours, inks } = Tints.amount(first.share ?? 0);
        const y = HEADS + high * layer;
        all.append(
          svgElement("rect", { x, y, width: wide - 2, height: high - 2, rx: 3, fill: d3.rgb(colours[dark]).hex(), stroke: "#8884" }),
          write(x + 5, y + high / 2 + 3, fit(first.text), inks[dark]));
        if (first.isHit) all.append(svgElement("circle", { cx: x + wide - 8, cy: y + 6, r: 2.5, fill: inks[dark] }));
      }
      if (hasCame()) all.append(write(x + 5, height - 10, fit(Predicted.came(row) ?? "–")));
    });
    return Save.compose([-8, -8, label + columns() * wide + 16, height + 16], [all], caption);
  }

  return { start, draw, choice, likeliest, actual, columnOf, picture };
})();
