"use strict";
// How each run was made: its settings, those that differ first, and what it was made of.

function drawSettings() {
  const { runs } = avel.data.summary;
  const names = (kind) => [...new Set(runs.flatMap((run) => Object.keys(run[kind])))];
  const differs = (kind, name) => new Set(runs.map((run) => run[kind][name])).size > 1;
  const settings = names("settings");
  const differing = settings.filter((name) => differs("settings", name));
  const equal = settings.filter((name) => !differs("settings", name));
  const cells = (kind) => names(kind).map((name) => [name, ...runs.map((run) => run[kind][name])]);
  const header = ["setting", ...runs.map((run) => run.name)];
  const rows = (kind, list) => list.map((name) => [name, ...runs.map((run) => run[kind][name] ?? "–")]);
  const table = (label, kind, list) => figuresTable(label, header, rows(kind, list), "numbers words");
  const folded = (label, kind, list) => h("details", {}, h("summary", {}, label), table(label, kind, list));
  $("settings").append(
    ...(differing.length ? [h("h3", {}, "Settings that differ"), table("settings that differ", "settings", differing)] : []),
    folded(runs.length > 1 ? "Settings that are the same" : "Settings", "settings", equal),
    folded("What each run was made of", "provenance", names("provenance")),
    downloads("settings", { rows: () => [header, ...cells("settings"), ...cells("provenance")] })
  );
}
