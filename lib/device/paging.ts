/**
 * Memory of this process that a host pages in: opens the userfaultfd, registers the memory and has
 * it served, and lets go of all that in the right order.
 *
 * @module
 */
import { close } from "../../ffi/file.ts";
import { adviseAt, MADV } from "../../ffi/mman.ts";
import { openUserfault, UFFD_FEATURE } from "../../ffi/userfault_open.ts";
import { UFFD_REGISTER, Userfault } from "../../ffi/userfaultfd.ts";
import { DeadlineError, TelemapError, UsageError } from "../backend/errors.ts";
import type { ServedMemory } from "../host/host.ts";
import type { DeviceHost } from "../host/hosted_part.ts";
import type { UserfaultLoss } from "../userfault/server.ts";
import { bestTracking } from "../tracking/tracking_probe.ts";
import type { TrackingMethod } from "../tracking/write_tracker.ts";

/** How memory is paged in. */
export interface PagingOptions {
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
  /** How writes are noticed; the best way that the kernel has unless told. */
  tracking?: TrackingMethod | undefined;
}

/** Memory to page in: whole pages, whose content so far is dropped. */
export interface PagedRange {
  /** Its first byte. */
  address: number;
  /** Bytes. */
  length: number;
  /** Where its content begins in the backend. */
  offset: number;
  /** Bytes of a page of it. */
  pageSize: number;
}

const FAULT_AROUND_MAX = 16 << 20;
const SMALL_PAGE_MAX = 65536;

/**
 * Begins to page a host's backend in.
 *
 * @throws {UsageError} `faultAround` is not whole pages, or `lossMs` no time.
 * @throws {SystemError} userfaultfd is not permitted (EPERM: vm.unprivileged_userfaultfd, or access to
 * /dev/userfaultfd); nothing is left behind then.
 * @throws {UserfaultFeatureError} the kernel lacks what the options need.
 */
export async function beginPaging(
  host: DeviceHost,
  range: PagedRange,
  options: PagingOptions,
): Promise<Paging> {
  const { readOnly, faultAround, prefetch, onLoss, lossMs } = options;
  checkFaultAround(faultAround, range.pageSize);
  checkLossMs(lossMs);
  const tracking = readOnly ? undefined : options.tracking ?? bestTracking();
  const { fd } = openUserfault({
    required: featuresFor(range, options, tracking),
    wanted: UFFD_FEATURE.THREAD_ID,
  });
  try {
    const protects = tracking === "async-wp" || tracking === "wp-faults";
    const mode = protects ? UFFD_REGISTER.MISSING | UFFD_REGISTER.WP : UFFD_REGISTER.MISSING;
    const { address, length, offset, pageSize } = range;
    new Userfault(fd).register(address, length, mode);
    adviseAt(address, length, MADV.DONTNEED, "memory that is paged in");
    const regions = [{ address, size: length, offset, pageSize }];
    const gone = Promise.withResolvers<Error | undefined>();
    const served = await host.serveMemory(
      fd,
      { regions, faultAround, prefetch, onLoss, lossMs, tracking },
      gone.resolve,
    );
    return new Paging(fd, range, served, gone.promise);
  } catch (error) {
    close(fd);
    throw error;
  }
}

function checkLossMs(lossMs: number | undefined): void {
  if (lossMs === undefined || (lossMs > 0 && Number.isFinite(lossMs))) return;
  throw new UsageError(`Cannot wait ${lossMs} ms for a page`, {
    hint: "give milliseconds over 0, or wait for as long as it takes",
  });
}

function checkFaultAround(faultAround: number | undefined, page: number): void {
  if (faultAround === undefined) return;
  if (faultAround >= page && faultAround % page === 0 && faultAround <= FAULT_AROUND_MAX) return;
  throw new UsageError(`Cannot page in ${faultAround} bytes a fault`, {
    hint: `give a multiple of the page size (${page}) up to ${FAULT_AROUND_MAX}`,
  });
}

/** Without WP_ASYNC a write to a protected page is a fault, so it is asked for only where it serves. */
function featuresFor(
  { pageSize }: PagedRange,
  { onLoss }: PagingOptions,
  tracking: TrackingMethod | undefined,
): number {
  const huge = pageSize > SMALL_PAGE_MAX;
  let required = 0;
  if (onLoss === "poison") required |= UFFD_FEATURE.POISON;
  if (tracking === "async-wp") required |= UFFD_FEATURE.WP_ASYNC;
  if (tracking === "wp-faults") required |= UFFD_FEATURE.PAGEFAULT_FLAG_WP;
  if (huge) required |= UFFD_FEATURE.MISSING_HUGETLBFS;
  if (huge && tracking !== undefined) required |= UFFD_FEATURE.WP_HUGETLBFS_SHMEM;
  return required;
}

/** Memory that is paged in. */
export class Paging {
  /** Settles when nothing is paged in any more; with the error, if one ended it. */
  readonly gone: Promise<Error | undefined>;
  /** The host's side of it. */
  readonly served: ServedMemory;
  readonly #fd: number;
  readonly #range: PagedRange;
  #released = false;

  /** Made by {@linkcode beginPaging}. */
  constructor(
    fd: number,
    range: PagedRange,
    served: ServedMemory,
    gone: Promise<Error | undefined>,
  ) {
    this.#fd = fd;
    this.#range = range;
    this.served = served;
    this.gone = gone;
  }

  /** Throws {@linkcode TelemapError}, EBUSY, where a thread waits for a page. */
  async checkIdle(): Promise<void> {
    if (!(await this.served.statistics()).owes) return;
    throw new TelemapError("EBUSY", "Cannot let go of memory that a thread waits for", {
      hint: "its backend does not answer; close again when it does",
    });
  }

  /**
   * Ends the paging for memory that nobody touches any more, so that it may be unmapped before
   * {@linkcode close}.
   *
   * @throws {DeadlineError} a thread waits for a page. Unmapping would end the process under it, and
   * closing would show it zeroes: so it waits until the process ends.
   */
  async release(): Promise<void> {
    const { owes } = await this.served.release();
    this.#released = !owes;
    if (!owes) return;
    throw new DeadlineError("Cannot let go of memory that a thread waits for", {
      hint: "its backend does not answer; the memory stays mapped, and the thread waits",
    });
  }

  /** Ends the paging of memory of which every page is in place, and which may be used on. */
  async complete(): Promise<void> {
    await this.served.complete();
    await this.served.release();
    this.#released = true;
    new Userfault(this.#fd).unregister(this.#range.address, this.#range.length);
  }

  /** Closes the userfaultfd, once nothing depends on it. */
  close(): void {
    if (this.#released) close(this.#fd);
    this.#released = false;
  }
}
