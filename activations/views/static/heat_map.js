"use strict";
// A head's weights as a heat map: rows attend, columns are attended to. Cells of one shade are one
// path, so that a picture of thousands of cells is a few dozen elements, sharp at any size.
const HeatMap = (() => {
  const SHADES = 48;
  const CELL = { least: 16, withValue: 26, withRaw: 44, withLabel: 11.5, roomy: 15 }; // pixels
  const [SLANT, LEGEND] = [34, 140]; // pixels: of the last column's label at the right; the colours
  const ANGLE = -58; // degrees of the columns' labels

  // Both schemes' colours at once, so that the page's switch, the system's and print change them.
  const ramps = [Page.colours.light, Page.colours.dark].map((colours) => d3.piecewise(d3.interpolateRgb, colours));
  const shade = (t) => `light-dark(${ramps.map((ramp) => ramp(t))})`;
  const differences = Page.colours.difference.map((colours) => d3.piecewise(d3.interpolateRgb, colours));
  const shadeOfDifference = (t) => `light-dark(${differences.map((ramp) => ramp((t + 1) / 2))})`;

  // The weights without colour and of full colour: 0 and 1, or the least and the most of raw scores.
  function rangeOf(picture) {
    if (picture.probabilities) return [0, 1];
    if (picture.isDifference) return [-1, 1];
    let [low, high] = [Infinity, -Infinity];
    for (const row of picture.matrix) {
      for (const weight of row) [low, high] = weight === weight ? [Math.min(low, weight), Math.max(high, weight)] : [low, high];
    }
    return low < high ? [low, high] : [0, 1];
  }

  // How strong the colour is, 0 to 1: by the root, or a few percent would not be seen. NaN is nothing.
  // Of a difference, whose range goes from -1, by the root of its size, and 0 to -1 where there is more in B.
  const isSigned = ([low]) => low === -1;
  const strength = (weight, range) => {
    const [low, high] = range;
    if (isSigned(range)) return Math.sign(weight) * Math.sqrt(Math.min(Math.abs(weight), 1)) || 0;
    return Math.sqrt(Math.min(Math.max((weight - low) / (high - low), 0), 1)) || 0;
  };

  const forValues = ({ probabilities, isDifference }) => (probabilities || isDifference ? CELL.withValue : CELL.withRaw);

  // A picture of cells of `wide` x `high` pixels. What stands around them: labels of the rows at the left,
  // of the columns above, slanted, so that the last one reaches over the right edge.
  function geometry(picture, { wide, high, label, top }, withValues) {
    const cells = picture.matrix;
    const least = withValues ? { wide: forValues(picture), high: CELL.least } : { wide: 0, high: 0 };
    const size = { wide: Math.max(wide, least.wide), high: Math.max(high, least.high) };
    return {
      ...size, top, left: label,
      right: label + cells[0].length * size.wide,
      bottom: top + cells.length * size.high,
    };
  }

  // Whether the values fit into the cells as they are.
  const hasRoom = (picture, { wide }) => wide >= forValues(picture);

  // `picture`: {title, matrix, rowTokens, columnTokens, rowClass, columnClass, probabilities}; `sizes`:
  // {wide, high} of a cell, {label, top} of what stands around them. Gives the SVG element; calls
  // onCell(row, column) with the cell pointed at or gone to by arrow key, onCell(null) where none is, and
  // onClick(row, column) with the cell that is clicked.
  function draw(picture, sizes, withValues, onCell, onClick) {
    const cells = picture.matrix;
    const [place, range] = [geometry(picture, sizes, withValues), rangeOf(picture)];
    const [width, height] = [Math.max(place.right + SLANT, place.left + legendWidth(range) + 12), place.bottom + 36];
    const svg = svgElement("svg", {
      width, height, viewBox: `0 0 ${width} ${height}`, tabindex: "0",
      role: "application", "aria-roledescription": "heat map",
      "aria-label": `Heat map of ${picture.title}: ${cells.length} rows attend, ` +
        `${cells[0].length} columns are attended to. Arrow keys go from cell to cell.`,
    });
    svg.append(
      svgElement("rect", {
        class: "paper", x: place.left, y: place.top, width: place.right - place.left, height: place.bottom - place.top, fill: shade(0),
      }),
      ...shades(cells, place, range),
      ...hatches(cells, place),
      ...rowLabels(picture, place),
      ...columnLabels(picture, place),
      ...(withValues ? values(cells, place, range) : []),
      legend(place, range),
    );
    follow(svg, cells, place, onCell, onClick);
    return svg;
  }

  // Frame a row or a column, side 0 or 1; null: none.
  function light(svg, side, index) {
    svg.querySelector(".band")?.remove();
    svg.querySelectorAll("text.lit").forEach((text) => text.classList.remove("lit"));
    if (side === null || !svg.querySelector(`[data-side="${side}"]`)) return;
    const { x, y, width, height } = Object.fromEntries(["x", "y", "width", "height"].map((name) =>
      [name, Number(svg.querySelector(".paper").getAttribute(name))]));
    const [wide, high] = [Number(svg.dataset.wide), Number(svg.dataset.high)];
    svg.append(svgElement("rect", side === 0
      ? { class: "band", x: x - 1, y: y + index * high - 1, width: width + 2, height: high + 2 }
      : { class: "band", x: x + index * wide - 1, y: y - 1, width: wide + 2, height: height + 2 }));
    svg.querySelector(`text[data-side="${side}"][data-index="${index}"]`)?.classList.add("lit");
  }

  function shades(cells, { left, top, wide, high }, range) {
    const paths = Array.from({ length: 2 * SHADES + 1 }, () => []); // those below 0 first
    const gap = Math.min(wide, high) < 8 ? 0 : 1; // or it would eat the cells
    cells.forEach((row, r) => row.forEach((weight, c) => {
      const level = Math.round(strength(weight, range) * SHADES);
      if (level) paths[SHADES + level].push(`M${left + c * wide} ${top + r * high}h${wide - gap}v${high - gap}h${gap - wide}z`);
    }));
    return paths.flatMap((parts, level) =>
      (parts.length ? [svgElement("path", { d: parts.join(""), fill: (isSigned(range) ? shadeOfDifference : shade)(level / SHADES - 1) })] : []));
  }

  // What is no number, as in figures: hatched, not empty as a weight of 0.
  function hatches(cells, { left, top, wide, high }) {
    const lines = cells.flatMap((row, r) => row.flatMap((weight, c) =>
      (Number.isNaN(weight) ? [`M${left + c * wide} ${top + (r + 1) * high}l${wide} ${-high}`] : [])));
    return lines.length ? [svgElement("path", { d: lines.join(""), stroke: "#8888", fill: "none" })] : [];
  }

  // The labels of a side, every one or every second, ... where they have no room. `at` gives where one is.
  function labels(side, tokens, classOf, size, room, at, nameOf) {
    const every = Math.ceil(CELL.withLabel / size);
    const letters = size < CELL.roomy ? 11 : 12;
    return tokens.flatMap((token, i) => (i % every ? [] : [svgElement("text", {
      ...at(i), class: classOf(i), "font-size": `${letters}px`, "data-side": side, "data-index": i,
    }, ...nameOf(i, (text) => cut(text, room, letters)), svgElement("title", {}, token))]));
  }

  const rowLabels = ({ rowTokens, rowClass, rowName }, { left, top, high }) =>
    labels(0, rowTokens, rowClass, high, left - 8, (i) => ({ x: left - 6, y: top + (i + 0.5) * high + 4, "text-anchor": "end" }), rowName);

  const columnLabels = ({ columnTokens, columnClass, columnName }, { left, top, wide }) =>
    labels(1, columnTokens, columnClass, wide, (top - 10) / Math.sin((-ANGLE * Math.PI) / 180), (i) =>
      ({ transform: `translate(${left + (i + 0.5) * wide + 3},${top - 5}) rotate(${ANGLE})` }), columnName);

  function values(cells, { left, top, wide, high: tall }, range) {
    const [low, high] = range;
    const isTold = (weight) => (high === 1 ? Math.abs(weight) >= 0.005 : Boolean(weight)); // the colour says the rest
    return cells.flatMap((row, r) => row.flatMap((weight, c) => (!isTold(weight) ? [] : [
      svgElement("text", {
        x: left + (c + 0.5) * wide, y: top + (r + 0.5) * tall + 4, "text-anchor": "middle", "font-size": "11px",
        class: `value ${Page.colours.strong.map((strong) => (Math.abs(strength(weight, range)) > strong ? "strong" : "faint")).join("-")}`,
      }, short(weight)),
    ])));
  }

  const legendWidth = (range) => (isSigned(range) ? widthOf("more in B", 12) + LEGEND + widthOf("more in A", 12) + 16 : LEGEND);

  // `more in B` and `more in A`, and the colours between them.
  function legendOfDifference({ left, bottom }) {
    const [y, text] = [bottom + 10, { "font-size": "12px" }];
    const group = svgElement("g", { class: "legend" }, svgElement("text", { x: left, y: y + 8, ...text }, "more in B"));
    const from = left + widthOf("more in B", 12) + 8;
    for (let i = 0; i < SHADES; i++) {
      group.append(svgElement("rect", {
        x: from + (i * LEGEND) / SHADES, y, width: LEGEND / SHADES + 0.5, height: 8, fill: shadeOfDifference((2 * i + 1) / SHADES - 1),
      }));
    }
    group.append(svgElement("text", { x: from + LEGEND + 8, y: y + 8, ...text }, "more in A"));
    return group;
  }

  function legend({ left, bottom }, [low, high]) {
    if (isSigned([low])) return legendOfDifference({ left, bottom });
    const y = bottom + 10;
    const group = svgElement("g", { class: "legend" });
    for (let i = 0; i < SHADES; i++) {
      group.append(svgElement("rect", {
        x: left + (i * LEGEND) / SHADES, y, width: LEGEND / SHADES + 0.5, height: 8, fill: shade((i + 0.5) / SHADES),
      }));
    }
    for (const share of [0, 0.1, 0.5, 1]) {
      const x = left + Math.sqrt(share) * LEGEND;
      const value = low || high !== 1 ? decimals(low + (high - low) * share) : String(share).replace("0.", ".");
      group.append(svgElement("text", { x, y: y + 20, "font-size": "11px", "text-anchor": share ? "middle" : "start" }, value));
    }
    return group;
  }

  // The colours of a stack with their numbers, for a picture that is no SVG.
  function scale(stack) {
    const range = stack.difference ? [-1, 1] : stack.raw ? [stack.raw.base, stack.raw.base + 65534 / stack.raw.steps] : [0, 1];
    return svgElement("svg", { width: legendWidth(range) + 40, height: 34, "aria-hidden": "true" }, legend({ left: 20, bottom: -8 }, range));
  }

  // A frame around the cell that is pointed at.
  function follow(svg, cells, { left, top, wide, high }, onCell, onClick) {
    const frame = svgElement("rect", { class: "cell", width: wide, height: high, fill: "none", visibility: "hidden" });
    svg.append(frame);
    Object.assign(svg.dataset, { wide, high });
    let [row, column] = [0, 0];
    function go(r, c) {
      if (!(r in cells) || !(c in cells[0])) return;
      [row, column] = [r, c];
      frame.setAttribute("x", left + c * wide);
      frame.setAttribute("y", top + r * high);
      frame.setAttribute("visibility", "visible");
      onCell(r, c);
    }
    function cellAt(event) {
      const box = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / box.width;
      const index = (client, start, first, size) => Math.floor(((client - start) * scale - first) / size);
      return [index(event.clientY, box.top, top, high), index(event.clientX, box.left, left, wide)];
    }
    function leave() {
      frame.setAttribute("visibility", "hidden");
      onCell(null);
    }
    svg.addEventListener("pointermove", (event) => go(...cellAt(event)));
    svg.addEventListener("pointerleave", ({ pointerType }) => { if (pointerType !== "touch") leave(); });
    svg.addEventListener("click", (event) => {
      const [r, c] = cellAt(event);
      if (!(r in cells) || !(c in cells[0])) return;
      go(r, c);
      onClick(r, c);
    });
    let isPressed = false; // then the focus comes with it, and the click says which cell is meant
    svg.addEventListener("pointerdown", () => { isPressed = true; });
    svg.addEventListener("pointerup", () => { isPressed = false; });
    svg.addEventListener("focus", () => { if (!isPressed) go(row, column); });
    svg.addEventListener("blur", leave);
    svg.addEventListener("keydown", (event) => {
      const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
      if (down === undefined) return;
      event.preventDefault();
      go(row + down, column + right);
    });
  }

  return { draw, light, scale, hasRoom };
})();
