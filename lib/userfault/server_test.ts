import { assertEquals } from "@std/assert";
import { EventFd } from "../../ffi/epoll.ts";
import { openLibc } from "../../ffi/libc.ts";
import { Mapping } from "../../ffi/mman.ts";
import { openUserfault, probeUserfault } from "../../ffi/userfault_open.ts";
import { UFFD_REGISTER, Userfault } from "../../ffi/userfaultfd.ts";
import { requiresThat, withReason } from "../../tests/requires.ts";
import { readOnThread } from "../../tests/touch.ts";
import type { Backend } from "../backend/backend.ts";
import { openPattern, Pattern } from "../backend/pattern.ts";
import { Reactor } from "../net/reactor.ts";
import { SlotPool } from "../net/slot_pool.ts";
import { UserfaultServer } from "./server.ts";

openLibc();

const PAGE = 4096;
const LARGE = 128 << 10;

const probe = probeUserfault();
const needs = requiresThat(probe.features !== 0, probe.ways.at(-1)?.reason ?? "");

/** A pattern that answers later. */
function laterPattern(size: number): Backend {
  const pattern = openPattern({ size, seed: 5 });
  return {
    ...{ size, blockSize: 1, durable: true, readOnly: true },
    readAt: async (buffer, offset) =>
      await Promise.resolve().then(() => pattern.readAt(buffer, offset)),
    writeAt: (buffer, offset) => pattern.writeAt(buffer, offset),
    flush: () => {},
    close: () => {},
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

Deno.test({
  name: withReason("regions of different page sizes are served by one userfaultfd", needs),
  ignore: needs.ignore,
  async fn() {
    using mapping = Mapping.map({ length: 12 * LARGE });
    const start = Math.ceil(mapping.address / LARGE) * LARGE;
    const regions = [
      { address: start, size: LARGE, offset: 0, pageSize: PAGE },
      { address: start + 2 * LARGE, size: 8 * LARGE, offset: LARGE, pageSize: LARGE },
    ];
    using wake = new EventFd();
    using reactor = new Reactor(wake);
    using pool = new SlotPool();
    const { fd } = openUserfault();
    const uffd = new Userfault(fd);
    for (const { address, size } of regions) uffd.register(address, size, UFFD_REGISTER.MISSING);
    const server = new UserfaultServer(reactor, pool, fd, laterPattern(9 * LARGE), { regions });
    const running = reactor.run();
    for (const { address, size, offset, pageSize } of regions) {
      for (let at = 0; at < size; at += pageSize) {
        const found = await readOnThread(address + at, pageSize);
        assertEquals(new Pattern(5).findDifference(found, offset + at), -1, `at ${offset + at}`);
      }
    }
    const { copiedPages, readBytes } = server.statistics;
    assertEquals({ copiedPages, readBytes }, {
      copiedPages: LARGE / PAGE + 8,
      readBytes: 9 * LARGE,
    });
    assertEquals(server.owes, false);
    reactor.stop();
    await running;
    server.close();
    assertEquals(pool.lent, 0);
  },
});
