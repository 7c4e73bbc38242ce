// A session with the SDK of @hey-api/openapi-ts. Arguments: the address, an e-mail address.
import { deepStrictEqual as equal } from "node:assert";
import { client } from "./sdk/client.gen.js";
import * as muster from "./sdk/index.js";

const [, , baseUrl = "", email = ""] = process.argv;
const password = "violet-tandem-harbor";
const operation = { type: "buy", figi: "BBG000B9XRY4", quantity: "0.10", date: "2026-11-24T12:00:00Z" };
let pair: muster.TokenPair | undefined;
client.setConfig({ baseUrl, auth: () => pair?.access_token });

equal((await muster.register({ body: { email, password } })).data?.email, email);
pair = (await muster.token({ body: { grant_type: "password", username: email, password } })).data;

const repeated = { body: operation, headers: { "idempotency-key": "0b0d7f5e" } };
const [one, two] = [await muster.createOperation(repeated), await muster.createOperation(repeated)];
equal(one.data?.id, two.data?.id);
for (let n = 0; n < 3; n++) await muster.createOperation({ body: operation });
const refused = await muster.createOperation({ body: { ...operation, quantity: "0" } });
equal([refused.error?.status, refused.error?.errors?.[0]?.loc], [422, ["body", "quantity"]]);

const csv = new Blob(["type,figi,quantity,date\nbuy,X,1,2023-11-24T12:00:00Z\n"]);
equal((await muster.importOperations({ body: csv })).data?.created, 1);

const ids: number[] = [];
let after: string | undefined;
do {
  const { data = [], response } = await muster.listOperations({ query: { limit: 3, after } });
  ids.push(...data.map((row) => Number(row.id)));
  after = response?.headers.get("Next-Cursor") ?? undefined;
} while (after);
equal(new Set(ids).size, 5);

await muster.deleteOperation({ path: { operation_id: ids[0] ?? 0 } });
const changes = (await muster.listChanges({ query: { since: 0 } })).data;
equal(changes?.changes.map((change) => [change.quantity, typeof change.deleted_at]), [
  ...Array(3).fill(["0.1", "undefined"]), ["1", "undefined"], [undefined, "string"],
]);

const stale = pair!;
pair = (await muster.token({ body: { grant_type: "refresh_token", refresh_token: stale.refresh_token } })).data;
equal([(await muster.readMe()).data?.email, pair?.refresh_token === stale.refresh_token], [email, false]);

await muster.createMessage({ body: { text: "Hello", room: "hey-api" } });
const { stream } = await muster.followMessages({ query: { room: "hey-api", after: 0 } });
for await (const message of stream) {
  equal([message.text, message.author], ["Hello", null]);
  break;
}

await muster.revoke({ body: { token: pair!.refresh_token } });
equal((await muster.readMe()).response?.status, 401);
process.exit(0);
