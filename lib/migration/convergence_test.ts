import { assertEquals } from "@std/assert";
import { Convergence } from "./convergence.ts";

const goal = { maxDowntime: 100, maxTime: 10_000, strategy: "force", confirm: "after" } as const;

Deno.test("a handover comes when what is left fits into the downtime", () => {
  const convergence = new Convergence(goal);
  assertEquals(convergence.decide(0, 10, 1000), "round");
  convergence.add({ bytes: 1_000_000, ms: 1000 });
  assertEquals(convergence.decide(1000, 10, 1000), "round");
  convergence.add({ bytes: 80_000, ms: 80 });
  assertEquals(convergence.predict(10, 1000), 15 + 3 + 80);
  assertEquals(convergence.decide(10_000, 10, 1000), "finalize");
});

Deno.test("what fits already is made less by rounds for as long as each is much shorter", () => {
  const convergence = new Convergence(goal);
  const rounds = [[60_000, 90], [60_000, 60], [40_000, 45], [30_000, 40]] as const;
  const decisions = rounds.map(([bytes, ms]) => {
    convergence.add({ bytes, ms });
    return convergence.decide(1000, 2, 1000);
  });
  assertEquals(decisions, ["round", "round", "round", "finalize"]);
});

Deno.test("there are no rounds for what takes no longer to copy than a handover takes anyway", () => {
  for (const [confirm, least] of [["after", 18], ["ahead", 8]] as const) {
    const convergence = new Convergence({ ...goal, confirm });
    convergence.add({ bytes: least * 1000 + 1, ms: 90 });
    assertEquals(convergence.decide(0, 10, 1000), "round");
    convergence.add({ bytes: least * 1000, ms: 20 });
    assertEquals(convergence.decide(0, 10, 1000), "finalize");
  }
});

Deno.test("the round trip counts one and a half times, or by half where it is confirmed ahead", () => {
  for (
    const [confirm, most] of [["after", 64], ["ahead", 194], ["auto", 194]] as const
  ) {
    const convergence = new Convergence({ ...goal, confirm });
    convergence.add({ bytes: 0, ms: 1 });
    assertEquals(convergence.decide(0, most, 1000), "finalize");
    assertEquals(convergence.decide(0, most + 2, 1000), "round");
  }
});

Deno.test("unless told, what is confirmed ahead is what would take too long otherwise", () => {
  const convergence = new Convergence({ ...goal, confirm: "auto" });
  convergence.add({ bytes: 0, ms: 1 });
  assertEquals([64, 66].map((rtt) => convergence.confirm(rtt, 1000)), ["after", "ahead"]);
  assertEquals([64, 66].map((rtt) => convergence.predict(rtt, 1000)), [99, 36]);
});

Deno.test("rounds that get no smaller, or no time left, have the strategy decide", () => {
  for (
    const [strategy, idle, late] of [
      ["wait", "round", "give up"],
      ["force", "force", "force"],
      ["cancel", "give up", "give up"],
    ] as const
  ) {
    const convergence = new Convergence({ ...goal, strategy });
    const round = { bytes: 1_000_000, ms: 1000 };
    convergence.add(round);
    assertEquals(convergence.decide(1000, 10, 1000), "round");
    assertEquals(convergence.decide(10_000, 10, 1000), late);
    for (let more = 0; more < 3; more++) convergence.add(round);
    assertEquals(convergence.decide(4000, 10, 1000), idle);
  }
});

Deno.test("nothing is known of the rate: what is to be copied may take for ever", () => {
  const convergence = new Convergence(goal);
  convergence.add({ bytes: 1, ms: 1 });
  assertEquals(convergence.decide(0, 0, 0), "round");
});

Deno.test("a program that is slowed is slowed ever more, and then given up", () => {
  const convergence = new Convergence({ ...goal, strategy: "throttle" });
  const round = { bytes: 1_000_000, ms: 1000 };
  for (let more = 0; more < 4; more++) convergence.add(round);
  assertEquals(convergence.decide(4000, 10, 1000), "throttle");
  assertEquals(convergence.throttle(), 500_000);
  assertEquals(convergence.decide(4000, 10, 1000), "round");
  convergence.add(round);
  assertEquals(convergence.decide(8000, 10, 1000), "throttle");
  assertEquals(convergence.throttle(), 250_000);
  for (let times = 0; times < 10; times++) convergence.throttle();
  assertEquals(convergence.throttle(), 65_536);
  assertEquals(convergence.decide(10_000, 10, 1000), "give up");
});
