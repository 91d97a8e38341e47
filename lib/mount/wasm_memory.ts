/**
 * A region as the memory of a WebAssembly instance: what the instance loads for the first time comes
 * from the backend, and what it stored goes back by `sync`.
 *
 * @module
 */
import { addressOf } from "../../ffi/libc.ts";
import { adviseAt, MADV, pageSize } from "../../ffi/mman.ts";
import { DeadlineError, UnsupportedError, UsageError } from "../backend/errors.ts";
import { within } from "../device/deadline.ts";
import { beginPaging, type Paging, type PagingOptions } from "../device/paging.ts";
import { BackendHost } from "../host/host.ts";
import type { MemoryStatistics } from "../host/memory_statistics.ts";
import { type BackendSource, isBackend } from "../host/source.ts";

/** How {@linkcode pageInMemory} pages in. */
export interface PageInMemoryOptions extends Omit<PagingOptions, "readOnly"> {
  /**
   * The region: a URL or `{ module, options }`. The isolate whose instance waits for a page cannot
   * serve it, so a Backend object is refused.
   */
  backend: BackendSource;
  /** Never write to the backend: what is stored in the memory stays there; not unless told. */
  readOnly?: boolean;
  /** What a `telemap://` server wants to see. */
  token?: string;
  /** How long `close` waits for the rest of the region, in ms; 30 s unless told. */
  closeMs?: number;
}

/** A WebAssembly memory whose first bytes are a region. Disposing of it is closing it. */
export interface PagedInMemory extends AsyncDisposable {
  /** Bytes of the region; the memory behind them is the instance's own. */
  readonly size: number;
  /** Whether {@linkcode sync} survives the loss of power of the backend's store. */
  readonly durable: boolean;
  /** Settles when nothing is paged in any more; with the error, if one ended it. */
  readonly closed: Promise<Error | undefined>;
  /** What was counted so far. */
  statistics(): Promise<MemoryStatistics>;
  /**
   * Answers when all that was stored in the region before is durable in the backend's store.
   *
   * @throws {UnsupportedError} the engine moved the memory as it grew: the region is lost there.
   */
  sync(): Promise<void>;
  /**
   * Brings in what is still missing, syncs, and lets go: from then on the memory is like any other,
   * with the content of the region. Again: waits for the same.
   *
   * @throws {DeadlineError} the rest of the region did not come in time. As with any other error it
   * stays as it is then, and may be closed again.
   */
  close(): Promise<void>;
}

const CLOSE_MS = 30_000;

/** Memories that are paged in: the engine may not free one while its pages come from elsewhere. */
const held = new Set<WebAssembly.Memory>();

/**
 * Pages a region into a memory, from its first byte on. The memory may be shared, in use by instances
 * already, and grow; what it held where the region comes to lie is dropped.
 *
 * What the region does not cover stays as it is. Not supported: a memory smaller than the region
 * (grow it before), one that the engine moves as it grows (none with the reservations that V8 makes
 * unless the address space is limited, as by `ulimit -v`), and one that is paged in or tracked
 * already.
 *
 * Where userfaultfd is limited to user mode (`vm.unprivileged_userfaultfd`), only loads and stores
 * bring pages in: a system call on a page that is missing fails with EFAULT.
 *
 * ```ts
 * const memory = new WebAssembly.Memory({ initial: 16 });
 * await using region = await pageInMemory(memory, { backend: "memory:1MiB" });
 * new Uint8Array(memory.buffer)[4096] = 42;
 * await region.sync();
 * ```
 *
 * @throws {UsageError} for a backend or memory that cannot be.
 * @throws {SystemError} userfaultfd is not permitted (EPERM), or the memory is in use by another one
 * (EBUSY).
 */
export async function pageInMemory(
  memory: WebAssembly.Memory,
  options: PageInMemoryOptions,
): Promise<PagedInMemory> {
  if (isBackend(options.backend)) {
    throw new UsageError("Cannot page a Backend object into a WebAssembly memory", {
      hint: "the isolate that waits for a page cannot serve it: give a URL, or { module, options }",
    });
  }
  const host = await BackendHost.start(options.backend, { token: options.token });
  try {
    const { address, length } = coveredBy(memory, host.facts.size);
    const page = pageSize();
    adviseAt(address, length, MADV.NOHUGEPAGE, "a WebAssembly memory");
    adviseAt(address, length, MADV.DONTFORK, "a WebAssembly memory");
    const readOnly = options.readOnly === true || host.facts.readOnly;
    const range = { address, length, offset: 0, pageSize: page };
    const paging = await beginPaging(host, range, { ...options, readOnly });
    held.add(memory);
    return new PagedIn(memory, address, host, paging, options.closeMs ?? CLOSE_MS);
  } catch (error) {
    await host.close();
    throw error;
  }
}

/** Where the region comes to lie. */
function coveredBy(memory: WebAssembly.Memory, size: number): { address: number; length: number } {
  const page = pageSize();
  const length = Math.ceil(size / page) * page;
  if (size === 0) throw new UsageError("Cannot page 0 bytes in");
  if (length > memory.buffer.byteLength) {
    throw new UsageError(
      `Cannot page ${size} bytes into a memory of ${memory.buffer.byteLength} bytes`,
      { hint: `grow it before: it needs ${Math.ceil(size / 65536)} pages of 64 KiB` },
    );
  }
  return { address: addressOf(new Uint8Array(memory.buffer)), length };
}

class PagedIn implements PagedInMemory {
  readonly #memory: WebAssembly.Memory;
  readonly #address: number;
  readonly #host: BackendHost;
  readonly #paging: Paging;
  readonly #closeMs: number;
  #closing: Promise<void> | undefined;
  #finishing: Promise<true> | undefined;

  constructor(
    memory: WebAssembly.Memory,
    address: number,
    host: BackendHost,
    paging: Paging,
    closeMs: number,
  ) {
    this.#memory = memory;
    this.#address = address;
    this.#host = host;
    this.#paging = paging;
    this.#closeMs = closeMs;
  }

  get size(): number {
    return this.#host.facts.size;
  }

  get durable(): boolean {
    return this.#host.facts.durable;
  }

  get closed(): Promise<Error | undefined> {
    return this.#paging.gone;
  }

  async statistics(): Promise<MemoryStatistics> {
    return await this.#paging.served.statistics();
  }

  async sync(): Promise<void> {
    this.#checkPlace();
    await this.#paging.served.push();
  }

  async close(): Promise<void> {
    this.#closing ??= this.#close();
    try {
      await this.#closing;
    } catch (error) {
      this.#closing = undefined;
      throw error;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#finishing ??= this.#finish();
    if (!await within(this.#closeMs, this.#finishing)) {
      throw new DeadlineError(
        `Cannot bring the rest of the region in within ${this.#closeMs / 1000} s`,
        { hint: "its backend does not answer; the memory stays paged in, close again" },
      );
    }
    this.#paging.close();
    await this.#host.close();
    held.delete(this.#memory);
  }

  async #finish(): Promise<true> {
    try {
      await this.#paging.served.complete();
      await this.sync();
      await this.#paging.complete();
      return true;
    } catch (error) {
      this.#finishing = undefined;
      throw error;
    }
  }

  /** Growing leaves a memory where it is, or moves it away from its pages. */
  #checkPlace(): void {
    if (addressOf(new Uint8Array(this.#memory.buffer)) === this.#address) return;
    throw new UnsupportedError("Cannot page a memory in that was moved as it grew", {
      hint: "give it its final size at first, or a maximum that fits the address space",
    });
  }
}
