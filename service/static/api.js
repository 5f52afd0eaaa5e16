// Calls of the API, with the key of this tab if there is one.

const KEY = "fourstep-api-key";

export const apiKey = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (key) => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY)),
};

// What went wrong, in the words of problem details (RFC 9457); `status` 0 when no answer came.
export class Problem extends Error {
  constructor({ status = 0, title, detail = "", errors = [] }, retryAfter = null) {
    super(title);
    Object.assign(this, { status, title, detail, errors, retryAfter });
  }
}

// The answer to a request; throws a Problem unless it is a success.
export async function call(path, { method = "GET", body, headers = {}, keepalive = false } = {}) {
  const sent = { ...headers };
  if (apiKey.get()) sent.Authorization = `Bearer ${apiKey.get()}`;
  if (body) sent["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers: sent, keepalive, body: body && JSON.stringify(body) });
  } catch {
    throw new Problem({ title: "The server does not answer", detail: "Is fourstep running?" });
  }
  if (!answer.ok) throw await problemOf(answer);
  return answer;
}

async function problemOf(answer) {
  const retryAfter = Number(answer.headers.get("Retry-After")) || null;
  const status = answer.status;
  try {
    return new Problem({ ...(await answer.json()), status }, retryAfter);
  } catch {
    return new Problem({ status, title: `The server answered ${status}` }, retryAfter);
  }
}
