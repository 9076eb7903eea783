"use strict";
// Puts the page together; what the data does not hold is left out.

function drawHeader() {
  const { classes, runs, segments, segment_seconds: seconds, made, left_out: leftOut } = avel.data.summary;
  const clips = avel.data.clips.sample.length;
  document.title = `${runs.map((run) => run.name).join(", ")} · avel report`;
  $("summary").textContent =
    `${plural(runs.length, "run")} · ${plural(clips, "clip")} · ${plural(classes.length - 1, "class", "classes")} and background · ` +
    `${avel.data.clips.length.some((own) => own < segments) ? "up to " : ""}${plural(segments, "segment")} of ${seconds} s · avel ${made.avel}, ${made.date}`;
  $("left-out").append(...leftOut.map((text) => h("li", {}, text)));
}

function drawChoices() {
  const splits = [...new Set(avel.data.clips.split)];
  avel.state.split = splits.includes("test") ? "test" : splits[0];
  const split = $("split");
  for (const name of splits) split.append(h("option", { value: name }, name));
  split.value = avel.state.split;
  split.addEventListener("change", () => avel.set({ split: split.value }));
  const most = Math.max(...avel.data.clips.predictions.map((trials) => trials.length));
  const trial = $("trial");
  for (let number = 0; number < most; number++) trial.append(h("option", { value: number }, trialText(number)));
  trial.addEventListener("change", () => avel.set({ trial: Number(trial.value) }));
  trial.parentElement.hidden = most < 2;
}

function trialText(number) {
  const names = avel.data.summary.runs.map((run) => run.trials[number]).filter((name) => name !== undefined);
  return new Set(names).size === 1 ? names[0] : String(number + 1);
}

function leaveOut(id) {
  $(id).hidden = true;
  document.querySelector(`nav a[href="#${id}"]`).hidden = true;
}

function start() {
  const hash = location.hash;
  drawHeader();
  drawChoices();
  drawAccuracy();
  avel.data.clips.predictions.length > 1 ? drawComparison() : leaveOut("compare");
  avel.data.summary.runs.some((run) => Object.keys(run.curves).length) ? drawCurves() : leaveOut("curves");
  drawClasses();
  avel.data.summary.one_label ? drawConfusion() : leaveOut("confusion");
  avel.data.summary.clouds.length ? drawClouds() : leaveOut("clouds");
  avel.data.summary.sweeps.length ? drawSweeps() : leaveOut("sweeps");
  drawSettings();
  drawBrowser();
  startLinks(hash);
}

start();
