"use strict";
// Line charts: learning curves, one line a trial, and scores over swept settings.

const MARGIN = { left: 44, right: 22, top: 10, bottom: 34 };

/** Axes with a grid; gives the SVG and the two scales. Without `xTicks` the horizontal axis has whole numbers, as of epochs. */
function axes(width, height, xs, ys, xTitle, xTicks) {
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const pad = (Math.max(...ys) - Math.min(...ys) || 1) * 0.08;
  const [y0, y1] = [Math.min(...ys) - pad, Math.max(...ys) + pad];
  const x = (value) => MARGIN.left + ((value - x0) / (x1 - x0 || 1)) * (width - MARGIN.left - MARGIN.right);
  const y = (value) => height - MARGIN.bottom - ((value - y0) / (y1 - y0)) * (height - MARGIN.top - MARGIN.bottom);
  const svg = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `line chart over ${xTitle}` });
  for (const value of ticks(y0, y1, 5)) {
    svg.append(
      s("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
      s("text", { class: "tick", x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, String(+value.toPrecision(6)))
    );
  }
  for (const [value, text] of xTicks || ticks(x0, x1, 6).filter(Number.isInteger).map((value) => [value, String(+value.toPrecision(6))]))
    svg.append(s("text", { class: "tick", x: x(value), y: height - MARGIN.bottom + 16, "text-anchor": "middle" }, text));
  svg.append(s("text", { class: "tick", x: width - MARGIN.right, y: height - 3, "text-anchor": "end" }, xTitle));
  return { svg, x, y };
}

/** Runs beyond the last colour begin again with the first, dashed. */
const again = (name, number) => (number < SERIES ? name : `${name} again`);

function legend(names) {
  const mark = (number) => h("i", { class: again("swatch", number), style: { "border-top-color": seriesColour(number) } });
  return h("p", { class: "legend" }, names.map((name, number) => h("span", {}, mark(number), name)));
}

function drawCurves() {
  const section = $("curves");
  const runs = avel.data.summary.runs;
  const titles = [...new Set(runs.flatMap((run) => Object.keys(run.curves)))];
  const panels = titles.map((title) => {
    const box = h("div");
    const rows = () => [["run", "trial", "epoch", title], ...curveLines(title).flatMap((line) => line.epoch.map((epoch, at) => [line.run, line.name, epoch, line.value[at]]))];
    const figure = h("figure", {}, h("figcaption", {}, title), box, downloads(title, { svg: () => withNames(box.firstChild, runs.map((run) => run.name)), rows }));
    responsive(box, (width) => curvePanel(title, width));
    return figure;
  });
  section.append(legend(runs.map((run) => run.name)), h("div", { class: "panels" }, panels));
}

const curveLines = (title) =>
  avel.data.summary.runs.flatMap((run, number) => (run.curves[title] || []).map((curve) => ({ run: run.name, number, ...curve })));

function curvePanel(title, width) {
  const lines = curveLines(title);
  const { svg, x, y } = axes(width, 220, lines.flatMap((line) => line.epoch), lines.flatMap((line) => line.value), "epoch");
  for (const line of lines) {
    const points = line.epoch.map((epoch, at) => `${x(epoch).toFixed(1)},${y(line.value[at]).toFixed(1)}`).join(" ");
    svg.append(
      s("polyline", {
        class: again("curve", line.number),
        points,
        style: { stroke: seriesColour(line.number) },
        ...tipped(`${line.run}, ${line.name}: ${+line.value[line.value.length - 1].toPrecision(4)} at the end`),
      })
    );
  }
  return svg;
}

function drawSweeps() {
  const panels = avel.data.summary.sweeps.map((sweep) => {
    const box = h("div");
    const title = `${sweep.label}: ${sweep.help}${sweep.run ? ` (${sweep.run})` : ""}`;
    const names = sweep.lines.length > 1 ? legend(sweep.lines.map((line) => line.name)) : null;
    responsive(box, (width) => sweepChart(sweep, width));
    const header = [...(sweep.lines.length > 1 ? ["line"] : []), sweep.label, "mean_percent", "std_percent"];
    const rows = () => [
      header,
      ...sweep.lines.flatMap((line) =>
        line.spreads.map(({ mean, std }, at) => [...(sweep.lines.length > 1 ? [line.name] : []), sweep.values[line.place[at]], mean, std])
      ),
    ];
    return h("figure", {}, h("figcaption", {}, title), names, box, downloads(`sweep ${sweep.label}`, { svg: () => withNames(box.firstChild, names ? sweep.lines.map((line) => line.name) : []), rows }));
  });
  const split = avel.data.summary.sweeps[0].split;
  $("sweeps").append(h("p", { class: "note" }, `${capital(avel.data.summary.measure)} on ${split}, %: mean and standard deviation over seeds, and every seed.`), h("div", { class: "panels" }, panels));
}

/** Values stand side by side in equal steps; those that are no numbers have no line between them. */
function sweepChart(sweep, width) {
  const ends = sweep.lines.flatMap((line) => [...line.score_percent.flat(), ...line.spreads.flatMap(({ mean, std }) => [mean - std, mean + std])]);
  const labels = sweep.values.map((value, place) => [place, value]);
  const { svg, x, y } = axes(width, 260, [-0.5, sweep.values.length - 0.5], ends, sweep.label, labels);
  const gap = Math.min(8, (x(1) - x(0)) / (sweep.lines.length + 1));
  sweep.lines.forEach((line, number) => {
    const stroke = { stroke: seriesColour(number) };
    const beside = gap * (number - (sweep.lines.length - 1) / 2); // so that no line hides another
    const left = line.place.map((place) => x(place) + beside);
    if (sweep.ordered) svg.append(s("polyline", { class: again("curve", number), points: line.spreads.map(({ mean }, at) => `${left[at]},${y(mean)}`).join(" "), style: stroke }));
    line.spreads.forEach(({ mean, std }, at) => {
      svg.append(s("line", { class: "curve", x1: left[at], x2: left[at], y1: y(mean - std), y2: y(mean + std), style: stroke }));
      for (const value of line.score_percent[at]) svg.append(s("circle", { class: "seed", cx: left[at], cy: y(value), r: 2.5 }));
      const about = `${line.name} ${sweep.label} = ${sweep.values[line.place[at]]}: ${spread(line.spreads[at])} %, ${plural(line.score_percent[at].length, "seed")}`;
      svg.append(s("circle", { cx: left[at], cy: y(mean), r: 5, style: { fill: seriesColour(number) }, ...tipped(about.trim()) }));
    });
  });
  return svg;
}
