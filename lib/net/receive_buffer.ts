/**
 * Memory into which a connection receives. All of it is reserved, only what was touched costs.
 *
 * @module
 */
import { Iovec } from "../../ffi/file.ts";
import { Mapping } from "../../ffi/mman.ts";
import { readv } from "../../ffi/socket.ts";

/** Bytes `[start, end)` were received and are not consumed. */
export class ReceiveBuffer implements Disposable {
  /** All of it. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The same. */
  readonly view: DataView<ArrayBuffer>;
  /** First byte that is not consumed. */
  start = 0;
  /** End of what was received. */
  end = 0;
  readonly #mapping: Mapping;
  readonly #read = new Iovec(1);

  /** Reserves `length` bytes. Throws `SystemError` (ENOMEM). */
  constructor(length: number) {
    this.#mapping = Mapping.map({ length, subject: "a receive buffer" });
    this.bytes = this.#mapping.bytes;
    this.view = new DataView(this.bytes.buffer);
  }

  /** Room behind `end`. */
  get room(): number {
    return this.bytes.length - this.end;
  }

  /** Moves what is there to the front. */
  compact(): void {
    if (this.start < this.end) this.bytes.copyWithin(0, this.start, this.end);
    this.end -= this.start;
    this.start = 0;
  }

  /** Reads at most `length` bytes behind `end`: as readv(2), which leaves errno. */
  receive(fd: number, length: number): number {
    this.#read.set(0, this.#mapping.address + this.end, length);
    const count = readv(fd, this.#read, 1);
    if (count > 0) this.end += count;
    return count;
  }

  /** Gives the memory back; the views are empty then. */
  [Symbol.dispose](): void {
    this.#mapping.unmap();
  }
}
