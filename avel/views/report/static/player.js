"use strict";
// Figure 8 as a player: the video, and below it frames, spectrogram, labels and predictions on one time axis, with the
// playhead in step; beside it the attention maps of the clip.

const player = { clip: null, seconds: 0, segment: 0, video: null, detail: null, attentionRun: null };

function drawPlayer(box) {
  player.box = box;
  box.addEventListener("keydown", playerKeys);
  avel.listen(() => {
    if (player.clip !== null) showClip(player.clip, player.seconds);
  });
}

/** The clip's own number of segments; clips may be shorter than others. */
const clipSegments = () => avel.data.clips.length[player.clip];

const clipSeconds = () => clipSegments() * avel.data.summary.segment_seconds;

/** Fills the player with a clip, its playhead at `seconds`. */
function showClip(clip, seconds = 0) {
  const clips = avel.data.clips;
  player.clip = clip;
  player.detail = null;
  player.head = h("i", { class: "playhead" });
  player.readout = h("div", { class: "readout", "aria-live": "polite" });
  player.attention = h("div", { class: "attention" });
  player.box.replaceChildren(
    h("h3", {}, ofVideo("video_id", clip), h("small", {}, ` ${clips.title[clip]}, sample ${clips.sample[clip]}, ${clips.split[clip]}`)),
    videoBox(clip),
    trackBox(clip),
    player.readout,
    trackSaves(clip),
    player.attention
  );
  seek(seconds);
  loadDetail(clip);
}

/** Shows a clip and goes to it, from a chart or a link. */
function openClip(clip, segment = 0) {
  avel.set({ split: avel.data.clips.split[clip] });
  selectClip(clip, segment * avel.data.summary.segment_seconds);
  player.box.scrollIntoView({ behavior: "smooth", block: "start" });
}

function videoBox(clip) {
  const [media, source] = [ofVideo("media", clip), ofVideo("path", clip)];
  player.video = null;
  if (!source) return h("p", { class: "note" }, `The video is not there${media ? "; frames and audio are the staged ones" : ""}.`);
  const missing = h("p", { class: "note", hidden: true }, "This browser cannot play the video, or it was moved.");
  const fail = () => {
    player.video = null;
    video.hidden = true;
    missing.hidden = false;
  };
  const video = h("video", { src: source, controls: true, preload: "metadata", style: media ? { "background-image": `url(media/${media}-frames.jpg)` } : {}, playsinline: true, error: fail, loadeddata: () => video.style.removeProperty("background-image") });
  for (const name of ["timeupdate", "seeking", "pause"]) video.addEventListener(name, () => video === player.video && moveHead(video.currentTime)); // ignores events of an earlier clip's video
  video.addEventListener("play", () => followVideo(video));
  player.video = video;
  return h("div", { class: "video" }, video, missing);
}

/** Keeps the playhead in step with the picture, frame by frame. */
function followVideo(video) {
  if (video !== player.video || video.paused) return;
  moveHead(video.currentTime);
  requestAnimationFrame(() => followVideo(video));
}

function seek(seconds) {
  const end = clipSeconds() - 0.01;
  const target = Math.max(0, Math.min(seconds, end));
  if (player.video) player.video.currentTime = target;
  moveHead(target);
}

function moveHead(seconds) {
  player.seconds = seconds;
  const fraction = Math.max(0, Math.min(seconds / clipSeconds(), 1));
  player.head.style.setProperty("--at", fraction);
  const segment = Math.min(Math.floor(seconds / avel.data.summary.segment_seconds), clipSegments() - 1);
  if (player.segment !== segment || !player.readout.firstChild) {
    player.segment = segment;
    readOut();
    markAttention();
    writeLink();
  }
}

function playerKeys(event) {
  const step = avel.data.summary.segment_seconds;
  const keys = { ArrowLeft: () => seek(player.seconds - step), ArrowRight: () => seek(player.seconds + step), " ": togglePlay };
  if (!(event.key in keys) || event.target.closest("video, button, select, input")) return;
  event.preventDefault();
  keys[event.key]();
}

function togglePlay() {
  if (player.video) player.video.paused ? player.video.play() : player.video.pause();
}

function trackBox(clip) {
  const clips = avel.data.clips;
  const media = ofVideo("media", clip);
  const rows = [];
  if (media) {
    rows.push(track("frames", h("img", { class: "frames", src: `media/${media}-frames.jpg`, alt: "one frame of each segment", draggable: "false" })));
    rows.push(track("log-mel", h("img", { class: "sound", src: `media/${media}-sound.jpg`, alt: "spectrogram", draggable: "false" })));
  }
  const { runs } = avel.data.summary;
  const bars = (name, found, labels) =>
    found.map((own, at) => track(trackTitle(name, at), segmentBar(own, labels && labels[at], found === clips.label[clip])));
  if (clips.label[clip]) rows.push(...bars("label", clips.label[clip], null));
  const found = clips.predictions.map((_, run) => [run, predicted(run, clip)]).filter(([, tracks]) => tracks);
  for (const [run, own] of found) rows.push(...bars(runs[run].name, own, clips.label[clip]));
  for (const [run] of found) rows.push(track(`p of ${runs[run].name}`, h("div", { class: "probability", "data-run": run })));
  rows.push(track("seconds", secondsAxis()));
  const box = h("div", { class: "tracks", tabindex: "0", "aria-label": "time axis: click to seek, arrow keys to step" }, rows, h("div", { class: "over" }, player.head));
  box.addEventListener("pointerdown", (event) => {
    const bounds = player.head.parentElement.getBoundingClientRect();
    if (event.clientX < bounds.left) return;
    seek(((event.clientX - bounds.left) / bounds.width) * clipSeconds());
  });
  return box;
}

const track = (name, content) => h("div", { class: "track" }, h("span", { class: "track-name", title: name }, name), h("div", { class: "lane" }, content));

function segmentBar(found, labels, truth) {
  const names = avel.data.summary.classes;
  const shown = blocks(found, labels);
  const percentOf = (count) => `${(100 * count) / clipSegments()}%`;
  return h(
    "div",
    { class: truth ? "segments truth" : "segments", style: { "--lanes": 1 + Math.max(...shown.map((block) => block.lane)) } },
    shown.map((block) => {
      const kind = [block.class === null ? "empty" : "event", block.right ? "right" : "wrong"].join(" ");
      const style = { left: percentOf(block.first), width: percentOf(block.end - block.first), "--lane": block.lane };
      const name = block.class === null ? names[names.length - 1] : names[block.class];
      return h("span", { class: kind, style, title: name }, h("b", {}, block.class === null ? "bg" : name));
    })
  );
}

/** Names the classes of a clip in one segment, track by track. */
function classText(labels, segment) {
  const { classes, tracks } = avel.data.summary;
  const named = labels.map((track) => track[segment].map((number) => classes[number]).join(" and ") || classes[classes.length - 1]);
  return named.map((text, at) => (tracks[at] ? `${tracks[at]} ${text}` : text)).join(", ");
}

function secondsAxis() {
  const seconds = clipSeconds();
  const every = ticks(0, seconds, 10);
  return h("div", { class: "axis" }, every.map((value) => h("span", { style: { left: `${(100 * value) / seconds}%` } }, String(+value.toFixed(2)))));
}

/** Probabilities and attention of the clip come from a data file of their own, read when first needed. */
async function loadDetail(clip) {
  const size = avel.data.summary.detail_clips;
  const part = await avel.load(`detail-${Math.floor(clip / size)}`);
  if (clip !== player.clip) return;
  player.detail = part[clip % size];
  readOut();
  for (const lane of player.box.querySelectorAll(".probability")) lane.replaceChildren(...probabilityLines(Number(lane.dataset.run)));
  drawAttention();
}

/** The probabilities of a run over time, a line for each class that matters in the clip. */
function probabilityLines(run) {
  const trial = trialDetail(run);
  if (!trial) return [];
  const { outputs } = avel.data.summary;
  const segments = clipSegments();
  const svg = s("svg", { viewBox: `0 0 ${segments} 100`, preserveAspectRatio: "none", role: "img", "aria-label": `probabilities of ${avel.data.summary.runs[run].name}` });
  svg.append(s("line", { class: "grid", x1: 0, x2: segments, y1: 50, y2: 50 }));
  const colour = outputColours();
  trial.lines.forEach(([output, values]) => {
    const points = values.map((value, segment) => `${segment + 0.5},${100 - value}`).join(" ");
    const about = `${outputs[output]}: at most ${Math.max(...values)} %`;
    svg.append(s("polyline", { class: "curve", points, style: { stroke: colour(output) }, ...tipped(about) }));
  });
  const names = trial.lines.map(([output]) => h("span", {}, h("i", { class: "swatch", style: { "border-top-color": colour(output) } }), outputs[output]));
  return [svg, h("small", { class: "legend" }, names)];
}

/** Gives each class that has a line a colour of its own, the same for all runs. */
function outputColours() {
  const drawn = avel.data.clips.predictions.flatMap((_, run) => (trialDetail(run) || { lines: [] }).lines.map(([output]) => output));
  const order = [...new Set(drawn)];
  return (output) => seriesColour(order.indexOf(output));
}

/** Probabilities and attention of the clip by the chosen trial of a run, or null. */
function trialDetail(run) {
  const trials = player.detail && player.detail[run];
  return trials ? trials[Math.min(avel.state.trial, trials.length - 1)] : null;
}

/** What every run says about the second under the playhead. */
function readOut() {
  const { outputs, runs } = avel.data.summary;
  const labels = avel.data.clips.label[player.clip];
  const label = labels ? classText(labels, player.segment) : "unknown";
  const first = player.segment * avel.data.summary.segment_seconds;
  const lines = avel.data.clips.predictions.map((_, run) => {
    const trial = trialDetail(run);
    if (!trial) return null;
    const likely = trial.top[player.segment].filter(([, percent], at) => at === 0 || percent > 0);
    const best = likely.map(([number, percent]) => `${outputs[number]} ${percent} %`).join(", ");
    return h("div", {}, h("b", {}, runs[run].name), ` ${best}`);
  });
  player.readout.replaceChildren(h("div", {}, h("b", {}, `second ${+first.toFixed(2)}`), ` label: ${label}`), ...lines.filter(Boolean));
}

/** The attention maps of one run, chosen among those that have some. */
function drawAttention() {
  const runs = avel.data.clips.predictions.map((_, run) => run).filter((run) => ((trialDetail(run) || {}).maps || []).length);
  if (!runs.length) return player.attention.replaceChildren();
  if (!runs.includes(player.attentionRun)) player.attentionRun = runs[runs.length - 1];
  const choose = (value) => {
    player.attentionRun = Number(value);
    drawAttention();
  };
  const chosen = choice(runs.map((run) => [run, avel.data.summary.runs[run].name]), player.attentionRun, choose, { id: "attention-run" });
  player.attention.replaceChildren(
    h("p", { class: "choices" }, h("label", {}, "attention of ", chosen)),
    h("p", { class: "note" }, "A row is a segment, or the whole clip; a column is a segment that it attends to, or a cell of its frame, numbered from left to right, then down. The row at the playhead has a red border."),
    h("div", { class: "maps" }, trialDetail(player.attentionRun).maps.map((map) => attentionMap(...map)))
  );
  markAttention();
}

/** A map in thousandths, dark where attention is high: (T, T), (T, cells), or of the clip (1, T). */
function attentionMap(title, from, to, values) {
  const [rows, columns] = [values.length, values[0].length];
  const highest = Math.max(1, ...values.flat());
  const seconds = (segment) => `at ${+(segment * avel.data.summary.segment_seconds).toFixed(2)} s`;
  const row = (i) => (from === "clip" ? "the clip" : `${from} ${seconds(i)}`);
  const column = (j) => (to === "cells" ? `cell ${j + 1}` : `${to} ${seconds(j)}`);
  const svg = s("svg", { viewBox: `0 0 ${columns} ${rows}`, width: 240, height: Math.max(24, Math.min(240, (240 * rows) / columns)), class: "map", preserveAspectRatio: "none", role: "img", "aria-label": title });
  values.forEach((weights, i) =>
    weights.forEach((value, j) => {
      const text = `${row(i)} looks at ${column(j)}: ${(value / 1000).toFixed(3)}`;
      svg.append(s("rect", { x: j, y: i, width: 1, height: 1, style: { "fill-opacity": (value / highest).toFixed(3) }, ...tipped(text) }));
    })
  );
  if (from !== "clip") svg.append(s("rect", { class: "marked", x: 0, y: 0, width: columns, height: 1 }));
  const [down, across] = [mapAxis(rows, from), mapAxis(columns, to)];
  const scale = h("div", { class: "scale" }, "0", h("i"), (highest / 1000).toFixed(2));
  const csv = () => [[`${from} \\ ${to}`, ...values[0].map((_, j) => j)], ...values.map((weights, i) => [i, ...weights.map((value) => value / 1000)])];
  return h(
    "figure",
    {},
    h("figcaption", {}, title),
    h("div", { class: "map-box" }, h("div", { class: "down" }, down), svg, h("div", { class: "across" }, across)),
    h("small", {}, `rows ${from}, columns ${to}`),
    scale,
    downloads(`attention ${title}`, { svg: () => svg, rows: csv })
  );
}

/** Marks of an axis of a map: seconds, or numbers of cells; none where the whole clip is one row. */
function mapAxis(count, of) {
  if (of === "clip") return [];
  const unit = of === "cells" ? 1 : avel.data.summary.segment_seconds;
  return ticks(0, count * unit, 5)
    .filter((value) => value < count * unit)
    .map((value) => h("span", { style: { "--at": value / unit / count } }, String(+value.toFixed(2))));
}

function markAttention() {
  for (const mark of player.attention.querySelectorAll(".marked")) mark.setAttribute("y", player.segment);
}
