"use strict";
// The attention weights of the page: 16-bit steps, restored once, expanded where they are looked at.
const Page = JSON.parse(document.getElementById("page-data").textContent);

const Weights = (() => {
  let quantised; // Uint16Array of all stacks, layer by layer, (heads, rows, columns) each

  async function restore() {
    const element = document.getElementById("page-weights");
    const text = atob(element.textContent);
    element.textContent = ""; // no longer needed, and large
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const buffer = await new Response(stream).arrayBuffer();
    const view = new DataView(buffer);
    const littleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
    quantised = littleEndian
      ? new Uint16Array(buffer)
      : Uint16Array.from({ length: buffer.byteLength / 2 }, (_, i) => view.getUint16(2 * i, true));
  }

  // The weight that a step stands for. NaN and infinities count as nothing: no line, no shade.
  const value = (stack, q) => (q === Page.notANumber ? 0 : stack.base + q / stack.steps);

  // Calls visit(steps) for every row of a head that the stack shows, steps being a Uint16Array.
  function eachRow(stack, layer, head, visit) {
    const [rows, columns] = [stack.rowTokens.length, stack.columnTokens.length];
    const first = stack.first + (layer * stack.heads.length + head) * rows * columns;
    for (let r = stack.rows[0]; r < stack.rows[1]; r++) {
      const start = first + r * columns;
      visit(quantised.subarray(start + stack.columns[0], start + stack.columns[1]));
    }
  }

  // A head's weights as bertviz takes them: an array of arrays, (rows, columns).
  function matrix(stack, layer, head) {
    const [found, values] = [[], valuesOf(stack)];
    eachRow(stack, layer, head, (steps) => {
      const row = new Array(steps.length);
      for (let i = 0; i < steps.length; i++) row[i] = values[steps[i]];
      found.push(row);
    });
    return found;
  }

  // The weight of each of the 65,536 steps, reckoned once.
  const known = new Map();
  function valuesOf(stack) {
    if (!known.has(stack)) known.set(stack, Float64Array.from({ length: 65536 }, (_, q) => value(stack, q)));
    return known.get(stack);
  }

  // How many weights of these layers and heads lie in each of the 65,536 steps: tells how many lines
  // a cut leaves, and which cut leaves so many lines. Waits between layers, so that nothing freezes.
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

  // The cut above which at most `limit` weights lie. Those of one step are drawn together or not
  // at all, but the strongest always are.
  function cutFor(stack, counts, limit) {
    let lines = 0;
    for (let q = counts.length - 1; q >= 0; q--) {
      if (lines > 0 && lines + counts[q] > limit) return stack.base + q / stack.steps;
      lines += counts[q];
    }
    return Page.minWeight;
  }

  // The step that is to be drawn in full colour: a weight of 1, or the highest of raw scores.
  function full(stack, counts) {
    if (stack.base === 0 && stack.steps < Page.notANumber) return stack.steps;
    const highest = counts.findLastIndex((count) => count > 0);
    return value(stack, highest) > 0 ? highest : Infinity; // no score above 0: no colour
  }

  return { restore, value, eachRow, matrix, histogram, above, cutFor, full };
})();

// Lets the browser do what else it has to do. Sooner than setTimeout, which waits 4 ms each time.
const nextTask = (() => {
  const channel = new MessageChannel();
  const waiting = [];
  channel.port1.onmessage = () => waiting.shift()();
  return () => new Promise((done) => {
    waiting.push(done);
    channel.port2.postMessage(null);
  });
})();
