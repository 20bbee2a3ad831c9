"use strict";
// At which rank each layer has what the model expects, and what really came: 1 is the likeliest, on a log scale.
const RankChart = (() => {
  const SIZE = { width: 300, height: 186, left: 44, right: 92, top: 30, bottom: 28 }; // pixels
  const [MOST, APART, OUTPUT] = [5, 14, 34]; // lines of what is expected; pixels between their names, and from Output

  function draw(row, layer) {
    const { lens } = Page.predictions;
    const place = lens ? lens.rows.indexOf(row) : -1;
    byId("ranks").replaceChildren(...(place < 0 ? [] : [chart(row, place, layer)]));
  }

  // {name, ranks, probability, came}, what came last, so that it lies over the others.
  function linesOf(row, place) {
    const { lens } = Page.predictions;
    const { entries, came } = Expected.at(row);
    const lines = entries.slice(0, MOST).map((entry, k) => ({ ...entry, ranks: lens.predicted.map((of) => of[place][k]) }));
    if (came && !lines.some((line) => line.came)) lines.push({ ...came, came: true, ranks: lens.actual.rank.map((of) => of[place]) });
    return lines.sort((a, b) => Number(a.came) - Number(b.came));
  }

  function chart(row, place, layer) {
    const lines = linesOf(row, place);
    const count = lines[0].ranks.length;
    const most = 10 ** Math.max(Math.ceil(Math.log10(Math.max(...lines.flatMap(({ ranks }) => ranks)))), 1);
    const [right, bottom] = [SIZE.width - SIZE.right, SIZE.height - SIZE.bottom];
    const x = d3.scaleLinear().domain([0, Math.max(count - 1, 1)]).range([SIZE.left, right]);
    const y = d3.scaleLog().domain([1, most]).range([SIZE.top, bottom]);
    const said = lines.map(({ name, ranks }) => `${name}: ${ranks.join(", ")}`).join("; ");
    const svg = svgElement("svg", { ...{ width: SIZE.width, height: SIZE.height }, role: "img", "aria-label": `Rank by layer ${Expected.where(row)}. ${said}` });
    svg.append(svgElement("text", { x: 0, y: 12, class: "rank-title" }, "Rank by layer"),
      ...ticks(most).flatMap((rank) => [
        svgElement("line", { x1: SIZE.left - 6, x2: right + 6, y1: y(rank), y2: y(rank), class: "rank-grid" }),
        svgElement("text", { x: SIZE.left - 14, y: y(rank) + 4, "text-anchor": "end" }, grouped(rank))]),
      ...layers(count).map((k) => svgElement("text", { x: x(k), y: SIZE.height - 8, "text-anchor": "middle" }, k === count - 1 ? "Output" : String(k))));
    if (layer !== null) svg.append(svgElement("line", { x1: x(layer), x2: x(layer), y1: SIZE.top, y2: bottom, class: "rank-layer" }));
    for (const line of lines) svg.append(...drawn(line, x, y));
    svg.append(...names(lines, y, right));
    return svg;
  }

  // 1, 10, 100, ... of at most five.
  function ticks(most) {
    const powers = d3.range(0, Math.round(Math.log10(most)) + 1);
    return powers.filter((power) => power % Math.ceil(powers.length / 5) === 0).map((power) => 10 ** power);
  }

  // The layers that have a number: the first, the last, which is called Output, and others with room between.
  function layers(count) {
    const every = Math.max(Math.ceil(count / 6), 1);
    const step = (SIZE.width - SIZE.left - SIZE.right) / Math.max(count - 1, 1);
    return d3.range(0, count).filter((k) => k === count - 1 || (k % every === 0 && (count - 1 - k) * step >= OUTPUT));
  }

  function drawn({ ranks, came }, x, y) {
    const names = came ? { class: "rank-came" } : {};
    const points = ranks.map((rank, k) => [x(k), y(rank)]);
    const dots = ranks.length > 24 ? [] : points.map(([cx, cy]) => svgElement("circle", { cx, cy, r: came ? 3.5 : 2.5, ...names }));
    return [svgElement("polyline", { points: points.map((point) => point.join()).join(" "), ...names }), ...dots];
  }

  // At the ends of the lines, moved apart where they would cover each other.
  function names(lines, y, right) {
    const placed = lines.map((line) => ({ ...line, at: y(line.ranks.at(-1)) + 4 })).sort((a, b) => a.at - b.at);
    placed.forEach((each, i) => { if (i) each.at = Math.max(each.at, placed[i - 1].at + APART); });
    const over = Math.max(placed.at(-1).at - (SIZE.height - 4), 0);
    return placed.map(({ name, probability, came, at }) => svgElement("text", { x: right + 10, y: at - over, ...(came ? { class: "rank-came" } : {}) },
      `${cut(name, 38, 12)}${came ? ` ${Expected.DOT}` : ""} ${Expected.likely(probability)}`));
  }

  return { draw };
})();
