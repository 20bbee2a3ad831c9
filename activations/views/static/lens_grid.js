"use strict";
// What each layer would say: layers down, tokens across, in each cell the likeliest, tinted by its probability.
// Of a long text only the columns in view are drawn.
const LensGrid = (() => {
  const COLUMN = { least: 46, most: 96, gap: 2, letters: 13, padding: 8 }; // pixels
  const ROW = { high: 36, low: 24, gap: 2, head: 26, many: 40 }; // of over 40 layers, rows are low
  const NAMES = 80; // pixels: the layers' names at the left
  const BEYOND = 4; // columns that are drawn on each side of those in view
  const { lens } = Page.predictions ?? {};
  let chosen = null; // {row, layer}
  let act = {};
  let drawn = new Map(); // place -> its column

  const count = () => lens.layers.length;
  const rowHigh = () => (count() > ROW.many ? ROW.low : ROW.high);
  const height = () => ROW.head * 2 + count() * (rowHigh() + ROW.gap);

  // As wide as their texts need, but not narrower than 46 pixels.
  let wide = COLUMN.least;
  function measure() {
    const room = Math.floor((byId("lens-scroll").clientWidth - NAMES) / Math.max(lens.rows.length, 1)) - COLUMN.gap;
    const most = Expected.isOfAll() ? 2 * COLUMN.most : COLUMN.most;
    wide = Math.min(Math.max(room, COLUMN.least), most);
  }

  // {point(row, layer), leave(), choose(row, layer)} are called where a person does so.
  function start(acts) {
    act = acts;
    const scroll = byId("lens-scroll");
    byId("lens-legend").querySelector("i").style.background = Tints.band("weight");
    byId("lens-about").append(...about());
    scroll.addEventListener("scroll", () => requestAnimationFrame(fill));
    scroll.addEventListener("keydown", onKey);
    byId("lens-cells").addEventListener("pointerover", ({ target }) => {
      const found = placeOf(target);
      if (found) act.point(found.row, found.layer);
    });
    byId("lens-cells").addEventListener("pointerleave", () => act.leave());
    byId("lens-cells").addEventListener("click", ({ target }) => {
      const found = placeOf(target);
      if (found) act.choose(found.row, found.layer);
    });
  }

  function about() {
    const kind = { next_token: "The likeliest token after each token", masked_token: "The likeliest token in each place", label: "The likeliest label" }[Page.predictions.of];
    const some = lens.rows.length < Page.predictions.likeliest.length
      ? ` ${grouped(lens.rows.length)} of ${counted(Page.predictions.likeliest.length, "position")}.` : "";
    const matrices = lens.kind === "matrices" ? " Through a matrix for each layer." : "";
    const dot = lens.actual ? ` ${Expected.DOT} what ${Expected.isNext ? "came" : "stands there"}.` : "";
    return [`${kind}, read from every layer.${matrices}${some}${dot}`];
  }

  function placeOf(target) {
    const cell = target.closest("[data-layer]");
    return cell && { row: lens.rows[Number(cell.parentElement.dataset.place)], layer: Number(cell.dataset.layer) };
  }

  function draw() {
    measure();
    const cells = byId("lens-cells");
    cells.style.height = `${height()}px`;
    cells.style.width = `${NAMES + lens.rows.length * (wide + COLUMN.gap)}px`;
    const labels = element("div", { class: "lens-names", "aria-hidden": "true" },
      element("span", {}, Expected.isOfAll() ? "" : Expected.isNext ? "After" : Page.predictions.of === "label" ? "Of" : "At"),
      ...lens.layers.map((name, k) => element("span", { title: name }, Expected.layerName(k))),
      ...(lens.actual ? [element("span", {}, Expected.cameTitle)] : []));
    labels.style.gridTemplateRows = rows();
    cells.replaceChildren(labels);
    drawn = new Map();
    fill();
  }

  const rows = () => `${ROW.head}px repeat(${count()}, ${rowHigh()}px) ${ROW.head}px`;

  // The columns in view.
  function fill() {
    const scroll = byId("lens-scroll");
    const step = wide + COLUMN.gap;
    const first = Math.max(Math.floor(scroll.scrollLeft / step) - BEYOND, 0);
    const end = Math.min(Math.ceil((scroll.scrollLeft + scroll.clientWidth) / step) + BEYOND, lens.rows.length);
    for (const [place, made] of drawn) {
      if (place >= first && place < end) continue;
      made.remove();
      drawn.delete(place);
    }
    for (let place = first; place < end; place++) {
      if (drawn.has(place)) continue;
      drawn.set(place, column(place));
      byId("lens-cells").append(drawn.get(place));
    }
    mark(chosen);
  }

  function column(place) {
    const row = lens.rows[place];
    const text = (what) => element("span", what ? { title: what } : {}, element("bdi", {}, cut(what, wide - 4, COLUMN.letters)));
    const made = element("div", { class: "lens-column", "data-place": String(place), "aria-hidden": "true" },
      text(Expected.isOfAll() ? "" : Expected.nameOf(row)),
      ...lens.layers.map((_, layer) => cell(row, layer)),
      ...(lens.actual ? [text(Expected.cameAt(row) ?? "–")] : []));
    made.style.gridTemplateRows = rows();
    made.style.left = `${NAMES + place * (wide + COLUMN.gap)}px`;
    made.style.width = `${wide}px`;
    return made;
  }

  function cell(row, layer) {
    const { entries: [{ name, probability, came }] } = Expected.at(row, layer);
    const made = element("span", { class: "lens-cell", "data-layer": String(layer), title: `${name} ${Expected.likely(probability)}` },
      element("bdi", {}, cut(name, wide - COLUMN.padding, COLUMN.letters)), ...(came ? [element("i")] : []));
    const { css, ink } = Tints.of("weight", probability ?? 0);
    made.style.background = css;
    made.style.color = ink;
    return made;
  }

  // Mark a cell, {row, layer}; a layer of null is the output. Null: none.
  function mark(place) {
    chosen = place;
    for (const each of byId("lens-cells").querySelectorAll(".chosen")) each.classList.remove("chosen");
    if (!place) return;
    const made = drawn.get(lens.rows.indexOf(place.row));
    made?.firstElementChild.classList.add("chosen");
    made?.querySelector(`[data-layer="${place.layer ?? count() - 1}"]`)?.classList.add("chosen");
  }

  // Scroll a column into view.
  function reveal(row) {
    const place = lens.rows.indexOf(row);
    if (place < 0) return;
    const [scroll, step] = [byId("lens-scroll"), wide + COLUMN.gap];
    const [left, right] = [place * step, (place + 1) * step - (scroll.clientWidth - NAMES)];
    scroll.scrollLeft = Math.max(Math.min(scroll.scrollLeft, left), right);
  }

  function onKey(event) {
    const last = count() - 1;
    const place = Math.max(lens.rows.indexOf(chosen?.row), 0);
    const layer = chosen?.layer ?? last;
    const [to, at] = {
      ArrowLeft: [place - 1, layer], ArrowRight: [place + 1, layer], ArrowUp: [place, layer - 1], ArrowDown: [place, layer + 1],
      Home: [0, layer], End: [lens.rows.length - 1, layer],
    }[event.key] ?? [];
    if (to === undefined) return;
    event.preventDefault();
    if (!(to in lens.rows) || at < 0 || at > last) return;
    reveal(lens.rows[to]);
    act.choose(lens.rows[to], at);
  }

  // All of it as a picture that needs no style sheet.
  function picture(caption) {
    const { color, fontFamily } = getComputedStyle(document.body);
    const step = wide + COLUMN.gap;
    const children = [];
    const write = (text, x, y, fill, anchor = "start") => children.push(svgElement("text", {
      x, y, fill, "font-size": `${COLUMN.letters}px`, "font-family": fontFamily, "text-anchor": anchor,
    }, text));
    const top = (k) => ROW.head + k * (rowHigh() + ROW.gap);
    lens.layers.forEach((_, k) => write(Expected.layerName(k), 0, top(k) + rowHigh() / 2 + 4, color));
    lens.rows.forEach((row, place) => {
      const x = NAMES + place * step;
      if (!Expected.isOfAll()) write(cut(Expected.nameOf(row), wide - 4, COLUMN.letters), x + 4, ROW.head - 9, color);
      lens.layers.forEach((_, k) => {
        const { entries: [{ name, probability, came }] } = Expected.at(row, k);
        const { fill, ink } = Tints.shown("weight", probability ?? 0);
        children.push(svgElement("rect", { x, y: top(k), width: wide, height: rowHigh(), rx: 2, fill }));
        write(cut(name, wide - COLUMN.padding, COLUMN.letters), x + 4, top(k) + rowHigh() / 2 + 4, ink);
        if (came) children.push(svgElement("circle", { cx: x + wide - 6, cy: top(k) + 6, r: 2.5, fill: ink }));
      });
      if (lens.actual) write(cut(Expected.cameAt(row) ?? "–", wide - 4, COLUMN.letters), x + 4, top(count()) + 16, color);
    });
    if (lens.actual) write(Expected.cameTitle, 0, top(count()) + 16, color);
    return Save.compose([-8, -8, NAMES + lens.rows.length * step + 16, height() + 16], children, caption);
  }

  return { start, draw, mark, reveal, picture, has: Boolean(lens) };
})();
