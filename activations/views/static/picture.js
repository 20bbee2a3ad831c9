"use strict";
// One head over the picture that the model read: an image (image_picture.js), or a sound
// (sound_picture.js). Nothing of other pictures of the page is known here.
const MediaPicture = (() => {
  const rows = new Map(); // the row that was kept, by the stack's id and whether it has words
  let view = null; // what is drawn
  let drawing = null; // what was asked for last

  // Whether the stack has a picture.
  const fits = (stack) => Boolean(stack?.picture);

  // What so many positions on a side are: frames or patches, where nearly all are.
  function unit(stack, count) {
    if (!fits(stack) || PictureParts.count(stack) < 0.9 * count) return `${Words.unit(stack)}s`;
    return PictureParts.pictureOf(stack).kind === "image" ? "patches" : "frames";
  }

  // Draw one head (positions in the stack's lists) into an element, which is hidden where there is
  // nothing to draw: `head` null, or no picture. open(layer, head) is called with a head that is chosen.
  async function draw(container, stack, layer, head, open = null) {
    const mine = drawing = {};
    if (!fits(stack) || head === null) {
      stop();
      container.hidden = true;
      container.replaceChildren();
      return;
    }
    const had = container.contains(document.activeElement);
    const bitmap = await PictureParts.bitmap(stack).catch(() => null);
    await Weights.open(stack, [layer], [head]);
    if (mine !== drawing) return;
    stop();
    container.hidden = false;
    if (!bitmap) {
      container.replaceChildren(element("p", { class: "small" }, "The picture in this page is damaged. Make the page again."));
      return;
    }
    const shape = PictureParts.pictureOf(stack).kind === "image" ? ImagePicture : SoundPicture;
    const key = `${stack.id} ${stack.words}`;
    const before = rows.get(key);
    const row = before >= stack.rows[0] && before < stack.rows[1] ? before : shape.firstRow(stack, bitmap);
    view = shape.make(container, { stack, layer, head, bitmap, row },
      (kept) => rows.set(key, kept), open && ((other) => open(layer, other)));
    if (had) container.querySelector("canvas[tabindex]")?.focus({ preventScroll: true });
  }

  function stop() {
    view?.stop();
    view = null;
  }

  // Canvases keep the colours and the size that they were painted with.
  let waiting = false;
  function later() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      view?.paint();
    });
  }
  addEventListener("resize", later);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", later);
  new MutationObserver(later).observe(document.documentElement, { attributeFilter: ["data-theme"] });

  return { unit, draw };
})();
