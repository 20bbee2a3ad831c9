"use strict";
// Of a long text, the rows whose lines are drawn: a window of some tokens that attend, and the tokens
// attended to beside them. What it does not show is in the matrix, and counted in the read-out.
const TextWindow = (() => {
  const LONG = 100; // tokens on a side; more are not drawn as lines all at once
  const USUAL = 32;
  let count = USUAL; // rows in the window
  let first = null; // its first row, a position in rowTokens; null until somebody has moved it
  let column = null; // where columns are of another text, one that is to be in the middle
  let found = null; // the row found last, a position among the rows
  let moved = () => {}; // draws again, and returns a promise of it

  const length = ([from, to]) => to - from;
  const isLong = (stack) => Math.max(length(stack.rows), length(stack.columns)) > LONG;
  // Whether one side is long and the other is not: a few rows over many columns.
  const isUnequal = (stack) => isLong(stack) && Math.min(length(stack.rows), length(stack.columns)) <= LONG;
  const clamped = (start, size, [from, to]) => {
    const at = Math.max(Math.min(start, to - size), from);
    return [at, Math.min(at + size, to)];
  };

  const middleOf = (row) => row - count / 2; // the first row of a window around this one

  // The stack with the rows and columns in the window; itself where it is short.
  function of(stack, layer, head) {
    const all = { allRows: stack.rows, allColumns: stack.columns };
    if (!isLong(stack)) return { ...stack, ...all };
    const rows = clamped(first ?? stack.rows[0], count, stack.rows);
    return { ...stack, ...all, rows, columns: columnsOf(stack, rows, layer, head) };
  }

  // The same tokens as the rows; where these are of another text, all, or those around the strongest weight.
  function columnsOf(stack, rows, layer, head) {
    if (stack.offset !== null) return clamped(rows[0] + stack.offset, length(rows), stack.columns);
    if (length(stack.columns) <= LONG) return stack.columns;
    const { shades, columns } = Weights.overview({ ...stack, rows }, layer, head);
    const strongest = stack.columns[0] + Math.floor(((shades.indexOf(Math.max(...shades)) % columns) + 0.5) * stack.cell[1]);
    return clamped(middleOf(column ?? strongest), count, stack.columns);
  }

  // Let a row be in view: in the middle, unless it is there already.
  function show(stack, row) {
    const [from, to] = clamped(first ?? stack.rows[0], count, stack.rows);
    if (row < from || row >= to) first = clamped(middleOf(row), count, stack.rows)[0];
  }

  function go(stack, row, middle = null) {
    show(stack, row);
    column = middle;
    return moved();
  }

  function step(direction) {
    const stack = State.whole;
    const [from] = clamped(first ?? stack.rows[0], count, stack.rows);
    first = clamped(from + direction * Math.ceil(count / 2), count, stack.rows)[0];
    moved();
  }

  // What the controls say of the window of this stack.
  function describe(stack) {
    byId("window").hidden = !isLong(State.whole) || length(State.whole.rows) <= count;
    const [from, to] = stack.rows.map((r) => Weights.positionOf(stack, "row", r));
    byId("window-range").textContent = `${grouped(from)}–${grouped(to - 1)} of ${grouped(length(State.whole.rows))}`;
    byId("window-back").disabled = stack.rows[0] <= State.whole.rows[0];
    byId("window-on").disabled = stack.rows[1] >= State.whole.rows[1];
    byId("window-rows").value = String(count);
  }

  // What an address says of it: `row` is the position in the text of the row in the middle, null where it
  // says nothing.
  function arrive(stack, row, rows) {
    count = [16, 32, 48].includes(rows) ? rows : USUAL;
    first = row === null ? null : clamped(middleOf(row - Weights.positionOf(stack, "row", 0)), count, stack.rows)[0];
    column = null;
  }

  const address = (stack) => (first === null || !isLong(State.whole) ? {} : {
    row: Weights.positionOf(stack, "row", stack.rows[0] + count / 2), ...(count === USUAL ? {} : { rows: count }),
  });

  // Go to the next row whose token has this text, or to the one at this position.
  function find(text) {
    const stack = State.whole;
    const tokens = stack.rowTokens.slice(...stack.rows);
    const wanted = text.trim().toLowerCase();
    const from = Math.min(found ?? -1, tokens.length - 1) + 1;
    const order = [...tokens.keys()].map((i) => (from + i) % tokens.length);
    const at = /^\d[\d,]*$/.test(wanted)
      ? Number(wanted.replaceAll(",", "")) - Weights.positionOf(stack, "row", stack.rows[0])
      : wanted ? order.find((i) => tokens[i].toLowerCase().includes(wanted)) : undefined;
    const isThere = at in tokens;
    byId("find").setAttribute("aria-invalid", String(!isThere && wanted !== ""));
    if (!isThere) return;
    found = at;
    go(stack, stack.rows[0] + at).then(() => Tokens.pointAtRow(stack.rows[0] + at));
  }

  function start(onMove) {
    moved = onMove;
    byId("window-back").addEventListener("click", () => step(-1));
    byId("window-on").addEventListener("click", () => step(1));
    byId("find").addEventListener("input", () => { found = null; });
    byId("find").addEventListener("keydown", ({ key, target }) => {
      if (key === "Enter") find(target.value);
      if (key === "Escape") target.blur();
    });
    byId("window-rows").addEventListener("change", () => {
      count = Number(byId("window-rows").value);
      moved();
    });
  }

  return { LONG, isLong, isUnequal, of, go, describe, arrive, address, start };
})();
