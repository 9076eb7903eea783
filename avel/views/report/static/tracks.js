"use strict";
// Labels and predictions of a clip as files: a label track for Audacity, subtitles (WebVTT), tiers for ELAN.

/** The labels of a clip, if they are known, and each run's predictions: [name, tracks] pairs. */
function sourcesOf(clip) {
  const { clips, summary } = avel.data;
  const found = clips.predictions.map((_, run) => [summary.runs[run].name, predicted(run, clip)]);
  return [["labels", clips.label[clip]], ...found].filter(([, tracks]) => tracks);
}

/** Events of a clip by track, in seconds: [{begin, end, name, track}]. */
function eventsOf(tracks) {
  const { classes, segment_seconds: seconds, tracks: names } = avel.data.summary;
  const events = tracks.flatMap((track, at) =>
    blocks(track, null)
      .filter((block) => block.class !== null)
      .map((block) => ({ begin: block.first * seconds, end: block.end * seconds, name: classes[block.class], track: names[at] }))
  );
  return events.sort((a, b) => a.begin - b.begin);
}

const named = (event) => (event.track ? `${event.name} (${event.track})` : event.name).replace(/\s+/g, " ");

const audacityText = (events) => events.map((event) => `${event.begin.toFixed(3)}\t${event.end.toFixed(3)}\t${named(event)}\n`).join("");

function vttText(events) {
  const stamp = (seconds) => new Date(1000 * seconds).toISOString().slice(11, 23);
  const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  return "WEBVTT\n" + events.map((event) => `\n${stamp(event.begin)} --> ${stamp(event.end)}\n${escaped(named(event))}\n`).join("");
}

/** An ELAN annotation document (EAF 3.0) with a tier for each source and track. */
function eafText(sources, link) {
  const tracks = avel.data.summary.tracks;
  const tiers = sources.flatMap(([name, found]) =>
    tracks.map((track, at) => [trackTitle(name, at), eventsOf(found).filter((event) => event.track === track)])
  );
  const root = document.implementation.createDocument(null, "ANNOTATION_DOCUMENT");
  const add = (parent, tag, properties, text = "") => {
    const element = root.createElement(tag);
    for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
    element.textContent = text;
    parent.append(element);
    return element;
  };
  const top = root.documentElement;
  for (const [name, value] of Object.entries({ AUTHOR: "avel", DATE: new Date().toISOString(), FORMAT: "3.0", VERSION: "3.0" })) top.setAttribute(name, value);
  const header = add(top, "HEADER", { MEDIA_FILE: "", TIME_UNITS: "milliseconds" });
  if (link) add(header, "MEDIA_DESCRIPTOR", { MEDIA_URL: new URL(link, location.href).href, MIME_TYPE: "video/mp4" });
  const order = add(top, "TIME_ORDER", {});
  let slots = 0;
  const slot = (seconds) => add(order, "TIME_SLOT", { TIME_SLOT_ID: `ts${++slots}`, TIME_VALUE: Math.round(1000 * seconds) }).getAttribute("TIME_SLOT_ID");
  let annotations = 0;
  for (const [name, events] of tiers) {
    const tier = add(top, "TIER", { LINGUISTIC_TYPE_REF: "events", TIER_ID: name });
    for (const event of events) {
      const [begin, end] = [slot(event.begin), slot(event.end)];
      const annotation = add(add(tier, "ANNOTATION", {}), "ALIGNABLE_ANNOTATION", { ANNOTATION_ID: `a${++annotations}`, TIME_SLOT_REF1: begin, TIME_SLOT_REF2: end });
      add(annotation, "ANNOTATION_VALUE", {}, event.name);
    }
  }
  add(top, "LINGUISTIC_TYPE", { LINGUISTIC_TYPE_ID: "events", TIME_ALIGNABLE: "true" });
  return `<?xml version="1.0" encoding="UTF-8"?>\n${new XMLSerializer().serializeToString(root)}\n`;
}

/** Saves the tracks of the clip in the player, and its timeline as a drawing. */
function trackSaves(clip) {
  const sources = sourcesOf(clip);
  if (!sources.length) return "";
  const name = ofVideo("video_id", clip);
  const view = { source: 0 };
  const chosen = choice(sources.map(([text], at) => [at, text]), 0, (value) => (view.source = Number(value)), { id: "saved-tracks" });
  const button = (text, about, kind, content) =>
    h("button", { class: "save", "aria-label": about, click: () => save(`${name}.${kind}`, content()) }, text);
  const events = () => eventsOf(sources[view.source][1]);
  return h(
    "p",
    { class: "saves" },
    h("label", {}, "save ", chosen),
    button("Audacity", "label track for Audacity", "txt", () => audacityText(events())),
    button("VTT", "subtitles, WebVTT", "vtt", () => vttText(events())),
    button("ELAN", "all tracks for ELAN", "eaf", () => eafText(sources, ofVideo("path", clip))),
    button("SVG", "timeline as SVG", "svg", () => svgText(timelineDrawing(sources)))
  );
}

/** A row of a drawing for each lane of a track, [name, blocks]; the first has the name. */
function lanes(name, shown) {
  const count = 1 + Math.max(...shown.map((block) => block.lane));
  return Array.from({ length: count }, (_, lane) => [lane ? "" : name, shown.filter((block) => block.lane === lane)]);
}

function timelineDrawing(sources) {
  const { classes } = avel.data.summary;
  const labels = sources[0][0] === "labels" ? sources[0][1] : null;
  const rows = sources.flatMap(([name, found]) =>
    found.flatMap((track, at) => lanes(trackTitle(name, at), blocks(track, labels && labels[at])))
  );
  const x = (segment) => 200 + (430 * segment) / clipSegments();
  return rowsDrawing(rows.map(([name]) => name), 640, (at, y) =>
    rows[at][1].flatMap(({ first, end, class: number, right }) => {
      const box = s("rect", { class: right ? "filled" : "filled wrong", x: x(first), y: y - 11, width: x(end) - x(first) - 1, height: 22, style: { "fill-opacity": number === null ? 0.15 : 0.6 } });
      return [box, written((x(first) + x(end)) / 2, y + 5, "middle", short(number === null ? "bg" : classes[number], (x(end) - x(first)) / 7))];
    })
  );
}
