// A run: what the form asks for becomes jobs, and the jobs become pictures; one run at a time.

import { setDrawing } from "/static/drawing.js";
import { byId, make } from "/static/element.js";
import { remember } from "/static/history.js";
import { CANCELLED } from "/static/job.js";
import { hideProblem, showProblem } from "/static/problem_box.js";
import { requestBody } from "/static/request_body.js";
import { fieldOf } from "/static/request_form.js";
import { ResultPanel, counted, drawInto } from "/static/result_panel.js";
import { chosenModels, severalModels } from "/static/served_models.js";

let panels = [];
let stopping = new AbortController();

// The cards that have a picture, in the order of the page.
export function madeCards() {
  return panels.flatMap((panel) => panel.made);
}

export function stop() {
  stopping.abort();
}

// Draws what `wanted` holds by each chosen model, in panels that take the place of the earlier ones.
export async function run(wanted, handlers) {
  await drawing(wanted.num_images, async (signal) => {
    const models = await chosenModels(signal);
    tell(`Drawing ${counted(wanted.num_images)}…`);
    const drawn = models.map((model) => new ResultPanel(model, wanted, handlers));
    try {
      await drawAll(wanted, drawn, signal);
    } catch (problem) {
      for (const panel of drawn) if (panel.seconds === undefined) panel.giveUp();
      const made = drawn.flatMap((panel) => panel.made).length;
      problem.kept = made ? `${made} of ${counted(wanted.num_images * drawn.length)} made.` : "";
      if (!byId("pictures").querySelector("li, .empty")) showEmpty();
      throw problem;
    }
    const [first, second] = drawn;
    if (second && second.seconds > first.seconds) first.tellFasterThan(second);
    remember(wanted, first.made.map((card) => card.picture));
    return drawn.map((panel) => panel.seconds);
  });
}

// Draws the picture of `card` again, in its place.
export async function redraw(card) {
  await drawing(1, async (signal) => {
    const began = performance.now();
    const wanted = { ...card.wanted, num_images: 1, seed: card.image.seed };
    card.wait();
    try {
      await drawInto([card], requestBody(wanted, card.model, severalModels()), signal);
    } catch (problem) {
      card.giveUp();
      throw problem;
    }
    return [(performance.now() - began) / 1000];
  });
}

// One model after the other, so that each one's time is its own; the others draw the seeds of the first.
async function drawAll(wanted, [first, ...others], signal) {
  const drawn = [first, ...others];
  const images = await first.run(requestBody(wanted, first.model, severalModels()), signal, () => show(drawn));
  for (const panel of others) {
    const { num_images, seed, select, ...same } = requestBody(wanted, panel.model, severalModels());
    await panel.run({ ...same, seeds: images.map((image) => image.seed) }, signal);
  }
}

// Only once the server has taken the call: one that is refused leaves the earlier pictures.
function show(drawn) {
  panels = drawn;
  byId("pictures").replaceChildren(make("div", { class: "panels" }, ...panels.map((panel) => panel.element)));
}

function showEmpty() {
  byId("pictures").replaceChildren(make("p", { class: "empty" }, "Your pictures will appear here."));
}

// Calls `draw`, which resolves to the seconds that it took, and shows its course and its problems.
async function drawing(count, draw) {
  stopping = new AbortController();
  begin();
  try {
    const seconds = await draw(stopping.signal);
    tell(`${counted(count)} in ${seconds.map((each) => `${each.toFixed(2)} s`).join(" and ")}.`);
  } catch (problem) {
    leave(problem);
  } finally {
    end();
  }
}

function begin() {
  setDrawing(true);
  hideProblem();
  tell("Waiting for a model to be ready…");
  byId("cancel").hidden = false;
  const results = byId("results");
  if (results.getBoundingClientRect().top > innerHeight / 2) results.scrollIntoView(); // below the form, on a phone
}

function leave(problem) {
  tell([problem.title === CANCELLED ? "Cancelled." : "", problem.kept].filter(Boolean).join(" "));
  if (problem.title !== CANCELLED) showProblem(problem, fieldOf);
  if ([401, 403].includes(problem.status)) byId("key").focus();
}

function end() {
  setDrawing(false);
  if (document.activeElement === byId("cancel")) byId("generate").focus();
  byId("cancel").hidden = true;
}

function tell(text) {
  byId("status").textContent = text;
}
