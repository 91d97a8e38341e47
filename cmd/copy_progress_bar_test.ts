import { assertEquals } from "@std/assert";
import { progressLine } from "./copy_progress_bar.ts";

const MIB = 2 ** 20;

Deno.test("the line tells share, rate and time that is left", () => {
  assertEquals(
    progressLine("copy", { progressBar: "##--", value: 512 * MIB, max: 1024 * MIB, time: 4000 }),
    "copy   [##--]  50%  128 MiB/s  00:04 left",
  );
});

Deno.test("slow and long copies are told exactly too", () => {
  assertEquals(
    progressLine("verify", { progressBar: "----", value: MIB, max: 10001 * MIB, time: 2000 }),
    "verify [----]   0%  0.5 MiB/s  05:33:20 left",
  );
});

Deno.test("nothing is foretold of a copy that just began", () => {
  assertEquals(
    progressLine("copy", { progressBar: "----", value: 0, max: MIB, time: 0 }),
    "copy   [----]   0%  0.0 MiB/s  --:-- left",
  );
});
