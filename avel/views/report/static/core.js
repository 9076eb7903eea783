"use strict";
// What every part of the page shares. Text from the dataset reaches the page through text nodes and attributes
// of fixed names only, never as markup: see `h`.

const avel = {
  data: {},
  state: { split: "test", trial: 0 },
  listeners: [],

  /** Data files call this: `<script src>` works where `fetch` does not, on pages opened from disk. */
  put(name, value) {
    avel.data[name] = value;
  },

  /** Loads data/NAME.js once; the promise gives what it put. */
  load(name) {
    if (name in avel.data) return Promise.resolve(avel.data[name]);
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `data/${name}.js`;
      script.onload = () => resolve(avel.data[name]);
      script.onerror = () => reject(new Error(`data/${name}.js is missing`));
      document.head.append(script);
    });
  },

  /** Changes shared state and tells everyone who listens. */
  set(change) {
    Object.assign(avel.state, change);
    for (const listener of avel.listeners) listener();
  },

  listen(listener) {
    avel.listeners.push(listener);
    listener();
  },
};

/** Colours of runs and classes: Okabe and Ito's, told apart by everybody; set as CSS variables --series-N. */
const SERIES = 7;
const seriesColour = (number) => `var(--series-${number % SERIES})`;

/** An element: properties by name, children as nodes or as text. */
function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** An SVG element. */
function s(tag, properties = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name === "style") for (const [key, item] of Object.entries(value)) element.style.setProperty(key, item);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const $ = (id) => document.getElementById(id);
const percent = (fraction, digits = 1) => `${(100 * fraction).toFixed(digits)} %`;
const capital = (text) => text[0].toUpperCase() + text.slice(1);
const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** A box that scrolls sideways, by keyboard too. */
const scrolled = (label, ...content) => h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, content);

/** A table that scrolls sideways; a row is its name and its other cells: [name, ...cells]. */
function figuresTable(label, header, rows, look = "numbers") {
  const head = h("tr", {}, header.map((text) => h("th", { scope: "col" }, text)));
  const body = rows.map(([name, ...cells]) => h("tr", {}, h("th", { scope: "row" }, name), cells.map((cell) => h("td", {}, cell))));
  return scrolled(label, h("table", { class: look }, h("thead", {}, head), h("tbody", {}, body)));
}

/** A `<select>` over [value, text] pairs. */
function choice(pairs, chosen, onchange, properties = {}) {
  const select = h("select", { change: () => onchange(select.value), ...properties });
  for (const [value, text] of pairs) select.append(h("option", { value }, text));
  select.value = String(chosen);
  return select;
}

/** Calls `draw(width)` now and whenever the box gets another width; `draw` gives the new content. */
function responsive(box, draw) {
  let width = 0;
  const redraw = () => {
    width = Math.floor(box.clientWidth);
    if (width > 0) box.replaceChildren(...[draw(width)].flat());
  };
  new ResizeObserver(() => {
    if (Math.floor(box.clientWidth) !== width) redraw();
  }).observe(box);
  redraw();
  return redraw;
}

/** Shows text beside the pointer; without arguments, hides it. */
function tip(event, text) {
  const box = $("tip");
  box.hidden = !text;
  if (!text) return;
  box.textContent = text;
  const left = Math.min(event.clientX + 12, window.innerWidth - box.offsetWidth - 8);
  const top = event.clientY + 18 + box.offsetHeight > window.innerHeight ? event.clientY - box.offsetHeight - 8 : event.clientY + 18;
  box.style.left = `${Math.max(left, 4)}px`;
  box.style.top = `${top}px`;
}

const tipped = (text) => ({ pointermove: (event) => tip(event, text), pointerleave: () => tip() });

/** Numbers a chart may put on an axis: about `count` round ones within [low, high]. */
function ticks(low, high, count) {
  const rough = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, number) => (first + number) * step);
}

// Labels and predictions of a clip are, for each track of the task, the classes of each segment: [track][segment] =
// [class, ...], sorted; none of them is background. With one label a segment there is one track, and one class or none.

/** Whether two segments hold the same classes. */
const same = (one, other) => one.length === other.length && one.every((number, at) => number === other[at]);

/** How right each segment is, 0 to 1: intersection over union of its labels and predictions, of all tracks: (T). */
function rightParts(found, labels) {
  return found[0].map((_, segment) => {
    const pairs = found.map((track, at) => [track[segment], labels[at][segment]]);
    const hits = pairs.map(([held, wanted]) => held.filter((number) => wanted.includes(number)).length);
    const all = pairs.map(([held, wanted], at) => held.length + wanted.length - hits[at]);
    return sum(all) ? sum(hits) / sum(all) : 1;
  });
}

const sum = (values) => values.reduce((total, each) => total + each, 0);

/** Whether any segment of any track passes `test(label, found)`. */
const someSegment = (labels, found, test) => labels.some((track, at) => track.some((label, segment) => test(label, found[at][segment])));

/** Stretches over which a value stays the same: {first, end, value}. */
function stretchesOf(values) {
  const found = [];
  values.forEach((value, place) => {
    const last = found[found.length - 1];
    if (last && last.value === value) last.end = place + 1;
    else found.push({ first: place, end: place + 1, value });
  });
  return found;
}

/** What is shown of one track: a block for each stretch of a class (null: background) that is right or wrong, in lanes.
 *  Where `labels` are null, all is right. `Task.blocks` does the same in Python, for `avel plot`. */
function blocks(found, labels) {
  const classes = [...new Set(found.flat())].sort((a, b) => a - b);
  const each = [null, ...classes].flatMap((number) => {
    const states = found.map((held, segment) => {
      if (number === null ? held.length : !held.includes(number)) return null;
      const right = labels === null || (held.length ? labels[segment].includes(number) : !labels[segment].length);
      return right ? "right" : "wrong";
    });
    return stretchesOf(states).filter(({ value }) => value).map(({ first, end, value }) => ({ first, end, class: number, right: value === "right" }));
  });
  each.sort((a, b) => a.first - b.first || a.end - b.end);
  const ends = [];
  for (const block of each) {
    const free = ends.findIndex((end) => end <= block.first);
    block.lane = free < 0 ? ends.length : free;
    ends[block.lane] = block.end;
  }
  return each;
}

/** Runs that the clip browser shows. */
const browsedRuns = () => avel.data.summary.runs.slice(0, avel.data.clips.predictions.length);

/** A value of the video of a clip, by key: "video_id", "media" (number in the names of its pictures) or "path". */
const ofVideo = (key, clip) => avel.data.clips[key][avel.data.clips.video[clip]];

/** Name of one track, by its place in the task. */
const trackTitle = (name, at) => (avel.data.summary.tracks[at] ? `${name}, ${avel.data.summary.tracks[at]}` : name);

/** The predictions of a clip by the chosen trial of a run, or with the kind "scores" its score; null where it has none. */
function chosenTrial(kind, run, clip) {
  const trials = avel.data.clips[kind][run];
  return trials ? trials[Math.min(avel.state.trial, trials.length - 1)][clip] : null;
}

const predicted = (run, clip) => chosenTrial("predictions", run, clip);

/** Places of the clips of the chosen split. */
function clipsOfSplit() {
  const splits = avel.data.clips.split;
  return [...splits.keys()].filter((clip) => splits[clip] === avel.state.split);
}
