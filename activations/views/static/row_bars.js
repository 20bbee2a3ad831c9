"use strict";
// Beside the lines of a long text, a bar for each row: how much of its attention goes to tokens in view,
// elsewhere, and to weights that were left out of the page.
const RowBars = (() => {
  const [WIDTH, HEIGHT] = [72, 9]; // pixels
  const PARTS = [["shown", "in view"], ["elsewhere", "elsewhere"], ["left", "left out"]];

  // In the row grid of the lines; heads are positions, of which the mean is shown.
  function draw(grid, layer, heads) {
    remove();
    const { stack } = State;
    if (!TextWindow.isLong(State.whole) || stack.raw || !heads.length) return;
    const x = 2 * grid.label + grid.band + grid.number;
    const bars = svgElement("g", { id: "row-bars" });
    for (let i = 0; i < stack.rows[1] - stack.rows[0]; i++) {
      bars.append(barOf(mean(heads.map((head) => Weights.parts(stack, layer, head, stack.rows[0] + i))),
        x, 1 + i * grid.row + (grid.row - HEIGHT) / 2, WIDTH));
    }
    State.svg.prepend(bars); // bertviz's squares are known by being last
    byId("drawing").append(legend(stack));
  }

  function remove() {
    byId("row-bars")?.remove();
    byId("row-bars-legend")?.remove();
  }

  function mean(found) {
    const sound = found.filter(({ isNumber }) => isNumber);
    return sound.length ? PARTS.map(([key]) => sound.reduce((sum, each) => sum + each[key], 0) / sound.length) : null;
  }

  function barOf(parts, x, y, whole) {
    const bar = svgElement("g", {});
    const said = parts ? PARTS.map(([, name], k) => `${name} ${decimals(parts[k])}`).join(", ") : "no numbers";
    bar.append(svgElement("title", {}, said), svgElement("rect", { class: "bar", x, y, width: whole, height: HEIGHT }));
    let at = x;
    (parts ?? []).forEach((part, k) => {
      const width = whole * Math.min(part, 1);
      bar.append(svgElement("rect", { class: `bar ${PARTS[k][0]}`, x: at, y, width, height: HEIGHT }));
      at += width;
    });
    return bar;
  }

  function legend(stack) {
    const isWhole = stack.above <= Weights.ALL_DECIMALS;
    const names = PARTS.filter(([key]) => key !== "left" || !isWhole).map(([key, name]) => [key, key === "left" ? `${name} (weights up to ${stack.above})` : name]);
    return element("p", { id: "row-bars-legend", class: "small" }, "Where each row goes: ",
      ...names.flatMap(([key, name]) => [element("i", { class: `bar ${key}` }), ` ${name} `]));
  }

  return { draw, WIDTH };
})();
