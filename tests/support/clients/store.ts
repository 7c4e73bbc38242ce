// What docs/clients.md leaves to the app, here in memory.
import type { components } from "./schema.js";
import type { Store, Write } from "./muster.js";

type Schemas = components["schemas"];
class Memory implements Store {
  #pair: Store["pair"];
  since = 0;
  queue: Write[] = [];
  refused: (string | undefined)[] = [];
  rows: Record<number, Schemas["Change"]> = {};
  pairs = 0;

  get pair() {
    return structuredClone(this.#pair); // as what is read from a keychain: another object each time
  }
  set pair(pair: Store["pair"]) {
    this.#pair = pair;
  }
  async signedIn(pair: Store["pair"]) {
    this.pair = pair;
    this.pairs += 1;
  }
  async sent(write: Write, refused?: Schemas["Problem"]) {
    this.queue = this.queue.filter((each) => each !== write);
    if (refused) this.refused.push(refused.errors?.[0]?.loc.join());
  }
  async apply(page: Schemas["Changes"]) {
    for (const change of page.changes)
      if (change.deleted_at) delete this.rows[change.id];
      else this.rows[change.id] = change;
    this.since = page.next;
  }
  async clear() {
    [this.rows, this.since] = [{}, 0];
  }
}

export const baseUrl = process.argv[2] ?? "";
export const store = new Memory();
