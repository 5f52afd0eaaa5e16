// The form: what it asks for, and the seed that is locked or drawn.

import { isDrawing } from "/static/drawing.js";
import { byId } from "/static/element.js";
import { choose as chooseOption } from "/static/options.js";
import { choice, choose } from "/static/served_models.js";
import { fillPicture, heldPicture, watchPicture } from "/static/source_picture.js";

// Fields of the API that another field of the form stands for.
const FIELDS = { seeds: "seed", width: "size", height: "size", image: "strength", mask: "strength" };

let lastSeed = null;

// What the form holds; `seed` is null unless it is locked.
export function held() {
  const locked = byId("lock").checked && byId("seed").value !== "";
  return {
    prompt: byId("prompt").value,
    num_images: Number(byId("num_images").value),
    seed: locked ? Number(byId("seed").value) : null,
    diverse: byId("diverse").checked && !byId("diverse-field").hidden,
    model: choice(),
    size: byId("size").value,
    format: byId("format").value,
    picture: heldPicture(),
  };
}

// What the form asks for; a seed is drawn here, so that every run can be repeated.
export function asked() {
  const wanted = held();
  lastSeed = wanted.seed ?? crypto.getRandomValues(new Uint32Array(1))[0];
  if (byId("lock").checked) byId("seed").value = lastSeed;
  return { ...wanted, seed: lastSeed };
}

// Fills in those fields that `wanted` has; a seed is locked.
export function fill(wanted) {
  for (const name of ["prompt", "num_images"]) if (name in wanted) byId(name).value = wanted[name];
  if ("seed" in wanted) {
    byId("seed").value = wanted.seed ?? "";
    byId("lock").checked = byId("seed").value !== "";
  }
  if ("diverse" in wanted) byId("diverse").checked = wanted.diverse;
  if (wanted.model) choose(wanted.model);
  for (const name of ["size", "format"]) if (wanted[name]) chooseOption(byId(name), wanted[name]);
  if ("picture" in wanted) fillPicture(wanted.picture);
  checkPrompt();
}

// Fills in what was asked before, and sends it.
export function askAgain(wanted) {
  fill(wanted);
  byId("form").requestSubmit();
}

// The form's field for a field of the API, if it has one.
export function fieldOf(name) {
  return byId("form").elements.namedItem(FIELDS[name] ?? name);
}

// Calls `run` when the form is sent, by its button or by Enter in the prompt (Shift+Enter makes a new line), and
// `changed` when it holds something else.
export function watchForm(run, changed) {
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!isDrawing()) run();
  });
  byId("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      byId("form").requestSubmit();
    }
  });
  byId("seed").addEventListener("input", () => {
    byId("lock").checked = byId("seed").value !== ""; // a seed that is typed is meant to be used
  });
  byId("lock").addEventListener("change", (event) => {
    if (!event.target.checked) byId("seed").value = "";
    else if (byId("seed").value === "" && lastSeed !== null) byId("seed").value = lastSeed;
  });
  byId("prompt").addEventListener("input", checkPrompt);
  watchPicture(changed);
  for (const event of ["input", "change"]) byId("form").addEventListener(event, changed);
}

function checkPrompt() {
  byId("prompt").setCustomValidity(byId("prompt").value.trim() ? "" : "Say what to draw.");
}
