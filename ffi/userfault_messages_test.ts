import { assert, assertEquals, assertThrows } from "@std/assert";
import { requires, requiresAll, requiresThat, withReason } from "../tests/requires.ts";
import {
  adviseOnThread,
  awaitReadable,
  moveOnThread,
  readOnThread,
  unmapOnThread,
} from "../tests/touch.ts";
import { ERRNO, SystemError } from "./errno.ts";
import { close, makeInheritable, readKernelText } from "./file.ts";
import { addressOf, openLibc } from "./libc.ts";
import { MADV, Mapping, pageSize } from "./mman.ts";
import { receiveDescriptors } from "./socket_message.ts";
import { recv, send, socketpair } from "./socket.ts";
import { UFFD_EVENT, UserfaultMessages } from "./userfault_messages.ts";
import { openUserfault, probeUserfault, UFFD_FEATURE } from "./userfault_open.ts";
import { fillOutcome, UFFD_REGISTER, Userfault } from "./userfaultfd.ts";

openLibc();

const PAGE = pageSize();
const source = new Uint8Array(PAGE).fill(42);
const SOURCE = addressOf(source);

const probe = probeUserfault();
const available = requiresThat(probe.features !== 0, probe.ways.at(-1)?.reason ?? "");
const forking = requiresAll(available, requires("root", "gcc"));

/** A userfaultfd with some features. */
function userfaultOf(required: number): Userfault {
  return new Userfault(openUserfault({ required }).fd);
}

Deno.test({
  name: withReason("many faults are read at once, each with its address and thread", available),
  ignore: available.ignore,
  async fn() {
    using memory = Mapping.map({ length: 3 * PAGE });
    using uffd = userfaultOf(UFFD_FEATURE.THREAD_ID | UFFD_FEATURE.EXACT_ADDRESS);
    uffd.register(memory.address, memory.length, UFFD_REGISTER.MISSING);
    const messages = new UserfaultMessages(2);
    assertEquals(messages.read(uffd.fd), 0);

    const offsets = [10, PAGE + 20, 2 * PAGE + 30];
    const reads = offsets.map((offset) => readOnThread(memory.address + offset, 1));
    const deadline = performance.now() + 5000;
    while (!/^pending:\s*3$/m.test(readKernelText(`/proc/self/fdinfo/${uffd.fd}`))) {
      assert(performance.now() < deadline);
    }
    const found = new Map<number, number>();
    for (const expected of [2, 1]) {
      assertEquals(messages.read(uffd.fd), expected);
      for (let index = 0; index < expected; index++) {
        assertEquals(messages.event(index), UFFD_EVENT.PAGEFAULT);
        found.set(messages.address(index) - memory.address, messages.threadId(index));
      }
    }
    assertEquals([...found.keys()].sort((a, b) => a - b), offsets);
    assertEquals(new Set(found.values()).size, 3);
    for (const thread of found.values()) Deno.lstatSync(`/proc/self/task/${thread}`);
    uffd.zeroPage(memory.address, memory.length);
    await Promise.all(reads);
  },
});

Deno.test({
  name: withReason("dropping pages is told, and fills wait until that is read", available),
  ignore: available.ignore,
  async fn() {
    using memory = Mapping.map({ length: 2 * PAGE });
    using uffd = userfaultOf(UFFD_FEATURE.EVENT_REMOVE);
    uffd.register(memory.address, memory.length, UFFD_REGISTER.MISSING);
    const removed = adviseOnThread(memory.address + PAGE, PAGE, MADV.DONTNEED);
    awaitReadable(uffd.fd);
    for (
      const result of [
        uffd.copy(memory.address, SOURCE, PAGE),
        uffd.zeroPage(memory.address, PAGE),
      ]
    ) {
      assertEquals([result, fillOutcome(result, PAGE)], [-ERRNO.EAGAIN, "changing"]);
    }
    const messages = new UserfaultMessages();
    assertEquals(messages.read(uffd.fd), 1);
    assertEquals(messages.event(0), UFFD_EVENT.REMOVE);
    const range = [messages.start(0) - memory.address, messages.end(0) - memory.address];
    assertEquals(range, [PAGE, 2 * PAGE]);
    assertEquals(await removed, 0);
    assertEquals(uffd.copy(memory.address, SOURCE, PAGE), PAGE);
  },
});

Deno.test({
  name: withReason("moving and unmapping a range is told", available),
  ignore: available.ignore,
  async fn() {
    // It is not unmapped at the end: nothing is left there, or somebody else's memory.
    const from = Mapping.map({ length: 2 * PAGE });
    const to = Mapping.map({ length: 2 * PAGE });
    using uffd = userfaultOf(UFFD_FEATURE.EVENT_REMAP | UFFD_FEATURE.EVENT_UNMAP);
    uffd.register(from.address, from.length, UFFD_REGISTER.MISSING);
    const messages = new UserfaultMessages();

    const moved = moveOnThread(from.address, from.length, to.address);
    awaitReadable(uffd.fd);
    assertEquals(messages.read(uffd.fd), 1);
    assertEquals(messages.event(0), UFFD_EVENT.REMAP);
    assertEquals([messages.from(0), messages.to(0)], [from.address, to.address]);
    assertEquals(messages.length(0), 2 * PAGE);
    awaitReadable(uffd.fd);
    assertEquals(messages.read(uffd.fd), 1);
    assertEquals([messages.event(0), messages.start(0)], [UFFD_EVENT.UNMAP, from.address]);
    assertEquals(await moved, to.address);

    const unmapped = unmapOnThread(to.address + PAGE, PAGE);
    awaitReadable(uffd.fd);
    assertEquals(messages.read(uffd.fd), 1);
    assertEquals(messages.event(0), UFFD_EVENT.UNMAP);
    assertEquals([messages.start(0), messages.end(0)], [to.address + PAGE, to.address + 2 * PAGE]);
    assertEquals(await unmapped, 0);
    uffd.unregister(to.address, PAGE);
    to.unmap();
  },
});

Deno.test({
  name: withReason("another process's faults, its child's, and its end", forking),
  ignore: forking.ignore,
  async fn() {
    const directory = Deno.makeTempDirSync({ prefix: "telemap-test-" });
    const program = `${directory}/client`;
    const text = new URL("../tests/userfault_client.c", import.meta.url).pathname;
    const built = new Deno.Command("gcc", { args: ["-Wall", "-Werror", "-o", program, text] });
    assert(built.outputSync().success);
    const [ours, theirs] = socketpair();
    makeInheritable(theirs);
    const client = new Deno.Command(program, { args: [`${theirs}`] }).spawn();
    close(theirs);

    awaitReadable(ours);
    const address = new Uint8Array(8);
    const { descriptors } = receiveDescriptors(ours, address, 1);
    const page = Number(new DataView(address.buffer).getBigUint64(0, true));
    using uffd = new Userfault(descriptors[0]!);
    const messages = new UserfaultMessages();

    send(ours, new TextEncoder().encode("f"));
    awaitReadable(uffd.fd);
    assertEquals(messages.read(uffd.fd), 1);
    assertEquals(messages.event(0), UFFD_EVENT.FORK);
    using child = new Userfault(messages.forkFd(0));
    awaitReadable(child.fd);
    assertEquals(messages.read(child.fd), 1);
    assertEquals([messages.event(0), messages.address(0)], [UFFD_EVENT.PAGEFAULT, page]);
    assertEquals(child.copy(page, SOURCE, PAGE), PAGE);
    awaitReadable(ours);
    const answer = new Uint8Array(1);
    recv(ours, answer);
    assertEquals(answer[0], 42);

    assertEquals(fillOutcome(child.copy(page, SOURCE, PAGE), PAGE), "gone");
    assertEquals(uffd.copy(page, SOURCE, PAGE), PAGE);
    close(ours);
    assertEquals((await client.status).code, 0);
    for (const result of [uffd.copy(page, SOURCE, PAGE), uffd.zeroPage(page, PAGE)]) {
      assertEquals([result, fillOutcome(result, PAGE)], [-ERRNO.ESRCH, "gone"]);
    }
    Deno.removeSync(directory, { recursive: true });
  },
});

Deno.test("a descriptor that is closed, or a capacity out of bounds, is refused", () => {
  const messages = new UserfaultMessages();
  assertEquals(assertThrows(() => messages.read(-1), SystemError).code, "EBADF");
  for (const capacity of [0, 65537, NaN]) {
    assertThrows(() => new UserfaultMessages(capacity), RangeError);
  }
});
