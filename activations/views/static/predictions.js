"use strict";
// What the model predicted: the text tinted by how surprised it was, the likeliest tokens at the one that is
// pointed at, their ranks over the layers, and the lens. Pointing at a token here is the same as in the
// picture of attention, where that is of the same text.
const Predictions = (() => {
  const WORST = 16; // bits, from which on the tint is full
  const LINKS = 4; // the most surprising
  const PIECE = 1000; // tokens that are made at a time
  const { lens } = Predicted;
  let kept = null; // {row, layer} that a click keeps; `layer` null is the model itself
  let shown = null; // what is shown now
  let changed = () => {};
  let [text, card, ranks, grid] = [null, null, null, null];
  let tokens = []; // the elements of the text, by their place; the last may stand behind it

  // ------------------------------------------------------------------------------------------- the parts

  const isNext = () => Predicted.isOf("next_token");
  const isLabel = () => Predicted.isOf("label");
  const legend = (from, tint, to) => {
    const scale = element("i");
    scale.style.background = Tints.scale(tint);
    return element("span", { class: "small legend" }, from, scale, to);
  };

  function textPart() {
    const average = Predicted.average();
    const title = element("h2", {}, isLabel() ? "Labels" : "How surprised the model was");
    const said = isLabel() ? "Point at a token for its labels." : average ? `${average} bits a token on average` : "";
    text = element("div", { class: "surprise-text", role: "group", "aria-label": "The text, token by token", dir: "auto" });
    const parts = [title, element("p", { class: "predictions-line small" }, said, ...(isLabel() ? [] : [legend("expected", Tints.surprise, `${WORST} bits`)])), text];
    return element("div", { class: "surprise" }, ...parts, ...(isLabel() ? [] : [mostSurprising()]));
  }

  async function fillText() {
    const count = Predicted.rows();
    for (let from = 0; from < count; from += PIECE) {
      const made = d3.range(from, Math.min(from + PIECE, count)).map(tokenAt);
      tokens.push(...made);
      text.append(...made);
      if (from + PIECE < count) await nextTask();
    }
    if (isNext()) {
      const [{ text: next, share }] = Predicted.likeliest(count - 1);
      const box = button(`${shorten(next, 40)} ${Predicted.share(share)}`, () => {}, { class: "next", title: "Expected next", "aria-label": `Expected next: ${shorten(next, 40)} ${Predicted.share(share)}` });
      tokens.push(box);
      text.append(box);
    }
    tokens.forEach((each, place) => {
      each.dataset.place = place;
      each.setAttribute("tabindex", "-1");
    });
    stopAt(Predicted.placeOf(firstRow()));
    mark();
  }

  function tokenAt(place) {
    const name = Predicted.token(place);
    const bits = Predicted.bits(Predicted.rowOf(place));
    const [label] = isLabel() ? Predicted.likeliest(place) : [];
    const said = label ? `${shorten(label.text, 40)} ${Predicted.share(label.share)}` : Number.isNaN(bits) ? "" : `${Predicted.inBits(bits)} bits`;
    const made = button("", () => {}, {
      "aria-pressed": "false", "aria-label": `${shorten(name, 60)}, token ${place + Predicted.start}${said && `: ${said}`}`, title: `${shorten(name, 400)}${said && `: ${said}`}`,
    });
    made.append(element("bdi", {}, shorten(name, 40)));
    if (bits > 0) made.style.background = Tints.surprise(bits / WORST).css;
    return made;
  }

  function mostSurprising() {
    const found = d3.range(Predicted.rows()).map((place) => ({ place, bits: Predicted.bits(Predicted.rowOf(place)) }))
      .filter(({ bits }) => bits > 0).sort((a, b) => b.bits - a.bits).slice(0, LINKS);
    if (!found.length) return "";
    return element("p", { class: "most-surprising" }, element("span", { class: "small" }, "Most surprising"), ...found.map(({ place, bits }) =>
      button("", () => keepPlace(place, true), { class: "link" })).map((made, i) => {
      made.append(element("bdi", {}, shorten(Predicted.token(found[i].place), 24)), ` ${Predicted.inBits(found[i].bits)}`);
      return made;
    }));
  }

  function lensPart() {
    grid = element("div", { class: "lens" });
    const [one, where] = isLabel() ? ["label", Predicted.hasText() ? " of each token" : ""] : ["token", isNext() ? " after each token" : " at each token"];
    const some = lens.rows.length < Predicted.rows() ? ` ${grouped(lens.rows.length)} of ${counted(Predicted.rows(), "position")}.` : "";
    const how = lens.kind === "matrices" ? " Through matrices made for this lens." : "";
    const said = `The likeliest ${one}${where}, read from every layer.${how}${some}${isLabel() ? "" : " ● what came."}`;
    return [
      element("h2", {}, `What each layer would say${isNext() ? " next" : ""}`),
      element("p", { class: "predictions-line small" }, said, legend("0", Tints.amount, "1")), grid,
    ];
  }

  // ------------------------------------------------------------------------- the likeliest at one place

  function showCard({ row, layer }) {
    const list = layer === null ? Predicted.likeliest(row) : LensGrid.likeliest(layer, row);
    const actual = layer === null ? Predicted.actual(row) : LensGrid.actual(layer, row);
    const title = layer === null ? `${isLabel() ? "Labels" : "Expected"} ${Predicted.placed(row)}` : `${lens.layers[layer]} ${Predicted.placed(row)}`;
    const bits = actual ? Math.abs(-Math.log2(actual.share ?? NaN)) : NaN;
    const facts = actual ? `${Predicted.inBits(bits)} bits, rank ${actual.rank > 0 ? grouped(actual.rank) : "–"}` : "";
    const items = list.map(item);
    if (actual && !list.some(({ isHit }) => isHit)) {
      items.push(item({ text: Predicted.came(row), share: actual.share, isHit: true }));
      items.at(-1).classList.add("apart");
    }
    card.replaceChildren(
      element("p", {}, element("b", { title }, title), element("span", { class: "small" }, facts)),
      element("ul", { tabindex: items.length > 12 ? "0" : "-1", "aria-label": title }, ...items),
      ...(isLabel() ? [] : [element("p", { class: "small" }, actual ? "● what came" : "\u00a0")]));
  }

  function item({ text: name, share, isHit }) {
    const bar = element("i");
    bar.style.setProperty("--share", `${Math.max(100 * (share ?? 0), share > 0 ? 1 : 0)}%`);
    return element("li", isHit ? { class: "hit" } : {},
      element("span", { title: shorten(name, 400) }, element("bdi", {}, shorten(name, 40)), ...(isHit ? [" ●"] : [])), bar,
      element("span", {}, Predicted.share(share)));
  }

  function showRanks({ row, layer }) {
    const column = LensGrid.columnOf(row);
    ranks.replaceChildren(element("h3", {}, "Rank by layer"), column < 0
      ? element("p", { class: "small" }, "The lens does not cover this position.")
      : RankChart.draw(column, row, layer, Math.max(ranks.clientWidth, 280)));
  }

  // ------------------------------------------------------------------------------ pointing and keeping

  // The row to begin with: what comes after the text, or stands at its first mask.
  function firstRow() {
    if (isNext()) return Predicted.rows() - 1;
    const mask = isLabel() ? 0 : d3.range(Predicted.rows()).find((row) => Predicted.came(row) === null);
    return mask ?? 0;
  }

  function show(what, scrolls = false) {
    shown = what;
    showCard(what);
    if (!lens) return;
    if (ranks.offsetParent) showRanks(what);
    LensGrid.choice(grid, what.row, what.layer, scrolls);
  }

  const back = () => show(kept ?? { row: firstRow(), layer: null });

  function mark() {
    const place = kept && Predicted.placeOf(kept.row);
    tokens.forEach((each, i) => each.setAttribute("aria-pressed", String(i === place)));
    if (place !== null && tokens[place]) bringIntoBox(tokens[place]);
  }

  // A long text scrolls in its own box.
  function bringIntoBox(token) {
    const [box, one] = [text, token].map((each) => each.getBoundingClientRect());
    if (one.top < box.top || one.bottom > box.bottom) text.scrollTop += one.top - box.top - box.height / 2;
  }

  // A token of the text is pointed at, by its place; null: none.
  function light(place) {
    tokens.forEach((each, i) => each.classList.toggle("lit", i === place));
    const row = place === null ? null : Predicted.rowOf(place);
    if (row === null) back();
    else if (shown?.row !== row || shown.layer !== null) show(kept?.row === row ? kept : { row, layer: null }, true);
  }

  const placeAt = ({ target }) => {
    const found = target.closest?.("[data-place]");
    return found ? Number(found.dataset.place) : null;
  };

  // The same token in the picture of attention.
  function point(place) {
    const row = place === null ? null : Predicted.inStack(State.stack, place);
    Tokens.point(row === null || place >= Predicted.rows() ? null : row - State.stack.rows[0]);
    light(place);
  }

  function keep(what, scrolls = false) {
    kept = what;
    mark();
    if (what) show(what, scrolls);
    else back();
  }

  function keepInAttention() {
    const place = kept === null ? null : Predicted.placeOf(kept.row);
    Tokens.keepAt(place === null || place >= Predicted.rows() ? null : Predicted.inStack(State.stack, place));
  }

  // Keep a token by its place; the one that is kept is let go.
  function keepPlace(place, scrolls = false) {
    const row = Predicted.rowOf(place);
    if (row === null) return;
    keep(kept?.row === row && kept.layer === null && !scrolls ? null : { row, layer: null }, true);
    keepInAttention();
    changed();
  }

  function keepCell(row, layer) {
    const last = lens.layers.length - 1;
    const isKept = kept?.row === row && (kept.layer ?? last) === layer;
    keep(isKept ? null : { row, layer: layer === last ? null : layer });
    keepInAttention();
    changed();
  }

  // A token is kept in the picture of attention, or let go there: null.
  function follow(place) {
    if (!Predicted.exist()) return;
    const row = place === null ? null : Predicted.rowOf(place);
    if (kept?.row === row) return;
    keep(row === null ? null : { row, layer: null }, true);
    changed();
  }

  function letGo() {
    if (!kept) return false;
    keep(null);
    changed();
    return true;
  }

  // --------------------------------------------------------------------------------------- the keyboard

  let stop = 0;
  function stopAt(place) {
    tokens[stop]?.setAttribute("tabindex", "-1");
    stop = Math.min(place, tokens.length - 1);
    tokens[stop]?.setAttribute("tabindex", "0");
  }

  function move(event) {
    const place = placeAt(event);
    if (place === null || event.ctrlKey || event.metaKey || event.altKey) return;
    const next = {
      ArrowLeft: () => place - 1, ArrowRight: () => place + 1, Home: () => 0, End: () => tokens.length - 1,
      ArrowUp: () => beyond(place, -1), ArrowDown: () => beyond(place, 1),
    }[event.key]?.();
    if (next === undefined) return;
    event.preventDefault();
    tokens[next]?.focus();
  }

  // The token above or below, in the next line of the text.
  function beyond(place, step) {
    const { left, top } = tokens[place].getBoundingClientRect();
    let best = null;
    let line = null;
    for (let i = place + step; i in tokens; i += step) {
      const box = tokens[i].getBoundingClientRect();
      if (box.top === top) continue;
      line ??= box.top;
      if (box.top !== line) break;
      if (best === null || Math.abs(box.left - left) < best.away) best = { i, away: Math.abs(box.left - left) };
    }
    return best?.i ?? place;
  }

  // ----------------------------------------------------------------------------------------- the page

  // onChange() is called where what is kept has changed.
  function start(onChange) {
    if (!Predicted.exist()) return;
    changed = onChange;
    const root = byId("predictions");
    root.hidden = false;
    card = element("div", { class: "expected", role: "group", "aria-label": "Expected tokens" });
    card.style.setProperty("--rows", Math.min(Predicted.most, 12) + !isLabel()); // their place is kept
    ranks = element("div", { class: "ranks" });
    const top = element("div", { class: "predictions-top" }, ...(Predicted.hasText() ? [textPart()] : []), card, ...(lens ? [ranks] : []));
    top.classList.toggle("no-text", !Predicted.hasText());
    root.append(top, ...(lens ? lensPart() : []));
    if (lens) LensGrid.start(grid, keepCell);
    if (text) listen();
    back();
  }

  // The numbers of attention stand above: more of them must not move what is pointed at here.
  function holdReadout(is) {
    const { style, offsetHeight } = byId("readout");
    if (is && style.height) return;
    style.height = is ? `${offsetHeight}px` : "";
    style.overflow = is ? "hidden" : "";
  }

  function listen() {
    text.addEventListener("mouseover", (event) => {
      holdReadout(true); // which is before "mouseenter"
      if (placeAt(event) !== null) point(placeAt(event));
    });
    text.addEventListener("mouseleave", () => {
      point(null);
      holdReadout(false);
    });
    text.addEventListener("focusin", (event) => {
      stopAt(placeAt(event) ?? stop);
      if (event.target.matches(":focus-visible")) point(placeAt(event));
    });
    text.addEventListener("focusout", () => point(null));
    text.addEventListener("click", (event) => { if (placeAt(event) !== null) keepPlace(placeAt(event)); });
    text.addEventListener("keydown", move);
    fillText();
  }

  function resized() {
    if (!Predicted.exist() || !lens) return;
    LensGrid.draw(grid);
    show(shown);
  }

  // What is kept, for the address: the position of a token in the text, and the layer of a cell.
  function address() {
    if (!kept) return {};
    const token = Predicted.placeOf(kept.row) + Predicted.start;
    return kept.layer === null ? { token } : { token, lens: kept.layer };
  }

  // And from there. Returns which of it is here: {token, lens}.
  function arrive(token, layer) {
    if (!Predicted.exist()) return { token: false, lens: false };
    const place = /^\d+$/.test(token ?? "") ? Number(token) - Predicted.start : -1;
    const row = place < 0 ? null : Predicted.rowOf(place);
    const isHere = row !== null && row < Predicted.rows();
    const hasLayer = isHere && /^\d+$/.test(layer ?? "") && lens !== null && Number(layer) < lens.layers.length && LensGrid.columnOf(row) >= 0;
    const last = lens ? lens.layers.length - 1 : -1;
    keep(isHere ? { row, layer: hasLayer && Number(layer) !== last ? Number(layer) : null } : null, true);
    keepInAttention();
    return { token: isHere, lens: hasLayer };
  }

  // Scroll to it.
  function go() {
    if (!Predicted.exist()) return;
    reveal(byId("predictions"), 0);
    byId("predictions").focus({ preventScroll: true });
  }

  // isThere(is) is called where a person scrolls to it or away.
  function watch(isThere) {
    if (!Predicted.exist()) return;
    new IntersectionObserver(([entry]) => isThere(entry.isIntersecting), { rootMargin: "-40% 0px -60% 0px" }).observe(byId("predictions"));
  }

  function save(format) {
    const made = LensGrid.picture(`${byId("model").textContent}: what each layer would say`);
    return Save.picture(format, `${Page.name}_lens`, made);
  }

  return { start, resized, light, follow, letGo, address, arrive, go, watch, save, hasLens: () => lens !== null };
})();
