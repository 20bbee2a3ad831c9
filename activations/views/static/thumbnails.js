"use strict";
// Every head as one small picture of its overview, on a canvas. A head's own weights are not needed for
// it: they are unpacked when it is opened.
const Thumbnails = (() => {
  // Draw all heads of a stack into `root`. When a picture is chosen, `open(stack, layer, head)` is called
  // with positions in the stack's lists. Returns false when `stillWanted()` no longer holds.
  async function draw(root, stack, open, stillWanted) {
    const table = element("div", { id: "thumbnails" });
    table.style.gridTemplateColumns = `auto repeat(${stack.heads.length}, minmax(24px, 112px))`;
    root.replaceChildren(table);
    const label = (text, kind) => table.append(element("span", { class: kind }, text));
    label("", "corner");
    for (const head of stack.heads) label(head, "head");
    for (let layer = 0; layer < stack.layers.length; layer++) {
      label(stack.layers[layer], "layer");
      for (let head = 0; head < stack.heads.length; head++) {
        table.append(picture(stack, layer, head, open));
      }
      await nextTask();
      if (!stillWanted()) return false;
    }
    roving([...table.querySelectorAll("button")], stack.heads.length);
    return true;
  }

  function picture(stack, layer, head, open) {
    const name = HeadDetail.title(stack, layer, head);
    return button(paint(stack, layer, head), () => open(stack, layer, head), {
      "aria-label": name, "aria-pressed": "false", title: name,
    });
  }

  // Rows attend, columns are attended to; the stronger the weight, the stronger the colour.
  function paint(stack, layer, head) {
    const { shades, rows, columns } = Weights.overview(stack, layer, head);
    const canvas = element("canvas");
    [canvas.width, canvas.height] = [columns, rows];
    const { r, g, b } = d3.color(d3.schemeCategory10[stack.layers[layer] % 10]);
    const image = new ImageData(columns, rows);
    shades.forEach((shade, i) => image.data.set([r, g, b, Math.round((255 * shade) / Page.shades)], 4 * i));
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
