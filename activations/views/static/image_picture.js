"use strict";
// An image as the model saw it, dark where a row's attention does not go; the row is a patch or another
// token. Beside it the same row in every head, and the patches that get most.
const ImagePicture = (() => {
  const [LARGEST, SMALL] = [504, 92]; // pixels a side
  const [SHADOW, DARKEST] = [[11, 13, 16], 0.82]; // laid over a patch without attention
  const [LISTED, NAMED] = [6, 3]; // patches, and other tokens, that have a line of their own
  const MOST_FROM = 120; // other tokens that have a button

  // `picture`: {stack, layer, head, bitmap, row}. onRow(row) is called with a row that is kept, open(head)
  // with a head that is chosen. Gives {paint, stop}.
  function make(container, picture, onRow, open) {
    const { stack, layer, head, bitmap } = picture;
    const { grid } = PictureParts.pictureOf(stack);
    const size = (room, most) => {
      const scale = Math.min(Math.min(room, most) / bitmap.width, most / bitmap.height);
      return [Math.round(bitmap.width * scale), Math.round(bitmap.height * scale)];
    };
    let [kept, pointed] = [picture.row, null];
    let shown = []; // the weights of the patches
    let asked = 0; // counts what the small pictures were asked to show
    const row = () => pointed ?? kept;

    // ---------------------------------------------------------------------------------- elements

    const canvas = element("canvas", {
      tabindex: "0", role: "application", "aria-roledescription": "picture",
      "aria-label": `The image, ${grid[0]} rows of ${grid[1]} patches. Arrow keys go from patch to patch.`,
    });
    const [from, headsTitle, listTitle] = [element("p", { class: "small" }), element("h2"), element("h2")];
    const [legend, list] = [element("p", { class: "small picture-legend" }), element("dl", { class: "picture-list" })];
    const said = element("p", { class: "unseen", role: "status" });
    const small = stack.average ? [] : stack.heads.map((number, i) => smallPicture(number, i));
    const others = otherRows();
    container.replaceChildren(element("div", { class: "picture-image" },
      element("div", {}, element("h2", {}, HeadDetail.title(stack, layer, head)), from, canvas, legend, others, said),
      element("div", { class: "picture-heads" }, ...(small.length < 2 ? [] : [
        headsTitle, element("p", { class: "small" }, `Layer ${stack.layers[layer]}`),
        element("div", { role: "group", "aria-label": "Heads" }, ...small.map(({ made }) => made)),
      ])),
      element("div", {}, listTitle, list)));
    roving(small.map(({ made }) => made), 4);

    function smallPicture(number, place) {
      const made = button(element("canvas"), () => open?.(place), {
        "aria-label": `Head ${number}`, "aria-pressed": String(place === head), title: `Head ${number}`,
      });
      made.append(element("span", { "aria-hidden": "true" }, `Head ${number}`));
      return { place, made, canvas: made.firstElementChild };
    }

    // Rows that are no patches: [CLS], or the words of a text.
    function otherRows() {
      const rows = [];
      for (let r = stack.rows[0]; r < stack.rows[1]; r++) if (PictureParts.ofRow(stack, r) < 0) rows.push(r);
      const earlier = rows.length - MOST_FROM;
      const buttons = rows.slice(-MOST_FROM).map((r) => {
        const made = button(element("bdi", {}, shorten(stack.rowTokens[r], 20)), () => keep(r), { "data-row": String(r), "aria-label": `From ${stack.rowTokens[r]}` });
        made.addEventListener("pointerenter", () => show(r));
        made.addEventListener("pointerleave", () => show(null));
        return made;
      });
      roving(buttons, buttons.length);
      return element("div", { class: "picture-from", role: "group", "aria-label": "From" },
        ...(rows.length ? ["From ", ...(earlier > 0 ? [`(${grouped(earlier)} earlier) `] : []), ...buttons] : []));
    }

    // ---------------------------------------------------------------------------------- painting

    const leastOf = (parts) => (stack.probabilities ? 0 : d3.min(parts));

    // How bright each patch is, 0 to 1: by the root of its share of the largest weight of a patch (raw
    // scores from the least to the largest).
    function brightness(parts) {
      const [least, most] = [leastOf(parts), parts[PictureParts.strongest(parts)]];
      return parts.map((weight) => (most > least ? Math.sqrt((weight - least) / (most - least)) : 0));
    }

    function draw(made, [wide, high], { parts, isNumber }) {
      const context = PictureParts.canvas(made, wide, high);
      context.drawImage(bitmap, 0, 0, wide, high);
      const shade = new ImageData(grid[1], grid[0]);
      (isNumber ? brightness(parts) : parts).forEach((bright, i) => {
        shade.data.set([...SHADOW, Math.round(255 * DARKEST * (1 - bright))], 4 * i);
      });
      const over = element("canvas", { width: grid[1], height: grid[0] });
      over.getContext("2d").putImageData(shade, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(over, 0, 0, wide, high);
      const own = PictureParts.ofRow(stack, row());
      if (own >= 0) frame(context, own, wide / grid[1], high / grid[0]);
    }

    // Of ink around white: it is seen on any picture.
    function frame(context, part, wide, high) {
      const [x, y] = [(part % grid[1]) * wide, Math.floor(part / grid[1]) * high];
      const line = Math.max(Math.min(wide, high) / 12, 1.5);
      for (const [colour, inset, width] of [["#1b1f24", -line / 2, line], ["#fff", line / 2, line]]) {
        [context.strokeStyle, context.lineWidth] = [colour, width];
        context.strokeRect(x + inset, y + inset, wide - 2 * inset, high - 2 * inset);
      }
    }

    const paint = () => PictureParts.withOpen(stack, layer, head, paintOpened);

    function paintOpened() {
      const found = PictureParts.weights(stack, layer, head, row());
      shown = found.parts;
      const most = shown[PictureParts.strongest(shown)];
      const own = PictureParts.ofRow(stack, row()) >= 0;
      draw(canvas, size(container.clientWidth, LARGEST), found);
      from.replaceChildren(own ? "From patch " : "From ", element("b", {}, PictureParts.rowName(stack, row())),
        found.isNumber ? ". Bright: where it looks." : ". These weights are no numbers.");
      legend.hidden = !found.isNumber;
      legend.replaceChildren(number(leastOf(shown)), " ", element("i"), " ", number(most));
      legend.querySelector("i").style.background = `linear-gradient(to right, ${[0, 0.06, 0.25, 0.56, 1].map(
        (share) => `color-mix(in srgb, rgb(${SHADOW}) ${100 * DARKEST * (1 - Math.sqrt(share))}%, #c3cbd5) ${100 * share}%`)})`;
      headsTitle.replaceChildren(...(own ? ["The same patch"] : [element("bdi", {}, stack.rowTokens[row()])]), " in every head");
      listTitle.replaceChildren(element("bdi", {}, PictureParts.rowName(stack, row())), " looks at");
      list.replaceChildren(...lines(found, most));
      others.querySelectorAll("button").forEach((each) => each.setAttribute("aria-pressed", String(Number(each.dataset.row) === row())));
      paintHeads(++asked).catch(State.failed);
    }

    // One after the other: a head's weights may have to be unpacked first.
    async function paintHeads(mine) {
      const high = size(SMALL, SMALL);
      for (const each of small) {
        await Weights.open(stack, [layer], [head, each.place]);
        if (mine !== asked) return;
        draw(each.canvas, high, PictureParts.weights(stack, layer, each.place, row()));
        if (each.place % 8 === 7) await nextTask();
        if (mine !== asked) return;
      }
    }

    const number = (weight) => (stack.probabilities && weight ? weight.toFixed(3) : decimals(weight));

    // The strongest patches, what the others get together, and the other tokens.
    function lines({ parts, others: tokens, left, isNumber }, most) {
      if (!isNumber) return [];
      const own = PictureParts.ofRow(stack, row());
      const order = [...parts.keys()].filter((i) => parts[i] > 0).sort((a, b) => parts[b] - parts[a]);
      const top = order.slice(0, LISTED).map((i) => [i === own ? "itself" : PictureParts.nameOf(stack, i), parts[i]]);
      const sum = (weights) => weights.reduce((total, weight) => total + weight, 0);
      const found = top.map(([name, weight]) => line(name, weight, most));
      if (!stack.probabilities) return found; // sums of raw scores say nothing
      const rest = parts.length - top.length;
      if (rest) found.push(line(`${grouped(rest)} other ${rest === 1 ? "patch" : "patches"}`, sum([...parts]) - sum(top.map(([, weight]) => weight))));
      const apart = tokens.filter(([, weight]) => weight > 0).sort(([, a], [, b]) => b - a);
      for (const [column, weight] of apart.slice(0, NAMED)) found.push(line(stack.columnTokens[column], weight));
      if (apart.length > NAMED) found.push(line(counted(apart.length - NAMED, "other token"), sum(apart.slice(NAMED).map(([, weight]) => weight))));
      if (left >= 0.0005) found.push(line(`left out (weights up to ${stack.above})`, left));
      return found;
    }

    // With a bar where it can be compared with the others.
    function line(name, weight, most = 0) {
      const bar = element("i", { "aria-hidden": "true" });
      if (most > 0) bar.style.setProperty("--share", `${(100 * Math.max(weight, 0)) / most}%`);
      else bar.hidden = true;
      return element("div", {}, element("dt", {}, element("bdi", {}, name)), element("dd", {}, bar, number(weight)));
    }

    // ------------------------------------------------------------------------------ what is shown

    function show(next) {
      if (next === pointed) return;
      pointed = next;
      paint();
    }

    function keep(next) {
      [kept, pointed] = [next, null];
      onRow(kept);
      paint();
      PictureParts.withOpen(stack, layer, head, say);
    }

    function say() {
      const { parts } = PictureParts.weights(stack, layer, head, kept);
      const best = PictureParts.strongest(parts);
      said.textContent = `${PictureParts.rowName(stack, kept)} looks most at ${PictureParts.nameOf(stack, best)}, ${number(parts[best])}`;
    }

    function partAt(event) {
      const box = canvas.getBoundingClientRect();
      const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      const inside = x >= 0 && x < 1 && y >= 0 && y < 1;
      return inside ? Math.floor(y * grid[0]) * grid[1] + Math.floor(x * grid[1]) : -1;
    }

    // The row of the patch pointed at; where patches do not attend, its weight.
    function point(event) {
      const part = partAt(event);
      const there = part < 0 ? -1 : PictureParts.rowOf(stack, part);
      canvas.title = part < 0 || there >= 0 ? "" : `${PictureParts.nameOf(stack, part)}: ${number(shown[part])}`;
      show(there < 0 ? null : there);
    }

    function step(down, right) {
      const own = PictureParts.ofRow(stack, row());
      if (PictureParts.rowOf(stack, 0) < 0 && own < 0) { // no patches attend: from token to token
        const next = row() + down + right;
        if (next >= stack.rows[0] && next < stack.rows[1]) keep(next);
        return;
      }
      const middle = [Math.floor(grid[0] / 2), Math.floor(grid[1] / 2)];
      const [r, c] = own < 0 ? middle : [Math.floor(own / grid[1]) + down, (own % grid[1]) + right];
      if (r < 0 || r >= grid[0] || c < 0 || c >= grid[1]) return;
      const next = PictureParts.rowOf(stack, r * grid[1] + c);
      if (next >= 0) keep(next);
    }

    canvas.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") point(event); });
    canvas.addEventListener("pointerleave", () => show(null));
    canvas.addEventListener("click", (event) => {
      const next = PictureParts.rowOf(stack, partAt(event));
      if (next >= 0) keep(next);
    });
    canvas.addEventListener("keydown", (event) => {
      const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      step(...move);
    });

    paint();
    return { paint, stop: () => { asked++; } };
  }

  // The row to begin with: what speaks for all of the image ([CLS], or the end of a text about it), else
  // the patch in the middle.
  function firstRow(stack) {
    const [first, last] = [stack.rows[0], stack.rows[1] - 1];
    if (PictureParts.ofRow(stack, last) < 0) return last;
    if (PictureParts.ofRow(stack, first) < 0) return first;
    const { grid } = PictureParts.pictureOf(stack);
    return Math.max(PictureParts.rowOf(stack, Math.floor(grid[0] / 2) * grid[1] + Math.floor(grid[1] / 2)), first);
  }

  return { make, firstRow };
})();
