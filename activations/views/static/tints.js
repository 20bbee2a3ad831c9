"use strict";
// The colours of what is not a weight: of a score or a probability, and of a surprise. Each is a background
// {css} with its {ink}, in which a text on it is read well, for a light and for a dark page.
const Tints = (() => {
  const MOST = 0.92; // of the colours, for the highest
  const BRIGHT = 0.179; // the luminance from which black is read better than white
  const SURPRISE = [["#ffffff", "#fce8d0", "#f8d0a1", "#f2b873", "#ec9f4b"], ["#16181c", "#35271a", "#53371b", "#71471d", "#8f591f"]];
  const STEPS = 250; // the eye knows no more
  const rampsOf = (colours) => colours.map((each) => d3.piecewise(d3.interpolateRgb, each));

  function luminance(colour) {
    const { r, g, b } = d3.rgb(colour);
    const [x, y, z] = [r, g, b].map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  }

  // A function of a share, 0 to 1.
  function made(ramps, most) {
    const known = [];
    return (share) => {
      const step = Math.round(STEPS * Math.min(Math.max(share, 0), 1));
      known[step] ??= describe(ramps.map((ramp) => ramp(most * step / STEPS)));
      return known[step];
    };
  }

  function describe(colours) {
    const inks = colours.map((colour) => (luminance(colour) > BRIGHT ? "#000" : "#fff"));
    return { css: `light-dark(${colours})`, ink: `light-dark(${inks})`, colours, inks };
  }

  const amount = made(rampsOf([Page.colours.light, Page.colours.dark]), MOST);
  // The colours of a difference of this sign, from 0 to its largest, on the page as it is now.
  const lessOrMore = (sign) => {
    const all = Page.colours.difference[Number(Theme.isDark())];
    const middle = (all.length - 1) / 2;
    return sign < 0 ? all.slice(0, middle + 1).reverse() : all.slice(middle);
  };

  const surprise = made(rampsOf(SURPRISE), 1);

  // All of them from the left to the right, for a legend.
  const scale = (tint) => `linear-gradient(to right, ${d3.range(0, 1.01, 0.25).map((t) => tint(t).css).join(", ")})`;

  return { amount, surprise, lessOrMore, scale };
})();
