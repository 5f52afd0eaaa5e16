// JSON Schema as rows to read: a name, what the value may be, and what it means.

const MAX_DEPTH = 3;

export function resolved(schema, openapi) {
  const name = schema?.$ref?.split("/").pop();
  return name ? openapi.components.schemas[name] : schema ?? {};
}

// The fields of an object and, as `images[].seed`, those of the objects in it.
export function rowsOf(schema, openapi, prefix = "", depth = 1) {
  const { properties = {}, required = [] } = resolved(schema, openapi);
  return Object.entries(properties).flatMap(([field, value]) => {
    const name = prefix + field;
    const row = {
      name,
      required: required.includes(field) && isRequest(schema, openapi),
      kind: kind(value, openapi),
      description: value.description,
    };
    const { inner, suffix } = objectIn(value, openapi);
    return depth < MAX_DEPTH && inner ? [row, ...rowsOf(inner, openapi, `${name}${suffix}.`, depth + 1)] : [row];
  });
}

// Answers list as required what is always there; only of requests is it worth saying.
function isRequest(schema, openapi) {
  return resolved(schema, openapi).additionalProperties === false;
}

function objectIn(schema, openapi) {
  const [only] = withoutNull(schema);
  const full = resolved(only, openapi);
  if (full.type === "array") return { inner: objectIn(full.items ?? {}, openapi).inner, suffix: "[]" };
  return { inner: full.properties ? full : undefined, suffix: "" };
}

function withoutNull(schema) {
  return (schema.anyOf ?? [schema]).filter((option) => option.type !== "null");
}

// One line for what a value may be: its type, its values or bounds, its default.
export function kind(schema, openapi) {
  return withoutNull(schema).map((option) => oneKind(option, openapi)).join(" or ") + standard(schema);
}

function oneKind(schema, openapi) {
  const full = resolved(schema, openapi);
  const bounds = [
    full.enum?.join(" | "),
    full.const,
    range(full.minimum, full.maximum),
    full.exclusiveMinimum !== undefined ? `> ${full.exclusiveMinimum}` : undefined,
    full.maxLength !== undefined ? `at most ${full.maxLength} characters` : undefined,
    full.maxItems !== undefined ? `at most ${full.maxItems}` : undefined,
  ].filter((bound) => bound !== undefined);
  const type = full.type === "array" ? `list of ${kind(full.items ?? {}, openapi)}` : full.type ?? "any";
  return [type, ...bounds].join(" · ");
}

function range(minimum, maximum) {
  if (minimum === undefined && maximum === undefined) return undefined;
  if (maximum === undefined) return `≥ ${minimum}`;
  return minimum === undefined ? `≤ ${exact(maximum)}` : `${minimum} … ${exact(maximum)}`;
}

// The largest seed, 2^63 − 1, is not a number that JavaScript knows.
function exact(number) {
  return Number.isInteger(number) && !Number.isSafeInteger(number) ? `2^${Math.log2(number)} − 1` : number;
}

function standard(schema) {
  return [undefined, null, ""].includes(schema.default) ? "" : ` · default ${schema.default}`;
}
