import { assert, assertEquals, assertThrows } from "@std/assert";
import { requiresThat, withReason } from "../tests/requires.ts";
import {
  allowCores,
  allowedCores,
  countCores,
  currentCore,
  moveToCoreOf,
  oneCore,
} from "./affinity.ts";
import { openLibc } from "./libc.ts";
import { threadId } from "./process.ts";

openLibc();

const allowed = allowedCores();
assert(countCores(allowed) > 0);
const cores = Array.from({ length: allowed.length * 8 }, (_, core) => core)
  .filter((core) => (allowed[core >> 3]! & 1 << (core & 7)) !== 0);
const needs = requiresThat(countCores(allowed) > 1, "this host has one core only");

Deno.test({
  name: withReason("a thread goes to the core of another one, unless it may not", needs),
  ignore: needs.ignore,
  async fn() {
    const [first = 0, second = 0] = cores.slice(-2);
    const worker = new Worker(new URL("../tests/pinned_worker.ts", import.meta.url), {
      type: "module",
    });
    const pinned = Promise.withResolvers<number>();
    worker.onmessage = ({ data }) => pinned.resolve(data);
    worker.postMessage(second);
    const other = await pinned.promise;
    try {
      assertEquals(moveToCoreOf(threadId(), allowed), "there", "it is where it is");
      allowCores(oneCore(first));
      assertEquals(moveToCoreOf(other, oneCore(first)), "away", "it may not run there");
      assertEquals(moveToCoreOf(other, allowed, { stay: true }), "moved");
      assertEquals(allowedCores(), oneCore(second), "it stays there");
      // It is on the first core still, unless something else has just begun to run there.
      const goes = () => {
        allowCores(oneCore(first));
        allowCores(allowed);
        return moveToCoreOf(other, allowed) === "moved" && currentCore() === second;
      };
      assert(Array.from({ length: 20 }, goes).includes(true), "it did not move");
      assertEquals(allowedCores(), allowed, "it may leave again");
    } finally {
      allowCores(allowed);
      worker.terminate();
    }
  },
});

Deno.test("a thread that is gone is told", () => {
  assertThrows(() => moveToCoreOf(2 ** 30, allowed));
});
