// DOM elements in one expression.

// An element with `attributes` and `children` (elements or text).
export function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
}

export function byId(id) {
  return document.getElementById(id);
}
