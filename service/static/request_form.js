// The form: what it asks for, and the seed that is locked or drawn.

import { byId } from "/static/element.js";
import { choice, choose } from "/static/served_models.js";

let lastSeed = null;

// What the form asks for; a seed is drawn here, so that every run can be repeated.
export function asked() {
  const locked = byId("lock").checked && byId("seed").value !== "";
  lastSeed = locked ? Number(byId("seed").value) : crypto.getRandomValues(new Uint32Array(1))[0];
  if (byId("lock").checked) byId("seed").value = lastSeed;
  return {
    prompt: byId("prompt").value,
    num_images: Number(byId("num_images").value),
    seed: lastSeed,
    diverse: byId("diverse").checked && !byId("diverse-field").hidden,
    model: choice(),
  };
}

// Fills in what was asked before, with its seed locked, and sends it.
export function askAgain(wanted) {
  for (const name of ["prompt", "num_images", "seed"]) byId(name).value = wanted[name];
  byId("lock").checked = true;
  byId("diverse").checked = wanted.diverse;
  choose(wanted.model);
  byId("generate").focus({ preventScroll: true }); // the button that was pressed is about to go
  byId("form").requestSubmit();
}

// The form's field for a field of the API, if it has one.
export function fieldOf(name) {
  return byId("form").elements.namedItem(name === "seeds" ? "seed" : name);
}

// Calls `run` when the form is sent, by its button or by Enter in the prompt (Shift+Enter makes a new line).
export function watchForm(run) {
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
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
}
