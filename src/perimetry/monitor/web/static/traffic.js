"use strict";
// Follows events as they come. The last id is kept, so that after an end the rest is asked for from there on.
const ROWS = 50;
const body = $("tail").tBodies[0];
const bins = JSON.parse($("histogram").dataset.bins);
const plot = histogram($("histogram"), bins);
const series = JSON.parse($("series").dataset.series);
if (series.length > 1) shares($("series"), series, Number($("series").dataset.alpha));

let last = Number($("last").dataset.last);
let source = null;
let paused = false;
let waiting = [];
let due = false;
let lost = false;

function row(event) {
  const when = new Date(event.ts);
  const time = make("td", "", isNaN(when) ? "–" : when.toISOString().slice(11, 19));
  time.title = event.ts;
  const verdict = event.flagged ? make("span", "pill bad", "outside") : make("span", "pill", "inside");
  const numbers = [event.n_tokens, number(event.score), number(event.p_value)].map((text) => make("td", "num", String(text)));
  const id = make("td", "num", String(event.id));
  const names = [make("td", "", event.group), make("td", "", event.adapter || "")];
  const found = make("tr", event.flagged ? "hit new" : "new", time, id, ...names, ...numbers, make("td", "", verdict));
  found.dataset.id = event.id;
  return found;
}

function gapRow(missed) {
  const cell = make("td", "", `${missed} events were left out here: they came faster than they were read`);
  cell.colSpan = 8;
  return make("tr", "gap", cell);
}

// Many events may come at once: what would be pushed out again at once is never made.
function show() {
  due = false;
  if (paused) return;
  const some = waiting.splice(0).slice(-ROWS).reverse();
  body.prepend(...some.map((one) => (one.missed === undefined ? row(one) : gapRow(one.missed))));
  while (body.rows.length > ROWS) body.lastElementChild.remove();
  plot.setData(histogramData(bins));
}

function note(one) {
  waiting.push(one);
  if (waiting.length > ROWS) waiting.shift();
  if (!due) {
    due = true;
    requestAnimationFrame(show);
  }
}

function follow() {
  source = new EventSource("/v1/events" + (last ? "?since=" + last : ""));
  source.onopen = () => {
    say(lost ? "Connected again; nothing was missed unless a line says so." : "Live.");
    lost = false;
  };
  source.onmessage = (message) => {
    const event = JSON.parse(message.data);
    if (event.id <= last) return;
    last = event.id;
    if (event.adapter !== "page") bins[Math.max(0, Math.min(bins.length, Math.ceil(event.p_value * bins.length)) - 1)] += 1;
    note(event);
  };
  source.addEventListener("gap", (message) => {
    const { missed } = JSON.parse(message.data);
    note({ missed });
    say(`${missed} events were missed.`);
  });
  source.onerror = () => {
    if (!lost) say("The connection is lost; trying again.");
    lost = true;
    // A browser goes on by itself after a lost connection, with the last id; but not after a refusal.
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 2000);
  };
}

$("pause").hidden = false;
$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Go on" : "Pause";
  if (!paused) show();
});
addEventListener("pagehide", () => source.close());
follow();

// Numbers of drift are rendered by the server; say when there are newer ones.
if ($("news")) {
  setInterval(async () => {
    const answer = await fetch("/v1/drift").catch(() => null);
    if (!answer || !answer.ok) return;
    const { as_of, state } = await answer.json();
    if (as_of !== $("drift").dataset.asOf) $("news").textContent = `A newer window is there (${state}). Load the page again to see it.`;
  }, 60000);
}
