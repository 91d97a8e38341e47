/**
 * Lets another process take a running WebAssembly instance over: its memory, the globals that it
 * exports, and a small state of the application around it.
 *
 * A region stands in for the instance: what the instance writes is noticed page by page, and copied
 * there whenever a destination asks what was written.
 *
 * @module
 */
import { UsageError } from "../backend/errors.ts";
import { Seeder, type SeederOptions } from "../mount/seeder.ts";
import type { SeederHooks } from "../mount/seeding.ts";
import { type MemoryTracker, trackMemory } from "../tracking/tracked_memory.ts";
import { encodeHead, HEAD_BYTES } from "./instance_head.ts";
import { exportedMemory, readGlobals } from "./instance_parts.ts";

/** How {@linkcode seedInstance} lets others have the instance. */
export interface SeedInstanceOptions
  extends Pick<SeederOptions, "listen" | "dial" | "token" | "insecure"> {
  /** Its memory; the only one that it exports unless told. */
  memory?: WebAssembly.Memory;
  /** Bytes up to which the memory may grow until it is moved; what it has now unless told. */
  mostBytes?: number;
  /** What is to be told to the destination beside the memory: asked now, and once it is suspended. */
  state?: () => unknown;
  /**
   * `onSuspend`: the program is to call the instance no more, and answer when it does not. That it
   * does so is up to the program: what the instance computes later is lost.
   */
  hooks?: Omit<SeederHooks, "onFlush">;
}

/** See {@linkcode seedInstance}. */
export class SeededInstance implements AsyncDisposable {
  readonly #seeder: Seeder;
  readonly #tracker: MemoryTracker;

  /** Takes both over; {@linkcode seedInstance} is the way in. */
  constructor(seeder: Seeder, tracker: MemoryTracker) {
    this.#seeder = seeder;
    this.#tracker = tracker;
  }

  /** Where it can be taken over; throws where this side dials. */
  get url(): string {
    return this.#seeder.url;
  }

  /** Where the handover is. */
  get stage(): Seeder["stage"] {
    return this.#seeder.stage;
  }

  /** Settles when the instance was given away: it must not run here any more. */
  get given(): Promise<void> {
    return this.#seeder.given;
  }

  /** Settles when whoever has it needs this side no more. */
  get released(): Promise<void> {
    return this.#seeder.released;
  }

  /** Lets nobody take it over any more; the instance itself stays as it is. */
  async close(): Promise<void> {
    await this.#tracker.close();
    await this.#seeder.close();
  }

  /** As {@linkcode close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Lets another process take an instance over while it runs here; see `migrateInstance` for the other
 * side. Needs userfaultfd, as any user may have it. The copy of the memory lies in a process of its
 * own, and once more here.
 *
 * What does not move: tables, references, globals that are not exported, data and element segments
 * that were dropped, and whatever the host functions keep that the instance imports.
 *
 * ```ts
 * const bytes = Uint8Array.fromBase64("AGFzbQEAAAAFAwEAAQcKAQZtZW1vcnkCAA==");
 * const { instance } = await WebAssembly.instantiate(bytes);
 * await using seeded = await seedInstance(instance, { listen: "telemap://127.0.0.1:0" });
 * console.log(seeded.url, seeded.stage);
 * ```
 *
 * @throws {UsageError} the instance has no memory to move, or a global that cannot be moved.
 * @throws {UnsupportedError | SystemError} writes to memory cannot be tracked here.
 */
export async function seedInstance(
  instance: WebAssembly.Instance,
  options: SeedInstanceOptions,
): Promise<SeededInstance> {
  const { memory = exportedMemory(instance), mostBytes, state, hooks = {}, ...places } = options;
  const most = mostBytes ?? memory.buffer.byteLength;
  if (most < memory.buffer.byteLength) {
    throw new UsageError(`Cannot move a memory of ${memory.buffer.byteLength} bytes as ${most}`);
  }
  const headNow = () => {
    const memoryBytes = memory.buffer.byteLength;
    return encodeHead({ memoryBytes, globals: readGlobals(instance), state: state?.() });
  };
  const head = headNow();
  const tracker = await trackMemory(memory);
  // Whoever asks before that gets all of it when it is there.
  const filled = Promise.withResolvers<Seeder>();
  let seeder: Seeder | undefined;
  let isSuspended = false;
  const collect = async () => {
    const { bytes } = (await filled.promise).mount;
    if (memory.buffer.byteLength > most) {
      throw new UsageError(`Cannot move a memory that grew to ${memory.buffer.byteLength} bytes`, {
        hint: `it was to have ${most} at most: say so by mostBytes`,
      });
    }
    for (const { offset, length } of await tracker.dirty()) {
      bytes.set(tracker.bytes.subarray(offset, offset + length), HEAD_BYTES + offset);
    }
    if (isSuspended) bytes.set(headNow());
  };
  try {
    seeder = await Seeder.open({
      ...places,
      ...{ backend: `memory:${HEAD_BYTES + most}`, as: "slice", device: "userfault" },
      hooks: {
        ...hooks,
        onFlush: collect,
        onSuspend: async () => {
          await hooks.onSuspend?.();
          isSuspended = true;
        },
        onResume: async () => {
          isSuspended = false;
          await hooks.onResume?.();
        },
      },
    });
    // Nothing was tracked before: all of it counts.
    seeder.mount.bytes.set(head);
    seeder.mount.bytes.set(new Uint8Array(memory.buffer), HEAD_BYTES);
    await seeder.mount.sync();
    filled.resolve(seeder);
    return new SeededInstance(seeder, tracker);
  } catch (error) {
    await tracker.close();
    await seeder?.close();
    throw error;
  }
}
