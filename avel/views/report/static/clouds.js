"use strict";
// Figure 7: t-SNE panels; a few classes in colour and shape, the others grey. A click opens the clip.

const SHAPES = [
  (c, x, y, r) => c.arc(x, y, r, 0, 7),
  (c, x, y, r) => c.rect(x - r, y - r, 2 * r, 2 * r),
  (c, x, y, r) => polygon(c, x, y, 1.3 * r, 3, -90),
  (c, x, y, r) => polygon(c, x, y, 1.3 * r, 4, 0),
  (c, x, y, r) => polygon(c, x, y, 1.3 * r, 3, 90),
  (c, x, y, r) => polygon(c, x, y, 1.2 * r, 5, -90),
  (c, x, y, r) => polygon(c, x, y, 1.2 * r, 6, 0),
];

function polygon(context, x, y, radius, corners, degrees) {
  for (let corner = 0; corner < corners; corner++) {
    const angle = ((degrees + (360 * corner) / corners) * Math.PI) / 180;
    context.lineTo(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
  }
  context.closePath();
}

function drawClouds() {
  const groups = avel.data.summary.clouds;
  const shown = frequentClasses(groups[0].class);
  const chips = h("p", { class: "chips" });
  const box = h("div", { class: "panels" });
  const alike = groups.every((group) => ["clip", "segment"].every((key) => same(group[key], groups[0][key])));
  $("clouds").append(
    h("p", { class: "note" }, `${alike ? "The same segments in each panel. " : ""}Choose up to seven classes; click a point to open its clip.`),
    chips,
    box
  );
  const redraws = groups.flatMap((group) => group.panels.map((panel) => cloudPanel(group, panel, shown, box)));
  const update = () => {
    chips.replaceChildren(...avel.data.summary.classes.map((name, number) => classChip(name, number, shown, update)));
    for (const redraw of redraws) redraw();
  };
  update();
}

/** The most frequent event classes, as many as there are colours. */
function frequentClasses(classes) {
  const counts = avel.data.summary.classes.slice(0, -1).map((_, number) => [number, classes.filter((each) => each === number).length]);
  counts.sort((a, b) => b[1] - a[1]);
  return counts.slice(0, SERIES).map(([number]) => number);
}

function classChip(name, number, shown, update) {
  const place = shown.indexOf(number);
  const toggle = () => {
    if (place >= 0) shown[place] = null;
    else if (shown.includes(null)) shown[shown.indexOf(null)] = number;
    else if (shown.length < SERIES) shown.push(number);
    else shown[SERIES - 1] = number;
    update();
  };
  const style = place >= 0 ? { "--chip": seriesColour(place) } : {};
  return h("button", { class: place >= 0 ? "chip on" : "chip", "aria-pressed": String(place >= 0), style, click: toggle }, name);
}

function cloudPanel(group, panel, shown, parent) {
  const canvas = h("canvas", { role: "img", "aria-label": `t-SNE, ${panel.title}` });
  const box = h("div", {}, canvas);
  const drawn = { svg: () => cloudDrawing(group, panel, shown), rows: () => cloudRows(group, panel) };
  parent.append(h("figure", {}, h("figcaption", {}, panel.title), box, downloads(`t-SNE ${panel.title}`, drawn)));
  const at = (event) => nearest(panel, canvas, event);
  canvas.addEventListener("pointermove", (event) => {
    const point = at(event);
    tip(event, point === null ? "" : pointText(group, point));
  });
  canvas.addEventListener("pointerleave", () => tip());
  canvas.addEventListener("click", (event) => {
    const point = at(event);
    if (point !== null) openClip(group.clip[point], group.segment[point]);
  });
  return responsive(box, (width) => {
    paintCloud(canvas, width, group, panel, shown);
    return canvas;
  });
}

function paintCloud(canvas, width, group, panel, shown) {
  const side = Math.min(width, 420);
  const dense = window.devicePixelRatio || 1;
  canvas.width = canvas.height = side * dense;
  canvas.style.width = canvas.style.height = `${side}px`;
  const context = canvas.getContext("2d");
  context.scale(dense, dense);
  const css = getComputedStyle(document.documentElement);
  const draw = (point, colour, shape, radius) => {
    context.fillStyle = colour;
    context.beginPath();
    shape(context, ...place(panel, point, side), radius);
    context.fill();
  };
  group.class.forEach((number, point) => {
    if (!shown.includes(number)) draw(point, css.getPropertyValue("--faint"), SHAPES[0], 2);
  });
  group.class.forEach((number, point) => {
    const at = shown.indexOf(number);
    if (at >= 0) draw(point, css.getPropertyValue(`--series-${at}`), SHAPES[at], 3.2);
  });
}

const place = (panel, point, side) => [8 + panel.x[point] * (side - 16), 8 + (1 - panel.y[point]) * (side - 16)];

function nearest(panel, canvas, event) {
  const bounds = canvas.getBoundingClientRect();
  const [x, y] = [event.clientX - bounds.left, event.clientY - bounds.top];
  let best = null;
  let distance = 12 ** 2;
  panel.x.forEach((_, point) => {
    const [px, py] = place(panel, point, bounds.width);
    const squared = (px - x) ** 2 + (py - y) ** 2;
    if (squared < distance) [best, distance] = [point, squared];
  });
  return best;
}

function pointText(group, point) {
  const second = +(group.segment[point] * avel.data.summary.segment_seconds).toFixed(2);
  return `${avel.data.summary.classes[group.class[point]]}, ${ofVideo("video_id", group.clip[point])} at ${second} s`;
}

function cloudRows(group, panel) {
  const { classes } = avel.data.summary;
  const row = (clip, point) => [ofVideo("video_id", clip), group.segment[point], classes[group.class[point]], panel.x[point], panel.y[point]];
  return [["video", "segment", "class", "x", "y"], ...group.clip.map(row)];
}

/** The panel as SVG: SHAPES draw on `pen` as on a canvas, and it writes an SVG path. */
function cloudDrawing(group, panel, shown) {
  const svg = s("svg", { width: 420, height: 420, viewBox: "0 0 420 420" });
  group.class.forEach((number, point) => {
    const at = shown.indexOf(number);
    const [x, y] = place(panel, point, 420);
    const steps = [];
    const pen = {
      arc: (cx, cy, r) => steps.push(`M${cx - r},${cy}a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0`),
      rect: (left, top, width, height) => steps.push(`M${left},${top}h${width}v${height}h${-width}Z`),
      lineTo: (px, py) => steps.push(`${steps.length ? "L" : "M"}${px.toFixed(2)},${py.toFixed(2)}`),
      closePath: () => steps.push("Z"),
    };
    SHAPES[Math.max(at, 0)](pen, x, y, at < 0 ? 2 : 3.2);
    const path = s("path", { d: steps.join(""), style: { fill: at < 0 ? "var(--faint)" : seriesColour(at) } });
    at < 0 ? svg.prepend(path) : svg.append(path);
  });
  const named = [...shown.keys()].filter((at) => shown[at] !== null);
  return withNames(svg, named.map((at) => avel.data.summary.classes[shown[at]]), (at) => seriesColour(named[at]));
}
