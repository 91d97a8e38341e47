/**
 * A cache with its journal and the remote behind it, through crashes of either host or process:
 * several clients read, write, zero, flush and sync while chunks are pulled and pushed; then the
 * power goes or a process is killed, and what is there is held to what was promised.
 *
 * Set TELEMAP_CRASH_RUNS for more runs than are fit for every day, and TELEMAP_CRASH_SEED to the
 * seed of a failure for that one run.
 *
 * @module
 */
import { assert } from "@std/assert";
import { SystemError } from "../ffi/errno.ts";
import { ConnectionError, IntegrityError } from "../lib/backend/errors.ts";
import { CacheStage, type Durability } from "../lib/chunk/cache.ts";
import { loadJournal, stateSize } from "../lib/chunk/journal_load.ts";
import { assertBytes } from "./backend_model.ts";
import { bytesOf, CrashBooks, UNIT, type Written } from "./crash_books.ts";
import { type Crash, RemoteHost } from "./crash_remote.ts";
import { type Chooser, chooser, Power, PowerCutDisk, PowerCutError } from "./power_cut.ts";
import { VirtualClock } from "./virtual_clock.ts";

const RUNS = Number(Deno.env.get("TELEMAP_CRASH_RUNS") ?? 100);
const SEED = Deno.env.get("TELEMAP_CRASH_SEED");
const CHUNK = 4096, CHUNKS = 12;
/** The last chunk ends within a sector. */
const SIZE = (CHUNKS - 1) * CHUNK + 9 * UNIT;
const UNITS = SIZE / UNIT;
const CLIENTS = 3;
/** Chunks that one intent covers. */
const PART_CHUNKS = 3;

/** What outlives a crash, and what is known of it. */
class World {
  readonly choose: Chooser;
  readonly cacheDisk = new PowerCutDisk(SIZE);
  readonly stateDisk = new PowerCutDisk(stateSize(SIZE, CHUNK) + (1 << 16));
  readonly remote: RemoteHost;
  readonly books = new CrashBooks(UNITS);
  /** Flushes that promised parts of absent chunks, in all and while the remote was off. */
  readonly partialFlushes = { all: 0, off: 0 };
  /** Whether nobody can start the remote again. */
  remoteIsGone = false;
  #remoteCrash: Crash | undefined;

  constructor(choose: Chooser) {
    this.choose = choose;
    this.remote = new RemoteHost(SIZE, new Power({ choose }), () => this.restartRemote());
    const written = this.books.begin(UNIT, UNITS - 2 * CHUNK / UNIT, false);
    this.remote.disk.write(bytesOf(written), written.from * UNIT);
    this.remote.disk.beginFlush()();
    this.books.end(written, true);
    this.books.flush()({ remotely: true });
  }

  /** Opens the cache as a crash left it, and checks that. */
  async open(power: Power, durability: Durability): Promise<CacheStage> {
    const { choose } = this;
    const cache = this.cacheDisk.open(power);
    const journal = await loadJournal({
      ...{ state: this.stateDisk.open(power), cache, name: "the state" },
      ...{ size: SIZE, chunkSize: CHUNK, partChunks: PART_CHUNKS },
      ...{ cacheId: new Uint8Array(16), remote: { id: new Uint8Array(16) } },
    });
    const stage = new CacheStage({
      ...{ remote: this.remote.connect(power), local: cache, chunkSize: CHUNK },
      ...{ journal, durability },
      push: {
        interval: choose(2) * 30,
        workers: [undefined, 1, 3][choose(3)],
        dirtyLimit: [undefined, 0.2, 0.7][choose(3)],
        flushBytes: choose(2) === 0 ? 1 : undefined,
        ...{ retryPause: 5, log: () => {} },
      },
    });
    this.#check(stage);
    return stage;
  }

  /** Ends the life of the remote as it is to end; where it has ended, it is called again. */
  crashRemote(crash: Crash): void {
    this.remote.power.cut();
    this.#remoteCrash ??= crash;
  }

  /** Starts the remote again, where it is off, and checks what it has. */
  restartRemote(): void {
    const { remote, choose } = this;
    if (!remote.power.off || this.remoteIsGone) return;
    if ((this.#remoteCrash ?? someCrash(choose)) === "power") remote.disk.cut(choose);
    this.#remoteCrash = undefined;
    this.books.checkRemote(this.remoteBytes());
    remote.power = new Power({ choose, cutAfter: choose(2) === 0 ? choose(300) : choose(30) });
    remote.power.failOneIn = choose(2) * 20;
  }

  /** What is at the remote now, durable or not. */
  remoteBytes(): Uint8Array {
    const bytes = new Uint8Array(SIZE);
    this.remote.disk.read(bytes, 0);
    return bytes;
  }

  /** The mount crashed. */
  crashMount(crash: Crash): void {
    if (crash === "power") {
      for (const disk of [this.cacheDisk, this.stateDisk]) disk.cut(this.choose);
    }
    this.books.crashed();
  }

  #check({ region }: CacheStage): void {
    const { states: { local, dirty }, partial } = region;
    const remote = this.remoteBytes(), cached = new Uint8Array(SIZE);
    this.cacheDisk.read(cached, 0);
    for (let chunk = 0; chunk < CHUNKS; chunk++) {
      const from = region.offsetOf(chunk), to = region.offsetOf(chunk + 1);
      const isClean = local.has(chunk) && !dirty.has(chunk);
      const [ours, theirs] = [cached.subarray(from, to), remote.subarray(from, to)];
      if (isClean) assertBytes(ours, theirs, `Clean chunk ${chunk}`);
      for (const { offset, length } of partial.ranges(chunk) ?? []) {
        assert(!local.has(chunk), `Chunk ${chunk} is local, and there in part`);
        theirs.set(ours.subarray(offset - from, offset - from + length), offset - from);
      }
      this.books.checkMount(from / UNIT, local.has(chunk) ? ours : theirs);
    }
  }
}

/** The clients of a mount, until its power goes or they have done their share. */
class Clients {
  readonly #world: World;
  readonly #cache: CacheStage;
  readonly #durability: Durability;
  readonly #choose: Chooser;
  #left: number;

  constructor(world: World, cache: CacheStage, durability: Durability, actions: number) {
    this.#world = world;
    this.#cache = cache;
    this.#durability = durability;
    this.#choose = world.choose;
    this.#left = actions;
  }

  async run(): Promise<void> {
    const client = async () => {
      while (this.#left-- > 0) await this.#act();
    };
    const results = await Promise.allSettled(Array.from({ length: CLIENTS }, client));
    for (const result of results) if (result.status === "rejected") throw result.reason;
  }

  /** Does one random thing; what fails as a disk or the remote fails is no matter. */
  async #act(): Promise<void> {
    const choose = this.#choose;
    const [from, to] = this.#range();
    try {
      const what = choose(this.#world.remoteIsGone ? 23 : 20);
      if (what < 4) await this.#read(from, to);
      else if (what < 11) await this.#write(from, to);
      else if (what < 12) await this.#zero(from, to);
      else if (what < 13) await this.#discard(from, to);
      else if (what < 14 || what >= 20) await this.#flush();
      else if (what < 15) await this.#sync();
      else if (what < 16) {
        if (choose(3) === 0) this.#world.crashRemote(someCrash(choose));
        else this.#world.restartRemote();
      } else await new Promise((resolve) => setTimeout(resolve, choose(30)));
    } catch (error) {
      const expected = [ConnectionError, IntegrityError, SystemError];
      if (!expected.some((kind) => error instanceof kind)) throw error;
    }
  }

  /** Whole chunks or some units. */
  #range(): [from: number, to: number] {
    const choose = this.#choose;
    const chunkUnits = CHUNK / UNIT;
    if (choose(4) === 0) {
      const first = choose(CHUNKS) * chunkUnits;
      return [first, Math.min(first + (1 + choose(3)) * chunkUnits, UNITS)];
    }
    const from = choose(UNITS);
    return [from, Math.min(from + 1 + choose([3, 50][choose(2)]!), UNITS)];
  }

  async #read(from: number, to: number): Promise<void> {
    const check = this.#world.books.read(from, to);
    const bytes = new Uint8Array((to - from) * UNIT).fill(0xee);
    await this.#cache.readAt(bytes, from * UNIT);
    check(bytes);
  }

  #write(from: number, to: number): Promise<void> {
    return this.#change(from, to, false, (written) => {
      return this.#cache.writeAt(bytesOf(written), from * UNIT);
    });
  }

  #zero(from: number, to: number): Promise<void> {
    return this.#change(from, to, true, () => {
      return this.#cache.zero!(from * UNIT, (to - from) * UNIT);
    });
  }

  async #change(
    from: number,
    to: number,
    zero: boolean,
    change: (written: Written) => void | Promise<void>,
  ): Promise<void> {
    const { books } = this.#world;
    if (books.busy(from, to)) return await Promise.resolve();
    const written = books.begin(from, to, zero);
    let done = false;
    try {
      await change(written);
      done = true;
    } finally {
      books.end(written, done);
    }
  }

  /** Zeroes what it likes to. */
  async #discard(from: number, to: number): Promise<void> {
    const { books } = this.#world;
    if (books.busy(from, to)) return await Promise.resolve();
    const written = books.begin(from, to, true);
    try {
      await this.#cache.discard!(from * UNIT, (to - from) * UNIT);
    } finally {
      books.end(written, false);
    }
  }

  async #flush(): Promise<void> {
    const { books, remote, partialFlushes } = this.#world;
    const { partial } = this.#cache.region;
    const promise = books.flush();
    const before = [...partial.chunks()];
    await this.#cache.flush();
    promise({ remotely: this.#durability === "remote" });
    if (!before.some((chunk) => partial.has(chunk))) return;
    partialFlushes.all++;
    if (remote.power.off) partialFlushes.off++;
  }

  async #sync(): Promise<void> {
    const promise = this.#world.books.flush();
    await this.#cache.sync();
    promise({ remotely: true });
  }
}

/** A life of the mount, to a crash most times, and of the remote, to one at times. */
async function live(world: World): Promise<void> {
  const { choose } = world;
  world.remoteIsGone = choose(4) === 0;
  if (world.remoteIsGone) world.crashRemote(someCrash(choose));
  else if (choose(3) > 0) world.restartRemote();
  const power = new Power({ choose, cutAfter: choose(3) === 0 ? Infinity : choose(300) });
  const durability = choose(2) === 0 ? "local" : "remote";
  let cache: CacheStage | undefined;
  try {
    cache = await world.open(power, durability);
    power.failOneIn = choose(3) === 0 ? 20 : 0;
    if (choose(2) === 0) cache.pull({ workers: 1 + choose(3), retryPause: 5, log: () => {} });
    await new Clients(world, cache, durability, 20 + choose(80)).run();
    if (choose(3) === 0) await cache.close();
  } catch (error) {
    if (!(error instanceof PowerCutError || error instanceof SystemError)) throw error;
  }
  power.cut();
  // What is left of the process finds everything gone.
  await cache?.close().catch(() => {});
  world.crashMount(someCrash(choose));
  if (choose(3) === 0) world.crashRemote(someCrash(choose));
}

function someCrash(choose: Chooser): Crash {
  return choose(3) === 0 ? "kill" : "power";
}

/** Without any crash what is owed reaches the remote, and stays there. */
async function end(world: World): Promise<void> {
  const { choose, remote } = world;
  world.remoteIsGone = false;
  world.restartRemote();
  const power = new Power({ choose });
  remote.power = new Power({ choose });
  const cache = await world.open(power, "local");
  if (choose(2) === 0) cache.pull();
  await cache.sync();
  const bytes = new Uint8Array(SIZE);
  await cache.readAt(bytes, 0);
  world.books.checkMount(0, bytes);
  await cache.close();
  remote.power.cut();
  remote.disk.cut(choose);
  assertBytes(world.remoteBytes(), bytes, "The remote alone");
}

/** Answers what became of the world. */
async function runSeed(seed: number): Promise<World> {
  using clock = new VirtualClock();
  const choose = chooser(seed);
  const world = new World(choose);
  const failures: unknown[] = [];
  const onUnhandled = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    failures.push(event.reason);
  };
  addEventListener("unhandledrejection", onUnhandled);
  let life = 0;
  try {
    for (const lives = 1 + choose(6); life < lives; life++) await clock.run(live(world));
    await clock.run(end(world));
  } catch (error) {
    failures.push(error);
  } finally {
    removeEventListener("unhandledrejection", onUnhandled);
  }
  const [cause] = failures;
  if (cause === undefined) return world;
  const what = cause instanceof Error ? cause.message : cause;
  const again = `TELEMAP_CRASH_SEED=${seed} runs it again`;
  throw new Error(`Life ${life}: ${what}; ${again}`, { cause });
}

Deno.test("no crash of a mount or its remote loses what was promised, or shows what was never written", async () => {
  const seeds = SEED !== undefined ? [Number(SEED)] : crypto.getRandomValues(new Uint32Array(RUNS));
  assert(seeds.length > 0);
  const partialFlushes = { all: 0, off: 0 };
  for (const seed of seeds) {
    const world = await runSeed(seed);
    partialFlushes.all += world.partialFlushes.all;
    partialFlushes.off += world.partialFlushes.off;
  }
  if (seeds.length < 100) return;
  const { all, off } = partialFlushes;
  assert(
    off > seeds.length / 4,
    `Too few of ${all} flushes, ${off}, kept parts without the remote`,
  );
});
