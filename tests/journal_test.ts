/** The journal of a cache: what it writes and when, and the file that it lies in. */
import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { SystemError } from "../ffi/errno.ts";
import { openLibc } from "../ffi/libc.ts";
import { ChangedError, IntegrityError, UsageError } from "../lib/backend/errors.ts";
import { openLocal } from "../lib/backend/open_local.ts";
import type { CacheJournal } from "../lib/chunk/cache_journal.ts";
import { openJournal, type OpenJournalOptions } from "../lib/chunk/journal_file.ts";
import { stateSize } from "../lib/chunk/journal_load.ts";
import { PAGE, PAGE_CHUNKS, slotOffset } from "../lib/chunk/journal_pages.ts";
import { CHUNKS, CountedState, load, PART, REMOTE } from "./counted_state.ts";

openLibc();

const MIB = 1 << 20;

/** Lets what is ready to go on do so. */
async function turn(): Promise<void> {
  for (let count = 0; count < 50; count++) await Promise.resolve();
}

Deno.test("commit() writes the pages that changed, in turn to one slot and the other", async () => {
  const state = new CountedState();
  const journal = await load(state);
  state.writes = [];
  await journal.commit();
  assertEquals(state.writes, [], "Nothing changed");
  journal.local.addRange(5, 9);
  journal.local.add(CHUNKS - 1);
  await journal.commit();
  assertEquals(state.writes, [slotOffset(1, 1), slotOffset(3, 1)]);
  state.writes = [];
  journal.dirty.add(PAGE_CHUNKS);
  journal.dirty.add(6);
  await journal.commit();
  assertEquals(state.writes, [slotOffset(1, 0), slotOffset(2, 1)]);
  state.writes = [];
  await journal.commit();
  assertEquals(state.writes, []);
});

Deno.test("commits that are asked for together share one, and intents share one", async () => {
  const state = new CountedState();
  const journal = await load(state);
  const before = state.flushes;
  journal.local.add(1);
  await Promise.all(Array.from({ length: 10 }, () => journal.commit()));
  assertEquals(state.flushes - before, 1);
  const intents = Array.from(
    { length: 10 },
    (_, part) => journal.intend(part * PART, part * PART + 1),
  );
  assert(intents.every((wait) => wait instanceof Promise));
  await Promise.all(intents);
  assert(state.flushes - before <= 3, "The first one began alone");
});

Deno.test("intend() answers at once where the mark is durable, and not before", async () => {
  const state = new CountedState();
  const journal = await load(state);
  const gate = Promise.withResolvers<void>();
  state.gate = gate.promise;
  let marked = false;
  const first = Promise.resolve(journal.intend(PART - 1, PART + 1)).then(() => marked = true);
  await turn();
  assertEquals(marked, false);
  gate.resolve();
  await first;
  assertEquals(journal.intend(0, 2 * PART), undefined);
  assert(journal.intend(0, 2 * PART + 1) instanceof Promise, "The third part is not marked");
  await turn();
});

Deno.test("an intent is gone two commits after it was last asked for, also from the file", async () => {
  const state = new CountedState();
  const journal = await load(state);
  journal.local.addRange(0, 2 * PART);
  await journal.commit();
  await journal.intend(0, 2 * PART);
  journal.dirty.add(3);
  await journal.commit();
  assertEquals((await load(state.copy())).found.suspect, 2 * PART - 1, "One too many is kept");
  assertEquals(journal.intend(0, 1), undefined);
  await journal.commit();
  assertEquals((await load(state.copy())).found.suspect, PART - 1, "The other part's is gone");
  await journal.commit();
  await turn();
  const after = await load(state.copy());
  assertEquals(after.found, { closedInOrder: false, suspect: 0, dirty: 1 });
  assert(journal.intend(0, 1) instanceof Promise);
  await turn();
});

Deno.test("a crash makes clean chunks absent where there is an intent, and leaves all others", async () => {
  const state = new CountedState();
  const journal = await load(state);
  journal.local.addRange(PART - 2, 2 * PART + 2);
  journal.dirty.addRange(PART + 5, PART + 8);
  await journal.commit();
  await journal.intend(PART, PART + 1);
  const after = await load(state.copy());
  const local = Array.from({ length: CHUNKS }, (_, chunk) => chunk).filter((chunk) =>
    after.local.has(chunk)
  );
  assertEquals(local, [
    ...[PART - 2, PART - 1],
    ...[PART + 5, PART + 6, PART + 7],
    ...[2 * PART, 2 * PART + 1],
  ]);
  assertEquals(after.dirty.count(), 3);
  assertEquals(after.found, { closedInOrder: false, suspect: PART - 3, dirty: 3 });
});

Deno.test("close() commits and marks that, and the next opening takes the mark away", async () => {
  const state = new CountedState();
  const journal = await load(state);
  assertEquals(journal.found, { closedInOrder: true, suspect: 0, dirty: 0 });
  journal.local.addRange(0, 10);
  await journal.intend(0, 10);
  journal.dirty.addRange(0, 4);
  await Promise.all([journal.close(), journal.close()]);
  const copy = state.copy();
  const next = await load(copy);
  assertEquals(next.found, { closedInOrder: true, suspect: 0, dirty: 4 });
  assertEquals(next.local.count(), 10);
  assertEquals((await load(copy.copy())).found.closedInOrder, false);
});

Deno.test("a commit that fails is told, and the next one writes what it did not", async () => {
  const state = new CountedState();
  const journal = await load(state);
  journal.local.add(1);
  await journal.commit();
  journal.local.add(2);
  state.failure = new Error("No space left");
  await assertRejects(() => journal.commit(), Error, "No space");
  await assertRejects(async () => await journal.intend(0, 1), Error, "No space");
  assertEquals((await load(state.copy())).local.count(), 1);
  state.failure = undefined;
  state.writes = [];
  journal.local.delete(2);
  await journal.commit();
  assertEquals(state.writes.length, 1, "What may be in the file is written over");
  assertEquals((await load(state.copy())).local.count(), 1);
});

Deno.test("a slot that is found torn is blanked and flushed before anything else is written", async () => {
  const state = new CountedState();
  const journal = await load(state);
  journal.local.add(1);
  await journal.commit();
  const torn = state.copy();
  journal.local.add(8 * 1024);
  await journal.commit();
  // A sector of the last write came to the disk, and the other ones did not.
  const sector = new Uint8Array(512);
  state.readAt(sector, slotOffset(1, 0));
  torn.writeAt(sector, slotOffset(1, 0));
  torn.writes = [];
  const flushes: [writes: number, blank: boolean][] = [];
  const flush = torn.flush.bind(torn);
  torn.flush = () => {
    const slot = new Uint8Array(PAGE);
    torn.readAt(slot, slotOffset(1, 0));
    flushes.push([torn.writes.length, slot.every((byte) => byte === 0)]);
    return flush();
  };
  const next = await load(torn);
  assertEquals([next.local.has(1), next.local.count()], [true, 1]);
  assertEquals(torn.writes, [slotOffset(1, 0)]);
  assertEquals(flushes, [[0, false], [1, true]]);
});

/** A cache in a temporary directory, and what opens its journal. */
async function withCache(
  kind: "file" | "dir",
  run: (cache: {
    path: string;
    url: string;
    state: string;
    open(options?: Partial<OpenJournalOptions>): Promise<CacheJournal>;
    reopen(): Promise<void>;
  }) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "telemap-journal-" });
  const path = `${directory}/cache`;
  const url = `${kind}:${path}`;
  let cache = openLocal(`${url}?size=8MiB`)!;
  try {
    await run({
      path,
      url,
      state: kind === "file" ? `${path}.state` : `${path}/telemap.state`,
      async reopen() {
        await cache.close();
        cache = openLocal(url)!;
      },
      async open(options) {
        const { size } = cache;
        return await openJournal({
          url,
          cache,
          size,
          chunkSize: 65536,
          remote: REMOTE,
          ...options,
        });
      },
    });
  } finally {
    await cache.close();
    await Deno.remove(directory, { recursive: true });
  }
}

for (const kind of ["file", "dir"] as const) {
  Deno.test(`openJournal() keeps the states of a ${kind}: cache beside it`, async () => {
    await withCache(kind, async ({ open, reopen, state }) => {
      const journal = await open();
      journal.local.addRange(3, 9);
      journal.dirty.add(4);
      await journal.close();
      const { isFile, size } = await Deno.stat(state);
      assertEquals([isFile, size], [true, stateSize(8 * MIB, 65536)]);
      await reopen();
      const again = await open();
      assertEquals([again.local.count(), again.dirty.count()], [6, 1]);
      assertEquals(again.found, { closedInOrder: true, suspect: 0, dirty: 1 });
      await again.close();
    });
  });
}

Deno.test("openJournal() lets nobody else have the cache", async () => {
  await withCache("file", async ({ open, path }) => {
    const journal = await open();
    const error = await assertRejects(() => open(), SystemError, "in use");
    assertEquals(error.code, "EAGAIN");
    await Deno.symlink(path, `${path}2`);
    await assertRejects(() => open({ url: `file:${path}2` }), SystemError, "in use");
    await journal.close();
    await (await open()).close();
  });
});

Deno.test("openJournal() finds what a killed process committed, and what it was about to change", async () => {
  await withCache("file", async ({ open, url }) => {
    await (await open()).close();
    const lib = new URL("../lib/", import.meta.url);
    const script = `
      import { openLibc } from "${new URL("../ffi/libc.ts", lib)}";
      import { openLocal } from "${new URL("backend/open_local.ts", lib)}";
      import { openJournal } from "${new URL("chunk/journal_file.ts", lib)}";
      openLibc();
      const cache = openLocal("${url}");
      const remote = { id: new Uint8Array(16).fill(7) };
      const size = cache.size;
      const journal = await openJournal({ url: "${url}", cache, size, chunkSize: 65536, remote });
      journal.local.addRange(0, 9);
      journal.dirty.addRange(2, 4);
      await journal.commit();
      await journal.intend(0, 1);
      journal.dirty.add(0);
      journal.local.add(100);
      console.log("ready");
      await new Promise((resolve) => setTimeout(resolve, 600_000));
    `;
    const child = new Deno.Command(Deno.execPath(), {
      args: ["eval", "--quiet", "--no-check", script],
      stdout: "piped",
    }).spawn();
    const output = child.stdout.getReader();
    const { value } = await output.read();
    assertEquals(new TextDecoder().decode(value), "ready\n");
    await assertRejects(() => open(), SystemError, "in use");
    child.kill("SIGKILL");
    await child.status;
    await output.cancel();
    const journal = await open();
    assertEquals(journal.found, { closedInOrder: false, suspect: 7, dirty: 2 });
    assertEquals([journal.local.count(), journal.dirty.has(2), journal.dirty.has(3)], [
      2,
      true,
      true,
    ]);
    await journal.close();
  });
});

Deno.test("openJournal() refuses another remote, another version of it and other chunks", async () => {
  await withCache("file", async ({ open }) => {
    const journal = await open({ remote: { ...REMOTE, version: "v1" } });
    journal.local.add(1);
    journal.dirty.add(1);
    await journal.close();
    const other = await assertRejects(
      () => open({ remote: { id: new Uint8Array(16), version: "v1" } }),
      ChangedError,
      "another remote",
    );
    assertStringIncludes(other.message, "1 chunk never pushed");
    assertMatch(other.message, /name another cache.*--discard-cache/);
    for (const [version, told] of [["v2", '"v1" and has "v2"'], [undefined, "has none"]] as const) {
      await assertRejects(() => open({ remote: { ...REMOTE, version } }), ChangedError, told);
    }
    const remote = { ...REMOTE, version: "v1" };
    await assertRejects(() => open({ remote, chunkSize: 4096 }), UsageError, "chunks of 4KiB");
    await assertRejects(() => open({ remote, size: 4 * MIB }), UsageError, "a size of 4MiB");
    const kept = await open({ remote });
    assertEquals(kept.dirty.has(1), true);
    await kept.close();
  });
});

Deno.test("openJournal() gives up what the cache held where that is asked for", async () => {
  await withCache("file", async ({ open }) => {
    const journal = await open();
    journal.local.addRange(0, 9);
    await journal.intend(0, 9);
    await journal.commit();
    await journal.close();
    const remote = { id: new Uint8Array(16) };
    const anew = await open({ remote, chunkSize: 4096, discard: true });
    assertEquals([anew.local.length, anew.local.count()], [2048, 0]);
    await anew.close();
    await (await open({ remote, chunkSize: 4096 })).close();
    await assertRejects(() => open(), ChangedError);
  });
});

Deno.test("openJournal() refuses data that no state tells of, and files that are no state", async () => {
  await withCache("file", async ({ open, path, state }) => {
    const file = openLocal(`file:${path}`)!;
    await file.writeAt(new Uint8Array([1]), 5 * MIB);
    await file.close();
    await assertRejects(() => open(), UsageError, "holds data");
    await (await open({ discard: true })).close();
    await Deno.writeTextFile(state, "Dear diary");
    for (const discard of [false, true]) {
      await assertRejects(() => open({ discard }), UsageError, "something else");
    }
    assertEquals((await Deno.readTextFile(state)).slice(0, 10), "Dear diary");
  });
});

Deno.test("openJournal() refuses a cache whose data was replaced", async () => {
  await withCache("file", async ({ open, path }) => {
    const journal = await open();
    journal.local.add(0);
    await journal.close();
    await Deno.rename(path, `${path}.old`);
    await openLocal(`file:${path}?size=8MiB`)!.close();
    await assertRejects(() => open(), ChangedError, "replaced");
    await Deno.rename(`${path}.old`, path);
    await (await open()).close();
  });
});

Deno.test("openJournal() refuses a state that is damaged or cut off", async () => {
  await withCache("file", async ({ open, state }) => {
    await (await open()).close();
    const whole = await Deno.readFile(state);
    const damaged = whole.slice();
    damaged[100]! ^= 1;
    await Deno.writeFile(state, damaged);
    await assertRejects(() => open(), IntegrityError, "header is damaged");
    await Deno.writeFile(state, whole.subarray(0, 3 * PAGE));
    const error = await assertRejects(() => open(), IntegrityError, "damaged");
    assertStringIncludes(error.message, "--discard-cache");
    await (await open({ discard: true })).close();
  });
});

Deno.test("openJournal() keeps nothing of a cache in memory, and takes no other kinds", async () => {
  await using cache = openLocal("memory:1MiB")!;
  const options = { cache, size: MIB + 1, chunkSize: 65536, remote: REMOTE };
  const journal = await openJournal({ ...options, url: "memory:1MiB" });
  assertEquals([journal.local.length, journal.durable], [17, false]);
  assertEquals(journal.intend(0, 17), undefined);
  await journal.commit();
  await journal.close();
  for (const url of ["pattern:1MiB", "telemap://host", "https://host/x"]) {
    await assertRejects(() => openJournal({ ...options, url }), UsageError, url);
  }
});

Deno.test("the state of 1 TiB at 64 KiB is opened in under a second", async () => {
  const directory = await Deno.makeTempDir({ prefix: "telemap-journal-" });
  const url = `file:${directory}/cache?size=1TiB`;
  await using cache = openLocal(url)!;
  try {
    const options = { url, cache, size: cache.size, chunkSize: 65536, remote: REMOTE };
    const made = await openJournal(options);
    for (let chunk = 0; chunk < made.local.length; chunk += 97) made.local.add(chunk);
    await made.close();
    const start = performance.now();
    const journal = await openJournal(options);
    const took = performance.now() - start;
    assertEquals(journal.local.count(), Math.ceil(2 ** 24 / 97));
    await journal.close();
    assert(took < 1000, `It took ${took} ms`);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
