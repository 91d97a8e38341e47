/**
 * One request of the kernel and its reply, in one buffer that is used again and again.
 *
 * The buffer is laid out so that the data of a WRITE begins on a page, and so that the data of a
 * READ, put at the same place, has the reply's header right before it: either way a request takes
 * one system call in and one out, and no copy in between.
 *
 * ```
 *   DATA - 80            DATA - 40           DATA - 16      DATA
 *   | in header (40)     | body (40)         .              | data of a WRITE, or rest of the body
 *                                            | out header   | body of the reply
 * ```
 *
 * @module
 */
import { MADV, Mapping } from "../../ffi/mman.ts";
import { Iovec } from "../../ffi/file.ts";
import { IN_HEADER, OUT_HEADER, readU64, TRANSFER_IN } from "./protocol.ts";

/** Bytes that one READ or WRITE moves at most. */
export const MAX_TRANSFER = 1 << 20;

const DATA = 4096;
const HEADER = DATA - IN_HEADER.SIZE - TRANSFER_IN.SIZE;

/** See the module. Fields that are not read before a reply is begun may be overwritten by it. */
export class Request {
  /** All of the buffer. */
  readonly view: DataView<ArrayBuffer>;
  /** Where the in header lies in {@linkcode view}. */
  readonly header: number = HEADER;
  /** Where the body of the request lies in {@linkcode view}. */
  readonly body: number = HEADER + IN_HEADER.SIZE;
  /** Where the body of the reply, and the data of a WRITE, lie in {@linkcode view}. */
  readonly data: number = DATA;
  /** Where the out header lies in {@linkcode view}. */
  readonly reply: number = DATA - OUT_HEADER.SIZE;
  /** One entry: where the next request is read to. */
  readonly input: Iovec = new Iovec(1);
  /** Two entries: the out header with what follows it, and memory of a region. */
  readonly output: Iovec = new Iovec(2);
  /** Bytes that were read. */
  length = 0;
  /** The kernel was answered before the backend was done (see the server on interrupts). */
  answered = false;
  readonly #mapping = Mapping.map({ length: DATA + MAX_TRANSFER, subject: "a FUSE request" });
  #lent: Uint8Array<ArrayBuffer>;

  /** Maps a buffer. Throws `SystemError` (ENOMEM). */
  constructor() {
    this.view = new DataView(this.#mapping.bytes.buffer);
    this.#lent = this.#mapping.bytes.subarray(DATA);
    this.input.set(0, this.#mapping.address + HEADER, DATA - HEADER + MAX_TRANSFER);
  }

  /** What is asked for. */
  get opcode(): number {
    return this.view.getUint32(this.header + IN_HEADER.OPCODE, true);
  }

  /** The number by which the kernel knows this request. */
  get unique(): number {
    return readU64(this.view, this.header + IN_HEADER.UNIQUE);
  }

  /** The node that is meant. */
  get node(): number {
    return readU64(this.view, this.header + IN_HEADER.NODE);
  }

  /** The thread that asks; 0 where it is none, or in a pid namespace that cannot be seen. */
  get thread(): number {
    return this.view.getUint32(this.header + IN_HEADER.PID, true);
  }

  /** Bytes of the body, as far as it was read. */
  get bodyLength(): number {
    return this.length - IN_HEADER.SIZE;
  }

  /** A u32 of the body. */
  u32(at: number): number {
    return this.view.getUint32(this.body + at, true);
  }

  /** A u64 of the body; inexact beyond 2^53. */
  u64(at: number): number {
    return readU64(this.view, this.body + at);
  }

  /** The body itself, as a copy. */
  copyBody(): Uint8Array<ArrayBuffer> {
    return this.#mapping.bytes.slice(this.body, this.body + this.bodyLength);
  }

  /** The first `length` bytes of the data; the same array as last time for the same length. */
  bytes(length: number): Uint8Array<ArrayBuffer> {
    if (this.#lent.length !== length) {
      this.#lent = this.#mapping.bytes.subarray(DATA, DATA + length);
    }
    return this.#lent;
  }

  /** Makes {@linkcode output} the out header and `length` bytes of data; answers 1, its entries. */
  gatherData(length: number): number {
    this.output.set(0, this.#mapping.address + this.reply, OUT_HEADER.SIZE + length);
    return 1;
  }

  /** Makes {@linkcode output} the out header and memory elsewhere; answers 2, its entries. */
  gatherMemory(address: number, length: number): number {
    this.output.set(0, this.#mapping.address + this.reply, OUT_HEADER.SIZE);
    this.output.set(1, address, length);
    return 2;
  }

  /** Gives the pages of the data back to the kernel. */
  shrink(): void {
    this.#mapping.advise(MADV.DONTNEED);
  }

  /** Unmaps the buffer. */
  unmap(): void {
    this.#mapping.unmap();
  }
}
