"use strict";
// What runs are judged by: a bar for each with its standard deviation over seeds, trivial baselines as lines, and all numbers in a table.

const COLUMNS = [
  ["accuracy, %", (row) => spread(row.accuracy_percent)],
  ["95 % interval over videos", (row) => (row.interval_percent || []).map((value) => value.toFixed(1)).join(" – ") || "–"],
  ["without leaked videos", (row) => spread(row.accuracy_without_leaked_percent)],
  ["event decoder", (row) => spread(row.accuracy_by_decoder_percent.event)],
  ["event F1, ±1 segment", (row) => spread(row.events.f1_percent)],
  ["background recall", (row) => (row.background_recall_percent ?? NaN).toFixed(1)],
  ["at the best test epoch *", (row) => spread(row.accuracy_at_best_test_epoch_percent)],
];

/** Columns where a segment may have several labels: F1 by type, of segments and of events. */
function parsingColumns({ parsing }) {
  const kinds = [["segments", "segment_f1_percent"], ["events", "event_f1_percent"]];
  const types = ["Type@AV", "Event@AV"];
  const names = [...Object.keys(parsing.segment_f1_percent).filter((name) => !types.includes(name)), ...types];
  return [
    ...kinds.flatMap(([title, key]) => names.map((name) => [`${name}, ${title}`, (row) => spread(row.parsing[key][name])])),
    ["95 % interval over videos, Type@AV", COLUMNS[1][1]],
    ["without leaked videos, Type@AV", (row) => spread(row.parsing.type_without_leaked_percent)],
    ["at the best test epoch *", (row) => spread(row.parsing.type_at_best_test_epoch_percent)],
  ];
}

/** What the task is judged by. */
const score = (row) => (row.parsing ? row.parsing.segment_f1_percent["Type@AV"] : row.accuracy_percent);

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
  const columns = rows.length && rows[0][1].parsing ? parsingColumns(rows[0][1]) : COLUMNS;
  const shown = [...columns, ...tagColumns(rows)].filter(([, read]) => rows.some(([, row]) => !["–", "NaN"].includes(read(row))));
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
