/** The client of the native wire against servers that are wrong and hostile. */
import { assert, assertEquals, assertIsError, assertRejects } from "@std/assert";
import fc from "fast-check";
import { ERRNO } from "../../ffi/errno.ts";
import {
  ProtocolError,
  RemoteError,
  TelemapError,
  UnsupportedError,
} from "../../lib/backend/errors.ts";
import { contentChecksum } from "../../lib/rpc/checksum.ts";
import { connectTelemap, type RemoteBackend } from "../../lib/rpc/client.ts";
import type { ServerHello } from "../../lib/rpc/hello.ts";
import { encodeServerHello } from "../../lib/rpc/hello.ts";
import { encodeExtents, FLAG, type Frame, REPLY, TYPE } from "../../lib/rpc/wire.ts";
import { pattern } from "../backend_model.ts";
import { frameBytes, serverHello, WirePeer } from "./wire_peer.ts";

const LENGTH = 4096;
const CONTENT = pattern(LENGTH, 1);

/** What a server says to a request; nothing where it closes the connection then. */
type Answer = (
  request: Frame,
  peer: WirePeer,
) => Uint8Array | undefined | Promise<undefined>;

/** Runs a test with a client of a server that gives these answers on every connection. */
async function withAnswers(
  answer: Answer,
  run: (region: RemoteBackend, connections: () => number) => Promise<void>,
  hello: Partial<ServerHello> = {},
): Promise<void> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  let connections = 0;
  const peers: Promise<void>[] = [];
  const serve = async (conn: Deno.Conn) => {
    using peer = new WirePeer(conn);
    await peer.welcome(hello);
    for (let asked = await peer.receive(); asked !== undefined; asked = await peer.receive()) {
      const bytes = await answer(asked.frame, peer);
      if (bytes === undefined) return;
      await peer.write(bytes);
    }
  };
  const accepting = (async () => {
    for await (const conn of listener) {
      connections++;
      // The client may be gone before it heard everything.
      peers.push(serve(conn).catch(() => {}));
    }
  })();
  try {
    const url = `telemap://127.0.0.1:${listener.addr.port}`;
    await using region = await connectTelemap(url, { log: () => {} });
    await run(region, () => connections);
  } finally {
    listener.close();
    await accepting;
    await Promise.all(peers);
  }
}

function readAll(region: RemoteBackend): Promise<void> {
  return Promise.resolve(region.readAt(new Uint8Array(LENGTH), 0));
}

function reply(
  request: Frame,
  fields: Partial<Frame> = {},
  payload = new Uint8Array(0),
): Uint8Array {
  const { type, id, offset, length } = request;
  return frameBytes({ type: type | REPLY, id, offset, length, ...fields }, payload);
}

Deno.test("the scripted server is understood when it is right", () =>
  withAnswers((request) => reply(request, {}, CONTENT), async (region) => {
    const bytes = new Uint8Array(LENGTH);
    await region.readAt(bytes, 0);
    assertEquals(bytes, CONTENT);
  }));

const WRONG: Record<string, Answer> = {
  "to a request that nobody made": (request) => reply(request, { id: request.id + 1 }, CONTENT),
  "of another type": (request) => reply(request, { type: TYPE.FLUSH | REPLY }),
  "that is a request": (request) => reply(request, { type: TYPE.READ }, CONTENT),
  "about another place": (request) => reply(request, { offset: 1 }, CONTENT),
  "about another length": (request) => reply(request, { length: 1 }, CONTENT),
  "without its content": (request) => reply(request),
  "with more content": (request) => reply(request, {}, pattern(LENGTH + 1, 1)),
  "with less content": (request) => reply(request, {}, pattern(LENGTH - 1, 1)),
  "with zeroes that travel": (request) => reply(request, { flags: FLAG.ZERO }, CONTENT),
  "with more compressed than it is long": (request) =>
    reply(request, { flags: FLAG.ZSTD }, pattern(LENGTH + 1, 1)),
  "with a payload over the limit": (request) => reply(request, { payloadLength: 0xffff_ffff }),
  "with an endless error text": (request) => reply(request, { code: 5 }, CONTENT),
  "that is damaged": (request) => reply(request, {}, CONTENT).fill(0, 10, 20),
  "that comes twice": (request) =>
    new Uint8Array([...reply(request, { code: ERRNO.EIO }), ...reply(request, {}, CONTENT)]),
};
for (const [what, answer] of Object.entries(WRONG)) {
  Deno.test(`a reply ${what} ends the connection, and in the end fails the request`, () =>
    withAnswers(answer, async (region, connections) => {
      if (what === "that comes twice") {
        await assertRejects(() => readAll(region), RemoteError);
        await assertRejects(() => readAll(region), RemoteError);
        assert(connections() > 2);
      } else {
        await assertRejects(() => readAll(region), ProtocolError);
        // Three connections of the urgent lane, one or none of the other.
        assert(connections() >= 3 && connections() <= 4, `${connections()} connections`);
      }
    }));
}

Deno.test("a server that says goodbye is asked again on another connection", () => {
  let goodbyes = 0;
  const answer: Answer = (request) =>
    goodbyes++ < 3
      ? frameBytes(
        { type: TYPE.BYE | REPLY, code: ERRNO.ESHUTDOWN },
        new Uint8Array([98, 121, 101]),
      )
      : reply(request, {}, CONTENT);
  return withAnswers(answer, async (region) => {
    await readAll(region);
    assertEquals(goodbyes, 4);
  });
});

Deno.test("a server that closes on every request is asked on and on", () => {
  let asked = 0;
  const answer: Answer = (request) => asked++ < 3 ? undefined : reply(request, {}, CONTENT);
  return withAnswers(answer, (region) => readAll(region));
});

Deno.test("error codes become errors that callers tell apart", () => {
  const codes: Record<number, number> = { 0: ERRNO.ENOSPC, 1: ERRNO.EOPNOTSUPP, 2: 0xffff };
  const text = new TextEncoder().encode("No \x1b[31mroom");
  const answer: Answer = (request) =>
    reply(
      request,
      { code: codes[request.offset]!, offset: 9, checksum: contentChecksum(text) },
      text,
    );
  return withAnswers(answer, async (region) => {
    const full = await assertRejects(() => region.discard(0, 1), RemoteError, "No  [31mroom");
    assertEquals(full.code, "ENOSPC");
    await assertRejects(() => region.zero(1, 1), UnsupportedError);
    const odd = await assertRejects(
      () => region.flush().then(() => region.zero(2, 1)),
      RemoteError,
    );
    assertEquals(odd.code, "ENOSPC");
  });
});

Deno.test("extents are asked for until the range is covered, and no further", () => {
  const answer: Answer = (request) => {
    const { offset, length } = request;
    const run = { offset, length: Math.min(length, 1000), hole: offset % 2000 === 0, zero: false };
    return reply(request, { length: run.length }, encodeExtents([run]));
  };
  return withAnswers(answer, async (region) => {
    assertEquals(await region.extents(500, 1), [{
      offset: 500,
      length: 1,
      hole: false,
      zero: false,
    }]);
    const extents = await region.extents(0, 2500);
    assertEquals(extents.map(({ offset, length, hole }) => [offset, length, hole]), [
      [0, 1000, true],
      [1000, 1000, false],
      [2000, 500, true],
    ]);
  });
});

Deno.test("an answer about extents that gets nowhere is not asked for for ever", () =>
  withAnswers((request) => reply(request, { length: 0 }), async (region) => {
    await assertRejects(() => region.extents(0, 10), ProtocolError, "empty");
  }));

Deno.test("a hello that chooses what was not offered is refused", async () => {
  for (const change of [{ features: 1 | 1 << 31 >>> 0 }, { inFlightMax: 1024 }]) {
    const connect = () => withAnswers(() => undefined, () => Promise.resolve(), change);
    await assertRejects(connect, ProtocolError, "what was not offered");
  }
});

Deno.test("arbitrary bytes in place of a reply cost a connection, and no more", async () => {
  const tails = fc.uint8Array({ minLength: 1, maxLength: 200 });
  await fc.assert(
    fc.asyncProperty(tails, fc.nat(40), async (tail, kept) => {
      let asked = 0;
      const answer: Answer = (request, peer) => {
        if (asked++ > 0) return reply(request, {}, CONTENT);
        const right = frameBytes({ type: TYPE.READ | REPLY, id: request.id, length: LENGTH });
        return peer.write(new Uint8Array([...right.subarray(0, kept), ...tail])).then(() =>
          undefined
        );
      };
      await withAnswers(answer, async (region) => {
        const bytes = new Uint8Array(LENGTH);
        await region.readAt(bytes, 0);
        assertEquals(bytes, CONTENT);
      });
    }),
    { numRuns: 30 },
  );
});

Deno.test("arbitrary bytes in place of a hello are an error", async () => {
  const hello = encodeServerHello(serverHello());
  const tails = fc.uint8Array({ minLength: 1, maxLength: 200 });
  await fc.assert(
    fc.asyncProperty(tails, fc.nat(79), async (tail, kept) => {
      using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
      const accepting = listener.accept();
      const url = `telemap://127.0.0.1:${listener.addr.port}`;
      const connecting = connectTelemap(url, { log: () => {} });
      using conn = await accepting;
      await conn.write(new Uint8Array([...hello.subarray(0, kept), ...tail]));
      await conn.closeWrite();
      // What is missing of a whole hello may happen to be right.
      const region = await connecting.catch((error) => assertIsError(error, TelemapError));
      await region?.close();
    }),
    { numRuns: 100 },
  );
});
