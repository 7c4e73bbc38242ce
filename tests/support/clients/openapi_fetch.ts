// A session with openapi-fetch, through what docs/clients.md shows (muster.ts). Arguments: the address, an e-mail address.
import { deepStrictEqual as equal, rejects } from "node:assert";
import { api, sync } from "./muster.js";
import { store } from "./store.js";

const [, , url = "", email = ""] = process.argv;
const password = "violet-tandem-harbor";
const operation = { type: "buy", figi: "BBG000B9XRY4", quantity: "0.10", date: "2026-11-24T12:00:00Z" };

equal((await api.POST("/api/auth/register", { body: { email, password } })).response.status, 201);
const headers = { "Content-Type": "application/x-www-form-urlencoded" };
const form = { grant_type: "password", username: email, password } as const;
await store.signedIn((await api.POST("/api/auth/token", { body: form, headers })).data);

const queue = (body: typeof operation) =>
  store.queue.push({ body, params: { header: { "idempotency-key": crypto.randomUUID() } } });
for (const quantity of ["0.1", "0.10", "0.100", "0"]) queue({ ...operation, quantity });
await sync();
equal(Object.values(store.rows).map((row) => [row.quantity, row.date]), Array(3).fill(["0.1", "2026-11-24T12:00:00.000000Z"]));
equal([store.queue, store.refused], [[], ["body,quantity"]]);

const repeated = { body: operation, params: { header: { "idempotency-key": "0b0d7f5e" } } };
const [one, two] = [await api.POST("/api/operations", repeated), await api.POST("/api/operations", repeated)];
equal(one.data?.id, two.data?.id);

const ids: number[] = [];
let after: string | undefined;
do {
  const { data = [], response } = await api.GET("/api/operations", { params: { query: { limit: 3, after } } });
  ids.push(...data.map((row) => row.id));
  after = response.headers.get("Next-Cursor") ?? undefined;
} while (after);
equal(new Set(ids).size, 4);

const csv = "type,figi,quantity,date\nbuy,X,1,2023-11-24T12:00:00Z\n";
const upload = { body: csv, bodySerializer: (body: string) => body, headers: { "Content-Type": "text/csv" } };
const imported = await api.POST("/api/operations/import", upload);
equal(imported.data?.created, 1);
await sync();
const [last = 0] = Object.values(store.rows).filter((row) => row.figi === "X").map((row) => row.id);
await api.DELETE("/api/operations/{operation_id}", { params: { path: { operation_id: last } } });

await api.DELETE("/api/operations/{operation_id}", { params: { path: { operation_id: ids[0] ?? 0 } } });
await sync();
equal(Object.keys(store.rows).map(Number), ids.slice(1).sort((a, b) => a - b));

const { fetch: online } = globalThis;
globalThis.fetch = async () => Response.json({}, { status: 408 }); // in a tunnel
queue(operation);
await rejects(sync(), /later/);
equal([store.queue.length, store.refused.length], [1, 1]);
const had = structuredClone([store.pair, store.rows, store.since]);
for (const page of [null, "<html>"]) { // from a proxy while the server restarts, or from the network of a hotel
  for (const status of page ? [403, 502] : [200, 502]) {
    globalThis.fetch = async () => new Response(page, { status });
    await rejects(sync(), /later/);
  }
  const queued = store.queue.splice(0);
  globalThis.fetch = async () => new Response(page, { status: 502 });
  await rejects(sync());
  globalThis.fetch = async (request) => new Response(page, { status: (request as Request).url.endsWith("/token") ? 502 : 401 });
  await rejects(api.GET("/api/users/me"));
  store.queue.push(...queued);
}
globalThis.fetch = online;
equal([store.queue.length, store.refused.length, store.pair, store.rows, store.since], [1, 1, ...had]);
store.queue.pop();

store.since = Number.MAX_SAFE_INTEGER; // ahead of the server: 410, and the copy is filled again
store.rows = { 0: store.rows[ids[1] ?? 0]! };
await sync();
equal(Object.keys(store.rows).map(Number), ids.slice(1).sort((a, b) => a - b));

store.pair = { ...store.pair!, access_token: "expired" };
store.pairs = 0;
const answers = await Promise.all(Array.from({ length: 10 }, () => api.GET("/api/users/me")));
equal([...new Set(answers.map((answer) => answer.data?.email)), store.pairs], [email, 1]);

equal((await api.POST("/api/jobs/statement", { body: {} })).response.status, 202);
equal((await api.POST("/api/chat/messages", { body: { text: "Hello" } })).data?.room, "lobby");

const { access_token, refresh_token } = store.pair!;
await api.POST("/api/auth/revoke", { body: { token: refresh_token }, headers });
equal((await fetch(`${url}/api/users/me`, { headers: { Authorization: `Bearer ${access_token}` } })).status, 401);
queue(operation);
await rejects(sync(), /later/);
equal([store.pair, store.queue.length], [undefined, 1]);
