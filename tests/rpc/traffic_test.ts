/** What the client of the native wire counts, beside what a proxy sees go by. */
import { assert, assertEquals } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import { connectTelemap } from "../../lib/rpc/client.ts";
import { pattern } from "../backend_model.ts";
import { HarmfulProxy } from "./harmful_proxy.ts";
import { TestWireServer } from "./wire_server.ts";

openLibc();

const SIZE = 4 << 20;

Deno.test("a client counts every byte that goes by, lost connections included", async () => {
  const passed = { up: 0, down: 0 };
  let isCutting = false;
  await using memory = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ backend: memory });
  await using proxy = HarmfulProxy.start(server.url, ({ direction, bytes }) => {
    // Cut before anything of it passed, so that both sides counted the same.
    if (isCutting && direction === "down") {
      isCutting = false;
      return 0;
    }
    passed[direction] += bytes.length;
    return undefined;
  });
  const region = await connectTelemap(proxy.url, { compression: "off", log: () => {} });
  const { traffic } = region;
  await region.writeAt(pattern(SIZE - 5, 1), 3);
  assert(traffic.sentBytes > SIZE && traffic.sentBytes < SIZE + 2000, `${traffic.sentBytes}`);
  isCutting = true;
  await region.readAt(new Uint8Array(1 << 20), 7);
  await region.readAt(new Uint8Array(1000), 0);
  await region.flush();
  assert(traffic.receivedBytes > 1 << 20, `${traffic.receivedBytes}`);
  assertEquals({ up: traffic.sentBytes, down: traffic.receivedBytes }, passed);
  await region.close();
});

Deno.test("zeroes that are read or written are not counted, as they do not go by", async () => {
  await using memory = openMemory({ size: SIZE });
  await using server = TestWireServer.start({ backend: memory });
  await using region = await connectTelemap(server.url);
  await region.readAt(new Uint8Array(SIZE), 0);
  await region.writeAt(new Uint8Array(SIZE), 0);
  const { sentBytes, receivedBytes } = region.traffic;
  assert(sentBytes + receivedBytes < 3000, `${sentBytes} sent, ${receivedBytes} received`);
});
