// Prometheus' text format.

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

// The samples of a scrape: name, labels and value.
export function samples(text) {
  const lines = text.split("\n").map((line) => line.match(SAMPLE)).filter(Boolean);
  return lines.map(([, name, labels = "", value]) => ({
    name,
    labels: Object.fromEntries([...labels.matchAll(LABEL)].map(([, key, of]) => [key, of])),
    value: Number(value),
  }));
}
