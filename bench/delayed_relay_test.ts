import { assert, assertEquals } from "@std/assert";

const RTT = 20;
const RELAY = new URL("delayed_relay.ts", import.meta.url).pathname;

/** A server of one connection, and a client that comes to it by a relay. */
async function relayed(test: (client: Deno.TcpConn, server: Deno.TcpConn) => Promise<void>) {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await using relay = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "-A", RELAY, `127.0.0.1:${listener.addr.port}`, `${RTT}`],
    stdout: "piped",
  }).spawn();
  const reader = relay.stdout.getReader();
  const port = Number(new TextDecoder().decode((await reader.read()).value));
  const accepted = listener.accept();
  const client = await Deno.connect({ hostname: "127.0.0.1", port });
  const server = await accepted;
  try {
    await test(client, server);
  } finally {
    for (const conn of [client, server]) {
      try {
        conn.close();
      } catch {
        // The test closed it.
      }
    }
    await reader.cancel();
    relay.kill("SIGKILL");
  }
}

async function readAll(conn: Deno.TcpConn): Promise<Uint8Array> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  for (;;) {
    const part = new Uint8Array(1 << 20), count = await conn.read(part);
    if (count === null) return new Uint8Array(await new Blob(parts).arrayBuffer());
    parts.push(part.subarray(0, count));
  }
}

async function writeAll(conn: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await conn.write(bytes.subarray(at));
}

/** Bytes that tell where they stand. */
function numbered(length: number): Uint8Array {
  return new Uint8Array(Uint32Array.from({ length: length / 4 }, (_, index) => index).buffer);
}

Deno.test("relay: a round trip takes as long as it was told", () =>
  relayed(async (client, server) => {
    const byte = new Uint8Array(1);
    for (let trip = 0; trip < 10; trip++) {
      const start = performance.now();
      await client.write(byte);
      await server.read(byte);
      await server.write(byte);
      await client.read(byte);
      // It makes up for how late it wakes, which is less at times.
      assert(performance.now() - start > RTT - 1);
    }
  }));

Deno.test("relay: all comes in order, more than sockets and pipes hold, and then the end", () =>
  relayed(async (client, server) => {
    const sent = numbered(160 << 20);
    // Nobody reads yet: it is on its way.
    await writeAll(server, sent);
    await server.closeWrite();
    // What is on its way both ways does not get mixed up.
    await writeAll(client, sent.subarray(0, 64 << 10));
    await client.closeWrite();
    const got = await readAll(client);
    assertEquals(got.length, sent.length);
    assertEquals(got.findIndex((byte, index) => byte !== sent[index]), -1);
    assertEquals(await readAll(server), sent.subarray(0, 64 << 10));
  }));

Deno.test("relay: who ends writing still gets an answer", () =>
  relayed(async (client, server) => {
    await client.write(numbered(1 << 10));
    await client.closeWrite();
    assertEquals((await readAll(server)).length, 1 << 10);
    await server.write(numbered(2 << 10));
    server.close();
    assertEquals((await readAll(client)).length, 2 << 10);
  }));

Deno.test("relay: a client that is gone closes the server's connection", () =>
  relayed(async (client, server) => {
    client.close();
    assertEquals(await server.read(new Uint8Array(1)), null);
  }));
