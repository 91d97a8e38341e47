/**
 * One request of a client of the native wire, from the caller's call to its answer, over however
 * many connections that takes.
 *
 * @module
 */
import type { Extent } from "../backend/backend.ts";
import { TYPE } from "./wire.ts";

const NOTHING = new Uint8Array(0);

/** See the module. */
export class WireRequest {
  /** Of {@linkcode TYPE}. */
  readonly type: number;
  /** Where in the region. */
  readonly offset: number;
  /** Bytes of the region. */
  readonly length: number;
  /** What a READ fills, and a WRITE or CONTROL sends. */
  readonly buffer: Uint8Array;
  /** Flags that it always has. */
  readonly flags: number;
  /** When it was made, as `performance.now()` counts. */
  readonly since: number = performance.now();
  /** When it was sent last. */
  sentAt = 0;
  /** Whether it was sent with the wish to be compressed, or compressed. */
  packed = false;
  /** WRITE: whether the content did not travel, as it is all zeroes. */
  allZero = false;
  /** How often its content arrived damaged. */
  damaged = 0;
  /** How many connections ended with a broken protocol while it was in flight. */
  broken = 0;
  /** FLUSH: how many writes it covers (see `FlushLedger`). */
  mark = 0;
  /** EXTENTS: the answer. */
  extents: Extent[] = [];
  /** CONTROL: memory for the answer, where it fits. */
  room: Uint8Array | undefined;
  /** CONTROL: the answer. */
  answer: Uint8Array = NOTHING;
  /**
   * Milliseconds that it may be without an answer while the server gives others; as long as the
   * server may be silent unless told.
   */
  timeout: number | undefined;
  /** Whether it has its answer. */
  settled = false;
  /** Settles with the answer. */
  readonly promise: Promise<void>;
  #resolve!: () => void;
  #reject!: (error: Error) => void;

  /** Makes a request about `[offset, offset + length)`. */
  constructor(
    type: number,
    offset: number,
    length: number,
    buffer: Uint8Array = NOTHING,
    flags = 0,
  ) {
    this.type = type;
    this.offset = offset;
    this.length = length;
    this.buffer = buffer;
    this.flags = flags;
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Whether it changes the region. */
  get changes(): boolean {
    return this.type === TYPE.WRITE || this.type === TYPE.ZERO || this.type === TYPE.DISCARD;
  }

  /** It is done. */
  resolve(): void {
    this.settled = true;
    this.#resolve();
  }

  /** It failed. */
  reject(error: Error): void {
    this.settled = true;
    this.#reject(error);
  }
}
