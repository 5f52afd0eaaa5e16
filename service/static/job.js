// One job: asked for, followed to its end by its events, cancelled if wished.

import { Problem, call } from "/static/api.js";
import { eventStream } from "/static/event_stream.js";

const FINAL = new Set(["completed", "failed", "cancelled", "expired"]);
const RECONNECTIONS = 5;
const PAUSE_MS = 1000;

// Queues the images of `request`; resolves to the job's first state.
export async function start(request) {
  const answer = await call("/generate", { method: "POST", body: request, headers: { Prefer: "respond-async" } });
  return answer.json();
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
        if (FINAL.has(event.name)) return;
      }
    } catch (error) {
      if (error.status) throw error; // an answer, and not a broken connection
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  throw new Problem({ title: "The connection was lost", detail: "The pictures may still be made; try again." });
}

// Gives up what is not made yet; also while the page is being left.
export async function cancel(jobId) {
  await call(`/jobs/${jobId}`, { method: "DELETE", keepalive: true }).catch(() => {}); // it may be over by now
}
