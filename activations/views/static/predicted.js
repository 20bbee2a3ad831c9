"use strict";
// What the page holds of predictions: a list of the likeliest for each row, which is a token of the text
// that the model read, or all of it. Rows are counted from the first that is shown.
const Predicted = (() => {
  const data = Page.predictions ?? null;
  const MOST_BITS = 100; // beyond, a probability is zero for this purpose
  const text = (i) => (i === null || i === undefined ? null : data.texts[i]);

  const exist = () => data !== null;
  const isOf = (kind) => data.of === kind;
  const rows = () => (data.came.length);
  const hasText = () => data.tokens !== null;
  const token = (row) => (hasText() ? text(data.tokens[row]) ?? null : null);
  const came = (row) => text(data.came[row]);

  // The row that says how likely the token at a place was; null where none does.
  const rowOf = (place) => (isOf("next_token") ? (place > 0 ? place - 1 : null) : place);
  // And the place of the token that a row is about; of the last row it is behind the text.
  const placeOf = (row) => (isOf("next_token") ? row + 1 : row);

  // {text, share, isHit} of each of the likeliest in a list of `most` a row.
  function listOf({ top, probabilities, most }, index, row) {
    return top.slice(index * most, (index + 1) * most).map((number, k) =>
      ({ text: text(number), share: probabilities[index * most + k], isHit: number === data.came[row] }));
  }
  const likeliest = (row) => listOf(data, row, row);

  // {share, rank} of what came; null where nothing did.
  function actualOf(actual, index, row) {
    if (!actual || data.came[row] === null) return null;
    return { share: actual.probabilities[index], rank: actual.ranks[index] };
  }
  const actual = (row) => actualOf(data.actual, row, row);

  // In bits; NaN where there is no number.
  const bitsOf = (share) => (share === null ? NaN : Math.min(-Math.log2(share), Infinity));
  const bits = (row) => (row === null || !actual(row) ? NaN : Math.abs(bitsOf(actual(row).share)));
  const inBits = (number) => (Number.isNaN(number) ? "–" : number > MOST_BITS ? `over ${MOST_BITS}` : number.toFixed(1));
  const share = (number) => (number === null ? "–" : number > 0 && number < 0.005 ? "<.01" : number.toFixed(2));

  // "over 3.1" where a surprise has no end.
  function average() {
    const known = d3.range(rows()).map(bits).filter((each) => !Number.isNaN(each));
    if (!known.length) return null;
    const mean = d3.mean(known.map((each) => Math.min(each, MOST_BITS)));
    return `${known.some((each) => each > MOST_BITS) ? "over " : ""}${mean.toFixed(1)}`;
  }

  // What the rows are called: "after ol", "at ol".
  function placed(row) {
    const name = token(row);
    return name === null ? "of the text" : `${isOf("next_token") ? "after" : isOf("label") ? "of" : "at"} ${shorten(name, 24)}`;
  }

  // The place in the text of a token of this stack, null where it is another text; `side` 1 are columns.
  function fromStack(stack, side, i) {
    if (!data?.stacks.includes(stack.id) || !hasText() || stack.words || (side === 1 && stack.offset === null)) return null;
    const place = Weights.positionOf(stack, side ? "column" : "row", i) - data.start;
    return place >= 0 && place < rows() ? place : null;
  }

  // The other way: a row of this stack.
  function inStack(stack, place) {
    if (!data.stacks.includes(stack.id) || stack.words) return null;
    return place + data.start - Weights.positionOf(stack, "row", 0);
  }

  return {
    exist, isOf, rows, hasText, token, came, rowOf, placeOf, listOf, likeliest, actualOf, actual, bits, inBits, share, average, placed,
    fromStack, inStack, start: data?.start ?? 0, lens: data?.lens ?? null, most: data?.most ?? 0,
  };
})();
