"use strict";
// The scores of the head that is open as bars, each beside the highest of all heads.
const ScoreList = (() => {
  const MEANS = {
    previous_token: "of the attention goes to the token before",
    next_token: "of the attention goes to the token after",
    self: "of the attention goes to the token itself",
    duplicate_token: "of the attention goes to earlier tokens spelled the same",
    induction: "of the attention goes to the token that followed an earlier occurrence of the same token",
    first_token: "of the attention goes to the first token",
    special_tokens: "of the attention goes to special tokens such as [SEP], but the first",
    punctuation: "of the attention goes to punctuation",
    alignment: "how far the strongest weights follow the order of the other text: 1 from start to end",
    effect: "how far the prediction moves without the head, in nats (KL divergence)",
    change: "how differently its rows attend in A and B: 0 is alike, 1 is nothing in common",
    entropy: "of the weights, in nats: 0 is all attention on one token",
  };

  // Of a head (positions), or of none: null. openHead(layer, head) opens another.
  function show(stack, place, openHead) {
    const known = place && !stack.average ? ScoreTable.knownIn(stack) : [];
    byId("head-scores").hidden = !known.length;
    byId("opened").textContent = known.length ? sentence(stack, place) : "";
    if (!known.length) return;
    const lead = ScoreTable.leadOf(stack, place.layer, place.head);
    byId("head-scores").replaceChildren(
      element("p", { class: "small" }, element("span", {}, "Score"), element("span", {}, "This head"), element("span", {}, "Highest")),
      ...known.map((k) => row(stack, place, k, k === lead, openHead)));
  }

  function row(stack, place, k, leads, openHead) {
    const score = stack.scores[place.layer][place.head][k];
    const best = ScoreTable.strongest(stack, k);
    const most = ["entropy", "effect"].includes(Page.scores[k]) ? best.score * 1.1 || 1 : 1;
    const share = (value) => `${100 * Math.min(Math.max(value / most, 0), 1)}%`;
    const isBest = best.layer === place.layer && best.head === place.head;
    const name = ScoreTable.nameOf(k);
    const bar = element("span", { class: "score-bar", title: `The highest ${name.toLowerCase()}, ${best.score.toFixed(2)}: ${ScoreTable.headName(stack, best)}` },
      element("i"), element("u"));
    bar.firstElementChild.style.width = share(score ?? 0);
    bar.lastElementChild.style.left = share(best.score);
    const highest = `${stack.layers[best.layer]}.${stack.heads[best.head]}`;
    return element("div", leads ? { class: "lead" } : {},
      element("span", { title: `${name}: ${MEANS[Page.scores[k]]}` }, ScoreTable.shortOf(k)), bar,
      element("span", {}, score === null ? "–" : score.toFixed(2)),
      isBest ? element("span", { class: "small" }, "this") : button(highest, () => openHead(best.layer, best.head), {
        class: "link", "aria-label": `${ScoreTable.headName(stack, best)}, the highest ${name.toLowerCase()}`,
      }));
  }

  // What the head does best, and whether any does it more.
  function sentence(stack, { layer, head }) {
    const lead = ScoreTable.leadOf(stack, layer, head);
    if (lead === null) return "";
    const best = ScoreTable.strongest(stack, lead);
    const heads = stack.layers.length * stack.heads.length;
    const isBest = best.layer === layer && best.head === head && heads > 1;
    return `${ScoreTable.nameOf(lead)} ${stack.scores[layer][head][lead].toFixed(2)}${isBest ? `, the highest of ${grouped(heads)} heads` : ""}`;
  }

  return { show };
})();
