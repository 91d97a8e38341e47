import { assert, assertEquals } from "@std/assert";
import { type SimulatedLink, SimulatedRemote } from "../../tests/simulated_remote.ts";
import { FlightWindow } from "./flight_window.ts";

const MIB = 1 << 20;
const GB_S = 1_000_000, GBIT_S = 125_000;

function open(
  link: SimulatedLink,
  besideUrgent = false,
): { window: FlightWindow; remote: SimulatedRemote } {
  const window = new FlightWindow({ requestBytes: MIB, besideUrgent });
  return { window, remote: new SimulatedRemote(window, link) };
}

/** Milliseconds that so many bytes take from the first request on. */
function timeOf(link: SimulatedLink, bytes: number, besideUrgent = false): number {
  const { remote } = open(link, besideUrgent);
  remote.wanted = bytes;
  remote.run(Infinity);
  return remote.now;
}

const links = [
  { rate: GB_S, rtt: 100 },
  { rate: GB_S, rtt: 25 },
  { rate: GB_S, rtt: 5 },
  { rate: GB_S, rtt: 0.1 },
  { rate: 4 * GB_S, rtt: 25 },
  { rate: GBIT_S, rtt: 25 },
  { rate: 10_000, rtt: 100 },
];
for (const link of links) {
  Deno.test(`a link of ${link.rate / 1e3} MB/s and ${link.rtt} ms is used up, and no more`, () => {
    const { window, remote } = open(link);
    const bytes = remote.run(20_000);
    assert(bytes > 0.93 * link.rate * 20_000, `${bytes} bytes came`);
    assert(Math.abs(window.rate / 1000 / link.rate - 1) < 0.1, `The rate is ${window.rate}`);
    const queues: number[] = [];
    for (let at = 20_000; at < 40_000; at += 517) {
      remote.run(at);
      queues.push(remote.urgent() - link.rtt);
    }
    queues.sort((a, b) => a - b);
    const middle = queues[queues.length >> 1]!, most = queues.at(-1)!;
    // Two requests are in flight at least.
    const least = 2.2 * MIB / link.rate, share = link.rtt / 12;
    assert(middle < Math.max(5, least, share), `${middle} ms of queue as a rule`);
    assert(most < Math.max(12, least), `${most} ms of queue at most`);
  });
}

for (const link of links.filter(({ rate }) => rate >= GBIT_S && rate <= GB_S)) {
  const { rate, rtt } = link;
  Deno.test(`a queue of 40 ms is kept where it is asked for, at ${rate / 1e3} MB/s and ${rtt} ms`, () => {
    const window = new FlightWindow({ requestBytes: MIB, queueMs: 40 });
    const remote = new SimulatedRemote(window, link);
    remote.run(20_000);
    const queues: number[] = [];
    for (let at = 20_000; at < 40_000; at += 517) {
      remote.run(at);
      queues.push(remote.urgent() - rtt);
    }
    const middle = queues.sort((a, b) => a - b)[queues.length >> 1]!;
    assert(middle > 30 && middle < 50, `${middle} ms of queue as a rule`);
  });
}

for (const rtt of [5, 25, 50, 100]) {
  Deno.test(`over ${rtt} ms the window is open after one round trip more`, () => {
    const took = timeOf({ rate: GB_S, rtt }, 512 * MIB);
    const least = 512 * MIB / GB_S;
    assert(took < least + 2 * rtt + 10, `512 MiB took ${took} ms, and ${least} at the least`);
  });
}

for (const rtt of [5, 25, 50, 100]) {
  Deno.test(`over ${rtt} ms the window is open at once where that holds nobody up`, () => {
    const took = timeOf({ rate: GB_S, rtt }, 512 * MIB, true);
    const least = 512 * MIB / GB_S;
    assert(took < least + rtt + 5, `512 MiB took ${took} ms, and ${least} at the least`);
  });
}

for (const besideUrgent of [false, true]) {
  Deno.test(`what is expected is requested at once, up to 32 MiB (${besideUrgent})`, () => {
    const window = new FlightWindow({ requestBytes: MIB, besideUrgent }), piece = 64 << 10;
    const begin = (expected: boolean) => {
      let requests = 0;
      while (window.delay(requests, requests * piece, 0, expected) === 0) {
        window.began(piece, 0);
        requests++;
      }
      return requests;
    };
    assertEquals(begin(true), 32 * MIB / piece);
    assertEquals(begin(false), 1, "all others wait for that");
  });
}

Deno.test("who asks first waits for no large queue", () => {
  for (const rtt of [0, 1, 5, 10, 25, 50, 100]) {
    for (const at of [12, 15, 20, 25, 30]) {
      const { remote } = open({ rate: GB_S, rtt });
      remote.run(at);
      const queue = remote.urgent() - rtt;
      assert(queue < 10 && (rtt < 25 || queue < 6), `${queue} ms at ${at} ms over ${rtt} ms`);
    }
  }
});

Deno.test("before the first answer little is sent at once, and not very much in all", () => {
  const { remote } = open({ rate: GB_S, rtt: 10_000 });
  remote.run(10);
  assert(remote.inFlight <= 7 * MIB, `${remote.inFlight} bytes at once`);
  remote.run(9999);
  assertEquals(remote.inFlight, 32 * MIB);
});

Deno.test("answers that are late for want of CPU do not close the window", () => {
  for (const rtt of [25, 100]) {
    for (let seed = 0; seed < 20; seed++) {
      const late = timeOf({ rate: GB_S, rtt, cpu: 0.9, late: 15, seed }, 1024 * MIB);
      const least = 1024 * MIB / GB_S + 2 * rtt;
      assert(late < 1.3 * least, `${late} ms instead of ${least} with seed ${seed} over ${rtt} ms`);
    }
  }
});

Deno.test("where the CPU is the limit, the window holds what that can do", () => {
  for (const rtt of [0, 25, 100]) {
    for (let seed = 0; seed < 10; seed++) {
      const took = timeOf({ rate: 4 * GB_S, rtt, cpu: 1.3, late: 3, seed }, 512 * MIB);
      const least = 512 * 1.3 + 2 * rtt;
      assert(
        took < 1.15 * least,
        `${took} ms instead of ${least} with seed ${seed} over ${rtt} ms`,
      );
    }
  }
});

Deno.test("the latency is measured anew, and does not grow by the window's own queue", () => {
  const { window, remote } = open({ rate: 100_000, rtt: 50 });
  const bytes = remote.run(200_000);
  assert(bytes > 0.9 * 100_000 * 200_000, `${bytes} bytes came`);
  assert(window.latency < 50 + 2 * MIB / 100_000, `The latency is ${window.latency}`);
});

Deno.test("a link that became longer, faster or slower is used up again", () => {
  const changes: SimulatedLink[] = [
    { rate: GB_S, rtt: 50 },
    { rate: 4 * GB_S, rtt: 50 },
    { rate: GBIT_S, rtt: 50 },
    { rate: GBIT_S, rtt: 5 },
  ];
  const { remote } = open({ rate: GB_S, rtt: 5 });
  for (const link of changes) {
    remote.run(remote.now + 60_000);
    remote.become(link);
    remote.run(remote.now + 60_000);
    const bytes = remote.run(remote.now + 10_000);
    assert(bytes > 0.9 * link.rate * 10_000, `${bytes} bytes came over ${link.rtt} ms`);
  }
});

Deno.test("large requests are two at a time at the least", () => {
  const window = new FlightWindow({ requestBytes: 32 * MIB });
  assertEquals(window.delay(0, 0, 0), 0);
  window.began(32 * MIB, 0);
  assertEquals(window.delay(1, 32 * MIB, 0), 0);
  window.began(32 * MIB, 0);
  assertEquals(window.delay(2, 64 * MIB, 1), Infinity);
});

Deno.test("a number of workers is kept to", () => {
  const window = new FlightWindow({ requestBytes: MIB, workers: 3 });
  assertEquals(window.delay(2, 100 * MIB, 0), 0);
  assertEquals(window.delay(3, 1, 0), Infinity);
  for (let at = 0; at < 100; at++) window.answered(MIB, at, at + 1);
  assertEquals(window.delay(2, 100 * MIB, 100), 0);
  assertEquals(window.delay(3, 1, 100), Infinity);
});
