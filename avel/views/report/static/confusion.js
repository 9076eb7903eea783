"use strict";
// Figure 5, counted here from the predictions, so that split, run and trial can be chosen.

const ORDERS = {
  dataset: ["as in the dataset", () => 0],
  recall: ["worst recall first", (cell) => cell.recall],
  segments: ["most segments first", (cell) => -cell.total],
  name: ["by name", (cell) => cell.name.toLowerCase()],
};

function drawConfusion() {
  const runs = browsedRuns();
  const view = { run: runs.length - 1, order: "dataset" };
  const box = scrolled("confusion");
  const redraw = () => box.replaceChildren(confusionTable(view));
  const chooseRun = (value) => {
    view.run = Number(value);
    redraw();
  };
  const chooseOrder = (value) => {
    view.order = value;
    redraw();
  };
  const runChoice = choice(runs.map((run, at) => [at, run.name]), view.run, chooseRun, { id: "confusion-run" });
  const orders = Object.entries(ORDERS).map(([key, [text]]) => [key, text]);
  const orderChoice = choice(orders, view.order, chooseOrder, { id: "confusion-order" });
  $("confusion").append(
    h("p", { class: "choices" }, h("label", {}, "run ", runChoice), h("label", {}, "order ", orderChoice)),
    h("p", { class: "note" }, "Rows are labels, columns predictions, in segments. A cell opens its clips below, at the first segment that it counts."),
    box,
    downloads("confusion", { svg: () => confusionDrawing(view), rows: () => confusionRows(view) })
  );
  avel.listen(redraw);
}

/** The class of a segment that has one label; background is the last. */
const oneClass = (held) => (held.length ? held[0] : avel.data.summary.classes.length - 1);

/** Segments by label and prediction: (K, K). */
function countConfusion(run) {
  const classes = avel.data.summary.classes.length;
  const counts = Array.from({ length: classes }, () => new Array(classes).fill(0));
  for (const clip of clipsOfSplit()) {
    const found = predicted(run, clip);
    const labels = avel.data.clips.label[clip];
    if (found && labels) labels[0].forEach((label, segment) => (counts[oneClass(label)][oneClass(found[0][segment])] += 1));
  }
  return counts;
}

function sortedClasses(counts, order) {
  const names = avel.data.summary.classes;
  const key = ORDERS[order][1];
  const cells = names.slice(0, -1).map((name, number) => {
    const total = sum(counts[number]);
    return { number, name, total, recall: total ? counts[number][number] / total : 2 };
  });
  cells.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : a.number - b.number));
  return [...cells.map((cell) => cell.number), names.length - 1];
}

function confusionTable(view) {
  const counts = countConfusion(view.run);
  if (!sum(counts.flat())) return h("p", { class: "note" }, "No clip of this split has known events.");
  const names = avel.data.summary.classes;
  const order = sortedClasses(counts, view.order);
  const head = h("tr", {}, h("td", {}), order.map((number) => h("th", { class: "upright", scope: "col" }, h("span", {}, names[number]))), h("th", { class: "recall", scope: "col" }, "recall"));
  const body = order.map((label) => {
    const total = sum(counts[label]);
    const cells = order.map((prediction) => confusionCell(view.run, label, prediction, counts[label][prediction], total));
    const recall = total ? percent(counts[label][label] / total, 0) : "–";
    return h("tr", {}, h("th", { scope: "row" }, names[label], h("small", {}, ` ${total}`)), cells, h("td", { class: "recall" }, recall));
  });
  return h("table", { class: "confusion" }, h("thead", {}, head), h("tbody", {}, body));
}

function confusionCell(run, label, prediction, count, total) {
  const fraction = total ? count / total : 0;
  const names = avel.data.summary.classes;
  const about = `${count} of ${plural(total, "segment")} of ${names[label]} are called ${names[prediction]} (${percent(fraction)})`;
  const properties = { style: { "--fraction": fraction.toFixed(3) }, ...tipped(about) };
  if (!count) return h("td", properties);
  const open = () => showClips({ ...NO_FILTERS, run, label, prediction });
  return h("td", properties, h("button", { click: open, "aria-label": about }, String(count)));
}

function confusionRows({ run, order }) {
  const counts = countConfusion(run);
  const names = avel.data.summary.classes;
  const shown = sortedClasses(counts, order);
  return [["label", ...shown.map((number) => names[number])], ...shown.map((label) => [names[label], ...shown.map((found) => counts[label][found])])];
}

/** Opacity of a cell that holds all segments of its row: below 1, so that its number can be read. */
const DEEPEST = 0.7;

function confusionDrawing(view) {
  const [[, ...names], ...rows] = confusionRows(view);
  const [left, side] = [200, 34];
  const size = left + side * names.length + 10;
  const svg = s("svg", { width: size, height: size, viewBox: `0 0 ${size} ${size}` });
  names.forEach((name, at) => {
    const middle = left + side * (at + 0.5) + 4;
    svg.append(written(left - 8, middle, "end", short(name, 26)), written(8 - left, middle, "start", short(name, 26), { transform: "rotate(-90)" }));
  });
  rows.forEach(([, ...counts], row) => {
    const total = sum(counts) || 1;
    counts.forEach((count, column) => {
      const [x, y] = [left + side * column, left + side * row];
      svg.append(s("rect", { class: "filled", x, y, width: side, height: side, style: { "fill-opacity": ((DEEPEST * count) / total).toFixed(3) } }));
      if (count) svg.append(written(x + side / 2, y + side / 2 + 4, "middle", count));
    });
  });
  return svg;
}
