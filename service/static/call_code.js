// The same call as code to be pasted elsewhere: curl in a POSIX shell, Python with httpx, JavaScript in Node. Pictures
// are read from files beside it.

const FILES = { image: "picture.png", mask: "mask.png" };
const PYTHON = {
  file: (name) => `base64.b64encode(Path("${name}").read_bytes()).decode()`,
  name: (key) => JSON.stringify(key), yes: "True", indent: "        ", end: "    ",
};
const JAVASCRIPT = {
  file: (name) => `await readFile("${name}", "base64")`,
  name: (key) => key, yes: "true", indent: "    ", end: "  ",
};

// For each language, how it is called and how it asks `origin` for the images of `body`, a request of POST /generate.
// With `needsKey` it reads the key from the environment: a key is never shown.
export const LANGUAGES = [
  { id: "curl", name: "curl", code: curl },
  { id: "python", name: "Python", code: python },
  { id: "javascript", name: "JavaScript", code: javascript },
];

function curl(body, origin, needsKey) {
  const alone = (body.num_images ?? 1) === 1;
  const format = body.format ?? "png";
  const key = needsKey ? ['-H "Authorization: Bearer $FOURSTEP_API_KEY"'] : [];
  const accept = alone ? ` -H 'Accept: image/${format}'` : "";
  const sent = JSON.stringify(alone ? body : { ...body, response: "url" });
  const [data, given] = body.image ? ["-d @-", piped(body, sent)] : [`-d ${shellString(sent)}`, ""];
  const parts = [
    `${given}curl -sS --fail-with-body ${shellString(`${origin}/generate`)}`,
    ...key,
    `-H 'Content-Type: application/json'${accept}`,
    data,
    ...(alone ? [`-o ${body.seed ?? "drawn"}.${format}`] : []),
  ];
  return parts.join(" \\\n  ");
}

// The JSON `sent` with the files of `body` in their places, as what is piped into a command.
function piped(body, sent) {
  const parts = [];
  let rest = sent;
  for (const [name, file] of Object.entries(FILES).filter(([name]) => body[name])) {
    const [before, after] = split(rest, body[name]);
    parts.push(`printf %s ${shellString(before)}`, `base64 < ${file} | tr -d '\\n'`);
    rest = after;
  }
  return `{ ${[...parts, `printf %s ${shellString(rest)}`].join("; ")}; } |\n  `;
}

function split(text, by) {
  const at = text.indexOf(by);
  return [text.slice(0, at), text.slice(at + by.length)];
}

function python(body, origin, needsKey) {
  const key = needsKey ? [`    headers={"Authorization": f"Bearer {os.environ['FOURSTEP_API_KEY']}"},`] : [];
  return [
    "import base64",
    ...(needsKey ? ["import os"] : []),
    "from pathlib import Path",
    "",
    "import httpx",
    "",
    "answer = httpx.post(",
    `    ${JSON.stringify(`${origin}/generate`)},`,
    ...key,
    `    json=${fields(body, PYTHON)},`,
    "    timeout=600,",
    ")",
    "answer.raise_for_status()",
    'for image in answer.json()["images"]:',
    `    Path(f"{image['seed']}.{image['format']}").write_bytes(base64.b64decode(image["b64"]))`,
  ].join("\n");
}

function javascript(body, origin, needsKey) {
  const key = needsKey ? ["    Authorization: `Bearer ${process.env.FOURSTEP_API_KEY}`,"] : [];
  return [
    `import { ${body.image ? "readFile, " : ""}writeFile } from "node:fs/promises";`,
    "",
    `const answer = await fetch(${JSON.stringify(`${origin}/generate`)}, {`,
    '  method: "POST",',
    "  headers: {",
    `    "Content-Type": "application/json",`,
    ...key,
    "  },",
    `  body: JSON.stringify(${fields(body, JAVASCRIPT)}),`,
    "});",
    "if (!answer.ok) throw new Error(await answer.text());",
    "for (const { seed, format, b64 } of (await answer.json()).images) {",
    '  await writeFile(`${seed}.${format}`, Buffer.from(b64, "base64"));',
    "}",
  ].join("\n");
}

// The fields of `body` as an object of a language, one a line. JSON's strings and numbers are those of both languages.
function fields(body, { file, name, yes, indent, end }) {
  const value = (of) => {
    if (of === true) return yes;
    if (typeof of !== "object") return JSON.stringify(of);
    return `{ ${Object.entries(of).map(entry).join(", ")} }`;
  };
  const entry = ([key, of]) => `${name(key)}: ${key in FILES ? file(FILES[key]) : value(of)}`;
  const lines = Object.entries(body).map((field) => `${indent}${entry(field)},`);
  return `{\n${lines.join("\n")}\n${end}}`;
}

function shellString(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
