import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { UsageError } from "../backend/errors.ts";
import { prepareMountPoint } from "./mount_point.ts";

function names(directory: string): string[] {
  return [...Deno.readDirSync(directory)].map(({ name }) => name).sort();
}

Deno.test("a fresh directory is private, and removed again", () => {
  const mountPoint = prepareMountPoint(undefined);
  assertMatch(mountPoint.path, /\/telemap-[^/]+$/);
  assertEquals(Deno.statSync(mountPoint.path).mode! & 0o777, 0o700);
  mountPoint.remove();
  assertThrows(() => Deno.statSync(mountPoint.path), Deno.errors.NotFound);
  mountPoint.remove();
});

Deno.test("an empty directory is used and stays, a missing one is made and removed", () => {
  const base = Deno.realPathSync(Deno.makeTempDirSync());
  Deno.mkdirSync(`${base}/empty`);
  Deno.symlinkSync(`${base}/empty`, `${base}/link`);
  const empty = prepareMountPoint(`${base}/link`);
  assertEquals(empty.path, `${base}/empty`);
  const made = prepareMountPoint(`${base}/made`);
  assertEquals(made.path, `${base}/made`);
  empty.remove();
  made.remove();
  assertEquals(names(base), ["empty", "link"]);
  Deno.removeSync(base, { recursive: true });
});

Deno.test("a made directory that somebody filled stays", () => {
  const mountPoint = prepareMountPoint(undefined);
  Deno.writeTextFileSync(`${mountPoint.path}/file`, "");
  mountPoint.remove();
  assertEquals(names(mountPoint.path), ["file"]);
  Deno.removeSync(mountPoint.path, { recursive: true });
});

Deno.test("places that cannot be mounted on are refused by name", () => {
  const base = Deno.makeTempDirSync();
  Deno.writeTextFileSync(`${base}/file`, "");
  assertThrows(() => prepareMountPoint(base), UsageError, 'not empty: it holds "file"');
  assertThrows(() => prepareMountPoint(`${base}/file`), UsageError, "not a directory");
  assertThrows(() => prepareMountPoint(`${base}/a/b`), UsageError, "above it does not exist");
  assertEquals(names(base), ["file"]);
  Deno.removeSync(base, { recursive: true });
});
