"use strict";
// What runs are judged by: a bar for each with its standard deviation over seeds, trivial baselines as lines, and all numbers in a table.

/** A figure of a run by its place in the results. */
const figure = (row, place) => place.reduce((value, name) => value?.[name], row);

/** What the task is judged by. */
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
    box.replaceChildren(baselineLegend(split), bars(rows, split), numbers(rows, split));
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
  if (mean === null) return h("div", { class: "bar-row" }, h("span", { class: "bar-name" }, name), h("span", {}, "not judged: no labels"));
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
  const head = h("tr", {}, h("th", {}, "run"), h("th", {}, "seeds"), shown.map(([title]) => h("th", {}, title)));
  const body = rows.map(([name, row]) =>
    h("tr", {}, h("th", {}, name), h("td", {}, String(row.seeds.length)), shown.map(([, read]) => h("td", {}, read(row))))
  );
  const note = "Mean ± standard deviation over seeds, at each seed's best validation epoch.";
  const inflated = " * What choosing the epoch on the test split would have claimed; most published code reports this.";
  return h(
    "div",
    {},
    h("div", { class: "scroll" }, h("table", { class: "numbers" }, h("thead", {}, head), h("tbody", {}, body))),
    h("p", { class: "note" }, note + (split === "test" ? inflated : ""))
  );
}
