"use strict";
// Two runs side by side: paired differences with their intervals, and the clips on which they differ most.

const DIFFERING_CLIPS = 8;

function drawComparison() {
  const runs = browsedRuns();
  const view = { a: runs.length - 1, b: 0 };
  const box = h("div");
  const redraw = () => box.replaceChildren(...comparison(runs, view));
  const select = (side) => {
    const change = (value) => {
      view[side] = Number(value);
      redraw();
    };
    return choice(runs.map((run, at) => [at, run.name]), view[side], change, { id: `compare-${side}` });
  };
  $("compare").append(h("p", { class: "choices" }, h("label", {}, "A ", select("a")), h("label", {}, "B ", select("b"))), box);
  avel.listen(redraw);
}

function comparison(runs, { a, b }) {
  if (a === b) return [h("p", { class: "note" }, "Choose two runs.")];
  const held = avel.data.summary.comparisons[avel.state.split] || {};
  const sign = a < b ? 1 : -1;
  const pair = held[`${Math.min(a, b)}-${Math.max(a, b)}`];
  if (!pair) return [h("p", { class: "note" }, "No clips of this split with known events that both runs predict.")];
  const widest = Math.max(1, ...Object.values(pair).flatMap((each) => [Math.abs(each.low_points), Math.abs(each.high_points)]));
  const metrics = Object.entries(avel.data.summary.metrics);
  const rows = metrics.map(([name, title]) => differenceRow(title, pair[name], sign, widest));
  const { clips, seeds, resolved_points: resolved, needed } = pair[metrics[0][0]];
  const ofSeeds = seeds[0] === seeds[1] ? plural(seeds[0], "seed") : `${(sign > 0 ? seeds : [...seeds].reverse()).join(" and ")} seeds`;
  const told = `${plural(clips, "clip")} and ${ofSeeds} resolve ${resolved.toFixed(1)} points of ${avel.data.summary.measure}.`;
  const takes = needed && ` To show the measured difference it takes ${needed}.`;
  const note = "A − B in points of percent; intervals (95 %) are a bootstrap over videos and seeds. Level: the interval holds 0. ";
  const shown = metrics.map(([name, title]) => ({ title, ...signed(pair[name], sign) }));
  const drawn = {
    svg: () => differenceDrawing(shown, widest),
    rows: () => [["metric", "points", "low_points", "high_points"], ...shown.map((each) => [each.title, each.points, each.low, each.high])],
  };
  return [h("div", { class: "bars" }, rows), downloads("difference", drawn), h("p", { class: "note" }, note + told + takes), ...differingClips(runs, a, b)];
}

/** A difference seen from the other run where `sign` is -1. */
function signed(found, sign) {
  const [low, high] = [sign * found.low_points, sign * found.high_points].sort((one, other) => one - other);
  return { points: sign * found.points, low, high };
}

function differenceDrawing(shown, widest) {
  const x = (value) => 400 + (190 * value) / widest;
  const svg = rowsDrawing(shown.map((each) => each.title), 640, (at, y) => [
    s("line", { class: "line", x1: x(shown[at].low), x2: x(shown[at].high), y1: y, y2: y }),
    s("circle", { class: "filled", cx: x(shown[at].points), cy: y, r: 5 }),
  ]);
  svg.append(s("line", { class: "line", "stroke-dasharray": "4 3", x1: x(0), x2: x(0), y1: 5, y2: 30 * shown.length + 5 }));
  return svg;
}

function differenceRow(title, found, sign, widest) {
  const { points, low, high } = signed(found, sign);
  const place = (value) => `${50 + (48 * value) / widest}%`;
  const number = (value) => value.toFixed(1).replace("-", "−");
  const text = `${points >= 0 ? "+" : ""}${number(points)} [${number(low)}, ${number(high)}]${found.level ? " level" : ""}`;
  return h(
    "div",
    { class: "difference-row" },
    h("span", { class: "bar-name" }, title),
    h(
      "div",
      { class: "bar-track" },
      h("i", { class: "baseline", style: { left: "50%" } }),
      h("i", { class: "whisker", style: { left: place(low), width: `${(48 * (high - low)) / widest}%` } }),
      h("i", { class: found.level ? "point level" : "point", style: { left: place(points) } })
    ),
    h("span", { class: "difference" }, text)
  );
}

/** The clips of the split on which the mean over seeds differs most, either way. */
function differingClips(runs, a, b) {
  const { scores, title } = avel.data.clips;
  const mean = (run, clip) => {
    const found = scores[run].map((trial) => trial[clip]).filter((score) => score !== null);
    return found.length ? sum(found) / found.length : null;
  };
  const both = clipsOfSplit()
    .map((clip) => ({ clip, a: mean(a, clip), b: mean(b, clip) }))
    .filter((each) => each.a !== null && each.b !== null && each.a !== each.b);
  both.sort((one, other) => Math.abs(other.a - other.b) - Math.abs(one.a - one.b));
  if (!both.length) return [h("p", { class: "note" }, "Both have the same score in every clip.")];
  const rows = both.slice(0, DIFFERING_CLIPS).map((each) => {
    const opener = h("button", { click: () => openClip(each.clip) }, ofVideo("video_id", each.clip));
    return [opener, title[each.clip], percent(each.a, 0), percent(each.b, 0)];
  });
  return [
    h("h3", {}, `Where they differ most, in ${avel.data.summary.measure} of a clip`),
    figuresTable("clips that differ most", ["clip", "events", "A", "B"], rows),
  ];
}
