"use strict";
// Every head as one small picture of its matrix of weights, on a canvas: an overview, also for a model
// view with more lines than a browser draws. A head's lines are drawn when it is opened.
const Thumbnails = (() => {
  const LARGEST = 64; // pixels a side; of a longer text several tokens share one

  // Draw all heads of a stack into `root`, `full` being the step of full colour. When a picture is
  // chosen, `open(stack, layer, head)` is called with positions in the stack's lists. Returns false when
  // `stillWanted()` no longer holds.
  async function draw(root, stack, full, open, stillWanted) {
    const table = element("div", { id: "thumbnails" });
    table.style.gridTemplateColumns = `auto repeat(${stack.heads.length}, minmax(24px, 112px))`;
    root.replaceChildren(table);
    const label = (text, kind) => table.append(element("span", { class: kind }, text));
    label("", "corner");
    for (const head of stack.heads) label(head, "head");
    for (let layer = 0; layer < stack.layers.length; layer++) {
      label(stack.layers[layer], "layer");
      for (let head = 0; head < stack.heads.length; head++) {
        table.append(picture(stack, layer, head, full, open));
      }
      await nextTask();
      if (!stillWanted()) return false;
    }
    roving([...table.querySelectorAll("button")], stack.heads.length);
    return true;
  }

  function picture(stack, layer, head, full, open) {
    const name = HeadDetail.title(stack, layer, head);
    return button(paint(stack, layer, head, full), () => open(stack, layer, head), {
      "aria-label": name, "aria-pressed": "false", title: name,
    });
  }

  // Rows attend, columns are attended to; the stronger the weight, the stronger the colour. Of the
  // weights that share a pixel the strongest is shown: single strong ones are what one looks for.
  function paint(stack, layer, head, full) {
    const [rows, columns] = [stack.rows, stack.columns].map(([from, to]) => to - from);
    const step = Math.ceil(Math.max(rows, columns) / LARGEST);
    const canvas = element("canvas");
    canvas.width = Math.ceil(columns / step);
    canvas.height = Math.ceil(rows / step);
    const strongest = new Uint16Array(canvas.width * canvas.height);
    let row = 0;
    Weights.eachRow(stack, layer, head, (steps) => {
      const start = Math.floor(row++ / step) * canvas.width;
      for (let c = 0; c < steps.length; c++) {
        const at = start + Math.floor(c / step);
        if (steps[c] > strongest[at] && steps[c] !== Page.notANumber) strongest[at] = steps[c];
      }
    });
    const { r, g, b } = d3.color(d3.schemeCategory10[stack.layers[layer] % 10]);
    const image = new ImageData(canvas.width, canvas.height);
    strongest.forEach((q, i) => { // by the root: weights of a few percent would hardly be seen
      const share = Math.max(0, Weights.value(stack, q)) / Weights.value(stack, full);
      image.data.set([r, g, b, Math.min(255, Math.round(255 * Math.sqrt(share)))], 4 * i);
    });
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  // Show which picture is open: its place in the order of drawing, or null.
  function mark(place) {
    document.querySelectorAll("#thumbnails button").forEach((button, i) => {
      button.setAttribute("aria-pressed", String(i === place));
    });
  }

  return { draw, mark };
})();
