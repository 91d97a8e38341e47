import { assert, assertEquals } from "@std/assert";
import { EventFd } from "../../ffi/epoll.ts";
import { close } from "../../ffi/file.ts";
import { openLibc } from "../../ffi/libc.ts";
import { pageSize } from "../../ffi/mman.ts";
import { send, socketpair } from "../../ffi/socket.ts";
import { sendDescriptors } from "../../ffi/socket_message.ts";
import { isUserfault } from "../../ffi/userfault_facts.ts";
import { openUserfault, probeUserfault } from "../../ffi/userfault_open.ts";
import { requiresThat, withReason } from "../../tests/requires.ts";
import { DeadlineError, ProtocolError } from "../backend/errors.ts";
import { Reactor } from "../net/reactor.ts";
import { formatDescription } from "./description.ts";
import { type Handoff, HandoffReceiver } from "./handoff_receiver.ts";

openLibc();

const needs = requiresThat(probeUserfault().features !== 0, "userfaultfd is not permitted");
const PAGE = pageSize();
const REGIONS = [{ address: 2 ** 32, size: PAGE, offset: 0, pageSize: PAGE }];
const TEXT = new TextEncoder().encode(formatDescription(REGIONS));

/** Runs a receiver at one end of a connection while `client` acts at the other, and what came. */
async function receive(
  handshakeMs: number,
  client: (fd: number) => Promise<void> | void,
): Promise<Handoff | Error> {
  using wake = new EventFd();
  using reactor = new Reactor(wake);
  const running = reactor.run();
  const [ours, theirs] = socketpair();
  const done = Promise.withResolvers<Handoff | Error>();
  new HandoffReceiver(reactor, ours, { backendSize: PAGE, handshakeMs, onDone: done.resolve });
  await client(theirs);
  const outcome = await done.promise;
  reactor.stop();
  await running;
  [ours, theirs].forEach(close);
  return outcome;
}

/** Lets the receiver take what was sent so far. */
function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1));
}

for (const first of [1, 7, TEXT.length - 1, TEXT.length]) {
  Deno.test({
    name: withReason(`a handoff arrives in pieces of ${first} bytes and the rest`, needs),
    ignore: needs.ignore,
    async fn() {
      const { fd } = openUserfault();
      const outcome = await receive(10_000, async (connection) => {
        sendDescriptors(connection, TEXT.subarray(0, first), [fd]);
        close(fd);
        await turn();
        if (first < TEXT.length) send(connection, TEXT.subarray(first));
      });
      assert(!(outcome instanceof Error), `${outcome}`);
      assertEquals(outcome.regions, REGIONS);
      assert(isUserfault(outcome.uffd));
      close(outcome.uffd);
    },
  });
}

Deno.test({
  name: withReason("a second descriptor in a later message is refused", needs),
  ignore: needs.ignore,
  async fn() {
    const { fd } = openUserfault();
    const outcome = await receive(10_000, async (connection) => {
      sendDescriptors(connection, TEXT.subarray(0, 5), [fd]);
      await turn();
      sendDescriptors(connection, TEXT.subarray(5), [fd]);
      close(fd);
    });
    assert(outcome instanceof ProtocolError, `${outcome}`);
    assertEquals(outcome.message, "The client sent more than one descriptor");
  },
});

Deno.test("a description that never ends is given up in time", async () => {
  const outcome = await receive(5, (connection) => void send(connection, TEXT.subarray(0, 9)));
  assert(outcome instanceof DeadlineError, `${outcome}`);
});
