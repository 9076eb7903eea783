"use strict";
// The clip browser: filters, and a list that holds only the rows in view, so that thousands of clips stay fluid.

const ROW_PIXELS = 60;
const SPARE_ROWS = 4;
const filters = { run: 0, mistakes: "all", category: "", text: "", order: "dataset", label: null, prediction: null };
const list = { clips: [], selected: null };

const MISTAKES = {
  all: ["all clips", () => true],
  wrong: ["wrong somewhere", (label, found) => !same(label, found)],
  missed: ["event called background", (label, found) => label.length && !found.length],
  invented: ["background called event", (label, found) => !label.length && found.length],
  swapped: ["event called another event", (label, found) => label.length && found.length && !same(label, found)],
};

function drawBrowser() {
  filters.run = avel.data.clips.predictions.length - 1;
  list.window = h("div", { class: "list-window" });
  list.scroller = h("div", { class: "list", tabindex: "0", "aria-label": "clips", scroll: paintList, keydown: listKeys }, list.window);
  list.count = h("p", { class: "count", "aria-live": "polite" });
  const playerBox = h("div", { class: "player" });
  $("clips").append(filterBar(), list.count, h("div", { class: "browser" }, h("div", {}, list.scroller), playerBox));
  new ResizeObserver(paintList).observe(list.scroller);
  drawPlayer(playerBox);
  avel.listen(refilter);
}

function filterBar() {
  const { classes, runs } = avel.data.summary;
  const change = (name, read = (value) => value) => (value) => {
    filters[name] = read(value);
    refilter();
  };
  const named = runs.slice(0, avel.data.clips.predictions.length).map((run, at) => [at, run.name]);
  const categories = [["", "every class"], ...classes.slice(0, -1).map((name, number) => [number, name])];
  const orders = [["dataset", "as in the dataset"], ["wrong", "most wrong first"]];
  list.controls = {
    run: choice(named, filters.run, change("run", Number), { id: "filter-run" }),
    mistakes: choice(Object.entries(MISTAKES).map(([key, [text]]) => [key, text]), "all", change("mistakes"), { id: "filter-mistakes" }),
    category: choice(categories, "", change("category"), { id: "filter-category" }),
    order: choice(orders, "dataset", change("order"), { id: "filter-order" }),
    text: h("input", { type: "search", id: "filter-text", placeholder: "video id", input: (event) => change("text")(event.target.value) }),
  };
  list.pair = h("button", { class: "chip on", hidden: true, id: "filter-pair", click: () => showClips({ label: null, prediction: null }) });
  const labelled = Object.entries({ run: "run", mistakes: "show", category: "class", order: "order", text: "find" });
  return h("p", { class: "choices" }, labelled.map(([name, text]) => h("label", {}, `${text} `, list.controls[name])), list.pair);
}

/** Sets filters from elsewhere on the page and goes to the list. */
function showClips(change) {
  Object.assign(filters, change);
  for (const name of ["run", "mistakes", "category", "order"]) list.controls[name].value = String(filters[name]);
  refilter();
  $("clips").scrollIntoView({ behavior: "smooth" });
}

function refilter() {
  const score = (clip) => chosenTrial("scores", filters.run, clip) ?? 1;
  list.clips = clipsOfSplit().filter((clip) => passes(clip, predicted(filters.run, clip)));
  if (filters.order === "wrong") list.clips.sort((a, b) => score(a) - score(b) || a - b);
  describePair();
  const all = clipsOfSplit().length;
  list.count.textContent = `${list.clips.length} of ${plural(all, "clip")} of ${avel.state.split}`;
  list.scroller.scrollTop = 0;
  list.painted = null;
  paintList();
  if (list.clips.length && !list.clips.includes(list.selected)) selectClip(list.clips[0]);
}

function passes(clip, found) {
  const { clips } = avel.data;
  const labels = clips.label[clip] || []; // none where nobody knows the events
  if (filters.category !== "" && !labels.flat(2).includes(Number(filters.category))) return false;
  if (filters.text && !clips.video_id[clips.video[clip]].toLowerCase().includes(filters.text.toLowerCase())) return false;
  const test = MISTAKES[filters.mistakes][1];
  if (filters.mistakes !== "all" && !(found && someSegment(labels, found, test))) return false;
  if (filters.label === null) return true;
  return Boolean(found) && someSegment(labels, found, (label, other) => oneClass(label) === filters.label && oneClass(other) === filters.prediction);
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
  const { clips, summary } = avel.data;
  const media = clips.media[clips.video[clip]];
  const name = clips.video_id[clips.video[clip]];
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
    h("span", { class: "row-text" }, h("b", {}, name), h("small", {}, clips.title[clip])),
    sparkline(clip)
  );
}

/** Where the middle one lies in a clip's strip of frames, of which a thumbnail shows one. */
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
    for (const { first, end, value } of runsOf(rightParts(found, clips.label[clip]))) {
      const bar = (height, kind) => s("rect", { x: first, y: line + 0.9 - height, width: end - first, height, class: kind });
      if (value < 1) svg.append(bar(0.8, "bad"));
      if (value > 0) svg.append(bar(0.8 * value, "ok"));
    }
  });
  return svg;
}

/** On a phone the player is below the list, so go there. */
function chooseRow(clip) {
  selectClip(clip);
  if (window.innerWidth <= 760) player.box.scrollIntoView({ behavior: "smooth" });
}

function selectClip(clip, seconds = 0) {
  list.selected = clip;
  showClip(clip, seconds);
  paintList();
  location.replace(`#clip-${avel.data.clips.sample[clip]}`);
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
  selectClip(list.clips[number]);
}
