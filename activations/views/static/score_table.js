"use strict";
// The scores of all heads, computed when the page was made: a table to sort, whose rows open the head.
const ScoreTable = (() => {
  const FEW = 10; // rows shown before more are asked for
  const SPEAKING = ["induction", "previous_token", "next_token", "duplicate_token", "alignment"]; // best first
  const names = Page.scores.map((name) => {
    const words = name.replaceAll("_", " ");
    return words[0].toUpperCase() + words.slice(1);
  });
  const shown = (score) => (score === null ? "–" : score.toFixed(3));
  let rows = []; // {layer, head, scores}: positions in the stack's lists
  let known = []; // the scores that some head of the stack has, as positions in Page.scores
  let stack = null;
  let order = { column: 0, down: true }; // 0 is the head's name, the others are scores
  let all = false;
  let open = () => {};
  let addressOf = () => "";

  // The table of this stack; openHead(layer, head) is called with positions when one is chosen, and
  // address({layer, head}) gives where it would open elsewhere.
  function fill(newStack, openHead, address) {
    [open, addressOf] = [openHead, address];
    if (newStack === stack) return;
    [stack, all] = [newStack, false];
    rows = (stack.scores ?? []).flatMap((heads, layer) => heads.map((scores, head) => ({ layer, head, scores })));
    known = knownIn(stack);
    byId("scores").hidden = !known.length;
    const first = SPEAKING.map((name) => known.indexOf(Page.scores.indexOf(name))).find((place) => place >= 0);
    order = { column: first === undefined ? 0 : first + 1, down: true };
    draw();
  }

  const knownIn = (looked) => [...Page.scores.keys()]
    .filter((k) => (looked.scores ?? []).flat().some((scores) => scores[k] !== null));

  // The highest of a head's scores that say what it does.
  const highest = (looked, layer, head) =>
    Math.max(...SPEAKING.map((name) => looked.scores?.[layer][head][Page.scores.indexOf(name)] ?? 0));

  const value = (row, column) => (column ? row.scores[known[column - 1]] : -(row.layer * 10000 + row.head));

  function sorted() {
    const sign = order.down ? -1 : 1;
    return [...rows].sort((a, b) => {
      const [x, y] = [value(a, order.column), value(b, order.column)];
      if (x === null || y === null) return (x === null) - (y === null); // unknown ones last, always
      return sign * (x - y) || value(b, 0) - value(a, 0);
    });
  }

  function draw() {
    const head = element("tr", {}, ...["Head", ...known.map((k) => names[k])].map(heading));
    const shownRows = all ? sorted() : sorted().slice(0, FEW);
    byId("scores-table").replaceChildren(
      element("thead", {}, head), element("tbody", {}, ...shownRows.map(rowOf)));
    const more = byId("scores-more");
    more.hidden = rows.length <= FEW;
    more.textContent = all ? `Show the first ${FEW}` : `Show all ${rows.length} heads`;
  }

  function heading(name, column) {
    const cell = element("th", { scope: "col" });
    const isOrder = order.column === column;
    if (isOrder) cell.setAttribute("aria-sort", order.down !== (column === 0) ? "descending" : "ascending");
    cell.append(button(name, () => {
      order = { column, down: isOrder ? !order.down : true };
      draw();
      byId("scores-table").querySelectorAll("th button")[column].focus();
    }));
    return cell;
  }

  function rowOf({ layer, head, scores }) {
    const [layerNumber, headNumber] = [stack.layers[layer], stack.heads[head]];
    const link = element("a", { href: `#${addressOf({ layer, head })}` },
      element("span", {}, `Layer ${layerNumber},`), " ", element("span", {}, `Head ${headNumber}`));
    const row = element("tr", {},
      element("th", { scope: "row" }, link), ...known.map((k) => element("td", {}, shown(scores[k]))));
    row.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // opens a new tab
      event.preventDefault(); // the page goes there itself, and in a frame the address is another's
      open(layer, head);
    });
    return row;
  }

  // A head's scores as the children of a <dl>; none for the average, and where no head has any.
  function list(looked, layer, head) {
    if (looked.average) return [];
    return knownIn(looked).map((k) =>
      element("div", {}, element("dt", {}, names[k]), element("dd", {}, shown(looked.scores[layer][head][k]))));
  }

  function start() {
    byId("scores-more").addEventListener("click", () => {
      all = !all;
      draw();
    });
  }

  const nameOf = (k) => names[k];
  const saysMuch = (k) => SPEAKING.includes(Page.scores[k]);

  return { start, fill, list, highest, knownIn, nameOf, saysMuch };
})();
