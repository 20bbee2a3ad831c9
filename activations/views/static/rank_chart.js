"use strict";
// How likely, by rank, each layer found the tokens that the model predicts, and the one that came.
const RankChart = (() => {
  const [HIGH, LEFT, RIGHT, TOP, FOOT] = [206, 40, 108, 14, 26]; // pixels
  const APART = 15; // names at the right
  const NAME = { size: 12, wide: 44 };
  const LEAST_LABEL = 26; // pixels between the layers that are named

  // Of a column of the lens; `marked` is the layer whose list is shown, `width` in pixels.
  function draw(column, row, marked, width) {
    const lines = linesOf(column, row);
    const layers = Predicted.lens.layers.length;
    const x = (layer) => LEFT + (layers < 2 ? 0.5 : layer / (layers - 1)) * (width - LEFT - RIGHT);
    const ranks = lines.flatMap((line) => line.ranks).filter((rank) => rank > 0);
    const most = Math.max(10, ...ranks);
    const y = (rank) => TOP + (Math.log(rank) / Math.log(most)) * (HIGH - TOP - FOOT);
    const svg = svgElement("svg", { width, height: HIGH, viewBox: `0 0 ${width} ${HIGH}`, role: "img", "aria-label": said(lines) });
    svg.append(...grid(most, x(0), x(layers - 1), y), ...axis(layers, x, (x(layers - 1) - x(0)) / Math.max(layers - 1, 1)));
    if (marked !== null) svg.append(svgElement("line", { class: "marked", x1: x(marked), x2: x(marked), y1: TOP - 6, y2: HIGH - FOOT + 6 }));
    svg.append(...lines.map((line) => drawn(line, x, y)), ...names(lines, x(layers - 1) + 9, y));
    return svg;
  }

  // What came is the last line, so that it lies over the others.
  function linesOf(column, row) {
    const { lens } = Predicted;
    const width = lens.rows.length;
    const each = (ranks) => d3.range(lens.layers.length).map(ranks);
    const lines = Predicted.likeliest(row).slice(0, lens.charted).map((item, k) =>
      ({ ...item, ranks: each((layer) => lens.predicted[(layer * width + column) * lens.charted + k]) }));
    const actual = Predicted.actual(row);
    if (actual && lens.actual && !lines.some(({ isHit }) => isHit)) {
      lines.push({ text: Predicted.came(row), share: actual.share, isHit: true, ranks: each((layer) => lens.actual.ranks[layer * width + column]) });
    }
    return lines.sort((a, b) => a.isHit - b.isHit);
  }

  function grid(most, left, right, y) {
    return d3.range(0, Math.floor(Math.log10(most) + 1e-9) + 1).map((power) => 10 ** power).flatMap((rank) => [
      svgElement("line", { class: "grid", x1: left - 6, x2: right, y1: y(rank), y2: y(rank) }),
      svgElement("text", { class: "axis", x: left - 14, y: y(rank) + 4, "text-anchor": "end" }, grouped(rank)),
    ]);
  }

  function axis(layers, x, step) {
    const every = Math.max(Math.ceil(LEAST_LABEL / Math.max(step, 1)), 1);
    const text = (layer, label) => svgElement("text", { class: "axis", x: x(layer), y: HIGH - 8, "text-anchor": "middle" }, label);
    const isNamed = (layer) => layer % every === 0 && x(layers - 1) - x(layer) >= 40;
    return [
      ...d3.range(layers - 1).filter(isNamed).map((layer) => text(layer, Predicted.lens.layers[layer].replace("Layer ", ""))),
      text(layers - 1, Predicted.lens.layers.at(-1)),
    ];
  }

  // Of each layer with a rank; there is a gap where one has none.
  function drawn({ ranks, isHit }, x, y) {
    const path = ranks.map((rank, layer) => (rank > 0 ? `${ranks[layer - 1] > 0 ? "L" : "M"}${x(layer)} ${y(rank)}` : "")).join("");
    const dots = ranks.length > 16 ? [] : ranks.flatMap((rank, layer) =>
      (rank > 0 ? [svgElement("circle", { cx: x(layer), cy: y(rank), r: isHit ? 3.5 : 2.5 })] : []));
    return svgElement("g", { class: isHit ? "hit" : "other" }, svgElement("path", { d: path }), ...dots);
  }

  // At the right, below each other where they would overlap.
  function names(lines, x, y) {
    const places = lines.map((line) => ({ line, at: y(Math.max(line.ranks.at(-1), 1)) })).sort((a, b) => a.at - b.at);
    places.forEach((place, i) => { if (i) place.at = Math.max(place.at, places[i - 1].at + APART); });
    return places.map(({ line, at }) => svgElement("text", { class: line.isHit ? "name hit" : "name", x, y: at + 4 },
      `${cut(line.text, NAME.wide, NAME.size)}${line.isHit ? " ●" : ""} ${Predicted.share(line.share)}`));
  }

  const said = (lines) => lines.map(({ text, ranks, isHit }) =>
    `${shorten(text, 24)}${isHit ? ", which came," : ""} rank ${ranks.map((rank) => rank || "unknown").join(", ")}`).join("; ").slice(0, 2000);

  return { draw };
})();
