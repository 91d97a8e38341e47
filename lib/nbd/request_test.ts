import { assertEquals } from "@std/assert";
import { ClosedError, ReadOnlyError, TelemapError, UsageError } from "../backend/errors.ts";
import { nbdError, refusal, type RequestContext } from "./request.ts";

const READ = 0, WRITE = 1, FLUSH = 3, TRIM = 4, CACHE = 5, WRITE_ZEROES = 6, BLOCK_STATUS = 7;
const EPERM = 1, EIO = 5, ENOMEM = 12, EINVAL = 22, ENOSPC = 28, ESHUTDOWN = 108;

const KIB = 1024, MIB = 1 << 20, SIZE = 2 ** 40;
/** Every transmission flag but READ_ONLY (2). */
const ALL = 0xffff & ~2;
const READ_ONLY = 2;

const WRITABLE: RequestContext = { size: SIZE, flags: ALL, allocation: true };
const READABLE: RequestContext = { size: SIZE, flags: ALL | READ_ONLY, allocation: true };

type Row = [command: number, flags: number, offset: number, length: number, error: number];

function check(context: RequestContext, rows: Row[]): void {
  for (const [command, flags, offset, length, error] of rows) {
    const found = refusal(context, command, flags, offset, length);
    assertEquals(found, error, `Command ${command}, flags ${flags}, ${length} at ${offset}`);
  }
}

Deno.test("refusal() lets what is inside pass, down to the last byte", () => {
  for (const command of [READ, WRITE, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS]) {
    check(WRITABLE, [
      [command, 0, 0, KIB, 0],
      [command, 0, 1, 3, 0],
      [command, 0, SIZE - 1, 1, 0],
      [command, 0, SIZE - 32 * MIB, 32 * MIB, 0],
    ]);
  }
  check(WRITABLE, [[FLUSH, 0, 0, 0, 0]]);
});

Deno.test("refusal() tells what lies outside, by what the command would need", () => {
  const errors: [number, number][] = [
    [READ, EINVAL],
    [WRITE, ENOSPC],
    [WRITE_ZEROES, ENOSPC],
    [TRIM, EINVAL],
    [CACHE, EINVAL],
    [BLOCK_STATUS, EINVAL],
  ];
  for (const [command, error] of errors) {
    check(WRITABLE, [
      [command, 0, SIZE, 1, error],
      [command, 0, SIZE - 1, 2, error],
      [command, 0, SIZE + 1, 0, error],
      [command, 0, 2 ** 63, 512, error],
      [command, 0, 2 ** 64 - 2048, 4096, error],
    ]);
  }
});

Deno.test("refusal() takes empty ranges, but not for BLOCK_STATUS", () => {
  for (const command of [READ, WRITE, TRIM, CACHE, WRITE_ZEROES]) {
    check(WRITABLE, [[command, 0, 0, 0, 0], [command, 0, SIZE, 0, 0]]);
  }
  check(WRITABLE, [[BLOCK_STATUS, 0, 0, 0, EINVAL], [BLOCK_STATUS, 0, SIZE, 0, EINVAL]]);
});

Deno.test("refusal() limits payloads, and nothing else", () => {
  check(WRITABLE, [
    [READ, 0, 0, 32 * MIB + 1, EINVAL],
    [WRITE, 0, 0, 32 * MIB + 1, EINVAL],
    [READ, 0, 0, 0xffff_ffff, EINVAL],
    [WRITE, 0, SIZE, 0xffff_ffff, EINVAL],
    [TRIM, 0, 0, 0xffff_ffff, 0],
    [CACHE, 0, 0, 0xffff_ffff, 0],
    [WRITE_ZEROES, 0, 0, 0xffff_ffff, 0],
    [BLOCK_STATUS, 0, 0, 0xffff_ffff, 0],
  ]);
});

Deno.test("refusal() keeps a read-only export as it is, whatever else is wrong", () => {
  for (const command of [WRITE, TRIM, WRITE_ZEROES]) {
    check(READABLE, [
      [command, 0, 0, KIB, EPERM],
      [command, 0, 0, 0, EPERM],
      [command, 0, SIZE, KIB, EPERM],
      [command, 0, 0, 0xffff_ffff, EPERM],
    ]);
    const notOffered = { ...READABLE, flags: 1 | READ_ONLY };
    check(notOffered, [[command, 0, 0, KIB, EPERM]]);
  }
  check(READABLE, [
    [READ, 0, 0, KIB, 0],
    [FLUSH, 0, 0, 0, 0],
    [CACHE, 0, 0, KIB, 0],
    [BLOCK_STATUS, 0, 0, KIB, 0],
  ]);
});

Deno.test("refusal() takes FLUSH for the whole export only", () => {
  check(WRITABLE, [[FLUSH, 0, 0, 1, EINVAL], [FLUSH, 0, 1, 0, EINVAL], [FLUSH, 1, 0, 0, 0]]);
});

Deno.test("refusal() takes exactly the flags of each command", () => {
  const allowed: Record<number, number[]> = {
    [READ]: [0, 1, 4, 5],
    [WRITE]: [0, 1],
    [FLUSH]: [0, 1],
    [TRIM]: [0, 1],
    [CACHE]: [0, 1],
    [WRITE_ZEROES]: [0, 1, 2, 3, 16, 17, 18, 19],
    [BLOCK_STATUS]: [0, 1, 8, 9],
  };
  for (let command = 0; command < 70; command++) {
    for (let flags = 0; flags < 0x1_0000; flags = flags < 256 ? flags + 1 : flags * 2) {
      const length = command === FLUSH ? 0 : 512;
      const fine = allowed[command]?.includes(flags) === true;
      check(WRITABLE, [[command, flags, 0, length, fine ? 0 : EINVAL]]);
    }
  }
  for (const command of [2, 8, 0xffff]) check(READABLE, [[command, 0, 0, 0, EINVAL]]);
});

Deno.test("refusal() takes nothing that the client was not offered", () => {
  const without = (flag: number) => ({ ...WRITABLE, flags: ALL & ~flag });
  const SEND_FLUSH = 4, SEND_FUA = 8, SEND_TRIM = 0x20, SEND_WRITE_ZEROES = 0x40, SEND_DF = 0x80;
  const SEND_CACHE = 0x400, SEND_FAST_ZERO = 0x800;
  check(without(SEND_FLUSH), [[FLUSH, 0, 0, 0, EINVAL]]);
  check(without(SEND_FUA), [[WRITE, 1, 0, KIB, EINVAL], [WRITE, 0, 0, KIB, 0]]);
  check(without(SEND_TRIM), [[TRIM, 0, 0, KIB, EINVAL]]);
  check(without(SEND_WRITE_ZEROES), [[WRITE_ZEROES, 0, 0, KIB, EINVAL]]);
  check(without(SEND_DF), [[READ, 4, 0, KIB, EINVAL], [READ, 0, 0, KIB, 0]]);
  check(without(SEND_FAST_ZERO), [[WRITE_ZEROES, 16, 0, 9, EINVAL], [WRITE_ZEROES, 2, 0, 9, 0]]);
  check(without(SEND_CACHE), [[CACHE, 0, 0, KIB, 0]]);
  check({ ...WRITABLE, allocation: false }, [[BLOCK_STATUS, 0, 0, KIB, EINVAL]]);
});

Deno.test("refusal() knows the edges of small and large exports", () => {
  for (const size of [0, 1, 511, 512, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 53 - 1]) {
    check({ ...WRITABLE, size }, [
      [READ, 0, size, 0, 0],
      [READ, 0, size, 1, EINVAL],
      [READ, 0, 0, 1, size > 0 ? 0 : EINVAL],
      [READ, 0, Math.max(size - 1, 0), 1, size > 0 ? 0 : EINVAL],
      [READ, 0, Math.max(size - 1, 0), 2, EINVAL],
      [WRITE, 0, 2 ** 53, 1, ENOSPC],
    ]);
  }
});

Deno.test("nbdError() finds the protocol's number for what a backend threw", () => {
  const system = (code: string) => Object.assign(new Error(code), { code });
  const errors: [unknown, number][] = [
    [new ReadOnlyError(), EPERM],
    [new ClosedError("closed"), ESHUTDOWN],
    [new RangeError("outside"), EINVAL],
    [new UsageError("wrong"), EINVAL],
    [new TelemapError("ENOSPC", "full"), ENOSPC],
    [system("EDQUOT"), ENOSPC],
    [system("EFBIG"), ENOSPC],
    [system("EROFS"), EPERM],
    [system("EACCES"), EPERM],
    [system("ENOMEM"), ENOMEM],
    [system("ETIMEDOUT"), EIO],
    [system("EOPNOTSUPP"), EIO],
    [system("constructor"), EIO],
    [system("__proto__"), EIO],
    [Object.assign(new Error("a number"), { code: 5 }), EIO],
    [new Error("no code"), EIO],
    ["text", EIO],
    [undefined, EIO],
  ];
  for (const [error, number] of errors) assertEquals(nbdError(error), number, String(error));
});
