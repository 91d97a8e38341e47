import { assert, assertEquals, assertRejects } from "@std/assert";
import { type Peer, ScriptedNbdServer } from "../../tests/scripted_nbd_server.ts";
import {
  ConnectionError,
  DeadlineError,
  ProtocolError,
  RemoteError,
  UnsupportedError,
} from "../backend/errors.ts";
import { parseAddress } from "../net/address.ts";
import { describeExport, listExports, openExport } from "./client_open.ts";
import { FLAG, HANDSHAKE, OPTION, REPLY } from "./constants.ts";
import {
  encodeExportNameReply,
  encodeGreeting,
  encodeInfo,
  encodeMetaContext,
  encodeOptionReply,
  encodeServerReply,
  encodeText,
} from "./option_codec.ts";

const FLAGS = FLAG.HAS_FLAGS | FLAG.SEND_FLUSH;
const EXPORT = { size: 4096, flags: FLAGS };
const EXPORT_REPLY = encodeOptionReply(
  OPTION.GO,
  REPLY.INFO,
  encodeInfo({ kind: "export", ...EXPORT }),
);

async function open(server: ScriptedNbdServer, timeout = 10_000) {
  const opened = await openExport(parseAddress(server.url), timeout);
  opened.conn.close();
  return opened.negotiated;
}

/** Answers options up to GO, which `go` answers. */
async function upToGo(peer: Peer, go: (peer: Peer) => Promise<void>): Promise<void> {
  await peer.greet();
  for (;;) {
    const option = await peer.option();
    if (option === OPTION.GO) return await go(peer);
    await peer.send(encodeOptionReply(option, REPLY.ERR_UNSUP));
  }
}

Deno.test("openExport() does without what the server does not know", async () => {
  await using server = new ScriptedNbdServer(async (peer) => {
    await peer.greet();
    for (let option = 0; option !== OPTION.EXPORT_NAME;) {
      option = await peer.option();
      if (option === OPTION.EXPORT_NAME) await peer.send(encodeExportNameReply(EXPORT, false));
      else await peer.send(encodeOptionReply(option, REPLY.ERR_UNSUP, encodeText("no")));
    }
    await peer.gone();
  });
  assertEquals(await open(server), {
    ...EXPORT,
    blockSizes: undefined,
    name: undefined,
    description: undefined,
    structured: false,
    allocation: undefined,
  });
});

Deno.test("openExport() takes a server that knows nothing but an export's name", async () => {
  await using server = new ScriptedNbdServer(async (peer) => {
    await peer.send(encodeGreeting(0));
    assertEquals(await peer.receive(4), new Uint8Array(4));
    assertEquals(await peer.option(), OPTION.EXPORT_NAME);
    await peer.send(encodeExportNameReply(EXPORT, true), new Uint8Array([0x67]));
    await peer.gone();
  });
  const { conn, negotiated } = await openExport(parseAddress(server.url), 10_000);
  assertEquals(negotiated.size, EXPORT.size);
  const next = new Uint8Array(1);
  await conn.read(next);
  assertEquals(next[0], 0x67, "the stream is at the first byte behind the handshake");
  conn.close();
  await assertRejects(() => listExports(parseAddress(server.url)), UnsupportedError);
});

Deno.test("openExport() says what a refusal means", async () => {
  const refusals = [
    [REPLY.ERR_UNKNOWN, RemoteError, "has no export"],
    [REPLY.ERR_POLICY, RemoteError, "does not allow"],
    [REPLY.ERR_TLS_REQD, UnsupportedError, "TLS"],
    [REPLY.ERR_SHUTDOWN, ConnectionError, "shutting down"],
    [REPLY.ERR_BLOCK_SIZE_REQD, RemoteError, "0x80000008"],
  ] as const;
  for (const [type, errorClass, text] of refusals) {
    await using server = new ScriptedNbdServer((peer) =>
      upToGo(peer, async () => {
        await peer.send(encodeOptionReply(OPTION.GO, type, encodeText("the server says why")));
        await peer.gone();
      })
    );
    const error = await assertRejects(() => open(server), errorClass, text);
    assert(error.message.includes("the server says why"), error.message);
  }
});

const HOSTILE: [name: string, script: (peer: Peer) => Promise<void>][] = [
  [
    "that is no NBD server",
    (peer) => peer.send(new TextEncoder().encode("220 mail.example.org ESMTP")),
  ],
  [
    "that answers another option",
    (peer) =>
      upToGo(peer, async () => {
        const data = encodeInfo({ kind: "export", ...EXPORT });
        await peer.send(encodeOptionReply(OPTION.INFO, REPLY.INFO, data));
        await peer.send(encodeOptionReply(OPTION.GO, REPLY.ACK));
      }),
  ],
  ["that answers without magic", (peer) => upToGo(peer, () => peer.send(new Uint8Array(20)))],
  ["that announces a reply of 4 GiB", (peer) =>
    upToGo(peer, async () => {
      const reply = encodeOptionReply(OPTION.GO, REPLY.INFO);
      reply.fill(0xff, 16);
      await peer.send(reply);
    })],
  [
    "that does not say the size",
    (peer) => upToGo(peer, () => peer.send(encodeOptionReply(OPTION.GO, REPLY.ACK))),
  ],
  ["that says a size of 2^64 - 1", (peer) =>
    upToGo(peer, () => {
      const reply = EXPORT_REPLY.slice();
      reply.fill(0xff, 22, 30);
      return peer.send(reply);
    })],
  [
    "that answers GO by a listing",
    (peer) =>
      upToGo(peer, () => peer.send(encodeOptionReply(OPTION.GO, REPLY.SERVER, new Uint8Array(4)))),
  ],
  ["that goes on informing for ever", (peer) =>
    upToGo(peer, async () => {
      for (;;) await peer.send(EXPORT_REPLY);
    })],
  [
    "whose message is not UTF-8",
    (peer) =>
      upToGo(
        peer,
        () => peer.send(encodeOptionReply(OPTION.GO, REPLY.ERR_POLICY, new Uint8Array([0xff]))),
      ),
  ],
  ["that selects a context nobody asked for", async (peer) => {
    await peer.greet();
    await peer.send(encodeOptionReply(await peer.option(), REPLY.ACK));
    const context = encodeMetaContext({ id: 1, name: "qemu:dirty-bitmap:x" });
    await peer.send(encodeOptionReply(await peer.option(), REPLY.META_CONTEXT, context));
    await peer.gone();
  }],
];
for (const [name, script] of HOSTILE) {
  Deno.test(`openExport() refuses a server ${name}`, async () => {
    await using server = new ScriptedNbdServer(async (peer) => {
      await script(peer);
      await peer.gone();
    });
    await assertRejects(() => open(server), ProtocolError);
  });
}

Deno.test("openExport() notices a server that hangs up, at every byte of the handshake", async () => {
  const greeting = encodeGreeting(HANDSHAKE.FIXED_NEWSTYLE | HANDSHAKE.NO_ZEROES);
  const unsup = encodeOptionReply(OPTION.STRUCTURED_REPLY, REPLY.ERR_UNSUP, encodeText("no"));
  const ack = encodeOptionReply(OPTION.GO, REPLY.ACK);
  const all = new Uint8Array([...greeting, ...unsup, ...EXPORT_REPLY, ...ack]);
  for (let length = 0; length < all.length; length++) {
    await using server = new ScriptedNbdServer((peer) => peer.send(all.subarray(0, length)));
    await assertRejects(() => open(server), ConnectionError, undefined, `after ${length} bytes`);
  }
});

Deno.test("openExport() gives up on a server that says nothing", async () => {
  await using server = new ScriptedNbdServer((peer) => peer.gone());
  await assertRejects(() => open(server, 50), DeadlineError, "took more than 50 ms");
});

Deno.test("openExport() ends when it is told to", async () => {
  const accepted = Promise.withResolvers<void>();
  await using server = new ScriptedNbdServer(async (peer) => {
    accepted.resolve();
    await peer.gone();
  });
  const controller = new AbortController();
  const opening = openExport(parseAddress(server.url), 10_000, controller.signal);
  await accepted.promise;
  controller.abort(new ConnectionError("told to"));
  await assertRejects(() => opening, ConnectionError, "told to");
});

Deno.test("listExports() and describeExport() leave politely", async () => {
  const options: number[] = [];
  await using server = new ScriptedNbdServer(async (peer) => {
    await peer.greet();
    for (let option = 0; option !== OPTION.ABORT;) {
      options.push(option = await peer.option());
      if (option === OPTION.LIST) {
        for (const name of ["a", "b"]) {
          const data = encodeServerReply({ name, description: "" });
          await peer.send(encodeOptionReply(option, REPLY.SERVER, data));
        }
      } else if (option === OPTION.INFO) {
        const infos = [
          { kind: "export" as const, ...EXPORT },
          { kind: "description" as const, text: "some" },
          { kind: "block size" as const, minimum: 1, preferred: 4096, maximum: 65536 },
          { kind: "unknown" as const, type: 99, payload: new Uint8Array(3) },
        ];
        for (const info of infos) {
          await peer.send(encodeOptionReply(option, REPLY.INFO, encodeInfo(info)));
        }
      }
      await peer.send(encodeOptionReply(option, REPLY.ACK));
    }
  });
  const address = parseAddress(server.url);
  assertEquals((await listExports(address)).map(({ name }) => name), ["a", "b"]);
  assertEquals(await describeExport(address), {
    ...EXPORT,
    name: undefined,
    description: "some",
    blockSizes: { minimum: 1, preferred: 4096, maximum: 65536 },
    structured: true,
    allocation: undefined,
  });
  await server[Symbol.asyncDispose]();
  assertEquals(options.filter((option) => option === OPTION.ABORT).length, 2);
});

Deno.test("listExports() ends a list that goes on for ever", async () => {
  await using server = new ScriptedNbdServer(async (peer) => {
    await peer.greet();
    const option = await peer.option();
    const data = encodeServerReply({ name: "x".repeat(100), description: "" });
    const reply = encodeOptionReply(option, REPLY.SERVER, data);
    const many = new Uint8Array(500 * reply.length);
    for (let at = 0; at < many.length; at += reply.length) many.set(reply, at);
    for (;;) await peer.send(many);
  });
  await assertRejects(() => listExports(parseAddress(server.url)), ProtocolError, "10000 replies");
});
