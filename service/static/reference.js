// The API reference: /openapi.json as a page.

import { byId, make } from "/static/element.js";
import { kind, resolved, rowsOf } from "/static/schema_rows.js";

// Text with `code` in backticks, as OpenAPI descriptions have it.
function prose(text) {
  const parts = text.split(/`([^`]+)`/).map((part, i) => (i % 2 ? make("code", {}, part) : part));
  return make("p", {}, ...parts);
}

function table(rows) {
  const lines = rows.map(({ name, required, kind: what, description }) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, make("code", {}, name), ...(required ? [" ", make("span", { class: "required" }, "required")] : [])),
      make("td", {}, what ? make("p", { class: "kind" }, what) : "", description ? prose(description) : ""),
    ),
  );
  return make("table", {}, make("tbody", {}, ...lines));
}

function part(title, rows) {
  return rows.length ? [make("h3", {}, title), table(rows)] : [];
}

function parameters(operation, openapi) {
  return (operation.parameters ?? []).map((one) => ({
    name: one.name,
    required: one.required,
    kind: `${one.in} · ${kind(one.schema, openapi)}`,
    description: one.description,
  }));
}

function body(operation, openapi) {
  const schema = operation.requestBody?.content?.["application/json"]?.schema;
  if (!schema) return [];
  const example = resolved(schema, openapi).examples?.[0];
  const shown = example ? [make("h3", {}, "Example"), make("pre", { tabindex: "0" }, JSON.stringify(example, null, 2))] : [];
  return [...part("Body", rowsOf(schema, openapi)), ...shown];
}

function answers(operation, openapi) {
  const all = Object.entries(operation.responses);
  const good = all.filter(([status]) => status < 400);
  const bad = all.filter(([status]) => status >= 400);
  const rows = good.map(([status, answer]) => ({
    name: status,
    kind: Object.keys(answer.content ?? {}).join(", "),
    description: answer.description,
  }));
  if (bad.length) {
    const which = bad.map(([status, answer]) => `${status} ${answer.description}`).join(", ");
    rows.push({ name: "errors", kind: "application/problem+json", description: which });
  }
  const schema = operation.responses[200]?.content?.["application/json"]?.schema;
  return [...part("Answers", rows), ...part("Fields of the answer", schema ? rowsOf(schema, openapi) : [])];
}

function card(method, path, operation, openapi) {
  const summary = make(
    "summary",
    {},
    make("span", { class: `method ${method}` }, method.toUpperCase()),
    make("code", { class: "path" }, path),
    prose(operation.description ?? operation.summary),
  );
  const inside = [
    ...part("Parameters", parameters(operation, openapi)),
    ...body(operation, openapi),
    ...answers(operation, openapi),
  ];
  return make("details", {}, summary, make("div", { class: "parts" }, ...inside));
}

async function show() {
  const openapi = await (await fetch("/openapi.json")).json();
  byId("about").textContent = `${openapi.info.description} Version ${openapi.info.version}.`;
  const groups = new Map();
  for (const [path, methods] of Object.entries(openapi.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags?.[0] ?? "other";
      if (!groups.has(tag)) groups.set(tag, make("section", { "aria-label": tag }, make("h2", {}, tag)));
      groups.get(tag).append(card(method, path, operation, openapi));
    }
  }
  byId("operations").replaceChildren(...groups.values());
}

show().catch(() => {
  byId("about").textContent = "The OpenAPI document could not be read.";
});
