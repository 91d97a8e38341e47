import { assert, assertEquals } from "@std/assert";
import { FlightWindow } from "./flight_window.ts";

const MIB = 1 << 20;

/**
 * What a link of a rate (bytes a ms) and a round-trip time (ms) does to requests of 1 MiB, as many
 * of which are in flight as the window lets: bytes that came in `duration` ms, and how much was in
 * flight at the end.
 */
function simulate(
  window: FlightWindow,
  link: { rate: number; rtt: number },
  duration: number,
  start = 0,
) {
  const { rate, rtt } = link;
  const queue: { sent: number; due: number }[] = [];
  let free = 0, now = start, bytes = 0;
  while (now < start + duration) {
    while (window.hasRoom(queue.length, queue.length * MIB)) {
      free = Math.max(free, now + rtt) + MIB / rate;
      queue.push({ sent: now, due: free });
    }
    const { sent, due } = queue.shift()!;
    now = due;
    bytes += MIB;
    window.answered(MIB, sent, now);
  }
  return { bytes, inFlight: window.bytes };
}

const links = [
  { rate: 1_000_000, rtt: 100 },
  { rate: 1_000_000, rtt: 10 },
  { rate: 1_000_000, rtt: 0.1 },
  { rate: 100_000, rtt: 25 },
  { rate: 10_000, rtt: 100 },
];
for (const link of links) {
  Deno.test(`a link of ${link.rate / 1e3} MB/s and ${link.rtt} ms is used up, and no more`, () => {
    const window = new FlightWindow({ requestBytes: MIB });
    const { bytes, inFlight } = simulate(window, link, 20_000);
    assert(bytes > 0.9 * link.rate * 20_000, `${bytes} bytes came`);
    const enough = link.rate * (link.rtt + MIB / link.rate);
    assert(inFlight < Math.max(enough * 2, 4 * MIB + 1), `${inFlight} bytes are in flight`);
    assert(Math.abs(window.rate / 1000 / link.rate - 1) < 0.1, `The rate is ${window.rate}`);
  });
}

Deno.test("the window is measured anew, and does not widen by its own queue", () => {
  const window = new FlightWindow({ requestBytes: MIB });
  const link = { rate: 100_000, rtt: 50 };
  const { bytes, inFlight } = simulate(window, link, 200_000);
  assert(bytes > 0.9 * link.rate * 200_000, `${bytes} bytes came`);
  assert(inFlight < 2 * link.rate * (link.rtt + 10), `${inFlight} bytes are in flight`);
});

Deno.test("a link that became longer is used up again", () => {
  const window = new FlightWindow({ requestBytes: MIB });
  simulate(window, { rate: 1_000_000, rtt: 5 }, 5000);
  simulate(window, { rate: 1_000_000, rtt: 50 }, 60_000, 5000);
  const { bytes } = simulate(window, { rate: 1_000_000, rtt: 50 }, 10_000, 65_000);
  assert(bytes > 0.9 * 1_000_000 * 10_000, `${bytes} bytes came`);
});

Deno.test("a number of workers is kept to", () => {
  const window = new FlightWindow({ requestBytes: MIB, workers: 3 });
  assertEquals(window.hasRoom(2, 100 * MIB), true);
  assertEquals(window.hasRoom(3, 1), false);
  for (let at = 0; at < 100; at++) window.answered(MIB, at, at + 1);
  assertEquals(window.hasRoom(3, 1), false);
});
