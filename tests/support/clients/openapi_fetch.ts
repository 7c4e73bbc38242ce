// A session with openapi-fetch, through what docs/clients.md shows (muster.ts). Arguments: the address, an e-mail address.
import { deepStrictEqual as equal } from "node:assert";
import { connect, type State } from "./muster.js";

const [, , url = "", email = ""] = process.argv;
const password = "violet-tandem-harbour";
const operation = { type: "buy", figi: "BBG000B9XRY4", quantity: "0.10", date: "2026-11-24T12:00:00Z" };
const state: State = { since: 0, full: true, rows: {}, queue: [] };
let saved = 0;
const me = connect(url, state, () => { saved += 1; });

equal((await me.open.POST("/api/auth/register", { body: { email, password } })).response.status, 201);
await me.signIn(email, password);

for (let n = 0; n < 3; n++) me.add(operation);
me.add({ ...operation, quantity: "0" });
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

await me.api.DELETE("/api/operations/{operation_id}", { params: { path: { operation_id: ids[0] ?? 0 } } });
await me.sync();
equal(Object.keys(state.rows).map(Number), ids.slice(1).sort((a, b) => a - b));

state.pair!.access_token = "expired";
saved = 0;
const answers = await Promise.all(Array.from({ length: 10 }, () => me.api.GET("/api/users/me")));
equal([...new Set(answers.map((answer) => answer.data?.email)), saved], [email, 1]);

const { access_token } = state.pair!;
await me.signOut();
equal((await fetch(`${url}/api/users/me`, { headers: { Authorization: `Bearer ${access_token}` } })).status, 401);
equal(state.pair, undefined);
