/** The client of a seeder over the native wire: what it asks, what it takes, what it refuses. */
import { assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { ProtocolError, RemoteError, TelemapError } from "../../lib/backend/errors.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import { RangeList } from "../../lib/backend/range_list.ts";
import { decodeRequest, encodeReply } from "../../lib/migration/message_codec.ts";
import type { SeederReply, SeederRequest } from "../../lib/migration/messages.ts";
import { SeederClient } from "../../lib/migration/seeder_client.ts";
import { connectTelemap } from "../../lib/rpc/client.ts";
import { pattern } from "../backend_model.ts";
import { TestWireServer } from "../rpc/wire_server.ts";

openLibc();

const LEECH = pattern(16, 1), TRACK_ID = pattern(16, 2);
const RANGES = new RangeList();
RANGES.add(0, 4096);

const REPLIES: Record<SeederRequest["type"], SeederReply> = {
  track: {
    ...{ type: "tracked", trackId: TRACK_ID, epoch: 4, size: 1 << 20, chunkSize: 4096 },
    generation: 0,
  },
  dirty: { type: "dirty", generation: 2, ranges: RANGES, more: false, written: 5000 },
  suspend: {
    ...{ type: "offer", generation: 3, epoch: 5, ranges: RANGES, more: false },
    ...{ prepareMs: 3, suspendMs: 1.5, flushMs: 0.25 },
  },
  last: { type: "piece", index: 3, content: pattern(1 << 20, 3) },
  confirm: { type: "outcome", state: "given", epoch: 5, leech: LEECH },
  outcome: { type: "outcome", state: "serving", epoch: 4, leech: new Uint8Array(16) },
  done: { type: "outcome", state: "released", epoch: 5, leech: LEECH },
  cancel: { type: "outcome", state: "serving", epoch: 5, leech: new Uint8Array(16) },
  throttle: { type: "outcome", state: "serving", epoch: 4, leech: new Uint8Array(16) },
  digests: { type: "digests", chunk: 7, digests: pattern(32, 4) },
  root: { type: "root", root: pattern(32, 5) },
};

/** Each request of a client once. */
function calls(seeder: SeederClient): Record<SeederRequest["type"], () => Promise<SeederReply>> {
  return {
    track: () => seeder.track({ chunkSize: 4096 }),
    dirty: () => seeder.dirty({ trackId: TRACK_ID, generation: 1 }),
    suspend: () => seeder.suspend({ trackId: TRACK_ID, generation: 2, epoch: 5, timeout: 9000 }),
    last: () => seeder.last({ epoch: 5, index: 0 }),
    confirm: () => seeder.confirm({ epoch: 5 }),
    outcome: () => seeder.outcome({ epoch: 5 }),
    done: () => seeder.done({ epoch: 5 }),
    cancel: () => seeder.cancel({ epoch: 5 }),
    throttle: () => seeder.throttle({ rate: 1 << 20, milliseconds: 30_000 }),
    digests: () => seeder.digests({ chunk: 7, count: 2 }),
    root: () => seeder.root({ epoch: 5 }),
  };
}

async function withSeeder(
  answer: (request: SeederRequest) => SeederReply,
  run: (seeder: SeederClient) => Promise<void>,
): Promise<void> {
  await using backend = openMemory({ size: 1 << 20 });
  const control = (message: Uint8Array) =>
    Promise.resolve(message).then(decodeRequest).then(answer).then(encodeReply);
  await using server = TestWireServer.start({ backend, control });
  await using region = await connectTelemap(server.url, { log: () => {} });
  await run(new SeederClient(region, LEECH));
}

Deno.test("every request arrives, and its reply comes back", () => {
  const asked: SeederRequest[] = [];
  const answer = (request: SeederRequest) => {
    asked.push(request);
    return REPLIES[request.type];
  };
  return withSeeder(answer, async (seeder) => {
    for (const [type, call] of Object.entries(calls(seeder))) {
      const reply = await call();
      assertEquals(encodeReply(reply), encodeReply(REPLIES[type as SeederRequest["type"]]));
    }
    assertEquals(asked, [
      { type: "track", leech: LEECH, chunkSize: 4096 },
      { type: "dirty", leech: LEECH, trackId: TRACK_ID, generation: 1 },
      {
        ...{ type: "suspend", leech: LEECH, trackId: TRACK_ID, generation: 2 },
        ...{ epoch: 5, timeout: 9000 },
      },
      { type: "last", leech: LEECH, epoch: 5, index: 0 },
      { type: "confirm", leech: LEECH, epoch: 5 },
      { type: "outcome", leech: LEECH, epoch: 5 },
      { type: "done", leech: LEECH, epoch: 5 },
      { type: "cancel", leech: LEECH, epoch: 5 },
      { type: "throttle", leech: LEECH, rate: 1 << 20, milliseconds: 30_000 },
      { type: "digests", leech: LEECH, chunk: 7, count: 2 },
      { type: "root", leech: LEECH, epoch: 5 },
    ]);
  });
});

Deno.test("a reply to another kind of request is not taken", async () => {
  const types = Object.keys(REPLIES) as SeederRequest["type"][];
  for (const given of types) {
    await withSeeder(() => REPLIES[given], async (seeder) => {
      for (const asked of types) {
        if (REPLIES[given].type === REPLIES[asked].type) continue;
        await assertRejects(calls(seeder)[asked], ProtocolError, `reply to "${asked}"`);
      }
    });
  }
});

Deno.test("digests of other chunks, of too many and of none are not taken", async () => {
  const wrong = [
    { chunk: 8, digests: pattern(32, 4) },
    { chunk: 7, digests: pattern(48, 4) },
    { chunk: 7, digests: new Uint8Array(0) },
  ];
  for (const fields of wrong) {
    await withSeeder(() => ({ type: "digests", ...fields }), async (seeder) => {
      const ask = () => seeder.digests({ chunk: 7, count: 2 });
      await assertRejects(ask, ProtocolError, "other chunks");
    });
  }
});

Deno.test("what the seeder refuses arrives with its code", async () => {
  for (const code of ["ESTALE", "EBUSY", "EPERM", "EINVAL"]) {
    const answer = () => {
      throw new TelemapError(code, "That cannot be");
    };
    await withSeeder(answer, async (seeder) => {
      for (const call of Object.values(calls(seeder))) {
        const error = await assertRejects(call, RemoteError, "That cannot be");
        assertEquals(error.code, code);
      }
    });
  }
});

Deno.test("a reply that is no message of a migration is a ProtocolError", async () => {
  await using backend = openMemory({ size: 1 << 20 });
  const control = () => Promise.resolve(pattern(50, 1));
  await using server = TestWireServer.start({ backend, control });
  await using region = await connectTelemap(server.url, { log: () => {} });
  const seeder = new SeederClient(region, LEECH);
  await assertRejects(() => seeder.cancel({ epoch: 5 }), ProtocolError, "version");
});

Deno.test("a call is given up by its signal", async () => {
  await using backend = openMemory({ size: 1 << 20 });
  const { promise: came, resolve: arrived } = Promise.withResolvers<void>();
  const { promise: forever, resolve: end } = Promise.withResolvers<Uint8Array>();
  const control = () => {
    arrived();
    return forever;
  };
  await using server = TestWireServer.start({ backend, control });
  await using region = await connectTelemap(server.url, { log: () => {} });
  const giveUp = new AbortController();
  const asked = new SeederClient(region, LEECH).outcome({ epoch: 1 }, { signal: giveUp.signal });
  await came;
  giveUp.abort(new Error("enough"));
  await assertRejects(() => asked, Error, "enough");
  end(new Uint8Array(0));
});
