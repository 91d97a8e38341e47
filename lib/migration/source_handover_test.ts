import { assertEquals } from "@std/assert";
import { UNRECORDED } from "../backend/handover_record.ts";
import {
  outcomeOf,
  type SourceAction,
  sourceAfterRestart,
  type SourceEvent,
  sourceMayWrite,
  type SourceState,
  stepSource,
} from "./source_handover.ts";

const OFFER = { leech: "a".repeat(32), epoch: 1 };
const OTHER = { leech: "b".repeat(32), epoch: 2 };

/** Puts events to a source from its start on; answers the last state and the last actions. */
function run(...events: SourceEvent[]): [SourceState["at"], readonly SourceAction[]] {
  let state = sourceAfterRestart(UNRECORDED)!;
  let actions: readonly SourceAction[] = [];
  for (const event of events) ({ state, actions } = stepSource(state, event));
  return [state.at, actions];
}

const suspend = { type: "suspend", offer: OFFER } as const;
const suspended = { type: "suspended" } as const;
const confirm = { type: "confirm", offer: OFFER } as const;
const recorded = { type: "recorded" } as const;
const done = { type: "done", offer: OFFER } as const;
const offered = [suspend, suspended] as const;
const given = [...offered, confirm, recorded] as const;

Deno.test("a source suspends, offers, commits and lets go", () => {
  assertEquals(run(suspend), ["suspending", ["suspend", "wait"]]);
  assertEquals(run(...offered), ["offered", ["wake"]]);
  assertEquals(run(...offered, suspend), ["offered", ["answer"]]);
  assertEquals(run(...offered, confirm), ["committing", [{ record: "given" }, "wait"]]);
  assertEquals(run(...given), ["given", ["fence", "wake"]]);
  assertEquals(run(...given, confirm), ["given", ["answer"]]);
  assertEquals(run(...given, done), ["releasing", [{ record: "released" }, "wait"]]);
  assertEquals(run(...given, done, recorded), ["released", ["wake"]]);
});

Deno.test("a source takes an offer back until it commits, and burns its epoch", () => {
  const ways: SourceEvent[] = [
    { type: "takeBack" },
    { type: "deadline", epoch: 1 },
    { type: "cancel", offer: OFFER },
  ];
  const refused = { refuse: "EPERM" } as const;
  for (const way of ways) {
    assertEquals(run(suspend, way)[0], "resuming");
    assertEquals(run(...offered, way)[0], "resuming");
    assertEquals(run(...offered, way, confirm), ["resuming", [refused]]);
    const resumed = [...offered, way, { type: "resumed" }] as const;
    assertEquals(run(...resumed), ["serving", ["wake"]]);
    assertEquals(run(...resumed, suspend), ["serving", [refused]]);
    assertEquals(run(...resumed, { type: "suspend", offer: OTHER })[0], "suspending");
    assertEquals(run(...offered, confirm, way)[0], "committing");
    assertEquals(run(...given, way)[0], "given");
  }
  assertEquals(run(...offered, { type: "deadline", epoch: 7 })[0], "offered");
});

Deno.test("a commit whose record failed is not taken back, but recorded again", () => {
  const failed = [...offered, confirm, { type: "recordFailed" }] as const;
  assertEquals(run(...failed), ["committing", [{ record: "given" }]]);
  assertEquals(run(...failed, { type: "takeBack" }), ["committing", [{ refuse: "EPERM" }]]);
  assertEquals(run(...failed, recorded)[0], "given");
});

Deno.test("a source serves one offer at a time", () => {
  const other = { type: "suspend", offer: OTHER } as const;
  assertEquals(run(suspend, other), ["suspending", [{ refuse: "EBUSY" }]]);
  assertEquals(run(...offered, other), ["offered", [{ refuse: "EBUSY" }]]);
  assertEquals(run(...offered, { ...confirm, offer: OTHER }), ["offered", [{ refuse: "EPERM" }]]);
  assertEquals(run(...given, other), ["given", [{ refuse: "EPERM" }]]);
});

Deno.test("an epoch that was asked about while it was not offered is never given", () => {
  const asked = { type: "outcome", offer: OFFER } as const;
  assertEquals(run(asked), ["serving", ["answer"]]);
  assertEquals(run(asked, suspend), ["serving", [{ refuse: "EPERM" }]]);
  assertEquals(run(suspend, asked, suspended)[0], "offered");
});

Deno.test("a piece that is asked for before its offer waits for it", () => {
  const last = { type: "last", offer: OFFER } as const;
  assertEquals(run(last), ["serving", ["wait"]]);
  assertEquals(run(suspend, last), ["suspending", ["wait"]]);
  assertEquals(run(...offered, last), ["offered", ["answer"]]);
  assertEquals(run(...given, last), ["given", ["answer"]]);
  assertEquals(run(suspend, { type: "takeBack" }, last), ["resuming", [{ refuse: "EPERM" }]]);
});

Deno.test("after a restart the record decides", () => {
  const record = { ...UNRECORDED, epoch: 3, leech: OFFER.leech };
  const given = sourceAfterRestart({ ...record, state: "given" })!;
  assertEquals(outcomeOf(given), { state: "given", epoch: 3, leech: OFFER.leech });
  assertEquals(sourceMayWrite(given), false);
  assertEquals(sourceAfterRestart(record), { at: "serving", epoch: 3 });
  assertEquals(sourceAfterRestart({ ...record, state: "confirming" }), undefined);
});
