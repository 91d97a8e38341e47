/**
 * Puts pages in place by the userfaultfd: zeroes as the kernel's zero page where that is possible,
 * all else as copies, around whatever is in place already.
 *
 * @module
 */
import { Mapping } from "../../ffi/mman.ts";
import { fillError, fillOutcome, UFFD_FILL, type Userfault } from "../../ffi/userfaultfd.ts";
import { areZero, type PageContent } from "./page_content.ts";
import type { PagedRegion } from "./paged_region.ts";
import type { UserfaultStatistics } from "./statistics.ts";

/** What became of pages that were to be put in place. Valid until the next call. */
export interface Installed {
  /**
   * `done`: all are in place. `changing`: their process changes the mapping; try again from `from`
   * on when events were read. `full`: there is no memory. `failed`: nothing can be put in place any
   * more, as where the process is gone.
   */
  outcome: "done" | "changing" | "full" | "failed";
  /** The first page that is not in place. */
  from: number;
  /** The page behind the last one. */
  to: number;
  /** Why, for `full` and `failed`. */
  error: Error | undefined;
}

/** How a {@linkcode PageInstaller} puts pages in place. */
export interface InstallOptions {
  /** Copies are write-protected, so that a write to them is noticed. */
  protect: boolean;
  /**
   * Zeroes may be the kernel's zero page, which cannot be write-protected as it is put in place.
   * Huge pages have none.
   */
  zeroPage: boolean;
  /** Told of what was put in place: from which address it came, or -1 where it is zeroes. */
  onPlaced?: ((region: PagedRegion, from: number, to: number, source: number) => void) | undefined;
}

const ZERO_PAGE_MAX = 65536;

/** Puts pages of one userfaultfd in place. */
export class PageInstaller implements Disposable {
  readonly #uffd: Userfault;
  readonly #mode: number;
  readonly #zeroPage: boolean;
  readonly #onPlaced: InstallOptions["onPlaced"];
  readonly #statistics: UserfaultStatistics;
  readonly #result: Installed = { outcome: "done", from: 0, to: 0, error: undefined };
  /** A page of zeroes to copy. */
  #zeroes: Mapping | undefined;

  /** Counts what it does in `statistics`. */
  constructor(uffd: Userfault, options: InstallOptions, statistics: UserfaultStatistics) {
    this.#uffd = uffd;
    this.#mode = options.protect ? UFFD_FILL.WP : 0;
    this.#zeroPage = options.zeroPage;
    this.#onPlaced = options.onPlaced;
    this.#statistics = statistics;
  }

  /** Puts pages `[from, to)` in place, of a content that begins with that of page `first`. */
  install(
    region: PagedRegion,
    first: number,
    from: number,
    to: number,
    content: PageContent,
  ): Installed {
    let page = from;
    while (page < to) {
      const zero = this.#isZero(region, first, page, content);
      let end = page + 1;
      while (end < to && this.#isZero(region, first, end, content) === zero) end++;
      const source = content.address + (page - first) * region.pageSize;
      const installed = zero ? this.zero(region, page, end) : this.#fill(region, page, end, source);
      if (installed.outcome !== "done") {
        installed.to = to;
        return installed;
      }
      page = end;
    }
    return this.#answer("done", to, to);
  }

  /** Puts zeroes in place of pages `[from, to)`. */
  zero(region: PagedRegion, from: number, to: number): Installed {
    if (this.#mayBeZeroPage(region)) return this.#fill(region, from, to, -1);
    this.#zeroes ??= Mapping.map({ length: region.pageSize, subject: "a page of zeroes" });
    for (let page = from; page < to; page++) {
      const installed = this.#fill(region, page, page + 1, this.#zeroes.address);
      if (installed.outcome !== "done") return installed;
    }
    return this.#answer("done", to, to);
  }

  /** Unmaps its buffer. */
  [Symbol.dispose](): void {
    this.#zeroes?.unmap();
  }

  #mayBeZeroPage(region: PagedRegion): boolean {
    return this.#zeroPage && region.pageSize <= ZERO_PAGE_MAX;
  }

  #isZero(region: PagedRegion, first: number, page: number, content: PageContent): boolean {
    if (region.isDropped(page)) return true;
    if (!this.#mayBeZeroPage(region)) return false;
    const words = region.pageSize / 4;
    return areZero(content.words, content.word + (page - first) * words, words);
  }

  /** Copies from `source`, or maps the zero page where that is -1, until all pages are in place. */
  #fill(region: PagedRegion, from: number, to: number, source: number): Installed {
    const { pageSize } = region;
    let page = from, most = to - from;
    while (page < to) {
      const address = region.addressOf(page), length = Math.min(to - page, most) * pageSize;
      const at = source < 0 ? source : source + (page - from) * pageSize;
      const result = source < 0
        ? this.#uffd.zeroPage(address, length)
        : this.#uffd.copy(address, at, length, this.#mode);
      switch (fillOutcome(result, length)) {
        case "done":
        case "short":
          this.#count(source < 0, result / pageSize);
          region.fill(page, page + result / pageSize);
          this.#onPlaced?.(region, page, page + result / pageSize, at);
          page += result / pageSize;
          break;
        case "unmapped":
          // The run may lie in several mappings, as where its process changed a part of it: each
          // page is for itself then.
          if (length > pageSize) {
            most = 1;
            break;
          }
          // falls through
        case "present":
          // Whoever waits finds the page, or that there is none any more.
          region.settle(page, page + 1);
          this.#uffd.wake(address, pageSize);
          page++;
          break;
        case "changing":
          return this.#answer("changing", page, to);
        case "full":
          return this.#answer("full", page, to, fillError("put pages in place", address, result));
        default:
          return this.#answer("failed", page, to, fillError("put pages in place", address, result));
      }
    }
    return this.#answer("done", to, to);
  }

  #count(zero: boolean, pages: number): void {
    if (zero) this.#statistics.zeroPages += pages;
    else this.#statistics.copiedPages += pages;
  }

  #answer(outcome: Installed["outcome"], from: number, to: number, error?: Error): Installed {
    const result = this.#result;
    result.outcome = outcome;
    result.from = from;
    result.to = to;
    result.error = error;
    return result;
  }
}
