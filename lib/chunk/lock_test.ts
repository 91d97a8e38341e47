/** The stage that holds calls: the contract, who waits for whom, deadlines and refusals. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { setImmediate } from "node:timers";
import { openLibc } from "../../ffi/libc.ts";
import type { Backend } from "../backend/backend.ts";
import { ClosedError, DeadlineError, TelemapError } from "../backend/errors.ts";
import { openMemory } from "../backend/memory.ts";
import { testBackend } from "../../tests/backend_conformance.ts";
import { assertBytes, pattern, readBack } from "../../tests/backend_model.ts";
import { BlockBackend } from "../../tests/block_backend.ts";
import { DelayedBackend } from "../../tests/rpc/delayed_backend.ts";
import { lockBackend, type LockedBackend, type LockedCalls } from "./lock.ts";

openLibc();

const MIB = 1 << 20;

testBackend("memory that could be locked", {
  open: () => lockBackend(openMemory({ size: 5 * MIB + 1234 })),
});

let flicker: Promise<void>;
let removed = false;
testBackend("slow blocks that are locked again and again", {
  open: () => {
    const stage = lockBackend(new BlockBackend({ size: 4 * MIB, blockSize: 512, seed: 3 }));
    removed = false;
    flicker = flickerUntilRemoved(stage);
    return stage;
  },
  remove: async () => {
    removed = true;
    await flicker;
  },
  runs: 10,
});

async function flickerUntilRemoved(stage: LockedBackend): Promise<void> {
  while (!removed) {
    await stage.lock();
    await turn();
    stage.release();
    await turn();
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Notes in `log` when a call is answered, and how. */
function note(log: string[], name: string, call: void | Promise<void>): Promise<void> {
  return Promise.resolve(call)
    .then(() => void log.push(name), (error) => void log.push(`${name}: ${error.name}`));
}

Deno.test("lock() waits for what is under way, and holds what comes", async () => {
  const inner = new DelayedBackend(openMemory({ size: 4096 }));
  await using stage = lockBackend(inner);
  const log: string[] = [];
  const first = note(log, "first", stage.writeAt(pattern(10, 1), 0));
  const locked = note(log, "locked", stage.lock());
  const second = note(log, "second", stage.writeAt(pattern(10, 2), 0));
  const third = note(log, "third", stage.readAt(new Uint8Array(10), 0));
  await turn();
  assertEquals([inner.count, log], [1, []]);
  inner.release(0);
  await Promise.all([first, locked]);
  assertEquals([inner.count, log], [0, ["first", "locked"]]);
  stage.release();
  assertEquals([inner.count, stage.locked], [2, false]);
  inner.release(0);
  inner.release(0);
  await Promise.all([second, third]);
});

Deno.test("what is not locked is answered at once", () => {
  const stage = lockBackend(openMemory({ size: 4096 }));
  assertEquals(stage.writeAt(pattern(10, 1), 0), undefined);
  assertEquals(stage.readAt(new Uint8Array(10), 0), undefined);
  assertEquals(stage.flush(), undefined);
  stage.close();
});

Deno.test("only the calls that were named are held", async () => {
  for (const calls of ["reads", "writes", "all"] as const) {
    const stage = lockBackend(openMemory({ size: 4096 }));
    await stage.lock(calls);
    const answers = {
      reads: [stage.readAt(new Uint8Array(1), 0), stage.extents!(0, 1)],
      writes: [
        stage.writeAt(new Uint8Array(1), 0),
        stage.zero!(0, 1),
        stage.discard!(0, 1),
        stage.flush(),
      ],
    };
    for (const kind of ["reads", "writes"] as const) {
      for (const answer of answers[kind]) {
        assertEquals(answer instanceof Promise, calls === "all" || calls === kind);
      }
    }
    stage.release(calls);
    await Promise.all([...answers.reads, ...answers.writes]);
    await stage.close();
  }
});

Deno.test("locks add up, and are released one by one", async () => {
  await using stage = lockBackend(openMemory({ size: 4096 }));
  await stage.lock("reads");
  await stage.lock("writes");
  const log: string[] = [];
  const write = note(log, "write", stage.writeAt(pattern(10, 1), 0));
  const read = note(log, "read", stage.readAt(new Uint8Array(10), 0));
  stage.release("writes");
  await write;
  await turn();
  assertEquals([log, stage.locked], [["write"], true]);
  stage.release("reads");
  await read;
});

Deno.test("what was held goes on in the order in which it came", async () => {
  await using stage = lockBackend(openMemory({ size: 4096 }));
  await stage.lock();
  const writes = [1, 2, 3].map((seed) => stage.writeAt(pattern(10, seed), 0));
  const bytes = new Uint8Array(10);
  const read = stage.readAt(bytes, 0);
  writes.push(stage.writeAt(pattern(10, 4), 0));
  stage.release();
  await Promise.all([...writes, read]);
  assertBytes(bytes, pattern(10, 3), "What was read between the writes");
  assertBytes(await readBack(stage, 0, 10), pattern(10, 4), "What is there now");
});

Deno.test("what was held before is waited for by the next lock", async () => {
  const inner = new DelayedBackend(openMemory({ size: 4096 }));
  await using stage = lockBackend(inner);
  await stage.lock();
  const log: string[] = [];
  const write = note(log, "write", stage.writeAt(pattern(10, 1), 0));
  stage.release();
  const locked = note(log, "locked", stage.lock());
  await turn();
  assertEquals([inner.count, log], [1, []]);
  inner.release(0);
  await Promise.all([write, locked]);
  stage.release();
});

Deno.test("a call is held for a limited time, and has not happened then", async () => {
  await using stage = lockBackend(openMemory({ size: 4096 }), { holdTimeout: 5 });
  await stage.lock();
  await assertRejects(async () => await stage.writeAt(pattern(10, 1), 0), DeadlineError, "0.005 s");
  await assertRejects(async () => await stage.flush(), DeadlineError);
  stage.release();
  assertBytes(await readBack(stage, 0, 10), new Uint8Array(10), "The bytes");
});

Deno.test("lock() waits for a limited time, and stays locked then", async () => {
  const inner = new DelayedBackend(openMemory({ size: 4096 }));
  await using stage = lockBackend(inner);
  const stuck = stage.readAt(new Uint8Array(1), 0);
  await stage.lock("writes", 1);
  await assertRejects(() => stage.lock("reads", 1), DeadlineError, "0.001 s");
  assert(stage.locked);
  const held = stage.readAt(new Uint8Array(1), 0);
  assertEquals(inner.count, 1);
  stage.release();
  inner.release(0);
  inner.release(0);
  await Promise.all([stuck, held]);
});

Deno.test("what is refused stays refused, held or not, locked or not", async () => {
  await using stage = lockBackend(openMemory({ size: 4096 }));
  await stage.lock();
  const held = stage.writeAt(pattern(10, 1), 0);
  const read = stage.readAt(new Uint8Array(10), 0);
  const over = new TelemapError("ESTALE", "Cannot write as the region was handed over");
  stage.refuse(over);
  await assertRejects(async () => await held, TelemapError, "handed over");
  stage.release();
  await read;
  for (const call of [stage.lock(), stage.release()]) {
    await call;
    assertThrows(() => stage.writeAt(pattern(10, 1), 0), TelemapError, "handed over");
    assertThrows(() => stage.zero!(0, 1), TelemapError, "handed over");
    assertThrows(() => stage.discard!(0, 1), TelemapError, "handed over");
    assertThrows(() => stage.flush(), TelemapError, "handed over");
  }
  assertBytes(await readBack(stage, 0, 10), new Uint8Array(10), "The bytes");
  stage.refuse(over, "all");
  assertThrows(() => stage.readAt(new Uint8Array(10), 0), TelemapError, "handed over");
  await stage.close();
  assertThrows(() => stage.writeAt(pattern(10, 1), 0), ClosedError);
});

Deno.test("closing refuses what is held", async () => {
  const stage = lockBackend(openMemory({ size: 4096 }));
  await stage.lock();
  const held = assertRejects(async () => await stage.writeAt(pattern(10, 1), 0), ClosedError);
  await stage.close();
  await held;
  assertThrows(() => stage.readAt(new Uint8Array(1), 0), ClosedError);
});

/** Notes what of a backend is being called. */
class Watched implements Pick<Backend, "readAt" | "writeAt"> {
  readonly inside = { reads: 0, writes: 0 };
  readonly #backend: BlockBackend;

  constructor(backend: BlockBackend) {
    this.#backend = backend;
  }

  async readAt(buffer: Uint8Array, offset: number): Promise<void> {
    this.inside.reads++;
    await this.#backend.readAt(buffer, offset);
    this.inside.reads--;
  }

  async writeAt(buffer: Uint8Array, offset: number): Promise<void> {
    this.inside.writes++;
    await this.#backend.writeAt(buffer, offset);
    this.inside.writes--;
  }
}

Deno.test("once lock() has answered, nothing of its kind is inside until release()", async () => {
  const step = fc.record({
    what: fc.constantFrom("readAt", "writeAt", "lock", "release"),
    calls: fc.constantFrom<LockedCalls>("reads", "writes", "all"),
    turns: fc.nat(6),
  });
  const property = fc.asyncProperty(
    fc.integer({ min: 1, max: 0x7fff_fffe }),
    fc.array(step, { minLength: 1, maxLength: 40 }),
    async (seed, steps) => {
      const blocks = new BlockBackend({ size: 4096, blockSize: 512, seed });
      const watched = new Watched(blocks);
      const stage = lockBackend({
        ...facts(blocks),
        readAt: (buffer, offset) => watched.readAt(buffer, offset),
        writeAt: (buffer, offset) => watched.writeAt(buffer, offset),
      });
      // For each kind, how often it was released: a lock is over by then.
      const released = { reads: 0, writes: 0 };
      const release = (calls: LockedCalls) => {
        if (calls !== "writes") released.reads++;
        if (calls !== "reads") released.writes++;
        stage.release(calls);
      };
      const underWay: Promise<void>[] = [];
      for (const { what, calls, turns } of steps) {
        if (what === "lock") {
          const kinds = calls === "all" ? ["reads", "writes"] as const : [calls];
          const before = { ...released };
          underWay.push(
            stage.lock(calls).then(() => {
              for (const kind of kinds) {
                if (released[kind] === before[kind]) assertEquals(watched.inside[kind], 0);
              }
            }),
          );
        } else if (what === "release") release(calls);
        else underWay.push(Promise.resolve(stage[what](new Uint8Array(512), 0)));
        for (let count = 0; count < turns; count++) await Promise.resolve();
      }
      release("all");
      await Promise.all(underWay);
      assertEquals(watched.inside, { reads: 0, writes: 0 });
      await stage.close();
    },
  );
  await fc.assert(property, { numRuns: 500 });
});

function facts(inner: BlockBackend): Omit<Backend, "readAt" | "writeAt"> {
  return {
    size: inner.size,
    blockSize: inner.blockSize,
    durable: false,
    readOnly: false,
    flush: () => {},
    close: () => inner.close(),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
