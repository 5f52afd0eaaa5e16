// Selects whose options come from the server, later than a choice that was kept.

import { make } from "/static/element.js";

// Gives `select` these options, pairs of value and text; the choice stays where it can.
export function offer(select, options) {
  if (JSON.stringify(options) === select.dataset.offered) return;
  select.dataset.offered = JSON.stringify(options);
  const before = select.value;
  select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  choose(select, select.dataset.wanted ?? before);
}

// Chooses `value`, at once or when it is offered.
export function choose(select, value) {
  const offered = [...select.options].some((option) => option.value === value);
  if (offered) select.value = value;
  if (offered) delete select.dataset.wanted;
  else select.dataset.wanted = value;
}
