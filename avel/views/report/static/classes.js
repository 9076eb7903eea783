"use strict";
// What runs get wrong: precision, recall and F1 of each class, and what became of the events.

const decimal = (value) => (value === null || value === undefined ? "–" : value.toFixed(1));

const CLASS_COLUMNS = [
  ["class"],
  ["segments", (row) => row.segments, String],
  ["precision", (row) => row.precision_percent, decimal],
  ["recall", (row) => row.recall_percent, decimal],
  ["F1", (row) => row.f1_percent, decimal],
];

const EVENT_COLUMNS = {
  events: "events",
  exact: "exact",
  begin_early: "begin early",
  begin_late: "begin late",
  end_early: "end early",
  end_late: "end late",
  missed: "missed",
  invented: "invented",
};

function drawClasses() {
  const { runs } = avel.data.summary;
  const view = { run: runs.length - 1, column: 0, ascending: true };
  const box = h("div");
  const redraw = () => box.replaceChildren(classTable(view, redraw), eventTable());
  const select = (value) => {
    view.run = Number(value);
    redraw();
  };
  const chosen = choice(runs.map((run, at) => [at, run.name]), view.run, select, { id: "classes-run" });
  $("classes").append(h("p", { class: "choices" }, h("label", {}, "run ", chosen)), box);
  avel.listen(redraw);
}

/** Rows sorted by the chosen column, those without a figure last; the column of classes is in dataset order. */
function sortedRows(rows, { column, ascending }) {
  if (column === 0) return ascending ? rows : [...rows].reverse();
  const read = CLASS_COLUMNS[column][1];
  const of = (row) => (read(row) === null ? (ascending ? Infinity : -Infinity) : read(row));
  const sign = ascending ? 1 : -1;
  return [...rows].sort((a, b) => (of(a) < of(b) ? -sign : of(a) > of(b) ? sign : 0));
}

function classTable(view, redraw) {
  const run = avel.data.summary.runs[view.run];
  const found = run.mistakes[avel.state.split];
  if (!found) return h("p", { class: "note" }, "No clip of this split has known events.");
  const sort = (column) => {
    view.ascending = view.column === column ? !view.ascending : column === 0;
    view.column = column;
    redraw();
  };
  const heads = CLASS_COLUMNS.map(([title], column) => {
    const order = view.column === column ? (view.ascending ? "ascending" : "descending") : "none";
    const arrow = { ascending: " ▲", descending: " ▼", none: "" }[order];
    return h("th", { scope: "col", "aria-sort": order }, h("button", { class: "sort", click: () => sort(column) }, title + arrow));
  });
  const names = avel.data.summary.classes;
  const rows = sortedRows(found.classes, view).map((row) => {
    const cells = CLASS_COLUMNS.slice(1).map(([, read, text]) => h("td", {}, text(read(row))));
    const place = names.indexOf(row.name);
    const name = place < names.length - 1 ? h("button", { class: "link", click: () => showClips({ ...NO_FILTERS, category: String(place) }) }, row.name) : row.name;
    return h("tr", {}, h("th", { scope: "row" }, name), cells);
  });
  const header = ["class", "segments", "precision_percent", "recall_percent", "f1_percent"];
  const csv = () => [header, ...found.classes.map((row) => header.map((key) => row[key === "class" ? "name" : key]))];
  return h(
    "div",
    {},
    scrolled("scores of classes", h("table", { class: "numbers sorted" }, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows))),
    h("p", { class: "note" }, `Percent of segments${run.trials.length > 1 ? `, all ${run.trials.length} trials together` : ""}. A class opens its clips below.`),
    downloads("classes", { rows: csv })
  );
}

/** What became of the events, a row for each run. */
function eventTable() {
  const rows = avel.data.summary.runs.map((run) => [run.name, run.mistakes[avel.state.split]?.events]).filter(([, row]) => row);
  if (!rows.length) return "";
  const keys = Object.keys(EVENT_COLUMNS);
  const cells = (row) => keys.map((key) => (key === "events" ? row[key] : decimal(row[key])));
  const note =
    "Means over seeds. An event is compared with the predicted one of its class that overlaps it most, and missed where there is none; " +
    "it is exact where both begin and end in the same segments. A predicted event is invented where no event of its class overlaps it.";
  return h(
    "div",
    {},
    h("h3", {}, "Events"),
    figuresTable("mistakes in events", ["run", ...Object.values(EVENT_COLUMNS)], rows.map(([name, row]) => [name, ...cells(row)])),
    h("p", { class: "note" }, note),
    downloads("events", { rows: () => [["run", ...keys], ...rows.map(([name, row]) => [name, ...keys.map((key) => row[key])])] })
  );
}
