"use strict";
// The measures of the head view. Lines and matrix share their rows: a token stands at the same height in
// both, so that one band lights it through both.
const RowGrid = (() => {
  const ROW = { least: 16, most: 30, touch: 26 }; // pixels
  const BAND = { narrow: 80, least: 160, usual: 232, most: 320 }; // the lines
  const LABEL = { least: 56, most: 104, narrow: 76, size: 13 };
  const ASIDE = { from: 1100, wide: 232, roomyFrom: 1450, roomy: 340 }; // scores and map, beside the pictures
  const [GAP, NUMBER, BARS, FOOT] = [28, 30, 84, 84];
  const TITLE = 60; // above both pictures: the head's name, the matrix's columns
  const SIDE_BY_SIDE = 700; // pixels of a window from which the matrix stands beside the lines

  const isTouch = matchMedia("(pointer: coarse)");
  const clamp = (value, [least, most]) => Math.min(Math.max(value, least), most);

  // Room for the longest of these labels, in pixels, up to a limit at which they are cut.
  const labelOf = (tokens, most = LABEL.most) => clamp(Math.ceil(Math.max(0, ...tokens.map((t) => widthOf(t, LABEL.size)))) + 10, [LABEL.least, most]);

  // Of what is drawn of a stack: heights and widths in pixels. `row` is the height of a row, `cell` the
  // width of a matrix's column, `label` that of a token, `band` that of the lines.
  function of(stack, isLong) {
    const [rows, columns] = [stack.rows, stack.columns].map(([from, to]) => to - from);
    const shown = [stack.rowTokens.slice(...stack.rows), stack.columnTokens.slice(...stack.columns)];
    const isNarrow = innerWidth < SIDE_BY_SIDE;
    const label = labelOf(shown.flat(), isNarrow ? LABEL.narrow : LABEL.most);
    const width = byId("layout").clientWidth - asideOf();
    const number = isNarrow ? 0 : NUMBER;
    const fixed = 2 * label + number + (isLong ? BARS : 0);
    const byHeight = (innerHeight - byId("layout").offsetTop - TITLE - FOOT) / Math.max(rows, columns);
    const isAlone = isNarrow || isLong;
    const cellMost = isAlone ? Infinity : (width - GAP - fixed - BAND.usual - matrixLabel(label)) / columns;
    const row = isTouch.matches ? ROW.touch : Math.floor(clamp(Math.min(byHeight, cellMost), [ROW.least, ROW.most]));
    const cell = clamp(Math.min(row, cellMost), [3, ROW.most]);
    const left = isLong ? byId("scroll").clientWidth : isNarrow ? width : width - GAP - matrixLabel(label) - cell * columns;
    return { row, cell, label, number, title: TITLE, isNarrow, band: clamp(Math.floor(left - fixed - 4), [isNarrow || isLong ? BAND.narrow : BAND.least, BAND.most]) };
  }

  // Pixels in which a token's label must fit.
  const room = () => (innerWidth < SIDE_BY_SIDE ? LABEL.narrow : LABEL.most) - 10;

  const asideOf = () => (innerWidth < ASIDE.from ? 0 : GAP + (innerWidth < ASIDE.roomyFrom ? ASIDE.wide : ASIDE.roomy));

  const matrixLabel = (label) => label + 44; // and what the last column's slanted label takes at the right

  return { of, room, labelOf, TITLE };
})();
