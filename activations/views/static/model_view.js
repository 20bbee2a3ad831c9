"use strict";
// All heads as small pictures, bertviz's lines or matrices, and beside them the head that is open.
const ModelView = (() => {
  const BERTVIZ = { width: 970, axis: 38, row: 84 }; // pixels: where it draws; a row's height times the heads
  const SMALL = { least: 24, most: 140, gap: 6, narrow: 2, label: 28, top: 22, tall: 1.5 }; // pixels; heights to widths
  const BAR = 4; // pixels of the score at a picture's foot
  let opening = 0; // counts the calls of open(), so that an earlier one notices that it is outdated
  let kind = "matrix"; // what the panel shows of the head: "matrix" or "lines"
  let shown = null; // the head that is open: {whole, layer, head, isDark}, positions in the stack `whole`
  let score = null; // of the bars, as a position in Page.scores

  const layers = () => State.stack.layers.keys();
  const heads = () => State.stack.heads.keys();

  function start() {
    byId("layout").after(byId("picture")); // all heads come first
    addEventListener("beforeprint", copyByLayer);
    addEventListener("afterprint", removeCopies);
    byId("panel-kind").hidden = false;
    Choice.make(byId("panel-kind"), { matrix: "Matrix", lines: "Lines" }, showKind);
    showKind(kind);
    byId("bars").addEventListener("change", () => {
      score = Number(byId("bars").value);
      drawBars();
    });
  }

  function showKind(next) {
    kind = next;
    Choice.set(byId("panel-kind"), kind);
    byId("panel").dataset.kind = kind;
    if (kind === "matrix") HeadDetail.drawHeat(); // it was not measured while it was hidden
  }

  // The scores of another stack, whose bars are to be had.
  function fillBars(stack) {
    const known = ScoreTable.knownIn(stack);
    byId("bars-label").hidden = !known.length || stack.average;
    byId("bars").replaceChildren(...known.map((k) => new Option(ScoreTable.shortOf(k), String(k))));
    if (!known.includes(score)) score = known.length ? ScoreTable.mostTelling(stack) : null;
    byId("bars").value = String(score);
  }

  // Of each head its share of the highest score, in the order of drawing; null where there are no bars.
  function shares() {
    const { whole } = State;
    if (score === null || whole.average) return null;
    const most = ScoreTable.strongest(whole, score).score;
    return whole.scores.flat().map((scores) => (most > 0 ? Math.max(scores[score] ?? 0, 0) / most : 0));
  }

  function drawBars() {
    if (byId("thumbnails")) Thumbnails.bars(shares());
    else if (State.isDrawn) drawBarsOfLines();
  }

  function drawBarsOfLines() {
    byId("score-bars")?.remove();
    const { wide, high, columns, gap } = place();
    const parts = (shares() ?? []).map((share, i) => {
      const [x, y] = cornerOf(i, columns, wide, high, gap);
      return share < 0.05 ? "" : `M${x} ${y + high}h${(wide * share).toFixed(1)}v${-BAR}H${x}z`;
    });
    State.svg.append(svgElement("path", { id: "score-bars", d: parts.join("") }));
  }

  // ------------------------------------------------------------------------------- pictures of lines

  const regions = () => State.svg.querySelectorAll(":scope > g > rect:last-child");

  const isWanted = (layer, head) =>
    State.wanted?.heads?.[0] === head && State.wanted.layer === State.stack.layers[layer];

  function dress() {
    const { stack } = State;
    regions().forEach((region, i) => {
      const [layer, head] = [Math.floor(i / stack.heads.length), i % stack.heads.length];
      region.setAttribute("role", "button");
      region.setAttribute("aria-label", HeadDetail.title(stack, layer, head));
      d3.select(region).on("click", null); // bertviz would open the head over its neighbours
      region.addEventListener("click", () => toggle(layer, head));
      region.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        toggle(layer, head);
      });
    });
    roving([...regions()], stack.heads.length);
    lay();
  }

  // How large the small pictures are in the room there is.
  function place() {
    const { stack } = State;
    const columns = stack.heads.length;
    const [rows, others] = [stack.rows, stack.columns].map(([from, to]) => to - from);
    const room = byId("drawing").clientWidth - SMALL.label;
    const gap = room / columns < 2 * SMALL.least ? SMALL.narrow : SMALL.gap;
    const wide = Math.min(Math.max(Math.floor(room / columns) - gap, SMALL.least), SMALL.most);
    const high = Math.round(wide * Math.min(Math.max(Math.max(rows, others) / 16, 1), SMALL.tall));
    return { wide, high, columns, gap };
  }

  const cornerOf = (i, columns, wide, high, gap) =>
    [SMALL.label + (i % columns) * (wide + gap), SMALL.top + Math.floor(i / columns) * (high + gap)];

  // Where bertviz draws -> the small pictures, by moving and stretching the groups around what it has drawn.
  function lay() {
    const { svg, stack } = State;
    const { wide, high, columns, gap } = place();
    const total = Math.max(stack.of.heads.length, 2);
    const natural = {
      wide: (BERTVIZ.width - BERTVIZ.axis) / total,
      high: (Math.max(stack.rows[1] - stack.rows[0], stack.columns[1] - stack.columns[0]) * BERTVIZ.row) / total + 10,
    };
    const [across, down] = [wide / natural.wide, high / natural.high];
    const pictures = [...svg.querySelectorAll(":scope > g")];
    pictures.forEach((picture, i) => {
      const [x, y] = cornerOf(i, columns, wide, high, gap);
      const [left, top] = [BERTVIZ.axis + (i % columns) * natural.wide, BERTVIZ.axis + Math.floor(i / columns) * natural.high];
      picture.setAttribute("transform", `translate(${x - left * across},${y - top * down}) scale(${across},${down})`);
    });
    const labels = [...svg.querySelectorAll(":scope > text")];
    const [numbers, ofLayers] = [labels.slice(1, 1 + columns), labels.slice(2 + columns)]; // between them "Layers"
    const move = (label, x, y) => label.setAttribute("transform",
      `translate(${x - Number(label.getAttribute("x"))},${y - Number(label.getAttribute("y"))})`);
    numbers.forEach((label, i) => move(label, SMALL.label + i * (wide + gap) + wide / 2, 0));
    ofLayers.forEach((label, i) => move(label, SMALL.label - 8, SMALL.top + i * (high + gap) + high / 2 - 2));
    svg.style.width = `${SMALL.label + columns * (wide + gap)}px`;
    svg.style.height = `${SMALL.top + (pictures.length / columns) * (high + gap)}px`;
    drawBarsOfLines();
  }

  // Each picture is shown when its lines are there: all at once, the browser would be busy for seconds.
  async function makeLines(cut) {
    const pictures = [...State.svg.querySelectorAll(":scope > g")];
    for (const picture of pictures) picture.setAttribute("hidden", "");
    return Lines.make(cut, (i) => pictures[i].removeAttribute("hidden"));
  }

  // A head may have been chosen while the lines were made.
  async function finish() {
    if (!isShown()) await openWanted();
    else markShown();
  }

  // A picture that is longer than a sheet would be cut in the middle of a layer. So print shows a copy
  // of each layer instead.
  function copyByLayer() {
    const { svg, stack } = State;
    if (!State.isDrawn || byId("thumbnails")) return;
    const { wide, high, columns, gap } = place();
    const pictures = [...svg.querySelectorAll(":scope > g")];
    const labels = [...svg.querySelectorAll(":scope > text")];
    stack.layers.forEach((_, layer) => {
      const top = layer ? SMALL.top + layer * (high + gap) : 0;
      const shown = [...(layer ? [] : labels.slice(1, 1 + columns)), labels[2 + columns + layer], ...pictures.slice(layer * columns, (layer + 1) * columns)];
      svg.parentNode.append(svgElement("svg", {
        class: "layer", viewBox: `0 ${top} ${SMALL.label + columns * (wide + gap)} ${SMALL.top + (layer + 1) * (high + gap) - top}`,
      }, ...shown.map((each) => each.cloneNode(true))));
    });
  }

  const removeCopies = () => document.querySelectorAll("#vis > .layer").forEach((each) => each.remove());

  // ---------------------------------------------------------------------------- pictures of matrices

  // Returns false where something else was asked for meanwhile.
  async function drawPictures(stillWanted) {
    Lines.forget();
    const { whole: stack } = State;
    const choose = (from, layer, head) => {
      if (from === State.whole) toggle(layer, head); // not a picture of what was shown before
    };
    if (!await Thumbnails.draw(byId("drawing"), stack, place(), choose, stillWanted)) return false;
    State.isDrawn = true;
    drawBars();
    await finish();
    State.reveals = false;
    return true;
  }

  // ---------------------------------------------------------------------------------- the open head

  function toggle(layer, head) {
    if (isWanted(layer, head)) close();
    else open(layer, head);
  }

  // Open the head that is wanted, or none.
  async function openWanted() {
    const layer = State.whole.layers.indexOf(State.wanted?.layer);
    if (State.wanted?.heads && layer >= 0) await openAlone(layer, State.wanted.heads[0]);
    else close();
    State.reveals = false;
  }

  function close() {
    opening++;
    shown = null;
    byId("head-lines").replaceChildren();
    markShown();
    State.wanted = null;
    byId("to-head").hidden = true;
    State.opened(null);
  }

  function open(layer, head) {
    State.reveals = true;
    if (State.isDrawn) openAlone(layer, head).catch(State.failed);
    else State.wanted = { layer: State.stack.layers[layer], heads: [head] }; // it is opened when they are drawn
  }

  // A head in the panel: its lines, which bertviz draws as what it opens, and its matrix.
  async function openAlone(layer, head) {
    const [mine, { whole }] = [++opening, State];
    const stack = TextWindow.of(whole, layer, head);
    if (byId("thumbnails")) State.stack = stack;
    TextWindow.describe(stack);
    await Weights.open(stack, [layer], [head]);
    const counts = await Weights.histogram(stack, [layer], [head]);
    if (mine !== opening || whole !== State.whole) return; // something else was asked for meanwhile
    const cut = Weights.cutFor(stack, counts, Limits.atOnce, State.least);
    if (byId("thumbnails")) State.cut = cut;
    Tokens.forget();
    const vis = Bertviz.drawAlone(stack, layer, head);
    shown = { whole, layer, head, isDark: Theme.isDark() };
    markShown();
    State.wanted = { layer: stack.layers[layer], heads: [head] };
    State.opened({ layer, head });
    showWay();
    HeadDetail.outline();
    const [all, drawn] = [State.least, cut].map((least) => Weights.above(stack, counts, least));
    if (drawn < all) byId("opened").append(` ${Lines.sentence(drawn, all, "its ")}`);
    revealAsked();
    if (!await Lines.make(cut)) return;
    dressDetail(vis, layer, head);
  }

  function showWay() {
    byId("to-head").hidden = false;
    byId("to-head").replaceChildren(
      button("All heads ↑", () => reveal(byId("scroll"), 0), { class: "link", id: "to-grid" }),
      ...State.wayToHead());
  }

  function dressDetail(vis, layer, head) {
    const sides = vis.querySelectorAll("g.detail:has(text.token)");
    if (sides.length === 2) Tokens.dress(Array.from(sides, (side) => [...side.children]), () => ({ layer, heads: [head] }));
  }

  // Where the panel is not beside the pictures. Not for every drawing: while the slider is moved, the page
  // must not scroll away from it.
  function revealAsked() {
    const isBelow = byId("panel").getBoundingClientRect().top > byId("scroll").getBoundingClientRect().top + 100;
    if (State.reveals && isBelow) reveal(byId("panel"), 0);
    State.reveals = false;
  }

  // Whether what is wanted is open.
  const isShown = () => (State.wanted?.heads ? shown?.whole === State.whole && shown.isDark === Theme.isDark() && isWanted(shown.layer, shown.head) : shown === null);

  // Mark the picture of the head that is open.
  function markShown() {
    const at = shown && shown.layer * State.whole.heads.length + shown.head; // its place in the order of drawing
    if (byId("thumbnails")) Thumbnails.mark(at);
    else if (State.isDrawn) {
      regions().forEach((region, i) => {
        region.setAttribute("aria-pressed", String(i === at));
        region.parentNode.classList.toggle("open", i === at);
      });
    }
  }

  // The window of a long text was moved.
  function reopen() {
    const { whole, wanted } = State;
    return wanted?.heads && openAlone(whole.layers.indexOf(wanted.layer), wanted.heads[0]);
  }

  // The window has another size.
  function resized() {
    if (byId("thumbnails")) Thumbnails.size(place());
    else if (State.isDrawn) lay();
  }

  return { start, layers, heads, dress, makeLines, finish, open, openWanted, close, drawPictures, reopen, fillBars, resized };
})();
