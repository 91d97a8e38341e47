import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { requires, requiresAll, requiresThat, withReason } from "../tests/requires.ts";
import { awaitReadable, readOnThread, writeOnThread } from "../tests/touch.ts";
import { ERRNO, errno, SystemError } from "./errno.ts";
import { close, ftruncate, O, open, pread } from "./file.ts";
import { MNT, unmountHere } from "./fuse.ts";
import { addressOf, openLibc } from "./libc.ts";
import { MAP, Mapping, memfdCreate, pageSize, PROT } from "./mman.ts";
import { UFFD_FAULT, UserfaultMessages } from "./userfault_messages.ts";
import { openUserfault, probeUserfault, UFFD_FEATURE } from "./userfault_open.ts";
import {
  fillError,
  fillOutcome,
  UFFD_FILL,
  UFFD_IOCTL,
  UFFD_REGISTER,
  Userfault,
} from "./userfaultfd.ts";

openLibc();

const PAGE = pageSize();
const probe = probeUserfault();

/** A test that needs a userfaultfd of all features in a mask. */
function userfaultTest(name: string, features: number, fn: () => void | Promise<void>): void {
  const needs = requiresAll(
    requiresThat(probe.features !== 0, probe.ways.at(-1)?.reason ?? ""),
    requiresThat((features & ~probe.features) === 0, "this kernel's userfaultfd is too old"),
  );
  Deno.test({ name: withReason(name, needs), ignore: needs.ignore, fn });
}

/** Some pages of anonymous memory, registered. */
class Registered implements Disposable {
  readonly memory: Mapping;
  readonly uffd: Userfault;
  readonly messages = new UserfaultMessages();
  /** What can be asked of the pages. */
  readonly ioctls: number;

  constructor(pages: number, mode: number = UFFD_REGISTER.MISSING, required = 0) {
    this.memory = Mapping.map({ length: pages * PAGE });
    this.uffd = new Userfault(openUserfault({ required }).fd);
    this.ioctls = this.uffd.register(this.memory.address, this.memory.length, mode);
  }

  /** The address of a page. */
  page(index: number): number {
    return this.memory.address + index * PAGE;
  }

  /** Waits for messages and reads them. */
  read(): number {
    awaitReadable(this.uffd.fd);
    return this.messages.read(this.uffd.fd);
  }

  [Symbol.dispose](): void {
    this.uffd[Symbol.dispose]();
    this.memory.unmap();
  }
}

/** The address of as many pages of one byte; the buffers stay referenced. */
function pagesOf(byte: number, count = 1): number {
  const bytes = new Uint8Array(count * PAGE).fill(byte);
  sources.push(bytes);
  return addressOf(bytes);
}

const sources: Uint8Array[] = [];

userfaultTest("a thread that reads a missing page waits until it is copied", 0, async () => {
  using pages = new Registered(4);
  assertEquals(pages.ioctls & 0x1f, UFFD_IOCTL.WAKE | UFFD_IOCTL.COPY | UFFD_IOCTL.ZEROPAGE);
  const read = readOnThread(pages.page(1) + 100, 8);
  assertEquals(pages.read(), 1);
  assertEquals(pages.messages.address(0), pages.page(1));
  assertEquals(pages.messages.flags(0), 0);
  assertEquals(pages.uffd.copy(pages.page(1), pagesOf(7, 2), 2 * PAGE), 2 * PAGE);
  assertEquals(await read, new Uint8Array(8).fill(7));
  assertEquals(pages.memory.bytes[3 * PAGE - 1], 7);
});

userfaultTest("zeroes are put in place for a thread that writes", 0, async () => {
  using pages = new Registered(2);
  const written = writeOnThread(pages.page(0) + 1, 1, 9);
  pages.read();
  assertEquals(pages.messages.flags(0), UFFD_FAULT.WRITE);
  assertEquals(pages.uffd.zeroPage(pages.page(0), 2 * PAGE), 2 * PAGE);
  await written;
  assertEquals(pages.memory.bytes.subarray(0, 3), new Uint8Array([0, 9, 0]));
});

userfaultTest("a page that is there already is told, behind those that were copied", 0, () => {
  using pages = new Registered(4);
  const { uffd } = pages;
  assertEquals(fillOutcome(uffd.copy(pages.page(2), pagesOf(1), PAGE), PAGE), "done");
  const short = uffd.copy(pages.page(0), pagesOf(2, 4), 4 * PAGE);
  assertEquals([short, fillOutcome(short, 4 * PAGE)], [2 * PAGE, "short"]);
  for (
    const result of [
      uffd.copy(pages.page(2), pagesOf(2, 2), 2 * PAGE),
      uffd.zeroPage(pages.page(2), PAGE),
    ]
  ) {
    assertEquals([result, fillOutcome(result, PAGE)], [-ERRNO.EEXIST, "present"]);
  }
  assertEquals(uffd.copy(pages.page(3), pagesOf(2), PAGE), PAGE);
  assertEquals([0, 1, 2, 3].map((page) => pages.memory.bytes[page * PAGE]), [2, 2, 1, 2]);
});

userfaultTest("a copy without waking leaves the thread asleep until it is woken", 0, async () => {
  using pages = new Registered(2);
  let done = false;
  const read = readOnThread(pages.page(0), 1).finally(() => done = true);
  pages.read();
  assertEquals(pages.uffd.copy(pages.page(0), pagesOf(5), PAGE, UFFD_FILL.DONTWAKE), PAGE);

  // Another thread's fault is answered and the thread goes on, but not the first.
  const other = readOnThread(pages.page(1), 1);
  pages.read();
  pages.uffd.zeroPage(pages.page(1), PAGE);
  await other;
  assertEquals(done, false);

  assertEquals(pages.uffd.copy(pages.page(0), pagesOf(6), PAGE), -ERRNO.EEXIST);
  assertEquals(pages.uffd.wake(pages.page(0), PAGE), PAGE);
  assertEquals(await read, new Uint8Array([5]));
});

userfaultTest("memory that is not registered, or no longer mapped, is told", 0, () => {
  using pages = new Registered(4);
  const { uffd } = pages;
  uffd.unregister(pages.page(2), 2 * PAGE);
  const source = pagesOf(1, 4);
  for (
    const result of [
      uffd.copy(pages.page(2), source, PAGE),
      uffd.copy(pages.page(1), source, 2 * PAGE),
      uffd.zeroPage(pages.page(2), PAGE),
      uffd.writeProtect(pages.page(2), PAGE),
    ]
  ) {
    assertEquals([result, fillOutcome(result, PAGE)], [-ERRNO.ENOENT, "unmapped"]);
  }
  assertEquals(pages.memory.bytes[2 * PAGE], 0);

  const gone = new Registered(1);
  gone.memory.unmap();
  assertEquals(gone.uffd.copy(gone.page(0), source, PAGE), -ERRNO.ENOENT);
  gone.uffd[Symbol.dispose]();
});

userfaultTest("a source that cannot be read is told, and calls that are wrong", 0, () => {
  using pages = new Registered(2);
  const { uffd } = pages;
  using nothing = Mapping.map({ length: PAGE, prot: PROT.NONE });
  const unreadable = uffd.copy(pages.page(0), nothing.address, PAGE);
  assertEquals([unreadable, fillOutcome(unreadable, PAGE)], [-ERRNO.EFAULT, "unreadable"]);
  const source = pagesOf(1);
  for (
    const result of [
      uffd.copy(pages.page(0) + 1, source, PAGE),
      uffd.copy(pages.page(0), source, PAGE - 1),
      uffd.copy(pages.page(0), source, 0),
      uffd.wake(pages.page(0), 1),
    ]
  ) {
    assertEquals([result, fillOutcome(result, PAGE)], [-ERRNO.EINVAL, "invalid"]);
  }
  const error = fillError("copy pages", 0x1000, unreadable);
  assertEquals(
    error.message,
    "Cannot copy pages on memory at 0x1000: EFAULT; the source must be mapped memory, and a page " +
      "to continue with in its file",
  );
});

const mounting = requiresAll(
  requiresThat(probe.features !== 0, probe.ways.at(-1)?.reason ?? ""),
  requires("root", "mount"),
);

Deno.test({
  name: withReason("memory that has no room left is told", mounting),
  ignore: mounting.ignore,
  fn() {
    const directory = Deno.makeTempDirSync({ prefix: "telemap-test-" });
    const args = ["-t", "tmpfs", "-o", `size=${PAGE}`, "telemap-test", directory];
    assert(new Deno.Command("mount", { args }).outputSync().success);
    try {
      const file = open(`${directory}/memory`, O.RDWR | O.CREAT);
      ftruncate(file, 4 * PAGE, directory);
      using memory = Mapping.map({ length: 4 * PAGE, fd: file, flags: MAP.SHARED });
      using uffd = new Userfault(openUserfault().fd);
      uffd.register(memory.address, memory.length, UFFD_REGISTER.MISSING);
      assertEquals(uffd.copy(memory.address, pagesOf(1, 4), 4 * PAGE), PAGE);
      for (
        const result of [
          uffd.copy(memory.address + PAGE, pagesOf(1), PAGE),
          uffd.zeroPage(memory.address + PAGE, PAGE),
        ]
      ) {
        assertEquals(fillOutcome(result, PAGE), "full");
      }
      close(file);
    } finally {
      unmountHere(directory, MNT.DETACH);
      Deno.removeSync(directory);
    }
  },
});

Deno.test("every errno of a fill has its outcome", () => {
  const outcomes = [
    [ERRNO.EEXIST, "present"],
    [ERRNO.EAGAIN, "changing"],
    [ERRNO.ENOENT, "unmapped"],
    [ERRNO.ESRCH, "gone"],
    [ERRNO.ENOSPC, "full"],
    [ERRNO.ENOMEM, "full"],
    [ERRNO.EFAULT, "unreadable"],
    [ERRNO.EINVAL, "invalid"],
    [ERRNO.EBADF, "invalid"],
  ] as const;
  for (const [number, outcome] of outcomes) {
    assertEquals(fillOutcome(-number, PAGE), outcome);
    const error = fillError("copy pages", 0x1000, -number);
    assertEquals(error.errno, number);
    assert(error.hint !== undefined);
  }
  assertEquals(fillOutcome(PAGE, PAGE), "done");
  assertEquals(fillOutcome(PAGE, 2 * PAGE), "short");
});

userfaultTest("a registration that cannot be is refused with what to do", 0, () => {
  using pages = new Registered(2);
  const { MISSING, MINOR } = UFFD_REGISTER;
  const address = pages.page(0);
  using other = new Userfault(openUserfault().fd);
  const refused = (call: () => void) => assertThrows(call, SystemError);

  const busy = refused(() => other.register(address, PAGE, MISSING));
  assertEquals([busy.code, busy.hint?.slice(0, 19)], ["EBUSY", "another userfaultfd"]);
  assertEquals(refused(() => pages.uffd.register(address, PAGE, MINOR)).code, "EINVAL");
  assertEquals(refused(() => pages.uffd.register(PAGE * 16, PAGE, MISSING)).code, "EINVAL");
  assertEquals(refused(() => pages.uffd.unregister(PAGE * 16, PAGE)).code, "EINVAL");
  for (const [start, length] of [[address + 1, PAGE], [address, 1], [address, 0]] as const) {
    assertStringIncludes(
      assertThrows(() => pages.uffd.register(start, length, MISSING), RangeError).message,
      `multiples of the page size, ${PAGE}`,
    );
    assertThrows(() => pages.uffd.unregister(start, length), RangeError);
  }

  const file = memfdCreate("telemap-test");
  ftruncate(file, PAGE, "telemap-test");
  const readOnly = open(`/proc/self/fd/${file}`, O.RDONLY);
  using shared = Mapping.map({ length: PAGE, fd: readOnly, flags: MAP.SHARED, prot: PROT.READ });
  assertEquals(refused(() => other.register(shared.address, PAGE, MISSING)).code, "EPERM");
  [file, readOnly].forEach(close);
});

userfaultTest("an unregistered range reads as zeroes, and whoever waits goes on", 0, async () => {
  using pages = new Registered(2);
  const read = readOnThread(pages.page(0), 1);
  pages.read();
  pages.uffd.unregister(pages.page(0), 2 * PAGE);
  assertEquals(await read, new Uint8Array(1));
});

userfaultTest("after the close nothing reaches the descriptor's number", 0, async () => {
  using pages = new Registered(1);
  const { uffd } = pages;
  const read = readOnThread(pages.page(0), 1);
  pages.read();
  const number = uffd.fd;
  uffd[Symbol.dispose]();
  uffd[Symbol.dispose]();
  assertEquals(await read, new Uint8Array(1));

  using successor = new Userfault(openUserfault().fd);
  assertEquals([successor.fd, uffd.fd], [number, -1]);
  successor.register(pages.page(0), PAGE, UFFD_REGISTER.MISSING);
  assertEquals(uffd.copy(pages.page(0), pagesOf(1), PAGE), -ERRNO.EBADF);
  assertThrows(() => uffd.register(pages.page(0), PAGE, 1), SystemError, "EBADF");
});

userfaultTest(
  "a thread that writes to a protected page waits until it is unprotected",
  UFFD_FEATURE.PAGEFAULT_FLAG_WP,
  async () => {
    const { PAGEFAULT_FLAG_WP } = UFFD_FEATURE;
    using pages = new Registered(2, UFFD_REGISTER.WP, PAGEFAULT_FLAG_WP);
    const { uffd, memory } = pages;
    memory.bytes.fill(1);
    assertEquals(uffd.writeProtect(pages.page(0), 2 * PAGE), 2 * PAGE);
    const written = writeOnThread(pages.page(1), 1, 2);
    pages.read();
    assertEquals(pages.messages.flags(0), UFFD_FAULT.WP | UFFD_FAULT.WRITE);
    assertEquals(pages.messages.address(0), pages.page(1));
    assertEquals(memory.bytes[PAGE], 1);
    assertEquals(uffd.writeUnprotect(pages.page(1), PAGE, false), PAGE);
    assertEquals(uffd.wake(pages.page(1), PAGE), PAGE);
    await written;
    assertEquals(memory.bytes[PAGE], 2);
  },
);

userfaultTest(
  "a page is put in place write-protected, so that its first write is seen",
  UFFD_FEATURE.PAGEFAULT_FLAG_WP,
  async () => {
    const { MISSING, WP } = UFFD_REGISTER;
    using pages = new Registered(1, MISSING | WP, UFFD_FEATURE.PAGEFAULT_FLAG_WP);
    assertEquals(pages.uffd.copy(pages.page(0), pagesOf(1), PAGE, UFFD_FILL.WP), PAGE);
    const written = writeOnThread(pages.page(0), 1, 2);
    pages.read();
    assertEquals(pages.messages.flags(0), UFFD_FAULT.WP | UFFD_FAULT.WRITE);
    assertEquals(pages.uffd.writeUnprotect(pages.page(0), PAGE), PAGE);
    await written;
  },
);

userfaultTest(
  "zeroes and poison are refused on missing pages that are protected, copies are not",
  UFFD_FEATURE.WP_UNPOPULATED | UFFD_FEATURE.POISON,
  () => {
    const { MISSING, WP } = UFFD_REGISTER;
    using pages = new Registered(3, MISSING | WP, UFFD_FEATURE.WP_UNPOPULATED);
    const { uffd } = pages;
    uffd.writeProtect(pages.page(0), 3 * PAGE);
    assertEquals(uffd.zeroPage(pages.page(0), PAGE), -ERRNO.EEXIST);
    assertEquals(uffd.poison(pages.page(0), PAGE), -ERRNO.EEXIST);
    assertEquals(uffd.copy(pages.page(0), pagesOf(0), PAGE, UFFD_FILL.WP), PAGE);
    uffd.writeUnprotect(pages.page(1), 2 * PAGE);
    assertEquals(uffd.zeroPage(pages.page(1), PAGE), PAGE);
    assertEquals(uffd.poison(pages.page(2), PAGE), PAGE);
  },
);

userfaultTest(
  "a poisoned page fails until it is copied, the next does not",
  UFFD_FEATURE.POISON,
  () => {
    using pages = new Registered(2);
    assert((pages.ioctls & UFFD_IOCTL.POISON) !== 0);
    assertEquals(pages.uffd.poison(pages.page(0), PAGE), PAGE);
    assertEquals(pages.uffd.zeroPage(pages.page(0), PAGE), -ERRNO.EEXIST);
    assertEquals(pages.uffd.zeroPage(pages.page(1), PAGE), PAGE);
    const file = open("/proc/self/exe", O.RDONLY);
    const into = (page: number) => pread(file, pages.memory.bytes.subarray(page * PAGE), 0);
    assertEquals([into(0), errno()], [-1, ERRNO.EFAULT]);
    assertEquals(into(1), PAGE);
    assertEquals(pages.uffd.copy(pages.page(0), pagesOf(1), PAGE), PAGE);
    assertEquals(pages.memory.bytes[0], 1);
    close(file);
  },
);

userfaultTest("a page of shared memory is mapped as it is", UFFD_FEATURE.MINOR_SHMEM, async () => {
  const file = memfdCreate("telemap-test");
  ftruncate(file, 2 * PAGE, "telemap-test");
  const map = () => Mapping.map({ length: 2 * PAGE, fd: file, flags: MAP.SHARED });
  using writer = map();
  using reader = map();
  writer.bytes[0] = 3;
  using uffd = new Userfault(openUserfault({ required: UFFD_FEATURE.MINOR_SHMEM }).fd);
  uffd.register(reader.address, reader.length, UFFD_REGISTER.MINOR);
  const read = readOnThread(reader.address, 1);
  awaitReadable(uffd.fd);
  const messages = new UserfaultMessages();
  messages.read(uffd.fd);
  assertEquals(messages.flags(0), UFFD_FAULT.MINOR);
  assertEquals(uffd.continue(reader.address, PAGE), PAGE);
  assertEquals(await read, new Uint8Array([3]));
  assertEquals(uffd.continue(reader.address, PAGE), -ERRNO.EEXIST);
  assertEquals(uffd.continue(reader.address + PAGE, PAGE), -ERRNO.EFAULT);
  close(file);
});
