/**
 * What `sync()` of a slice of memory promises, while a thread goes on writing and the server of the
 * region is killed at any moment and started again: the region holds, at any time, at least what was
 * written before the last sync that returned began.
 *
 * Set TELEMAP_CRASH_RUNS for more runs than are fit for every day.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { addressOf, openLibc } from "../../ffi/libc.ts";
import { probeUserfault } from "../../ffi/userfault_open.ts";
import { probeTracking } from "../../lib/tracking/tracking_probe.ts";
import { IntegrityError, mountDirect } from "../../mod.ts";
import { requiresThat, withReason } from "../requires.ts";
import type { TelemapProcess } from "../telemap_process.ts";
import { temporaryDirectory } from "./command.ts";
import { makeRandom, runSeeds } from "./random.ts";
import { startServer } from "./served_region.ts";
import { SLOT_BYTES, type WriteOrder } from "./sync_writer_worker.ts";

openLibc();

const RUNS = Number(Deno.env.get("TELEMAP_CRASH_RUNS") ?? 12);
const MIB = 1 << 20;
/** No multiple of a page. */
const SIZE = 6 * MIB + 1024;
const SLOTS = SIZE / SLOT_BYTES;
/** Kills at a time between two mounts. */
const RUNS_A_MOUNT = 10;
const WRITER = new URL("./sync_writer_worker.ts", import.meta.url);

const probe = probeUserfault();
const needs = requiresThat(probe.features !== 0, probe.ways.at(-1)?.reason ?? "");

/** What was written, as the writer's books tell, and what was promised of it. */
class Books {
  readonly begun = numbers();
  readonly written = numbers();
  /** The values that the last sync that returned has to have saved. */
  #promised = new BigInt64Array(SLOTS);

  constructor() {
    // The first value of a slot is its own number; until then it is 0.
    for (let slot = 0; slot < SLOTS; slot++) this.begun[slot] = BigInt(slot - SLOTS);
  }

  /** What a sync that begins now will have to save. */
  snapshot(): BigInt64Array<ArrayBuffer> {
    return BigInt64Array.from({ length: SLOTS }, (_, slot) => Atomics.load(this.written, slot));
  }

  /** A sync returned. */
  promise(snapshot: BigInt64Array<ArrayBuffer>): void {
    this.#promised = snapshot;
  }

  /** Holds a region's bytes to it. */
  check(bytes: Uint8Array<ArrayBuffer>): void {
    assertEquals(bytes.length, SIZE);
    const values = new BigInt64Array(bytes.buffer);
    for (let slot = 0; slot < SLOTS; slot++) {
      const value = values[slot * SLOT_BYTES / 8]!, promised = this.#promised[slot]!;
      assert(value >= promised, `slot ${slot} is ${value}, but ${promised} was promised`);
      if (value === 0n) continue;
      assertEquals(value % BigInt(SLOTS), BigInt(slot), `slot ${slot} holds another's ${value}`);
      assert(value <= Atomics.load(this.begun, slot), `slot ${slot} is ${value} ahead of time`);
    }
  }
}

function numbers(): BigInt64Array<SharedArrayBuffer> {
  return new BigInt64Array(new SharedArrayBuffer(SLOTS * 8));
}

/** The Worker that writes. */
class Writer {
  readonly #worker = new Worker(WRITER, { type: "module" });
  readonly #stop = new Int32Array(new SharedArrayBuffer(4));
  readonly #ended: Promise<number>;

  constructor(bytes: Uint8Array, books: Books, seed: number) {
    this.#ended = new Promise((resolve, reject) => {
      this.#worker.onmessage = ({ data }) => resolve(data);
      this.#worker.onerror = (event) => reject(new Error(event.message));
    });
    const { begun, written } = books;
    const order: WriteOrder = {
      ...{ address: addressOf(bytes), length: bytes.length, seed, begun, written },
      stop: this.#stop,
    };
    this.#worker.postMessage(order);
  }

  /** Lets it end, and answers how often it wrote. */
  async stop(): Promise<number> {
    Atomics.store(this.#stop, 0, 1);
    const writes = await this.#ended;
    this.#worker.terminate();
    return writes;
  }
}

/** A server that is killed and started again, at one address. */
class Server implements AsyncDisposable {
  url = "";
  readonly #backend: string;
  #process: TelemapProcess | undefined;

  constructor(backend: string) {
    this.#backend = backend;
  }

  async start(): Promise<void> {
    const listen = this.url === "" ? undefined : this.url;
    const { process, url } = await startServer(this.#backend, listen);
    this.#process = process;
    this.url = url;
  }

  async kill(): Promise<void> {
    this.#process?.kill("SIGKILL");
    await this.#process?.end();
    this.#process = undefined;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill();
  }
}

interface Crash {
  server: Server;
  books: Books;
  random: (limit: number) => number;
  sync(): Promise<void>;
  /** The region's bytes, by another path. */
  read(): Promise<Uint8Array<ArrayBuffer>>;
}

/** Syncs; a promise that a flush could not keep has to be refused, and is made by the next sync. */
async function sync({ books, sync }: Crash): Promise<boolean> {
  const snapshot = books.snapshot();
  try {
    await sync();
    books.promise(snapshot);
    return true;
  } catch (error) {
    assert(error instanceof IntegrityError, `${error}`);
    return false;
  }
}

/** Syncs at random, and kills the server before, during or after one of that. */
async function crashOnce(crash: Crash): Promise<void> {
  const { server, random, books } = crash;
  const syncs = 1 + random(4), fatal = random(syncs);
  for (let turn = 0; turn < syncs; turn++) {
    await new Promise((resolve) => setTimeout(resolve, random(5)));
    if (turn !== fatal) {
      assert(await sync(crash), "a server that lives cannot have lost anything");
      continue;
    }
    const syncing = sync(crash);
    await new Promise((resolve) => setTimeout(resolve, random(12)));
    await server.kill();
    books.check(await crash.read());
    await server.start();
    if (!await syncing) assert(await sync(crash), "what was refused is promised by the next sync");
  }
  books.check(await crash.read());
}

async function crashOften(seed: number): Promise<string> {
  const random = makeRandom(seed);
  using directory = temporaryDirectory();
  const path = `${directory.path}/region`;
  const read = () => Deno.readFile(path);
  await using server = new Server(`file:${path}?size=${SIZE}`);
  await server.start();
  const methods = probeTracking().filter(({ available }) => available)
    .map(({ method }) => method);
  const books = new Books();
  let writes = 0;
  for (let run = 0; run < RUNS;) {
    const mount = await mountDirect({
      backend: server.url,
      device: "userfault",
      as: "slice",
      memory: { prefetch: random(2) === 0, tracking: methods[random(methods.length)] },
    });
    const writer = new Writer(mount.bytes, books, random(2 ** 31));
    const until = Math.min(run + 1 + random(RUNS_A_MOUNT), RUNS);
    for (; run < until; run++) {
      await crashOnce({ server, books, random, read, sync: () => mount.sync() });
    }
    writes += await writer.stop();
    await mount.close();
    books.promise(books.snapshot());
    books.check(await read());
  }
  return `${RUNS} runs, ${writes} writes`;
}

Deno.test({
  name: withReason(
    "a region holds what sync() promised, though its server is killed and a thread writes",
    needs,
  ),
  ignore: needs.ignore,
  fn: () => runSeeds(1, crashOften),
});
