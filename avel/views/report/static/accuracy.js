"use strict";
// The main metric of the task: a bar for each run with its standard deviation over seeds, trivial baselines as lines, and all numbers in a table.

/** A figure of a run by its place in the results. */
const figure = (row, place) => place.reduce((value, name) => value?.[name], row);

/** The main metric of the task. */
const score = (row) => figure(row, avel.data.summary.columns[0][1]);

/** Text of a figure: a spread, an interval or a number. */
function cell(value) {
  if (Array.isArray(value)) return value.map((end) => end.toFixed(1)).join(" – ");
  return typeof value === "number" ? value.toFixed(1) : spread(value);
}

function spread(value) {
  if (!value || value.mean === null) return "–";
  return value.mean.toFixed(1) + (value.std === null ? "" : ` ± ${value.std.toFixed(1)}`);
}

function drawAccuracy() {
  const box = h("div");
  $("accuracy").querySelector("h2").textContent = capital(avel.data.summary.measure);
  $("accuracy").append(box);
  avel.listen(() => {
    const split = avel.state.split;
    const rows = avel.data.summary.runs.map((run) => [run.name, run.measured[split]]).filter(([, row]) => row);
    const drawn = { svg: () => accuracyDrawing(rows, split), rows: () => [["run", "mean_percent", "std_percent"], ...rows.map(([name, row]) => [name, score(row).mean, score(row).std])] };
    box.replaceChildren(baselineLegend(split), bars(rows, split), downloads(avel.data.summary.measure, drawn), numbers(rows, split));
  });
}

function baselineLegend(split) {
  const found = Object.entries(avel.data.summary.trivial_baselines[split] || {});
  return h(
    "p",
    { class: "legend" },
    found.map(([name, value], number) =>
      h("span", {}, h("i", { class: `baseline baseline-${number}` }), `${name} ${value.toFixed(1)} %`)
    )
  );
}

function bars(rows, split) {
  const baselines = Object.values(avel.data.summary.trivial_baselines[split] || {});
  const lines = () => baselines.map((value, number) => h("i", { class: `baseline baseline-${number}`, style: { left: `${value}%` } }));
  return h("div", { class: "bars" }, rows.map(([name, row], number) => bar(name, row, number, lines())));
}

function bar(name, row, number, lines) {
  const { mean, std } = score(row);
  if (mean === null) return h("div", { class: "bar-row" }, h("span", { class: "bar-name" }, name), h("span", {}, "not evaluated: no labels"));
  const whisker = std === null ? null : h("i", { class: "whisker", style: { left: `${mean - std}%`, width: `${2 * std}%` } });
  const about = `${name}: ${spread(score(row))} %, ${plural(row.seeds.length, "seed")}`;
  return h(
    "div",
    { class: "bar-row", ...tipped(about) },
    h("span", { class: "bar-name" }, name),
    h(
      "div",
      { class: "bar-track" },
      h("div", { class: "bar", style: { width: `${mean}%`, background: seriesColour(number), color: `var(--on-${number % SERIES})` } }, spread(score(row))),
      whisker,
      lines
    )
  );
}

function tagColumns(rows) {
  const tags = [...new Set(rows.flatMap(([, row]) => Object.keys(row.by_tag)))];
  return tags.flatMap((tag) => [
    [`accuracy, ${tag}`, (row) => spread(row.by_tag[tag]?.accuracy_percent)],
    [`segment F1, ${tag}`, (row) => spread(row.by_tag[tag]?.segment_f1_percent)],
    [`event F1, ${tag}`, (row) => spread(row.by_tag[tag]?.event_f1_percent)],
    [`segment F1 over clips, ${tag}`, (row) => spread(row.by_tag[tag]?.segment_f1_over_clips_percent)],
    [`event F1 over clips, ${tag}`, (row) => spread(row.by_tag[tag]?.event_f1_over_clips_percent)],
  ]);
}

function numbers(rows, split) {
  const columns = avel.data.summary.columns.map(([title, place]) => [title, (row) => cell(figure(row, place))]);
  const shown = [...columns, ...tagColumns(rows)].filter(([, read]) => rows.some(([, row]) => read(row) !== "–"));
  const header = ["run", "seeds", ...shown.map(([title]) => title)];
  const cells = rows.map(([name, row]) => [name, row.seeds.length, ...shown.map(([, read]) => read(row))]);
  const note = "Mean ± standard deviation over seeds, at each seed's best validation epoch.";
  const inflated = " * What choosing the epoch on the test split would have claimed; most published code reports this.";
  return h(
    "div",
    {},
    figuresTable("all figures of the runs", header, cells),
    h("p", { class: "note" }, note + (split === "test" ? inflated : "")),
    downloads("figures", { rows: () => [header, ...cells] })
  );
}

function accuracyDrawing(rows, split) {
  const x = (value) => 200 + 4.2 * value;
  const scored = rows.filter(([, row]) => score(row).mean !== null);
  const svg = rowsDrawing(scored.map(([name]) => name), 640, (at, y) => {
    const { mean, std } = score(scored[at][1]);
    const bar = s("rect", { x: 200, y: y - 11, width: x(mean) - 200, height: 22, style: { fill: seriesColour(at) } });
    const whisker = std === null ? [] : [s("line", { class: "line", x1: x(mean - std), x2: x(mean + std), y1: y, y2: y })];
    return [bar, ...whisker, written(206, y + 5, "start", spread(score(scored[at][1])), { style: { fill: `var(--on-${at % SERIES})` } })];
  });
  for (const value of Object.values(avel.data.summary.trivial_baselines[split] || {})) {
    svg.append(s("line", { class: "line", "stroke-dasharray": "4 3", x1: x(value), x2: x(value), y1: 5, y2: 30 * scored.length + 5 }));
  }
  return svg;
}
