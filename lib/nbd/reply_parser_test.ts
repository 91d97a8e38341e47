import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ProtocolError } from "../backend/errors.ts";
import { ClientRequest } from "./client_request.ts";
import { CHUNK, COMMAND, MAGIC, NBD_ERROR } from "./constants.ts";
import { type ReplyForm, ReplyParser } from "./reply_parser.ts";

const STRUCTURED: ReplyForm = { structured: true, allocation: 5 };
const SIMPLE: ReplyForm = { structured: false, allocation: undefined };
const DONE = 1;

interface Answer {
  error: number;
  message: string;
}

/** A parser with requests by cookie: high is 7 for all, low is the index. */
class Bench {
  readonly answers = new Map<ClientRequest, Answer>();
  readonly #parser: ReplyParser;

  constructor(form: ReplyForm, readonly requests: ClientRequest[]) {
    this.#parser = new ReplyParser({
      find: (high, low) => {
        const request = high === 7 ? requests[low] : undefined;
        return request !== undefined && !this.answers.has(request) ? request : undefined;
      },
      finish: (request, _low, error, message) => this.answers.set(request, { error, message }),
    }, form);
  }

  /** Feeds bytes as a stream would bring them, `step` at a time. */
  feed(bytes: Uint8Array, step: number = bytes.length): void {
    for (let at = 0; at < bytes.length;) {
      const room = this.#parser.room();
      assert(room.length > 0, "the parser leaves no room");
      const part = bytes.subarray(at, at + Math.min(step, room.length));
      room.set(part);
      at += part.length;
      this.#parser.take(part.length);
    }
  }
}

function read(offset: number, length: number): ClientRequest {
  return new ClientRequest(COMMAND.READ, 0, offset, length, new Uint8Array(length).fill(0xee));
}

function status(offset: number, length: number): ClientRequest {
  return new ClientRequest(COMMAND.BLOCK_STATUS, 0, offset, length);
}

function write(): ClientRequest {
  return new ClientRequest(COMMAND.WRITE, 0, 0, 4, new Uint8Array(4));
}

function join(...parts: (Uint8Array | number[])[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(parts.flatMap((part) => [...part]));
}

function u16(value: number): number[] {
  return [value >>> 8, value & 0xff];
}

function u32(value: number): number[] {
  return [...u16(value >>> 16), ...u16(value & 0xffff)];
}

function u64(value: number): number[] {
  return [...u32(Math.floor(value / 2 ** 32)), ...u32(value % 2 ** 32)];
}

function chunk(flags: number, type: number, low: number, payload: number[] | Uint8Array) {
  const head = [
    ...u32(MAGIC.STRUCTURED_REPLY),
    ...u16(flags),
    ...u16(type),
    ...u32(7),
    ...u32(low),
  ];
  return join(head, u32(payload.length), payload);
}

function simple(error: number, low: number, data: number[] | Uint8Array = []) {
  return join(u32(MAGIC.SIMPLE_REPLY), u32(error), u32(7), u32(low), data);
}

function errorChunk(
  flags: number,
  low: number,
  error: number,
  message: string,
  tail: number[] = [],
) {
  const text = new TextEncoder().encode(message);
  const type = tail.length === 0 ? CHUNK.ERROR : CHUNK.ERROR_OFFSET;
  return chunk(flags, type, low, join(u32(error), u16(text.length), text, tail));
}

Deno.test("ReplyParser takes simple replies, in any order and cut anywhere", () => {
  const long = crypto.getRandomValues(new Uint8Array(60_000));
  const replies = join(
    simple(0, 1, long),
    simple(NBD_ERROR.ENOSPC, 2),
    simple(0, 0, [1, 2, 3]),
  );
  for (const step of [1, 7, 16, 4096, replies.length]) {
    const bench = new Bench(SIMPLE, [read(10, 3), read(2 ** 40, long.length), write()]);
    bench.feed(replies, step);
    const [short, big, failed] = bench.requests;
    assertEquals(short!.data, new Uint8Array([1, 2, 3]));
    assertEquals(big!.data, long);
    assertEquals(bench.answers.get(big!), { error: 0, message: "" });
    assertEquals(bench.answers.get(failed!), { error: NBD_ERROR.ENOSPC, message: "" });
  }
});

Deno.test("ReplyParser puts a READ together from chunks that are mixed with others", () => {
  const bench = new Bench(STRUCTURED, [read(100, 10), read(2 ** 45, 4), write()]);
  bench.feed(
    join(
      chunk(0, CHUNK.OFFSET_DATA, 0, [...u64(107), 8, 9, 10]),
      chunk(DONE, CHUNK.OFFSET_DATA, 1, [...u64(2 ** 45), 5, 6, 7, 8]),
      chunk(0, CHUNK.OFFSET_HOLE, 0, [...u64(102), ...u32(5)]),
      chunk(DONE, CHUNK.NONE, 2, []),
      chunk(0, CHUNK.OFFSET_DATA, 0, [...u64(100), 1, 2]),
      chunk(DONE, CHUNK.NONE, 0, []),
    ),
    3,
  );
  assertEquals([...bench.requests[0]!.data], [1, 2, 0, 0, 0, 0, 0, 8, 9, 10]);
  assertEquals([...bench.requests[1]!.data], [5, 6, 7, 8]);
  assertEquals([...bench.answers.values()].map(({ error }) => error), [0, 0, 0]);
});

Deno.test("ReplyParser answers a request with its first error, at its last chunk", () => {
  const bench = new Bench(STRUCTURED, [read(0, 8), write()]);
  bench.feed(errorChunk(0, 0, NBD_ERROR.EIO, "disk", u64(4)));
  bench.feed(errorChunk(0, 0, NBD_ERROR.ENOMEM, "later"));
  assertEquals(bench.answers.size, 0);
  bench.feed(chunk(DONE, CHUNK.NONE, 0, []));
  assertEquals(bench.answers.get(bench.requests[0]!), { error: NBD_ERROR.EIO, message: "disk" });
  // An error type of the future: it starts like the ones that are known.
  bench.feed(chunk(DONE, 0x8099, 1, [...u32(22), ...u16(1), 65, 1, 2, 3]));
  assertEquals(bench.answers.get(bench.requests[1]!), { error: 22, message: "A" });
});

Deno.test("ReplyParser merges and clips the extents of a BLOCK_STATUS", () => {
  const bench = new Bench(STRUCTURED, [status(1000, 100)]);
  const extents = [[10, 0], [20, 0], [30, 3], [1000, 2]].flatMap(([length, flags]) => [
    ...u32(length!),
    ...u32(flags!),
  ]);
  bench.feed(chunk(DONE, CHUNK.BLOCK_STATUS, 0, [...u32(5), ...extents]), 5);
  assertEquals(bench.requests[0]!.extents, [
    { offset: 1000, length: 30, hole: false, zero: false },
    { offset: 1030, length: 30, hole: true, zero: true },
    { offset: 1060, length: 40, hole: false, zero: true },
  ]);
  assertEquals(bench.requests[0]!.described, 100);
});

Deno.test("ReplyParser keeps a bounded number of extents and says how far they reach", () => {
  const request = status(0, 1 << 20);
  const bench = new Bench(STRUCTURED, [request]);
  const count = 100_000;
  const extents = new Uint8Array(8 * count);
  for (let index = 0; index < count; index++) {
    extents[8 * index + 3] = 1;
    extents[8 * index + 7] = index % 2;
  }
  bench.feed(chunk(DONE, CHUNK.BLOCK_STATUS, 0, join(u32(5), extents)));
  assertEquals(bench.answers.get(request)?.error, 0);
  assertEquals(request.extents.length, 1 << 16);
  assertEquals(request.described, 1 << 16);
});

/** What no server may send, with the requests it answers. */
const HOSTILE: [name: string, form: ReplyForm, bytes: () => Uint8Array][] = [
  ["a magic number that is not known", STRUCTURED, () => new Uint8Array(20).fill(0x55)],
  ["the magic number of a request", SIMPLE, () => join(u32(MAGIC.REQUEST), new Uint8Array(24))],
  ["an unknown cookie, simple", SIMPLE, () => simple(0, 9)],
  ["an unknown cookie, structured", STRUCTURED, () => chunk(DONE, CHUNK.NONE, 9, [])],
  ["a cookie of another generation", SIMPLE, () => {
    const reply = simple(0, 1);
    reply[11] = 8;
    return reply;
  }],
  ["a reply that comes twice", SIMPLE, () => join(simple(0, 1), simple(0, 1))],
  ["a structured reply that was not negotiated", SIMPLE, () => chunk(DONE, CHUNK.NONE, 1, [])],
  ["a simple reply to a READ", STRUCTURED, () => simple(0, 0, new Uint8Array(100))],
  ["a simple error to a READ", STRUCTURED, () => simple(NBD_ERROR.EIO, 0)],
  ["a simple success to a BLOCK_STATUS", STRUCTURED, () => simple(0, 2)],
  ["NONE that is not the last", STRUCTURED, () => chunk(0, CHUNK.NONE, 1, [])],
  ["NONE with a payload", STRUCTURED, () => chunk(DONE, CHUNK.NONE, 1, [0])],
  ["a chunk type that is not known", STRUCTURED, () => chunk(DONE, 77, 0, [0])],
  ["data for a WRITE", STRUCTURED, () => chunk(DONE, CHUNK.OFFSET_DATA, 1, [...u64(0), 1])],
  [
    "a hole for a WRITE",
    STRUCTURED,
    () => chunk(DONE, CHUNK.OFFSET_HOLE, 1, [...u64(0), ...u32(1)]),
  ],
  [
    "a status for a READ",
    STRUCTURED,
    () => chunk(DONE, CHUNK.BLOCK_STATUS, 0, [...u32(5), ...u32(1), ...u32(0)]),
  ],
  ["no data in a data chunk", STRUCTURED, () => chunk(0, CHUNK.OFFSET_DATA, 0, u64(1000))],
  [
    "a data chunk of 4 GiB",
    STRUCTURED,
    () => join(chunk(0, CHUNK.OFFSET_DATA, 0, []).subarray(0, 16), u32(0xffff_ffff), u64(1000)),
  ],
  ["data before the READ", STRUCTURED, () => chunk(0, CHUNK.OFFSET_DATA, 0, [...u64(999), 1])],
  ["data behind the READ", STRUCTURED, () => chunk(0, CHUNK.OFFSET_DATA, 0, [...u64(1100), 1])],
  [
    "data over the READ's end",
    STRUCTURED,
    () => chunk(0, CHUNK.OFFSET_DATA, 0, [...u64(1099), 1, 2]),
  ],
  [
    "data at 2^64 - 1",
    STRUCTURED,
    () => chunk(0, CHUNK.OFFSET_DATA, 0, [...u32(0xffff_ffff), ...u32(0xffff_ffff), 1]),
  ],
  ["data that overlaps", STRUCTURED, () =>
    join(
      chunk(0, CHUNK.OFFSET_DATA, 0, [...u64(1000), 1, 2]),
      chunk(0, CHUNK.OFFSET_DATA, 0, [...u64(1001), 1]),
    )],
  ["a hole over data", STRUCTURED, () =>
    join(
      chunk(0, CHUNK.OFFSET_DATA, 0, [...u64(1050), 1, 2]),
      chunk(0, CHUNK.OFFSET_HOLE, 0, [...u64(1000), ...u32(51)]),
    )],
  ["an empty hole", STRUCTURED, () => chunk(0, CHUNK.OFFSET_HOLE, 0, [...u64(1000), ...u32(0)])],
  [
    "a hole of 4 GiB",
    STRUCTURED,
    () => chunk(0, CHUNK.OFFSET_HOLE, 0, [...u64(1000), ...u32(0xffff_ffff)]),
  ],
  [
    "the end before all data",
    STRUCTURED,
    () => chunk(DONE, CHUNK.OFFSET_DATA, 0, [...u64(1000), 1, 2]),
  ],
  ["the end without data", STRUCTURED, () => chunk(DONE, CHUNK.NONE, 0, [])],
  ["an error chunk that is too short", STRUCTURED, () => chunk(DONE, CHUNK.ERROR, 0, [0, 0, 0, 5])],
  [
    "an error chunk of 4 GiB",
    STRUCTURED,
    () => join(chunk(DONE, CHUNK.ERROR, 0, []).subarray(0, 16), u32(0xffff_ffff)),
  ],
  ["an error chunk without an error", STRUCTURED, () => errorChunk(DONE, 0, 0, "fine")],
  [
    "a message longer than its chunk",
    STRUCTURED,
    () => chunk(DONE, CHUNK.ERROR, 0, [...u32(5), ...u16(2), 65]),
  ],
  [
    "a message shorter than its chunk",
    STRUCTURED,
    () => chunk(DONE, CHUNK.ERROR, 0, [...u32(5), ...u16(0), 65]),
  ],
  [
    "a message longer than its chunk of another type",
    STRUCTURED,
    () => chunk(DONE, 0x8099, 0, [...u32(5), ...u16(2), 65]),
  ],
  ["a message of over 4096 bytes", STRUCTURED, () => errorChunk(DONE, 0, 5, "m".repeat(4097))],
  ["an error outside the request", STRUCTURED, () => errorChunk(DONE, 0, 5, "", u64(1101))],
  [
    "errors without end",
    STRUCTURED,
    () => join(...Array.from({ length: 1025 }, () => errorChunk(0, 0, 5, "again"))),
  ],
  ["a status without extents", STRUCTURED, () => chunk(DONE, CHUNK.BLOCK_STATUS, 2, u32(5))],
  [
    "a status with half an extent",
    STRUCTURED,
    () => chunk(DONE, CHUNK.BLOCK_STATUS, 2, [...u32(5), ...u32(1), ...u32(0), ...u32(1)]),
  ],
  [
    "a status with 2^29 extents",
    STRUCTURED,
    () => join(chunk(DONE, CHUNK.BLOCK_STATUS, 2, []).subarray(0, 16), u32(0xffff_fffc), u32(5)),
  ],
  [
    "an empty extent",
    STRUCTURED,
    () => chunk(DONE, CHUNK.BLOCK_STATUS, 2, [...u32(5), ...u32(0), ...u32(0)]),
  ],
  [
    "an extent behind the last",
    STRUCTURED,
    () =>
      chunk(DONE, CHUNK.BLOCK_STATUS, 2, [...u32(5), ...u32(100), ...u32(0), ...u32(1), ...u32(3)]),
  ],
  [
    "a status of another context",
    STRUCTURED,
    () => chunk(DONE, CHUNK.BLOCK_STATUS, 2, [...u32(6), ...u32(1), ...u32(0)]),
  ],
  ["two statuses", STRUCTURED, () =>
    join(
      chunk(0, CHUNK.BLOCK_STATUS, 2, [...u32(5), ...u32(1), ...u32(0)]),
      chunk(DONE, CHUNK.BLOCK_STATUS, 2, [...u32(5), ...u32(1), ...u32(0)]),
    )],
  ["the end without a status", STRUCTURED, () => chunk(DONE, CHUNK.NONE, 2, [])],
];

for (const [name, form, bytes] of HOSTILE) {
  Deno.test(`ReplyParser refuses ${name}`, () => {
    for (const step of [1, 1 << 20]) {
      const requests = [read(1000, 100), write(), status(1000, 100)];
      assertThrows(() => new Bench(form, requests).feed(bytes(), step), ProtocolError);
    }
  });
}

Deno.test("ReplyParser puts random READs together whatever the chunks, their order and the cuts", () => {
  const cut = fc.record({ size: fc.integer({ min: 1, max: 40_000 }), hole: fc.boolean() });
  const reads = fc.array(fc.array(cut, { minLength: 1, maxLength: 6 }), {
    minLength: 1,
    maxLength: 4,
  });
  const order = fc.infiniteStream(fc.nat());
  fc.assert(
    fc.property(reads, order, fc.integer({ min: 1, max: 90_000 }), (plans, picks, step) => {
      const requests: ClientRequest[] = [];
      const expected: Uint8Array[] = [];
      const streams: Uint8Array[][] = [];
      for (const [low, plan] of plans.entries()) {
        const length = plan.reduce((sum, { size }) => sum + size, 0);
        const offset = 2 ** 33 + low;
        const data = new Uint8Array(length);
        let at = 0;
        const chunks = plan.map(({ size, hole }) => {
          const start = u64(offset + at);
          if (!hole) data.subarray(at, at + size).fill(1 + (at % 255));
          const body = data.subarray(at, at + size);
          at += size;
          return hole
            ? chunk(0, CHUNK.OFFSET_HOLE, low, join(start, u32(size)))
            : chunk(0, CHUNK.OFFSET_DATA, low, join(start, body));
        });
        const shuffled = chunks.map((bytes) => [picks.next().value, bytes] as const)
          .sort(([a], [b]) => a - b).map(([, bytes]) => bytes);
        streams.push([...shuffled, chunk(DONE, CHUNK.NONE, low, [])]);
        requests.push(read(offset, length));
        expected.push(data);
      }
      const bench = new Bench(STRUCTURED, requests);
      while (streams.some((stream) => stream.length > 0)) {
        const stream = streams[picks.next().value % streams.length]!;
        const bytes = stream.shift();
        if (bytes !== undefined) bench.feed(bytes, step);
      }
      for (const [index, request] of requests.entries()) {
        assertEquals(bench.answers.get(request)?.error, 0);
        assertEquals(request.data, expected[index]!);
      }
    }),
    { numRuns: 50 },
  );
});

Deno.test("ReplyParser throws nothing but ProtocolError and never writes outside a buffer", () => {
  const good = join(
    chunk(0, CHUNK.OFFSET_DATA, 0, [...u64(1000), ...new Uint8Array(50).fill(1)]),
    chunk(DONE, CHUNK.NONE, 1, []),
    chunk(DONE, CHUNK.OFFSET_HOLE, 0, [...u64(1050), ...u32(50)]),
    chunk(DONE, CHUNK.BLOCK_STATUS, 2, [...u32(5), ...u32(60), ...u32(0), ...u32(60), ...u32(3)]),
    errorChunk(DONE, 3, 5, "message", u64(1001)),
  );
  const position = fc.nat(good.length - 1);
  const mutation = fc.tuple(position, fc.constantFrom(0, 1, 2, 5, 0x7f, 0x80, 0xff));
  fc.assert(
    fc.property(
      fc.array(mutation, { maxLength: 6 }),
      fc.integer({ min: 1, max: 300 }),
      (list, step) => {
        const bytes = good.slice();
        for (const [at, value] of list) bytes[at] = value;
        const memory = new Uint8Array(300).fill(0xaa);
        const target = memory.subarray(100, 200);
        const requests = [
          new ClientRequest(COMMAND.READ, 0, 1000, 100, target),
          write(),
          status(1000, 100),
          read(1000, 100),
        ];
        try {
          new Bench(STRUCTURED, requests).feed(bytes, step);
        } catch (error) {
          if (!(error instanceof ProtocolError)) throw error;
        }
        assert(memory.every((byte, at) => byte === 0xaa || (at >= 100 && at < 200)));
      },
    ),
    { numRuns: 3000 },
  );
});
