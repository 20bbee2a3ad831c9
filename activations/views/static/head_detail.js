"use strict";
// One head in detail: its scores, its weights as a heat map with values, and as CSV.
const HeadDetail = (() => {
  let shown = null; // the picture that is shown, as HeatMap takes it
  let wantsValues = null; // once somebody has said so
  let what = []; // what it is made of
  let map = null; // of a long text

  const title = (stack, layer, head) =>
    `Layer ${stack.layers[layer]}, ${stack.average ? "average of the heads" : `Head ${stack.heads[head]}`}`;

  // What else to name of it, so that it is not taken for another.
  const way = (stack) =>
    (Page.stacks.length > 1 ? `, ${stack.name}` : "") + (stack.withoutFirst ? ", without the first token" : "") + (stack.words ? ", words" : "");

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
      rowStart: Weights.positionOf(stack, "row", stack.rows[0]),
      columnStart: Weights.positionOf(stack, "column", stack.columns[0]),
      probabilities: stack.probabilities,
      fileName: Page.name + Save.nameOf(stack, stack.layers[layer], head),
    };
  }

  // `head` null: none is on its own. A long text shows its overview until the weights are unpacked.
  async function show(stack, layer, head) {
    const asked = [stack, layer, head];
    if (asked.every((each, i) => each === what[i])) return;
    what = asked;
    byId("head-detail-hint").hidden = head !== null;
    byId("head-detail-body").hidden = head === null;
    byId("head-detail-title").textContent = head === null ? "One head" : title(stack, layer, head) + way(stack);
    setStatus("");
    map = shown = null;
    if (head === null) return;
    byId("head-scores").replaceChildren(...ScoreTable.list(stack, layer, head));
    byId("head-scores-title").hidden = !byId("head-scores").hasChildNodes();
    const isLong = TextWindow.isLong(stack);
    byId("values-label").hidden = isLong;
    byId("zoom").hidden = !isLong;
    if (isLong) drawMap(pictureOf(stack, layer, head));
    await Weights.open(stack, [layer], [head]);
    if (asked !== what) return;
    shown = pictureOf(stack, layer, head);
    byId("values").checked = wantsValues ?? (!isLong && HeatMap.hasRoom(shown, room()));
    if (isLong) map.opened();
    else drawHeat();
  }

  function drawMap(picture) {
    const { stack, layer, head } = picture;
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

  // The pair of tokens that is pointed at in the matrix of a long text.
  function showPlace(row, column) {
    if (!shown) return;
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

  const room = () => Math.min(Math.max(byId("head-detail").clientWidth - 8, 260), 640);

  function drawHeat() {
    if (!shown) return;
    if (shown.isLong) {
      drawMap(shown);
      map.opened();
      return;
    }
    byId("heat").replaceChildren(HeatMap.draw(shown, room(), byId("values").checked, showCell));
  }

  // The token pair of a cell.
  function showCell(r, c) {
    const { matrix, rowTokens, columnTokens, rowStart, columnStart } = shown;
    const weight = Number.isNaN(matrix[r][c]) ? "no number" : decimals(matrix[r][c]);
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
    byId("head-detail-actions").append(
      button("Copy as CSV", copyCsv),
      button("Save matrix as SVG", () => save("svg")),
      button("Save matrix as PNG", () => save("png")),
    );
    byId("zoom").append(
      button("+", () => map.zoom(1.5), { "aria-label": "Zoom in" }),
      button("−", () => map.zoom(1 / 1.5), { "aria-label": "Zoom out" }),
      button("All of it", () => map.whole()),
    );
    byId("values").addEventListener("change", () => {
      wantsValues = byId("values").checked;
      drawHeat();
    });
    let waiting = 0;
    addEventListener("resize", () => {
      clearTimeout(waiting);
      waiting = setTimeout(drawHeat, 150);
    });
  }

  return { start, show, outline, title, way };
})();
