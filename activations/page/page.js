"use strict";
// The page around bertviz's drawing code: it restores the weights, hands bertviz one stack of
// attention at a time under the name bertviz looks for (PYTHON_PARAMS), and adds the controls.
(() => {
  const AT_ONCE = 250000; // lines a browser draws in a few seconds; more only when asked to
  const ON_REQUEST = 1000000;
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const byId = (id) => document.getElementById(id);

  // bertviz loads its libraries through require.js. They are in the page, so this stands in for
  // it: keep bertviz's function and call it whenever something is to be drawn.
  let bertviz = null;
  window.require = { config() {} };
  window.requirejs = (names, draw) => { bertviz = draw; };

  let quantised; // Uint16Array of all stacks
  let stack; // the one shown
  let cut = page.minWeight; // lines at or below are not drawn
  // {layer, heads} to show: what the address asked for, then what was last chosen, so that the page
  // can be drawn anew at any time. heads are positions; null is all, or no picture opened.
  let wanted = null;

  // ------------------------------------------------------------------------------- the weights

  async function restore() {
    const text = atob(byId("page-weights").textContent);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const buffer = await new Response(stream).arrayBuffer();
    const view = new DataView(buffer);
    const littleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
    if (littleEndian) return new Uint16Array(buffer);
    return Uint16Array.from({ length: buffer.byteLength / 2 }, (_, i) => view.getUint16(2 * i, true));
  }

  // NaN and infinities count as nothing: no line, no shade.
  const weight = (q) => (q === page.notANumber ? 0 : stack.base + q / stack.steps);

  function headMatrix(layerIndex, headIndex) {
    const rows = stack.rowTokens.length;
    const columns = stack.columnTokens.length;
    const first = stack.first + (layerIndex * stack.heads.length + headIndex) * rows * columns;
    const matrix = [];
    for (let r = stack.rows[0]; r < stack.rows[1]; r++) {
      const start = first + r * columns;
      const row = quantised.subarray(start + stack.columns[0], start + stack.columns[1]);
      matrix.push(Array.from(row, weight));
    }
    return matrix;
  }

  // An array whose members are made when they are first looked at: only what is drawn is expanded.
  function lazy(length, make) {
    const array = new Array(length);
    for (let i = 0; i < length; i++) {
      Object.defineProperty(array, i, {
        configurable: true,
        enumerable: true,
        get() {
          const value = make(i);
          Object.defineProperty(array, i, { value, writable: true, enumerable: true });
          return value;
        },
      });
    }
    return array;
  }

  // How many weights of these layers lie in each of the 65,536 steps: tells how many lines a cut
  // leaves, and which cut leaves so many lines.
  function histogram(layers) {
    const counts = new Uint32Array(65536);
    const columns = stack.columnTokens.length;
    const layerSize = stack.heads.length * stack.rowTokens.length * columns;
    const rows = stack.rowTokens.length;
    for (const layer of layers) {
      for (let h = 0; h < stack.heads.length; h++) {
        for (let r = stack.rows[0]; r < stack.rows[1]; r++) {
          const start = stack.first + layer * layerSize + (h * rows + r) * columns;
          for (let c = stack.columns[0]; c < stack.columns[1]; c++) counts[quantised[start + c]]++;
        }
      }
    }
    counts[page.notANumber] = 0;
    return counts;
  }

  function linesAbove(counts, threshold) {
    let lines = 0;
    for (let q = 0; q < counts.length; q++) if (weight(q) > threshold) lines += counts[q];
    return lines;
  }

  function cutFor(counts, limit) {
    let lines = 0;
    for (let q = counts.length - 1; q >= 0; q--) {
      // Lines of one weight are drawn together or not at all, but the strongest always are.
      if (lines > 0 && lines + counts[q] > limit) return stack.base + q / stack.steps;
      lines += counts[q];
    }
    return page.minWeight;
  }

  // ------------------------------------------------------------------------------- the drawing

  // Where the drawing code appends a line for a faint weight, nothing is appended: d3 skips the
  // gap and keeps the indices of the others.
  const append = d3.selection.prototype.append;
  d3.selection.prototype.append = function (name) {
    if (name !== "line") return append.call(this, name);
    return this.select(function (value) {
      if (!(value > cut)) return undefined;
      return this.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "line"));
    });
  };

  const shorten = (text, length) => {
    const characters = Array.from(text);
    return characters.length > length ? characters.slice(0, length - 1).join("") + "…" : text;
  };

  function parameters() {
    const length = page.view === "head" ? 13 : 11;
    const labels = (tokens, [from, to]) => tokens.slice(from, to).map((t) => shorten(t, length));
    const attention = {
      name: stack.name,
      attn: lazy(stack.layers.length, (layer) =>
        lazy(stack.heads.length, (head) => headMatrix(layer, head))),
      left_text: labels(stack.rowTokens, stack.rows),
      right_text: labels(stack.columnTokens, stack.columns),
    };
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    return {
      attention: [attention],
      default_filter: "0",
      root_div_id: "drawing",
      include_layers: stack.layers,
      layer: wanted?.layer ?? null, // head view
      heads: wanted?.heads ?? null,
      include_heads: stack.heads, // model view
      total_heads: Math.max(stack.heads.length, 2), // for one, details would open off the page
      display_mode: dark ? "dark" : "light",
    };
  }

  function draw() {
    const root = byId("drawing");
    const onLayer = document.activeElement !== null && document.activeElement === byId("layer");
    root.replaceChildren();
    if (page.view === "head") {
      const label = document.createElement("label");
      const select = document.createElement("select");
      select.id = "layer";
      label.append("Layer ", select);
      root.append(label);
    }
    const vis = document.createElement("div");
    vis.id = "vis";
    root.append(vis);
    window.PYTHON_PARAMS = parameters();
    const log = console.log; // bertviz reports its d3 version and coordinates
    console.log = () => {};
    try {
      bertviz(jQuery, d3);
    } finally {
      console.log = log;
    }
    if (page.view === "head") dressHeadView();
    else dressModelView();
    if (onLayer) byId("layer").focus({ preventScroll: true }); // the list is a new one
    if (page.view === "head") dressTokens();
  }

  // Whole tokens on hover, where the drawing shows them shortened; what kind of text they are of.
  function dressTokens() {
    const pair = document.querySelectorAll(
      page.view === "head" ? "#vis #left, #vis #right" : "#vis g.detail:has(text.token)");
    const sides = [[stack.rowTokens, stack.rows], [stack.columnTokens, stack.columns]];
    pair.forEach((group, side) => {
      const [tokens, [from]] = sides[side];
      group.querySelectorAll("text").forEach((node, i) => {
        const element = document.createElementNS("http://www.w3.org/2000/svg", "title");
        element.textContent = tokens[from + i];
        node.append(element);
        node.classList.toggle("second", stack.second !== null && from + i >= stack.second);
        node.classList.toggle("written", stack.written !== null && from + i >= stack.written);
      });
    });
  }

  // Draw, the strongest lines first where there are too many; say what is not drawn.
  function show() {
    byId("status").textContent = "Drawing…";
    byId("choice").hidden = true;
    afterPainting(() => {
      const counts = histogram(layersDrawn());
      const all = linesAbove(counts, page.minWeight);
      cut = all > AT_ONCE ? Math.max(cutFor(counts, AT_ONCE), page.minWeight) : page.minWeight;
      draw();
      report(all, linesAbove(counts, cut));
      if (cut > page.minWeight) offer(all);
    });
  }

  function layersDrawn() {
    if (page.view === "model") return stack.layers.keys();
    const index = stack.layers.indexOf(wanted?.layer ?? stack.layers[0]);
    return [Math.max(index, 0)];
  }

  const number = (n) => n.toLocaleString("en");

  function report(all, drawn) {
    const faint = `Lines with a weight of ${+cut.toFixed(4)} or less are not drawn`;
    byId("status").textContent = drawn < all
      ? `The ${number(drawn)} strongest of ${number(all)} lines are drawn. ${faint}.`
      : `${number(drawn)} lines are drawn. ${faint}.`;
  }

  function offer(all) {
    const choice = byId("choice");
    choice.hidden = false;
    choice.replaceChildren();
    if (all > ON_REQUEST) {
      choice.append("All of them would freeze the browser. To see the fainter ones, make a page of " +
        "fewer layers, heads or tokens (--layers, --heads, --tokens).");
      return;
    }
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `Draw all ${number(all)} lines`;
    button.addEventListener("click", () => {
      byId("status").textContent = "Drawing… this can take a while.";
      choice.hidden = true;
      afterPainting(() => {
        cut = page.minWeight;
        draw();
        report(all, all);
      });
    });
    choice.append(button, "(this can take half a minute)");
  }

  const afterPainting = (work) => requestAnimationFrame(() => setTimeout(work, 0));

  // ----------------------------------------------------------------------------- the head view

  function dressHeadView() {
    const select = byId("layer");
    for (const option of select.options) option.textContent = option.value;
    // Before bertviz hears of it: another layer may have other numbers of lines to draw.
    select.addEventListener("change", (event) => {
      event.stopImmediatePropagation();
      wanted = { ...wanted, layer: +select.value };
      show();
    }, { capture: true });
    wanted = { ...wanted, layer: +select.value };
    makeHeadButtons();
  }

  const headSquares = () => Array.from(document.querySelectorAll("#vis > svg > g:last-of-type > rect"));

  // bertviz tells a head that is off by a lighter colour only.
  const headsOn = () => headSquares().map(
    (square, i) => d3.color(square.getAttribute("fill")).hex() === d3.color(d3.schemeCategory10[i % 10]).hex());

  function makeHeadButtons() {
    const group = byId("heads");
    group.hidden = false;
    group.replaceChildren("Heads");
    headSquares().forEach((square, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = stack.heads[i];
      button.setAttribute("aria-label", `Head ${stack.heads[i]}`);
      button.title = `Head ${stack.heads[i]}: click to switch on or off, double-click for it alone`;
      button.style.borderBottomColor = d3.schemeCategory10[i % 10];
      for (const type of ["click", "dblclick"]) {
        button.addEventListener(type, () => square.dispatchEvent(new MouseEvent(type)));
        square.addEventListener(type, () => setTimeout(markHeads, 0));
      }
      group.append(button);
    });
    markHeads();
  }

  function markHeads() {
    const on = headsOn();
    byId("heads").querySelectorAll("button").forEach((button, i) => {
      button.setAttribute("aria-pressed", String(on[i]));
    });
    const places = on.flatMap((isOn, i) => (isOn ? [i] : []));
    wanted = { ...wanted, heads: places.length === on.length ? null : places };
    linkTo(places.length === 1 ? [wanted.layer, stack.heads[places[0]]] : null);
  }

  // ---------------------------------------------------------------------------- the model view

  function dressModelView() {
    const regions = document.querySelectorAll("#vis > svg > g > rect:last-child");
    regions.forEach((region, i) => {
      const layer = stack.layers[Math.floor(i / stack.heads.length)];
      const head = stack.heads[i % stack.heads.length];
      region.setAttribute("tabindex", "0");
      region.setAttribute("role", "button");
      region.setAttribute("aria-label", `Layer ${layer}, Head ${head}`);
      region.addEventListener("click", () => setTimeout(() => {
        const isOpen = document.querySelector("#vis .detail") !== null;
        wanted = isOpen ? { layer, heads: [i % stack.heads.length] } : null;
        if (isOpen) dressTokens();
        linkTo(isOpen ? [layer, head] : null);
      }, 0));
      region.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        region.dispatchEvent(new MouseEvent("click"));
      });
      if (wanted && wanted.layer === layer && wanted.heads?.[0] === i % stack.heads.length) {
        region.dispatchEvent(new MouseEvent("click"));
        region.scrollIntoView({ block: "center" });
      }
    });
  }

  // ------------------------------------------------------------------- from one view to the other

  // A link to the same head in the other view's file, which lies beside this one.
  function linkTo(place) {
    const opened = byId("opened");
    opened.replaceChildren();
    if (!place) return;
    const [layer, head] = place;
    if (!page.otherPage) {
      opened.append(`Layer ${layer}, Head ${head}`);
      return;
    }
    const link = document.createElement("a");
    const filter = page.stacks.indexOf(stack);
    link.href = `${encodeURIComponent(page.otherPage)}#layer=${layer}&head=${head}` +
      (filter ? `&attention=${filter}` : "");
    link.textContent = page.view === "head" ? "in the model view" : "alone in the head view";
    opened.append(`Layer ${layer}, Head ${head}: see it `, link);
  }

  // #layer=3&head=5 -> what to open; numbers that are not there are ignored.
  function readAddress() {
    const asked = new URLSearchParams(location.hash.slice(1));
    stack = page.stacks[Number(asked.get("attention") ?? 0)] ?? page.stacks[0];
    byId("filter").value = String(page.stacks.indexOf(stack));
    wanted = null;
    const has = (list, key) => asked.has(key) && list.includes(Number(asked.get(key)));
    if (!has(stack.layers, "layer")) return;
    const heads = has(stack.heads, "head") ? [stack.heads.indexOf(Number(asked.get("head")))] : null;
    wanted = { layer: Number(asked.get("layer")), heads };
  }

  // ------------------------------------------------------------------------------------- start

  function fillFilter() {
    const filter = byId("filter");
    page.stacks.forEach((item, i) => filter.append(new Option(item.name, String(i))));
    byId("filter-label").hidden = page.stacks.length < 2;
    filter.addEventListener("change", () => {
      const layer = wanted?.layer;
      stack = page.stacks[Number(filter.value)];
      wanted = stack.layers.includes(layer) ? { layer, heads: null } : null;
      linkTo(null);
      show();
    });
  }

  async function start() {
    try {
      quantised = await restore();
    } catch (error) {
      byId("status").textContent = `The weights in this page are damaged (${error}). Make it again.`;
      return;
    }
    fillFilter();
    readAddress();
    show();
    addEventListener("hashchange", () => { readAddress(); show(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  }

  addEventListener("DOMContentLoaded", start);
})();
