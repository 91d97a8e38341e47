/**
 * A module that makes a backend as a test needs it: it shows a pattern, records its reads where the
 * test sees them, and holds or fails them as the test says, which {@linkcode ScriptedBackend} is for.
 *
 * @module
 */
import { checkRange } from "../../lib/backend/backend.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import { type Backend, type BackendModule, Pattern } from "../../mod.ts";

const PAGE = 4096;
/** Reads that are recorded. */
const READS_MAX = 4096;

/** Indices into what the test and the backend share. */
const SHARED = {
  /** Reads so far. */
  READS: 0,
  /** How many more reads fail. */
  FAILING: 1,
  /** Reads of so many bytes or more are held; 0 for none. */
  HELD: 2,
  /** Reads that are held now. */
  HOLDING: 3,
  /** Whether the next read ends the Worker. */
  FATAL: 4,
  /** Page and bytes of each read. */
  LOG: 16,
} as const;

interface ScriptedOptions {
  size: number;
  seed: number;
  atOnce: boolean;
  astray: boolean;
  shared: Int32Array<SharedArrayBuffer>;
}

/** The test's side. */
export class ScriptedBackend {
  /** To be mounted. */
  readonly source: BackendModule;
  readonly #shared = new Int32Array(
    new SharedArrayBuffer(4 * (SHARED.LOG + 2 * READS_MAX)),
  );

  /**
   * Shows the pattern of a seed; answers later unless `atOnce`. Where it is `astray` it lends memory
   * that is not there, as no backend should.
   */
  constructor(size: number, { seed = 1, atOnce = false, astray = false } = {}) {
    const options: ScriptedOptions = { size, seed, atOnce, astray, shared: this.#shared };
    this.source = { module: import.meta.url, options };
  }

  /** Lets the next reads fail. */
  fail(count: number): void {
    Atomics.store(this.#shared, SHARED.FAILING, count);
  }

  /** Lets the next read end the Worker. */
  die(): void {
    Atomics.store(this.#shared, SHARED.FATAL, 1);
  }

  /** Holds reads of so many bytes or more from now on, but those that are answered at once. */
  hold(bytes = 1): void {
    Atomics.store(this.#shared, SHARED.HELD, bytes);
  }

  /** Answers what is held, and holds no more. */
  release(): void {
    this.hold(0);
    Atomics.notify(this.#shared, SHARED.HELD);
  }

  /** Answers when so many reads are held. */
  async holding(count: number): Promise<void> {
    await this.#until(SHARED.HOLDING, (value) => value >= count);
  }

  /** Answers when so many reads came. */
  async asked(count: number): Promise<void> {
    await this.#until(SHARED.READS, (value) => value >= count);
  }

  /** The reads so far: their offsets, rounded to pages, and bytes. */
  get reads(): { offset: number; length: number }[] {
    const count = Atomics.load(this.#shared, SHARED.READS);
    return Array.from({ length: count }, (_, read) => ({
      offset: this.#shared[SHARED.LOG + 2 * read]! * PAGE,
      length: this.#shared[SHARED.LOG + 2 * read + 1]!,
    }));
  }

  async #until(index: number, fits: (value: number) => boolean): Promise<void> {
    for (;;) {
      const value = Atomics.load(this.#shared, index);
      if (fits(value)) return;
      await Atomics.waitAsync(this.#shared, index, value).value;
    }
  }
}

/** Makes the backend. What is written to it is forgotten. */
export default function open(options: unknown): Backend {
  const { size, seed, atOnce, astray, shared } = options as ScriptedOptions;
  const pattern = new Pattern(seed);
  const memory = openMemory({ size });
  return {
    ...{ size, blockSize: 1, durable: false, readOnly: false, writesAtOnce: atOnce },
    ...(astray && { memory: { bytes: memory.memory.bytes.fill(1), address: PAGE } }),
    readAt: (buffer, offset) => {
      checkRange(size, offset, buffer.length);
      record(shared, offset, buffer.length);
      if (shared[SHARED.FATAL] === 1) setTimeout(() => Promise.reject(new Error("as asked")));
      if (Atomics.load(shared, SHARED.FAILING) > 0) {
        Atomics.sub(shared, SHARED.FAILING, 1);
        throw new Error("the store is on fire");
      }
      if (atOnce) return pattern.fill(buffer, offset);
      return released(shared, buffer.length).then(() => pattern.fill(buffer, offset));
    },
    writeAt: (buffer, offset) => memory.writeAt(buffer, offset),
    flush: () => {},
    close: () => memory.close(),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

function record(shared: Int32Array<SharedArrayBuffer>, offset: number, length: number): void {
  const read = shared[SHARED.READS]!;
  if (read >= READS_MAX) return;
  shared[SHARED.LOG + 2 * read] = Math.floor(offset / PAGE);
  shared[SHARED.LOG + 2 * read + 1] = length;
  Atomics.add(shared, SHARED.READS, 1);
  Atomics.notify(shared, SHARED.READS);
}

async function released(shared: Int32Array<SharedArrayBuffer>, length: number): Promise<void> {
  const held = Atomics.load(shared, SHARED.HELD);
  if (held === 0 || length < held) return;
  Atomics.add(shared, SHARED.HOLDING, 1);
  Atomics.notify(shared, SHARED.HOLDING);
  await Atomics.waitAsync(shared, SHARED.HELD, held).value;
  Atomics.sub(shared, SHARED.HOLDING, 1);
}
