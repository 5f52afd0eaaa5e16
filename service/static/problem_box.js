// Shows a Problem: what it is, which field it is about, and when to try again.

import { byId, make } from "/static/element.js";

// What may be gone the next time: too many calls, no worker, no answer.
const PASSING = new Set([429, 503, 0]);

let countdown;

export function showProblem(problem, fieldOf = byId) {
  hideProblem();
  const lines = problem.errors.length
    ? problem.errors.map(({ field, message }) => `${field}: ${message}`)
    : [problem.detail].filter(Boolean);
  byId("problem").replaceChildren(make("strong", {}, problem.title), ...lines.map((line) => make("p", {}, line)));
  for (const { field } of problem.errors) fieldOf(field)?.setAttribute("aria-invalid", "true");
  if (PASSING.has(problem.status)) offerRetry(problem.retryAfter ?? 0);
}

export function hideProblem() {
  clearInterval(countdown);
  byId("problem").replaceChildren();
  byId("retry").hidden = true;
  for (const field of document.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

// The button counts the seconds down that the server asks to wait; it is outside the alert, so that nobody hears each.
function offerRetry(seconds) {
  const button = byId("retry");
  const ready = performance.now() + 1000 * seconds;
  const tick = () => {
    const left = Math.ceil((ready - performance.now()) / 1000);
    button.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    button.disabled = left > 0;
    if (left <= 0) clearInterval(countdown);
  };
  button.hidden = false;
  countdown = setInterval(tick, 250);
  tick();
}
