"use strict";
// One head in detail: its name and what it does best, its weights as a heat map with values, and as CSV.
const HeadDetail = (() => {
  // Pixels: a cell at most; the last column's label at the right; in the model view what stands over and
  // under the matrix, and what it has at least.
  const [MOST, SLANTED, AROUND, LEAST] = [28, 40, 500, 280];
  let shown = null; // the picture that is shown, as HeatMap takes it
  let wantsValues = null; // once somebody has said so
  let what = []; // what it is made of
  let map = null; // of a long text
  let mappedIn = 0; // pixels of width
  let lit = null; // the row of the cell that is pointed at

  const title = (stack, layer, head) =>
    `Layer ${stack.layers[layer]}, ${stack.average ? "mean of the heads" : `Head ${stack.heads[head]}`}`;

  // What else to name of it, so that it is not taken for another.
  const way = (stack) =>
    (Compare.kinds().length > 1 && stack.name !== "All" ? `, ${stack.name}` : "") + (Compare.exists() ? `, ${stack.side.replace("-", " − ")}` : "") + (stack.withoutFirst ? ", without the first token" : "") + (stack.words ? ", words" : "");

  function pictureOf(stack, layer, head) {
    const isLong = TextWindow.isLong(stack);
    return {
      stack, layer, head, isLong,
      title: title(stack, layer, head) + way(stack),
      matrix: isLong ? null : Weights.matrix(stack, layer, head, NaN),
      rowTokens: stack.rowTokens.slice(...stack.rows),
      columnTokens: stack.columnTokens.slice(...stack.columns),
      rowClass: (i) => Tokens.classOf(stack, "row", stack.rows[0] + i),
      columnClass: (i) => Tokens.classOf(stack, "column", stack.columns[0] + i),
      rowName: (i, cutTo) => Compare.name(stack, "row", stack.rows[0] + i, cutTo),
      columnName: (i, cutTo) => Compare.name(stack, "column", stack.columns[0] + i, cutTo),
      rowStart: Weights.positionOf(stack, "row", stack.rows[0]),
      columnStart: Weights.positionOf(stack, "column", stack.columns[0]),
      probabilities: stack.probabilities,
      isDifference: Boolean(stack.difference),
      fileName: Page.name + Save.nameOf(stack, stack.layers[layer], head),
    };
  }

  // `head` null: none is on its own. A long text shows its overview until the weights are unpacked.
  async function show(stack, layer, head) {
    byId("head-detail-title").textContent = head === null ? titleOfMany(stack) : title(stack, layer, head) + way(stack);
    byId("head-detail-title").title = byId("head-detail-title").textContent; // it is cut where it is long
    const asked = [stack, layer, head];
    if (asked.every((each, i) => each === what[i])) return;
    what = asked;
    byId("head-detail-hint").hidden = head !== null;
    byId("head-detail-body").hidden = head === null;
    byId("values-label").hidden = head === null || TextWindow.isLong(stack);
    byId("jumps").hidden = true;
    setStatus("");
    byId("cell").replaceChildren();
    map = shown = null;
    if (head === null) return;
    const isLong = TextWindow.isLong(stack);
    byId("zoom").hidden = !isLong;
    byId("zoom").querySelector("svg")?.remove();
    if (isLong) byId("zoom").append(HeatMap.scale(stack));
    if (isLong) drawMap(pictureOf(stack, layer, head));
    await Weights.open(stack, [layer], [head]);
    if (asked !== what) return;
    shown = pictureOf(stack, layer, head);
    if (isLong) {
      map.opened();
      Jumps.show(stack, layer, head);
    } else drawHeat();
  }

  const titleOfMany = (stack) => (Page.view === "head" && State.wanted ? `Layer ${State.wanted.layer}` : "One head") + way(stack);

  function drawMap(picture) {
    const { stack, layer, head } = picture;
    mappedIn = room();
    map = ZoomMap.make(stack, layer, head, room(), showPlace, async (row, column) => {
      await TextWindow.go(stack, row, column);
      Tokens.showToken(0, row, layer, [head]);
    });
    byId("heat").replaceChildren(map.canvas);
    outline();
  }

  // Show in the matrix where the lines are.
  function outline() {
    if (map && State.stack) map.outline({ rows: State.stack.rows, columns: State.stack.columns });
  }

  // The pair of tokens that is pointed at in the matrix of a long text; none where `row` is null.
  function showPlace(row, column) {
    if (row === null) byId("cell").replaceChildren();
    if (!shown || row === null) return;
    const { stack, layer, head } = shown;
    const found = Weights.row({ ...stack, columns: [column, column + 1] }, layer, head, row);
    const weight = !found.isNumber || found.q[0] === Page.notANumber ? "no number"
      : found.q.length ? decimals(Weights.value(stack, found.q[0]))
        : stack.above > Weights.ALL_DECIMALS ? `${stack.above} or less` : "0";
    const token = (side, i) => [
      element("bdi", { class: "token" }, stack[`${side}Tokens`][i]), ` (${Weights.positionOf(stack, side, i)})`,
    ];
    byId("cell").replaceChildren(...token("row", row), " to ", ...token("column", column), `: ${weight}`);
  }

  const room = () => Math.max(byId("heat").clientWidth - 6, 254); // beside the margins of a canvas

  // The head view's rows, or square cells that fill the width of the panel.
  function sizes() {
    const shared = Page.view === "head" ? HeadView.geometry() : null;
    if (shared && !shared.isNarrow) return { wide: shared.cell, high: shared.row, label: shared.label, top: shared.title };
    const label = shared ? shared.label : RowGrid.labelOf(shown.rowTokens);
    const [rows, columns] = [shown.rowTokens.length, shown.columnTokens.length];
    const [width, height] = [room() - label - SLANTED, Math.max(innerHeight - AROUND, LEAST)];
    const wide = Math.max(Math.min(width / columns, shared ? MOST : Math.max(height / rows, LEAST / columns), MOST), 3);
    return { wide, high: Math.min(Math.max(wide, LEAST / rows), MOST), label, top: RowGrid.TITLE };
  }

  function drawHeat() {
    if (!shown) return;
    if (shown.isLong) {
      if (map && mappedIn === room()) return; // it would lose what it is zoomed to
      drawMap(shown);
      map.opened();
      return;
    }
    const measured = sizes();
    byId("values").checked = wantsValues ?? HeatMap.hasRoom(shown, measured);
    byId("heat").replaceChildren(HeatMap.draw(shown, measured, byId("values").checked, showCell, Tokens.keepRow));
    lit = null;
    Tokens.again();
  }

  // Frame what is pointed at among the tokens: {side, index}, a position among those drawn; or null.
  function light(at) {
    const picture = byId("heat").firstElementChild;
    if (shown && !shown.isLong && picture) HeatMap.light(picture, at?.side ?? null, at?.index);
  }

  // The token pair of a cell; its row is lit among the tokens too.
  function showCell(r, c) {
    if (r !== lit) Tokens.point(r);
    lit = r;
    if (r === null) {
      byId("cell").replaceChildren();
      return;
    }
    const { matrix, rowTokens, columnTokens, rowStart, columnStart } = shown;
    const places = [shown.stack.rows[0] + r, shown.stack.columns[0] + c];
    const weight = Number.isNaN(matrix[r][c]) ? "no number"
      : Compare.told(shown.stack, shown.layer, shown.head, ...places) ?? decimals(matrix[r][c]);
    const number = (position) => (position < 0 ? "" : ` (${position})`);
    byId("cell").replaceChildren(
      element("bdi", { class: "token" }, rowTokens[r]), `${number(rowStart + r)} to `,
      element("bdi", { class: "token" }, columnTokens[c]), `${number(columnStart + c)}: ${weight}`);
  }

  const setStatus = (text) => { byId("head-detail-status").textContent = text; };

  async function copyCsv() {
    const { text, what: copied } = Save.csv(shown);
    if (await Save.copy(text)) {
      setStatus(`Copied: ${copied} of ${shown.title}.`);
      return;
    }
    Save.download(`${shown.fileName}.csv`, new Blob([text], { type: "text/csv" }));
    setStatus("The browser does not let this page copy, so the CSV is saved as a file.");
  }

  function save(format) {
    const caption = `${shown.title}: ${byId("model").textContent}`;
    const made = shown.isLong ? Save.canvas(map.canvas, caption) : Save.standalone(byId("heat").firstElementChild, caption);
    Save.picture(format, `${shown.fileName}_matrix`, made)
      .catch((error) => setStatus(`The picture could not be made: ${error.message}.`));
  }

  function start() {
    byId("zoom").firstElementChild.append(
      button("+", () => map.zoom(1.5), { "aria-label": "Zoom in" }),
      button("−", () => map.zoom(1 / 1.5), { "aria-label": "Zoom out" }),
      button("All of it", () => map.whole()),
    );
    byId("values").addEventListener("change", () => {
      wantsValues = byId("values").checked;
      drawHeat();
    });
  }

  // In the colours of now: canvases keep those that they were painted with.
  const repaint = (onPaper) => map?.repaint(onPaper);

  return { start, show, repaint, drawHeat, light, outline, title, way, copyCsv, save };
})();
