"use strict";
// The page around bertviz's drawing code: it hands bertviz one stack of attention at a time under
// the name bertviz looks for (PYTHON_PARAMS), and adds the controls.
(() => {
  const AT_ONCE = 250000; // lines a browser draws in a few seconds; more only when asked to
  const ON_REQUEST = 1000000;
  const WEIGHTS_AT_ONCE = 2500000; // faint or not, d3 looks at each
  const byId = (id) => document.getElementById(id);

  // bertviz loads its libraries through require.js. They are in the page, so this stands in for
  // it: keep bertviz's function and call it whenever something is to be drawn.
  let bertviz = null;
  window.require = { config() {} };
  window.requirejs = (names, draw) => { bertviz = draw; };

  let stack; // the one shown
  let cut = Page.minWeight; // lines at or below are not drawn
  // {layer, heads} to show: what the address asked for, then what was last chosen, so that the page
  // can be drawn anew at any time. heads are positions; null is all, or no picture opened.
  let wanted = null;
  // Count the calls of show() and openAlone(), so that an earlier one can tell it is outdated.
  let showing = 0;
  let opening = 0;

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

  // ------------------------------------------------------------------------------- the drawing

  const shorten = (text, length) => {
    const characters = Array.from(text);
    return characters.length > length ? characters.slice(0, length - 1).join("") + "…" : text;
  };

  // What bertviz is to draw: these layers and heads (positions) of the stack.
  function parameters(layers, heads) {
    const length = Page.view === "head" ? 13 : 11;
    const labels = (tokens, [from, to]) => tokens.slice(from, to).map((t) => shorten(t, length));
    const attention = {
      name: stack.name,
      attn: lazy(layers.length, (layer) =>
        lazy(heads.length, (head) => Weights.matrix(stack, layers[layer], heads[head]))),
      left_text: labels(stack.rowTokens, stack.rows),
      right_text: labels(stack.columnTokens, stack.columns),
    };
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    return {
      attention: [attention],
      default_filter: "0",
      root_div_id: "drawing",
      include_layers: layers.map((i) => stack.layers[i]),
      layer: wanted?.layer ?? null, // head view
      heads: wanted?.heads ?? null,
      include_heads: heads.map((i) => stack.heads[i]), // model view
      total_heads: Math.max(stack.heads.length, 2), // for one, details would open off the page
      display_mode: dark ? "dark" : "light",
    };
  }

  function callBertviz(params) {
    window.PYTHON_PARAMS = params;
    const log = console.log; // bertviz reports its d3 version and coordinates
    console.log = () => {};
    try {
      bertviz(jQuery, d3);
    } finally {
      console.log = log;
    }
  }

  function makePlace() {
    byId("vis")?.remove();
    const vis = document.createElement("div");
    vis.id = "vis";
    byId("drawing").append(vis);
    return vis;
  }

  // All that is asked for, by bertviz. Gives false where something else was to be drawn meanwhile.
  async function draw() {
    const root = byId("drawing");
    const onLayer = document.activeElement !== null && document.activeElement === byId("layer");
    root.replaceChildren();
    Lines.forget();
    if (Page.view === "head") {
      const label = document.createElement("label");
      const select = document.createElement("select");
      select.id = "layer";
      label.append("Layer ", select);
      root.append(label);
    }
    const vis = makePlace();
    callBertviz(parameters([...stack.layers.keys()], [...stack.heads.keys()]));
    if (Page.view === "head") dressHeadView();
    const svg = vis.firstElementChild;
    svg.remove(); // laid out and painted once, not after every slice of lines
    const done = await Lines.make(cut);
    if (!done) return false;
    vis.append(svg);
    if (Page.view === "head") {
      markHeads(); // some may have been switched meanwhile
      dressTokens();
    } else {
      dressModelView();
    }
    if (onLayer) byId("layer").focus({ preventScroll: true }); // the list is a new one
    return true;
  }

  // Whole tokens on hover, where the drawing shows them shortened; what kind of text they are of.
  function dressTokens() {
    const pair = document.querySelectorAll(
      Page.view === "head" ? "#vis #left, #vis #right" : "#vis g.detail:has(text.token)");
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
  async function show(everything = false) {
    const mine = ++showing;
    byId("status").textContent = everything ? "Drawing… this can take a while." : "Drawing…";
    byId("choice").hidden = true;
    await painted();
    const layers = layersDrawn();
    const counts = await Weights.histogram(stack, layers);
    if (mine !== showing) return;
    const all = Weights.above(stack, counts, Page.minWeight);
    const room = everything ? Infinity : AT_ONCE;
    const weights = counts.reduce((sum, count) => sum + count, 0);
    const tooMany = all > room || (weights > WEIGHTS_AT_ONCE && !everything);
    byId("how").hidden = Page.view === "model" && tooMany; // it tells of lines
    if (Page.view === "model" && tooMany) {
      if (!await drawSummary(mine, counts)) return;
      byId("status").textContent =
        `${number(all > room ? all : weights)} ${all > room ? "lines" : "weights"} are too many to ` +
        "be drawn at once, so each picture shows the weights of a head as a matrix: rows attend, " +
        "columns are attended to. Click one to see its lines.";
    } else {
      cut = all > room ? Math.max(Weights.cutFor(stack, counts, room), Page.minWeight) : Page.minWeight;
      if (!await draw()) return;
      report(all, Weights.above(stack, counts, cut));
    }
    if (Page.view === "model" ? tooMany : all > room) offer(all);
  }

  const painted = () => new Promise((done) => requestAnimationFrame(() => nextTask().then(done)));

  function layersDrawn() {
    if (Page.view === "model") return stack.layers.keys();
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
    button.addEventListener("click", () => show(true));
    choice.append(button, "(this can take half a minute)");
  }

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
        if (isOpen) Lines.make(cut).then((done) => { if (done) dressTokens(); });
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

  // ---------------------------------------------------- the model view of too many lines for one

  async function drawSummary(mine, counts) {
    Lines.forget();
    const full = Weights.full(stack, counts);
    const stillWanted = () => mine === showing;
    if (!await Summary.draw(byId("drawing"), stack, full, toggleAlone, stillWanted)) return false;
    if (wanted?.heads) await openAlone(stack.layers.indexOf(wanted.layer), wanted.heads[0]);
    return true;
  }

  // A picture was chosen: its head is opened, or closed where it is open.
  function toggleAlone(from, layer, head) {
    if (from !== stack) return; // a picture of what was shown before
    const place = String([stack.layers[layer], stack.heads[head]]);
    if (byId("vis")?.dataset.place === place) closeAlone();
    else openAlone(layer, head);
  }

  function closeAlone() {
    opening++;
    Lines.forget();
    byId("vis")?.remove();
    Summary.mark(null);
    wanted = null;
    linkTo(null);
  }

  // The lines of one head, which bertviz draws as what it opens.
  async function openAlone(layer, head) {
    const [mine, during] = [++opening, showing];
    const counts = await Weights.histogram(stack, [layer], [head]);
    if (mine !== opening || during !== showing) return;
    const place = [stack.layers[layer], stack.heads[head]];
    const vis = makePlace();
    vis.dataset.place = String(place);
    cut = Math.max(Page.minWeight, Weights.cutFor(stack, counts, AT_ONCE));
    // As one of many heads the small picture, which is not shown, takes no room.
    callBertviz({ ...parameters([layer], [head]), total_heads: 1000 });
    Lines.forget(); // the small picture's
    vis.querySelector("svg > g > rect:last-child").dispatchEvent(new MouseEvent("click"));
    Summary.mark(layer * stack.heads.length + head);
    wanted = { layer: place[0], heads: [head] };
    linkTo(place);
    const all = Weights.above(stack, counts, Page.minWeight);
    const drawn = Weights.above(stack, counts, cut);
    if (drawn < all) byId("opened").append(`. The ${number(drawn)} strongest of its ${number(all)} lines`);
    if (!await Lines.make(cut)) return;
    dressTokens();
    vis.scrollIntoView({ block: "start" });
  }

  // ------------------------------------------------------------------- from one view to the other

  // A link to the same head in the other view's file, which lies beside this one.
  function linkTo(place) {
    const opened = byId("opened");
    opened.replaceChildren();
    if (!place) return;
    const [layer, head] = place;
    if (!Page.otherPage) {
      opened.append(`Layer ${layer}, Head ${head}`);
      return;
    }
    const link = document.createElement("a");
    const filter = Page.stacks.indexOf(stack);
    link.href = `${encodeURIComponent(Page.otherPage)}#layer=${layer}&head=${head}` +
      (filter ? `&attention=${filter}` : "");
    link.textContent = Page.view === "head" ? "in the model view" : "alone in the head view";
    opened.append(`Layer ${layer}, Head ${head}: see it `, link);
  }

  // #layer=3&head=5 -> what to open; numbers that are not there are ignored.
  function readAddress() {
    const asked = new URLSearchParams(location.hash.slice(1));
    stack = Page.stacks[Number(asked.get("attention") ?? 0)] ?? Page.stacks[0];
    byId("filter").value = String(Page.stacks.indexOf(stack));
    wanted = null;
    linkTo(null);
    const has = (list, key) => asked.has(key) && list.includes(Number(asked.get(key)));
    if (!has(stack.layers, "layer")) return;
    const heads = has(stack.heads, "head") ? [stack.heads.indexOf(Number(asked.get("head")))] : null;
    wanted = { layer: Number(asked.get("layer")), heads };
  }

  // ------------------------------------------------------------------------------------- start

  function fillFilter() {
    const filter = byId("filter");
    Page.stacks.forEach((item, i) => filter.append(new Option(item.name, String(i))));
    byId("filter-label").hidden = Page.stacks.length < 2;
    filter.addEventListener("change", () => {
      const layer = wanted?.layer;
      stack = Page.stacks[Number(filter.value)];
      wanted = stack.layers.includes(layer) ? { layer, heads: null } : null;
      linkTo(null);
      show();
    });
  }

  async function start() {
    try {
      await Weights.restore();
    } catch (error) {
      byId("status").textContent = `The weights in this page are damaged (${error}). Make it again.`;
      return;
    }
    fillFilter();
    readAddress();
    show();
    addEventListener("hashchange", () => { readAddress(); show(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show());
  }

  addEventListener("DOMContentLoaded", start);
})();
