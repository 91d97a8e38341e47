/**
 * `telemap migrate demo`: a region moves while it is written, and a script is told how that went.
 */
import { assert, assertEquals } from "@std/assert";
import { requires, withReason } from "../requires.ts";
import { telemap } from "../telemap_process.ts";

const needs = requires("root", "/dev/fuse", "/dev/loop-control");

Deno.test({
  name: withReason("the demo of a migration tells a script what it came to, and ends", needs),
  ignore: needs.ignore,
  async fn() {
    const { code, out, err } = await telemap(["migrate", "demo", "--json"]);
    assertEquals([code, err], [0, ""]);
    const { event, downtimeMs, rounds, receivedBytes, moved, count, ...more } = JSON.parse(out);
    assertEquals([event, more], ["done", {}]);
    assert(downtimeMs > 0 && rounds >= 1 && receivedBytes > 0, out);
    // It wrote here, and then there.
    assert(moved > 0 && count > moved, out);
  },
});
