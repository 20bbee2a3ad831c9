"use strict";
// The scores of all heads, computed when the page was made: a table to sort, whose rows open the head.
const ScoreTable = (() => {
  const FEW = 10; // rows shown before more are asked for
  const SPEAKING = ["induction", "previous_token", "next_token", "duplicate_token", "alignment", "change"]; // best first
  const names = Page.scores.map((name) => {
    const words = name.replaceAll("_", " ");
    return words[0].toUpperCase() + words.slice(1);
  });
  const SHORT = {
    previous_token: "Previous", next_token: "Next", duplicate_token: "Duplicate", first_token: "First", special_tokens: "Special",
    effect: "Effect if removed",
  };
  const shown = (score) => (score === null ? "–" : score.toFixed(3));
  let rows = []; // {layer, head, scores}: positions in the stack's lists
  let known = []; // the scores that some head of the stack has, as positions in Page.scores
  let bests = []; // of each, the strongest head
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
    bests = known.map((k) => strongest(stack, k));
    byId("scores").hidden = !known.length;
    const first = SPEAKING.map((name) => known.indexOf(Page.scores.indexOf(name))).find((place) => place >= 0);
    order = { column: first === undefined ? 0 : first + 1, down: true };
    draw();
  }

  const knownIn = (looked) => [...Page.scores.keys()]
    .filter((k) => (looked.scores ?? []).flat().some((scores) => scores[k] !== null));

  // Which of a head's scores says best what it does, as a position in Page.scores; null: none is there.
  function leadOf(looked, layer, head) {
    const scores = looked.scores?.[layer][head] ?? [];
    const told = SPEAKING.map((name) => Page.scores.indexOf(name)).filter((k) => (scores[k] ?? null) !== null);
    return told.length ? told.reduce((a, b) => (scores[b] > scores[a] ? b : a)) : null;
  }

  const highest = (looked, layer, head) => Math.max(looked.scores?.[layer][head][leadOf(looked, layer, head)] ?? 0, 0);

  // The head with the highest score, {layer, head, score}; of equal ones the first.
  function strongest(looked, k) {
    let best = { layer: 0, head: 0, score: -Infinity };
    looked.scores.forEach((heads, layer) => heads.forEach((scores, head) => {
      if (scores[k] !== null && scores[k] > best.score) best = { layer, head, score: scores[k] };
    }));
    return best;
  }

  // The score that separates the heads best: whose highest is farthest above the mean.
  function mostTelling(looked) {
    const found = knownIn(looked);
    const effect = Page.scores.indexOf("effect");
    if (found.includes(effect)) return effect; // somebody asked for it
    const telling = found.filter(saysMuch);
    const above = (k) => d3.max(valuesOf(looked, k)) - d3.mean(valuesOf(looked, k));
    return telling.length ? telling.reduce((a, b) => (above(b) > above(a) ? b : a)) : found[0];
  }

  const valuesOf = (looked, k) => looked.scores.flat().map((scores) => scores[k]).filter((score) => score !== null);

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
    drawStrongest();
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
      element("th", { scope: "row" }, link), ...known.map((k, i) => cellOf(scores[k], bests[i].score)));
    row.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // opens a new tab
      event.preventDefault(); // the page goes there itself, and in a frame the address is another's
      open(layer, head);
    });
    return row;
  }

  // The number over a bar: its share of the highest.
  function cellOf(score, most) {
    const made = element("td", {}, shown(score));
    made.style.setProperty("--share", `${most > 0 ? 100 * Math.max(score ?? 0, 0) / most : 0}%`);
    return made;
  }

  const headName = (looked, { layer, head }) => `Layer ${looked.layers[layer]}, Head ${looked.heads[head]}`;

  // The strongest head for each score, in one line.
  function drawStrongest() {
    byId("strongest").replaceChildren("Strongest for each score: ", ...known.flatMap((k, i) => {
      const best = bests[i];
      const name = `${stack.layers[best.layer]}.${stack.heads[best.head]}`;
      return [i ? ", " : "", `${names[k].toLowerCase()} `, button(name, () => open(best.layer, best.head), {
        class: "link", "aria-label": `${headName(stack, best)}, the strongest for ${names[k].toLowerCase()}`,
      }), ` ${shown(best.score)}`];
    }), ".");
  }

  function start() {
    byId("open-table").addEventListener("click", () => {
      byId("scores").open = true;
      reveal(byId("scores"), 0);
    });
    byId("scores-more").addEventListener("click", () => {
      all = !all;
      draw();
    });
  }

  const nameOf = (k) => names[k];
  const shortOf = (k) => SHORT[Page.scores[k]] ?? names[k];
  const saysMuch = (k) => SPEAKING.includes(Page.scores[k]);

  return { start, fill, highest, leadOf, strongest, mostTelling, valuesOf, knownIn, nameOf, shortOf, headName };
})();
