"use strict";
// A page has more lines than anything else: one for each weight. All at once they would freeze the page.
// So where bertviz asks d3 for lines, the request is kept, and they are made in slices of time, faint
// ones not at all. Everything else in d3 is unchanged.
const Lines = (() => {
  const SLICE = 100; // milliseconds
  let asked = []; // requests whose lines are not made yet
  let opacity = null; // the opacity that the head view last set on all lines, a function
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
  const isFunction = (value) => typeof value === "function";
  const isShared = ([name, value]) => !isFunction(value) || SHARED.has(name);

  // Yields after every row of weights. made(i) is called when all lines of the i-th request are there.
  function* making(groups, cut, made) {
    const isSigned = Boolean(State.whole.difference);
    for (const [i, { rows, weights, attributes }] of groups.entries()) {
      const shared = attributes.filter(isShared);
      const own = attributes.filter((attribute) => !isShared(attribute));
      if (opacity) own.push(["stroke-opacity", opacity]);
      for (const row of rows.nodes()) {
        const data = weights.call(row, row.__data__); // where d3 keeps it
        const model = svgElement("line");
        for (const [name, value] of shared) {
          model.setAttribute(name, isFunction(value) ? value.call({ parentNode: row }, data[0], 0) : value);
        }
        for (let k = 0; k < data.length; k++) {
          const size = isSigned ? Math.abs(data[k]) : data[k];
          if (!(size > cut)) continue;
          const line = row.appendChild(model.cloneNode(false));
          if (opacity) line.__data__ = size; // the head view asks again
          for (const [name, value] of own) line.setAttribute(name, value.call(line, size, k));
          if (isSigned) line.setAttribute("class", data[k] < 0 ? "less" : "more");
        }
        yield;
      }
      made(i);
    }
  }

  // Make the lines asked for, except those with a weight at or below `cut`. Returns false where others
  // were asked for meanwhile, so that these are not complete. `made`: see making().
  async function make(cut, made = () => {}) {
    const mine = ++turn;
    const lines = making(asked, cut, made);
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
