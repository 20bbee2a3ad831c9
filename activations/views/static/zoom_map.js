"use strict";
// A head of a long text as a matrix to zoom into, on one canvas: the largest weight of each pixel, and
// single weights with their numbers where there is room. Rows attend, columns are attended to.
const ZoomMap = (() => {
  const SHADES = 64;
  const MOST = 640; // pixels a side
  const ROW = { few: 24, many: 14, upTo: 30 }; // pixels a row has at least, where not both sides are long
  const WITH_VALUE = 30; // pixels a cell has where its number is written
  const LABEL = { size: 11, every: 44, token: 13 }; // pixels
  const MARGIN = { left: 84, top: 8, right: 4, bottom: 66 };

  // A map for `room` pixels of width. onCell(row, column) is called with the place pointed at, positions
  // in the stack's tokens; onClick(row, column) with the place that is clicked.
  function make(stack, layer, head, room, onCell, onClick) {
    const whole = { top: stack.rows[0], bottom: stack.rows[1], left: stack.columns[0], right: stack.columns[1] };
    const [rows, columns] = [whole.bottom - whole.top, whole.right - whole.left];
    const isShort = rows <= TextWindow.LONG; // then the long side runs across the whole page
    const least = rows <= ROW.upTo ? ROW.few : ROW.many;
    const wide = Math.min(room - MARGIN.left - MARGIN.right, isShort ? Infinity : MOST);
    const high = isShort ? Math.max((wide * rows) / columns, rows * least) : Math.min((wide * rows) / columns, MOST);
    const inner = { wide: rows > columns ? Math.min(Math.max((high * columns) / rows, columns * ROW.many), wide) : wide, high };
    const size = { wide: inner.wide + MARGIN.left + MARGIN.right, high: inner.high + MARGIN.top + MARGIN.bottom };
    const density = Math.min(devicePixelRatio || 1, 2);
    const canvas = element("canvas", {
      width: Math.round(size.wide * density), height: Math.round(size.high * density), tabindex: "0",
      role: "application", "aria-roledescription": "heat map",
      "aria-label": `Heat map of ${grouped(rows)} rows that attend and ${grouped(columns)} columns that are attended to. ` +
        "Plus and minus zoom, arrow keys move, Home shows all of it.",
    });
    canvas.style.width = `${size.wide}px`;
    const view = { ...whole };
    let waiting = false; // for a frame
    let isOpen = false; // whether the head's weights are there; until then the overview is shown
    let frame = null; // the rows and columns in the window of lines

    function later() {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        paint();
      });
    }

    // ------------------------------------------------------------------------------------ painting

    const cell = () => ({ wide: inner.wide / (view.right - view.left), high: inner.high / (view.bottom - view.top) });
    const x = (column) => MARGIN.left + (column - view.left) * cell().wide;
    const y = (row) => MARGIN.top + (row - view.top) * cell().high;

    // `onPaper`: for print, whose colours the page does not have yet.
    function paint(onPaper = false) {
      const context = canvas.getContext("2d");
      context.setTransform(density, 0, 0, density, 0, 0);
      const [ink, soft] = onPaper ? ["#000", "#333"] : [canvas, byId("status")].map((each) => getComputedStyle(each).color);
      const colours = { ink, soft };
      context.clearRect(0, 0, size.wide, size.high);
      const ramp = rampOf();
      context.fillStyle = ramp[0].css;
      context.fillRect(MARGIN.left, MARGIN.top, inner.wide, inner.high);
      context.drawImage(picture(ramp), MARGIN.left, MARGIN.top, inner.wide, inner.high);
      if (isOpen && cell().wide >= WITH_VALUE && cell().high >= ROW.many) writeValues(context);
      context.strokeStyle = "#8888";
      context.strokeRect(MARGIN.left - 0.5, MARGIN.top - 0.5, inner.wide + 1, inner.high + 1);
      writeLabels(context, colours);
      outline(context, colours);
    }

    // The rows and columns in view as one image: the strongest weight of each pixel.
    function picture(ramp) {
      const [width, height] = [Math.round(inner.wide * density), Math.round(inner.high * density)];
      const levels = new Uint8Array(width * height);
      if (isOpen) fillFromWeights(levels, width, height);
      else fillFromOverview(levels, width, height);
      const image = new ImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer);
      levels.forEach((level, i) => { pixels[i] = ramp[level].bits; });
      const made = element("canvas", { width, height });
      made.getContext("2d").putImageData(image, 0, 0);
      return made;
    }

    function fillFromWeights(levels, width, height) {
      const { wide, high } = { wide: width / (view.right - view.left), high: height / (view.bottom - view.top) };
      const shown = { ...stack, columns: [Math.max(Math.floor(view.left), whole.left), Math.min(Math.ceil(view.right), whole.right)] };
      const span = (place, start, scale, most) => {
        const from = Math.max(Math.floor((place - start) * scale), 0);
        return [from, Math.min(Math.max(Math.ceil((place + 1 - start) * scale), from + 1), most)];
      };
      for (let r = Math.max(Math.floor(view.top), whole.top); r < Math.min(Math.ceil(view.bottom), whole.bottom); r++) {
        const [top, bottom] = span(r, view.top, high, height);
        const { columns, q, isNumber } = Weights.row(shown, layer, head, r);
        if (!isNumber) { // hatched
          for (let py = top; py < bottom; py++) for (let px = (py * 3) % 9; px < width; px += 9) levels[py * width + px] = SHADES / 3;
          continue;
        }
        for (let i = 0; i < columns.length; i++) {
          const level = levelOf(q[i]);
          const [left, right] = span(columns[i], view.left, wide, width);
          for (let py = top; py < bottom; py++) {
            for (let px = left; px < right; px++) if (sizeOf(levels[py * width + px]) < sizeOf(level)) levels[py * width + px] = level;
          }
        }
      }
    }

    function fillFromOverview(levels, width, height) {
      const { shades, rows: down, columns: across, signs } = Weights.overview(stack, layer, head);
      for (let py = 0; py < height; py++) {
        const from = Math.floor((py * down) / height) * across;
        for (let px = 0; px < width; px++) {
          const place = from + Math.floor((px * across) / width);
          levels[py * width + px] = signed(Math.round(shades[place]), signs?.[place] ?? 1);
        }
      }
    }

    // By the root of the weight; raw scores from the least to the largest step. Of a difference, where there
    // is more in B, the levels are further ones.
    const levelOf = (q) => {
      if (q === Page.notANumber) return 0;
      const value = Weights.value(stack, q);
      const share = stack.raw && !stack.difference ? q / 65534 : Math.abs(value);
      return signed(Math.min(Math.round((SHADES - 1) * Math.sqrt(share)), SHADES - 1), stack.difference ? value : 1);
    };
    const signed = (level, sign) => (sign < 0 ? level + SHADES : level);
    const sizeOf = (level) => level % SHADES;

    function writeValues(context) {
      context.font = "10px system-ui, sans-serif";
      context.textAlign = "center";
      context.textBaseline = "middle";
      const shown = { ...stack, columns: [Math.max(Math.floor(view.left), whole.left), Math.min(Math.ceil(view.right), whole.right)] };
      for (let r = Math.max(Math.floor(view.top), whole.top); r < Math.min(Math.ceil(view.bottom), whole.bottom); r++) {
        const { columns, q } = Weights.row(shown, layer, head, r);
        columns.forEach((c, i) => {
          const [cx, cy] = [x(c + 0.5), y(r + 0.5)];
          if (cx < MARGIN.left + 10 || cx > MARGIN.left + inner.wide - 10 || cy < MARGIN.top + 5 || cy > MARGIN.top + inner.high - 5) return;
          const [light, dark] = Page.colours.strong.map((strong) => sizeOf(levelOf(q[i])) / SHADES > strong);
          context.fillStyle = (Theme.isDark() ? dark : !light) ? "#000" : "#fff";
          context.fillText(decimals(Weights.value(stack, q[i])), cx, cy);
        });
      }
    }

    // Tokens where they have room, else positions.
    function writeLabels(context, { ink, soft }) {
      context.font = `${LABEL.size}px system-ui, sans-serif`;
      const label = (side, i, room) => {
        const position = Weights.positionOf(stack, side, i);
        const name = stack[`${side}Tokens`][i];
        return room >= LABEL.token ? cut(name, MARGIN.left - 10, LABEL.size) : position < 0 ? name : grouped(position);
      };
      const every = (scale) => (scale >= LABEL.token ? 1 : round(LABEL.every / scale));
      context.fillStyle = cell().high >= LABEL.token ? ink : soft;
      context.textAlign = "right";
      context.textBaseline = "middle";
      const from = (start, step) => Math.ceil(Math.ceil(start - 0.5) / step) * step;
      for (let r = from(view.top, every(cell().high)); r < view.bottom; r += every(cell().high)) {
        if (y(r + 0.5) < MARGIN.top || r < whole.top || y(r + 0.5) > MARGIN.top + inner.high) continue;
        context.fillText(label("row", r, cell().high), MARGIN.left - 5, y(r + 0.5));
      }
      context.fillStyle = cell().wide >= LABEL.token ? ink : soft;
      for (let c = from(view.left, every(cell().wide)); c < view.right; c += every(cell().wide)) {
        if (x(c + 0.5) < MARGIN.left || c < whole.left || x(c + 0.5) > MARGIN.left + inner.wide) continue;
        context.save();
        context.translate(x(c + 0.5), MARGIN.top + inner.high + 6);
        context.rotate(-Math.PI / 3);
        context.fillText(label("column", c, cell().wide), 0, 0);
        context.restore();
      }
    }

    // A round number of at least this: 1, 2, 5, 10, 20, ...
    function round(least) {
      const ten = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
      return ten * ([1, 2, 5].find((times) => times * ten >= least) ?? 10);
    }

    // Where the lines of the other picture are.
    function outline(context, { ink }) {
      if (!frame) return;
      const inside = (v, from, extent) => Math.min(Math.max(v, from), from + extent);
      const [left, right] = frame.columns.map((c) => inside(x(c), MARGIN.left, inner.wide));
      const [top, bottom] = frame.rows.map((r) => inside(y(r), MARGIN.top, inner.high));
      context.strokeStyle = ink;
      context.lineWidth = 1.5;
      context.strokeRect(left - 1, top - 1, Math.max(right - left, 3) + 2, Math.max(bottom - top, 3) + 2);
      context.lineWidth = 1;
    }

    function rampOf() {
      const scales = stack.difference ? [1, -1].map(Tints.lessOrMore) : [Theme.isDark() ? Page.colours.dark : Page.colours.light];
      return scales.map((scale) => d3.piecewise(d3.interpolateRgb, scale)).flatMap((colours) => Array.from({ length: SHADES }, (_, i) => {
        const { r, g, b } = d3.color(colours(i / (SHADES - 1)));
        return { css: `rgb(${r},${g},${b})`, bits: (255 << 24) | (b << 16) | (g << 8) | r };
      }));
    }

    // -------------------------------------------------------------------------- zooming and moving

    // The least that is in view is a few cells, the most all of it.
    function look(top, left, high, wide) {
      const [tall, broad] = [Math.min(Math.max(high, Math.min(8, rows)), rows), Math.min(Math.max(wide, Math.min(8, columns)), columns)];
      view.top = Math.min(Math.max(top, whole.top), whole.bottom - tall);
      view.left = Math.min(Math.max(left, whole.left), whole.right - broad);
      view.bottom = view.top + tall;
      view.right = view.left + broad;
      canvas.dataset.view = [view.top, view.bottom, view.left, view.right].map((v) => v.toFixed(2)).join();
      later();
    }

    // Around a place in the picture (shares of it), which stays where it is.
    function zoom(factor, across = 0.5, down = 0.5) {
      const [high, wide] = [view.bottom - view.top, view.right - view.left];
      const [tall, broad] = [Math.min(Math.max(high / factor, Math.min(8, rows)), rows), Math.min(Math.max(wide / factor, Math.min(8, columns)), columns)];
      look(view.top + (high - tall) * down, view.left + (wide - broad) * across, tall, broad);
    }

    const move = (down, across) => look(view.top + down, view.left + across, view.bottom - view.top, view.right - view.left);

    function placeOf(event) {
      const box = canvas.getBoundingClientRect();
      const scale = size.wide / box.width;
      const across = ((event.clientX - box.left) * scale - MARGIN.left) / inner.wide;
      const down = ((event.clientY - box.top) * scale - MARGIN.top) / inner.high;
      return {
        across, down, isInside: across >= 0 && across < 1 && down >= 0 && down < 1,
        row: Math.floor(view.top + down * (view.bottom - view.top)),
        column: Math.floor(view.left + across * (view.right - view.left)),
      };
    }

    const pointers = new Map(); // those that are down, by their ids
    let travelled = 0;

    const isWhole = () => view.bottom - view.top >= rows && view.right - view.left >= columns;

    canvas.addEventListener("pointerleave", () => onCell(null));
    canvas.addEventListener("wheel", (event) => {
      const { across, down, isInside } = placeOf(event);
      if (!isInside || (event.deltaY > 0 && isWhole())) return; // there the page scrolls
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 300), across, down);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      pointers.set(event.pointerId, event);
      travelled = 0;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) {
        const place = placeOf(event);
        if (place.isInside) onCell(place.row, place.column);
        return;
      }
      const [was, now] = [placeOf(before), placeOf(event)];
      travelled += Math.abs(event.clientX - before.clientX) + Math.abs(event.clientY - before.clientY);
      if (pointers.size === 2) pinch(event);
      else if (travelled > 3) move((was.down - now.down) * (view.bottom - view.top), (was.across - now.across) * (view.right - view.left));
      pointers.set(event.pointerId, event);
    });
    function pinch(event) {
      const [other] = [...pointers.values()].filter(({ pointerId }) => pointerId !== event.pointerId);
      const before = pointers.get(event.pointerId);
      const apart = (a) => Math.hypot(a.clientX - other.clientX, a.clientY - other.clientY);
      const { across, down } = placeOf({ clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 });
      zoom(apart(event) / Math.max(apart(before), 1), across, down);
    }
    for (const type of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(type, (event) => {
        const wasDown = pointers.delete(event.pointerId);
        const place = placeOf(event);
        if (type === "pointerup" && wasDown && travelled <= 3 && place.isInside) onClick(place.row, place.column);
      });
    }
    canvas.addEventListener("keydown", (event) => {
      const [high, wide] = [(view.bottom - view.top) / 4, (view.right - view.left) / 4];
      const act = {
        "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5),
        ArrowUp: () => move(-high, 0), ArrowDown: () => move(high, 0),
        ArrowLeft: () => move(0, -wide), ArrowRight: () => move(0, wide),
        Home: () => look(whole.top, whole.left, rows, columns),
        Enter: () => onClick(...[[view.top, view.bottom], [view.left, view.right]].map(([a, b]) => Math.floor((a + b) / 2))),
      }[event.key];
      if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      act();
    });

    look(whole.top, whole.left, rows, columns);
    return {
      canvas,
      opened() { isOpen = true; later(); }, // the head's weights are there now
      outline(shown) { frame = shown; later(); },
      zoom, repaint: (onPaper) => (onPaper ? paint(true) : later()),
      whole: () => look(whole.top, whole.left, rows, columns),
    };
  }

  return { make };
})();
