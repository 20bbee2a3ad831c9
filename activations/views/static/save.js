"use strict";
// What leaves the page: pictures as SVG and PNG, matrices as CSV.
const Save = (() => {
  const LARGEST_SIDE = 16000; // pixels of a canvas that browsers still make
  // What stylesheets decide, written into the picture: as attributes, which need no stylesheet.
  const STYLED = ["fill", "stroke", "stroke-width", "opacity", "font-family", "font-size", "font-style",
    "font-weight", "text-anchor", "text-decoration-line"];
  const NO_XML = /[^\t\n\r -\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/gu; // not allowed in XML
  const OURS = ["class", "style", "id", "role", "tabindex", "aria-label", "aria-pressed", "aria-selected"];

  // A drawing that is shown in the page -> {text, width, height}: SVG without need of a style sheet.
  function standalone(shown, caption) {
    const copy = shown.cloneNode(true);
    const copies = [...copy.querySelectorAll("*")];
    const line = shown.querySelector("line") && getComputedStyle(shown.querySelector("line"));
    [...shown.querySelectorAll("*")].forEach((original, i) => {
      if (original.localName === "line") writeLine(State.whole.difference ? getComputedStyle(original) : line, copies[i]);
      else write(original, copies[i]);
      for (const name of OURS) copies[i].removeAttribute(name);
    });
    const { x, y, width, height } = shown.getBBox();
    const box = [x - 8, y - 8, width + 16, height + 16];
    return compose(box, [...copy.childNodes], caption);
  }

  function write(original, copy) {
    if (original.localName === "title") return;
    const style = getComputedStyle(original);
    if (style.display === "none") {
      copy.remove();
      return;
    }
    for (const name of STYLED) {
      const attribute = name === "text-decoration-line" ? "text-decoration" : name;
      if (original.localName === "text" || !/^(font|text)/.test(name)) copy.setAttribute(attribute, style[name]);
    }
  }

  // Of lines there are too many to ask each: but for their colours in the head view, they are alike.
  function writeLine(style, copy) {
    if (Page.view === "model" || State.whole.difference) copy.setAttribute("stroke", style.stroke);
    copy.setAttribute("stroke-width", style.strokeWidth);
    copy.setAttribute("vector-effect", style.vectorEffect);
  }

  // With a line below that says what it shows.
  function compose([x, y, width, picture], children, caption) {
    const { backgroundColor: paper, color: ink, fontFamily } = getComputedStyle(document.body);
    const height = picture + 22;
    const svg = svgElement("svg", { xmlns: SVG, width, height, viewBox: `${x} ${y} ${width} ${height}` });
    svg.append(
      svgElement("title", {}, document.title),
      svgElement("rect", { x, y, width, height, fill: paper }),
      svgElement("g", {}, ...children),
      svgElement("text", { x: x + 8, y: y + picture + 10, fill: ink, "font-size": "11px", "font-family": fontFamily }, caption),
    );
    const text = new XMLSerializer().serializeToString(svg).replace(NO_XML, "\uFFFD");
    return { text, width, height };
  }

  // The table of small pictures as one.
  function table(shown, caption) {
    const [outer, children] = [shown.getBoundingClientRect(), []];
    for (const cell of shown.children) {
      const box = cell.getBoundingClientRect();
      const [x, y] = [box.left - outer.left, box.top - outer.top];
      const canvas = cell.querySelector("canvas");
      if (canvas) {
        const at = { x, y, width: box.width, height: box.height };
        children.push(
          svgElement("image", { ...at, href: canvas.toDataURL(), "image-rendering": "pixelated", preserveAspectRatio: "none" }),
          svgElement("rect", { ...at, fill: "none", stroke: "#8888" }));
      } else if (cell.textContent) {
        const style = getComputedStyle(cell);
        children.push(svgElement("text", {
          x: x + box.width / 2, y: y + box.height / 2 + 4, "text-anchor": "middle", fill: style.color,
          "font-size": style.fontSize, "font-family": style.fontFamily,
        }, cell.textContent));
      }
    }
    return compose([-8, -8, outer.width + 16, outer.height + 16], children, caption);
  }

  // The end of a file's name: which attention, layer and head (position) it shows. null: all.
  function nameOf(stack, layer, head) {
    const kind = Page.stacks.length > 1 ? `_${stack.name.replaceAll(/[^A-Za-z0-9]+/g, "_").toLowerCase().slice(0, 80)}` : "";
    const one = stack.average ? "_average" : head === null ? "" : `_head_${stack.heads[head]}`;
    return `${kind}${layer === null ? "" : `_layer_${layer}`}${one}${stack.withoutFirst ? "_without_first" : ""}${stack.words ? "_words" : ""}`;
  }

  function download(name, blob) {
    const url = URL.createObjectURL(blob);
    const link = element("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 60000); // it may still be asked for where to put it
  }

  const svgBlob = (text) => new Blob([text], { type: "image/svg+xml" });

  // Twice as many pixels as on the screen, less where a canvas would be too large.
  async function pngBlob({ text, width, height }) {
    const scale = Math.min(2, LARGEST_SIDE / Math.max(width, height));
    const image = new Image();
    const url = URL.createObjectURL(svgBlob(text));
    try {
      image.src = url;
      await image.decode();
      const canvas = element("canvas", { width: Math.ceil(width * scale), height: Math.ceil(height * scale) });
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      return await new Promise((done) => canvas.toBlob(done, "image/png"));
    } finally {
      URL.revokeObjectURL(url);
    }
  }

  // `format` is "svg" or "png"; `name` the file's without an ending.
  async function picture(format, name, made) {
    const blob = format === "svg" ? svgBlob(made.text) : await pngBlob(made);
    if (!blob) throw new Error("the picture is too large");
    download(`${name}.${format}`, blob);
  }

  // A canvas of the page as one picture.
  function canvas(shown, caption) {
    const { width, height } = shown.getBoundingClientRect();
    const image = svgElement("image", { x: 0, y: 0, width, height, href: shown.toDataURL() });
    return compose([-8, -8, width + 16, height + 16], [image], caption);
  }

  const WIDE = 512; // tokens a side; of a longer text a table lists the weights that are there

  // A matrix with its tokens as {text, what}. Each token stands after its position: so names are unique,
  // and no spreadsheet takes one for a formula. Virtual tokens before the text are numbered by their names.
  function csv(picture) {
    const { rowTokens, columnTokens, rowStart, columnStart } = picture;
    const field = (text) => `"${text.replaceAll('"', '""')}"`;
    const named = (tokens, start) => tokens.map((token, i) => field(start + i < 0 ? token : `${start + i} ${token}`));
    const [rows, columns] = [named(rowTokens, rowStart), named(columnTokens, columnStart)];
    if (Math.max(rows.length, columns.length) > WIDE) return listed(picture, rows, columns);
    const matrix = picture.matrix ?? Weights.matrix(picture.stack, picture.layer, picture.head, NaN);
    const lines = matrix.map((row, r) => [rows[r], ...row.map((w) => (Number.isNaN(w) ? "" : decimals(w)))].join(","));
    return {
      text: [["", ...columns].join(","), ...lines, ""].join("\r\n"),
      what: `${rows.length} x ${columns.length} weights`,
    };
  }

  // A line for each weight that the page has.
  function listed({ stack, layer, head }, rows, columns) {
    const lines = ["from,to,weight"];
    for (let r = stack.rows[0]; r < stack.rows[1]; r++) {
      const found = Weights.row(stack, layer, head, r);
      found.columns.forEach((c, i) => {
        const weight = found.q[i] === Page.notANumber ? "" : decimals(Weights.value(stack, found.q[i]));
        lines.push(`${rows[r - stack.rows[0]]},${columns[c - stack.columns[0]]},${weight}`);
      });
    }
    const which = stack.words ? "of words" : `above ${stack.above}`;
    return { text: [...lines, ""].join("\r\n"), what: `the ${grouped(lines.length - 1)} weights ${which}` };
  }

  // Whether the text is on the clipboard now.
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return copyBySelection(text); // no permission, or no such thing in this frame
    }
  }

  function copyBySelection(text) {
    const area = element("textarea", { readonly: "" });
    area.value = text;
    document.body.append(area);
    const focused = document.activeElement;
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return done;
  }

  return { compose, standalone, table, canvas, picture, nameOf, csv, copy, download };
})();
