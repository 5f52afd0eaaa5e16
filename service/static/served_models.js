// Which models are served, what the server can do, and the choice between them.

import { Problem, apiKey, call } from "/static/api.js";
import { byId, make } from "/static/element.js";

const POLL_MS = 1000;
const CALM_POLL_MS = 5000;
const ALL = "side by side";

let models = [];
let unready;

// Asks what the server offers, once, and which models are ready, again and again.
export async function watchServer() {
  await showFeatures();
  await watchModels();
}

// The models that the next run is for; throws a Problem when there is none.
export async function chosenModels() {
  if (models.length === 0) await readModels();
  if (models.length === 0) throw unready;
  return choice() === ALL ? models : [models.find((model) => model.name === choice())];
}

// The choice as it can be kept, and made again where it is still there.
export function choice() {
  return byId("model").value;
}

export function choose(value) {
  if ([...byId("model").options].some((option) => option.value === value)) byId("model").value = value;
}

export function chooseModel(name) {
  if (byId("model").value !== ALL) choose(name);
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
    unready = new Problem({ title: "No model is ready", detail: "A worker may still be starting." });
    tell(models.length ? models.map((model) => model.name).join(" and ") : "Waiting for a worker…");
  } catch (problem) {
    models = [];
    unready = problem;
    tell([401, 403].includes(problem.status) ? keyNote() : "The server does not answer.");
  }
  offerChoice();
}

function keyNote() {
  return apiKey.get() ? "This API key is not known." : "This server asks for an API key.";
}

function tell(text) {
  if (byId("served").textContent !== text) byId("served").textContent = text; // told once by screen readers
  byId("served").classList.toggle("ready", models.length > 0);
}

function offerChoice() {
  const select = byId("model");
  const options = models.map((model) => [model.name, `${model.name} (${model.evaluations} evaluations)`]);
  if (models.length > 1) options.push([ALL, "All, side by side"]);
  const names = options.map(([value]) => value).join();
  if (names === [...select.options].map((option) => option.value).join()) return;
  const before = select.value;
  select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  choose(before);
  byId("model-field").hidden = models.length < 2;
}
