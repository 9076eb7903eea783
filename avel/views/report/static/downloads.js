"use strict";
// Every figure as SVG, its numbers as CSV.

const DRAWN = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "opacity", "font-size", "font-family", "font-weight", "text-anchor", "vector-effect"];

/** Buttons that save a figure: `svg()` gives the drawing, `rows()` its numbers with a header; either may be left out. */
function downloads(name, { svg, rows }) {
  const button = (kind, text) =>
    h("button", { class: "save", "aria-label": `${name}: save as ${kind.toUpperCase()}`, click: () => save(`${name}.${kind}`, text()) }, kind.toUpperCase());
  return h("p", { class: "saves" }, svg && button("svg", () => svgText(svg())), rows && button("csv", () => csvText(rows())));
}

/** Offers text as a file. */
function save(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

/** A text that a spreadsheet would compute gets an apostrophe in front. */
function csvText(rows) {
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    const text = typeof value === "string" && /^'*[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(",") + "\r\n").join("");
}

/** A drawing as a file of its own: what the style sheet says of each element is written into it. */
function svgText(svg) {
  const copy = svg.cloneNode(true);
  const holder = h("div", { class: "saved" }, copy); // in the colours of a light page
  document.body.append(holder);
  for (const element of [copy, ...copy.querySelectorAll("*")]) {
    const style = getComputedStyle(element);
    for (const name of DRAWN) element.setAttribute(name, style.getPropertyValue(name));
  }
  holder.remove();
  for (const element of [copy, ...copy.querySelectorAll("*")]) for (const name of ["style", "class"]) element.removeAttribute(name);
  return `<?xml version="1.0" encoding="UTF-8"?>\n${new XMLSerializer().serializeToString(copy)}\n`;
}

/** Text cut to `most` characters. */
const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** Text of a drawing. */
const written = (x, y, anchor, text, properties = {}) => s("text", { x, y, "text-anchor": anchor, class: "drawn", ...properties }, text);

/** A copy of a drawing with names below it, each in its colour. */
function withNames(svg, names, colour = seriesColour) {
  const copy = svg.cloneNode(true);
  const [width, height] = ["width", "height"].map((side) => Number(svg.getAttribute(side)));
  copy.setAttribute("height", height + 18 * names.length);
  copy.setAttribute("viewBox", `0 0 ${width} ${height + 18 * names.length}`);
  names.forEach((name, at) => {
    const y = height + 18 * at + 12;
    copy.append(s("rect", { x: 8, y: y - 9, width: 14, height: 9, style: { fill: colour(at) } }), written(28, y, "start", name));
  });
  return copy;
}

/** A drawing with a row for each name; `mark(row, y)` draws it right of x = 200. */
function rowsDrawing(names, width, mark) {
  const svg = s("svg", { width, height: 30 * names.length + 10, viewBox: `0 0 ${width} ${30 * names.length + 10}` });
  names.forEach((name, row) => svg.append(written(190, 30 * row + 25, "end", short(name, 26)), ...mark(row, 30 * row + 20)));
  return svg;
}
