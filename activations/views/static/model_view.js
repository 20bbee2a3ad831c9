"use strict";
// What the model view adds to bertviz's drawing: pictures that open by keyboard, the tokens of the
// one that is open; and, where all lines would be too many, a head's lines alone.
const ModelView = (() => {
  let opening = 0; // counts the calls of openAlone(), so that an earlier one notices that it is outdated

  const layers = () => State.stack.layers.keys();
  const heads = () => State.stack.heads.keys();

  function start() {
    addEventListener("beforeprint", copyByLayer);
    addEventListener("afterprint", removeCopies);
  }


  const regions = () => State.svg.querySelectorAll(":scope > g > rect:last-child");

  const isWanted = (layer, head) =>
    State.wanted?.heads?.[0] === head && State.wanted.layer === State.stack.layers[layer];

  function dress() {
    const { stack } = State;
    regions().forEach((region, i) => {
      const [layer, head] = [Math.floor(i / stack.heads.length), i % stack.heads.length];
      region.setAttribute("role", "button");
      region.setAttribute("aria-label", HeadDetail.title(stack, layer, head));
      region.setAttribute("aria-expanded", "false");
      region.addEventListener("click", () => opened(region, layer, head)); // after bertviz's own
      region.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        region.dispatchEvent(new MouseEvent("click"));
      });
    });
    roving([...regions()], stack.heads.length);
  }

  // A picture was clicked: bertviz has opened it, or closed it.
  function opened(region, layer, head) {
    const isOpen = State.svg.querySelector(".detail") !== null;
    regions().forEach((each) => each.setAttribute("aria-expanded", String(isOpen && each === region)));
    State.wanted = isOpen ? { layer: State.stack.layers[layer], heads: [head] } : null;
    nameAverage();
    if (isOpen) Lines.make(State.cut).then((done) => { if (done) dressDetail(layer, head); });
    State.opened(isOpen ? { layer, head } : null);
  }

  function nameAverage() {
    const heading = State.svg.querySelector("text.detail");
    if (heading && State.stack.average) heading.textContent = heading.textContent.replace("Head average", "average");
  }

  function dressDetail(layer, head) {
    const sides = document.querySelectorAll("#vis g.detail:has(text.token)");
    if (sides.length !== 2) return; // closed meanwhile
    Tokens.dress(Array.from(sides, (side) => [...side.children]), () => ({ layer, heads: [head] }));
  }

  function finish() {
    const heads = State.stack.heads.length;
    const wanted = [...regions()].find((_, i) => isWanted(Math.floor(i / heads), i % heads));
    wanted?.dispatchEvent(new MouseEvent("click"));
    if (wanted) revealAsked(wanted, 0.5);
    State.reveals = false;
    if (!wanted) State.opened(null);
  }

  // A picture that is longer than a sheet would be cut in the middle of a layer. So print shows a copy
  // of each layer instead, without the head that is open, whose matrix follows.
  function copyByLayer() {
    const { svg, stack } = State;
    if (!svg?.isConnected || byId("thumbnails")) return;
    const count = stack.heads.length;
    const pictures = [...regions()].map((region) => region.parentNode);
    const labels = [...svg.querySelectorAll(":scope > text:not(.detail)")];
    const [above, numbers] = [labels.slice(0, 1 + count), labels.slice(2 + count)]; // between them: "Layers"
    stack.layers.forEach((_, layer) => {
      const row = pictures.slice(layer * count, (layer + 1) * count);
      const { y, height } = row[0].querySelector(".attn_background").getBBox();
      const top = layer ? y : 0;
      const shown = [...(layer ? [] : above), numbers[layer], ...row];
      svg.parentNode.append(svgElement("svg", {
        class: "layer", viewBox: `0 ${top} ${svg.getAttribute("width")} ${y + height - top}`,
      }, ...shown.map((each) => each.cloneNode(true))));
    });
  }

  const removeCopies = () => document.querySelectorAll("#vis > .layer").forEach((each) => each.remove());

  // Not for every drawing: while the slider is moved, the page must not scroll away from it.
  function revealAsked(target, share) {
    if (State.reveals) reveal(target, share);
    State.reveals = false;
  }

  // The head is opened wherever it is; an open one stays.
  function open(layer, head) {
    State.reveals = true;
    if (byId("thumbnails")) {
      openAlone(layer, head).catch(State.failed);
      return;
    }
    if (!State.svg?.isConnected) { // it is being drawn, and opened then
      State.wanted = { layer: State.stack.layers[layer], heads: [head] };
      return;
    }
    const region = regions()[layer * State.stack.heads.length + head];
    if (region.getAttribute("aria-expanded") === "false") region.dispatchEvent(new MouseEvent("click"));
    revealAsked(region, 0.5);
  }

  // ------------------------------------------------------- small pictures instead of all the lines

  // Returns false where something else was asked for meanwhile.
  async function drawPictures(stillWanted) {
    Lines.forget();
    const { whole: stack } = State;
    const toggle = (from, layer, head) => {
      if (from !== State.whole) return; // a picture of what was shown before
      if (byId("vis") && isWanted(layer, head)) closeAlone();
      else ModelView.open(layer, head);
    };
    if (!await Thumbnails.draw(byId("drawing"), stack, toggle, stillWanted)) return false;
    const layer = stack.layers.indexOf(State.wanted?.layer);
    if (State.wanted?.heads && layer >= 0) await openAlone(layer, State.wanted.heads[0]);
    State.reveals = false;
    return true;
  }

  function closeAlone() {
    opening++;
    Lines.forget();
    byId("vis")?.remove();
    Thumbnails.mark(null);
    State.wanted = null;
    State.opened(null);
  }

  // The lines of one head, which bertviz draws as what it opens.
  async function openAlone(layer, head) {
    const mine = ++opening;
    const stack = State.stack = TextWindow.of(State.whole, layer, head);
    TextWindow.describe(stack);
    await Weights.open(stack, [layer], [head]);
    const counts = await Weights.histogram(stack, [layer], [head]);
    if (mine !== opening || stack !== State.stack || !byId("thumbnails")) return;
    State.cut = Weights.cutFor(stack, counts, Limits.atOnce, State.least);
    // With many heads, bertviz makes the small picture, which is not shown, so small that it takes no room.
    const vis = Bertviz.draw({ ...Bertviz.parameters([layer], [head]), total_heads: 1000 });
    vis.dataset.alone = "";
    Lines.forget(); // the small picture's
    vis.querySelector("svg > g > rect:last-child").dispatchEvent(new MouseEvent("click"));
    nameAverage();
    Thumbnails.mark(layer * stack.heads.length + head);
    State.wanted = { layer: stack.layers[layer], heads: [head] };
    State.opened({ layer, head });
    const [all, drawn] = [State.least, State.cut].map((cut) => Weights.above(stack, counts, cut));
    HeadDetail.outline();
    if (drawn < all) byId("opened").append(` ${Lines.sentence(drawn, all, "its ")}`);
    if (!await Lines.make(State.cut)) return;
    dressDetail(layer, head);
    revealAsked(vis, 0);
  }

  // The window of a long text was moved.
  function reopen() {
    const { whole, wanted } = State;
    return wanted?.heads && openAlone(whole.layers.indexOf(wanted.layer), wanted.heads[0]);
  }

  return { start, layers, heads, dress, finish, open, drawPictures, reopen };
})();
