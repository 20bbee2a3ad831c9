"use strict";
// The tokens of a drawing: whole on hover where they are shortened, told apart by the text they are
// of, and reached by keyboard. Pointing at one, or going to it, tells its weights as numbers.
const Tokens = (() => {
  const MOST = { tokens: 12, ofSeveral: 5, heads: 12 };

  // Marks of a token by its position: of the second text, written by the model.
  function classOf(stack, position) {
    const names = [];
    if (stack.second !== null && position >= stack.second) names.push("second");
    if (stack.written !== null && position >= stack.written) names.push("written");
    return names.join(" ");
  }

  // `groups` are the elements of the tokens that attend and of those attended to, as bertviz drew
  // them; heads() gives the layer and the heads (positions) whose weights are told.
  function dress(groups, heads) {
    const { stack } = State;
    [[stack.rowTokens, stack.rows, "Attending tokens"], [stack.columnTokens, stack.columns, "Tokens attended to"]]
      .forEach(([tokens, [from], name], side) => {
        const list = groups[side][0]?.closest("#vis > svg > g");
        list?.setAttribute("role", "listbox");
        list?.setAttribute("aria-label", name);
        groups[side].forEach((group, i) => {
          const text = group.querySelector("text");
          text.append(svgElement("title", {}, tokens[from + i]));
          text.setAttribute("class", `${text.getAttribute("class") ?? ""} ${classOf(stack, from + i)}`.trim());
          follow(group, side, i, `${tokens[from + i]}, token ${stack.start + from + i}`, heads);
        });
        roving(groups[side], 1);
      });
  }

  function follow(group, side, index, label, heads) {
    group.setAttribute("role", "option");
    group.setAttribute("aria-selected", "false");
    group.setAttribute("aria-label", label);
    const send = (type, to) => to.dispatchEvent(new MouseEvent(type));
    const read = () => tell(side, index, heads());
    group.addEventListener("mouseenter", read);
    group.addEventListener("focus", () => {
      group.setAttribute("aria-selected", "true");
      send("mouseover", group); // what bertviz does when a token is pointed at
      read();
    });
    group.addEventListener("blur", () => {
      group.setAttribute("aria-selected", "false");
      send("mouseleave", group.closest("#left, #right") ?? group);
    });
  }

  // The weights between one token and all of the other side: of a head, (tokens).
  function weightsOf(stack, layer, head, side, index) {
    const matrix = Weights.matrix(stack, layer, head, NaN);
    return side === 0 ? matrix[index] : matrix.map((row) => row[index]);
  }

  function tell(side, index, { layer, heads }) {
    const { stack } = State;
    const [own, other] = side === 0 ? ["row", "column"] : ["column", "row"];
    const position = stack[`${own}s`][0] + index;
    const lines = heads.slice(0, MOST.heads).map((head) => {
      const weights = weightsOf(stack, layer, head, side, index);
      return line(headName(stack, head), weights, stack, other, heads.length > 1 ? MOST.ofSeveral : MOST.tokens);
    });
    if (heads.length > MOST.heads) lines.push(element("li", {}, `and ${counted(heads.length - MOST.heads, "more head")}`));
    byId("readout").replaceChildren(
      element("p", {}, name(stack[`${own}Tokens`][position]), ` (token ${stack.start + position}) `,
        side === 0 ? "attends to" : "is attended to by"),
      element("ul", {}, ...lines),
    );
  }

  const headName = (stack, head) => (stack.average ? "Average" : `Head ${stack.heads[head]}`);
  const name = (token) => element("bdi", { class: "token" }, token);

  function line(title, weights, stack, side, most) {
    const order = [...weights.keys()].filter((i) => weights[i]).sort((a, b) => weights[b] - weights[a]);
    const [from] = stack[`${side}s`];
    const parts = order.slice(0, most).map((i) => element("span", { class: "weight" },
      name(shorten(stack[`${side}Tokens`][from + i], 16)), ` ${decimals(weights[i])}`));
    if (order.length > most) parts.push(`and ${grouped(order.length - most)} more`);
    return element("li", {}, element("b", {}, title), " ", ...(parts.length ? spaced(parts) : [stack.withoutFirst ? "too little left to tell" : "nothing"]));
  }

  const spaced = (parts) => parts.flatMap((part, i) => (i ? [" ", part] : [part]));

  const forget = () => byId("readout").replaceChildren();

  return { dress, classOf, forget };
})();
