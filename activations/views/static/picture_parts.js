"use strict";
// The picture that belongs to a stack: an image whose patches, or a sound whose frames, are among its
// columns. Which row and column is which part, and how much of a row goes to each of them.
const PictureParts = (() => {
  const decoded = new Map(); // promises of ImageBitmaps, by their places in Page.pictures

  const pictureOf = (stack) => (stack.picture ? Page.pictures[stack.picture.index] : null);

  const count = (stack) => pictureOf(stack).grid[0] * pictureOf(stack).grid[1];

  // The part that a column, or a row, is; -1 for other tokens.
  function ofColumn(stack, column) {
    const part = column - stack.picture.first;
    return part >= 0 && part < count(stack) ? part : -1;
  }
  const ofRow = (stack, row) => (stack.offset === null ? -1 : ofColumn(stack, row + stack.offset));

  // The row that a part is, -1 where it is none: the other text attends, or it is not shown.
  function rowOf(stack, part) {
    const row = stack.offset === null ? -1 : stack.picture.first + part - stack.offset;
    return row >= stack.rows[0] && row < stack.rows[1] ? row : -1;
  }

  // What a part of a picture is called: r9c6, 1.08 s.
  function nameOf(stack, part) {
    const { kind, grid, seconds } = pictureOf(stack);
    return kind === "image" ? `r${Math.floor(part / grid[1])}c${part % grid[1]}` : `${(part * seconds).toFixed(2)} s`;
  }

  // What a row is called; the tokens of an image inside a text all have one name.
  const rowName = (stack, row) => (ofRow(stack, row) >= 0 ? nameOf(stack, ofRow(stack, row)) : stack.rowTokens[row]);

  // Where a row's attention goes: `parts` has the weight of each part, `others` [column, weight] of the
  // tokens that are none, `left` what was left out of the page. The head has to be open.
  function weights(stack, layer, head, row) {
    const found = Weights.row(stack, layer, head, row);
    const [parts, others] = [new Float64Array(count(stack)), []];
    found.columns.forEach((column, i) => {
      const [part, weight] = [ofColumn(stack, column), Weights.value(stack, found.q[i])];
      if (part >= 0) parts[part] = weight;
      else others.push([column, weight]);
    });
    return { parts, others, left: found.isNumber ? Weights.value(stack, found.rest) : 0, isNumber: found.isNumber };
  }

  // The place of the largest of these numbers, which may be very many.
  const strongest = (numbers) => numbers.reduce((best, number, i) => (number > numbers[best] ? i : best), 0);

  // Do something with a head's weights, which may have been packed away since they were opened.
  const withOpen = (stack, layer, head, act) =>
    (Weights.isOpen(stack, layer, head) ? act() : Weights.open(stack, [layer], [head]).then(act).catch(State.failed));

  // From a blob, which is no request: nothing needs to be allowed for it. Raises where it is damaged.
  async function decode({ type, data }) {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    return createImageBitmap(new Blob([bytes], { type }));
  }

  function bitmap(stack) {
    const { index } = stack.picture;
    if (!decoded.has(index)) decoded.set(index, decode(Page.pictures[index]));
    return decoded.get(index);
  }

  // A canvas of this many pixels of the page, and its context in such pixels.
  function canvas(made, wide, high) {
    const density = Math.min(devicePixelRatio || 1, 2);
    [made.width, made.height] = [wide, high].map((size) => Math.max(Math.round(size * density), 1));
    [made.style.width, made.style.height] = [`${wide}px`, `${high}px`];
    const context = made.getContext("2d");
    context.setTransform(density, 0, 0, density, 0, 0);
    return context;
  }

  return { pictureOf, count, ofColumn, ofRow, rowOf, nameOf, rowName, weights, strongest, withOpen, bitmap, canvas };
})();
