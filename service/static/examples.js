// Prompts that the chosen model draws well, as its folder says: the form begins with the first, a click draws any.

import { drawsWhenPressed } from "/static/drawing.js";
import { byId, make } from "/static/element.js";

let shown = "";

// Shows the examples of `model`; `onExample` is called with the one that is pressed.
export function showExamples(model, onExample) {
  const examples = model?.examples ?? [];
  if (JSON.stringify(examples) === shown) return;
  shown = JSON.stringify(examples);
  byId("examples-field").hidden = examples.length === 0;
  byId("examples").replaceChildren(...examples.map((example) => item(example, onExample)));
  if (byId("prompt").value === "" && examples.length) byId("prompt").value = examples[0];
}

function item(example, onExample) {
  const button = make("button", { type: "button", class: "quiet chip" }, example);
  drawsWhenPressed(button, () => onExample(example));
  return make("li", {}, button);
}
