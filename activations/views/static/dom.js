"use strict";
// Short functions for making elements. Text is inserted only as text: nothing here reads HTML.
const byId = (id) => document.getElementById(id);

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const element = (tag, attributes = {}, ...children) =>
  filled(document.createElement(tag), attributes, children);

const SVG = "http://www.w3.org/2000/svg";
const svgElement = (tag, attributes = {}, ...children) =>
  filled(document.createElementNS(SVG, tag), attributes, children);

function button(label, act, attributes = {}) {
  const made = element("button", { type: "button", ...attributes }, label);
  made.addEventListener("click", act);
  return made;
}

// Cut between what a person takes for characters: an emoji of a family is one. (Firefox knows that
// from 125 on.)
const segmenter = Intl.Segmenter && new Intl.Segmenter("en");
const charactersOf = (text) =>
  segmenter ? Array.from(segmenter.segment(text), ({ segment }) => segment) : Array.from(text);
const shorten = (text, length) => {
  if (text.length <= length) return text;
  const characters = charactersOf(text);
  return characters.length > length ? characters.slice(0, length - 1).join("") + "…" : text;
};

// How wide a text is, in pixels, at this size of the page's letters.
const pen = document.createElement("canvas").getContext("2d");
function widthOf(text, size) {
  pen.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(text).width;
}

// The start of a text that is at most so wide, with the ellipsis at its end.
function cut(text, width, size) {
  if (text.length * size * 1.2 < width || widthOf(text, size) <= width) return text;
  const characters = charactersOf(text);
  let [fits, more] = [0, characters.length];
  while (more - fits > 1) {
    const middle = (fits + more) >> 1;
    if (widthOf(`${characters.slice(0, middle).join("")}…`, size) <= width) fits = middle;
    else more = middle;
  }
  return `${characters.slice(0, fits).join("")}…`;
}

const grouped = (count) => count.toLocaleString("en");
const decimals = (weight) => String(+weight.toFixed(4));
// As numbers stand in cells and beside tokens: .96, <.01
const short = (weight) => (weight > 0 && weight < 0.005 ? "<.01" : weight.toFixed(2).replace(/^0(?=\.)/, "").replace(/^-0/, "−"));
const counted = (count, what) => `${grouped(count)} ${what}${count === 1 ? "" : "s"}`;

// Scroll the page so that an element is visible. Its scrollIntoView() would also scroll the notebook
// around a page in a frame.
function reveal(target, share) {
  const box = target.getBoundingClientRect();
  scrollTo({ top: scrollY + box.top - share * Math.max(innerHeight - box.height, 0) - 48 * (share === 0) });
}

// The tab key stops at one of these elements; the arrow keys go from one to the next. They are in rows of
// `columns`.
function roving(elements, columns) {
  let current = 0;
  elements.forEach((each, i) => {
    each.setAttribute("tabindex", i ? "-1" : "0");
    each.addEventListener("focus", () => {
      elements[current].setAttribute("tabindex", "-1");
      each.setAttribute("tabindex", "0");
      current = i;
    });
    each.addEventListener("keydown", (event) => {
      const rowStart = i - (i % columns);
      const rowEnd = Math.min(rowStart + columns, elements.length) - 1;
      const target = {
        ArrowLeft: columns > 1 ? Math.max(i - 1, rowStart) : i,
        ArrowRight: columns > 1 ? Math.min(i + 1, rowEnd) : i,
        ArrowUp: i - columns,
        ArrowDown: i + columns,
        Home: columns > 1 ? rowStart : 0,
        End: columns > 1 ? rowEnd : elements.length - 1,
      }[event.key];
      if (target === undefined) return;
      event.preventDefault();
      elements[target]?.focus();
    });
  });
}

// Lets the browser do other work. Faster than setTimeout, which waits 4 ms each time.
const nextTask = (() => {
  const channel = new MessageChannel();
  const waiting = [];
  channel.port1.onmessage = () => waiting.shift()();
  return () => new Promise((done) => {
    waiting.push(done);
    channel.port2.postMessage(null);
  });
})();
const painted = () => new Promise((done) => requestAnimationFrame(() => nextTask().then(done)));

// A switch between a few options, of which one is chosen: {value: label}. onChoose(value) is called where
// a person chooses another.
const Choice = {
  make(root, options, onChoose) {
    root.classList.add("switch");
    root.replaceChildren(...Object.entries(options).map(([value, label]) =>
      button(label, () => { if (value !== root.dataset.value) onChoose(value); }, { "data-option": value })));
  },
  set(root, value) {
    root.dataset.value = value;
    for (const each of root.children) each.setAttribute("aria-pressed", String(each.dataset.option === value));
  },
};
