"use strict";
// The clip browser: filters, and a list that holds only the rows in view, so that thousands of clips stay fluid.

const ROW_PIXELS = 60;
const SPARE_ROWS = 4;
const filters = { run: 0, mistakes: "all", runs: "all", category: "", text: "", order: "dataset", label: null, prediction: null };
const NO_FILTERS = { mistakes: "all", runs: "all", category: "", text: "", label: null, prediction: null };
const list = { clips: [], selected: null };

const MISTAKES = {
  all: ["all clips", () => true],
  wrong: ["wrong somewhere", (label, found) => !same(label, found)],
  missed: ["event called background", (label, found) => label.length && !found.length],
  invented: ["background called event", (label, found) => !label.length && found.length],
  swapped: ["event called another event", (label, found) => label.length && found.length && !same(label, found)],
};

/** Filters of a clip by what all runs say of it. */
const AGREEMENT = {
  all: ["whatever runs say", () => true],
  disagree: ["runs disagree", (clip) => {
    const all = avel.data.clips.predictions.map((_, run) => predicted(run, clip)).filter(Boolean);
    return all.some((found) => someSegment(all[0], found, (one, other) => !same(one, other)));
  }],
  right: ["no run has a mistake", (clip) => scoredRuns(clip).length && scoredRuns(clip).every(({ score }) => score === 1)],
  none: ["every run has a mistake", (clip) => scoredRuns(clip).length && scoredRuns(clip).every(({ score }) => score < 1)],
};

/** Runs with their score of a clip whose events are known. */
function scoredRuns(clip) {
  const scores = avel.data.clips.predictions.map((_, run) => ({ run, score: chosenTrial("scores", run, clip) }));
  return scores.filter(({ score }) => score !== null);
}

/** The place of the run that a filter "best-NAME" is about, or null. */
function bestRun(filter) {
  const place = filter?.startsWith("best-") ? browsedRuns().findIndex((run) => run.name === filter.slice(5)) : -1;
  return place < 0 ? null : place;
}

/** Whether what all runs say of a clip passes the filter. A run "alone is best" if its score is above those of all others. */
function agreementPasses(clip) {
  const best = bestRun(filters.runs);
  if (best === null) return AGREEMENT[filters.runs][1](clip);
  const own = chosenTrial("scores", best, clip);
  return own !== null && scoredRuns(clip).every(({ run, score }) => run === best || score < own);
}

function drawBrowser() {
  filters.run = avel.data.clips.predictions.length - 1;
  list.window = h("div", { class: "list-window" });
  list.scroller = h("div", { class: "list", tabindex: "0", "aria-label": "clips", scroll: paintList, keydown: listKeys }, list.window);
  list.empty = h("p", { class: "note", hidden: true }, "No clip passes these filters. ", h("button", { click: () => showClips(NO_FILTERS) }, "Show all clips"));
  list.count = h("p", { class: "count", "aria-live": "polite" });
  const playerBox = h("div", { class: "player" });
  $("clips").append(filterBar(), list.count, h("div", { class: "browser" }, h("div", {}, list.empty, list.scroller), playerBox));
  new ResizeObserver(paintList).observe(list.scroller);
  drawPlayer(playerBox);
  avel.listen(refilter);
}

function filterBar() {
  const { classes } = avel.data.summary;
  const change = (name, read = (value) => value) => (value) => {
    filters[name] = read(value);
    refilter();
  };
  const named = browsedRuns().map((run, at) => [at, run.name]);
  const categories = [["", "every class"], ...classes.slice(0, -1).map((name, number) => [number, name])];
  const several = named.length > 1 ? Object.entries(AGREEMENT) : [];
  const agreements = [...several.map(([key, [text]]) => [key, text]), ...named.map(([, name]) => [`best-${name}`, `${name} alone is best`])];
  const orders = [["dataset", "as in the dataset"], ["wrong", "most wrong first"]];
  list.controls = {
    run: choice(named, filters.run, change("run", Number), { id: "filter-run" }),
    runs: choice(agreements, "all", change("runs"), { id: "filter-runs" }),
    mistakes: choice(Object.entries(MISTAKES).map(([key, [text]]) => [key, text]), "all", change("mistakes"), { id: "filter-mistakes" }),
    category: choice(categories, "", change("category"), { id: "filter-category" }),
    order: choice(orders, "dataset", change("order"), { id: "filter-order" }),
    text: h("input", { type: "search", id: "filter-text", placeholder: "video id", input: (event) => change("text")(event.target.value) }),
  };
  list.pair = h("button", { class: "chip on", hidden: true, id: "filter-pair", click: () => showClips({ label: null, prediction: null }) });
  const labelled = Object.entries({ run: "run", mistakes: "show", runs: "runs", category: "class", order: "order", text: "find" });
  const label = ([name, text]) => h("label", { hidden: name === "runs" && named.length < 2 }, `${text} `, list.controls[name]);
  return h("p", { class: "choices" }, labelled.map(label), list.pair);
}

/** Sets filters from elsewhere on the page and goes to the list. */
function showClips(change) {
  Object.assign(filters, change);
  showFilters();
  if (list.clips.length) selectClip(list.clips[0], secondOf(list.clips[0]));
  $("clips").scrollIntoView({ behavior: "smooth" });
}

/** Puts the filters into their controls, and the clips that pass into the list. */
function showFilters() {
  for (const [name, control] of Object.entries(list.controls)) control.value = String(filters[name]);
  refilter();
}

function refilter() {
  const score = (clip) => chosenTrial("scores", filters.run, clip) ?? 1;
  list.clips = clipsOfSplit().filter((clip) => passes(clip, predicted(filters.run, clip)));
  if (filters.order === "wrong") list.clips.sort((a, b) => score(a) - score(b) || a - b);
  describePair();
  const all = clipsOfSplit().length;
  list.empty.hidden = list.clips.length > 0;
  list.count.textContent = `${list.clips.length} of ${plural(all, "clip")} of ${avel.state.split}`;
  list.scroller.scrollTop = 0;
  list.painted = null;
  paintList();
  if (list.clips.length && !list.clips.includes(list.selected)) selectClip(list.clips[0], secondOf(list.clips[0]));
  writeLink();
}

/** What a segment of a clip must be to pass the filters of mistakes and of the confusion, or null where all pass. */
function segmentTest() {
  if (filters.label !== null) return (label, found) => oneClass(label) === filters.label && oneClass(found) === filters.prediction;
  return filters.mistakes === "all" ? null : MISTAKES[filters.mistakes][1];
}

/** The second at which a clip first passes these filters. */
function secondOf(clip) {
  const test = segmentTest();
  const labels = avel.data.clips.label[clip];
  const found = predicted(filters.run, clip);
  if (!test || !labels || !found) return 0;
  const segment = labels[0].findIndex((_, at) => labels.some((track, place) => test(track[at], found[place][at])));
  return Math.max(0, segment) * avel.data.summary.segment_seconds;
}

function passes(clip, found) {
  const labels = avel.data.clips.label[clip] || []; // none where nobody knows the events
  if (filters.category !== "" && !labels.flat(2).includes(Number(filters.category))) return false;
  if (filters.text && !ofVideo("video_id", clip).toLowerCase().includes(filters.text.toLowerCase())) return false;
  if (!agreementPasses(clip)) return false;
  const test = segmentTest();
  return test === null || Boolean(found && someSegment(labels, found, test));
}

function describePair() {
  const { classes } = avel.data.summary;
  list.pair.hidden = filters.label === null;
  if (filters.label !== null) list.pair.textContent = `${classes[filters.label]} called ${classes[filters.prediction]} ✕`;
}

/** Puts the rows in view, and a few around them, into the list. */
function paintList() {
  const first = Math.max(0, Math.floor(list.scroller.scrollTop / ROW_PIXELS) - SPARE_ROWS);
  const end = Math.min(list.clips.length, first + Math.ceil(list.scroller.clientHeight / ROW_PIXELS) + 2 * SPARE_ROWS);
  const state = `${first} ${end} ${list.selected}`;
  if (list.painted === state) return;
  list.painted = state;
  list.window.style.height = `${list.clips.length * ROW_PIXELS}px`;
  list.window.replaceChildren(...list.clips.slice(first, end).map((clip, at) => listRow(clip, first + at)));
}

function listRow(clip, number) {
  const media = ofVideo("media", clip);
  const picture = media ? h("img", { class: "thumb", src: `media/${media}-frames.jpg`, style: { "object-position": middleFrame(clip) }, alt: "", loading: "lazy" }) : h("span", { class: "thumb" });
  return h(
    "button",
    {
      class: clip === list.selected ? "row selected" : "row",
      style: { top: `${number * ROW_PIXELS}px` },
      tabindex: "-1",
      "data-clip": clip,
      click: () => chooseRow(clip),
    },
    picture,
    h("span", { class: "row-text" }, h("b", {}, ofVideo("video_id", clip)), h("small", {}, avel.data.clips.title[clip])),
    sparkline(clip)
  );
}

/** CSS position of the middle frame in a clip's strip of frames; a thumbnail shows this frame alone. */
function middleFrame(clip) {
  const frames = avel.data.clips.length[clip];
  return `${(100 * Math.floor(frames / 2)) / Math.max(1, frames - 1)}% 0`;
}

/** One line a run: segments filled as far as they are right. */
function sparkline(clip) {
  const { clips, summary } = avel.data;
  const runs = clips.label[clip] ? clips.predictions.map((_, run) => predicted(run, clip)).filter(Boolean) : [];
  const svg = s("svg", { class: "spark", viewBox: `0 0 ${summary.segments} ${Math.max(runs.length, 1)}`, preserveAspectRatio: "none" });
  runs.forEach((found, line) => {
    for (const { first, end, value } of stretchesOf(rightParts(found, clips.label[clip]))) {
      const bar = (height, kind) => s("rect", { x: first, y: line + 0.9 - height, width: end - first, height, class: kind });
      if (value < 1) svg.append(bar(0.8, "bad"));
      if (value > 0) svg.append(bar(0.8 * value, "ok"));
    }
  });
  return svg;
}

/** On a phone the player is below the list, so go there. */
function chooseRow(clip) {
  selectClip(clip, secondOf(clip));
  if (window.innerWidth <= 760) player.box.scrollIntoView({ behavior: "smooth" });
}

function selectClip(clip, seconds = 0) {
  list.selected = clip;
  showClip(clip, seconds);
  paintList();
  writeLink();
}

function listKeys(event) {
  const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const number = Math.max(0, Math.min(list.clips.indexOf(list.selected) + step, list.clips.length - 1));
  const top = number * ROW_PIXELS;
  const { scrollTop, clientHeight } = list.scroller;
  if (top < scrollTop) list.scroller.scrollTop = top;
  if (top + ROW_PIXELS > scrollTop + clientHeight) list.scroller.scrollTop = top + ROW_PIXELS - clientHeight;
  selectClip(list.clips[number], secondOf(list.clips[number]));
}
