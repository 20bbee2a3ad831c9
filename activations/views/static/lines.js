"use strict";
// Lines are what a page has most of: one for each weight. Made all at once they freeze the page, so
// where bertviz asks d3 for them, what it asks is kept, and they are made in slices of time. Faint
// ones are not made at all. Everything else d3 does as ever.
const Lines = (() => {
  const SLICE = 100; // milliseconds
  let asked = []; // all that was asked for and is not made yet
  let opacity = null; // what the head view asked last of all the lines there are
  let turn = 0; // the latest call of make()

  // Stands for the lines of some rows of weights, from `.data(...)` on, as d3's selections would.
  class Later {
    constructor(rows, weights) {
      this.rows = rows; // a d3 selection of groups, one for each row of weights
      this.weights = weights; // what d3 is given to find a row's weights: a function of its datum
      this.attributes = [];
      asked.push(this);
    }

    enter() { return this; }

    append() { return this; }

    attr(name, value) {
      this.attributes.push([name, value]);
      return this;
    }
  }

  const { selectAll, attr } = d3.selection.prototype;
  d3.selection.prototype.selectAll = function (selector) {
    const found = selectAll.call(this, selector);
    if (selector === "line") found.data = (weights) => new Later(this, weights);
    return found;
  };
  d3.selection.prototype.attr = function (name, value) {
    if (name === "stroke-opacity" && typeof value === "function") opacity = value;
    return attr.apply(this, arguments);
  };

  // What all lines of a row share: where they start, and whose they are. Asked once a row.
  const SHARED = new Set(["x1", "y1", "stroke", "left-token-index"]);
  const isFunction = ([, value]) => typeof value === "function";
  const isShared = ([name, value]) => !isFunction([name, value]) || SHARED.has(name);

  // Yields after every row of weights.
  function* making(groups, cut) {
    for (const { rows, weights, attributes } of groups) {
      const shared = attributes.filter(isShared);
      const own = attributes.filter((attribute) => !isShared(attribute));
      if (opacity) own.push(["stroke-opacity", opacity]);
      for (const row of rows.nodes()) {
        const data = weights.call(row, row.__data__); // where d3 keeps it
        const model = svgElement("line");
        for (const [name, value] of shared) {
          const found = isFunction([name, value]) ? value.call({ parentNode: row }, data[0], 0) : value;
          model.setAttribute(name, found);
        }
        for (let i = 0; i < data.length; i++) {
          if (!(data[i] > cut)) continue;
          const line = row.appendChild(model.cloneNode(false));
          if (opacity) line.__data__ = data[i]; // the head view asks again
          for (const [name, value] of own) line.setAttribute(name, value.call(line, data[i], i));
        }
        yield;
      }
    }
  }

  // Make the lines asked for, but for those with a weight at or below `cut`. Gives false where
  // others were asked for meanwhile, so that these were left undone.
  async function make(cut) {
    const mine = ++turn;
    const lines = making(asked, cut);
    asked = [];
    let end = performance.now() + SLICE;
    while (!lines.next().done) {
      if (performance.now() < end) continue;
      await nextTask();
      if (turn !== mine) return false;
      end = performance.now() + SLICE;
    }
    return true;
  }

  // How many of all lines are drawn, as a sentence; `whose` is "its " where they are a head's.
  function sentence(drawn, all, whose = "") {
    if (drawn === all) return `${counted(all, "line")} ${all === 1 ? "is" : "are"} drawn.`;
    return `${drawn ? `The ${grouped(drawn)} strongest` : "0"} of ${whose}${grouped(all)} lines are drawn.`;
  }

  function forget() {
    asked = [];
    opacity = null;
    turn++;
  }

  return { make, sentence, forget };
})();
