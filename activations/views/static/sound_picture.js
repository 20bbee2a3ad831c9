"use strict";
// A sound as the model heard it, across the whole page: all of it as a strip with a window, what is in the
// window with the weights of one row over it, and the rows of the matrix below, all on one axis of seconds.
const SoundPicture = (() => {
  const [STRIP, HEARD, ROW, AXIS] = [28, 88, 24, 20]; // pixels of height
  const MOST_ROWS = 24; // at once
  const LEAST = 8; // frames in the window
  const TICK = 72; // pixels between two seconds at least
  const [SOUNDS, WHOLE] = [0.2, 0.75]; // shares of the loudest, and of the sound

  // What a level of grey, or the root of a weight, looks like: [r, g, b] for 0 to 255.
  function ramp() {
    const colours = d3.piecewise(d3.interpolateRgb, Theme.isDark() ? Page.colours.dark : Page.colours.light);
    return Array.from({ length: 256 }, (_, i) => Object.values(d3.rgb(colours(i / 255))).slice(0, 3).map(Math.round));
  }

  // The grey levels of the picture, row by row.
  function levelsOf(bitmap) {
    const made = element("canvas", { width: bitmap.width, height: bitmap.height });
    const context = made.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height).data.filter((_, i) => i % 4 === 0);
  }

  function coloured(levels, width, height, colours) {
    const image = new ImageData(width, height);
    levels.forEach((level, i) => image.data.set([...colours[level], 255], 4 * i));
    const made = element("canvas", { width, height });
    made.getContext("2d").putImageData(image, 0, 0);
    return made;
  }

  // The part with sound, as shares of the whole, with some silence around it.
  function sounding(levels, width) {
    const loud = new Float64Array(width);
    levels.forEach((level, i) => { loud[i % width] += level; });
    const [low, high] = d3.extent(loud);
    const heard = [...loud.keys()].filter((i) => loud[i] > low + SOUNDS * (high - low));
    if (!heard.length) return [0, 1];
    const [first, last] = [heard[0], heard.at(-1) + 1];
    const around = (last - first) * 0.08;
    const [from, to] = [Math.max(first - around, 0) / width, Math.min(last + 3 * around, width) / width];
    return to - from > WHOLE ? [0, 1] : [from, to];
  }

  // See image_picture.js.
  function make(container, picture, onRow) {
    const { stack, layer, head, bitmap } = picture;
    const { seconds } = PictureParts.pictureOf(stack);
    const count = PictureParts.count(stack);
    const levels = levelsOf(bitmap);
    const withSound = sounding(levels, bitmap.width).map((share) => share * count);
    const [firstRow, endRow] = stack.rows;
    const rowsShown = Math.min(endRow - firstRow, MOST_ROWS);
    let [kept, pointed] = [picture.row, null];
    let [from, to] = withSound; // the window, in frames
    let top = topFor(kept); // the first row in view
    let heard = { isDark: null, canvas: null };
    const row = () => pointed ?? kept;

    function topFor(wanted) {
      return Math.min(Math.max(wanted - Math.floor(rowsShown / 2), firstRow), endRow - rowsShown);
    }

    // ---------------------------------------------------------------------------------- elements

    const duration = `${+(count * seconds).toFixed(1)} s`;
    const [strip, over, matrix, axis] = [
      element("canvas", { tabindex: "0", role: "slider", "aria-label": `Window of ${duration} of sound. Arrow keys move it, plus and minus zoom, Home shows all.`, "aria-valuemin": "0", "aria-valuemax": String(count * seconds) }),
      element("canvas", { "aria-hidden": "true" }),
      element("canvas", { tabindex: "0", role: "application", "aria-roledescription": "heat map", "aria-label": `${grouped(endRow - firstRow)} rows that attend to ${grouped(count)} frames. Arrow keys go up and down the rows and along the sound.` }),
      element("canvas", { "aria-hidden": "true" }),
    ];
    const rowNames = Array.from({ length: rowsShown }, (_, i) => rowName(i));
    const names = element("div", { class: "picture-rows" }, ...rowNames);
    const [facts, factsTitle, said] = [element("dl", { class: "picture-facts" }), element("h2"), element("p", { class: "unseen", role: "status" })];
    const zoomed = button("", () => (isWhole() ? look(...withSound) : look(0, count)));
    const range = element("span", { class: "small" });
    const turn = (direction) => button(direction < 0 ? "‹" : "›", () => turnTo(top + direction * rowsShown), { "aria-label": direction < 0 ? "Earlier rows" : "Later rows" });
    const rowControls = endRow - firstRow > rowsShown ? [turn(-1), range, turn(1)] : [];
    const legend = element("span", { class: "picture-scale small", "aria-hidden": "true" }, element("i"),
      ...["0", ".1", ".5", "1"].map((tick) => element("span", {}, tick)));
    container.replaceChildren(element("div", { class: "picture-sound" },
      element("div", { class: "picture-head" }, element("h2", {}, HeadDetail.title(stack, layer, head)),
        element("span", { role: "group", "aria-label": "Window" }, zoomed,
          button("+", () => zoom(1.5), { "aria-label": "Zoom in" }), button("−", () => zoom(1 / 1.5), { "aria-label": "Zoom out" }), ...rowControls),
        legend),
      element("span", { class: "small" }, `all ${duration}`), strip,
      element("span", { class: "small" }, "what it hears"), over,
      names, matrix, element("span"), axis), factsTitle, facts, said);

    // ---------------------------------------------------------------------------------- painting

    const wide = () => Math.max(strip.parentElement.clientWidth - strip.offsetLeft, 120);
    const x = (frame, width) => ((frame - from) / (to - from)) * width;
    const isWhole = () => from === 0 && to === count;
    const paint = () => PictureParts.withOpen(stack, layer, head, paintOpened);

    function paintOpened() {
      const width = wide();
      const colours = ramp();
      if (heard.isDark !== Theme.isDark()) heard = { isDark: Theme.isDark(), canvas: coloured(levels, bitmap.width, bitmap.height, colours) };
      const style = getComputedStyle(container);
      const [ink, paper, soft] = ["--ink", "--paper", "--soft"].map((name) => resolved(style.getPropertyValue(name)));
      const found = PictureParts.weights(stack, layer, head, row());
      paintStrip(width, ink);
      paintHeard(width, found, ink, paper);
      paintMatrix(width, colours, ink, paper);
      paintAxis(width, soft);
      write(found);
    }

    // A colour of the style sheet as a canvas takes it.
    function resolved(colour) {
      axis.style.color = colour;
      return getComputedStyle(axis).color;
    }

    function paintStrip(width, ink) {
      const context = PictureParts.canvas(strip, width, STRIP);
      context.drawImage(heard.canvas, 0, 0, width, STRIP);
      const [left, right] = [from, to].map((frame) => (frame / count) * width);
      [context.strokeStyle, context.lineWidth] = [ink, 2];
      context.strokeRect(Math.max(left, 1), 1, Math.max(Math.min(right, width - 1) - Math.max(left, 1), 4), STRIP - 2);
      strip.setAttribute("aria-valuenow", (from * seconds).toFixed(2));
      strip.setAttribute("aria-valuetext", `${(from * seconds).toFixed(2)} to ${(to * seconds).toFixed(2)} s`);
    }

    function paintHeard(width, { parts, isNumber }, ink, paper) {
      const context = PictureParts.canvas(over, width, HEARD);
      const scale = bitmap.width / count;
      context.imageSmoothingEnabled = to - from > width;
      context.drawImage(heard.canvas, from * scale, 0, (to - from) * scale, bitmap.height, 0, 0, width, HEARD);
      const own = PictureParts.ofRow(stack, row());
      if (own >= 0) { // the row is a frame itself
        context.fillStyle = ink;
        context.fillRect(x(own, width), 0, Math.max(x(own + 1, width) - x(own, width), 1), 3);
      }
      const best = PictureParts.strongest(parts);
      if (!isNumber || parts[best] <= 0) return;
      const colour = d3.schemeCategory10[stack.average ? 4 : stack.heads[head] % 10];
      curve(context, width, parts, parts[best], colour);
      label(context, width, best, ink, paper);
    }

    // As high as the strongest weight of the row, wherever that is.
    function curve(context, width, parts, most, colour) {
      const y = (weight) => HEARD - (Math.max(weight, 0) / most) * (HEARD - 20);
      const [first, last] = [Math.max(Math.floor(from), 0), Math.min(Math.ceil(to), count)];
      context.beginPath();
      context.moveTo(x(first, width), HEARD);
      for (let frame = first; frame < last; frame++) context.lineTo(x(frame + 0.5, width), y(parts[frame]));
      context.lineTo(x(last, width), HEARD);
      context.closePath();
      context.globalAlpha = 0.4;
      context.fillStyle = colour;
      context.fill();
      context.globalAlpha = 1;
      [context.strokeStyle, context.lineWidth] = [colour, 1.5];
      context.stroke();
    }

    // The row and the time of its strongest frame, at the peak.
    function label(context, width, best, ink, paper) {
      if (best + 1 <= from || best >= to) return;
      const between = PictureParts.ofRow(stack, row()) >= 0 ? " to " : " ";
      const text = shorten(PictureParts.rowName(stack, row()), 16) + between + PictureParts.nameOf(stack, best);
      context.font = "600 12px system-ui, sans-serif";
      const half = context.measureText(text).width / 2 + 4;
      const at = Math.min(Math.max(x(best + 0.5, width), half), width - half);
      context.textAlign = "center";
      [context.strokeStyle, context.lineWidth, context.lineJoin] = [paper, 4, "round"];
      context.strokeText(text, at, 14);
      context.fillStyle = ink;
      context.fillText(text, at, 14);
    }

    // The strongest weight of each pixel, by its root, as in the other matrices.
    function paintMatrix(width, colours, ink, paper) {
      const context = PictureParts.canvas(matrix, width, rowsShown * ROW);
      const image = new ImageData(matrix.width, rowsShown);
      for (let r = 0; r < rowsShown; r++) {
        const shades = shadesOf(top + r, matrix.width);
        shades.forEach((shade, px) => image.data.set([...colours[shade], 255], 4 * (r * matrix.width + px)));
      }
      const small = element("canvas", { width: matrix.width, height: rowsShown });
      small.getContext("2d").putImageData(image, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(small, 0, 0, width, rowsShown * ROW);
      context.fillStyle = paper;
      for (let r = 1; r < rowsShown; r++) context.fillRect(0, r * ROW, width, 1);
      if (row() < top || row() >= top + rowsShown) return;
      [context.strokeStyle, context.lineWidth] = [ink, 1.5];
      context.strokeRect(0.75, (row() - top) * ROW + 0.75, width - 1.5, ROW - 1.5);
    }

    function shadesOf(r, pixels) {
      const shades = new Uint8Array(pixels);
      const { columns, q, isNumber } = Weights.row(stack, layer, head, r);
      columns.forEach((column, i) => {
        const frame = PictureParts.ofColumn(stack, column);
        if (frame < 0 || !isNumber || q[i] === Page.notANumber || frame + 1 <= from || frame >= to) return;
        const share = stack.raw ? q[i] / 65534 : Math.min(Weights.value(stack, q[i]), 1);
        const left = Math.max(Math.floor(x(frame, pixels)), 0);
        const right = Math.min(Math.max(Math.ceil(x(frame + 1, pixels)), left + 1), pixels);
        const shade = Math.round(255 * Math.sqrt(share));
        for (let px = left; px < right; px++) if (shades[px] < shade) shades[px] = shade;
      });
      return shades;
    }

    function paintAxis(width, soft) {
      const context = PictureParts.canvas(axis, width, AXIS);
      const [start, end] = [from * seconds, to * seconds];
      const least = ((end - start) * TICK) / width;
      const ten = 10 ** Math.floor(Math.log10(least));
      const step = ten * ([1, 2, 5].find((times) => times * ten >= least) ?? 10);
      const digits = Math.max(-Math.floor(Math.log10(step) + 1e-9), 0);
      [context.fillStyle, context.font, context.textBaseline] = [soft, "11px system-ui, sans-serif", "bottom"];
      for (let tick = Math.ceil(start / step - 1e-9); tick * step <= end; tick++) {
        const at = x((tick * step) / seconds, width);
        context.fillRect(Math.min(at, width - 1), 0, 1, 4);
        context.textAlign = at < 16 ? "left" : at > width - 24 ? "right" : "center";
        context.fillText(`${(tick * step).toFixed(digits)} s`, at, AXIS - 1);
      }
    }

    // ------------------------------------------------------------------------------------- words

    function write({ parts, isNumber }) {
      rowNames.forEach((made, i) => {
        made.setAttribute("aria-current", String(top + i === row()));
        made.title = stack.rowTokens[top + i];
        made.firstElementChild.textContent = PictureParts.rowName(stack, top + i);
      });
      zoomed.textContent = isWhole() ? "Zoom to sound" : `All ${duration}`;
      zoomed.hidden = isWhole() && withSound[0] === 0 && withSound[1] === count;
      range.textContent = `rows ${grouped(top)}–${grouped(top + rowsShown - 1)} of ${grouped(endRow - firstRow)}`;
      factsTitle.replaceChildren(element("bdi", {}, PictureParts.rowName(stack, row())));
      const best = PictureParts.strongest(parts);
      const number = (weight) => (stack.probabilities ? weight.toFixed(2) : decimals(weight));
      const inside = parts.reduce((sum, weight, frame) => sum + (frame + 1 > from && frame < to ? weight : 0), 0);
      const all = parts.reduce((sum, weight) => sum + weight, 0);
      const lines = !isNumber ? [["Weights", "no numbers"]] : [
        ["Looks most at", PictureParts.nameOf(stack, best)], ["Weight there", number(parts[best])],
        ...(stack.probabilities && !isWhole() ? [["In the part shown", number(inside)],
          [`In the other ${((count - to + from) * seconds).toFixed(1)} s`, number(Math.max(all - inside, 0))]] : []),
      ];
      facts.replaceChildren(...lines.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
    }

    function rowName(i) {
      const made = element("div", {}, element("bdi"));
      made.addEventListener("pointerenter", () => show(top + i));
      made.addEventListener("click", () => keep(top + i));
      return made;
    }

    // ------------------------------------------------------------------------------ what is shown

    function show(next) {
      if (next === pointed) return;
      pointed = next;
      paint();
    }

    function keep(next) {
      [kept, pointed] = [Math.min(Math.max(next, firstRow), endRow - 1), null];
      if (kept < top || kept >= top + rowsShown) top = topFor(kept);
      onRow(kept);
      paint();
      PictureParts.withOpen(stack, layer, head, () => {
        const { parts } = PictureParts.weights(stack, layer, head, kept);
        const best = PictureParts.strongest(parts);
        said.textContent = `${PictureParts.rowName(stack, kept)} looks most at ${PictureParts.nameOf(stack, best)}`;
      });
    }

    function turnTo(wanted) {
      top = Math.min(Math.max(wanted, firstRow), endRow - rowsShown);
      paint();
    }

    // The window, inside the sound.
    function look(start, end) {
      const size = Math.min(Math.max(end - start, Math.min(LEAST, count)), count);
      from = Math.min(Math.max(start, 0), count - size);
      to = from + size;
      paint();
    }

    const move = (share) => look(from + share * (to - from), to + share * (to - from));

    // About a place in the window, 0 to 1.
    function zoom(times, at = 0.5) {
      const size = (to - from) / times;
      const centre = from + at * (to - from);
      look(centre - at * size, centre + (1 - at) * size);
    }

    const shareAt = (event, canvas) => {
      const box = canvas.getBoundingClientRect();
      return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    };
    const rowAt = (event) => {
      const box = matrix.getBoundingClientRect();
      return top + Math.min(Math.max(Math.floor(((event.clientY - box.top) / box.height) * rowsShown), 0), rowsShown - 1);
    };

    matrix.addEventListener("pointermove", (event) => {
      const frame = Math.min(Math.floor(from + shareAt(event, matrix) * (to - from)), count - 1);
      PictureParts.withOpen(stack, layer, head, () => {
        const { parts } = PictureParts.weights(stack, layer, head, rowAt(event));
        matrix.title = `${PictureParts.rowName(stack, rowAt(event))} to ${PictureParts.nameOf(stack, frame)}: ${decimals(parts[frame])}`;
      });
      show(rowAt(event));
    });
    matrix.addEventListener("click", (event) => keep(rowAt(event)));
    for (const place of [matrix, names]) place.addEventListener("pointerleave", () => show(null));
    over.addEventListener("click", (event) => { // where frames attend, the frame that is clicked
      const there = PictureParts.rowOf(stack, Math.min(Math.floor(from + shareAt(event, over) * (to - from)), count - 1));
      if (there >= 0) keep(there);
    });
    const drag = (event) => {
      const middle = shareAt(event, strip) * count;
      look(middle - (to - from) / 2, middle + (to - from) / 2);
    };
    strip.addEventListener("pointerdown", (event) => { strip.setPointerCapture(event.pointerId); drag(event); });
    strip.addEventListener("pointermove", (event) => { if (event.buttons) drag(event); });
    for (const place of [over, matrix]) {
      place.addEventListener("wheel", (event) => {
        if (!event.ctrlKey) return; // the page scrolls
        event.preventDefault();
        zoom(Math.exp(-event.deltaY / 300), shareAt(event, place));
      }, { passive: false });
    }
    for (const place of [strip, matrix]) {
      place.addEventListener("keydown", (event) => {
        const rows = place === matrix ? { ArrowUp: () => keep(kept - 1), ArrowDown: () => keep(kept + 1) } : {};
        const act = {
          ...rows, ArrowLeft: () => move(-0.25), ArrowRight: () => move(0.25), "+": () => zoom(1.5),
          "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), Home: () => look(0, count),
        }[event.key];
        if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        act();
      });
    }

    legend.querySelector("i").style.background = `linear-gradient(to right, ${Page.colours.light.map(
      (colour, i) => `light-dark(${colour}, ${Page.colours.dark[i]})`)})`;
    paint();
    return { paint, stop: () => {} };
  }

  // The row to begin with: a frame of the part with sound, or a token in the middle, as the first and last
  // are rarely words.
  function firstRow(stack, bitmap) {
    const [from, to] = sounding(levelsOf(bitmap), bitmap.width);
    const heard = PictureParts.rowOf(stack, Math.floor(((from + to) / 2) * PictureParts.count(stack)));
    return heard >= 0 ? heard : Math.floor((stack.rows[0] + stack.rows[1] - 1) / 2);
  }

  return { make, firstRow };
})();
