"use strict";
// What is shown now, and bertviz's code, which draws it. bertviz gets one stack of attention at a time
// under the name it looks for (PYTHON_PARAMS).
const Limits = {
  atOnce: 250000, // lines a browser draws in a few seconds
  asLines: 64, // tokens a side; above, the model view shows matrices unless lines are asked for
};

const State = {
  whole: null, // one of Page.stacks as it is looked at
  stack: null, // the part of it whose lines are drawn: all of it, or a window of a long text
  average: false, // the mean over a layer's heads in their place
  withoutFirst: false, // the first token hidden
  words: false, // tokens merged to words, where they can be
  least: Page.minWeight, // lines with this weight or less are not drawn
  cut: Page.minWeight, // nor, where there are too many, those with this weight or less
  // {layer, heads} to show: what the address asked for, then what was last chosen, so that the page
  // can be drawn again at any time. heads are positions; null is all, or no picture opened.
  wanted: null,
  svg: null, // what bertviz has drawn
  isDrawn: false, // whether all of it is there
  reveals: false, // whether a head was just asked for and must be scrolled to
  pictures: "", // what a head is in the model view: "lines", "matrices", or as it fits
  // Called where a head is on its own, {layer, head} as positions, or none is: null.
  opened: () => {},
  switched: () => {}, // heads were switched on or off
  pointed: () => {}, // a token was pointed at, {side, index, layer, heads}, or none: null
  kept: () => {}, // a click keeps a token, {side, i}, a position in the stack's tokens, or lets go: null
  redraw: () => {},
  failed: () => {}, // with an error, where the page is damaged
};

const Bertviz = (() => {
  const DETAIL_LABEL = 76; // pixels that a token has in a head that it opens
  // bertviz loads its libraries through require.js. They are in the page, so this stands in for
  // it: keep bertviz's function and call it whenever something is to be drawn.
  let bertviz = null;
  window.require = { config() {} };
  const loaded = new Promise((done) => {
    window.requirejs = (names, draw) => {
      bertviz = draw;
      done();
    };
  });

  // An array whose members are made when they are first read: only what is drawn takes memory.
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

  // Parameters for bertviz, to draw these layers and heads (positions) of a stack, in an element by its id.
  function parameters(stack, layers, heads, root = "drawing") {
    const { wanted } = State;
    const width = Page.view === "head" ? RowGrid.room() : DETAIL_LABEL;
    const labels = (tokens, [from, to]) => tokens.slice(from, to).map((t) => cut(t, width, 13));
    const attention = {
      name: stack.name,
      attn: lazy(layers.length, (layer) =>
        lazy(heads.length, (head) => Weights.matrix(stack, layers[layer], heads[head]))),
      left_text: labels(stack.rowTokens, stack.rows),
      right_text: labels(stack.columnTokens, stack.columns),
    };
    return {
      attention: [attention],
      default_filter: "0",
      root_div_id: root,
      include_layers: layers.map((i) => stack.layers[i]),
      layer: wanted?.layer ?? null, // head view
      heads: wanted?.heads ?? null,
      include_heads: heads.map((i) => stack.heads[i]), // model view
      total_heads: Math.max(stack.of.heads.length, 2), // for one, details would open off the page
      display_mode: Theme.isDark() ? "dark" : "light",
    };
  }

  // Let bertviz draw into a new element, and return it.
  function drawn(params) {
    const root = byId(params.root_div_id);
    const vis = element("div", { id: "vis" }); // where it looks for it
    root.querySelector(":scope > :has(> svg)")?.remove(); // what was drawn before
    root.append(vis);
    window.PYTHON_PARAMS = params;
    const log = console.log; // bertviz reports its d3 version and coordinates
    console.log = () => {};
    try {
      bertviz(jQuery, d3);
    } finally {
      console.log = log;
    }
    return vis;
  }

  // All of what is shown.
  function draw() {
    const { stack } = State;
    const vis = drawn(parameters(stack, [...stack.layers.keys()], [...stack.heads.keys()]));
    State.svg = vis.firstElementChild;
    return vis;
  }

  // The lines of one head of the model view, which bertviz draws as what it opens.
  function drawAlone(stack, layer, head) {
    Lines.forget();
    // With many heads, bertviz makes the small picture, which is not shown, so small that it takes no room.
    const vis = drawn({ ...parameters(stack, [layer], [head], "head-lines"), total_heads: 1000 });
    vis.id = "head-vis";
    Lines.forget(); // the small picture's
    vis.querySelector("svg > g > rect:last-child").dispatchEvent(new MouseEvent("click"));
    return vis;
  }

  return { loaded, draw, drawAlone };
})();
