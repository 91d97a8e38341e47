/** A source that tells of another size than it serves is refused, and nothing is made of its region. */
import { assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { ProtocolError } from "../../lib/backend/errors.ts";
import { openLeeched } from "../../lib/host/migrating_backend.ts";
import { decodeReply, encodeReply } from "../../lib/migration/message_codec.ts";
import { connectTelemap } from "../../lib/rpc/client.ts";
import { MovingRegion } from "../defects/moving_region.ts";
import { TestWireServer } from "../rpc/wire_server.ts";

openLibc();

const CHUNK = 65_536, SIZE = 4 * CHUNK;

for (const [what, told] of [["more", SIZE + CHUNK], ["less", SIZE - 1]] as const) {
  Deno.test(`a source that tells of ${what} bytes than it serves is refused`, async () => {
    const path = await Deno.makeTempDir({ prefix: "telemap-test-" });
    try {
      await using moving = new MovingRegion({ size: SIZE, chunkSize: CHUNK });
      await using server = TestWireServer.start({
        backend: moving.source,
        control: async (message) => {
          const reply = decodeReply(await moving.seeder.control(message));
          return encodeReply(reply.type === "tracked" ? { ...reply, size: told } : reply);
        },
      });
      await using remote = await connectTelemap(server.url, { log: () => {} });
      const leech = crypto.getRandomValues(new Uint8Array(16));
      const options = { chunkSize: CHUNK, peer: server.url, leech };
      await assertRejects(
        () => openLeeched(remote, `file:${path}/copy`, options),
        ProtocolError,
        `${told} bytes here that ${server.url} serves as one of ${SIZE}`,
      );
      assertEquals([...Deno.readDirSync(path)], []);
    } finally {
      await Deno.remove(path, { recursive: true });
    }
  });
}
