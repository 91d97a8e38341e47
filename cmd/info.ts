/**
 * `telemap info`: what there is to know of a region without reading it.
 *
 * @module
 */
import { type Backend, formatSize, openBackend } from "../mod.ts";
import { describeExport, listExports } from "../lib/nbd/client_open.ts";
import { FLAG } from "../lib/nbd/constants.ts";
import { type Address, parseAddress } from "../lib/net/address.ts";
import { type Command, defineCommand, JSON_OPTION } from "./command.ts";
import { readToken, TOKEN_OPTION } from "./token.ts";

/** See the module. */
export const info: Command = defineCommand({
  name: "info",
  summary: "Tell size, abilities and exports of a region",
  description: "",
  operands: [{ name: "URL", help: "URL of the region", value: "url" }],
  options: { "token-file": TOKEN_OPTION, json: JSON_OPTION },
  examples: [
    { call: "telemap info nbd://server/disk", does: "an NBD export, and what else is there" },
    { call: "telemap info file:/srv/disk.img --json", does: "a file, for a script" },
  ],
  async run([url], options) {
    const token = await readToken(options["token-file"]);
    const facts = await gather(url!, token);
    console.log(options.json ? JSON.stringify(facts) : table(facts));
  },
});

/** A maximum payload that means none. */
const UNLIMITED = 0xffffffff;

/** What is printed, by name. */
type Facts = Record<string, string | number | boolean | readonly unknown[] | undefined>;

async function gather(url: string, token: string | undefined): Promise<Facts> {
  if (/^nbds?(\+unix)?:/i.test(url)) return await nbdFacts(url, parseAddress(url));
  await using backend = await openBackend(url, { token });
  return backendFacts(url, backend);
}

function backendFacts(url: string, backend: Backend): Facts {
  const { size, blockSize, durable, readOnly, version } = backend;
  const abilities = (["zero", "discard", "extents"] as const)
    .filter((name) => backend[name] !== undefined);
  return {
    url,
    size,
    blockSize,
    durable,
    readOnly,
    abilities,
    ...(version !== undefined && { version }),
  };
}

async function nbdFacts(url: string, address: Address): Promise<Facts> {
  const { size, flags, blockSizes, structured, allocation, description } = await describeExport(
    address,
  );
  const names = Object.entries(FLAG).filter(([, bit]) => (flags & bit) !== 0).map(([name]) => name);
  return {
    url,
    size,
    blockSize: blockSizes?.minimum ?? 1,
    ...(blockSizes !== undefined && { preferredBlockSize: blockSizes.preferred }),
    ...(blockSizes !== undefined && blockSizes.maximum !== UNLIMITED && {
      maximumPayload: blockSizes.maximum,
    }),
    durable: (flags & FLAG.SEND_FLUSH) !== 0,
    readOnly: (flags & FLAG.READ_ONLY) !== 0,
    flags: names,
    structuredReplies: structured,
    metaContexts: allocation === undefined ? [] : ["base:allocation"],
    ...(description !== undefined && { description }),
    exports: await exportsOf(address),
  };
}

/** The exports of the server; undefined where it does not list them. */
async function exportsOf(address: Address): Promise<readonly unknown[] | undefined> {
  try {
    return await listExports(address);
  } catch {
    return undefined;
  }
}

/** Words of the table for names of the JSON. */
const LABELS: Record<string, string> = {
  url: "URL",
  blockSize: "Block size",
  preferredBlockSize: "Preferred block size",
  maximumPayload: "Maximum payload",
  readOnly: "Read-only",
  structuredReplies: "Structured replies",
  metaContexts: "Meta contexts",
};
const SIZES = ["size", "blockSize", "preferredBlockSize", "maximumPayload"];

function table(facts: Facts): string {
  const rows = Object.entries(facts).map(([name, value]) => [
    LABELS[name] ?? name[0]!.toUpperCase() + name.slice(1),
    SIZES.includes(name) ? formatSize(value as number) : words(value),
  ]);
  const width = Math.max(...rows.map(([label]) => label!.length));
  return rows.map(([label, value]) => `${label!.padEnd(width)}  ${value}`).join("\n");
}

function words(value: Facts[string]): string {
  if (value === undefined) return "not listed by the server";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "object") return `${value}`;
  if (value.length === 0) return "none";
  return value.map((one) => typeof one === "string" ? one : exportWords(one)).join(", ");
}

function exportWords(one: unknown): string {
  const { name, description } = one as { name: string; description: string };
  const quoted = JSON.stringify(name);
  return description === "" ? quoted : `${quoted} (${description})`;
}
