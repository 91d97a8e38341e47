import { assert, assertEquals } from "@std/assert";
import { Mapping, PROT } from "../../ffi/mman.ts";
import { openLibc } from "../../ffi/libc.ts";
import { openUserfault, probeUserfault, UFFD_FEATURE } from "../../ffi/userfault_open.ts";
import { UserfaultMessages } from "../../ffi/userfault_messages.ts";
import { UFFD_REGISTER, Userfault } from "../../ffi/userfaultfd.ts";
import { requiresAll, requiresThat, withReason } from "../../tests/requires.ts";
import { awaitReadable, readOnThread, writeOnThread } from "../../tests/touch.ts";
import type { PageContent } from "./page_content.ts";
import { type InstallOptions, PageInstaller } from "./page_installer.ts";
import { PagedRegion } from "./paged_region.ts";
import { noStatistics } from "./statistics.ts";

openLibc();

const PAGE = 4096;
const probe = probeUserfault();
const permitted = requiresThat(probe.features !== 0, probe.ways.at(-1)?.reason ?? "");

function installerTest(
  name: string,
  fn: () => void | Promise<void>,
  features = 0,
): void {
  const has = (probe.features & features) === features;
  const needs = requiresAll(permitted, requiresThat(has, "this kernel's userfaultfd is too old"));
  Deno.test({ name: withReason(name, needs), ignore: needs.ignore, fn });
}

/** Registered memory of some pages, a content for it, and who puts that in place. */
class Stage implements Disposable {
  readonly memory: Mapping;
  readonly source: Mapping;
  readonly uffd: Userfault;
  readonly region: PagedRegion;
  readonly statistics = noStatistics();
  readonly installer: PageInstaller;

  /** The content of page n is bytes n + 1, but zeroes on the pages that are named. */
  constructor(
    pages: number,
    { zeroes = [] as number[], install = { protect: false, zeroPage: true } as InstallOptions } =
      {},
  ) {
    const size = pages * PAGE;
    this.memory = Mapping.map({ length: size });
    this.source = Mapping.map({ length: size });
    for (let page = 0; page < pages; page++) {
      const byte = zeroes.includes(page) ? 0 : page + 1;
      this.source.bytes.fill(byte, page * PAGE, (page + 1) * PAGE);
    }
    this.uffd = new Userfault(openUserfault({ wanted: probe.features & UFFD_FEATURE.POISON }).fd);
    const protect = install.protect ? UFFD_REGISTER.WP : 0;
    this.uffd.register(this.memory.address, size, UFFD_REGISTER.MISSING | protect);
    const layout = { address: this.memory.address, size, offset: 0, pageSize: PAGE };
    this.region = new PagedRegion(layout, PAGE, PAGE);
    this.installer = new PageInstaller(this.uffd, install, this.statistics);
  }

  /** The content of pages from `first` on. */
  contentFrom(first: number): PageContent {
    const { bytes, address } = this.source;
    const words = new Uint32Array(bytes.buffer, 0, bytes.length / 4);
    return { address: address + first * PAGE, words, word: first * PAGE / 4, slot: undefined };
  }

  /** Puts all of the pages in place; answers the outcome, without its error, as one object. */
  install(from: number, to: number): Record<string, unknown> {
    const { installer, region } = this;
    const { error: _, ...installed } = installer.install(
      region,
      from,
      from,
      to,
      this.contentFrom(from),
    );
    return installed;
  }

  /** The first byte of every page, all of which are in place. */
  get firsts(): number[] {
    const pages = Array.from({ length: this.region.pages }, (_, page) => page);
    for (const page of pages) {
      const bytes = this.memory.bytes.subarray(page * PAGE, (page + 1) * PAGE);
      assert(bytes.every((byte) => byte === bytes[0]), `page ${page} is mixed`);
    }
    return pages.map((page) => this.memory.bytes[page * PAGE]!);
  }

  /** Which pages count as in place. */
  get present(): number[] {
    return [...Array(this.region.pages).keys()].filter((page) => this.region.isPresent(page));
  }

  [Symbol.dispose](): void {
    this.installer[Symbol.dispose]();
    this.uffd[Symbol.dispose]();
    this.memory.unmap();
    this.source.unmap();
  }
}

function done(to: number): Record<string, unknown> {
  return { outcome: "done", from: to, to };
}

installerTest("a run is put in place, of a content that begins before it", () => {
  using stage = new Stage(6);
  const { installer, region } = stage;
  const content = stage.contentFrom(1);
  assertEquals(installer.install(region, 1, 3, 5, content).outcome, "done");
  assertEquals(stage.present, [3, 4]);
  assertEquals(stage.install(0, 3), done(3));
  assertEquals(stage.install(5, 6), done(6));
  assertEquals(stage.firsts, [1, 2, 3, 4, 5, 6]);
  assertEquals([stage.statistics.copiedPages, stage.statistics.zeroPages], [6, 0]);
});

installerTest("pages that somebody put there before are left as they are", () => {
  using stage = new Stage(8);
  const { uffd, region, memory, source } = stage;
  for (const page of [0, 3, 4, 7]) {
    assertEquals(uffd.copy(region.addressOf(page), source.address + 5 * PAGE, PAGE), PAGE);
  }
  memory.bytes.fill(99, 3 * PAGE, 4 * PAGE);
  assertEquals(stage.install(0, 8), done(8));
  assertEquals(stage.firsts, [6, 2, 3, 99, 6, 6, 7, 6]);
  assertEquals(stage.present.length, 8);
  assertEquals(stage.statistics.copiedPages, 4);
});

installerTest("who waits for a page that is there already is woken", async () => {
  using stage = new Stage(2);
  const { uffd, region, source } = stage;
  const read = readOnThread(region.addressOf(1), 4);
  awaitReadable(uffd.fd);
  new UserfaultMessages().read(uffd.fd);
  const DONTWAKE = 1;
  assertEquals(uffd.copy(region.addressOf(1), source.address, PAGE, DONTWAKE), PAGE);
  assertEquals(stage.install(1, 2), done(2));
  assertEquals(await read, new Uint8Array(4).fill(1));
});

installerTest("pages of zeroes are the kernel's zero page, and take no memory", async () => {
  using stage = new Stage(64, { zeroes: [0, 1, 5, 62, 63] });
  assertEquals(stage.install(0, 64), done(64));
  assertEquals([stage.statistics.copiedPages, stage.statistics.zeroPages], [59, 5]);
  const resident = await residentPages(stage.memory);
  assertEquals(resident, 59);
  assertEquals(stage.firsts.filter((byte) => byte === 0).length, 5);
});

/** Pages of a mapping that take memory. */
async function residentPages({ address }: Mapping): Promise<number> {
  const maps = await Deno.readTextFile("/proc/self/smaps");
  const entry = maps.slice(maps.indexOf(`${address.toString(16)}-`));
  return Number(/^Anonymous:\s+(\d+) kB$/m.exec(entry)![1]) / (PAGE / 1024);
}

const PROTECTED = { protect: true, zeroPage: false };

installerTest("protected pages are told of when they are written, zeroes too", async () => {
  using stage = new Stage(3, { zeroes: [1], install: PROTECTED });
  assertEquals(stage.install(0, 3), done(3));
  assertEquals([stage.statistics.copiedPages, stage.statistics.zeroPages], [3, 0]);
  assertEquals(stage.firsts, [1, 0, 3]);
  const { uffd, region } = stage;
  const messages = new UserfaultMessages();
  for (const page of [0, 1, 2]) {
    const written = writeOnThread(region.addressOf(page), PAGE, 50 + page);
    awaitReadable(uffd.fd);
    assertEquals([messages.read(uffd.fd), messages.address(0)], [1, region.addressOf(page)]);
    uffd.writeUnprotect(region.addressOf(page), PAGE);
    await written;
  }
  assertEquals(stage.firsts, [50, 51, 52]);
}, UFFD_FEATURE.PAGEFAULT_FLAG_WP);

for (const install of [{ protect: false, zeroPage: true }, PROTECTED]) {
  const how = install.protect ? "protected" : "not protected";
  installerTest(`pages that were dropped are zeroes, whatever was read of them, ${how}`, () => {
    using stage = new Stage(8, { zeroes: [2], install });
    stage.region.drop(3, 5);
    assertEquals(stage.install(0, 6), done(6));
    stage.region.drop(6, 8);
    const { outcome, from, to } = stage.installer.zero(stage.region, 6, 8);
    assertEquals({ outcome, from, to }, done(8));
    assertEquals(stage.firsts, [1, 2, 0, 0, 0, 6, 0, 0]);
    assertEquals(stage.present.length, 8);
  }, install.protect ? UFFD_FEATURE.PAGEFAULT_FLAG_WP : 0);
}

installerTest("pages that are mapped no more are passed over", () => {
  using stage = new Stage(6);
  stage.uffd.unregister(stage.region.addressOf(2), 2 * PAGE);
  assertEquals(stage.install(0, 6), done(6));
  assertEquals(stage.firsts, [1, 2, 0, 0, 5, 6]);
});

installerTest("a page that was poisoned is there once its content came after all", () => {
  using stage = new Stage(3);
  assertEquals(stage.uffd.poison(stage.region.addressOf(1), PAGE), PAGE);
  assertEquals(stage.install(0, 3), done(3));
  assertEquals(stage.firsts, [1, 2, 3]);
}, UFFD_FEATURE.POISON);

installerTest("a content that cannot be read ends with its error, behind what could be", () => {
  using stage = new Stage(4);
  using hole = Mapping.map({ length: 4 * PAGE, prot: PROT.NONE });
  const content = { ...stage.contentFrom(0), address: hole.address };
  const { outcome, from, to, error } = stage.installer.install(stage.region, 0, 1, 3, content);
  assertEquals({ outcome, from, to }, { outcome: "failed", from: 1, to: 3 });
  assert(error?.message.includes("EFAULT"), `${error}`);
  assertEquals(stage.present, []);
});

installerTest("a userfaultfd that is closed ends with its error", () => {
  using stage = new Stage(2);
  stage.uffd[Symbol.dispose]();
  const { outcome, error } = stage.installer.install(stage.region, 0, 0, 2, stage.contentFrom(0));
  assertEquals([outcome, error?.message.includes("EBADF")], ["failed", true]);
});

installerTest("zeroes are copied where there is no zero page", () => {
  using stage = new Stage(2, { zeroes: [0], install: { protect: false, zeroPage: false } });
  assertEquals(stage.install(0, 2), done(2));
  assertEquals([stage.statistics.copiedPages, stage.statistics.zeroPages], [2, 0]);
});
