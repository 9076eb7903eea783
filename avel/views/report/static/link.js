"use strict";
// Links to what is shown: the page's address names split, trial, filters, clip and second behind the #.

const link = { ready: false };

/** What stands behind the #: NAME=VALUE pairs of split, run and clip, and of what else is not at its default. */
function linkText() {
  const { clips, summary } = avel.data;
  const words = {
    split: avel.state.split,
    trial: avel.state.trial || "",
    run: summary.runs[filters.run].name,
    show: filters.mistakes === "all" ? "" : filters.mistakes,
    runs: filters.runs === "all" ? "" : filters.runs,
    class: filters.category === "" ? "" : summary.classes[filters.category],
    find: filters.text,
    order: filters.order === "dataset" ? "" : filters.order,
    label: filters.label === null ? "" : summary.classes[filters.label],
    called: filters.label === null ? "" : summary.classes[filters.prediction],
    clip: list.selected === null ? "" : clips.sample[list.selected],
    second: +player.seconds.toFixed(2) || "",
  };
  return "#" + new URLSearchParams(Object.entries(words).filter(([, value]) => value !== ""));
}

/** Puts what is shown into the address, where the page is ready for it. */
function writeLink() {
  if (link.ready && location.hash !== linkText()) location.replace(linkText());
}

/** Shows what an address names, and defaults in place of names that this page does not have. */
function followLink(hash) {
  const words = new URLSearchParams(hash.slice(1));
  if (![...words.keys()].some((key) => ["split", "clip", "run"].includes(key))) return; // the address of a section, such as #curves
  const { clips, summary } = avel.data;
  const placeOf = (names, name) => (names.includes(name) ? names.indexOf(name) : null);
  const clip = placeOf(clips.sample, Number(words.get("clip") || NaN));
  const split = clip === null ? words.get("split") : clips.split[clip];
  const label = placeOf(summary.classes, words.get("label"));
  const called = placeOf(summary.classes, words.get("called"));
  const category = placeOf(summary.classes, words.get("class"));
  const run = placeOf(browsedRuns().map((each) => each.name), words.get("run"));
  Object.assign(filters, {
    run: run ?? filters.run,
    mistakes: Object.hasOwn(MISTAKES, words.get("show")) ? words.get("show") : "all",
    runs: Object.hasOwn(AGREEMENT, words.get("runs")) || bestRun(words.get("runs")) !== null ? words.get("runs") : "all",
    category: category === null ? "" : String(category),
    text: words.get("find") || "",
    order: words.get("order") === "wrong" ? "wrong" : "dataset",
    label: called === null ? null : label,
    prediction: label === null ? null : called,
  });
  if (clip !== null) list.selected = clip;
  const offered = (id, value, usual) => ([...$(id).options].some((option) => option.value === value) ? value : usual);
  avel.set({ split: offered("split", split, avel.state.split), trial: Number(offered("trial", words.get("trial"), "0")) });
  showFilters();
  if (clip !== null && list.clips.includes(clip)) {
    selectClip(clip, Number(words.get("second") || 0) || 0);
    player.box.scrollIntoView({ block: "start" });
  }
}

function startLinks(hash) {
  followLink(hash);
  link.ready = true;
  window.addEventListener("hashchange", () => location.hash !== linkText() && followLink(location.hash));
  avel.listen(() => {
    $("split").value = avel.state.split;
    $("trial").value = String(avel.state.trial);
  });
}
