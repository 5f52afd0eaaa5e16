// The playground: joins the form, the runs, the pictures and what can be done with them.

import { linkedCall } from "/static/call_link.js";
import { goToCode, showCode, watchCode } from "/static/code_panel.js";
import { byId } from "/static/element.js";
import { showExamples } from "/static/examples.js";
import { showHistory, watchHistory } from "/static/history_list.js";
import { watchKey } from "/static/key_field.js";
import { requestBody } from "/static/request_body.js";
import { askAgain, asked, fill, held, watchForm } from "/static/request_form.js";
import { counted } from "/static/result_panel.js";
import { madeCards, redraw, run, stop } from "/static/runs.js";
import { modelsOfChoice, readModels, severalModels, watchServer } from "/static/served_models.js";
import { takePicture } from "/static/source_picture.js";
import { enlarge, watchViewer } from "/static/viewer.js";

const onCard = { onAgain: redraw, onEnlarge: enlarge };

async function generate() {
  const wanted = asked();
  showCall(wanted);
  await run(wanted, onCard);
  showHistory(askAgain);
}

function showCall(wanted) {
  const [model] = modelsOfChoice();
  const seed = wanted.seed === null ? "a random seed" : `seed ${wanted.seed}`;
  showCode(`${counted(wanted.num_images)}, ${seed}`, requestBody(wanted, model, severalModels()), wanted);
}

function showCallOf(card) {
  const wanted = { ...card.wanted, num_images: 1, seed: card.image.seed, model: card.model.name };
  showCode(`the picture of seed ${wanted.seed}`, requestBody(wanted, card.model, severalModels()), wanted);
  goToCode();
}

// The form is filled in for pictures like this one: the same seed, and room for another prompt.
function useSeed(card) {
  const { prompt, size, format, picture } = card.wanted;
  fill({ prompt, size, format, picture, num_images: 1, seed: card.image.seed });
  showCall(held());
  byId("prompt").focus();
}

// The form begins from this picture from now on.
async function beginFrom(card) {
  await takePicture(await (await fetch(card.path)).blob());
  byId("prompt").focus();
}

function drawExample(prompt) {
  askAgain({ prompt });
}

function followLink() {
  const call = linkedCall();
  if (!call) return;
  fill(call);
  showCall(held());
  byId("status").textContent = "This call came with the link: Generate draws it.";
}

byId("cancel").addEventListener("click", stop);
byId("retry").addEventListener("click", () => byId("form").requestSubmit());
addEventListener("pagehide", stop);
addEventListener("hashchange", followLink);

watchKey(readModels);
watchForm(generate, () => showCall(held()));
watchHistory(askAgain);
watchViewer(madeCards, { onCode: showCallOf, onSeed: useSeed, onBegin: beginFrom });
watchCode();
followLink();
let before = null;
watchServer((model) => {
  showExamples(model, drawExample);
  if (model?.name !== before) showCall(held()); // and not each time: what is shown by then stays
  before = model?.name;
});
