"use strict";
// A head's weights as a heat map: rows attend, columns are attended to. Cells of one shade are one
// path, so that a picture of thousands of cells is a few dozen elements, sharp at any size.
const Heat = (() => {
  const LARGEST = 400; // cells a side; of a longer text several tokens share one
  const SHADES = 48;
  const CELL = { least: 2, most: 34, withValue: 34, withLabel: 11 }; // pixels
  const LETTER = 6.6; // pixels a letter of a label takes

  // The strongest of the weights that share a cell.
  function pooled(matrix) {
    const step = Math.ceil(Math.max(matrix.length, matrix[0].length) / LARGEST);
    if (step === 1) return { cells: matrix, step };
    const cells = Array.from({ length: Math.ceil(matrix.length / step) }, () =>
      new Array(Math.ceil(matrix[0].length / step)).fill(0));
    matrix.forEach((row, r) => row.forEach((weight, c) => {
      const [y, x] = [Math.floor(r / step), Math.floor(c / step)];
      cells[y][x] = Math.max(cells[y][x], weight);
    }));
    return { cells, step };
  }

  // Both schemes' colours at once, so that the page's switch, the system's and print change them.
  const LIGHT = d3.interpolateRgbBasis(["#ffffff", "#c9ddf0", "#6aaed6", "#2070b4", "#08306b"]);
  const DARK = d3.interpolateRgbBasis(["#000000", "#0d2f52", "#2370b3", "#6fb2ee", "#d8ecff"]);
  const shade = (t) => `light-dark(${LIGHT(t)}, ${DARK(t)})`;

  // How strong the colour of a weight is, 0 to 1: by the root, or a few percent would not be seen.
  const strength = (weight, full) => Math.sqrt(Math.min(Math.max(weight, 0) / full, 1));

  function fullWeight(picture) {
    if (picture.probabilities) return 1;
    return Math.max(...picture.matrix.map((row) => row.reduce((a, b) => Math.max(a, b), 0))) || 1;
  }

  // The smallest cells that show the values, and those that fit into `room` pixels.
  function geometry(picture, cells, room, withValues) {
    const longest = (tokens) => Math.max(...tokens.map((t) => Array.from(shorten(t, 12)).length));
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
    const { cells } = pooled(picture.matrix);
    return geometry(picture, cells, room, false).size >= CELL.withValue - 4;
  }

  // `picture`: {title, matrix, rowTokens, columnTokens, rowClass, columnClass, probabilities}. Gives
  // the SVG element, for `room` pixels of width (wider where values need it); calls onCell(row,
  // column) with the cell pointed at or gone to by arrow key, as positions in the matrix.
  function draw(picture, room, withValues, onCell) {
    const { cells, step } = pooled(picture.matrix);
    const [place, full] = [geometry(picture, cells, room, withValues), fullWeight(picture)];
    const height = place.bottom + 40;
    const svg = svgElement("svg", {
      width: place.width, height, viewBox: `0 0 ${place.width} ${height}`, tabindex: "0", role: "img",
      "aria-label": `Heat map of ${picture.title}: ${picture.matrix.length} rows attend, ` +
        `${picture.matrix[0].length} columns are attended to. Arrow keys go from cell to cell.`,
    });
    svg.append(
      svgElement("rect", {
        x: place.left, y: place.top, width: cells[0].length * place.size,
        height: cells.length * place.size, fill: shade(0), stroke: "#8888",
      }),
      ...shades(cells, place, full),
      ...labels(picture.rowTokens, picture.rowClass, place, step, true),
      ...labels(picture.columnTokens, picture.columnClass, place, step, false),
      ...(withValues ? values(cells, place, full) : []),
      legend(place, full),
    );
    follow(svg, picture.matrix, place, step, onCell);
    return svg;
  }

  function shades(cells, { left, top, size }, full) {
    const paths = Array.from({ length: SHADES + 1 }, () => []);
    cells.forEach((row, r) => row.forEach((weight, c) => {
      const level = Math.round(strength(weight, full) * SHADES);
      if (level) paths[level].push(`M${left + c * size} ${top + r * size}h${size}v${size}h${-size}z`);
    }));
    return paths.flatMap((parts, level) =>
      (parts.length ? [svgElement("path", { d: parts.join(""), fill: shade(level / SHADES) })] : []));
  }

  function labels(tokens, classOf, { left, top, size }, step, areRows) {
    const every = step * Math.ceil(CELL.withLabel / size);
    const found = [];
    for (let i = 0; i < tokens.length; i += every) {
      const along = (i / step + 0.5) * size + 4;
      const at = areRows
        ? { x: left - 6, y: top + along, "text-anchor": "end" }
        : { transform: `translate(${left + along},${top - 6}) rotate(-90)` };
      found.push(svgElement("text", { ...at, class: classOf(i), "font-size": "11px" },
        shorten(tokens[i], 12), svgElement("title", {}, tokens[i])));
    }
    return found;
  }

  function values(cells, { left, top, size }, full) {
    return cells.flatMap((row, r) => row.flatMap((weight, c) => (weight === 0 ? [] : [
      svgElement("text", {
        x: left + (c + 0.5) * size, y: top + (r + 0.5) * size + 3.5, "text-anchor": "middle",
        "font-size": "10px", class: strength(weight, full) > 0.62 ? "on-strong" : "on-faint",
      }, weight.toFixed(2)),
    ])));
  }

  function legend({ left, bottom }, full) {
    const [width, y] = [150, bottom + 10];
    const group = svgElement("g", {});
    for (let i = 0; i < SHADES; i++) {
      group.append(svgElement("rect", {
        x: left + (i * width) / SHADES, y, width: width / SHADES + 0.5, height: 8, fill: shade((i + 0.5) / SHADES),
      }));
    }
    for (const t of [0, 0.5, 1]) {
      group.append(svgElement("text", { x: left + t * width, y: y + 20, "font-size": "10px", "text-anchor": t ? "middle" : "start" },
        decimals(full * t * t)));
    }
    return group;
  }

  // A frame around the cell that is pointed at.
  function follow(svg, matrix, { left, top, size }, step, onCell) {
    const frame = svgElement("rect", { class: "cell", width: size, height: size, fill: "none", visibility: "hidden" });
    svg.append(frame);
    let [row, column] = [0, 0];
    function go(r, c) {
      if (r < 0 || c < 0 || r >= matrix.length || c >= matrix[0].length) return;
      [row, column] = [r, c];
      frame.setAttribute("x", left + Math.floor(c / step) * size);
      frame.setAttribute("y", top + Math.floor(r / step) * size);
      frame.setAttribute("visibility", "visible");
      onCell(r, c);
    }
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / box.width;
      const index = (client, start, first) => Math.floor(((client - start) * scale - first) / size) * step;
      go(index(event.clientY, box.top, top), index(event.clientX, box.left, left));
    });
    svg.addEventListener("focus", () => go(row, column));
    svg.addEventListener("keydown", (event) => {
      const [down, right] = { ArrowUp: [-step, 0], ArrowDown: [step, 0], ArrowLeft: [0, -step], ArrowRight: [0, step] }[event.key] ?? [];
      if (down === undefined) return;
      event.preventDefault();
      go(row + down, column + right);
    });
  }

  return { draw, hasRoom };
})();
