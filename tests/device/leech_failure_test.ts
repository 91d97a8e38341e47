/**
 * What `telemap leech` says where it cannot begin: one line that tells what to do, and nothing is left
 * behind that was not there.
 */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { requires, withReason } from "../requires.ts";
import { nextOf, telemap, TelemapProcess } from "../telemap_process.ts";
import { shell, temporaryDirectory, tryShell } from "./command.ts";

const needs = requires("root", "/dev/fuse");
const DEVICE = ["--device", "fuse", "--json"] as const;

/** A seeder that wants a token, and what others find beside its region. */
interface Site {
  directory: string;
  url: string;
  token: string;
  seeder: TelemapProcess;
}

function test(name: string, fn: (site: Site) => Promise<void>): void {
  Deno.test({
    name: withReason(name, needs),
    ignore: needs.ignore,
    async fn() {
      using directory = temporaryDirectory();
      const token = `${directory.path}/token`;
      await Deno.writeTextFile(token, "sesame\n");
      await shell(`head -c 4M /dev/urandom > ${directory.path}/region`);
      await using seeder = new TelemapProcess([
        ...["seed", `file:${directory.path}/region`, "--token-file", token, ...DEVICE],
        ...["--listen", "telemap://127.0.0.1:0"],
      ]);
      const { url } = await seeder.next();
      await fn({ directory: directory.path, url: `${url}`, token, seeder });
    },
  });
}

function filesIn(directory: string): string[] {
  return Array.from(Deno.readDirSync(directory), ({ name }) => name).sort();
}

/** Expects that this is refused with that code and those words on one line, and no more files. */
async function refused(
  { directory, token }: Site,
  [url, cache, ...more]: string[],
  code: number,
  ...words: string[]
): Promise<void> {
  const before = filesIn(directory);
  const shown = more.length > 0 ? more : ["--token-file", token];
  const outcome = await telemap(["leech", url!, "--cache", cache!, ...DEVICE, ...shown]);
  const { err, out } = outcome;
  assertEquals([outcome.code, err.split("\n").length, out], [code, 1, ""], err);
  for (const word of words) assertStringIncludes(err, word);
  assertEquals(filesIn(directory), before);
}

/** Runs with a small file system of its own, in `directory/small`. */
async function withSmall(
  directory: string,
  options: string,
  fn: (small: string) => Promise<void>,
): Promise<void> {
  const small = `${directory}/small`;
  await shell(`mkdir ${small} && mount -t tmpfs -o ${options} none ${small}`);
  try {
    await fn(small);
  } finally {
    await tryShell(`umount --lazy ${small}`);
  }
}

test("a source that is not there, or wants another token, is told", async (site) => {
  const { directory, url } = site, copy = `file:${directory}/copy`;
  const wrong = `${directory}/wrong`;
  await Deno.writeTextFile(wrong, "sesam\n");
  const nobody = `telemap+unix:///?socket=${directory}/nobody`;
  await refused(site, [nobody, copy], 1, "ENOENT", "is the server running");
  await refused(
    site,
    [url, copy, "--token-file", wrong],
    1,
    "The token is wrong; give the server's token",
  );
  await refused(site, [url, copy, "--insecure"], 1, "A token is needed; give the server's token");
});

test("a place for the copy that cannot be written is told", async (site) => {
  const { directory, url } = site;
  await refused(site, [url, `file:${directory}/missing/copy`], 1, "ENOENT", "check the path");
  await withSmall(directory, "ro,size=1m", async (small) => {
    await refused(site, [url, `file:${small}/copy`], 1, "EROFS", "is mounted read-only");
    assertEquals(filesIn(small), []);
  });
});

test("a place for the copy that is full is told", async (site) => {
  const { directory, url } = site;
  await withSmall(directory, "size=256k", async (small) => {
    await refused(site, [url, `file:${small}/copy`], 1, "ENOSPC", small, "make room");
  });
});

test("a place where another process has its copy is left to it", async (site) => {
  const { directory, url, token } = site, copy = `file:${directory}/copy`;
  await using standby = new TelemapProcess([
    ...["leech", url, "--cache", copy, "--token-file", token, "--follow", "100ms", ...DEVICE],
  ]);
  await nextOf(standby, "lag");
  await refused(site, [url, copy], 1, "EBUSY", `process ${standby.pid} `, "end it first");
  await nextOf(standby, "lag");
  standby.kill("SIGINT");
  assertEquals((await standby.end()).code, 0);
});

test("a place from where a region was given away is not used again", async (site) => {
  const { directory, url, token, seeder } = site;
  await using leecher = new TelemapProcess([
    ...["leech", url, "--cache", `file:${directory}/copy`, "--token-file", token, ...DEVICE],
    ...["--listen", "telemap://127.0.0.1:0"],
  ]);
  const next = await nextOf(leecher, "seeding");
  assertEquals((await seeder.end()).code, 0);
  const given = `file:${directory}/region`;
  await refused(
    site,
    [`${next["url"]}`, given],
    2,
    "was given away (epoch 1)",
    `rm -f '${directory}/region' '${directory}/region.handover'`,
  );
  await refused(site, [`${next["url"]}`, `file:${directory}/token`], 2, "something else");
});
