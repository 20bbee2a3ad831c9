"use strict";
// What the model predicts: its text tinted by how surprised it was, what it expected at the place chosen, and
// what each layer would have said.
const Predictions = (() => {
  const data = Page.predictions;
  const [STRONGEST, NAMED, SLICE] = [16, 4, 1000]; // bits of the strongest tint; tokens named; drawn at once
  let chosen = null; // {row, layer}; a layer of null is the model itself
  let options = []; // the elements of the text, by their rows
  let changed = () => {};

  const has = Boolean(data);
  const last = () => data.likeliest.length - 1;
  const rowOf = (i) => i - data.first - Number(Expected.isNext); // which predicts token i of the text

  // onChange() is called where a person chooses another place.
  function start(onChange) {
    changed = onChange;
    byId("predictions").hidden = !has;
    if (!has) return;
    const isSurprise = data.of !== "label" && data.text;
    byId("predictions-title").textContent = isSurprise ? "How surprised the model was" : "What the model predicts";
    byId("surprise-legend").hidden = byId("surprise-mean").hidden = !isSurprise;
    byId("surprise-legend").querySelector("i").style.background = Tints.band("surprise");
    byId("surprise-text").hidden = !data.text;
    byId("surprise-text").setAttribute("aria-label", isSurprise ? "The text, by surprise" : "The text");
    if (isSurprise) sayHowSurprised();
    byId("lens").hidden = !LensGrid.has;
    byId("lens-title").textContent = `What each layer would say${Expected.isNext ? " next" : ""}`;
    document.body.classList.toggle("with-lens", LensGrid.has);
    if (LensGrid.has) LensGrid.start({ point: show, leave: back, choose });
    if (data.text) fillText().then(() => markText());
    if (LensGrid.has) LensGrid.draw();
  }

  // ------------------------------------------------------------------------------------ the text

  // Of each row that has what came: [row, bits], a probability too small to be a number having the most.
  function surprises() {
    const { probability, rank } = data.actual ?? { probability: [], rank: [] };
    return probability.map((p, row) => [row, Expected.bitsOf(p) ?? 149]).filter(([row]) => rank[row] && probability[row] !== null && Expected.cameAt(row) !== null);
  }

  function sayHowSurprised() {
    const found = surprises();
    byId("surprise-mean").textContent = found.length ? `${d3.mean(found, ([, bits]) => bits).toFixed(1)} bits a token on average` : "";
    const most = [...found].sort((a, b) => b[1] - a[1]).slice(0, NAMED);
    byId("most-surprising").replaceChildren(...(most.length ? [element("span", { class: "small" }, "Most surprising")] : []),
      ...most.map(([row, bits]) => button("", () => {
        choose(row, null);
        options[row]?.scrollIntoView({ block: "nearest" });
      }, { class: "link" })).map((made, i) => filled(made, {}, [element("bdi", {}, shorten(Expected.cameAt(most[i][0]), 16)), ` ${most[i][1].toFixed(1)}`])));
  }

  // A token for each position, and behind the last one what is expected next. Some at a time, so that nothing
  // freezes.
  async function fillText() {
    const end = data.first + data.likeliest.length;
    const box = byId("surprise-text");
    const bits = new Map(surprises());
    for (let i = data.first; i < end; i++) {
      if (i > data.first && (i - data.first) % SLICE === 0) await nextTask();
      box.append(token(i, bits));
    }
    if (Expected.isLast(last())) box.append(next());
    roving(options.filter(Boolean), data.positions + 1); // one row: the arrow keys go along the text
  }

  function token(i, bits) {
    const row = rowOf(i);
    const made = element("span", { class: "surprise-token" }, element("bdi", {}, data.text[i]));
    if (!(row in data.likeliest)) return made; // nothing stands before it
    const share = Math.min((bits.get(row) ?? 0) / STRONGEST, 1);
    made.style.background = Tints.of("surprise", share).css;
    const { came, entries: [first] } = Expected.at(row);
    return option(made, row, came ? `${data.text[i]}, ${Expected.bitsSaid(came.probability)}, rank ${came.rank}` : `${data.text[i]}: ${first.name}`);
  }

  function next() {
    const [first] = Expected.at(last()).entries;
    const made = element("span", { class: "surprise-token next", title: "Expected next" }, element("bdi", {}, shorten(first.name, 24)), ` ${Expected.likely(first.probability)}`);
    return option(made, last(), `Expected next: ${first.name}`);
  }

  function option(made, row, label) {
    filled(made, { role: "option", "aria-selected": "false", "aria-label": label }, []);
    options[row] = made;
    made.addEventListener("pointerenter", () => show(row, null));
    made.addEventListener("pointerleave", back);
    made.addEventListener("focus", () => { if (made.matches(":focus-visible")) choose(row, null); });
    made.addEventListener("click", () => choose(row, null));
    return made;
  }

  // -------------------------------------------------------------------------------- what is chosen

  function show(row, layer) {
    Expected.show(row, layer);
    RankChart.draw(row, layer);
  }

  const back = () => show(chosen?.row ?? last(), chosen?.layer ?? null);

  function choose(row, layer) {
    chosen = { row, layer };
    mark();
    LensGrid.has && LensGrid.reveal(row);
    changed();
  }

  function mark() {
    markText();
    if (LensGrid.has) LensGrid.mark(chosen);
    back();
  }

  function markText() {
    options.forEach((each, row) => each?.setAttribute("aria-selected", String(chosen?.row === row)));
  }

  // Returns whether anything was chosen.
  function letGo() {
    if (!chosen) return false;
    chosen = null;
    mark();
    changed();
    return true;
  }

  // ------------------------------------------------------------------------------- as an address

  const address = () => (!chosen ? {} : {
    expected: Expected.positionOf(chosen.row), ...(chosen.layer === null ? {} : { lens: chosen.layer }),
  });

  // Show what an address asks for. Returns which of its keys name nothing here.
  function arrive(asked) {
    if (!has) return ["expected", "lens"];
    const [row, layer] = ["expected", "lens"].map((key) => (/^\d+$/.test(asked.get(key) ?? "") ? Number(asked.get(key)) : null));
    const [isRow, isLayer] = [row !== null && (row - data.first) in data.likeliest, layer === null || layer in (data.lens?.layers ?? [])];
    chosen = isRow ? { row: row - data.first, layer: isLayer ? layer : null } : null;
    mark();
    if (chosen && LensGrid.has) LensGrid.reveal(chosen.row);
    if (asked.has("predictions")) goTo();
    return [...(isRow ? [] : ["expected"]), ...(isLayer ? [] : ["lens"])];
  }

  function goTo() {
    reveal(byId("predictions"), 0);
    byId("predictions").focus({ preventScroll: true });
  }

  function resized() {
    if (LensGrid.has) LensGrid.draw();
  }

  return { has, start, arrive, address, letGo, goTo, resized };
})();
