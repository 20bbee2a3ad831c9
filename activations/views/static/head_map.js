"use strict";
// All heads at a glance: a cell for each, layers down and heads across, tinted by a score of choice.
const HeadMap = (() => {
  const CELL = { least: 12, most: 46, withNumber: 26, withLabel: 14 }; // pixels
  const [COLUMN, LABELS, GAP] = [232, 28, 2]; // pixels: what stands beside the pictures, layers' numbers
  let stack = null;
  let open = () => {};
  let shown = null; // the score, as a position in Page.scores

  // The map of this stack; openHead(layer, head, adds) is called with positions when a cell is chosen, `adds`
  // where the shift key was down.
  function fill(newStack, openHead) {
    open = openHead;
    if (newStack === stack) return;
    stack = newStack;
    const known = ScoreTable.knownIn(stack);
    // In the model view all heads are there already, with bars for the score.
    byId("map").hidden = Page.view === "model" || !known.length || stack.layers.length * stack.heads.length < 2;
    if (byId("map").hidden) return;
    byId("map-score").replaceChildren(...known.map((k) => new Option(ScoreTable.shortOf(k), String(k))));
    shown = known.includes(shown) ? shown : ScoreTable.mostTelling(stack);
    draw();
  }

  function draw() {
    byId("map-score").value = String(shown);
    const highest = Math.max(...ScoreTable.valuesOf(stack, shown), 0);
    const heads = stack.heads.length;
    const column = Math.max(byId("aside").clientWidth, COLUMN);
    const isWide = heads * (CELL.least + GAP) + LABELS > column;
    byId(isWide ? "panel" : "aside").append(byId("map")); // it has the whole width under the pictures
    const size = Math.min(Math.max(Math.floor((column - LABELS) / heads) - GAP, CELL.least), CELL.most);
    const cells = byId("map-cells");
    cells.style.gridTemplateColumns = `${LABELS - 6}px repeat(${heads}, ${size}px)`;
    cells.style.gridTemplateRows = "16px";
    cells.style.gridAutoRows = `${Math.min(size, 40)}px`;
    const every = Math.ceil(CELL.withLabel / (size + GAP));
    const label = (number, i) => element("span", { "aria-hidden": "true" }, i % every ? "" : String(number));
    cells.replaceChildren(element("span"), ...stack.heads.map(label), ...stack.layers.flatMap((number, layer) => [
      label(number, layer), ...stack.heads.map((_, head) => cell(layer, head, highest, size)),
    ]));
    roving([...cells.querySelectorAll("button")], heads);
    byId("map-highest").textContent = highest.toFixed(2);
    byId("map-colours").style.background = Tints.scale(Tints.amount);
    mark(null, true);
  }

  function cell(layer, head, highest, size) {
    const score = stack.scores[layer][head][shown];
    const name = `Layer ${stack.layers[layer]}, Head ${stack.heads[head]}`;
    const said = `${name}: ${ScoreTable.nameOf(shown).toLowerCase()} ${score === null ? "not defined" : score.toFixed(3)}`;
    const number = size < CELL.withNumber ? "" : score === null ? "–" : score.toFixed(2).replace(/^0/, "").replace("-", "−");
    const made = button(number, (event) => open(layer, head, event.shiftKey), { title: said, "aria-label": said, "data-place": `${layer} ${head}` });
    const { css, ink } = Tints.amount(highest > 0 ? Math.max(score ?? 0, 0) / highest : 0);
    made.style.background = css;
    made.style.color = ink;
    return made;
  }

  // Show which head is on its own, {layer, head} as positions; null: none. `again`: the one before.
  let marked = null;
  function mark(place, again = false) {
    if (!again) marked = place && `${place.layer} ${place.head}`;
    byId("map-cells").querySelectorAll("button").forEach((each) => {
      each.setAttribute("aria-pressed", String(each.dataset.place === marked));
    });
  }

  function start() {
    document.body.classList.toggle("swept", Page.scores.includes("effect"));
    byId("map-score").addEventListener("change", () => {
      shown = Number(byId("map-score").value);
      draw();
    });
  }

  return { start, fill, mark, draw: () => { if (stack && !byId("map").hidden) draw(); } };
})();
