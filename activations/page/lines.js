"use strict";
// Lines are what a page has most of: one for each weight. Made all at once they freeze the page, so
// where bertviz appends them, what it asks of them is kept, and they are made in slices of time.
// Faint ones are not made at all. Everything else d3 does as ever.
const Lines = (() => {
  const SLICE = 100; // milliseconds
  const SVG = "http://www.w3.org/2000/svg";
  let asked = []; // [d3's places for lines to come, [[attribute, value or function], ...]]
  let opacity = null; // what the head view asked last of all the lines there are
  let turn = 0; // the latest call of make()

  class Later {
    constructor(places) {
      this.attributes = [];
      asked.push([places, this.attributes]);
    }

    attr(name, value) {
      this.attributes.push([name, value]);
      return this;
    }
  }

  const { append, attr } = d3.selection.prototype;
  d3.selection.prototype.append = function (name) {
    return name === "line" ? new Later(this) : append.call(this, name);
  };
  d3.selection.prototype.attr = function (name, value) {
    if (name === "stroke-opacity" && typeof value === "function") opacity = value;
    return attr.apply(this, arguments);
  };

  // Yields after every row of weights.
  function* rows(groups, cut) {
    for (const [places, attributes] of groups) {
      const model = document.createElementNS(SVG, "line"); // with all that is the same for each
      const varying = attributes.filter(([name, value]) => {
        if (typeof value !== "function") model.setAttribute(name, value);
        return typeof value === "function";
      });
      if (opacity) varying.push(["stroke-opacity", opacity]);
      for (const row of places._groups) {
        for (let i = 0; i < row.length; i++) {
          const weight = row[i].__data__;
          if (!(weight > cut)) continue;
          const line = row[i].appendChild(model.cloneNode(false));
          line.__data__ = weight; // where d3 looks for it
          for (const [name, value] of varying) line.setAttribute(name, value.call(line, weight, i));
        }
        yield;
      }
    }
  }

  // Make the lines asked for, but for those with a weight at or below `cut`. Gives false where
  // others were asked for meanwhile, so that these were left undone.
  async function make(cut) {
    const mine = ++turn;
    const making = rows(asked, cut);
    asked = [];
    let end = performance.now() + SLICE;
    while (!making.next().done) {
      if (performance.now() < end) continue;
      await nextTask();
      if (turn !== mine) return false;
      end = performance.now() + SLICE;
    }
    return true;
  }

  function forget() {
    asked = [];
    opacity = null;
    turn++;
  }

  return { make, forget };
})();
