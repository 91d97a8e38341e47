/**
 * The contract of every place where a region's bytes can live, and of every stage over one.
 *
 * `tests/backend_conformance.ts` holds an implementation to it.
 *
 * @module
 */
import { ReadOnlyError, UnsupportedError } from "./errors.ts";

/** A value, or a promise of it: what can be answered at once costs no microtask. */
export type Awaitable<T> = T | Promise<T>;

/** A run of a region that is uniform in what the store holds for it. */
export interface Extent {
  /** First byte. */
  offset: number;
  /** Bytes, over 0. */
  length: number;
  /** The store holds nothing for it (`base:allocation` calls that a hole). */
  hole: boolean;
  /** It is known to read as zeroes. */
  zero: boolean;
}

/**
 * What another Worker of this process needs to reach the same bytes without going through the
 * isolate that opened them. Structured-cloneable. Valid until the backend is closed.
 */
export type SharedBackend =
  | {
    kind: "memory";
    address: number;
    size: number;
    readOnly: boolean;
    /** The bits of which blocks were ever written, which all who share the bytes keep up. */
    written: SharedArrayBuffer;
  }
  | { kind: "file"; url: string };

/** Bytes that crossed a network, all that connections carried counted. */
export interface Traffic {
  /** Bytes sent. */
  sentBytes: number;
  /** Bytes received. */
  receivedBytes: number;
}

/**
 * A flat range of `size` bytes in some store.
 *
 * Offsets and lengths are safe integers; a range outside `[0, size)` is a `RangeError` and has no
 * effect. Bytes that were never written read as zero. Calls may overlap in time, in any number;
 * overlapping ranges are ordered by the caller. After `close()` every call but `close()` throws
 * {@linkcode ClosedError}.
 */
export interface Backend extends AsyncDisposable {
  /** Bytes of the region; does not change. */
  readonly size: number;
  /** Alignment in bytes that offsets and lengths need; 1 where none is needed. */
  readonly blockSize: number;
  /** Whether {@linkcode flush} survives the loss of power of the store. */
  readonly durable: boolean;
  /** Writes, zeroes and discards throw {@linkcode ReadOnlyError}. */
  readonly readOnly: boolean;
  /**
   * Tells the bytes that were opened from others that the same name may lead to another time, for
   * a store that others write to; missing where the store has nothing of the kind.
   */
  readonly version?: string;
  /**
   * 16 bytes by which the store knows the region again: they stay the same as long as it is the same
   * region. Missing: the store does not tell.
   */
  readonly regionId?: Uint8Array;
  /**
   * The region's bytes themselves, where they lie in the memory of this process: a server may
   * send from them directly. `address` is where they lie, for C. Missing also while a server had
   * better send a copy.
   */
  readonly memory?:
    | { readonly bytes: Uint8Array<ArrayBuffer>; readonly address: number }
    | undefined;

  /**
   * What crossed the network for this backend so far: one object, which counts on. Missing where
   * that is nothing, or is not counted.
   */
  readonly traffic?: Readonly<Traffic>;

  /**
   * `writeAt` never answers with a promise, so that the buffer is the caller's again when it
   * returns: a server need not keep a copy. Unless told: it may.
   */
  readonly writesAtOnce?: boolean;
  /** The same of a `writeAt` that is made right now: asked before each. Missing: as `writesAtOnce` says. */
  readonly writesNow?: boolean;
  /**
   * Nothing goes on in this isolate between calls: what a call began is over when its promise
   * settles, and no timer, connection or message has to be seen to meanwhile. A server that waits
   * for no call may then hold the isolate up until it is asked something. Unless told: it may not.
   */
  readonly restsBetweenCalls?: boolean;

  /**
   * Small reads do not stand behind large ones that were asked for before, however many those are.
   * Unless told: they may.
   */
  readonly readsUrgently?: boolean;

  /** Fills the whole buffer from `offset`, or throws. */
  readAt(buffer: Uint8Array, offset: number): Awaitable<void>;
  /** Takes all of the buffer at `offset`, or throws. The buffer is the caller's again afterwards. */
  writeAt(buffer: Uint8Array, offset: number): Awaitable<void>;
  /**
   * As `writeAt`, for who is in no hurry: it holds this isolate up for no longer than it takes to ask,
   * even where the store is slow. Missing: `writeAt` is as good for that.
   */
  writeAside?(buffer: Uint8Array, offset: number): Promise<void>;
  /**
   * The bytes of a range themselves, for who overwrites all of them by and by: until then, nobody else
   * may use the range. Missing: the store can be written by `writeAt` only.
   */
  placeAt?(offset: number, length: number): Uint8Array<ArrayBuffer>;
  /** Answers when all that was acknowledged before the call is durable (see {@linkcode durable}). */
  flush(): Awaitable<void>;
  /**
   * Makes a range read as zeroes, quickly, as a hole unless `allocate`; or throws
   * {@linkcode UnsupportedError} with nothing changed. Missing: the store has no quick way.
   */
  zero?(offset: number, length: number, options?: ZeroOptions): Awaitable<void>;
  /**
   * Says that the range's content is no longer needed. What is discarded reads as zeroes, or as
   * before where the store cannot let go of it.
   */
  discard?(offset: number, length: number): Awaitable<void>;
  /**
   * What the store holds for a range: runs that cover it in order, adjoining ones different.
   * Missing, or where the store cannot tell: all of it is data.
   */
  extents?(offset: number, length: number): Awaitable<Extent[]>;
  /** How another Worker of this process opens the same bytes; missing where it cannot. */
  share?(): SharedBackend;
  /** Lets go of everything. What was not flushed may or may not survive. Again: does nothing. */
  close(): Awaitable<void>;
}

/** How {@linkcode Backend.zero} zeroes. */
export interface ZeroOptions {
  /** Keep the range allocated, so that a later write there cannot run out of space. */
  allocate?: boolean;
}

/** Throws `RangeError` unless `[offset, offset + length)` lies inside a region of `size` bytes. */
export function checkRange(size: number, offset: number, length: number): void {
  const counts = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
  if (counts && offset >= 0 && length >= 0 && length <= size - offset) return;
  throw new RangeError(
    `Cannot reach ${length} bytes at offset ${offset} as the region has ${size} bytes`,
  );
}

/** Throws {@linkcode ReadOnlyError} where a backend may not be written. */
export function checkWritable(backend: Backend): void {
  if (backend.readOnly) throw new ReadOnlyError();
}

/** Zeroes a range by {@linkcode Backend.zero}, or by writing zeroes where that is not to be had. */
export async function writeZeroes(
  backend: Backend,
  offset: number,
  length: number,
  options: ZeroOptions = {},
): Promise<void> {
  if (backend.zero !== undefined) {
    try {
      return await backend.zero(offset, length, options);
    } catch (error) {
      if (!(error instanceof UnsupportedError)) throw error;
    }
  }
  const step = Math.min(length, 1 << 20);
  const zeroes = new Uint8Array(step);
  for (let done = 0; done < length; done += step) {
    await backend.writeAt(zeroes.subarray(0, Math.min(step, length - done)), offset + done);
  }
}

/** The extents of a range by {@linkcode Backend.extents}; one run of data where it is missing. */
export function extentsOf(backend: Backend, offset: number, length: number): Awaitable<Extent[]> {
  if (backend.extents !== undefined) return backend.extents(offset, length);
  checkRange(backend.size, offset, length);
  return length === 0 ? [] : [{ offset, length, hole: false, zero: false }];
}
