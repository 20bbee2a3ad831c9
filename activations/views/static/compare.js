"use strict";
// Two captures on one page: A, B and A - B of the same heads, which heads changed most, and how far the
// prediction moved at each token. A - B is a stack like others, whose weights are worked out when they are asked for.
const Compare = (() => {
  const SIDES = { A: "A", B: "B", "A-B": "A − B" };
  const MOST = 4; // heads that are listed
  const CHANGE = Page.scores.indexOf("change");
  const facts = Page.comparison ?? null;

  const exists = () => facts !== null;
  const difference = (kind) => Page.stacks.find((stack) => stack.kind === kind && stack.difference);
  // One of each kind of attention, the difference where there is one.
  const kinds = () => (exists() ? Page.stacks.filter((stack, i) => Page.stacks.findIndex(({ kind }) => kind === stack.kind) === i) : Page.stacks);
  const placeOf = (stack) => (exists() ? kinds().findIndex(({ kind }) => kind === stack.kind) : Page.stacks.indexOf(stack));
  const sibling = (stack, side) => Page.stacks.find((each) => each.kind === stack.kind && each.side === side) ?? stack;

  // The stack of another kind, of the same side.
  const ofKind = (place, side) => (exists() ? sibling(kinds()[place], side) : Page.stacks[place]);

  // The weights of A less those of B, both unpacked: the union of their columns, in steps around `zero`.
  function subtracted(stack, a, b, zero) {
    const { row, column } = stack.difference;
    const rows = stack.rowTokens.length;
    const found = { starts: new Uint32Array(rows + 1), columns: [], q: [], rest: new Uint16Array(rows) };
    const places = [0, 1].map((side) => column && new Map(column[side].map((c, i) => [c, i])));
    const sums = new Int32Array(stack.columnTokens.length);
    for (let r = 0; r < rows; r++) {
      const own = [a, b].map((head, side) => [head, row ? row[side][r] : r, side]);
      const isNumber = own.every(([{ rest }, at]) => rest[at] !== Page.notANumber);
      const touched = new Set();
      for (const [{ starts, columns, q }, at, side] of isNumber ? own : []) {
        for (let i = starts[at]; i < starts[at + 1]; i++) {
          const c = places[side] ? places[side].get(columns[i]) : columns[i];
          if (c === undefined) continue; // it stands for no token of the other text
          touched.add(c);
          sums[c] += side ? -q[i] : q[i];
        }
      }
      for (const c of [...touched].sort((x, y) => x - y)) {
        if (sums[c]) {
          found.columns.push(c);
          found.q.push(sums[c] + zero);
        }
        sums[c] = 0;
      }
      found.starts[r + 1] = found.q.length;
      found.rest[r] = isNumber ? 0 : Page.notANumber;
    }
    return found;
  }

  // `A 0.8, B 0.29, A − B 0.51`: of a row and a column (positions in the tokens). Null where it is no difference.
  function told(stack, layer, head, row, column) {
    if (!stack.difference || stack.average) return null;
    const of = (side, own, i) => stack.difference[own]?.[side][i] ?? i;
    const values = ["a", "b"].map((name, side) => {
      const found = Page.stacks.find(({ id }) => id === stack.difference[name]);
      const [r, c] = [of(side, "row", row), of(side, "column", column)];
      if (!Weights.isOpen(found, layer, head)) return NaN; // it was let go: there are too many
      const { q } = Weights.row({ ...found, columns: [c, c + 1] }, layer, head, r);
      return q.length ? Weights.value(found, q[0]) : 0;
    });
    return values.some(Number.isNaN) ? null : `A ${decimals(values[0])}, B ${decimals(values[1])}, A − B ${decimals(values[0] - values[1])}`;
  }

  // ------------------------------------------------------------------------------------- on the page

  // A token's name; where A and B differ, both in their colours. `cutTo(text)` shortens one.
  function name(stack, side, i, cutTo) {
    const pair = stack.difference?.[`${side}Pairs`][i];
    if (!pair) return [cutTo(stack[`${side}Tokens`][i])];
    return pair.flatMap((token, n) => [n ? " " : "", svgElement("tspan", { class: n ? "of-b" : "of-a" }, token)]);
  }

  // The switch, and what stands beside the picture; openHead(layer, head) is called with positions.
  function fill(stack, openHead) {
    if (!exists()) return;
    Choice.set(byId("sides"), stack.side);
    document.body.classList.toggle("difference", Boolean(stack.difference));
    byId("map-title").textContent = stack.difference ? "Change by head" : "Map of heads";
    byId("threshold-part").firstElementChild.textContent = stack.difference ? "Changes above" : "Lines above";
    fillMost(difference(stack.kind), openHead, stack);
    fillMoved();
  }

  function fillMost(changed, openHead, stack) {
    const known = changed?.layers.flatMap((number, layer) => changed.heads.map((head, place) =>
      ({ layer, head: place, name: `${number}.${head}`, change: changed.scores[layer][place][CHANGE] })))
      .filter(({ change }) => change !== null).sort((a, b) => b.change - a.change).slice(0, MOST) ?? [];
    byId("most-changed").hidden = !known.length || !stack.difference;
    const most = known[0]?.change || 1;
    byId("most-changed").replaceChildren(element("h3", {}, "Most changed"), ...known.map(({ layer, head, name, change }) => {
      const bar = element("span", { class: "score-bar" }, element("i"));
      bar.firstElementChild.style.width = `${100 * change / most}%`;
      return element("div", {}, button(name, () => openHead(layer, head), {
        class: "link", "aria-label": `${ScoreTable.headName(changed, { layer, head })}, changed by ${change.toFixed(3)}`,
      }), bar, element("span", {}, facts.rounding && change <= facts.rounding ? "rounding" : change.toFixed(2)));
    }));
  }

  // A bar for each token: how far the prediction after it moved.
  function fillMoved() {
    const { moved } = facts;
    byId("moved").hidden = !moved;
    if (!moved || byId("moved").childElementCount) return;
    const most = Math.max(...moved.kl.map((kl) => kl ?? 0));
    const nameOf = (i) => moved.tokens?.[moved.at[i]] ?? `position ${moved.at[i]}`;
    const bars = moved.kl.map((kl, i) => {
      const made = element("i", { title: `${nameOf(i)}: ${kl === null ? "no number" : `${kl.toFixed(2)} nats`}` });
      made.style.height = `${most > 0 ? 100 * Math.max(kl ?? 0, 0) / most : 0}%`;
      return made;
    });
    const highest = moved.kl.indexOf(most);
    byId("moved").append(
      element("h3", {}, "Change in predictions"),
      element("p", { class: "small" }, most > 0 ? `KL divergence at each token, at least: the most is ${most.toFixed(2)} nats, after ` : "Nothing moved.",
        ...(most > 0 ? [element("bdi", {}, nameOf(highest)), ` (${moved.at[highest]})`] : [])),
      element("div", { class: "bars", role: "img", "aria-label": `How far the prediction moved at each of ${counted(bars.length, "token")}` }, ...bars));
  }

  // `choose(stack)` is called where a person wants to see another of the three.
  function start(current, choose) {
    byId("sides").hidden = !exists();
    if (!exists()) return;
    document.body.classList.add("compare");
    const there = Object.entries(SIDES).filter(([side]) => Page.stacks.some((stack) => stack.side === side));
    Choice.make(byId("sides"), Object.fromEntries(there), (side) => choose(sibling(current(), side)));
  }

  return { exists, kinds, placeOf, ofKind, subtracted, fill, name, told, start };
})();
