import { assertEquals } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { openMemory } from "../backend/memory.ts";
import { SeederClient } from "../migration/seeder_client.ts";
import { MigratingBackend } from "./migrating_backend.ts";

openLibc();

const SIZE = 8192, CHUNK = 4096;

Deno.test("a write to memory that may move is over at once, but where it has to wait", async () => {
  await using backend = new MigratingBackend(openMemory({ size: SIZE }), CHUNK, undefined);
  /** Writes, and has that go on if it waits; answers whether it was to be over at once. */
  const write = async () => {
    const { writesNow } = backend, writing = backend.writeAt(new Uint8Array(1), 0);
    if (writesNow) assertEquals(writing, undefined);
    backend.lock.release();
    backend.slow.slow(Infinity);
    await writing;
    return writesNow;
  };
  assertEquals(await write(), true);
  await backend.lock.lock("writes");
  assertEquals(await write(), false, "while it is locked");
  backend.slow.slow(1000);
  assertEquals(await write(), false, "while writes are slowed");
  assertEquals(await write(), true);
});

Deno.test("a write to what is no memory is never over at once", async () => {
  const memory = openMemory({ size: SIZE });
  const slow = Object.assign(Object.create(memory), {
    writesAtOnce: false,
    writeAt: async (buffer: Uint8Array, offset: number) => {
      await Promise.resolve();
      memory.writeAt(buffer, offset);
    },
    close: () => memory.close(),
  });
  await using backend = new MigratingBackend(slow, CHUNK, undefined);
  assertEquals(backend.writesNow, false);
});

Deno.test("memory is sent without a copy as long as nobody can write to it", async () => {
  await using backend = new MigratingBackend(openMemory({ size: SIZE }), CHUNK, undefined);
  const core = backend.seed({
    suspend: async () => {},
    resume: () => {},
    flush: () => {},
    record: () => {},
    throttle: () => {},
    onStage: () => {},
  });
  const client = new SeederClient(
    { control: (message) => core.control(message.slice()) },
    new Uint8Array(16).fill(1),
  );
  const { trackId } = await client.track({ chunkSize: CHUNK });
  const offer = async (epoch: number) =>
    await client.suspend({ trackId, generation: 0, epoch, timeout: 10_000 });
  assertEquals(backend.memory, undefined, "while the program runs");
  await offer(1);
  assertEquals(backend.memory?.bytes.length, SIZE, "while it is offered");
  await core.takeBack();
  assertEquals(backend.memory, undefined, "while the program goes on");
  await offer(2);
  await client.confirm({ epoch: 2 });
  assertEquals(backend.memory?.bytes.length, SIZE, "once it was given");
});
