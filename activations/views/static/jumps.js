"use strict";
// Of a long text, the weights that reach farthest: what no window of lines shows.
const Jumps = (() => {
  const [MOST, LEAST] = [3, 0.3]; // how many; the weight from which one counts

  function show(stack, layer, head) {
    const found = stack.offset === null || stack.raw ? [] : farthest(stack, layer, head);
    byId("jumps").hidden = !found.length;
    byId("jumps").replaceChildren(
      element("p", {}, element("b", {}, "Longest jumps"), element("span", { class: "small" }, "tokens away, weight")),
      ...found.map(({ row, column, away, weight }) => element("p", {},
        button(`${named(stack, "row", row)} → ${named(stack, "column", column)}`, () => go(row), { class: "link" }),
        element("span", {}, grouped(away)), element("span", {}, weight.toFixed(2)))),
    );
  }

  // Its read-out names the token it reaches.
  async function go(row) {
    await TextWindow.go(State.whole, row);
    Tokens.pointAtRow(row);
  }

  const named = (stack, side, i) => `${cut(stack[`${side}Tokens`][i], 90, 13)} ${grouped(Weights.positionOf(stack, side, i))}`;

  // Not to the first token, where heads rest.
  function farthest(stack, layer, head) {
    let found = [];
    for (let row = stack.rows[0]; row < stack.rows[1]; row++) {
      const { columns, q } = Weights.row(stack, layer, head, row);
      columns.forEach((column, i) => {
        const away = Math.abs(row + stack.offset - column);
        if (column === 0 || (found.length === MOST && away <= found[MOST - 1].away)) return;
        const weight = Weights.value(stack, q[i]);
        if (weight < LEAST || away < TextWindow.LONG) return;
        found = [...found, { row, column, away, weight }].sort((a, b) => b.away - a.away).slice(0, MOST);
      });
    }
    return found;
  }

  return { show };
})();
