/** HTTP servers that fail, and that answer something else than they were asked for. */
import { assert, assertEquals, assertIsError, assertRejects } from "@std/assert";
import {
  ChangedError,
  ClosedError,
  ConnectionError,
  DeadlineError,
  ProtocolError,
  RemoteError,
  UnsupportedError,
  UsageError,
} from "../../lib/backend/errors.ts";
import { openHttps, type OpenHttpsOptions } from "../../lib/backend/https.ts";
import { Pattern } from "../../lib/backend/pattern.ts";
import { chunked, type RawReply, type RawRequest, ScriptedServer } from "./scripted_server.ts";

const SIZE = 100_000;
const PATTERN = new Pattern(4);
const NOTHING = new Uint8Array(0);

/** A right answer. */
function right({ method, headers }: RawRequest): RawReply {
  const facts = { "accept-ranges": "bytes", etag: '"a"', date: new Date().toUTCString() };
  const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(headers.get("range") ?? "") ?? [];
  if (method === "HEAD" || first === undefined) {
    return { status: 200, headers: { ...facts, "content-length": `${SIZE}` }, body: NOTHING };
  }
  const body = new Uint8Array(Number(last) - Number(first) + 1);
  PATTERN.fill(body, Number(first));
  const range = `bytes ${first}-${last}/${SIZE}`;
  return { status: 206, headers: { ...facts, "content-range": range }, body };
}

/** A right answer with other headers, and without those that are undefined. */
function withHeaders(
  reply: RawReply,
  changes: Record<string, string | undefined>,
): RawReply {
  const headers = Object.entries({ ...reply.headers, ...changes })
    .filter((entry): entry is [string, string] => entry[1] !== undefined);
  return { ...reply, headers: Object.fromEntries(headers) };
}

function status(code: number, headers: Record<string, string> = {}): RawReply {
  return { status: code, headers, body: NOTHING };
}

/** Opens the object of a server that answers HEAD rightly, and GET as `reply` says. */
async function opened(
  reply: (request: RawRequest) => RawReply,
  options: OpenHttpsOptions = {},
) {
  const server = new ScriptedServer((request) => {
    return request.method === "HEAD" ? right(request) : reply(request);
  });
  const log: string[] = [];
  const backend = await openHttps(server.url, { log: (line) => log.push(line), ...options });
  return {
    server,
    backend,
    log,
    read: async (offset: number, length: number) => {
      const buffer = new Uint8Array(length);
      await backend.readAt(buffer, offset);
      assertEquals(PATTERN.findDifference(buffer, offset), -1);
    },
    async [Symbol.asyncDispose]() {
      await backend.close();
      await server[Symbol.asyncDispose]();
    },
  };
}

type Wrong = [
  what: string,
  reply: (request: RawRequest) => RawReply,
  ErrorClass: abstract new (...args: never[]) => Error,
  text: string,
];

const other = '"b"';
const PERMANENT: Wrong[] = [
  ["all of it, in place of a range", (it) => ({ ...right(it), status: 200 }), ProtocolError, "all"],
  [
    "all of another object",
    (it) => withHeaders({ ...right(it), status: 200 }, { etag: other }),
    ChangedError,
    "has changed",
  ],
  ["that a condition is not met", () => status(412), ChangedError, "has changed"],
  [
    "that the object is too short by now",
    () => status(416, { "content-range": "bytes */10" }),
    ChangedError,
    "has changed",
  ],
  ["that there is no such range", () => status(416), RemoteError, "status 416"],
  [
    "a range of another object",
    (it) => withHeaders(right(it), { etag: other }),
    ChangedError,
    "has changed",
  ],
  [
    "a range of a weakly equal object",
    (it) => withHeaders(right(it), { etag: 'W/"a"' }),
    ChangedError,
    "has changed",
  ],
  [
    "a range of nobody knows what",
    (it) => withHeaders(right(it), { etag: undefined }),
    ProtocolError,
    "without the etag",
  ],
  [
    "a range of more bytes in all",
    (it) => withHeaders(right(it), { "content-range": "bytes 1000-1999/100001" }),
    ChangedError,
    "has changed",
  ],
  ...[
    undefined,
    "bytes 1000-1999/*",
    "bytes 1001-2000/100000",
    "bytes 1001-1999/100000",
    "bytes 0-999/100000",
    "bytes 1000-1998/100000",
    "bytes 1000-2000/100000",
    "bytes 1000-1999/1999",
    "items 1000-1999/100000",
    "bytes 1000-1999/100000, bytes 0-1/100000",
  ].map((range): Wrong => [
    `the range ${range}`,
    (it) => withHeaders(right(it), { "content-range": range }),
    ProtocolError,
    "Content-Range",
  ]),
  [
    "compressed bytes",
    (it) => withHeaders(right(it), { "content-encoding": "gzip" }),
    ProtocolError,
    "the encoding gzip",
  ],
  [
    "another length than that of the range",
    (it) => withHeaders(right(it), { "content-length": "999" }),
    ProtocolError,
    "Content-Length 999",
  ],
  [
    "more bytes than asked for",
    (it) => ({
      ...withHeaders(right(it), { "transfer-encoding": "chunked" }),
      body: chunked(new Uint8Array(1001)),
    }),
    ProtocolError,
    "more than the 1000 bytes",
  ],
  ["a file", () => status(302, { location: "file:///etc/passwd" }), ProtocolError, "redirected to"],
  ["no place to go to", () => status(302), ProtocolError, "redirected more than 10 times"],
  ["no URL", () => status(302, { location: "http://" }), ProtocolError, "to nowhere"],
  ["that there is nothing new", () => status(304), RemoteError, "status 304"],
  ["no content", () => status(204), RemoteError, "status 204"],
  ["that the request is bad", () => status(400), RemoteError, "status 400"],
  ["that it may not be read", () => status(403), RemoteError, "may not be read"],
  ["that it is not there", () => status(404), RemoteError, "not there"],
  ["that it is gone", () => status(410), RemoteError, "not there"],
  ["that it has no such method", () => status(501), RemoteError, "status 501"],
];

for (const [what, reply, ErrorClass, text] of PERMANENT) {
  Deno.test(`a server answers ${what}: the read fails at once`, async () => {
    await using it = await opened(reply);
    const error = await assertRejects(() => it.read(1000, 1000), ErrorClass, text);
    assertIsError(error, ErrorClass, "/object");
    const asked = new Set(it.server.ranges);
    assertEquals([...asked], ["bytes=1000-1999"]);
    assert(what === "no place to go to" || it.server.ranges.length === 1);
    assertEquals(it.log, []);
  });
}

const TRANSIENT: Record<string, (request: RawRequest) => RawReply> = {
  "answers that it is busy": () => status(503),
  "answers that it fails": () => status(500),
  "answers that the one behind it is not there": () => status(502),
  "answers that there were too many requests": () => status(429),
  "cuts the connection": () => ({ ...status(0), raw: NOTHING, then: "cut" }),
  "cuts the connection inside the head": () => ({
    ...status(0),
    raw: new TextEncoder().encode("HTTP/1.1 206 Par"),
    then: "cut",
  }),
  "sends what is no HTTP": () => ({
    ...status(0),
    raw: new TextEncoder().encode("220 mail.example ESMTP\r\n\r\n"),
    then: "cut",
  }),
  "does not answer": () => ({ ...status(0), raw: NOTHING, then: "hang" }),
};

for (const [what, reply] of Object.entries(TRANSIENT)) {
  Deno.test(`a server ${what}: the read is tried again`, async () => {
    const wrongly = (request: RawRequest) => request.index < 2 ? reply(request) : right(request);
    await using it = await opened(wrongly, { silenceTimeout: 100 });
    await it.read(1000, 1000);
    assertEquals(it.server.ranges, Array(3).fill("bytes=1000-1999"));
    assertEquals(it.log.length, 2);
    await it.read(0, 10);
    assertEquals(it.log.length, 2);
  });
}

const CUT: Record<string, (reply: RawReply) => RawReply> = {
  "cuts the connection": (reply) => ({ ...reply, then: "cut" }),
  "falls silent": (reply) => ({ ...reply, then: "hang" }),
  "ends": (reply) => ({
    ...withHeaders(reply, { "transfer-encoding": "chunked", "content-length": undefined }),
    body: chunked(reply.body),
  }),
};

for (const [what, cut] of Object.entries(CUT)) {
  Deno.test(`a server ${what} inside a body: only the rest is asked for again`, async () => {
    const briefly = (request: RawRequest) => {
      const reply = right(request);
      if (request.index >= 2) return reply;
      const headers = { "content-length": `${reply.body.length}`, ...reply.headers };
      return cut({ ...reply, headers, body: reply.body.subarray(0, 700) });
    };
    await using it = await opened(briefly, { silenceTimeout: 100 });
    await it.read(1000, 2000);
    assertEquals(it.server.ranges, ["bytes=1000-2999", "bytes=1700-2999", "bytes=2400-2999"]);
  });
}

Deno.test("a body is cut and the object replaced: there is no mix of both", async () => {
  const replaced = (request: RawRequest): RawReply => {
    const reply = right(request);
    if (request.index > 0) return withHeaders(reply, { etag: other });
    const headers = { ...reply.headers, "content-length": "2000" };
    return { ...reply, headers, body: reply.body.subarray(0, 700), then: "cut" };
  };
  await using it = await opened(replaced);
  await assertRejects(() => it.read(1000, 2000), ChangedError);
});

Deno.test("a read is given up at its deadline, with the reason", async () => {
  const reasons = { "answers that it is busy": "status 503", "does not answer": "nothing came" };
  for (const [what, reason] of Object.entries(reasons)) {
    await using it = await opened(TRANSIENT[what]!, { readTimeout: 300, silenceTimeout: 100 });
    const began = performance.now();
    const text = "Cannot read 10 bytes at offset 0 of http://";
    const error = await assertRejects(() => it.read(0, 10), DeadlineError, text);
    assertIsError(error, DeadlineError, reason);
    assert(performance.now() - began < 2000);
    assert(it.server.ranges.length > 1);
  }
});

Deno.test("reads that wait in line for a dead server are given up with the others", async () => {
  await using it = await opened(TRANSIENT["does not answer"]!, { readTimeout: 300 });
  const began = performance.now();
  const reads = Array.from({ length: 100 }, (_, index) => it.read(index, 10));
  for (const { status } of await Promise.allSettled(reads)) assertEquals(status, "rejected");
  assert(performance.now() - began < 2000);
});

Deno.test("a server is left alone for as long as it asks for", async () => {
  const busy = (wait: string) => (request: RawRequest) =>
    request.index === 0 ? status(503, { "retry-after": wait }) : right(request);
  {
    await using it = await opened(busy("1"));
    const began = performance.now();
    await it.read(0, 10);
    assert(performance.now() - began >= 1000);
  }
  const tomorrow = new Date(Date.now() + 86_400_000).toUTCString();
  for (const wait of ["3600", tomorrow]) {
    await using it = await opened(busy(wait));
    await assertRejects(() => it.read(0, 10), DeadlineError, "to be left alone for");
    assertEquals(it.server.ranges.length, 1);
  }
});

Deno.test("close() ends reads that wait for an answer, for their turn and for another attempt", async () => {
  const silent = TRANSIENT["does not answer"]!;
  const busy = () => status(503, { "retry-after": "30" });
  for (const [reply, failures] of [[silent, 0], [busy, 1]] as const) {
    await using it = await opened(reply);
    const reads = Array.from({ length: 40 }, (_, index) => it.read(index, 10));
    const answers = Promise.allSettled(reads);
    while (it.server.ranges.length < 16 || it.log.length < failures) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    const began = performance.now();
    await it.backend.close();
    assert(performance.now() - began < 2000);
    for (const answer of await answers) {
      assert(answer.status === "rejected");
      assertIsError(answer.reason, ClosedError, "was closed");
    }
  }
});

type Opening = [what: string, ...rest: Wrong extends [string, ...infer Rest] ? Rest : never];

/** An answer to HEAD that leaves ranges open, and to GET as told. */
function unsure(reply: (request: RawRequest) => RawReply): (request: RawRequest) => RawReply {
  return (request) => request.method === "HEAD" ? status(405) : reply(request);
}

/** An answer with no ETag, that changed last so many milliseconds before it was sent. */
function aged(ms: number): (request: RawRequest) => RawReply {
  const date = new Date(), modified = new Date(date.getTime() - ms);
  return (it) =>
    withHeaders(right(it), {
      etag: undefined,
      date: date.toUTCString(),
      "last-modified": modified.toUTCString(),
    });
}

const OPENING: Opening[] = [
  ["with what changed just now", aged(0), UnsupportedError, "try again in a second"],
  ["nothing", () => ({ ...status(0), raw: NOTHING, then: "cut" }), ConnectionError, "reach"],
  ["that it is not there", () => status(404), RemoteError, "not there"],
  ["that it is busy, always", () => status(503), DeadlineError, "Cannot open http://"],
  [
    "that it is empty",
    (it) => withHeaders(right(it), { "content-length": "0" }),
    UsageError,
    "as it is empty",
  ],
  [
    "with a compressed object",
    (it) => withHeaders(right(it), { "content-encoding": "br" }),
    ProtocolError,
    "the encoding br",
  ],
  [
    "that it is longer than anything",
    (it) => withHeaders(right(it), { "content-length": "9999999999999999" }),
    ProtocolError,
    "more than 2^53",
  ],
  [
    "a range with all of it",
    unsure((it) => right({ ...it, headers: new Headers() })),
    UnsupportedError,
    "sends no ranges",
  ],
  ["that no range is there", unsure(() => status(416)), UsageError, "as it is empty"],
  [
    "with a size nobody knows",
    unsure((it) => withHeaders(right(it), { "content-range": "bytes 0-0/*" })),
    ProtocolError,
    "Content-Range",
  ],
  [
    "with a range of no version",
    unsure((it) => withHeaders(right(it), { etag: undefined })),
    UnsupportedError,
    "no way to tell when",
  ],
];

for (const [what, reply, ErrorClass, text] of OPENING) {
  Deno.test(`a server answers ${what}: openHttps() refuses it`, async () => {
    await using server = new ScriptedServer(reply);
    await assertRejects(() => openHttps(server.url, { openTimeout: 200 }), ErrorClass, text);
  });
}

Deno.test("openHttps() takes what may not have changed twice in the second that it names", async () => {
  await using server = new ScriptedServer(aged(1000));
  await using backend = await openHttps(server.url);
  assertEquals(backend.size, SIZE);
});

Deno.test("openHttps() tries again while a server is busy", async () => {
  await using server = new ScriptedServer((it) => it.index < 2 ? status(503) : right(it));
  await using backend = await openHttps(server.url);
  assertEquals(backend.size, SIZE);
});

Deno.test("openHttps() gives up a server that does not answer", async () => {
  await using server = new ScriptedServer(TRANSIENT["does not answer"]!);
  const began = performance.now();
  const opening = () => openHttps(server.url, { openTimeout: 200 });
  await assertRejects(opening, ConnectionError, "nothing came for");
  assert(performance.now() - began < 2000);
});

Deno.test("openHttps() says at once that nobody listens", async () => {
  const server = new ScriptedServer(right);
  const { url } = server;
  await server[Symbol.asyncDispose]();
  await assertRejects(() => openHttps(url), ConnectionError, "Connection refused");
});
