"use strict";
// The colours of weights, scores and surprise by how much of them there is, 0 to 1: on a light page and on a
// dark one, and in what ink to write on them.
const Tints = (() => {
  const BRIGHT = 0.179; // the luminance from which black is read better than white
  const ramps = { weight: Page.colours, surprise: Page.surpriseColours };
  for (const [name, { light, dark }] of Object.entries(ramps)) {
    ramps[name] = [light, dark].map((colours) => d3.piecewise(d3.interpolateRgb, colours));
  }

  // Both schemes' colours at once, so that the page's switch, the system's and print change them.
  function of(name, share) {
    const found = ramps[name].map((ramp) => ramp(share));
    return { css: `light-dark(${found})`, ink: `light-dark(${found.map(inkOn)})` };
  }

  // The same for a picture that is saved: the colours that are shown now.
  function shown(name, share) {
    const fill = ramps[name][Number(Theme.isDark())](share);
    return { fill, ink: inkOn(fill) };
  }

  const inkOn = (colour) => (luminance(colour) > BRIGHT ? "#000" : "#fff");

  function luminance(colour) {
    const { r, g, b } = d3.rgb(colour);
    const [x, y, z] = [r, g, b].map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  }

  const band = (name) => `linear-gradient(to right, ${d3.range(0, 1.01, 0.125).map((t) => of(name, t).css).join(", ")})`;

  return { of, shown, band };
})();
