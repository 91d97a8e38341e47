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
import { close } from "../../ffi/file.ts";
import { MADV, MAP, Mapping, pageSize, PROT } from "../../ffi/mman.ts";
import { openUserfault, UFFD_FEATURE } from "../../ffi/userfault_open.ts";
import { UFFD_REGISTER, Userfault } from "../../ffi/userfaultfd.ts";
import { TelemapError, UsageError } from "../backend/errors.ts";
import type { BackendHost, ServedMemory } from "../host/host.ts";
import type { UserfaultLoss } from "../userfault/server.ts";
import { bestTracking } from "../userfault/tracking_probe.ts";
import type { TrackingMethod } from "../userfault/write_tracker.ts";
import type { Device, DeviceMemory } from "./device.ts";

/** How {@linkcode attachUserfault} pages in. */
export interface UserfaultOptions {
  /** Whether the memory may only be read. */
  readOnly: boolean;
  /** Bytes that a fault brings in, whole pages; 64 KiB unless told. Faults in order bring in more. */
  faultAround?: number | undefined;
  /** Bring everything in without being asked, while faults go first; not unless told. */
  prefetch?: boolean | undefined;
  /**
   * What becomes of a touch of a page whose content cannot be had: `wait` (unless told) tries again
   * for as long as it takes, `poison` ends the thread's wait by SIGBUS, which ends the process.
   */
  onLoss?: UserfaultLoss | undefined;
  /** How long a page may be waited for before it is poisoned, in ms; 30 s unless told. */
  lossMs?: number | undefined;
  /** Use huge pages of 2 MiB, which have to be reserved (vm.nr_hugepages); not unless told. */
  hugePages?: boolean | undefined;
  /** How writes are noticed; the best way that the kernel has unless told. */
  tracking?: TrackingMethod | undefined;
}

const HUGE_PAGE = 2 << 20;
const FAULT_AROUND_MAX = 16 << 20;

/**
 * Maps memory of the size of the host's backend, registers it and has it paged in.
 *
 * @throws {UsageError} the region is empty, or `faultAround` is not whole pages.
 * @throws {SystemError} userfaultfd is not permitted (EPERM: vm.unprivileged_userfaultfd, or access to
 * /dev/userfaultfd), or there is no memory (ENOMEM); nothing is left behind then.
 */
export async function attachUserfault(
  host: BackendHost,
  options: UserfaultOptions,
): Promise<Device> {
  const { hugePages = false, readOnly } = options;
  const page = hugePages ? HUGE_PAGE : pageSize();
  checkOptions(host.facts.size, page, options.faultAround);
  const tracking = readOnly ? undefined : options.tracking ?? bestTracking();
  const { fd } = openUserfault(featuresFor(options, tracking));
  try {
    const mapping = mapMemory(Math.ceil(host.facts.size / page) * page, hugePages, readOnly);
    try {
      return await register(host, mapping, page, fd, { ...options, tracking });
    } catch (error) {
      mapping.unmap();
      throw error;
    }
  } catch (error) {
    close(fd);
    throw error;
  }
}

/** Without WP_ASYNC a write to a protected page is a fault, so it is asked for only where it serves. */
function featuresFor(
  { onLoss, hugePages }: UserfaultOptions,
  tracking: TrackingMethod | undefined,
): { required: number } {
  let required = 0;
  if (onLoss === "poison") required |= UFFD_FEATURE.POISON;
  if (tracking === "async-wp") required |= UFFD_FEATURE.WP_ASYNC;
  if (tracking === "wp-faults") required |= UFFD_FEATURE.PAGEFAULT_FLAG_WP;
  if (hugePages) required |= UFFD_FEATURE.MISSING_HUGETLBFS;
  if (hugePages && tracking !== undefined) required |= UFFD_FEATURE.WP_HUGETLBFS_SHMEM;
  return { required };
}

function checkOptions(size: number, page: number, faultAround: number | undefined): void {
  if (size === 0) throw new UsageError("Cannot map memory of 0 bytes");
  if (faultAround === undefined) return;
  if (faultAround >= page && faultAround % page === 0 && faultAround <= FAULT_AROUND_MAX) return;
  throw new UsageError(`Cannot page in ${faultAround} bytes a fault`, {
    hint: `give a multiple of the page size (${page}) up to ${FAULT_AROUND_MAX}`,
  });
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

async function register(
  host: BackendHost,
  mapping: Mapping,
  page: number,
  fd: number,
  options: UserfaultOptions,
): Promise<Device> {
  const { tracking, faultAround, prefetch, onLoss, lossMs } = options;
  const protects = tracking === "async-wp" || tracking === "wp-faults";
  const mode = protects ? UFFD_REGISTER.MISSING | UFFD_REGISTER.WP : UFFD_REGISTER.MISSING;
  new Userfault(fd).register(mapping.address, mapping.length, mode);
  const gone = Promise.withResolvers<Error | undefined>();
  const region = { address: mapping.address, size: mapping.length, offset: 0, pageSize: page };
  const served = await host.serveMemory(
    fd,
    { regions: [region], faultAround, prefetch, onLoss, lossMs, tracking },
    gone.resolve,
  );
  return new PagedMemory(fd, mapping, mapping.bytes.subarray(0, host.facts.size), served, gone);
}

class PagedMemory implements Device {
  readonly kind = "userfault";
  readonly path = "";
  readonly gone: Promise<Error | undefined>;
  readonly memory: DeviceMemory;
  readonly #fd: number;
  readonly #mapping: Mapping;
  readonly #served: ServedMemory;
  #detaching: Promise<void> | undefined;

  constructor(
    fd: number,
    mapping: Mapping,
    bytes: Uint8Array<ArrayBuffer>,
    served: ServedMemory,
    gone: PromiseWithResolvers<Error | undefined>,
  ) {
    this.#fd = fd;
    this.#mapping = mapping;
    this.#served = served;
    this.gone = gone.promise;
    this.memory = { bytes, push: () => served.push(), statistics: () => served.statistics() };
  }

  async detach(options: { force?: boolean } = {}): Promise<void> {
    await (this.#detaching ??= this.#detach(options.force ?? false));
  }

  async #detach(force: boolean): Promise<void> {
    if (!force) await this.#served.push();
    const { owes } = await this.#served.release();
    if (owes) {
      // Unmapping under a thread that waits would end the process, and closing would show it zeroes.
      throw new TelemapError("EBUSY", "Cannot unmap memory that a thread waits for", {
        hint: "its backend does not answer; the memory stays, and the thread waits until the end",
      });
    }
    this.#mapping.unmap();
    close(this.#fd);
  }
}
