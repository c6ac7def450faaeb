"use strict";
// Scores without loading the page again, and lets arrow keys go from token to token. The server renders the same without it.
const heat = $("heat");
let found = null;

function fill(view) {
  found = view;
  $("verdict").className = "card verdict " + view.verdict;
  for (const slot of document.querySelectorAll("[data-f]")) {
    slot.textContent = slot.dataset.f === "heat" ? view.heat : view.facts[slot.dataset.f];
  }
  const zone = document.querySelector("[data-rail=zone]");
  zone.setAttribute("x", view.rail.alpha);
  zone.setAttribute("width", 1000 - view.rail.alpha);
  document.querySelector("[data-rail=mark]").setAttribute("x", Math.min(view.rail.p - 4, 992));
  heat.replaceChildren(...view.tokens.map(token));
  $("legend").replaceChildren(...view.legend.map((one) => make("li", "", swatch(one.h), one.text)));
  $("concepts").replaceChildren(...view.concepts.map(concept));
  $("no-concepts").hidden = view.concepts.length > 0;
  $("now").textContent = "";
  showBanners(view.banners);
  $("rows").querySelector("tbody").replaceChildren();
  if ($("rows").open) rows();
  move(-1);
  $("result").hidden = false;
}

function swatch(level) {
  return make("span", "swatch h" + level, "h" + level);
}

function token(one) {
  const span = make("span", one.h === null ? "special" : "h" + one.h, words(one.p));
  span.setAttribute("role", "option");
  span.setAttribute("aria-selected", "false");
  span.setAttribute("aria-label", one.l);
  span.title = one.t;
  return span;
}

// The table is long and closed at first, so it is made when it is opened.
function rows() {
  const body = $("rows").querySelector("tbody");
  if (!found || body.rows.length) return;
  body.append(
    ...found.tokens.map((one, at) => {
      const head = make("th", "", make("code", "", words(one.p)));
      head.scope = "row";
      const level = make("td", "", one.h === null ? "special" : swatch(one.h));
      return make("tr", "", make("td", "num", String(at)), head, make("td", "num", one.s), level);
    }),
  );
}

function concept(one) {
  const head = make("h3", "", make("span", "index", "#" + one.index));
  if (one.label) head.append(" ", make("span", "label", words(one.label)));
  if (one.url) {
    const link = make("a", "", "Neuronpedia");
    link.href = one.url;
    link.rel = "noopener noreferrer";
    head.append(" ", link);
  }
  const where = ` · on ${one.count} tokens · hardest at token ${one.max_token} `;
  const numbers = make("p", "numbers", "energy ", make("b", "", one.energy), where, make("code", "", words(one.token)));
  const clean = one.contexts.map(([before, hot, after]) =>
    make("li", "", words(before), ...(hot.length ? [make("mark", "", words(hot))] : []), words(after)),
  );
  const none = make("p", "note", "Never fired on clean text.");
  return make("li", "", head, numbers, clean.length ? make("ul", "contexts", ...clean) : none);
}

function fail(text) {
  $("result").hidden = true;
  showBanners([{ kind: "error", text }]);
  say("No score.");
}

async function score(fields) {
  $("go").disabled = true;
  say("Scoring …");
  try {
    const headers = { accept: "application/json" };
    const answer = await fetch("/", { method: "POST", body: new URLSearchParams(fields), headers });
    const view = await answer.json();
    if (!answer.ok) {
      const wait = view.retry_after_s ? ` Try again in ${view.retry_after_s} s.` : "";
      fail(`No score (${answer.status}): ${view.title} ${view.detail || ""}${wait}`);
      return;
    }
    fill(view);
    say(view.facts.headline + ". " + view.facts.because + ".");
  } catch {
    fail("No score: the service does not answer. Is it running?");
  } finally {
    $("go").disabled = false;
  }
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const chosen = event.submitter && event.submitter.dataset.text;
  if (chosen !== undefined && chosen !== null) $("text").value = chosen;
  if ($("text").value) score(new FormData($("ask")));
  else fail("There is no prompt. Type one, or pick an example.");
});

$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
});

$("rows").addEventListener("toggle", rows);

// One token is current; the list has the focus all the time.
let at = -1;
function move(to) {
  const before = heat.querySelector(".at");
  if (before) {
    before.classList.remove("at");
    before.setAttribute("aria-selected", "false");
    before.removeAttribute("id");
  }
  const now = heat.children[to];
  at = now ? to : -1;
  if (!now) {
    heat.removeAttribute("aria-activedescendant");
    return;
  }
  now.classList.add("at");
  now.id = "current-token";
  now.setAttribute("aria-selected", "true");
  heat.setAttribute("aria-activedescendant", now.id);
  now.scrollIntoView({ block: "nearest" });
  $("now").textContent = now.getAttribute("aria-label");
}

heat.tabIndex = 0;
heat.addEventListener("keydown", (event) => {
  const last = heat.children.length - 1;
  const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last }[event.key];
  if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  move(Math.max(0, Math.min(last, to)));
});
heat.addEventListener("click", (event) => {
  const span = event.target.closest("#heat > span");
  if (span) move([...heat.children].indexOf(span));
});
