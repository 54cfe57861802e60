// Asks the server, and says in words why it did not answer.

/** A request that failed. The message is a sentence for the person; `canRetry`: the same may work later. */
export class Refusal extends Error {
  constructor(message, { status = 0, code = "", retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }

  get canRetry() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

export const lostConnection = () =>
  new Refusal("The connection was lost. Check that you are online, then try again.");

/** Raises Refusal, or AbortError where `signal` was used. */
export async function ask(path, { method = "GET", body, headers = {}, signal } = {}) {
  const options = { method, signal, headers: { ...headers } };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(path, options).catch((error) => {
    throw error.name === "AbortError" ? error : lostConnection();
  });
  if (!answer.ok) throw await refusalOf(answer);
  return answer;
}

/** The version that answers now and all that are in memory; nothing where the server does not say. */
export async function models() {
  const { champion, data } = await (await ask("/v1/models")).json();
  return { champion, versions: data.map((model) => model.id).filter((id) => id !== "champion") };
}

async function refusalOf(answer) {
  const { error } = await answer.json().catch(() => ({ error: null })); // a proxy's page is no JSON
  const about = { status: answer.status, code: error?.code ?? "", retryAfter: seconds(answer) };
  return new Refusal(sentence(answer.status, about.retryAfter, error?.message), about);
}

function seconds(answer) {
  const wait = Number(answer.headers.get("Retry-After"));
  return Number.isFinite(wait) ? Math.min(Math.max(Math.ceil(wait), 0), 600) : 0;
}

function sentence(status, wait, theirs) {
  if (status === 429) return wait ? "Many people are talking just now. Please wait a moment." : "Many people are talking just now. Please try again.";
  if (theirs) return theirs;
  if (status === 503) return "The server is not ready. Please try again in a moment.";
  return `The server answered ${status}. Please try again.`;
}
