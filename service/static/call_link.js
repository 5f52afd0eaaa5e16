// A call as a link to this page: after #, which browsers send to nobody.

const NAMES = ["prompt", "num_images", "seed", "diverse", "model", "size", "format"];

// The address that fills the form in with `wanted`; what is null or empty is left open.
export function callLink(wanted) {
  const given = NAMES.filter((name) => ![null, undefined, "", false].includes(wanted[name]));
  const fields = new URLSearchParams(given.map((name) => [name, wanted[name]]));
  return `${location.origin}${location.pathname}#${fields}`;
}

// What the address of this page asks for; null when it asks for nothing.
export function linkedCall() {
  const fields = new URLSearchParams(location.hash.slice(1));
  if (!fields.get("prompt")) return null;
  const call = Object.fromEntries(NAMES.filter((name) => fields.has(name)).map((name) => [name, fields.get(name)]));
  return { num_images: 1, seed: null, ...call, diverse: fields.get("diverse") === "true" };
}
