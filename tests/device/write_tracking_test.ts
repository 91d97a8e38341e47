/**
 * Writes of a running WebAssembly instance are never lost, by any method that this host has.
 */
import { assert } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { probeTracking } from "../../lib/tracking/tracking_probe.ts";
import { requiresThat, withReason } from "../requires.ts";
import { hammerTracked } from "./write_hammer.ts";

openLibc();

const MIB = 1 << 20;

for (const { method, available, reason = "" } of probeTracking()) {
  // A memory is compared whole each time.
  const size = method === "compare" ? 4 * MIB : 16 * MIB;
  const needs = requiresThat(available, reason);
  for (const userModeOnly of method === "compare" ? [false] : [false, true]) {
    const mode = userModeOnly ? ", in user mode" : "";
    Deno.test({
      name: withReason(`no write is lost by ${method}${mode}`, needs),
      ignore: needs.ignore,
      fn: async () => {
        const seed = crypto.getRandomValues(new Uint32Array(1))[0]! | 1;
        console.log(`seed ${seed}`);
        const result = await hammerTracked({ method, size, duration: 600, seed, userModeOnly });
        console.log(JSON.stringify(result));
        assert(result.rounds > 2, "it was collected while it was written");
      },
    });
  }
}
