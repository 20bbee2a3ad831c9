"use strict";
// Tokens merged to words, as Clark et al. 2019 define it: attention to a word is the sum over its pieces,
// attention from a word the mean over them.
const Words = (() => {
  // Whether words of a stack have several tokens, which can be merged.
  const has = (stack) => stack.rowWords !== null;

  const unit = (stack) => (stack.words ? "word" : "token");

  // The word of each token.
  function wordsOf({ starts }, tokens) {
    const found = new Uint32Array(tokens.length);
    starts.forEach((start, word) => found.fill(word, start));
    return found;
  }

  // A stack whose rows and columns are words. `rowOf` and `columnOf` have the word of each token; `longest`
  // is how many tokens a word has at most.
  function of(stack) {
    const { rowWords, columnWords } = stack;
    const [rowOf, columnOf] = [wordsOf(rowWords, stack.rowTokens), wordsOf(columnWords, stack.columnTokens)];
    const range = ([from, to], word) => (from < to ? [word[from], word[to - 1] + 1] : [0, 0]);
    const column = (i) => (i === null ? null : columnOf[i]);
    const sizes = [rowWords, columnWords].map(({ starts }) => starts.length);
    return {
      ...stack,
      words: true,
      rowOf, columnOf,
      rowTokens: rowWords.labels,
      columnTokens: columnWords.labels,
      rows: range(stack.rows, rowOf),
      columns: range(stack.columns, columnOf),
      second: column(stack.second),
      generated: column(stack.generated),
      start: columnWords.first,
      rowStart: rowWords.first,
      picture: pictureAmong(stack.picture, columnOf),
      offset: stack.offset === null ? null : rowWords.first - columnWords.first,
      longest: columnOf.reduce((most, word, i) => Math.max(most, i + 1 - columnWords.starts[word]), 1),
      cell: sizes.map((size, side) => (stack.cell[side] === 1 ? 1 : size / stack.cells[side])), // on the average
    };
  }

  // A picture whose parts are among the columns: where they are as words; none where some were merged.
  function pictureAmong(picture, columnOf) {
    if (!picture) return null;
    const [rows, columns] = Page.pictures[picture.index].grid;
    const [first, last] = [picture.first, picture.first + rows * columns - 1].map((column) => columnOf[column]);
    return last - first === rows * columns - 1 ? { ...picture, first } : null;
  }

  // The tokens of a range of words, as a range.
  const tokensIn = ([from, to], { starts }, tokens) => [starts[from] ?? tokens.length, starts[to] ?? tokens.length];

  // The position in the text of the row's word, or of the first token of the row's word, from the other one.
  function translated(stack, position, toWords) {
    const { starts, first } = stack.rowWords;
    const token = stack.start + (stack.offset ?? 0); // of the first row
    if (!toWords) return token + (starts[position - first] ?? 0);
    return first + Math.max(starts.findLastIndex((start) => start <= position - token), 0);
  }

  // A head as weights.js unpacks it, merged. `missing` stands for what is not a number: of a word's rows
  // those that are not numbers are left out.
  function merged(head, { rowWords, columnWords, rowOf, columnOf }, missing) {
    const height = rowWords.starts.length;
    const sums = new Float64Array(columnWords.starts.length);
    const found = { starts: new Uint32Array(height + 1), columns: [], q: [], rest: new Uint16Array(height) };
    for (let word = 0; word < height; word++) {
      const columns = new Set();
      let [count, rest] = [0, 0];
      for (let r = rowWords.starts[word]; rowOf[r] === word; r++) {
        if (head.rest[r] === missing) continue;
        count++;
        rest += head.rest[r];
        for (let i = head.starts[r]; i < head.starts[r + 1]; i++) {
          const column = columnOf[head.columns[i]];
          columns.add(column);
          sums[column] += head.q[i];
        }
      }
      for (const column of [...columns].sort((a, b) => a - b)) {
        found.columns.push(column);
        found.q.push(Math.round(sums[column] / count));
        sums[column] = 0;
      }
      found.starts[word + 1] = found.q.length;
      found.rest[word] = count ? Math.round(rest / count) : missing;
    }
    return found;
  }

  // The same of an overview whose cells are tokens: its `weights`, for these ranges of tokens.
  function mergedCells(weights, { rowOf, columnOf }, [top, bottom], [left, right]) {
    const [rows, columns] = [[rowOf, top, bottom], [columnOf, left, right]].map(([of, from, to]) => (from < to ? of[to - 1] - of[from] + 1 : 0));
    const found = new Float32Array(rows * columns);
    const counts = new Uint32Array(rows);
    for (let r = top; r < bottom; r++) counts[rowOf[r] - rowOf[top]]++;
    for (let r = top, i = 0; r < bottom; r++) {
      const row = rowOf[r] - rowOf[top];
      for (let c = left; c < right; c++, i++) {
        found[row * columns + columnOf[c] - columnOf[left]] += weights[i] / counts[row];
      }
    }
    return { weights: found, rows, columns };
  }

  return { has, unit, of, tokensIn, translated, merged, mergedCells };
})();
