// The playground: what the form asks for becomes jobs, and the jobs become pictures.

import { apiKey } from "/static/api.js";
import { curlCommand } from "/static/curl_command.js";
import { byId, make } from "/static/element.js";
import { remember } from "/static/history.js";
import { showHistory, watchHistory } from "/static/history_list.js";
import { cancel } from "/static/job.js";
import { hideProblem, showProblem } from "/static/problem_box.js";
import { asked, askAgain, fieldOf, watchForm } from "/static/request_form.js";
import { CANCELLED, ResultPanel, counted } from "/static/result_panel.js";
import { choice, chooseModel, chosenModels, readModels, severalModels, watchServer } from "/static/served_models.js";

const TIMEOUT_S = 600; // who watches can cancel, and a teacher on a CPU takes its time

let jobId = null;
let running = false;

async function run() {
  if (running) return;
  const wanted = asked();
  let panels = [];
  begin(wanted);
  try {
    const models = await chosenModels();
    panels = models.map((model) => new ResultPanel(model, wanted.prompt, wanted.num_images, handlers(wanted)));
    byId("pictures").replaceChildren(make("div", { class: "panels" }, ...panels.map((panel) => panel.element)));
    await draw(wanted, panels);
    finish(wanted, panels);
  } catch (problem) {
    for (const panel of panels) if (panel.seconds === undefined) panel.giveUp();
    byId("status").textContent = problem.title === CANCELLED ? "Cancelled." : "";
    if (problem.title !== CANCELLED) showProblem(problem, fieldOf);
    if ([401, 403].includes(problem.status)) byId("key").focus();
  } finally {
    end();
  }
}

// One model after the other, so that each one's time is its own; the others draw the seeds of the first.
async function draw(wanted, [first, ...others]) {
  const onStart = (id) => { jobId = id; };
  const { prompt, num_images, seed } = wanted;
  const own = { num_images, seed, ...select(wanted) };
  const images = await first.run({ prompt, ...own, ...named(first.model), timeout: TIMEOUT_S }, onStart);
  for (const panel of others) {
    const seeds = images.map((image) => image.seed);
    await panel.run({ prompt, seeds, ...named(panel.model), timeout: TIMEOUT_S }, onStart);
  }
}

function named(model) {
  return severalModels() ? { model: model.name } : {};
}

function select({ diverse, num_images }) {
  return diverse && num_images > 1 ? { select: { diverse: true } } : {};
}

function begin(wanted) {
  running = true;
  hideProblem();
  byId("generate").setAttribute("aria-disabled", "true");
  byId("cancel").hidden = false;
  byId("status").textContent = `Drawing ${counted(wanted.num_images)}…`;
  const results = byId("results");
  if (results.getBoundingClientRect().top > innerHeight / 2) results.scrollIntoView(); // below the form, on a phone
}

function finish(wanted, panels) {
  const [first, second] = panels;
  const took = panels.map((panel) => `${panel.seconds.toFixed(2)} s`).join(" and ");
  byId("status").textContent = `${counted(wanted.num_images)} in ${took}.`;
  if (second && second.seconds > first.seconds) first.tellFasterThan(second);
  remember(wanted, first.pictures);
  showHistory(again);
}

function end() {
  running = false;
  jobId = null;
  byId("generate").removeAttribute("aria-disabled");
  if (document.activeElement === byId("cancel")) byId("generate").focus();
  byId("cancel").hidden = true;
}

function again(wanted) {
  if (!running) askAgain(wanted);
}

function handlers(wanted) {
  return {
    onAgain: (image) => {
      if (!running) chooseModel(image.model);
      again({ ...wanted, num_images: 1, seed: image.seed, model: choice() });
    },
    onCurl: (image) => copyCurl({ ...image, prompt: wanted.prompt }),
  };
}

async function copyCurl(image) {
  const model = severalModels() ? image.model : null;
  const text = curlCommand({ ...image, model }, location.origin, !byId("key-field").hidden);
  try {
    await navigator.clipboard.writeText(text);
    byId("status").textContent = `The curl command for seed ${image.seed} is copied.`;
  } catch {
    byId("command-text").value = text; // no clipboard without https: let it be copied by hand
    byId("command").showModal();
    byId("command-text").select();
  }
}

byId("key").value = apiKey.get();
byId("key").addEventListener("change", (event) => {
  apiKey.set(event.target.value.trim());
  readModels();
});
byId("cancel").addEventListener("click", () => jobId && cancel(jobId));
byId("retry").addEventListener("click", () => byId("form").requestSubmit());
addEventListener("pagehide", () => jobId && cancel(jobId));

watchForm(run);
watchHistory(again);
watchServer();
