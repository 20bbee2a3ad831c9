"use strict";
// The attention weights of the page: 16-bit steps, unpacked once, turned into numbers where they are shown.
const Page = JSON.parse(byId("page-data").textContent);

const Weights = (() => {
  const AVERAGE = "average"; // the one head of a stack whose heads are averaged
  const LEAST_REST = 0.001; // of a row without its first token; less has too few digits to be shown
  let quantised; // Uint16Array of all stacks, layer by layer, (heads, rows, columns) each

  async function restore() {
    const packed = byId("page-weights");
    const text = atob(packed.textContent);
    packed.textContent = ""; // no longer needed, and large
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    quantised = new Uint16Array(await new Response(stream).arrayBuffer()); // little-endian, as all browsers are
  }

  // ------------------------------------------------------------------------- ways of looking at it

  // Whether the first token of the text is here, and leaves something when it is hidden.
  function hasFirst(stack) {
    const [rows, columns] = [stack.rows, stack.columns].map(([from, to]) => to - Math.max(from, 1));
    return stack.probabilities && stack.wholeRows && stack.start === 0 && stack.columns[0] === 0 && columns > 0 &&
      (stack.offset !== 0 || rows > 0);
  }

  // A stack as it is shown. `average`: the mean of its heads in their place. `withoutFirst`: the first
  // token hidden (in cross attention the first that is attended to), and every row divided by what is
  // left of it. The functions below read it like any other stack.
  function lookedAt(stack, { average, withoutFirst }) {
    const hides = withoutFirst && hasFirst(stack);
    const later = ([from, to]) => [Math.max(from, 1), to];
    return {
      ...stack,
      of: stack,
      average,
      withoutFirst: hides,
      heads: average ? [AVERAGE] : stack.heads,
      rows: hides && stack.offset === 0 ? later(stack.rows) : stack.rows,
      columns: hides ? later(stack.columns) : stack.columns,
    };
  }

  // ------------------------------------------------------------------------------------- reading

  // The weight that a step stands for. NaN and infinities count as nothing: no line, no shade.
  const value = (stack, q) => (q === Page.notANumber ? 0 : stack.base + q / stack.steps);

  // A whole row of a head as it is stored.
  function stored(stack, layer, head, row) {
    const [rows, columns] = [stack.rowTokens.length, stack.columnTokens.length];
    const first = stack.first + (layer * stack.of.heads.length + head) * rows * columns;
    return quantised.subarray(first + row * columns, first + (row + 1) * columns);
  }

  // The mean over all heads of a layer, of those that are numbers.
  function averaged(stack, layer, row) {
    const columns = stack.columnTokens.length;
    const [sums, counts] = [new Float64Array(columns), new Uint16Array(columns)];
    for (let head = 0; head < stack.of.heads.length; head++) {
      const steps = stored(stack, layer, head, row);
      for (let i = 0; i < columns; i++) {
        if (steps[i] === Page.notANumber) continue;
        sums[i] += steps[i];
        counts[i]++;
      }
    }
    return Uint16Array.from(sums, (sum, i) => (counts[i] ? Math.round(sum / counts[i]) : Page.notANumber));
  }

  // A row without its first weight, the others divided by their sum.
  function rescaled(stack, steps) {
    const number = (q) => (q === Page.notANumber ? 0 : q);
    let rest = -number(steps[0]);
    for (let i = 0; i < steps.length; i++) rest += number(steps[i]);
    const scale = rest < LEAST_REST * stack.steps ? 0 : stack.steps / rest;
    return steps.map((q) => (q === Page.notANumber ? q : Math.min(Math.round(q * scale), 65534)));
  }

  // Calls visit(steps) for every row of a head that the stack shows, steps being a Uint16Array.
  function eachRow(stack, layer, head, visit) {
    for (let r = stack.rows[0]; r < stack.rows[1]; r++) {
      let steps = stack.average ? averaged(stack, layer, r) : stored(stack, layer, head, r);
      if (stack.withoutFirst) steps = rescaled(stack, steps);
      visit(steps.subarray(stack.columns[0], stack.columns[1]));
    }
  }

  // A head's weights as bertviz takes them: an array of arrays, (rows, columns), with `missing` in place
  // of NaN and infinities.
  function matrix(stack, layer, head, missing = 0) {
    const [found, values] = [[], valuesOf(stack)];
    eachRow(stack, layer, head, (steps) => {
      const row = new Array(steps.length);
      for (let i = 0; i < steps.length; i++) row[i] = steps[i] === Page.notANumber ? missing : values[steps[i]];
      found.push(row);
    });
    return found;
  }

  // The weight of each of the 65,536 steps, computed once.
  const known = new Map();
  function valuesOf({ of: stack }) {
    if (!known.has(stack)) known.set(stack, Float64Array.from({ length: 65536 }, (_, q) => value(stack, q)));
    return known.get(stack);
  }

  // How many weights of these layers and heads lie in each of the 65,536 steps: from it follow how many
  // lines a cut leaves, and which cut leaves a given number of lines. Waits between layers, so that nothing freezes.
  async function histogram(stack, layers, heads = stack.heads.keys()) {
    heads = [...heads];
    const counts = new Uint32Array(65536);
    for (const layer of layers) {
      for (const head of heads) {
        eachRow(stack, layer, head, (steps) => {
          for (let i = 0; i < steps.length; i++) counts[steps[i]]++;
        });
      }
      await nextTask();
    }
    counts[Page.notANumber] = 0;
    return counts;
  }

  function above(stack, counts, threshold) {
    let lines = 0;
    for (let q = 0; q < counts.length; q++) if (value(stack, q) > threshold) lines += counts[q];
    return lines;
  }

  // The cut, not below `least`, above which at most `limit` weights lie. Those of one step are drawn
  // together or not at all.
  function cutFor(stack, counts, limit, least) {
    let lines = 0;
    for (let q = counts.length - 1; q >= 0; q--) {
      if (lines + counts[q] > limit) return Math.max(stack.base + q / stack.steps, least);
      lines += counts[q];
    }
    return least;
  }

  // The step that is to be drawn in full colour: a weight of 1, or the highest of raw scores.
  function full(stack, counts) {
    if (stack.base === 0 && stack.steps < Page.notANumber) return stack.steps;
    const highest = counts.findLastIndex((count) => count > 0);
    return value(stack, highest) > 0 ? highest : Infinity; // no score above 0: no colour
  }

  return { AVERAGE, restore, hasFirst, lookedAt, value, eachRow, matrix, histogram, above, cutFor, full };
})();
