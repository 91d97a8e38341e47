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
import type { BackendHost } from "../host/host.ts";
import type { Device, DeviceMemory } from "./device.ts";
import { beginPaging, type Paging, type PagingOptions } from "./paging.ts";

/** How {@linkcode attachUserfault} maps and pages in. */
export interface UserfaultOptions extends PagingOptions {
  /** Use huge pages of 2 MiB, which have to be reserved (vm.nr_hugepages); not unless told. */
  hugePages?: boolean | undefined;
}

const HUGE_PAGE = 2 << 20;

/**
 * Maps memory of the size of the host's backend and has it paged in.
 *
 * @throws {UsageError} the region is empty.
 * @throws {SystemError} there is no memory (ENOMEM); nothing is left behind then. And what
 * {@linkcode beginPaging} throws.
 */
export async function attachUserfault(
  host: BackendHost,
  options: UserfaultOptions,
): Promise<Device> {
  const { hugePages = false, readOnly } = options;
  const { size } = host.facts;
  if (size === 0) throw new UsageError("Cannot map memory of 0 bytes");
  const page = hugePages ? HUGE_PAGE : pageSize();
  const mapping = mapMemory(Math.ceil(size / page) * page, hugePages, readOnly);
  try {
    const range = { address: mapping.address, length: mapping.length, pageSize: page };
    const paging = await beginPaging(host, range, options);
    return new PagedMemory(mapping, mapping.bytes.subarray(0, size), paging);
  } catch (error) {
    mapping.unmap();
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
  readonly #paging: Paging;
  #detaching: Promise<void> | undefined;

  constructor(mapping: Mapping, bytes: Uint8Array<ArrayBuffer>, paging: Paging) {
    this.#mapping = mapping;
    this.#paging = paging;
    this.gone = paging.gone;
    const { served } = paging;
    this.memory = { bytes, push: () => served.push(), statistics: () => served.statistics() };
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
    if (!force) await this.#paging.served.push();
    await this.#paging.release({ force });
    this.#mapping.unmap();
    this.#paging.close();
  }
}
