"use strict";
// What every view needs. Text enters as text only: nothing here parses HTML.
const $ = (id) => document.getElementById(id);

function make(tag, name, ...inside) {
  const found = document.createElement(tag);
  if (name) found.className = name;
  found.append(...inside);
  return found;
}

// Pieces of a text: plain ones, and pairs of a character that cannot be seen and what is shown in its place.
function words(pieces) {
  const found = document.createDocumentFragment();
  for (const piece of pieces) {
    if (typeof piece === "string") {
      found.append(piece);
    } else {
      const hidden = make("span", "esc", make("span", "raw", piece[0]));
      hidden.dataset.shown = piece[1];
      found.append(hidden);
    }
  }
  return found;
}

function number(value, digits = 4) {
  return typeof value === "number" && isFinite(value) ? String(Number(value.toPrecision(digits))) : "–";
}

function showBanners(list) {
  const names = { error: "Error", warn: "Mind", info: "Note" };
  $("banners").replaceChildren(
    ...list.map((one) => make("p", "banner " + one.kind, make("b", "", names[one.kind]), " ", one.text)),
  );
}

// Says something where it is read out, also when it is the same as before.
function say(text) {
  $("said").textContent = "";
  $("said").textContent = text;
}

// While the service is not ready, ask how it is, and say when it is.
(function watch() {
  const state = $("ready");
  if (!state || !state.classList.contains("bad")) return;
  const timer = setInterval(async () => {
    const answer = await fetch("/readyz", { cache: "no-store" }).catch(() => null);
    if (!answer || !answer.ok) return;
    clearInterval(timer);
    state.className = "state good";
    state.textContent = "Ready";
    showBanners([]);
    say("The service is ready.");
  }, 2000);
})();
