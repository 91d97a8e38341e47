/**
 * Tracks the writes of a running WebAssembly instance by what this kernel has. Runs inside the
 * virtual machine (see `../vm_test.ts`).
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { openLibc } from "../../../ffi/libc.ts";
import { probeTracking } from "../../../lib/tracking/tracking_probe.ts";
import { trackMemory } from "../../../mod.ts";
import { hammerTracked } from "../../device/write_hammer.ts";

openLibc();

Deno.test("Linux 6.1 tracks writes by faults, and says what scanning needs", () => {
  const [scan, faults] = probeTracking();
  assertEquals([scan!.method, scan!.available], ["async-wp", false]);
  assert(scan!.reason!.includes("WP_ASYNC: Linux 6.7 has that, this is 6.1"), scan!.reason);
  assertEquals(faults, { method: "wp-faults", available: true });
});

for (const userModeOnly of [false, true]) {
  const mode = userModeOnly ? " in user mode" : "";
  Deno.test(`no write is lost${mode} by what tracks best`, async () => {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0]! | 1;
    console.log(`seed ${seed}`);
    const result = await hammerTracked({ size: 1 << 20, duration: 4000, seed, userModeOnly });
    console.log(JSON.stringify(result));
    assertEquals(result.method, "wp-faults");
    assert(result.rounds > 2 && result.writes > 0, "it was collected while it was written");
  });
}

Deno.test("what was written is collected across the mappings that a memory grew into", async () => {
  const memory = new WebAssembly.Memory({ initial: 3 });
  await using tracker = await trackMemory(memory);
  for (let time = 0; time < 3; time++) {
    memory.grow(5);
    const bytes = new Uint8Array(memory.buffer);
    for (let round = 0; round < 2; round++) {
      bytes.fill(round + 1);
      assertEquals([...await tracker.dirty()], [{ offset: 0, length: bytes.length }]);
      assertEquals((await tracker.dirty()).count, 0);
    }
  }
});
