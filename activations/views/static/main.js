"use strict";
// The page as a whole: what is shown, how much of it is drawn, and the controls above it.
(() => {
  const view = Page.view === "head" ? HeadView : ModelView;
  const narrow = matchMedia("(max-width: 640px)");
  const ALL = "all"; // heads, in an address
  let base; // the stack chosen, one of Page.stacks
  let showing = 0; // counts the calls of show(), so that an earlier one notices that it is outdated
  let counting = 0; // and those of countLines()
  let drawing = false; // what is open may change until it is done
  let counts = null; // of all that could be drawn, as Weights.histogram() counts it

  // ------------------------------------------------------------------------------- the drawing

  // Look at a stack, at the mean of its heads, without its first token or with its words, and draw.
  function look(stack, wanted, { average, withoutFirst, words } = State, arrived = false) {
    if (base !== stack || State.words !== words) Tokens.letGo(); // its place means another token there
    base = stack;
    Object.assign(State, { average, withoutFirst, words, wanted });
    State.whole = Weights.lookedAt(base, State);
    State.stack = TextWindow.of(State.whole, 0, 0); // until it is drawn
    byId("average").checked = average;
    byId("average-label").hidden = base.heads.length < 2;
    byId("without-first").checked = withoutFirst;
    byId("without-first-label").hidden = !Weights.hasFirst(base);
    byId("words").checked = words;
    byId("words-label").hidden = !Words.has(base);
    byId("filter").value = String(Compare.placeOf(base));
    Compare.fill(base, openHead);
    const isLong = TextWindow.isLong(State.whole);
    document.body.classList.toggle("long", isLong);
    document.body.classList.toggle("unequal", TextWindow.isUnequal(State.whole));
    if (isLong) byId("aside").prepend(byId("readout")); // its place is reserved beside the window
    else byId("aside").before(byId("readout"));
    showThreshold();
    ScoreTable.fill(base, openHead, (head) => addressOf(head, false));
    HeadMap.fill(base, openHead);
    if (view === ModelView) ModelView.fillBars(State.whole);
    showViews();
    show(arrived);
  }

  // Let bertviz draw everything asked for. Returns false where something else was asked for meanwhile.
  async function draw() {
    const root = byId("drawing");
    const focused = document.activeElement?.closest("#layer-part, #heads") && document.activeElement.id;
    root.style.minHeight = `${root.offsetHeight}px`; // or the page would scroll up
    root.replaceChildren();
    Lines.forget();
    Tokens.forget();
    view.prepare?.(root);
    const vis = Bertviz.draw();
    view.dress();
    if (!await view.makeLines(State.cut, vis)) return false;
    State.isDrawn = true;
    root.style.minHeight = "";
    await view.finish();
    if (focused) byId(focused)?.focus({ preventScroll: true }); // these controls are new ones
    return true;
  }

  // `arrived`: the address asked for it.
  async function show(arrived = false) {
    const mine = ++showing;
    drawing = true;
    try {
      if (!await drawAll(() => mine === showing)) return;
    } catch (error) {
      say(error);
      return;
    }
    drawing = false;
    Sheets.pack();
    remember(arrived);
    if (goesToPredictions) Predictions.go(); // not before: what is drawn above it moves it
    goesToPredictions = false;
  }

  State.failed = say;
  function say(error) {
    byId("status").textContent = `The weights in this page are damaged (${error}). Make the page again.`;
  }

  // Draw, only the strongest lines where there are too many, and say what is not drawn. Returns false
  // where something else was asked for meanwhile.
  async function drawAll(stillWanted) {
    counts = null;
    State.isDrawn = false;
    byId("status").textContent = "Drawing…";
    const layer = Math.max(State.whole.layers.indexOf(State.wanted?.layer ?? State.whole.layers[0]), 0);
    State.stack = TextWindow.of(State.whole, layer, State.wanted?.heads?.[0] ?? 0);
    TextWindow.describe(State.stack);
    nameGrid();
    await painted();
    const { stack, least } = State;
    const isLong = TextWindow.isLong(State.whole);
    const asPictures = view === ModelView && pictures() === "matrices";
    byId("pictures-part").hidden = view === HeadView || isLong; // then there is no choice
    Choice.set(byId("pictures"), asPictures ? "matrices" : "lines");
    byId("threshold-part").hidden = asPictures || highest() === 0; // there are no lines: raw scores may all be below 0
    if (asPictures) {
      if (!await ModelView.drawPictures(stillWanted)) return false;
      byId("status").textContent = aboutPictures();
      return true;
    }
    if (view === ModelView) await ModelView.openWanted(); // at once: all the lines take a while
    await Weights.open(stack, [...view.layers()], [...stack.heads.keys()]);
    const found = await Weights.histogram(stack, view.layers());
    if (!stillWanted()) return false;
    counts = found;
    const all = Weights.above(stack, counts, least);
    State.cut = all > Limits.atOnce ? Weights.cutFor(stack, counts, Limits.atOnce, least) : least;
    if (!await draw() || !stillWanted()) return false;
    HeadDetail.outline();
    countLines();
    return true;
  }

  // Say how many lines are visible: those of the heads that are off are drawn too, and hidden.
  async function countLines() {
    const [mine, { stack, least, cut }] = [++counting, State];
    const heads = [...view.heads()];
    const seen = heads.length === stack.heads.length ? counts : await Weights.histogram(stack, view.layers(), heads);
    if (mine !== counting || !counts || !State.isDrawn) return; // something else is being drawn
    const [all, drawn] = [least, cut].map((above) => Weights.above(stack, seen, above));
    byId("status").textContent = aboutLines(all, drawn, Weights.strongest(stack, seen));
  }
  State.switched = () => countLines();

  // Over the pictures of the model view.
  function nameGrid() {
    const { layers, heads } = State.whole;
    byId("grid-title").hidden = view === HeadView;
    byId("grid-title").firstElementChild.textContent = State.average ? counted(layers.length, "layer") : counted(layers.length * heads.length, "head");
  }

  const longest = () => Math.max(...[State.whole.rows, State.whole.columns].map(([from, to]) => to - from));
  const areTooMany = () => longest() > Limits.asLines;
  const pictures = () => (TextWindow.isLong(State.whole) ? "matrices"
    : State.pictures || (narrow.matches || areTooMany() ? "matrices" : "lines"));

  function aboutPictures() {
    const why = areTooMany() ? `${grouped(longest())} ${MediaPicture.unit(State.whole, longest())} are too many for lines of all heads, so each`
      : State.pictures ? "Each" : "The window is narrow, so each";
    return `${why} picture shows the weights of a head as a matrix: rows attend, columns are attended to. ` +
      "Click one to open the head.";
  }

  function aboutLines(all, drawn, strongest) {
    const said = all ? `${Lines.sentence(drawn, all)} Lines ${base.difference ? "of differences" : "with a weight"} of ${decimals(State.cut)} or less are not drawn.`
      : `No line above ${decimals(State.least)}.${strongest === null ? "" : ` The strongest is ${decimals(strongest)}.`}`;
    const raw = base.probabilities || base.difference ? "" : " The values are raw scores, not weights between 0 and 1; only values above 0 are drawn as lines.";
    const range = TextWindow.isLong(State.whole) ? " Of a long text, only lines inside a window are drawn; the matrix shows all of it." : "";
    return said + raw + range;
  }

  // ------------------------------------------------------------------------------ one head on its own

  // Name the head that is on its own, and show its matrix and scores. `isStep`: see remember().
  let place = null; // {layer, head} as positions
  State.opened = (now, isStep = true) => {
    place = now;
    Tokens.forget(false);
    Tokens.again();
    HeadDetail.show(State.whole, place?.layer ?? null, place?.head ?? null).catch(say);
    ScoreList.show(State.whole, place, openHead);
    MediaPicture.draw(byId("picture"), State.whole, place?.layer ?? null, place?.head ?? null, openHead).catch(say);
    HeadMap.mark(State.average ? null : place);
    document.body.classList.toggle("one-head", place !== null);
    if (!drawing) remember(!isStep);
  };

  // A token is pointed at, in the lines: it is lit in the matrix too, and its weights stand beside the others.
  State.pointed = (at) => {
    HeadDetail.light(at);
    if (Predicted.exist()) Predictions.light(at && Predicted.fromStack(State.stack, at.side, State.stack[at.side ? "columns" : "rows"][0] + at.index));
    if (view !== HeadView) return;
    const isOne = at?.side === 0 && at.heads.length === 1;
    HeadView.writeNumbers(isOne ? numbersOf(at) : []);
  };

  State.kept = (at) => Predictions.follow(at && Predicted.fromStack(State.stack, at.side, at.i));

  function numbersOf({ index, layer, heads: [head] }) {
    const { stack } = State;
    if (!Weights.isOpen(stack, layer, head)) return [];
    const { columns, q } = Weights.row(stack, layer, head, stack.rows[0] + index);
    return columns.map((c, i) => [c - stack.columns[0], Weights.value(stack, q[i])]).filter(([, weight]) => Math.abs(weight) >= 0.005);
  }

  State.wayToHead = () => (Page.otherPage ? [linkTo(place)] : []);
  State.redraw = () => show();

  // The window of a long text was moved: only what it shows is drawn again.
  async function moved() {
    try {
      await (view === ModelView && byId("thumbnails") ? ModelView.reopen() : show(true));
    } catch (error) {
      say(error);
    }
    remember(true);
  }

  // The two views, of which the other one is a link to the same head; and what is predicted, below.
  let atPredictions = false;
  let goesToPredictions = false; // as the address asked for
  function showViews() {
    byId("views").hidden = !Page.otherPage && !Predicted.exist();
    if (byId("views").hidden) return;
    const names = { head: "Head", model: "Model" };
    const here = (label, isCurrent, go) => {
      const made = element("a", { href: `#${addressOf(place)}`, ...(isCurrent ? { "aria-current": "page" } : {}) }, label);
      made.addEventListener("click", (event) => {
        event.preventDefault();
        go();
      });
      return made;
    };
    const own = (label) => (Predicted.exist() ? here(label, !atPredictions, () => scrollTo(0, 0)) : element("span", { "aria-current": "page" }, label));
    const other = (label) => element("a", { href: `${encodeURIComponent(Page.otherPage)}#${addressOf(place)}&of=${Page.capture}` }, label);
    const shown = Object.entries(names).filter(([name]) => name === Page.view || Page.otherPage);
    byId("views").replaceChildren(...shown.map(([name, label]) => (name === Page.view ? own : other)(label)),
      ...(Predicted.exist() ? [here("Predictions", atPredictions, Predictions.go)] : []));
  }

  // A link to the same head in the head view's file, in the same folder.
  const linkTo = (place) =>
    element("a", { href: `${encodeURIComponent(Page.otherPage)}#${addressOf(place)}&of=${Page.capture}` }, "Open in Head →");

  // #layer=3&head=5: what is shown, as readAddress() reads it.
  function addressOf(place, average = State.average) {
    const { stack, wanted } = State;
    const parts = new Map();
    const heads = average ? [Weights.AVERAGE] : base.heads;
    if (place) parts.set("layer", stack.layers[place.layer]).set("head", heads[place.head]);
    else if (view === HeadView && wanted) parts.set("layer", wanted.layer).set("head", ALL);
    else if (view === ModelView) parts.set("head", ALL);
    if (Page.stacks.indexOf(base)) parts.set("attention", Page.stacks.indexOf(base));
    if (State.withoutFirst) parts.set("first", "hidden");
    if (State.words !== Page.words) parts.set("words", Number(State.words));
    if (State.least !== Page.minWeight) parts.set("above", decimals(State.least));
    if (State.pictures) parts.set("pictures", State.pictures);
    for (const [key, number] of Object.entries({ ...TextWindow.address(stack), ...Predictions.address() })) parts.set(key, number);
    if (Theme.chosen() !== "system") parts.set("theme", Theme.chosen());
    return [...parts].map(([key, value]) => `${key}=${value}`).join("&");
  }

  // Keep what is shown in the address. Another head, layer or attention is a step of the browser's
  // history, unless the address itself asked for it, or heads were only switched on or off (as the
  // first clicks of a double click do): then `inPlace`.
  function remember(inPlace = false) {
    showViews();
    if (!["file:", "http:", "https:"].includes(location.protocol)) return; // a frame has no address
    const [address, before] = [addressOf(place), location.hash.slice(1)];
    if (address === before) return; // browsers count these calls
    const isStep = openedIn(address) !== openedIn(before) && !inPlace;
    if (isStep) byId("address-note").textContent = "";
    history[isStep ? "pushState" : "replaceState"](null, "", address ? `#${address}` : location.pathname + location.search);
  }

  function openedIn(address) {
    const parts = new URLSearchParams(address);
    return ["layer", "head", "attention", "token", "lens"].map((key) => parts.get(key)).join();
  }

  // Show what the address asks for, and say which of it does not exist.
  function readAddress() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const stack = Page.stacks[Number(asked.get("attention") ?? 0)] ?? Page.stacks[0];
    const number = (list, key) => (asked.get(key) ? list.indexOf(Number(asked.get(key))) : -1);
    const [layer, head] = [number(stack.layers, "layer"), number(stack.heads, "head")];
    const average = asked.get("head") === Weights.AVERAGE && stack.heads.length > 1;
    const heads = average && view === ModelView ? [0] : head >= 0 && !average ? [head] : null;
    if (asked.has("theme")) Theme.choose(asked.get("theme"));
    const above = Number.parseFloat(asked.get("above"));
    State.least = above >= 0 ? above : Page.minWeight;
    State.pictures = ["lines", "matrices"].find((each) => each === asked.get("pictures")) ?? "";
    State.reveals = true;
    const withoutFirst = asked.get("first") === "hidden" && Weights.hasFirst(stack);
    const words = asked.has("words") ? asked.get("words") === "1" : Page.words;
    const looked = Weights.lookedAt(stack, { average, withoutFirst, words });
    const row = /^\d+$/.test(asked.get("row") ?? "") ? Number(asked.get("row")) : null;
    const [firstRow, lastRow] = [looked.rows[0], looked.rows[1] - 1].map((r) => Weights.positionOf(looked, "row", r));
    const hasRow = row !== null && row >= firstRow && row <= lastRow;
    TextWindow.arrive(looked, hasRow ? row : null, Number(asked.get("rows")));
    const found = {
      attention: stack === Page.stacks[Number(asked.get("attention"))],
      layer: layer >= 0,
      head: head >= 0 || average || asked.get("head") === ALL,
      row: hasRow,
    };
    let opened = layer < 0 ? null : { layer: stack.layers[layer], heads };
    if (!average && !heads && asked.get("head") !== ALL) opened = first(stack, layer);
    else if (view === HeadView && !opened) opened = { layer: stack.layers[0], heads };
    look(stack, opened, { average, withoutFirst, words }, true);
    Object.assign(found, Predictions.arrive(asked.get("token"), asked.get("lens")));
    byId("address-note").textContent = addressNote(asked, Object.keys(found).filter((key) => asked.get(key) && !found[key]));
    goesToPredictions = asked.has("predictions");
  }

  // Back to another token of the same drawing, or to another drawing.
  function goBack() {
    const [asked, now] = [location.hash.slice(1), addressOf(place)].map((address) => new URLSearchParams(address));
    const [token, layer] = [asked.get("token"), asked.get("lens")];
    for (const parts of [asked, now]) for (const key of ["token", "lens"]) parts.delete(key);
    if (Predicted.exist() && String(asked) === String(now)) Predictions.arrive(token, layer);
    else readAddress();
  }

  // The head to begin with where lines of all heads would say little: the one with the highest score (of
  // this layer, if one was asked for).
  function first(stack, asked) {
    const heads = stack.layers.flatMap((_, layer) => stack.heads.map((_, head) => ({ layer, head })))
      .filter(({ layer }) => asked < 0 || layer === asked);
    const highest = ({ layer, head }) => ScoreTable.highest(stack, layer, head);
    const best = heads.reduce((a, b) => (highest(b) > highest(a) ? b : a));
    return { layer: stack.layers[best.layer], heads: [best.head] };
  }

  // What to say about an address that was not meant for this page: all pages of one model have the same
  // names, even if they show other texts or other layers.
  function addressNote(asked, missing) {
    const notes = [];
    if (asked.has("of") && asked.get("of") !== Page.capture) {
      notes.push("The link came from a page of another capture. This page shows the capture named at its top.");
    }
    const names = missing.map((key) => `${key} ${shorten(encodeURIComponent(asked.get(key)), 20)}`);
    if (names.length) notes.push(`The address names ${names.join(" and ")}, which this page does not have.`);
    return notes.join(" ");
  }

  // A head was chosen by its score. `adds`: it is to be shown beside those that are.
  function openHead(layer, head, adds = false) {
    if (State.average) look(base, { layer: base.layers[layer], heads: [head] }, { ...State, average: false });
    else view.open(layer, head, adds);
  }

  // -------------------------------------------------------------------------------- the controls

  function startFilter() {
    const filter = byId("filter");
    Compare.kinds().forEach((item, i) => filter.append(new Option(item.name, String(i))));
    byId("filter-label").hidden = Compare.kinds().length < 2;
    filter.addEventListener("change", () => {
      const stack = Compare.ofKind(Number(filter.value), base.side);
      look(stack, sameIn(stack));
    });
    Compare.start(() => base, (stack) => look(stack, sameIn(stack)));
  }

  function startPictures() {
    Choice.make(byId("pictures"), { lines: "Lines", matrices: "Matrices" }, (kind) => {
      State.pictures = kind;
      show();
    });
  }

  // What is wanted, in another stack: the layer and heads that are there too.
  function sameIn(stack) {
    const { stack: old, wanted } = State;
    if (!wanted || !stack.layers.includes(wanted.layer)) return null;
    const of = State.average ? [Weights.AVERAGE] : stack.heads;
    const heads = (wanted.heads ?? []).map((place) => of.indexOf(old.heads[place])).filter((place) => place >= 0);
    return { layer: wanted.layer, heads: heads.length ? heads : null };
  }

  // After the average, the heads that were on before are on again, or the head that was open.
  function startAverageAndFirstToken() {
    let before = {};
    byId("average").addEventListener("change", () => {
      const { average, wanted } = { ...State, average: byId("average").checked };
      const isOpen = view === ModelView && wanted?.heads;
      if (average) before = { base, heads: wanted?.heads ?? null };
      const back = before.base === base && (isOpen || view === HeadView) ? before.heads : null;
      look(base, wanted && { ...wanted, heads: !average ? back : isOpen ? [0] : null }, { ...State, average });
    });
    byId("without-first").addEventListener("change", () =>
      look(base, State.wanted, { ...State, withoutFirst: byId("without-first").checked }));
    byId("words").addEventListener("change", () => {
      const [words, { row, rows }] = [byId("words").checked, TextWindow.address(State.stack)];
      if (row !== undefined) TextWindow.arrive(Weights.lookedAt(base, { ...State, words }), Words.translated(base, row, words), rows);
      look(base, State.wanted, { ...State, words });
    });
  }

  // The slider goes by the root of the weight: most weights are small.
  const highest = () => (base.raw && !base.difference ? Math.max(base.raw.base + 65534 / base.raw.steps, 0) : 1);

  function showThreshold() {
    const slider = byId("threshold");
    slider.value = 100 * Math.sqrt(State.least / (highest() || 1));
    slider.setAttribute("aria-valuetext", decimals(State.least));
    byId("threshold-value").textContent = decimals(State.least);
  }

  function startThreshold() {
    const slider = byId("threshold");
    let waiting = 0;
    slider.addEventListener("input", () => {
      State.least = highest() * (slider.value / 100) ** 2;
      showThreshold();
      clearTimeout(waiting);
      waiting = setTimeout(() => show(), 60); // not for every step on the way
    });
  }

  // A menu of what leaves the page. What a head has is there while one is open.
  function startSaving() {
    const [menu] = byId("save").getElementsByTagName("div");
    const item = (label, act, attributes = {}) => button(label, () => {
      Sheets.close();
      act();
    }, attributes);
    const ofHead = { class: "of-head" };
    menu.append(
      ...["SVG", "PNG"].map((format) => item(`Picture as ${format}`, () => savePicture(format), { "aria-label": `Save the picture as ${format}` })),
      ...["SVG", "PNG"].map((format) => item(`Matrix as ${format}`, () => HeadDetail.save(format.toLowerCase()), { ...ofHead, "aria-label": `Save matrix as ${format}` })),
      ...(Predictions.hasLens() ? ["SVG", "PNG"] : []).map((format) => item(`Lens as ${format}`, () => saveLens(format), { "aria-label": `Save the lens as ${format}` })),
      item("Copy as CSV", HeadDetail.copyCsv, ofHead),
      item("Copy link", async () => {
        byId("address-note").textContent = await Save.copy(location.href) ? "Copied: the address of what is shown." : "The browser does not let this page copy.";
      }),
      item("Print", () => print()),
    );
  }

  async function savePicture(format) {
    try {
      const made = byId("thumbnails") ? Save.table(byId("thumbnails"), caption()) : Save.standalone(State.svg, caption());
      await Save.picture(format.toLowerCase(), pictureName(), made);
    } catch (error) {
      byId("status").textContent = `The picture could not be made (${error.message}).`;
    }
  }

  async function saveLens(format) {
    try {
      await Predictions.save(format.toLowerCase());
    } catch (error) {
      byId("status").textContent = `The picture could not be made (${error.message}).`;
    }
  }

  // Single keys, where no field takes them.
  function startKeys() {
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=checkbox], [type=range]), select, textarea")) return;
      const press = (id) => () => byId(id)?.click();
      const act = {
        "[": press("layer-back"), "]": press("layer-on"), ",": () => nextHead(-1), ".": () => nextHead(1),
        "?": () => {
          byId("help").open = !byId("help").open;
          if (byId("help").open) scrollTo(0, 0); // it unfolds at the top
        },
        "/": () => { if (!byId("window").hidden) byId("find").focus(); },
        Escape: () => Sheets.close() || [Tokens.letGo(), Predictions.letGo()].some(Boolean) || (view === ModelView && place && ModelView.close()),
      }[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    });
  }

  function nextHead(by) {
    if (!place || State.average) return;
    const next = place.head + by;
    if (next in State.whole.heads) view.open(place.layer, next);
  }

  // Once a frame, not for each step on the way.
  function startResizing() {
    let waiting = false;
    addEventListener("resize", () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        Sheets.pack();
        Predictions.resized();
        if (drawing) return; // it measures when it comes to that
        view.resized();
        HeadMap.draw();
        HeadDetail.drawHeat();
      });
    });
  }

  // The layer that the picture shows, null for all of them; and its head, as a position.
  const layerShown = () => (view === ModelView ? null : State.wanted.layer);

  const pictureName = () => Page.name + Save.nameOf(State.stack, layerShown(), view === HeadView && place ? place.head : null);

  function caption() {
    const layer = layerShown();
    const what = view === HeadView && place ? HeadDetail.title(State.stack, place.layer, place.head) : layer === null ? "all layers" : `Layer ${layer}`;
    return `${byId("model").textContent}: ${what}${HeadDetail.way(State.stack)}; ${base.difference ? "differences" : "weights"} above ${decimals(State.cut)}`;
  }

  // ------------------------------------------------------------------------------------- start

  async function start() {
    try {
      await Bertviz.loaded; // its script comes after this one
      await Weights.restore();
    } catch (error) {
      say(error);
      return;
    }
    startFilter();
    startPictures();
    startAverageAndFirstToken();
    startThreshold();
    TextWindow.start(moved);
    startSaving();
    view.start();
    HeadDetail.start();
    Sheets.start();
    startKeys();
    startResizing();
    ScoreTable.start();
    HeadMap.start();
    Theme.whenPrinting((isPrinting) => {
      HeadDetail.repaint(isPrinting);
      Thumbnails.repaint();
    });
    Theme.start(new URLSearchParams(location.hash.slice(1)).get("theme"), () => show());
    Predictions.start(() => { if (!drawing) remember(); });
    Predictions.watch((is) => {
      atPredictions = is;
      showViews();
    });
    readAddress();
    Sheets.pack();
    addEventListener("popstate", goBack); // not hashchange, which comes later than the address
    narrow.addEventListener("change", () => { if (view === ModelView) show(); });
  }

  start(); // all elements are there, and the weights that are needed are waited for
})();
