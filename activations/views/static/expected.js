"use strict";
// What the model, or one of its layers, expects at a place of the text: the likeliest tokens as bars, and what
// really came. A row is a position among those that the page shows; what it predicts comes after its token
// (`next_token`), stands in its place (`masked_token`), or is its label.
const Expected = (() => {
  const data = Page.predictions;
  const ROOM = 5; // entries that are seen at once
  const isNext = data?.of === "next_token";
  const DOT = "●";
  const cameTitle = isNext ? "What came" : "In the text";

  const positionOf = (row) => data.first + row;
  const isOfAll = () => data.positions === 1 && !data.text; // one label for the whole text
  const nameOf = (row) => data.text?.[positionOf(row)] ?? (isOfAll() ? "the text" : `position ${grouped(positionOf(row))}`);

  // What came where row predicts; null where nothing did, or labels are predicted.
  const cameAt = (row) => (data.of === "label" || !data.text ? null : data.text[positionOf(row) + Number(isNext)] ?? null);

  // The likeliest first: {entries: [{name, probability, came}], came: {name, probability, rank}}. `layer` is a
  // position in the lens, null for the model itself. Null where the lens did not look.
  function at(row, layer = null) {
    const place = layer === null ? row : data.lens.rows.indexOf(row);
    if (place < 0) return null;
    const of = (table) => (layer === null ? table[place] : table[layer][place]);
    const source = layer === null ? data : data.lens;
    const name = cameAt(row);
    const [probability, rank] = source.actual && name !== null ? [of(source.actual.probability), of(source.actual.rank)] : [null, 0];
    const came = rank ? { name, probability, rank } : null;
    const entries = of(source.likeliest).map((id, k) => {
      const found = { name: data.names[id], probability: of(source.probability)[k] };
      return { ...found, came: came !== null && found.name === came.name && found.probability === came.probability };
    });
    return { entries, came };
  }

  // -log2 of a probability; of one too small to be a number, null.
  const bitsOf = (probability) => (probability > 0 ? Math.max(-Math.log2(probability), 0) : null);
  const bitsSaid = (probability) => (bitsOf(probability) === null ? "over 149 bits" : `${bitsOf(probability).toFixed(1)} bits`);
  const likely = (probability) => (probability === null ? "–" : probability < 0.005 ? "<.01" : probability.toFixed(2));

  const layerName = (layer) => (layer === null || layer === data.lens.layers.length - 1 ? "Output" : `Layer ${layer}`);
  const where = (row) => (isNext ? `after ${nameOf(row)}` : data.of === "label" ? `of ${nameOf(row)}` : `at ${nameOf(row)}`);
  const isLast = (row) => isNext && positionOf(row) === data.positions - 1;

  function title(row, layer) {
    if (layer !== null && layerName(layer) !== "Output") return [layerName(layer), where(row)];
    if (isLast(row)) return ["Expected next", ""];
    return [data.of === "label" ? "Label" : "Expected", where(row)];
  }

  function show(row, layer) {
    const found = at(row, layer);
    const [what, of] = title(row, layer);
    const rank = found?.came ? `${bitsSaid(found.came.probability)}, rank ${grouped(found.came.rank)}` : "";
    const list = element("div", { class: "expected-list" }, ...(found ? found.entries.map(bar) : []));
    if (found?.entries.length > ROOM) filled(list, { tabindex: "0", role: "group", "aria-label": "All that is expected" }, []);
    byId("expected").replaceChildren(
      element("p", { class: "expected-title" }, element("b", {}, `${what} `, element("bdi", {}, of)), element("span", { class: "small" }, rank)),
      found ? list : element("p", { class: "small" }, "The lens did not look here."),
      ...(found?.came ? [
        ...(found.entries.some(({ came }) => came) ? [] : [element("div", { class: "expected-came" }, bar({ ...found.came, came: true }))]),
        element("p", { class: "small" }, `${DOT} what ${isNext ? "came" : "stands there"}`),
      ] : []),
    );
  }

  function bar({ name, probability, came }) {
    const track = element("span", { class: "score-bar" }, element("i"));
    track.firstElementChild.style.width = `${100 * (probability ?? 0)}%`;
    return element("div", { class: came ? "expected-bar lead" : "expected-bar" },
      element("span", { title: name }, element("bdi", {}, name), came ? ` ${DOT}` : ""), track, element("span", {}, likely(probability)));
  }

  // A line for the read-out of a token of the attention: what is expected there. Empty where that is not the
  // text that was predicted.
  function line(name, position) {
    const row = position - (data?.first ?? 0);
    if (!data || data.of === "label" || data.text?.[position] !== name || !(row in data.likeliest)) return [];
    const { entries, came } = at(row);
    const [what] = isLast(row) ? ["Expected next"] : [`Expected ${isNext ? "after it" : "here"}`];
    return [element("p", { class: "expected-line" }, element("b", {}, what), " ",
      ...entries.slice(0, ROOM).flatMap((each) => [element("bdi", { class: each.came ? "token lead" : "token" }, shorten(each.name, 16)), ` ${likely(each.probability)} `]),
      ...(came ? [element("span", { class: "rest" }, `came: rank ${grouped(came.rank)}`)] : []))];
  }

  return { at, show, line, isNext, isOfAll, isLast, nameOf, cameAt, positionOf, bitsOf, bitsSaid, likely, layerName, where, DOT, cameTitle };
})();
