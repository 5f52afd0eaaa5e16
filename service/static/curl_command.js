// The command that makes one picture again, to be pasted into a POSIX shell.

// `image` needs prompt, seed, model (or null for the default one), width, height and format.
export function curlCommand(image, origin, needsKey) {
  const { prompt, seed, model, width, height, format } = image;
  const body = { prompt, seed, ...(model && { model }), width, height, format };
  const key = needsKey ? ['-H "Authorization: Bearer $FOURSTEP_API_KEY"'] : [];
  const parts = [
    `curl -sS --fail-with-body ${quoted(`${origin}/generate`)}`,
    ...key,
    `-H 'Content-Type: application/json' -H 'Accept: image/${format}'`,
    `-d ${quoted(JSON.stringify(body))}`,
    `-o ${seed}.${format}`,
  ];
  return parts.join(" \\\n  ");
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
