// Server-sent events read from a fetch: EventSource cannot send an API key.

// Yields {name, id, data} for each event of a response body; `data` is parsed JSON.
export async function* eventStream(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    while (true) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (text + value).split(/\r?\n\r?\n/);
      text = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event.data) yield { ...event, data: JSON.parse(event.data) };
      }
    }
  } finally {
    await reader.cancel();
  }
}

function parse(block) {
  const event = { name: "message", id: "", data: "" };
  for (const line of block.split(/\r?\n/)) {
    const [, field, value] = line.match(/^([^:]*):? ?(.*)$/);
    if (field === "event") event.name = value;
    else if (field === "id") event.id = value;
    else if (field === "data") event.data += value;
  }
  return event;
}
