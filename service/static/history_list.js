// The list of past runs: each one a button that draws it again.

import { drawsWhenPressed } from "/static/drawing.js";
import { byId, make } from "/static/element.js";
import { forget, pastRuns } from "/static/history.js";
import { counted } from "/static/result_panel.js";

// Shows what is kept; `onAgain` is called with what a run asked for.
export function showHistory(onAgain) {
  const runs = pastRuns();
  byId("history").hidden = runs.length === 0;
  byId("runs").replaceChildren(...runs.map((run) => item(run, onAgain)));
}

export function watchHistory(onAgain) {
  byId("clear").addEventListener("click", () => {
    forget();
    showHistory(onAgain);
    byId("prompt").focus();
  });
  showHistory(onAgain);
}

function item({ asked, thumbnails }, onAgain) {
  const facts = `${counted(asked.num_images)} · seed ${asked.seed}${asked.diverse ? " · diverse" : ""}${asked.picture ? " · from a picture" : ""}`;
  const button = make(
    "button",
    { type: "button", class: "past", "aria-label": `Draw again: ${asked.prompt}, ${facts}` },
    make("span", { class: "thumbnails" }, ...thumbnails.map((source) => make("img", { src: source, alt: "" }))),
    make("span", { class: "past-prompt" }, asked.prompt),
    make("small", {}, facts),
  );
  drawsWhenPressed(button, () => onAgain(asked));
  return make("li", {}, button);
}
