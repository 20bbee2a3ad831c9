"use strict";
// A head's weights as a heat map: rows attend, columns are attended to. Cells of one shade are one
// path, so that a picture of thousands of cells is a few dozen elements, sharp at any size.
const HeatMap = (() => {
  const SHADES = 48;
  const CELL = { least: 2, most: 34, withValue: 34, withLabel: 11 }; // pixels
  const LETTER = 6.6; // pixels a letter of a label takes

  // Both schemes' colours at once, so that the page's switch, the system's and print change them.
  const [light, dark] = [Page.colours.light, Page.colours.dark].map((colours) => d3.piecewise(d3.interpolateRgb, colours));
  const shade = (t) => `light-dark(${light(t)}, ${dark(t)})`;

  // The weights without colour and of full colour: 0 and 1, or the least and the most of raw scores.
  function rangeOf(picture) {
    if (picture.probabilities) return [0, 1];
    let [low, high] = [Infinity, -Infinity];
    for (const row of picture.matrix) {
      for (const weight of row) [low, high] = weight === weight ? [Math.min(low, weight), Math.max(high, weight)] : [low, high];
    }
    return low < high ? [low, high] : [0, 1];
  }

  // How strong the colour is, 0 to 1: by the root, or a few percent would not be seen. NaN is nothing.
  const strength = (weight, [low, high]) => Math.sqrt(Math.min(Math.max((weight - low) / (high - low), 0), 1)) || 0;

  // The smallest cells that show the values, and those that fit into `room` pixels.
  function geometry(picture, room, withValues) {
    const cells = picture.matrix;
    const longest = (tokens) => Math.max(...tokens.map((t) => charactersOf(shorten(t, 12)).length));
    const left = longest(picture.rowTokens) * LETTER + 14;
    const top = longest(picture.columnTokens) * LETTER + 14;
    const fitting = Math.min(Math.max((room - left - 4) / cells[0].length, CELL.least), CELL.most);
    const size = withValues ? Math.max(fitting, CELL.withValue) : fitting;
    return {
      left, top, size,
      width: left + cells[0].length * size + 2,
      bottom: top + cells.length * size,
    };
  }

  // Whether the values fit into the cells as they are.
  function hasRoom(picture, room) {
    return geometry(picture, room, false).size >= CELL.withValue - 4;
  }

  // `picture`: {title, matrix, rowTokens, columnTokens, rowClass, columnClass, probabilities}. Gives
  // the SVG element, for `room` pixels of width (wider where values need it); calls onCell(row, column)
  // with the cell pointed at or gone to by arrow key.
  function draw(picture, room, withValues, onCell) {
    const cells = picture.matrix;
    const [place, range] = [geometry(picture, room, withValues), rangeOf(picture)];
    const height = place.bottom + 40;
    const svg = svgElement("svg", {
      width: place.width, height, viewBox: `0 0 ${place.width} ${height}`, tabindex: "0",
      role: "application", "aria-roledescription": "heat map",
      "aria-label": `Heat map of ${picture.title}: ${cells.length} rows attend, ` +
        `${cells[0].length} columns are attended to. Arrow keys go from cell to cell.`,
    });
    svg.append(
      svgElement("rect", {
        x: place.left, y: place.top, width: cells[0].length * place.size,
        height: cells.length * place.size, fill: shade(0), stroke: "#8888",
      }),
      ...shades(cells, place, range),
      ...hatches(cells, place),
      ...labels(picture.rowTokens, picture.rowClass, place, true),
      ...labels(picture.columnTokens, picture.columnClass, place, false),
      ...(withValues ? values(cells, place, range) : []),
      legend(place, range),
    );
    follow(svg, cells, place, onCell);
    return svg;
  }

  function shades(cells, { left, top, size }, range) {
    const paths = Array.from({ length: SHADES + 1 }, () => []);
    cells.forEach((row, r) => row.forEach((weight, c) => {
      const level = Math.round(strength(weight, range) * SHADES);
      if (level) paths[level].push(`M${left + c * size} ${top + r * size}h${size}v${size}h${-size}z`);
    }));
    return paths.flatMap((parts, level) =>
      (parts.length ? [svgElement("path", { d: parts.join(""), fill: shade(level / SHADES) })] : []));
  }

  // What is no number, as in figures: hatched, not empty as a weight of 0.
  function hatches(cells, { left, top, size }) {
    const lines = cells.flatMap((row, r) => row.flatMap((weight, c) =>
      (Number.isNaN(weight) ? [`M${left + c * size} ${top + (r + 1) * size}l${size} ${-size}`] : [])));
    return lines.length ? [svgElement("path", { d: lines.join(""), stroke: "#8888", fill: "none" })] : [];
  }

  function labels(tokens, classOf, { left, top, size }, areRows) {
    const every = Math.ceil(CELL.withLabel / size);
    const found = [];
    for (let i = 0; i < tokens.length; i += every) {
      const along = (i + 0.5) * size + 4;
      const at = areRows
        ? { x: left - 6, y: top + along, "text-anchor": "end" }
        : { transform: `translate(${left + along},${top - 6}) rotate(-90)` };
      found.push(svgElement("text", { ...at, class: classOf(i), "font-size": "11px" },
        shorten(tokens[i], 12), svgElement("title", {}, tokens[i])));
    }
    return found;
  }

  function values(cells, { left, top, size }, range) {
    return cells.flatMap((row, r) => row.flatMap((weight, c) => (!weight ? [] : [
      svgElement("text", {
        x: left + (c + 0.5) * size, y: top + (r + 0.5) * size + 3.5, "text-anchor": "middle",
        "font-size": "10px",
        class: `value ${Page.colours.strong.map((strong) => (strength(weight, range) > strong ? "strong" : "faint")).join("-")}`,
      }, weight.toFixed(2)),
    ])));
  }

  function legend({ left, bottom }, [low, high]) {
    const [width, y] = [150, bottom + 10];
    const group = svgElement("g", {});
    for (let i = 0; i < SHADES; i++) {
      group.append(svgElement("rect", {
        x: left + (i * width) / SHADES, y, width: width / SHADES + 0.5, height: 8, fill: shade((i + 0.5) / SHADES),
      }));
    }
    for (const t of [0, 0.5, 1]) {
      group.append(svgElement("text", { x: left + t * width, y: y + 20, "font-size": "10px", "text-anchor": t ? "middle" : "start" },
        decimals(low + (high - low) * t * t)));
    }
    return group;
  }

  // A frame around the cell that is pointed at.
  function follow(svg, cells, { left, top, size }, onCell) {
    const frame = svgElement("rect", { class: "cell", width: size, height: size, fill: "none", visibility: "hidden" });
    svg.append(frame);
    let [row, column] = [0, 0];
    function go(r, c) {
      if (!(r in cells) || !(c in cells[0])) return;
      [row, column] = [r, c];
      frame.setAttribute("x", left + c * size);
      frame.setAttribute("y", top + r * size);
      frame.setAttribute("visibility", "visible");
      onCell(r, c);
    }
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / box.width;
      const index = (client, start, first) => Math.floor(((client - start) * scale - first) / size);
      go(index(event.clientY, box.top, top), index(event.clientX, box.left, left));
    });
    svg.addEventListener("focus", () => go(row, column));
    svg.addEventListener("keydown", (event) => {
      const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
      if (down === undefined) return;
      event.preventDefault();
      go(row + down, column + right);
    });
  }

  return { draw, hasRoom };
})();
