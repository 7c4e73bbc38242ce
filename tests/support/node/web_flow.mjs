// The TypeScript of docs/clients.md, in a page that signs somebody in.
// node web_flow.mjs SOURCE REDIRECT_URI COOKIE; the cookie is the browser's of a person who is signed in.
const [source, redirectUri, cookie] = process.argv.slice(2);
const stored = new Map();
globalThis.location = { origin: new URL(redirectUri).origin };
globalThis.sessionStorage = {
  getItem: (name) => stored.get(name) ?? null,
  setItem: (name, value) => stored.set(name, value),
  removeItem: (name) => stored.delete(name),
};
const { signIn, signedIn } = await import(source);

/** The query with which the browser comes back to the app. */
async function answered(decision) {
  await signIn();
  const headers = { cookie, origin: new URL(location.href).origin, "content-type": "application/x-www-form-urlencoded" };
  const answer = await fetch(location.href, { method: "POST", headers, body: `decision=${decision}`, redirect: "manual" });
  return new URL(answer.headers.get("location")).searchParams;
}

async function arrive(query, changes = {}) {
  location.search = `?${new URLSearchParams({ ...Object.fromEntries(query), ...changes })}`;
  return signedIn();
}

const refused = [];
for (const changes of [{ state: "another" }, { iss: "https://evil.example" }])
  refused.push(await arrive(await answered("continue"), changes).catch((error) => error.message));
refused.push(await arrive(await answered("cancel")).catch((error) => error.message));
const pair = await arrive(await answered("continue"));
console.log(JSON.stringify({ pair, refused, left: Object.fromEntries(stored) }));
