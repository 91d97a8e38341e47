import { assertEquals, assertThrows } from "@std/assert";
import { UsageError } from "../lib/backend/errors.ts";
import { defineCommand, type Input } from "./command.ts";
import { HELP_REQUEST, parseCommandLine } from "./parse.ts";

const COMMAND = defineCommand({
  name: "attach",
  summary: "Attach a region",
  description: "",
  operands: [
    { name: "BACKEND", help: "the region", value: "url" },
    { name: "MODE", help: "the mode", value: ["fast", "safe"], optional: true },
  ],
  options: {
    listen: { help: "where", value: "url", label: "URL", many: true, required: true },
    device: { help: "what", value: ["auto", "nbd"], default: "auto" },
    limit: { help: "how many", value: "count", label: "N" },
    chunk: { help: "how much", value: "size", label: "SIZE", default: "1MiB" },
    json: { help: "for scripts" },
  },
  examples: [],
  run() {},
});

function parse(...args: string[]): Input {
  const input = parseCommandLine(COMMAND, args);
  if (input === HELP_REQUEST) throw new Error("It asked for help");
  return input;
}

function refusal(...args: string[]): string {
  return assertThrows(() => parse(...args), UsageError).message;
}

Deno.test("options are read by their kind, wherever they stand", () => {
  assertEquals(
    parse("--listen", "nbd://a", "memory:1", "--limit=7", "--listen=nbd://b", "--json", "fast"),
    {
      operands: ["memory:1", "fast"],
      values: {
        listen: ["nbd://a", "nbd://b"],
        device: "auto",
        limit: 7,
        chunk: 1048576,
        json: true,
      },
    },
  );
});

Deno.test("options that are not given have their default or nothing", () => {
  assertEquals(parse("--listen=x", "memory:1").values, {
    listen: ["x"],
    device: "auto",
    limit: undefined,
    chunk: 1048576,
    json: false,
  });
});

Deno.test("what follows -- is an operand, and so is what looks like a number", () => {
  assertEquals(parse("--listen=x", "7").operands, ["7"]);
  assertEquals(parse("--listen=x", "--", "--json").operands, ["--json"]);
});

Deno.test("--help and -h win over everything that is missing", () => {
  assertEquals(parseCommandLine(COMMAND, ["--help"]), HELP_REQUEST);
  assertEquals(parseCommandLine(COMMAND, ["-h", "a", "fast"]), HELP_REQUEST);
});

Deno.test("each wrong use is refused in a line that names what is wrong", () => {
  const hint = "; see telemap attach --help";
  assertEquals(refusal("a", "--listen=x", "--colour=red"), `--colour is not known${hint}`);
  assertEquals(refusal("a", "--listen=x", "-q"), `-q is not known${hint}`);
  assertEquals(refusal("a", "--listen=x", "--no-json"), `--no-json is not known${hint}`);
  assertEquals(refusal("--listen=x"), `BACKEND is missing${hint}`);
  assertEquals(refusal("", "--listen=x"), `BACKEND is missing${hint}`);
  assertEquals(refusal("a", "slow", "--listen=x"), `MODE is one of fast, safe, not slow${hint}`);
  assertEquals(refusal("a", "fast", "b", "--listen=x"), `b is one operand too many${hint}`);
  assertEquals(refusal("a"), `--listen URL is missing${hint}`);
  assertEquals(refusal("a", "--listen"), `--listen needs a value${hint}`);
  assertEquals(refusal("a", "--listen=x", "--limit", "--json"), `--limit needs a value${hint}`);
  assertEquals(refusal("a", "--listen=x", "--limit=0"), `--limit is a number from 1, not 0${hint}`);
  assertEquals(
    refusal("a", "--listen=x", "--device=cdrom"),
    `--device is one of auto, nbd, not cdrom${hint}`,
  );
  assertEquals(refusal("a", "--listen=x", "--chunk=many").startsWith("Cannot read"), true);
});

Deno.test("a last operand that may be many takes all that follow", () => {
  const command = defineCommand({
    ...{ name: "tell", summary: "", description: "", options: {}, examples: [], run() {} },
    operands: [
      { name: "ACTION", help: "", value: ["one", "all"] },
      { name: "BACKEND", help: "", value: "url", many: true },
    ],
  });
  const operandsOf = (...args: string[]) => {
    const input = parseCommandLine(command, args);
    return input === HELP_REQUEST ? input : input.operands;
  };
  assertEquals(operandsOf("all", "a", "b", "c"), ["all", "a", "b", "c"]);
  assertThrows(() => operandsOf("all"), UsageError, "BACKEND is missing");
  assertThrows(() => operandsOf("all", "a", ""), UsageError, "BACKEND needs a value");
});
