/**
 * Holds the stand-ins in `.jsr/` to what the real @std packages do, as far as this project uses
 * them. It passes against the real ones too: run it with the `links` of deno.json removed.
 *
 * @module
 */
import {
  assert,
  assertEquals,
  assertExists,
  AssertionError,
  assertIsError,
  assertMatch,
  assertNotEquals,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { concat } from "@std/bytes";
import { parseArgs, type ParseOptions } from "@std/cli/parse-args";
import { ProgressBar } from "@std/cli/unstable-progress-bar";
import { TextLineStream } from "@std/streams";

function refused(assertion: () => void): void {
  let thrown: unknown;
  try {
    assertion();
  } catch (error) {
    thrown = error;
  }
  if (!(thrown instanceof AssertionError)) throw new Error("The assertion let it pass");
}

Deno.test("assert: each assertion passes what holds", async () => {
  assert(1);
  assertEquals({ a: [1, new Map([["x", new Uint8Array(2)]])] }, {
    a: [1, new Map([["x", new Uint8Array(2)]])],
  });
  assertNotEquals({ a: 1 }, { a: 2 });
  assertStrictEquals(NaN, NaN);
  assertExists(0);
  assertStringIncludes("region", "gio");
  assertMatch("region", /^re/);
  assertIsError(new RangeError("far out"), RangeError, "far");
  assertEquals(assertThrows(() => JSON.parse("{"), SyntaxError, "JSON").name, "SyntaxError");
  await assertRejects(() => Promise.reject(new TypeError("off")), TypeError, "off");
});

Deno.test("assert: each assertion refuses what does not hold", async () => {
  refused(() => assert(""));
  refused(() => assertEquals<unknown>([1, 2], [1, 3]));
  refused(() => assertEquals<unknown>(new Set([1]), new Set([2])));
  refused(() => assertEquals<unknown>({ a: undefined }, {}));
  refused(() => assertNotEquals(new Date(1), new Date(1)));
  refused(() => assertStrictEquals({}, {}));
  refused(() => assertExists(null));
  refused(() => assertStringIncludes("region", "x"));
  refused(() => assertMatch("region", /x/));
  refused(() => assertIsError(new Error("near"), RangeError));
  refused(() => assertIsError(new Error("near"), Error, "far"));
  refused(() => assertThrows(() => {}));
  let rejected = false;
  await assertRejects(() => Promise.resolve()).catch(() => rejected = true);
  assert(rejected);
});

Deno.test("bytes: concat", () => {
  const whole = concat([new Uint8Array([1, 2]), new Uint8Array(), new Uint8Array([3])]);
  assertEquals(whole, new Uint8Array([1, 2, 3]));
});

const OPTIONS: ParseOptions = {
  boolean: ["json", "read-only"],
  string: ["name", "listen", "_"],
  collect: ["listen"],
  alias: { n: "name", j: "json" },
};

function parse(args: string[], options: ParseOptions = OPTIONS): Record<string, unknown> {
  return parseArgs(args, options);
}

Deno.test("cli: parseArgs tells options from operands", () => {
  const args = ["a", "--name=x=y", "--json", "b", "--listen", "u", "--listen=v", "--", "--c"];
  const parsed = parse(args);
  assertEquals(parsed._, ["a", "b", "--c"]);
  assertEquals(parsed["name"], "x=y");
  assertEquals(parsed["json"], true);
  assertEquals(parsed["read-only"], false);
  assertEquals(parsed["listen"], ["u", "v"]);
});

Deno.test("cli: parseArgs knows aliases, groups of letters and given booleans", () => {
  const parsed = parse(["-jn", "x", "--read-only=false", "7", "-"]);
  assertEquals(parsed["json"], true);
  assertEquals(parsed["name"], "x");
  assertEquals(parsed["read-only"], false);
  assertEquals(parsed._, ["7", "-"]);
  assertEquals(parse([])["listen"], []);
});

Deno.test("cli: parseArgs gives an empty text where a value is missing", () => {
  assertEquals(parse(["--name", "--json"])["name"], "");
  assertEquals(parse(["--name"])["name"], "");
  assertEquals(parse(["--name="])["name"], "");
  assertEquals(parse(["-n"])["name"], "");
});

Deno.test("cli: parseArgs asks what to do with the unknown", () => {
  const asked: unknown[] = [];
  const unknown = (arg: string, key?: string) => {
    asked.push([arg, key]);
    return key === undefined;
  };
  const parsed = parse(["a", "--wrong", "b", "--no-json", "-x"], {
    ...OPTIONS,
    unknown,
  });
  assertEquals(asked, [
    ["a", undefined],
    ["--wrong", "wrong"],
    ["--no-json", "no-json"],
    ["-x", "x"],
  ]);
  assertEquals(parsed._, ["a"]);
  assertEquals(parsed["wrong"], undefined);
});

Deno.test("cli: ProgressBar writes the line its formatter makes", async () => {
  const pieces: Uint8Array[] = [];
  const bar = new ProgressBar({
    writable: new WritableStream<Uint8Array>({
      write(piece) {
        pieces.push(piece);
      },
    }),
    max: 10,
    barLength: 4,
    interval: 60_000,
    formatter: ({ styledTime, progressBar, value, max, time, previousTime, previousValue }) =>
      `${styledTime} ${progressBar} ${value}/${max} ${time >= previousTime} ${previousValue}`,
  });
  bar.value = 5;
  await bar.stop();
  const written = new TextDecoder().decode(concat(pieces));
  assertStringIncludes(written, "00:00 ---- 0/10 true 0");
  assertStringIncludes(written, "00:00 ##-- 5/10 true 0");
  assert(written.endsWith("\n"));
});

Deno.test("streams: TextLineStream gives lines without their ends", async () => {
  const lines = ReadableStream.from(["a\nb", "c\r\n", "\nd"]).pipeThrough(new TextLineStream());
  assertEquals(await Array.fromAsync(lines), ["a", "bc", "", "d"]);
});
