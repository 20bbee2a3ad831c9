"use strict";
// What the head view adds to bertviz's drawing: its place in the row grid, the layer, heads by name.
const HeadView = (() => {
  const BERTVIZ = { top: 30, row: 22.5, label: 110, band: 115, baseline: 15 }; // pixels: where it draws
  const MOST_CHIPS = { short: 16, long: 8 }; // heads; more are chosen by a stepper, beside a window's controls too
  const LONG_PRESS = 500; // milliseconds
  let grid = null; // as RowGrid measures it

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

  function dress() {
    const select = byId("layer");
    for (const option of select.options) option.textContent = option.value;
    // Before bertviz hears of it: another layer may have other numbers of lines to draw.
    select.addEventListener("change", (event) => {
      event.stopImmediatePropagation();
      show({ ...State.wanted, layer: +select.value });
    }, { capture: true });
    State.wanted = { ...State.wanted, layer: +select.value };
    byId("layer-part").replaceChildren(stepper(byId("layer-label"), select, "layer"));
    lay();
    listenToSquares();
    makeHeadButtons();
  }

  // A list of numbers with a button to the one before it and one to the next.
  function stepper(label, select, what) {
    const step = (by) => {
      select.selectedIndex += by;
      select.dispatchEvent(new Event("change"));
    };
    const [back, on] = [[-1, "‹", "Previous"], [1, "›", "Next"]].map(([by, sign, name]) =>
      button(sign, () => step(by), { "aria-label": `${name} ${what}`, id: `${what}-${by < 0 ? "back" : "on"}` }));
    back.disabled = select.selectedIndex <= 0;
    on.disabled = select.selectedIndex === select.length - 1;
    const made = element("span", { class: "stepper" }, back, on);
    back.after(select);
    label.append(made);
    return label;
  }

  // ------------------------------------------------------------------------------------- the row grid

  // Where bertviz draws -> the row grid. What it has written stays; the groups around it are moved and
  // stretched, but for the letters.
  function lay() {
    const { svg, stack, whole } = State;
    grid = RowGrid.of(stack, TextWindow.isLong(whole));
    const { row, label, band } = grid;
    const end = label + band;
    const tall = (from, to) => `translate(${to[0] - from[0] * to[2]},${1 - from[1] * to[3]}) scale(${to[2]},${to[3]})`;
    const [down, top] = [row / BERTVIZ.row, BERTVIZ.top];
    const right = BERTVIZ.label + BERTVIZ.band;
    for (const [side, from, x] of [["left", 0, 0], ["right", right, end]]) {
      const [boxes, tokens] = svg.querySelector(`#${side}`).children;
      boxes.setAttribute("transform", tall([from, top], [x, 1, label / BERTVIZ.label, down]));
      const shift = side === "left" ? label - BERTVIZ.label : end - right;
      [...tokens.children].forEach((token, i) => place(token, i, shift, side === "left" ? BERTVIZ.label - label : right));
    }
    svg.querySelector("#attention").setAttribute("transform",
      tall([BERTVIZ.label, top], [label, 1, band / BERTVIZ.band, down]));
    svg.style.height = `${Math.max(...["rows", "columns"].map((side) => stack[side][1] - stack[side][0])) * row + 2}px`;
    byId("vis").style.width = `${end + label + grid.number + (TextWindow.isLong(whole) ? RowBars.WIDTH + 12 : 0)}px`;
    byId("ends").style.setProperty("--label", `${label}px`);
    byId("ends").style.setProperty("--to", `${end}px`);
  }

  // A token as high as its row, its letters in the middle.
  function place(token, i, shift, x) {
    const { row, label } = grid;
    const baseline = row / 2 + 4.5;
    const y = 1 + i * row - (BERTVIZ.top + i * BERTVIZ.row);
    token.setAttribute("transform", `translate(${shift},${y + baseline - BERTVIZ.baseline})`);
    const background = token.querySelector("rect");
    const top = BERTVIZ.top + i * BERTVIZ.row - (baseline - BERTVIZ.baseline);
    for (const [name, value] of Object.entries({ x, y: top, width: label, height: row, rx: 4 })) background.setAttribute(name, value);
  }

  const geometry = () => grid;

  // ------------------------------------------------------------------------------------------- heads

  const squares = () => Array.from(State.svg.querySelectorAll(":scope > g:last-of-type > rect"));

  // A head that is off differs by a lighter colour only.
  const headsOn = () => squares().map(
    (square, i) => d3.color(square.getAttribute("fill")).hex() === d3.color(d3.schemeCategory10[i % 10]).hex());

  // Those that are on, as positions.
  const heads = () => headsOn().flatMap((isOn, i) => (isOn ? [i] : []));

  function listenToSquares() {
    for (const square of squares()) {
      square.addEventListener("click", () => switched(false)); // after bertviz's own
      square.addEventListener("dblclick", () => switched(true));
    }
  }

  // A click opens a head alone; with the shift key, or held long, it is added or taken away.
  function press(i, adds) {
    const send = (type) => squares()[i].dispatchEvent(new MouseEvent(type));
    if (adds) send("click");
    else if (heads().join() !== String(i)) send("dblclick");
  }

  function makeHeadButtons() {
    const { heads: numbers, average } = State.stack;
    byId("heads-part").hidden = average || numbers.length < 2;
    const most = TextWindow.isLong(State.whole) ? MOST_CHIPS.long : MOST_CHIPS.short;
    byId("heads").replaceChildren(...(numbers.length > most ? [headStepper()] : ["Heads ", ...numbers.map(chip)]));
    markHeads();
  }

  function chip(number, i) {
    const made = button(number, (event) => {
      if (made.dataset.held) delete made.dataset.held;
      else press(i, event.shiftKey);
    }, { "aria-label": `Head ${number}`, title: `Head ${number}; with the shift key: add it, or take it away` });
    made.style.setProperty("--head", d3.schemeCategory10[i % 10]);
    let waiting = 0;
    made.addEventListener("touchstart", () => {
      waiting = setTimeout(() => {
        made.dataset.held = "yes"; // the click that follows is not another
        press(i, true);
      }, LONG_PRESS);
    }, { passive: true });
    for (const type of ["touchend", "touchmove", "touchcancel"]) made.addEventListener(type, () => clearTimeout(waiting));
    return made;
  }

  function headStepper() {
    const select = element("select", { id: "head", "aria-label": "Head" },
      ...State.stack.heads.map((number, i) => new Option(number, i)));
    select.selectedIndex = State.wanted.heads?.[0] ?? -1;
    select.addEventListener("change", () => show({ ...State.wanted, heads: [+select.value] }));
    return stepper(element("label", {}, "Head "), select, "head");
  }

  function switched(isStep) {
    markHeads(isStep);
    drawBars();
    State.switched();
  }

  const tokensOf = (side) => Array.from(State.svg.querySelectorAll(`#${side} > g:last-of-type > g`));
  const drawBars = () => RowBars.draw(grid, layers()[0], heads());

  function markHeads(isStep = true) {
    const on = headsOn();
    byId("heads").querySelectorAll("button[aria-label^='Head ']").forEach((each, i) => {
      each.setAttribute("aria-pressed", String(on[i]));
    });
    const places = heads();
    State.wanted = { ...State.wanted, heads: places.length === on.length ? null : places };
    const chosen = byId("heads").querySelector("[aria-pressed=true]");
    if (chosen) byId("heads-part").scrollLeft = chosen.offsetLeft - byId("heads-part").clientWidth / 2; // where it scrolls
    byId("all-heads").setAttribute("aria-pressed", String(State.wanted.heads === null));
    State.opened(places.length === 1 ? { layer: layers()[0], head: places[0] } : null, isStep);
  }

  // Laid out and painted once, not after every slice of lines.
  async function makeLines(cut, vis) {
    vis.replaceChildren();
    if (!await Lines.make(cut)) return false;
    vis.append(State.svg);
    return true;
  }

  // After the lines: some heads may have been switched while they were made.
  function finish() {
    markHeads();
    Tokens.dress([tokensOf("left"), tokensOf("right")], () => ({ layer: layers()[0], heads: heads() }));
    drawBars();
  }

  // The weights from the row pointed at, beside the tokens attended to: [position among those drawn, weight].
  function writeNumbers(found) {
    byId("numbers")?.remove();
    if (!found.length || !grid.number) return;
    const x = 2 * grid.label + grid.band + 2;
    State.svg.prepend(svgElement("g", { id: "numbers" }, ...found.map(([i, weight]) => // squares are known by being last
      svgElement("text", { x, y: 1 + (i + 0.5) * grid.row + 4 }, short(weight)))));
  }

  // ------------------------------------------------------------------------------------- start

  function start() {
    byId("all-heads").addEventListener("click", () => show({ ...State.wanted, heads: null }));
  }

  // The window has another size.
  function resized() {
    if (!State.isDrawn) return; // it measures when it comes to that
    lay();
    drawBars();
  }

  function open(layer, head, adds = false) {
    if (adds && layer === layers()[0]) {
      press(head, true);
      return;
    }
    show({ layer: State.stack.layers[layer], heads: [head] });
    const { top } = byId("scroll").getBoundingClientRect();
    if (top < 0 || top > innerHeight - 100) reveal(byId("layout"), 0);
  }

  return { start, layers, heads, prepare, dress, makeLines, finish, open, resized, geometry, writeNumbers };
})();
