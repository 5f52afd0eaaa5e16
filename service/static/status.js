// The status page: what is served by whom, and what the service has to do; read again every few seconds.

import { call } from "/static/api.js";
import { byId, make } from "/static/element.js";
import { watchKey } from "/static/key_field.js";
import { samples } from "/static/metrics_text.js";

const POLL_MS = 3000;

async function show() {
  try {
    const [models, metrics] = await Promise.all([call("/models"), call("/metrics")]);
    showModels((await models.json()).models);
    showService(samples(await metrics.text()));
    showProblem("");
  } catch (problem) {
    if ([401, 403].includes(problem.status)) byId("key-field").hidden = false;
    tell([401, 403].includes(problem.status) ? "This server asks for an API key." : problem.message, false);
    showProblem([problem.message, problem.detail].filter(Boolean).join(": "));
  }
}

async function watch() {
  if (document.visibilityState === "visible") await show();
  setTimeout(watch, POLL_MS);
}

function showModels(models) {
  const ready = models.filter((model) => model.workers.length);
  tell(ready.length ? ready.map((model) => model.name).join(" and ") : "Waiting for a worker…", ready.length > 0);
  const none = make("p", { class: "card" }, "No worker has announced a model yet; it may still be starting.");
  replace("models", models.length ? models.map(modelCard) : [none]);
}

function modelCard(model) {
  const facts = {
    Evaluations: `${model.evaluations} in ${model.steps} steps`,
    Sizes: model.sizes.map(([height, width]) => `${width} × ${height}`).join(", "),
    Family: model.family,
    Method: model.method,
    "Tokens of a prompt": model.max_sequence_length ?? "–",
    Weights: model.sha256.slice(0, 12),
    Version: model.version,
  };
  const rows = model.workers.map(({ worker_id, card }) => {
    const { device, dtype, max_batch, threads, compile } = card.settings;
    return [worker_id, device, dtype, max_batch, threads, compile ? "yes" : "no"];
  });
  const workers = rows.length
    ? table(["Worker", "Device", "Type", "Largest batch", "Threads", "Compiled"], rows)
    : make("p", {}, "No worker is alive: calls wait.");
  return make("article", { class: "card" }, make("h3", {}, model.name), list(facts), workers);
}

function showService(all) {
  const sum = (name, labels = {}) => all
    .filter((sample) => sample.name === name && Object.entries(labels).every(([key, value]) => sample.labels[key] === value))
    .reduce((total, sample) => total + sample.value, 0);
  const facts = {
    "Images waiting": sum("fourstep_queue_images"),
    "Images in work": sum("fourstep_inflight_images"),
    Workers: sum("fourstep_workers"),
    "Memory of Redis": `${(sum("fourstep_redis_memory_bytes") / 2 ** 20).toFixed(1)} MiB`,
  };
  const endpoints = [...new Set(all.filter(({ name }) => name === "fourstep_requests_total").map(({ labels }) => labels.endpoint))];
  const rows = endpoints.sort().map((endpoint) => {
    const counts = (outcome) => sum("fourstep_requests_total", { endpoint, ...outcome });
    const [total, well] = [counts({}), counts({ outcome: "ok" }) + counts({ outcome: "cached" })];
    const seconds = sum("fourstep_request_duration_seconds_sum", { endpoint });
    const timed = sum("fourstep_request_duration_seconds_count", { endpoint });
    return [endpoint === "unmatched" ? "other addresses" : endpoint, total, well, total - well, timed ? `${((1000 * seconds) / timed).toFixed(1)} ms` : "–"];
  });
  const calls = rows.length ? [table(["Calls of", "All", "Answered", "Others", "Mean time"], rows)] : [];
  replace("service", [make("div", { class: "card" }, list(facts), ...calls)]);
}

function list(facts) {
  const pairs = Object.entries(facts).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, `${value}`)));
  return make("dl", {}, ...pairs);
}

// Wider than a phone: scrolled in its own frame, by keyboard too.
function table(names, rows) {
  const head = make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)));
  const body = rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, `${cell ?? "–"}`))));
  const inner = make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
  return make("div", { class: "wide", role: "region", "aria-label": names[0], tabindex: "0" }, inner);
}

// Only what changed, so that a selection or the focus stays.
function replace(id, parts) {
  const fresh = make("div", {}, ...parts);
  if (fresh.innerHTML !== byId(id).innerHTML) byId(id).replaceChildren(...fresh.childNodes);
}

function tell(text, ready) {
  if (byId("served").textContent !== text) byId("served").textContent = text;
  byId("served").classList.toggle("ready", ready);
}

function showProblem(text) {
  if (byId("problem").textContent !== text) byId("problem").textContent = text;
}

watchKey(show);
watch();
