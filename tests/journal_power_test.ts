/**
 * The journal of a cache, through power cuts at every write and flush: a small cache over it fetches,
 * writes, pushes, drops and commits, several at a time, and is held to what commits promised.
 */
import { assert, assertEquals } from "@std/assert";
import { SystemError } from "../ffi/errno.ts";
import type { Backend } from "../lib/backend/backend.ts";
import type { CacheJournal } from "../lib/chunk/cache_journal.ts";
import { loadJournal } from "../lib/chunk/journal_load.ts";
import { type Chooser, chooser, Power, PowerCutDisk, PowerCutError, SECTOR } from "./power_cut.ts";

const CHUNKS = 40_000;
const CHUNK_SECTORS = 2;
const CHUNK = CHUNK_SECTORS * SECTOR;
/** So few that the intents take more than one sector. */
const PART_CHUNKS = 10;
const STATE_BYTES = 1 << 20;

/** Chunks that are worked with: at the borders of parts and pages, and at both ends. */
const WORKED = [
  ...[0, 1, 2, 8, 9, 10, 11, 19, 20],
  ...[16_255, 16_256, 16_257],
  ...[39_949, 39_950, 39_969, 39_980, 39_998, 39_999],
];

/** Seeds of this run; a failure names the one to put here. */
const SEEDS = Array.from({ length: 30 }, () => Math.floor(Math.random() * 2 ** 32));

/** What a sector may hold: what was written to it in order, and which of it was promised. */
interface SectorHistory {
  stamps: number[];
  /** Indexes into `stamps`: the last that was acknowledged, and committed. */
  acknowledged: number;
  promised: number;
}

/** What outlives a crash, and what the test knows of it. */
class World {
  readonly stateDisk = new PowerCutDisk(STATE_BYTES);
  readonly dataDisk = new PowerCutDisk(CHUNKS * CHUNK);
  /** A stamp for each sector; the remote loses nothing. */
  readonly remote = new Map<number, number>();
  readonly histories = new Map<number, SectorHistory>();
  /** Chunks that were committed as dirty, and are still to be pushed. */
  readonly owed = new Set<number>();
  /** How often a chunk was pushed. */
  readonly pushes = new Map<number, number>();
  #stamps = 0;

  constructor() {
    for (const sector of WORKED.flatMap(sectorsOf)) {
      const stamp = this.newStamp();
      this.remote.set(sector, stamp);
      this.histories.set(sector, { stamps: [stamp], acknowledged: 0, promised: 0 });
    }
  }

  newStamp(): number {
    return ++this.#stamps;
  }

  open(power: Power): Promise<CacheJournal> {
    return loadJournal({
      state: this.stateDisk.open(power),
      cache: this.dataDisk.open(power),
      cacheId: new Uint8Array(16),
      size: CHUNKS * CHUNK,
      chunkSize: CHUNK,
      partChunks: PART_CHUNKS,
      remote: { id: new Uint8Array(16) },
      name: "the state",
    });
  }

  /** The stamp of a sector in the cache, which is to be whole. */
  cached(sector: number): number {
    const words = new Uint32Array(SECTOR / 4);
    this.dataDisk.read(new Uint8Array(words.buffer), sector * SECTOR);
    assert(words.every((word) => word === words[0]), `Sector ${sector} is torn`);
    return words[0]!;
  }

  /** Holds what is there after a crash against what was promised. */
  check(journal: CacheJournal, crash: "power" | "kill"): void {
    for (const chunk of WORKED) {
      const local = journal.local.has(chunk), dirty = journal.dirty.has(chunk);
      const ranges = journal.partial.ranges(chunk);
      assert(!local || ranges === undefined, `Chunk ${chunk} is local, and there in part`);
      if (this.owed.has(chunk)) {
        assert(local && dirty || ranges !== undefined, `Chunk ${chunk} is not owed any more`);
      }
      for (const sector of sectorsOf(chunk)) {
        const isThere = local || holds(journal, sector);
        const stamp = isThere ? this.cached(sector) : this.remote.get(sector)!;
        const history = this.histories.get(sector)!;
        const allowed = history.stamps.slice(history.promised);
        assert(
          allowed.includes(stamp),
          `Chunk ${chunk} (local ${local}, dirty ${dirty}) has ${stamp}, and not of ${allowed}`,
        );
        if (local && !dirty) assertEquals(stamp, this.remote.get(sector), `Clean chunk ${chunk}`);
        // What a process left when it was killed may still be lost.
        if (crash === "power") history.promised = history.stamps.length;
        history.acknowledged = history.stamps.push(stamp) - 1;
      }
    }
    const others = journal.local.count() -
      WORKED.filter((chunk) => journal.local.has(chunk)).length;
    assertEquals(others, 0, "Nothing else is local");
  }
}

function sectorsOf(chunk: number): number[] {
  return Array.from({ length: CHUNK_SECTORS }, (_, index) => chunk * CHUNK_SECTORS + index);
}

/** Whether the cache holds a sector of an absent chunk. */
function holds({ partial }: CacheJournal, sector: number): boolean {
  const chunk = Math.floor(sector / CHUNK_SECTORS);
  return partial.covers(chunk, sector * SECTOR, (sector + 1) * SECTOR);
}

/** A cache that keeps to the rules of the journal, and does one thing to a chunk at a time. */
class SmallCache {
  readonly #world: World;
  readonly #journal: CacheJournal;
  readonly #data: Backend;
  readonly #choose: Chooser;
  readonly #busy = new Set<number>();

  constructor(world: World, journal: CacheJournal, power: Power) {
    this.#world = world;
    this.#journal = journal;
    this.#data = world.dataDisk.open(power);
    this.#choose = power.choose;
  }

  /** Does one random thing; what fails as its disk fails is no matter. */
  async act(): Promise<void> {
    const chunk = WORKED[this.#choose(WORKED.length)]!;
    const what = this.#choose(10);
    try {
      if (what === 0) return await this.#commit();
      if (this.#busy.has(chunk)) return await Promise.resolve();
      this.#busy.add(chunk);
      try {
        if (what < 6) await this.#write(chunk);
        else if (!this.#journal.local.has(chunk)) await this.#fetch(chunk);
        else if (this.#journal.dirty.has(chunk)) await this.#push(chunk);
        else if (what === 9) await this.#drop(chunk);
      } finally {
        this.#busy.delete(chunk);
      }
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
    }
  }

  async #commit(): Promise<void> {
    const { histories, owed, pushes } = this.#world;
    const acknowledged = [...histories.values()].map((each) => [each, each.acknowledged] as const);
    const { dirty: owes, partial } = this.#journal;
    const dirty = WORKED.filter((chunk) => owes.has(chunk) || partial.has(chunk))
      .map((chunk) => [chunk, pushes.get(chunk)] as const);
    assert(await this.#journal.commit(), "It includes parts of chunks");
    for (const [history, index] of acknowledged) {
      history.promised = Math.max(history.promised, index);
    }
    for (const [chunk, pushed] of dirty) if (pushes.get(chunk) === pushed) owed.add(chunk);
  }

  async #write(chunk: number): Promise<void> {
    const { local, dirty, partial } = this.#journal;
    const inPart = this.#choose(2) === 0;
    if (local.has(chunk) && !dirty.has(chunk)) {
      const wait = this.#journal.intend(chunk, Math.min(chunk + 1 + this.#choose(3), CHUNKS));
      if (wait !== undefined) await wait;
      dirty.add(chunk);
    }
    const sectors = inPart ? [sectorsOf(chunk)[this.#choose(CHUNK_SECTORS)]!] : sectorsOf(chunk);
    const stamp = this.#world.newStamp();
    const histories = sectors.map((sector) => this.#world.histories.get(sector)!);
    const indexes = histories.map(({ stamps }) => stamps.push(stamp) - 1);
    await this.#store(sectors[0]!, sectors.map(() => stamp));
    if (!local.has(chunk)) {
      for (const sector of sectors) partial.add(chunk, sector * SECTOR, (sector + 1) * SECTOR);
      if (partial.covers(chunk, chunk * CHUNK, (chunk + 1) * CHUNK)) this.#becomeDirty(chunk);
    }
    for (const [at, history] of histories.entries()) history.acknowledged = indexes[at]!;
  }

  async #fetch(chunk: number): Promise<void> {
    const gaps = sectorsOf(chunk).filter((sector) => !holds(this.#journal, sector));
    const isOwed = gaps.length < CHUNK_SECTORS;
    await this.#store(gaps[0]!, gaps.map((sector) => this.#world.remote.get(sector)!));
    if (isOwed) this.#becomeDirty(chunk);
    else this.#journal.local.add(chunk);
  }

  /** An absent chunk is there as a whole, with something that the remote has not got. */
  #becomeDirty(chunk: number): void {
    const { local, dirty, partial } = this.#journal;
    local.add(chunk);
    dirty.add(chunk);
    partial.delete(chunk);
  }

  async #push(chunk: number): Promise<void> {
    const { remote, owed, pushes } = this.#world;
    const stamps = sectorsOf(chunk).map((sector) => this.#world.cached(sector));
    for (let turns = this.#choose(4); turns > 0; turns--) await Promise.resolve();
    for (const [at, sector] of sectorsOf(chunk).entries()) remote.set(sector, stamps[at]!);
    this.#journal.dirty.delete(chunk);
    owed.delete(chunk);
    pushes.set(chunk, (pushes.get(chunk) ?? 0) + 1);
  }

  async #drop(chunk: number): Promise<void> {
    this.#journal.local.delete(chunk);
    try {
      await this.#journal.commit();
    } catch (error) {
      // It may be recorded as local still, so that its content has to stay.
      this.#journal.local.add(chunk);
      throw error;
    }
    await this.#store(sectorsOf(chunk)[0]!, sectorsOf(chunk).map(() => 0));
  }

  async #store(sector: number, stamps: number[]): Promise<void> {
    const words = new Uint32Array(stamps.length * SECTOR / 4);
    for (const [at, stamp] of stamps.entries()) {
      words.fill(stamp, at * SECTOR / 4, (at + 1) * SECTOR / 4);
    }
    await this.#data.writeAt(new Uint8Array(words.buffer), sector * SECTOR);
  }
}

/**
 * Lives through some actions, several at a time, or until the power goes; answers the writes and
 * flushes that it took. One in so many of those after opening fails.
 */
async function live(
  world: World,
  power: Power,
  { actions, failOneIn }: { actions: number; failOneIn: number },
): Promise<number> {
  try {
    const journal = await world.open(power);
    power.failOneIn = failOneIn;
    const cache = new SmallCache(world, journal, power);
    let left = actions;
    const worker = async () => {
      while (left-- > 0) await cache.act();
    };
    const results = await Promise.allSettled([worker(), worker(), worker()]);
    for (const result of results) if (result.status === "rejected") throw result.reason;
    if (power.choose(4) === 0) await journal.close();
  } catch (error) {
    if (!(error instanceof PowerCutError || error instanceof SystemError)) throw error;
  }
  power.cut();
  return power.operations;
}

/** Opens what a crash left, and checks it. */
async function inspect(world: World, crash: "power" | "kill", choose: Chooser): Promise<void> {
  const power = new Power({ choose });
  const journal = await world.open(power);
  world.check(journal, crash);
  power.cut();
}

/** Runs what may fail with the choices of a seed. */
async function withSeed(seed: number, what: string, run: () => Promise<void>): Promise<void> {
  try {
    await run();
  } catch (cause) {
    throw new Error(`Seed ${seed}, ${what}: ${cause instanceof Error ? cause.message : cause}`, {
      cause,
    });
  }
}

Deno.test("a power cut at any write or flush loses nothing that was committed", async () => {
  for (const seed of SEEDS.slice(0, 10)) {
    const options = { actions: 60, failOneIn: seed % 2 * 15 };
    const total = await live(new World(), new Power({ choose: chooser(seed) }), options);
    assert(total > 30, `Seed ${seed} does too little`);
    for (let cutAfter = 0; cutAfter <= total; cutAfter++) {
      await withSeed(seed, `cut after ${cutAfter} of ${total} operations`, async () => {
        const choose = chooser(seed);
        const world = new World();
        await live(world, new Power({ choose, cutAfter }), options);
        for (const disk of [world.stateDisk, world.dataDisk]) disk.cut(choose);
        await inspect(world, "power", choose);
      });
    }
  }
});

Deno.test("crash after crash, of the power or the process, loses nothing that was committed", async () => {
  for (const seed of SEEDS) {
    const choose = chooser(seed);
    const world = new World();
    for (let life = 1; life <= 25; life++) {
      await withSeed(seed, `life ${life}`, async () => {
        const failOneIn = choose(2) * 20;
        const power = new Power({ choose, cutAfter: choose(150) });
        await live(world, power, { actions: 80, failOneIn });
        const crash = choose(3) === 0 ? "kill" : "power";
        if (crash === "power") {
          for (const disk of [world.stateDisk, world.dataDisk]) disk.cut(choose);
        }
        await inspect(world, crash, choose);
      });
    }
  }
});
