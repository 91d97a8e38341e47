/**
 * The `userfault` device: a region as plain memory of this process. A page comes from the backend
 * when it is first touched, and what was written goes back by `sync`; between them no kernel and no
 * server has any part in an access.
 *
 * The Worker that hosts the backend resolves the faults, so the thread that touches the memory may
 * stop at any access without holding up whoever fills the page.
 *
 * @module
 */
import { MADV, MAP, Mapping, pageSize, PROT } from "../../ffi/mman.ts";
import { UsageError } from "../backend/errors.ts";
import { settleAll } from "../backend/settle.ts";
import type { BackendHost } from "../host/host.ts";
import type { DeviceHost } from "../host/hosted_part.ts";
import { type MemoryStatistics, sum } from "../host/memory_statistics.ts";
import type { Device, DeviceMemory } from "./device.ts";
import { beginPaging, type PagedRange, type Paging, type PagingOptions } from "./paging.ts";

/** How {@linkcode attachUserfault} maps and pages in. */
export interface UserfaultOptions extends PagingOptions {
  /** Use huge pages of 2 MiB, which have to be reserved (vm.nr_hugepages); not unless told. */
  hugePages?: boolean | undefined;
  /**
   * Workers that page in, each a part of the memory by a userfaultfd of its own; 1 unless told. More
   * are for many threads that touch it at a time: the kernel hands the faults of one userfaultfd
   * out one after another.
   */
  handlers?: number | undefined;
}

const HUGE_PAGE = 2 << 20;
const HANDLERS_MAX = 64;

/**
 * Maps memory of the size of the host's backend and has it paged in.
 *
 * @throws {UsageError} the region is empty.
 * @throws {SystemError} there is no memory (ENOMEM); nothing is left behind then. And what
 * {@linkcode beginPaging} throws.
 */
export async function attachUserfault(
  host: DeviceHost,
  options: UserfaultOptions,
): Promise<Device> {
  const { hugePages = false, readOnly } = options;
  const { size } = host.facts;
  if (size === 0) throw new UsageError("Cannot map memory of 0 bytes");
  const page = hugePages ? HUGE_PAGE : pageSize();
  const ranges = split(Math.ceil(size / page), options.handlers ?? 1);
  const mapping = mapMemory(Math.ceil(size / page) * page, hugePages, readOnly);
  const handlers: Handler[] = [];
  try {
    for (const { from, to } of ranges) {
      const range = {
        address: mapping.address + from * page,
        length: (to - from) * page,
        offset: from * page,
        pageSize: page,
      };
      handlers.push(await startHandler(host, range, options, handlers.length === 0));
    }
    return new PagedMemory(mapping, mapping.bytes.subarray(0, size), handlers);
  } catch (error) {
    for (const { paging, own } of handlers) {
      await paging.release();
      await own?.close();
    }
    mapping.unmap();
    for (const { paging } of handlers) paging.close();
    throw error;
  }
}

/** The pages of a region in `parts` runs of about the same length, fewer where it has not so many. */
function split(pages: number, parts: number): { from: number; to: number }[] {
  if (!(Number.isInteger(parts) && parts >= 1 && parts <= HANDLERS_MAX)) {
    throw new UsageError(`Cannot page in by ${parts} handlers: from 1 to ${HANDLERS_MAX}`);
  }
  const count = Math.min(parts, pages);
  const start = (part: number) => Math.floor(pages * part / count);
  return Array.from({ length: count }, (_, part) => ({ from: start(part), to: start(part + 1) }));
}

/** Who pages a part of the memory in. */
interface Handler {
  paging: Paging;
  /** Its host, where that is not the one of the whole mount. */
  own: BackendHost | undefined;
}

async function startHandler(
  host: DeviceHost,
  range: PagedRange,
  options: PagingOptions,
  first: boolean,
): Promise<Handler> {
  if (first) return { paging: await beginPaging(host, range, options), own: undefined };
  const own = await host.startAnother();
  try {
    return { paging: await beginPaging(own, range, options), own };
  } catch (error) {
    await own.close();
    throw error;
  }
}

function mapMemory(length: number, hugePages: boolean, readOnly: boolean): Mapping {
  // Huge pages are reserved here: where none is left later, a fault could not be resolved.
  const kind = hugePages ? MAP.HUGETLB | MAP.HUGE_2MB : MAP.NORESERVE;
  const flags = MAP.PRIVATE | MAP.ANONYMOUS | kind;
  const mapping = Mapping.map({
    length,
    prot: readOnly ? PROT.READ : PROT.READ | PROT.WRITE,
    flags,
    subject: hugePages
      ? `${length} bytes of huge pages (reserve more by vm.nr_hugepages)`
      : `${length} bytes of memory`,
  });
  // A child process would share the pages without anybody to fill the missing ones.
  mapping.advise(MADV.DONTFORK);
  if (!hugePages) mapping.advise(MADV.NOHUGEPAGE);
  return mapping;
}

class PagedMemory implements Device {
  readonly kind = "userfault";
  readonly path = "";
  readonly gone: Promise<Error | undefined>;
  readonly memory: DeviceMemory;
  readonly #mapping: Mapping;
  readonly #handlers: readonly Handler[];
  #detaching: Promise<void> | undefined;

  constructor(mapping: Mapping, bytes: Uint8Array<ArrayBuffer>, handlers: readonly Handler[]) {
    this.#mapping = mapping;
    this.#handlers = handlers;
    this.gone = Promise.race(handlers.map(({ paging }) => paging.gone));
    this.memory = { bytes, push: () => this.#push(), statistics: () => this.#statistics() };
  }

  async detach({ force = false } = {}): Promise<void> {
    this.#detaching ??= this.#detach(force);
    try {
      await this.#detaching;
    } catch (error) {
      this.#detaching = undefined;
      throw error;
    }
  }

  async #detach(force: boolean): Promise<void> {
    if (!force) await this.#push();
    const pagings = this.#handlers.map(({ paging }) => paging);
    if (!force) { for (const paging of pagings) await paging.checkIdle(); }
    await settleAll(pagings.map((paging) => paging.release()));
    this.#mapping.unmap();
    for (const paging of pagings) paging.close();
    await settleAll(this.#handlers.map(async ({ own }) => await own?.close()));
  }

  async #push(): Promise<void> {
    await settleAll(this.#handlers.map(({ paging }) => paging.served.push()));
  }

  async #statistics(): Promise<MemoryStatistics> {
    const all = await Promise.all(this.#handlers.map(({ paging }) => paging.served.statistics()));
    return all.reduce(sum);
  }
}
