"use strict";
// Line charts: learning curves, one line a trial, and accuracy over theta.

const MARGIN = { left: 44, right: 22, top: 10, bottom: 34 };

/** Axes with a grid; gives the SVG and the two scales. */
function axes(width, height, xs, ys, xTitle, xTicks) {
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const pad = (Math.max(...ys) - Math.min(...ys) || 1) * 0.08;
  const [y0, y1] = [Math.min(...ys) - pad, Math.max(...ys) + pad];
  const x = (value) => MARGIN.left + ((value - x0) / (x1 - x0 || 1)) * (width - MARGIN.left - MARGIN.right);
  const y = (value) => height - MARGIN.bottom - ((value - y0) / (y1 - y0)) * (height - MARGIN.top - MARGIN.bottom);
  const svg = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" });
  for (const value of ticks(y0, y1, 5)) {
    svg.append(
      s("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
      s("text", { class: "tick", x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, String(+value.toPrecision(6)))
    );
  }
  for (const [value, text] of xTicks || ticks(x0, x1, 6).map((value) => [value, String(+value.toPrecision(6))]))
    svg.append(s("text", { class: "tick", x: x(value), y: height - MARGIN.bottom + 16, "text-anchor": "middle" }, text));
  svg.append(s("text", { class: "tick", x: width - MARGIN.right, y: height - 3, "text-anchor": "end" }, xTitle));
  return { svg, x, y };
}

/** Runs beyond the last colour begin again with the first, dashed. */
const again = (name, number) => (number < SERIES ? name : `${name} again`);

function drawCurves() {
  const section = $("curves");
  const runs = avel.data.summary.runs;
  const titles = [...new Set(runs.flatMap((run) => Object.keys(run.curves)))];
  const legend = runs.map((run, number) => h("span", {}, h("i", { class: again("swatch", number), style: { "border-top-color": seriesColour(number) } }), run.name));
  const panels = titles.map((title) => {
    const box = h("div");
    const figure = h("figure", {}, h("figcaption", {}, title), box);
    responsive(box, (width) => curvePanel(title, width));
    return figure;
  });
  section.append(h("p", { class: "legend" }, legend), h("div", { class: "panels" }, panels));
}

function curvePanel(title, width) {
  const lines = avel.data.summary.runs.flatMap((run, number) =>
    (run.curves[title] || []).map((curve) => ({ run: run.name, number, ...curve }))
  );
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

function drawTheta() {
  const swept = avel.data.summary.theta;
  const box = h("div", { class: "narrow" });
  $("theta").append(h("p", { class: "note" }, "Accuracy on test over θ of Eq. 4: mean, deviation over seeds, and every seed."), box);
  responsive(box, (width) => thetaChart(swept, width));
}

/** Standard deviation over seeds (n - 1); none from one seed. */
function deviation(values, mean) {
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : 0;
}

function thetaChart(swept, width) {
  const places = swept.theta.map((_, place) => place);
  const labels = swept.theta.map((theta, place) => [place, String(theta)]);
  const { svg, x, y } = axes(width, 260, places, swept.accuracy.flat(), "θ", labels);
  const mean = swept.accuracy.map((values) => values.reduce((sum, value) => sum + value) / values.length);
  const best = mean.indexOf(Math.max(...mean));
  const spread = swept.accuracy.map((values, at) => deviation(values, mean[at]));
  const upper = mean.map((value, at) => `${x(at)},${y(value + spread[at])}`);
  const lower = mean.map((value, at) => `${x(at)},${y(value - spread[at])}`).reverse();
  svg.append(s("polygon", { class: "band", points: [...upper, ...lower].join(" ") }));
  svg.append(s("polyline", { class: "curve", points: mean.map((value, at) => `${x(at)},${y(value)}`).join(" "), style: { stroke: seriesColour(0) } }));
  swept.accuracy.forEach((values, at) => {
    for (const value of values) svg.append(s("circle", { class: "seed", cx: x(at), cy: y(value), r: 2.5 }));
    svg.append(
      s("circle", {
        cx: x(at),
        cy: y(mean[at]),
        r: at === best ? 7 : 5,
        style: { fill: seriesColour(at === best ? 1 : 0) },
        ...tipped(`θ = ${swept.theta[at]}: ${mean[at].toFixed(1)} ± ${spread[at].toFixed(1)} %, ${plural(values.length, "seed")}`),
      })
    );
  });
  return svg;
}
