/** The source is let go of once both sides agree on the root digest of what was given. */
import { assertEquals, assertRejects } from "@std/assert";
import { createHash } from "node:crypto";
import { openLibc } from "../../ffi/libc.ts";
import { IntegrityError, RemoteError } from "../../lib/backend/errors.ts";
import { digestOf } from "../../lib/chunk/digests.ts";
import type { FinalizeOptions } from "../../lib/migration/leecher_core.ts";
import { SeederClient } from "../../lib/migration/seeder_client.ts";
import { connectTelemap } from "../../lib/rpc/client.ts";
import { pattern } from "../backend_model.ts";
import { inTime } from "../in_time.ts";
import { MovingRegion } from "../defects/moving_region.ts";

openLibc();

const CHUNK = 4096, SIZE = 70 * CHUNK + 5;
const GOAL: FinalizeOptions = {
  ...{ maxDowntime: 1000, maxTime: 60_000, offerMs: 10_000, confirm: "after", strategy: "wait" },
};

/** As the documentation has it. */
function rootOf(content: Uint8Array): string {
  const hash = createHash("sha256");
  const sizes = new DataView(new ArrayBuffer(16));
  sizes.setBigUint64(0, BigInt(SIZE), true);
  sizes.setBigUint64(8, BigInt(CHUNK), true);
  hash.update(sizes);
  for (let at = 0; at < SIZE; at += CHUNK) hash.update(digestOf(content.subarray(at, at + CHUNK)));
  return hash.digest("hex");
}

Deno.test("both sides agree on the root digest of what was given, whatever was written since", async () => {
  const content = pattern(SIZE, 1);
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  moving.store.bytes.set(content);
  await using target = await moving.leech();
  await inTime(target.core.finalize(GOAL));
  assertEquals(target.core.metrics.root, "");
  await target.region.writeAt(pattern(CHUNK, 2), CHUNK);
  await inTime(target.core.complete());
  const { root, compared } = target.core.metrics;
  assertEquals([root, compared.left], [rootOf(content), 1]);
});

Deno.test("a source whose root digest is another one is not let go of", async () => {
  for (const type of ["digests", "root"] as const) {
    await using moving = new MovingRegion({
      ...{ size: SIZE, chunkSize: CHUNK },
      tamper(reply) {
        if (reply.type !== type) return reply;
        // Of chunk 1, which is not compared by itself as it was written here.
        if (reply.type === "digests" && reply.chunk === 0) reply.digests[16]! ^= 1;
        if (reply.type === "root") reply.root[31]! ^= 0x80;
        return reply;
      },
    });
    await using target = await moving.leech();
    await inTime(target.core.finalize(GOAL));
    await target.region.writeAt(pattern(CHUNK, 2), CHUNK);
    await assertRejects(() => inTime(target.core.complete()), IntegrityError, "root digest");
    assertEquals([moving.seeder.stage, target.core.isOver], ["given", false]);
  }
});

Deno.test("nobody is told a root digest but who was given the region, under its epoch", async () => {
  await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
  await using target = await moving.leech();
  await using remote = await connectTelemap(moving.server.url, { log: () => {} });
  const stranger = new SeederClient(remote, new Uint8Array(16).fill(7));
  await assertRejects(() => stranger.root({ epoch: 0 }), RemoteError, "it was not");
  await inTime(target.core.finalize(GOAL));
  await assertRejects(() => stranger.root({ epoch: 1 }), RemoteError, "it was not");
});
