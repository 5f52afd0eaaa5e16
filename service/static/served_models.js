// Which models are served, what the server can do, and the choice between them.

import { Problem, apiKey, call } from "/static/api.js";
import { byId } from "/static/element.js";
import { CANCELLED } from "/static/job.js";
import { choose as chooseOption, offer } from "/static/options.js";
import { sizeName } from "/static/request_body.js";
import { offerPicture } from "/static/source_picture.js";

const POLL_MS = 1000;
const CALM_POLL_MS = 5000;
const ALL = "side by side";

let models = [];
let obstacle = null; // why the models could not be read
let onChange = () => {};

// Asks what the server offers, once, and which models are ready, again and again; calls `changed` after each answer.
export async function watchServer(changed) {
  onChange = changed;
  byId("model").addEventListener("change", showChoice);
  await showFeatures();
  await watchModels();
}

// The models that the next run is for, waiting for the first to be ready; throws a Problem when that cannot be known.
export async function chosenModels(signal) {
  while (models.length === 0) {
    await readModels();
    if (obstacle) throw obstacle;
    if (models.length === 0) await pause(signal);
    if (signal.aborted) throw new Problem({ title: CANCELLED });
  }
  return modelsOfChoice();
}

export function modelsOfChoice() {
  if (choice() === ALL) return models;
  return models.filter((model) => model.name === choice());
}

// The choice as it can be kept, and made again where it is still there.
export function choice() {
  return byId("model").value;
}

export function choose(value) {
  chooseOption(byId("model"), value);
  showChoice();
}

export function severalModels() {
  return models.length > 1;
}

async function showFeatures() {
  try {
    const { components } = await (await call("/openapi.json")).json();
    byId("diverse-field").hidden = !components.schemas.GenerateRequest.properties.select;
    byId("key-field").hidden = !components.securitySchemes;
  } catch {
    setTimeout(showFeatures, POLL_MS);
  }
}

async function watchModels() {
  if (document.visibilityState === "visible") await readModels();
  setTimeout(watchModels, models.length ? CALM_POLL_MS : POLL_MS);
}

export async function readModels() {
  try {
    const answer = await (await call("/models")).json();
    models = answer.models.filter((model) => model.workers.length > 0);
    obstacle = null;
    tell(models.length ? models.map((model) => model.name).join(" and ") : "Waiting for a worker…");
  } catch (problem) {
    models = [];
    obstacle = problem;
    tell([401, 403].includes(problem.status) ? keyNote() : "The server does not answer.");
  }
  offerModels();
  showChoice();
}

function keyNote() {
  return apiKey.get() ? "This API key is not known." : "This server asks for an API key.";
}

function tell(text) {
  if (byId("served").textContent !== text) byId("served").textContent = text; // told once by screen readers
  byId("served").classList.toggle("ready", models.length > 0);
}

function offerModels() {
  const options = models.map((model) => [model.name, `${model.name} (${model.evaluations} evaluations)`]);
  if (models.length > 1) options.push([ALL, "All, side by side"]);
  offer(byId("model"), options);
  byId("model-field").hidden = models.length < 2;
}

// The sizes and examples of the chosen models; side by side, the sizes that all of them have.
function showChoice() {
  const chosen = modelsOfChoice();
  const [first, ...others] = chosen.map((model) => model.sizes.map(sizeName));
  const common = (first ?? []).filter((size) => others.every((sizes) => sizes.includes(size)));
  offerPicture(chosen);
  if (chosen.length) offer(byId("size"), common.map((size) => [size, size.replace("x", " × ")]));
  onChange(chosen[0]);
}

function pause(signal) {
  return new Promise((resolve) => {
    setTimeout(resolve, POLL_MS);
    signal.addEventListener("abort", resolve, { once: true });
  });
}
