"use strict";
// What the head view adds to bertviz's drawing: the layer, heads to switch by name, tokens.
const HeadView = (() => {
  const BERTVIZ = { label: 110, band: 115, most: 320 }; // pixels: a label, the lines, the lines at most

  // The layers whose lines are drawn at once, as positions.
  function layers() {
    return [Math.max(State.stack.layers.indexOf(State.wanted?.layer ?? State.stack.layers[0]), 0)];
  }

  function show(wanted) {
    State.wanted = wanted;
    State.redraw();
  }

  // bertviz fills this list, where it looks for it. Then it moves to the other controls.
  function prepare(root) {
    byId("layer-part").replaceChildren();
    root.append(element("label", { id: "layer-label" }, "Layer ", element("select", { id: "layer" })));
  }

  // Make room for the lines: all the width that there is, up to a point. bertviz's own is always the same.
  function widen() {
    const bars = TextWindow.isLong(State.whole) ? 90 : 0;
    const band = Math.min(byId("scroll").clientWidth - 2 * BERTVIZ.label - bars - 12, BERTVIZ.most);
    Lines.extra = Math.max(Math.floor(band) - BERTVIZ.band, 0);
    State.svg.querySelector("#right").setAttribute("transform", `translate(${Lines.extra},0)`);
  }

  function dress() {
    byId("layer-part").replaceChildren(byId("layer-label"));
    const select = byId("layer");
    for (const option of select.options) option.textContent = option.value;
    // Before bertviz hears of it: another layer may have other numbers of lines to draw.
    select.addEventListener("change", (event) => {
      event.stopImmediatePropagation();
      show({ ...State.wanted, layer: +select.value });
    }, { capture: true });
    State.wanted = { ...State.wanted, layer: +select.value };
    widen();
    makeHeadButtons();
  }

  const squares = () => Array.from(State.svg.querySelectorAll(":scope > g:last-of-type > rect"));

  // A head that is off differs by a lighter colour only.
  const headsOn = () => squares().map(
    (square, i) => d3.color(square.getAttribute("fill")).hex() === d3.color(d3.schemeCategory10[i % 10]).hex());

  // Those that are on, as positions.
  const heads = () => headsOn().flatMap((isOn, i) => (isOn ? [i] : []));

  function makeHeadButtons() {
    const group = byId("heads");
    group.hidden = State.stack.average;
    group.replaceChildren("Heads");
    squares().forEach((square, i) => {
      const name = `Head ${State.stack.heads[i]}`;
      const made = button(State.stack.heads[i], () => {}, {
        "aria-label": name, title: `${name}: click to switch on or off, double-click (or with the shift key) for it alone`,
      });
      made.style.borderBottomColor = d3.schemeCategory10[i % 10];
      const send = (type) => square.dispatchEvent(new MouseEvent(type));
      made.addEventListener("click", (event) => send(event.shiftKey ? "dblclick" : "click"));
      made.addEventListener("dblclick", (event) => { if (!event.shiftKey) send("dblclick"); });
      square.addEventListener("click", () => switched(false)); // after bertviz's own
      square.addEventListener("dblclick", () => switched(true));
      group.append(made);
    });
    markHeads();
  }

  function switched(isStep) {
    markHeads(isStep);
    drawBars();
    State.switched();
  }

  const tokensOf = (side) => Array.from(State.svg.querySelectorAll(`#${side} > g:last-of-type > g`));
  const drawBars = () => RowBars.draw(tokensOf("left"), State.svg.querySelector("#right"), layers()[0], heads());

  function markHeads(isStep = true) {
    const on = headsOn();
    byId("heads").querySelectorAll("button").forEach((each, i) => {
      each.setAttribute("aria-pressed", String(on[i]));
    });
    const places = heads();
    State.wanted = { ...State.wanted, heads: places.length === on.length ? null : places };
    byId("all-heads").hidden = State.wanted.heads === null;
    State.opened(places.length === 1 ? { layer: layers()[0], head: places[0] } : null, isStep);
  }

  // After the lines: some heads may have been switched while they were made.
  function finish() {
    markHeads();
    Tokens.dress([tokensOf("left"), tokensOf("right")], () => ({ layer: layers()[0], heads: heads() }));
    drawBars();
  }

  function start() {
    byId("all-heads").addEventListener("click", () => {
      show({ ...State.wanted, heads: null });
      byId("heads").querySelector("button").focus(); // this one goes away
    });
  }

  function open(layer, head) {
    show({ layer: State.stack.layers[layer], heads: [head] });
    byId("side").scrollTop = 0;
    const { top, bottom } = byId("head-detail").getBoundingClientRect();
    if (bottom < 100 || top > innerHeight - 100) reveal(byId("head-detail"), 0);
  }

  return { start, layers, heads, prepare, dress, finish, open };
})();
