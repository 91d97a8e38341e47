import { assert, assertEquals } from "@std/assert";
import { cpuUsage } from "node:process";
import { setImmediate } from "node:timers";
import { EPOLL, Epoll, EventFd } from "../../ffi/epoll.ts";
import { close, Iovec } from "../../ffi/file.ts";
import { openLibc } from "../../ffi/libc.ts";
import { readv, socketpair, writev } from "../../ffi/socket.ts";
import { Mapping } from "../../ffi/mman.ts";
import { Reactor } from "./reactor.ts";

openLibc();

/** Runs a reactor with its wake descriptor until `run` is over. */
async function withReactor(
  blocking: boolean,
  run: (reactor: Reactor, wake: EventFd) => Promise<void>,
): Promise<void> {
  using wake = new EventFd();
  using reactor = new Reactor(wake, { blocking });
  const running = reactor.run();
  try {
    await run(reactor, wake);
  } finally {
    reactor.stop();
    await running;
  }
}

/** A moment so many ms from now, as deadlines count. */
function inMs(milliseconds: number): number {
  return performance.now() + milliseconds;
}

/** Holds this thread up, whatever the event loop has to do. */
function sleep(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

/** Answers when a deadline passed, in so many ms. */
function passes(reactor: Reactor, milliseconds: number): Promise<void> {
  return new Promise((resolve) => void reactor.addDeadline(inMs(milliseconds), resolve));
}

for (const blocking of [false, true]) {
  const how = blocking ? "blocking" : "not blocking";

  Deno.test(`Reactor, ${how}, calls deadlines in order, not before their time`, async () => {
    using wake = new EventFd();
    using reactor = new Reactor(wake, { blocking });
    const called: number[] = [];
    const began = performance.now();
    for (const milliseconds of [30, 10, 20]) {
      reactor.addDeadline(began + milliseconds, () => {
        assert(performance.now() - began >= milliseconds);
        called.push(milliseconds);
      });
    }
    const cancelled = reactor.addDeadline(began + 15, () => called.push(15));
    reactor.addDeadline(began + 5, () => reactor.cancelDeadline(cancelled));
    reactor.addDeadline(began + 40, () => reactor.stop());
    await reactor.run();
    assertEquals(called, [10, 20, 30]);
  });

  Deno.test(`Reactor, ${how}, calls who registered, with the events`, async () => {
    using wake = new EventFd();
    using reactor = new Reactor(wake, { blocking });
    const [one, other] = socketpair();
    using memory = Mapping.map({ length: 4096 });
    const iovec = new Iovec(1);
    iovec.set(0, memory.address, 3);
    const seen: string[] = [];
    reactor.add(other, EPOLL.OUT, (events) => {
      seen.push(`out ${events}, ${writev(other, iovec, 1)} bytes`);
      reactor.remove(other);
    });
    reactor.add(one, 0, (events) => {
      seen.push(`in ${events}, ${readv(one, iovec, 1)} bytes`);
      if (events === EPOLL.IN) close(other);
      else reactor.stop();
    });
    reactor.addDeadline(inMs(10), () => reactor.modify(one, EPOLL.IN));
    await reactor.run();
    close(one);
    assertEquals(seen, [
      `out ${EPOLL.OUT}, 3 bytes`,
      `in ${EPOLL.IN}, 3 bytes`,
      `in ${EPOLL.IN | EPOLL.HUP}, 0 bytes`,
    ]);
  });
}

Deno.test("Reactor calls deadlines that passed together in their order, and none that is cancelled", async () => {
  using wake = new EventFd();
  using reactor = new Reactor(wake);
  const called: number[] = [];
  const passed = inMs(-100);
  for (const late of [30, 10, 20]) {
    reactor.addDeadline(passed + late, () => called.push(late));
  }
  const cancelled = reactor.addDeadline(passed + 15, () => called.push(15));
  reactor.addDeadline(passed + 5, () => reactor.cancelDeadline(cancelled));
  reactor.addDeadline(passed + 40, () => reactor.stop());
  await reactor.run();
  assertEquals(called, [10, 20, 30]);
});

Deno.test("Reactor keeps a deadline that is set while it sleeps", async () => {
  await withReactor(false, async (reactor) => {
    await new Promise((resolve) => setTimeout(resolve, 20));
    await passes(reactor, 10);
    reactor.addDeadline(inMs(60_000), () => {});
    await new Promise((resolve) => setTimeout(resolve, 20));
    await passes(reactor, 10);
  });
});

Deno.test("Reactor, blocking, lets the event loop run while something is in flight", async () => {
  using wake = new EventFd();
  using reactor = new Reactor(wake, { blocking: true });
  reactor.beginAsync();
  let ran = false;
  setTimeout(() => {
    ran = true;
    reactor.endAsync();
    // Blocks after a turn of the event loop, until the deadline.
    setTimeout(() => ran = false, 20);
    reactor.addDeadline(inMs(50), () => reactor.stop());
  }, 5);
  reactor.addDeadline(inMs(10_000), () => reactor.stop());
  await reactor.run();
  assert(ran);
  await new Promise((resolve) => setTimeout(resolve, 1));
});

Deno.test("Reactor, blocking, lets the event loop run from a signal to its message", async () => {
  using wake = new EventFd();
  using reactor = new Reactor(wake, { blocking: true });
  let messages = 0;
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => {
    reactor.messageArrived();
    if (++messages === 3) reactor.stop();
  };
  for (let index = 0; index < 3; index++) {
    reactor.addDeadline(inMs(10 * index), () => {
      port2.postMessage(index);
      wake.signal();
    });
  }
  const late = reactor.addDeadline(inMs(10_000), () => reactor.stop());
  await reactor.run();
  reactor.cancelDeadline(late);
  assertEquals(messages, 3);
  port1.close();
  port2.close();
});

Deno.test("Reactor, blocking, lets what came with its wake-up settle before it blocks", async () => {
  using wake = new EventFd();
  using reactor = new Reactor(wake, { blocking: true });
  using other = new Epoll();
  other.add(wake.fd, EPOLL.IN);
  const settle = async () => {
    // A wait like the reactor's own, so that both end in one turn of the event loop.
    await other.waitAsync(-1);
    reactor.endAsync();
    for (let hop = 0; hop < 10; hop++) await undefined;
    reactor.stop();
  };
  reactor.beginAsync();
  const settling = settle();
  const late = reactor.addDeadline(inMs(2000), () => reactor.stop());
  const running = reactor.run();
  await new Promise((resolve) => setTimeout(resolve, 20));
  reactor.messageArrived();
  wake.signal();
  sleep(50);
  await settling;
  assert(performance.now() < late.at, "It blocked before");
  reactor.cancelDeadline(late);
  await running;
});

Deno.test("Reactor, blocking, counts a signal for a deadline as no message", async () => {
  using wake = new EventFd();
  using reactor = new Reactor(wake, { blocking: true });
  reactor.beginAsync();
  let turns = 0;
  setTimeout(() => {
    // Set while the reactor sleeps off this thread, which it has to be told.
    reactor.addDeadline(inMs(5), () => {
      reactor.endAsync();
      setTimeout(() => turns++, 20);
      reactor.addDeadline(inMs(50), () => reactor.stop());
    });
  }, 20);
  await reactor.run();
  assertEquals(turns, 0, "It blocks again");
  await new Promise((resolve) => setTimeout(resolve, 1));
});

/** Serves a descriptor that is always ready by `ready`, until a deadline stops the reactor. */
async function serveReady(
  atRest: boolean,
  ready: (reactor: Reactor) => void,
): Promise<void> {
  using wake = new EventFd();
  using reactor = new Reactor(wake);
  reactor.atRest = () => atRest;
  const [one, other] = socketpair();
  reactor.add(one, EPOLL.OUT, () => ready(reactor));
  reactor.addDeadline(inMs(10_000), () => reactor.stop());
  await reactor.run();
  close(one);
  close(other);
}

for (const atRest of [false, true]) {
  const [how, where] = atRest ? ["at rest", "here"] : ["not at rest", "elsewhere"];
  Deno.test(`Reactor, ${how}, waits ${where}`, async () => {
    let events = 0, turned = false;
    const turnedAt: boolean[] = [];
    await serveReady(atRest, (reactor) => {
      turnedAt.push(turned);
      if (++events === 3) reactor.stop();
      setImmediate(() => turned = true);
    });
    assertEquals(turnedAt, [false, !atRest, !atRest]);
    await new Promise((resolve) => setImmediate(resolve));
  });
}

Deno.test("Reactor, at rest, lets the event loop run now and then while events come", async () => {
  let events = 0, called = false;
  const timer = setTimeout(() => called = true, 1);
  await serveReady(true, (reactor) => {
    if (called || ++events === 1000) reactor.stop();
    sleep(1);
  });
  clearTimeout(timer);
  assert(called);
});

Deno.test("Reactor, at rest, lets the event loop run when no event comes", async () => {
  await withReactor(false, async (reactor) => {
    reactor.atRest = () => true;
    const [one, other] = socketpair();
    reactor.add(one, EPOLL.OUT, () => reactor.modify(one, 0));
    const began = performance.now();
    await new Promise((resolve) => setTimeout(resolve, 5));
    assert(performance.now() - began < 1000);
    reactor.remove(one);
    close(one);
    close(other);
  });
});

Deno.test("Reactor uses no CPU while idle", async () => {
  await withReactor(false, async (reactor) => {
    reactor.addDeadline(inMs(60_000), () => {});
    await passes(reactor, 10);
    const before = cpuUsage();
    await passes(reactor, 500);
    const { user, system } = cpuUsage(before);
    assert(user + system < 50_000, `${user + system} us of work in 500 ms`);
  });
});
