/**
 * A request of the client from its submission to its answer. It outlives connections: when one is
 * lost, the request is sent again on the next.
 *
 * @module
 */
import type { Extent } from "../backend/backend.ts";
import { ALLOCATION, COMMAND } from "./constants.ts";
import { ReadCoverage } from "./read_coverage.ts";
import type { RequestHeader } from "./request_header.ts";

/** Extents that are kept of one BLOCK_STATUS reply; what lies behind them is asked for again. */
const EXTENT_LIMIT = 1 << 16;

/** One READ, WRITE, FLUSH, TRIM, WRITE_ZEROES or BLOCK_STATUS, with the promise of its answer. */
export class ClientRequest implements RequestHeader {
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  /** READ: where the data goes. WRITE: the data. Empty for the others. */
  readonly data: Uint8Array;
  /** Settles with the answer; until then `data` is ours. */
  readonly promise: Promise<void>;
  /** Fulfils {@linkcode promise}. */
  readonly resolve: () => void;
  /** Rejects {@linkcode promise}. */
  readonly reject: (error: unknown) => void;
  /** When it was submitted, of `performance.now()`; set by the link. */
  since = 0;
  /** Its place in the order of submission; set by the link. */
  sequence = 0;
  /** FLUSH: writes that were acknowledged when it was submitted. */
  mark = 0;

  /** READ: what has come. */
  coverage = new ReadCoverage();
  /** BLOCK_STATUS: what has come, clipped to the range, adjoining ones different. */
  extents: Extent[] = [];
  /** BLOCK_STATUS: bytes that {@linkcode extents} describe. */
  described = 0;
  /** BLOCK_STATUS: bytes that the reply described so far; may be over the range. */
  received = 0;
  /** Errors of a structured reply so far. */
  errorCount = 0;
  /** The first of them, or 0. */
  error = 0;
  /** Its message. */
  message = "";

  /** Makes a request that was not sent yet. */
  constructor(
    command: number,
    flags: number,
    offset: number,
    length: number,
    data: Uint8Array = NOTHING,
  ) {
    this.command = command;
    this.flags = flags;
    this.offset = offset;
    this.length = length;
    this.data = data;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.promise = promise;
    this.resolve = resolve;
    this.reject = reject;
  }

  /** Bytes of the WRITE payload that follow its head. */
  get payloadLength(): number {
    return this.command === COMMAND.WRITE ? this.length : 0;
  }

  /** Whether its success changes what the export holds. */
  get changes(): boolean {
    return this.command === COMMAND.WRITE || this.command === COMMAND.TRIM ||
      this.command === COMMAND.WRITE_ZEROES;
  }

  /** Forgets what came of an answer, so that it can be sent again. */
  startOver(): void {
    this.coverage = new ReadCoverage();
    this.extents = [];
    this.described = 0;
    this.received = 0;
    this.errorCount = 0;
    this.error = 0;
    this.message = "";
  }

  /** Adds the next extent of a BLOCK_STATUS reply; `state` of `base:allocation`. */
  addExtent(length: number, state: number): void {
    const start = this.received;
    this.received += length;
    if (this.described !== start) return;
    const clipped = Math.min(length, this.length - start);
    const hole = (state & ALLOCATION.HOLE) !== 0;
    const zero = (state & ALLOCATION.ZERO) !== 0;
    const last = this.extents.at(-1);
    if (last !== undefined && last.hole === hole && last.zero === zero) {
      last.length += clipped;
    } else if (this.extents.length < EXTENT_LIMIT) {
      this.extents.push({ offset: this.offset + start, length: clipped, hole, zero });
    } else {
      return;
    }
    this.described += clipped;
  }
}

const NOTHING = new Uint8Array(0);
