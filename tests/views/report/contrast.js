// Contrast (WCAG 2.2) of every text that is shown with what lies behind it; axe leaves out what it cannot be sure of.
// Returns [ratio, text] of the texts below `arguments[0]`, and how many there are in all.

const channels = (colour) => {
  const numbers = colour.match(/[\d.]+/g).map(Number);
  const scale = colour.startsWith("color(") ? 255 : 1;
  return [...numbers.slice(0, 3).map((number) => number * scale), numbers[3] ?? 1];
};
const over = (front, back) => [0, 1, 2].map((at) => front[at] * front[3] + back[at] * (1 - front[3]));

function behind(element) {
  const page = matchMedia("(prefers-color-scheme: dark)").matches ? [0, 0, 0] : [255, 255, 255];
  const layers = [];
  for (let each = element; each; each = each.parentElement) layers.unshift(channels(getComputedStyle(each).backgroundColor));
  return layers.reduce((below, layer) => over(layer, below), page);
}

function luminance(colour) {
  const [red, green, blue] = colour.map((value) => (value <= 10.31475 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

const texts = [...document.querySelectorAll("body *")].filter(
  (each) => each.getClientRects().length && [...each.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim())
);
const low = [];
for (const each of texts) {
  const svg = each.closest("svg");
  const back = behind(svg ? svg.parentElement : each);
  const style = getComputedStyle(each);
  const [dark, light] = [over(channels(svg ? style.fill : style.color), back), back].map(luminance).sort((a, b) => a - b);
  const ratio = (light + 0.05) / (dark + 0.05);
  if (ratio < arguments[0]) low.push([+ratio.toFixed(2), each.textContent.slice(0, 40)]);
}
return [low, texts.length];
