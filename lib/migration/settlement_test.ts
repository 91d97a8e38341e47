/** What each record comes to by itself, and that what is written is what the tables go on from. */
import { assertEquals } from "@std/assert";
import type { HandoverRecord, HandoverState } from "../backend/handover_record.ts";
import { roleOf, settle } from "./settlement.ts";
import { sourceAfterRestart, sourceMayWrite } from "./source_handover.ts";
import { targetAfterRestart, targetMayWrite } from "./target_handover.ts";

function record(state: HandoverState): HandoverRecord {
  const leech = "ab".repeat(16);
  return { state, epoch: 7, leech, peer: "telemap://there", time: 1, promoted: false };
}

const EXPECTED = {
  owner: ["owner", "owned", "owned"],
  receiving: ["target", "copy", "owned"],
  confirming: ["target", "undecided", "owned"],
  taken: ["target", "incomplete", "owned"],
  given: ["source", "fenced", "fenced"],
  released: ["source", "fenced", "fenced"],
} as const satisfies Record<HandoverState, readonly string[]>;

for (const [state, [role, verdict, alone]] of Object.entries(EXPECTED)) {
  const found = record(state as HandoverState);

  Deno.test(`a record of ${state} by itself is ${verdict}, and is left as it is`, () => {
    assertEquals(roleOf(found), role);
    assertEquals(settle(found), { verdict });
  });

  Deno.test(`a record of ${state} whose source is dead is ${alone}`, () => {
    const { verdict, write } = settle(found, { sourceIsDead: true });
    assertEquals([verdict, write !== undefined], [alone, role === "target"]);
    if (write === undefined) return;
    // Above whatever the source may have given it under.
    assertEquals(write, { state: "owner", epoch: 8, promoted: true });
    const target = targetAfterRestart({ ...found, ...write })!;
    assertEquals([targetMayWrite(target.state), target.actions], [true, ["own"]]);
    assertEquals(sourceMayWrite(sourceAfterRestart({ ...found, ...write })!), true);
  });
}
