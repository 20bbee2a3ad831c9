"use strict";
// The attention weights of the page. The overviews of all heads are there at once; a head's weights are
// unpacked when it is opened, as 16-bit steps, and turned into numbers where they are shown.
const Page = JSON.parse(byId("page-data").textContent);

const Weights = (() => {
  const ALL_DECIMALS = 0.00005; // weights up to this are 0 to 4 decimals
  const AVERAGE = "average"; // the one head of a stack whose heads are averaged
  const WORDS = "-words"; // ends the name of a head whose tokens are merged to words
  const LEAST_REST = 0.001; // of a row without its first token; less has too few digits to be shown
  const MOST_KEPT = 12000000; // weights of opened heads that stay in memory, at 4 bytes each

  // ----------------------------------------------------------------------------------- unpacking

  // The bytes of a blob. The rest of a large page arrives while its first picture is shown already.
  async function blob(id) {
    while (document.readyState === "loading" && !byId(id)?.nextSibling) await new Promise((done) => setTimeout(done, 20));
    const text = byId(id).textContent;
    const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // Numbers out of planes of bytes: all lowest bytes come first.
  class Planes {
    constructor(bytes) {
      this.bytes = bytes;
      this.at = 0;
    }

    next(count, width) {
      const found = width > 2 ? new Uint32Array(count) : new Uint16Array(count);
      for (let plane = 0; plane < width; plane++) {
        for (let i = 0; i < count; i++) found[i] += this.bytes[this.at + i] << (8 * plane);
        this.at += count;
      }
      return found;
    }
  }

  // A head: row r has entries starts[r] to starts[r + 1] of columns and q, which are steps of weights;
  // `rest` is what was left out of each row, in steps, Page.notANumber where it is no number.
  function sparseHead(bytes, stack) {
    const rows = stack.rowTokens.length;
    const planes = new Planes(bytes);
    const starts = new Uint32Array(rows + 1);
    planes.next(rows, stack.bytes).forEach((count, r) => { starts[r + 1] = starts[r] + count; });
    const columns = planes.next(starts[rows], stack.bytes);
    for (let r = 0; r < rows; r++) {
      for (let i = starts[r] + 1; i < starts[r + 1]; i++) columns[i] += columns[i - 1];
    }
    return { starts, columns, q: planes.next(starts[rows], 2), rest: planes.next(rows, 2) };
  }

  // Values that are no probabilities are all there.
  function rawHead(bytes, stack) {
    const [rows, columns] = [stack.rowTokens.length, stack.columnTokens.length];
    return {
      starts: Uint32Array.from({ length: rows + 1 }, (_, r) => r * columns),
      columns: (stack.bytes > 2 ? Uint32Array : Uint16Array).from({ length: rows * columns }, (_, i) => i % columns),
      q: new Planes(bytes).next(rows * columns, 2),
      rest: new Uint16Array(rows),
    };
  }

  // The mean over the heads of a layer, of those whose row is a number: the union of their columns.
  function averaged(heads, stack) {
    const [rows, width] = [stack.rowTokens.length, stack.columnTokens.length];
    const [sums, counts] = [new Float64Array(width), new Uint16Array(width)];
    const zero = stack.difference ? -base(stack) * steps(stack) : 0;
    const found = { starts: new Uint32Array(rows + 1), columns: [], q: [], rest: new Uint16Array(rows) };
    for (let r = 0; r < rows; r++) {
      const sound = heads.filter(({ rest }) => rest[r] !== Page.notANumber);
      const columns = new Set();
      for (const { starts, columns: own, q } of sound) {
        for (let i = starts[r]; i < starts[r + 1]; i++) {
          if (q[i] === Page.notANumber) continue;
          columns.add(own[i]);
          sums[own[i]] += q[i] - zero;
          counts[own[i]]++;
        }
      }
      for (const c of [...columns].sort((a, b) => a - b)) {
        found.columns.push(c);
        found.q.push(Math.round(sums[c] / (stack.raw && !stack.difference ? counts[c] : sound.length)) + zero);
        sums[c] = counts[c] = 0;
      }
      found.starts[r + 1] = found.q.length;
      found.rest[r] = sound.length ? Math.round(sound.reduce((sum, { rest }) => sum + rest[r], 0) / sound.length) : Page.notANumber;
    }
    return found;
  }

  const kept = new Map(); // opened heads by their names, the last one opened at the end

  const nameOf = (stack, layer, head) => `head-${stack.id}-${layer}-${head}`;

  async function opened(stack, layer, head) {
    const name = nameOf(stack, layer, head);
    if (!kept.has(name) && stack.difference) {
      const [a, b] = [stack.difference.a, stack.difference.b].map((id) => Page.stacks.find((each) => each.id === id));
      const both = [await opened(a, layer, head), await opened(b, layer, head)];
      kept.set(name, Compare.subtracted(stack, ...both, -base(stack) * steps(stack)));
    }
    if (!kept.has(name)) {
      const bytes = await blob(name);
      kept.set(name, stack.raw ? rawHead(bytes, stack) : sparseHead(bytes, stack));
    }
    const found = kept.get(name);
    kept.delete(name); // and to the end
    kept.set(name, found);
    return found;
  }

  // Unpack these heads (positions), so that the functions below can read them. Raises where the page is
  // damaged.
  async function open(stack, layers, heads) {
    const whole = stack.of ?? stack;
    const names = new Set();
    const add = (name, make) => {
      if (!kept.has(name)) kept.set(name, make());
      names.add(name);
    };
    for (const layer of layers) {
      const wanted = stack.average ? [...whole.heads.keys()] : heads;
      const found = [];
      for (const head of wanted) {
        found.push(await opened(whole, layer, head));
        names.add(nameOf(whole, layer, head));
      }
      if (stack.average) add(nameOf(whole, layer, AVERAGE), () => averaged(found, whole));
      if (!stack.words) continue;
      for (const head of stack.average ? [AVERAGE] : wanted) {
        const name = nameOf(whole, layer, head);
        add(name + WORDS, () => Words.merged(kept.get(name), stack, Page.notANumber));
      }
    }
    let size = [...kept.values()].reduce((sum, { q }) => sum + q.length, 0);
    for (const [name, { q }] of kept) {
      if (size <= MOST_KEPT) break;
      if (names.has(name)) continue;
      size -= q.length;
      kept.delete(name);
    }
  }

  const headOf = (stack, layer, head) =>
    kept.get(nameOf(stack, layer, stack.average ? AVERAGE : head) + (stack.words ? WORDS : ""));

  const isOpen = (stack, layer, head) => headOf(stack, layer, head) !== undefined;

  // ----------------------------------------------------------------------------------- overviews

  const overviews = new Map();

  async function restore() {
    for (const { id, difference } of Page.stacks) {
      if (difference) continue; // made of those of two others
      if (!overviews.has(id)) overviews.set(id, await blob(`overview-${id}`));
    }
  }

  // The largest weight of each cell of a head, 0 to Page.shades by the root, for the rows and columns that
  // the stack shows: {shades, rows, columns}. Of words, where a cell is a token; else tokens stay.
  function overview(stack, layer, head) {
    const whole = stack.of ?? stack;
    if (whole.difference) return differenceOf(stack, whole, layer, head);
    const all = overviews.get(stack.id);
    const [height, width] = whole.cells;
    const [shownRows, shownColumns] = !stack.words ? [stack.rows, stack.columns]
      : [Words.tokensIn(stack.rows, whole.rowWords, whole.rowTokens), Words.tokensIn(stack.columns, whole.columnWords, whole.columnTokens)];
    const [top, bottom] = cellsOf(shownRows, whole.cell[0]);
    const [left, right] = cellsOf(shownColumns, whole.cell[1]);
    const [rows, columns] = [bottom - top, right - left];
    const heads = stack.average ? [...whole.heads.keys()] : [head];
    const sums = new Float32Array(rows * columns);
    for (const h of heads) {
      const first = (layer * whole.heads.length + h) * height * width;
      for (let r = 0; r < rows; r++) {
        const row = first + (top + r) * width + left;
        for (let c = 0; c < columns; c++) sums[r * columns + c] += all[row + c] ** 2;
      }
    }
    const found = stack.words && whole.cell.every((size) => size === 1)
      ? Words.mergedCells(sums, stack, shownRows, shownColumns) : { weights: sums, rows, columns };
    return { ...found, shades: found.weights.map((sum) => Math.min(Math.sqrt(sum / heads.length), Page.shades)) };
  }

  // The same of A - B, where `signs` are -1 where there is more in B. Of texts that differ, by the tokens that
  // stand for each other; the shades of a cell are as exact as those of A and B.
  function differenceOf(stack, whole, layer, head) {
    const { a, b, row, column } = whole.difference;
    const [first, second] = [a, b].map((id) => {
      const found = Page.stacks.find((each) => each.id === id);
      const all = [0, found.rowTokens.length, found.columnTokens.length];
      return { cell: found.cell, ...overview({ ...found, of: found, average: stack.average, words: null, rows: [0, all[1]], columns: [0, all[2]] }, layer, head) };
    });
    const [cell, sides] = [whole.cell, [row, column]];
    const [[top, bottom], [left, right]] = [stack.rows, stack.columns].map((range, side) => cellsOf(range, cell[side]));
    const at = ({ shades, columns, cell: [high, wide] }, n, r, c) => {
      const place = [r * cell[0], c * cell[1]].map((i, side) => (sides[side] ? sides[side][n][i] : i));
      return shades[Math.floor(place[0] / high) * columns + Math.floor(place[1] / wide)] ** 2;
    };
    const [rows, columns] = [bottom - top, right - left];
    const changes = Array.from({ length: rows * columns }, (_, i) => {
      const [r, c] = [top + Math.floor(i / columns), left + (i % columns)];
      return at(first, 0, r, c) - at(second, 1, r, c);
    });
    return { rows, columns, shades: Float32Array.from(changes, (change) => Math.min(Math.sqrt(Math.abs(change)), Page.shades)), signs: changes.map(Math.sign) };
  }

  const cellsOf = ([from, to], cell) => [Math.floor(from / cell), Math.ceil(to / cell)];

  // ------------------------------------------------------------------------- ways of looking at it

  // The position in the text of a row or a column; below 0 for virtual tokens before the text.
  const positionOf = (stack, side, i) =>
    (stack.difference?.[side]?.[0][i] ?? i) + (side === "row" ? stack.rowStart ?? stack.start + (stack.offset ?? 0) : stack.start);

  // Whether the first token of the text is here, and leaves something when it is hidden.
  function hasFirst(stack) {
    const [rows, columns] = [stack.rows, stack.columns].map(([from, to]) => to - Math.max(from, 1));
    return stack.probabilities && stack.wholeRows && stack.start === 0 && stack.columns[0] === 0 && columns > 0 &&
      (stack.offset !== 0 || rows > 0);
  }

  // A stack as it is shown. `average`: the mean of its heads in their place. `withoutFirst`: the first
  // token hidden (in cross attention the first that is attended to), and every row divided by what is
  // left of it. `words`: tokens merged to words where they can be; then the first word is hidden. The
  // functions below read it like any other stack.
  function lookedAt(stack, { average, withoutFirst, words }) {
    const shown = words && Words.has(stack) ? Words.of(stack) : stack;
    const hides = withoutFirst && hasFirst(stack) && hasFirst(shown);
    const later = ([from, to]) => [Math.max(from, 1), to];
    return {
      ...shown,
      of: stack,
      average,
      withoutFirst: hides,
      // What was left out of each of a word's tokens.
      above: shown.words && stack.above > ALL_DECIMALS ? +(stack.above * shown.longest).toFixed(4) : stack.above,
      heads: average ? [AVERAGE] : stack.heads,
      rows: hides && shown.offset === 0 ? later(shown.rows) : shown.rows,
      columns: hides ? later(shown.columns) : shown.columns,
    };
  }

  // ------------------------------------------------------------------------------------- reading

  const base = (stack) => stack.raw?.base ?? 0;
  const steps = (stack) => stack.raw?.steps ?? 10000;

  // The weight that a step stands for. NaN and infinities count as nothing: no line, no shade.
  const value = (stack, q) => (q === Page.notANumber ? 0 : base(stack) + q / steps(stack));

  // Of one row that the stack shows (a position in rowTokens), the weights in its columns: {columns, q,
  // rest}. columns are positions in columnTokens; q and rest are steps, rest what was left out.
  function row(stack, layer, head, r) {
    const { starts, columns, q, rest } = headOf(stack, layer, head);
    const found = { columns: [], q: [], rest: rest[r], isNumber: rest[r] !== Page.notANumber };
    const scale = stack.withoutFirst ? scaleOf(stack, columns, q, starts[r], starts[r + 1], rest[r]) : 1;
    if (scale !== 1 && found.isNumber) found.rest = Math.round(Math.min(rest[r] * scale, 10000));
    for (let i = starts[r]; i < starts[r + 1]; i++) {
      if (columns[i] < stack.columns[0]) continue;
      if (columns[i] >= stack.columns[1]) break;
      found.columns.push(columns[i]);
      found.q.push(q[i] === Page.notANumber || scale === 1 ? q[i] : Math.min(Math.round(q[i] * scale), 65534));
    }
    return found;
  }

  // By what the weights of a row are multiplied where its first one is hidden.
  function scaleOf(stack, columns, q, from, to, rest) {
    let left = rest === Page.notANumber ? 0 : rest;
    for (let i = from; i < to; i++) left += columns[i] && q[i] !== Page.notANumber ? q[i] : 0;
    return left < LEAST_REST * steps(stack) ? 0 : steps(stack) / left;
  }

  // What a row sums to in the columns shown, in the others, and in what was left out.
  function parts(stack, layer, head, r) {
    const sum = (numbers) => numbers.reduce((total, q) => total + value(stack, q), 0);
    const whole = row({ ...stack, columns: stack.allColumns ?? stack.columns }, layer, head, r);
    const shown = sum(row(stack, layer, head, r).q);
    return { shown, elsewhere: sum(whole.q) - shown, left: value(stack, whole.rest), isNumber: whole.isNumber };
  }

  // A head's weights as bertviz takes them: an array of arrays, (rows, columns), with `missing` in place
  // of NaN and infinities.
  function matrix(stack, layer, head, missing = 0) {
    const [from, to] = stack.columns;
    return Array.from({ length: stack.rows[1] - stack.rows[0] }, (_, i) => {
      const { columns, q, isNumber } = row(stack, layer, head, stack.rows[0] + i);
      const found = new Array(to - from).fill(isNumber ? 0 : missing);
      columns.forEach((c, k) => { found[c - from] = q[k] === Page.notANumber ? missing : value(stack, q[k]); });
      return found;
    });
  }

  // How many weights of these layers and heads lie in each of the 65,536 steps: from it follow how many
  // lines a cut leaves, and which cut leaves a given number of lines. Waits between layers, so that
  // nothing freezes.
  async function histogram(stack, layers, heads = stack.heads.keys()) {
    heads = [...heads];
    const counts = new Uint32Array(65536);
    for (const layer of layers) {
      for (const head of heads) {
        for (let r = stack.rows[0]; r < stack.rows[1]; r++) {
          for (const q of row(stack, layer, head, r).q) counts[folded(stack, q)]++;
        }
      }
      await nextTask();
    }
    counts[Page.notANumber] = 0;
    return counts;
  }

  // Of a difference its size counts, whatever its sign.
  function folded(stack, q) {
    const zero = -base(stack) * steps(stack);
    return stack.difference && q !== Page.notANumber && q < zero ? 2 * zero - q : q;
  }

  function above(stack, counts, threshold) {
    let lines = 0;
    for (let q = 0; q < counts.length; q++) if (value(stack, q) > threshold) lines += counts[q];
    return lines;
  }

  // The largest weight among those that histogram() counted; null where there is none.
  function strongest(stack, counts) {
    const q = counts.findLastIndex((count) => count > 0);
    return q < 0 ? null : value(stack, q);
  }

  // The cut, not below `least`, above which at most `limit` weights lie. Those of one step are drawn
  // together or not at all.
  function cutFor(stack, counts, limit, least) {
    let lines = 0;
    for (let q = counts.length - 1; q >= 0; q--) {
      if (lines + counts[q] > limit) return Math.max(value(stack, q), least);
      lines += counts[q];
    }
    return least;
  }

  return { ALL_DECIMALS, AVERAGE, positionOf, restore, open, isOpen, overview, hasFirst, lookedAt, value, row, parts, matrix, histogram, above, strongest, cutFor };
})();
