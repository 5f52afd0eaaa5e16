// The API reference: /openapi.json as a page.

function make(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

function resolved(schema, document_) {
  const name = schema?.$ref?.split("/").pop();
  return name ? document_.components.schemas[name] : schema ?? {};
}

// One line for what a field may hold: its type, its values or bounds, its default.
function kind(schema, document_) {
  const options = schema.anyOf?.filter((option) => option.type !== "null");
  if (options) return options.map((option) => kind(option, document_)).join(" or ") + standard(schema);
  const full = resolved(schema, document_);
  const bounds = [
    full.enum?.join(", "),
    full.const,
    full.minimum !== undefined ? `≥ ${full.minimum}` : undefined,
    full.exclusiveMinimum !== undefined ? `> ${full.exclusiveMinimum}` : undefined,
    full.maximum !== undefined ? `≤ ${exact(full.maximum)}` : undefined,
    full.maxLength !== undefined ? `at most ${full.maxLength} characters` : undefined,
    full.maxItems !== undefined ? `at most ${full.maxItems}` : undefined,
  ].filter((bound) => bound !== undefined);
  const type = full.type === "array" ? `list of ${kind(full.items ?? {}, document_)}` : full.type ?? "any";
  return [type, ...bounds].join(" · ") + standard(schema);
}

// The largest seed, 2^63 − 1, is not a number that JavaScript knows.
function exact(number) {
  return Number.isInteger(number) && !Number.isSafeInteger(number) ? `2^${Math.log2(number)} − 1` : number;
}

function standard(schema) {
  return schema.default === undefined || schema.default === null || schema.default === "" ? "" : ` · default ${schema.default}`;
}

function table(rows) {
  return make("table", make("tbody", ...rows.map((row) => make("tr", ...row.map((cell) => make("td", cell))))));
}

function section(title, rows) {
  return rows.length ? [make("h3", title), table(rows)] : [];
}

function bodyParts(operation, document_) {
  const schema = resolved(operation.requestBody?.content?.["application/json"]?.schema, document_);
  const rows = Object.entries(schema.properties ?? {}).map(([name, field]) => {
    const required = schema.required?.includes(name) ? " (required)" : "";
    return [make("code", name), [kind(field, document_) + required, field.description].filter(Boolean).join(": ")];
  });
  const example = schema.examples?.[0];
  const shown = example ? [make("h3", "Example"), make("pre", JSON.stringify(example, null, 2))] : [];
  return [...section("Body", rows), ...shown];
}

function card(method, path, operation, document_) {
  const parameters = (operation.parameters ?? []).map((one) => [
    make("code", one.name),
    [`${one.in}, ${kind(one.schema, document_)}`, one.description].filter(Boolean).join(": "),
  ]);
  const answers = Object.entries(operation.responses).map(([status, answer]) => [
    make("code", status),
    [answer.description, Object.keys(answer.content ?? {}).join(", ")].filter(Boolean).join(" · "),
  ]);
  return make(
    "details",
    make("summary", make("code", `${method.toUpperCase()} ${path}`), ` ${operation.description ?? operation.summary}`),
    ...section("Parameters", parameters),
    ...bodyParts(operation, document_),
    ...section("Answers", answers),
  );
}

async function show() {
  const answer = await fetch("/openapi.json");
  const document_ = await answer.json();
  document.getElementById("about").textContent = `${document_.info.description} Version ${document_.info.version}.`;
  const groups = new Map();
  for (const [path, methods] of Object.entries(document_.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags?.[0] ?? "other";
      groups.set(tag, [...(groups.get(tag) ?? [make("h2", tag)]), card(method, path, operation, document_)]);
    }
  }
  document.getElementById("operations").replaceChildren(...[...groups.values()].flat());
}

show().catch(() => {
  document.getElementById("about").textContent = "The OpenAPI document could not be read.";
});
