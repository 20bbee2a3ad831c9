"use strict";
// Every head as one small picture of its overview, on a canvas. A head's own weights are not needed for
// it: they are unpacked when it is opened.
const Thumbnails = (() => {
  const painted = new WeakMap(); // of each canvas, what paints it
  // Draw all heads of a stack into `root`, each `wide` pixels wide. When a picture is chosen,
  // `choose(stack, layer, head)` is called with positions in the stack's lists. Returns false when
  // `stillWanted()` no longer holds.
  async function draw(root, stack, sizes, choose, stillWanted) {
    const table = element("div", { id: "thumbnails" });
    root.replaceChildren(table);
    size(sizes);
    const label = (text, kind) => table.append(element("span", { class: kind }, text));
    label("", "corner");
    for (const head of stack.heads) label(head, "head");
    for (let layer = 0; layer < stack.layers.length; layer++) {
      label(stack.layers[layer], "layer");
      for (let head = 0; head < stack.heads.length; head++) {
        table.append(picture(stack, layer, head, choose));
      }
      await nextTask();
      if (!stillWanted()) return false;
    }
    roving([...table.querySelectorAll("button")], stack.heads.length);
    return true;
  }

  function size({ wide, columns, gap }) {
    byId("thumbnails").style.gap = `${gap}px`;
    byId("thumbnails").style.gridTemplateColumns = `22px repeat(${columns}, ${wide}px)`;
  }

  function picture(stack, layer, head, choose) {
    const name = HeadDetail.title(stack, layer, head);
    const canvas = element("canvas");
    painted.set(canvas, () => paint(canvas, stack, layer, head));
    painted.get(canvas)();
    return button(canvas, () => choose(stack, layer, head), {
      "aria-label": name, "aria-pressed": "false", title: name,
    });
  }

  // In the colours of now.
  const repaint = () => document.querySelectorAll("#thumbnails canvas").forEach((canvas) => painted.get(canvas)());

  // Rows attend, columns are attended to; the stronger the weight, the stronger the colour.
  function paint(canvas, stack, layer, head) {
    const { shades, rows, columns, signs } = Weights.overview(stack, layer, head);
    [canvas.width, canvas.height] = [columns, rows];
    const colours = signs ? [Tints.lessOrMore(-1), Tints.lessOrMore(1)].map(ramp) : [null, ramp(Theme.isDark() ? Page.colours.dark : Page.colours.light)];
    const image = new ImageData(columns, rows);
    shades.forEach((shade, i) => image.data.set(colours[Number(!signs || signs[i] >= 0)][Math.round(shade)], 4 * i));
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  // The colour of each shade, as everywhere.
  function ramp(colours) {
    const colour = d3.piecewise(d3.interpolateRgb, colours);
    return d3.range(Page.shades + 1).map((shade) => {
      const { r, g, b } = d3.color(colour(shade / Page.shades));
      return [r, g, b, 255];
    });
  }

  // A bar at the foot of each picture, of these shares of its width; null: none.
  function bars(shares) {
    document.querySelectorAll("#thumbnails button").forEach((each, i) => {
      each.querySelector("i")?.remove();
      if (!shares || shares[i] < 0.05) return;
      each.append(element("i"));
      each.lastElementChild.style.width = `${100 * shares[i]}%`;
    });
  }

  // Show which picture is open: its place in the order of drawing, or null.
  function mark(place) {
    document.querySelectorAll("#thumbnails button").forEach((button, i) => {
      button.setAttribute("aria-pressed", String(i === place));
    });
  }

  return { draw, size, bars, mark, repaint };
})();
