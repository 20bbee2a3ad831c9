"use strict";
// One head in detail: its scores, its weights as a heat map with values, and as CSV.
const HeadDetail = (() => {
  let shown = null; // the picture that is shown, as HeatMap takes it
  let wantsValues = null; // once somebody has said so
  let what = []; // what it is made of

  const title = (stack, layer, head) =>
    `Layer ${stack.layers[layer]}, ${stack.average ? "average of the heads" : `Head ${stack.heads[head]}`}`;

  // What else to name of it, so that it is not taken for another.
  const way = (stack) =>
    (Page.stacks.length > 1 ? `, ${stack.name}` : "") + (stack.withoutFirst ? ", without the first token" : "");

  function pictureOf(stack, layer, head) {
    return {
      title: title(stack, layer, head) + way(stack),
      matrix: Weights.matrix(stack, layer, head, NaN),
      rowTokens: stack.rowTokens.slice(...stack.rows),
      columnTokens: stack.columnTokens.slice(...stack.columns),
      rowClass: (i) => Tokens.classOf(stack, "row", stack.rows[0] + i),
      columnClass: (i) => Tokens.classOf(stack, "column", stack.columns[0] + i),
      rowStart: Tokens.positionOf(stack, "row", stack.rows[0]),
      columnStart: Tokens.positionOf(stack, "column", stack.columns[0]),
      probabilities: stack.probabilities,
      fileName: Page.name + Save.nameOf(stack, stack.layers[layer], head),
    };
  }

  // `head` null: none is on its own.
  function show(stack, layer, head) {
    const asked = [stack, layer, head];
    if (asked.every((each, i) => each === what[i])) return;
    what = asked;
    shown = head === null ? null : pictureOf(stack, layer, head);
    byId("head-detail-hint").hidden = shown !== null;
    byId("head-detail-body").hidden = shown === null;
    byId("head-detail-title").textContent = shown ? shown.title : "One head";
    setStatus("");
    if (!shown) return;
    byId("head-scores").replaceChildren(...ScoreTable.list(stack, layer, head));
    byId("head-scores-title").hidden = !byId("head-scores").hasChildNodes();
    byId("values").checked = wantsValues ?? HeatMap.hasRoom(shown, room());
    drawHeat();
  }

  const room = () => Math.min(Math.max(byId("head-detail").clientWidth - 8, 260), 640);

  function drawHeat() {
    if (!shown) return;
    byId("heat").replaceChildren(HeatMap.draw(shown, room(), byId("values").checked, showCell));
  }

  // The token pair of a cell; of one shared by several, the pair of its strongest weight.
  function showCell(r, c, shared) {
    const { matrix, rowTokens, columnTokens, rowStart, columnStart } = shown;
    const weight = Number.isNaN(matrix[r][c]) ? "no number" : decimals(matrix[r][c]);
    const number = (position) => (position < 0 ? "" : ` (${position})`);
    byId("cell").replaceChildren(
      element("bdi", { class: "token" }, rowTokens[r]), `${number(rowStart + r)} to `,
      element("bdi", { class: "token" }, columnTokens[c]), `${number(columnStart + c)}: ${weight}`,
      shared > 1 ? ` (the strongest of ${shared} x ${shared})` : "");
  }

  const setStatus = (text) => { byId("head-detail-status").textContent = text; };

  async function copyCsv() {
    const text = Save.csv(shown);
    if (await Save.copy(text)) {
      setStatus(`Copied: ${shown.matrix.length} x ${shown.matrix[0].length} weights of ${shown.title}.`);
      return;
    }
    Save.download(`${shown.fileName}.csv`, new Blob([text], { type: "text/csv" }));
    setStatus("The browser does not let this page copy, so the CSV is saved as a file.");
  }

  function save(format) {
    Save.picture(format, `${shown.fileName}_matrix`, Save.standalone(byId("heat").firstElementChild, `${shown.title}: ${byId("model").textContent}`))
      .catch((error) => setStatus(`The picture could not be made: ${error.message}.`));
  }

  function start() {
    byId("head-detail-actions").append(
      button("Copy as CSV", copyCsv),
      button("Save matrix as SVG", () => save("svg")),
      button("Save matrix as PNG", () => save("png")),
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

  return { start, show, title, way };
})();
