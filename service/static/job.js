// One job: asked for, followed to its end by its events, cancelled if wished.

import { Problem, call } from "/static/api.js";
import { eventStream } from "/static/event_stream.js";

export const CANCELLED = "Cancelled";

const TITLES = {
  failed: "A picture could not be made",
  cancelled: CANCELLED,
  expired: "The server was too busy to draw this in time",
};
const RECONNECTIONS = 5;
const PAUSE_MS = 1000;
const TIMEOUT_S = 600; // who watches can cancel, and a teacher on a CPU takes its time

// Queues the images of `request`, and gives up what is not made when `signal` aborts; resolves to the job's first state.
export async function start(request, signal) {
  const asked = { method: "POST", body: { ...request, timeout: TIMEOUT_S }, headers: { Prefer: "respond-async" } };
  const job = await (await call("/generate", asked)).json();
  const stop = () => cancel(job.id);
  if (signal.aborted) stop();
  else signal.addEventListener("abort", stop, { once: true });
  return job;
}

// Yields the job's events up to the final one, over broken connections too.
export async function* course(jobId) {
  let lastId = "0";
  for (let lost = 0; lost <= RECONNECTIONS; lost += 1) {
    try {
      const answer = await call(`/jobs/${jobId}/events`, { headers: { "Last-Event-ID": lastId } });
      for await (const event of eventStream(answer.body)) {
        if (event.id) lastId = event.id;
        yield event;
        if (event.name === "completed" || TITLES[event.name]) return;
      }
    } catch (error) {
      if (error.status) throw error; // an answer, and not a broken connection
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  throw new Problem({ title: "The connection was lost", detail: "The pictures may still be made; try again." });
}

// The Problem that a final event tells of; null for any other event.
export function unfinished({ name, data }) {
  if (!TITLES[name]) return null;
  const refused = data.failures.find(({ reason }) => reason === "refused");
  if (refused) return new Problem({ title: "A picture was refused", detail: refused.detail });
  return new Problem({ title: TITLES[name], detail: data.failures[0]?.detail });
}

// Gives up what is not made yet; also while the page is being left.
async function cancel(jobId) {
  await call(`/jobs/${jobId}`, { method: "DELETE", keepalive: true }).catch(() => {}); // it may be over by now
}
