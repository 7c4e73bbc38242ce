// A session with openapi-fetch, through what docs/clients.md shows (muster.ts). Arguments: the address, an e-mail address.
import { deepStrictEqual as equal, rejects } from "node:assert";
import { connect, type State } from "./muster.js";

const [, , url = "", email = ""] = process.argv;
const password = "violet-tandem-harbour";
const operation = { type: "buy", figi: "BBG000B9XRY4", quantity: "0.10", date: "2026-11-24T12:00:00Z" };
const state: State = { expires: 0, since: 0, full: true, rows: {}, queue: [] };
let saved = 0;
const me = connect(url, state, () => { saved += 1; });

equal((await me.api.POST("/api/auth/register", { body: { email, password } })).response.status, 201);
await me.obtain({ grant_type: "password", username: email, password });

for (const quantity of ["0.1", "0.10", "0.100", "0"]) state.queue.push({ key: crypto.randomUUID(), body: { ...operation, quantity } });
await me.sync();
equal(Object.values(state.rows).map((row) => [row.quantity, row.date]), Array(3).fill(["0.1", "2026-11-24T12:00:00.000000Z"]));
equal(state.queue.map((write) => typeof write.refused), ["string"]);

const repeated = { body: operation, params: { header: { "idempotency-key": "0b0d7f5e" } } };
const [one, two] = [await me.api.POST("/api/operations", repeated), await me.api.POST("/api/operations", repeated)];
equal(one.data?.id, two.data?.id);

const ids: number[] = [];
let after: string | undefined;
do {
  const { data = [], response } = await me.api.GET("/api/operations", { params: { query: { limit: 3, after } } });
  ids.push(...data.map((row) => row.id));
  after = response.headers.get("Next-Cursor") ?? undefined;
} while (after);
equal(new Set(ids).size, 4);

const csv = "type,figi,quantity,date\nbuy,X,1,2023-11-24T12:00:00Z\n";
const upload = { body: csv, bodySerializer: (body: string) => body, headers: { "Content-Type": "text/csv" } };
const imported = await me.api.POST("/api/operations/import", upload);
equal(imported.data?.created, 1);
await me.sync();
const [last = 0] = Object.values(state.rows).filter((row) => row.figi === "X").map((row) => row.id);
await me.api.DELETE("/api/operations/{operation_id}", { params: { path: { operation_id: last } } });

await me.api.DELETE("/api/operations/{operation_id}", { params: { path: { operation_id: ids[0] ?? 0 } } });
await me.sync();
equal(Object.keys(state.rows).map(Number), ids.slice(1).sort((a, b) => a - b));

state.since = Number.MAX_SAFE_INTEGER; // ahead of the server: 410, and the copy is filled again
state.rows = { 0: state.rows[ids[1] ?? 0]! };
await me.sync();
equal(Object.keys(state.rows).map(Number), ids.slice(1).sort((a, b) => a - b));

const stale = state.pair!;
state.pair = { ...stale, access_token: "expired" };
await rejects(me.api.GET("/api/users/me"), /later/);
saved = 0;
const answers = await Promise.all(Array.from({ length: 10 }, () => me.api.GET("/api/users/me")));
equal([...new Set(answers.map((answer) => answer.data?.email)), saved], [email, 1]);

const { access_token, refresh_token } = state.pair!;
await me.api.POST("/api/auth/revoke", { body: { token: refresh_token }, headers: { "Content-Type": "application/x-www-form-urlencoded" } });
equal((await fetch(`${url}/api/users/me`, { headers: { Authorization: `Bearer ${access_token}` } })).status, 401);
await rejects(me.sync(), /later/);
await rejects(me.sync(), /invalid_grant/);
equal(state.pair, undefined);
equal(state.queue.length, 1);
