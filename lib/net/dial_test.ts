import { assertEquals, assertRejects } from "@std/assert";
import { ConnectionError, DeadlineError, UnsupportedError, UsageError } from "../backend/errors.ts";
import { parseAddress } from "./address.ts";
import { dial } from "./dial.ts";
import type { ByteConn } from "./reactor_conn.ts";

async function echoOnce(listener: Deno.Listener): Promise<void> {
  using conn = await listener.accept();
  const buffer = new Uint8Array(16);
  const count = await conn.read(buffer) ?? 0;
  await conn.write(buffer.subarray(0, count));
}

async function roundTrip(url: string): Promise<number[]> {
  using conn = await dial(parseAddress(url));
  await conn.write(new Uint8Array([1, 2, 3]));
  const buffer = new Uint8Array(16);
  return [...buffer.subarray(0, await conn.read(buffer) ?? 0)];
}

Deno.test("dial() connects over TCP", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const echoed = echoOnce(listener);
  assertEquals(await roundTrip(`nbd://127.0.0.1:${listener.addr.port}`), [1, 2, 3]);
  await echoed;
});

Deno.test("dial() connects over a Unix socket", async () => {
  const folder = await Deno.makeTempDir();
  try {
    using listener = Deno.listen({ transport: "unix", path: `${folder}/s` });
    const echoed = echoOnce(listener);
    assertEquals(await roundTrip(`telemap+unix:///?socket=${folder}/s`), [1, 2, 3]);
    await echoed;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("dial() says whom it could not reach and what to do", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  const refused = await assertRejects(
    () => dial(parseAddress(`nbd://127.0.0.1:${port}/x`)),
    ConnectionError,
  );
  assertEquals(
    refused.message,
    `Cannot connect to nbd://127.0.0.1:${port}/x: Connection refused (os error 111); ` +
      "is the server running?",
  );
  await assertRejects(
    () => dial(parseAddress("nbd+unix:///?socket=/nonexistent/s")),
    ConnectionError,
    "there is no such socket",
  );
  await assertRejects(() => dial(parseAddress("nbd+systemd:///")), UsageError);
  await assertRejects(() => dial(parseAddress("nbd://127.0.0.1:0")), UsageError);
  await assertRejects(() => dial(parseAddress("nbds://127.0.0.1")), UnsupportedError);
});

Deno.test("dial() gives up after its deadline", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0, tcpBacklog: 1 });
  const url = `nbd://127.0.0.1:${listener.addr.port}`;
  const waiting: ByteConn[] = [];
  try {
    // A listener that accepts nothing takes what its backlog holds, then leaves peers waiting.
    await assertRejects(
      async () => {
        for (;;) waiting.push(await dial(parseAddress(url), { timeout: 100 }));
      },
      DeadlineError,
      `${url} as it did not answer within 100 ms`,
    );
  } finally {
    for (const conn of waiting) conn.close();
  }
});
