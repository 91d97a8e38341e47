import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { UsageError } from "./errors.ts";
import { fileUrl } from "./file_url.ts";
import { parseLocalUrl } from "./local_url.ts";

Deno.test("every form of a local URL is taken apart", () => {
  const GIB = 2 ** 30;
  const urls = {
    "memory:1GiB": { scheme: "memory", size: GIB },
    "MEMORY:4096": { scheme: "memory", size: 4096 },
    "pattern:1GiB": { scheme: "pattern", size: GIB },
    "pattern:1GiB?seed=7": { scheme: "pattern", size: GIB, seed: 7 },
    "file:/p": { scheme: "file", path: "/p" },
    "file:///p/q?size=1GiB": { scheme: "file", path: "/p/q", size: GIB },
    "file://localhost/p": { scheme: "file", path: "/p" },
    "file:rel/p?readonly": { scheme: "file", path: "rel/p", readOnly: true },
    "file:../p?readonly=false": { scheme: "file", path: "../p", readOnly: false },
    "file:/a%20b%3Fc%23d%25": { scheme: "file", path: "/a b?c#d%" },
    "file:/ä b": { scheme: "file", path: "/ä b" },
    "dir:/p?size=1GiB&chunk=64KiB": { scheme: "dir", path: "/p", size: GIB, chunkSize: 65536 },
    "dir:p?readonly=1": { scheme: "dir", path: "p", readOnly: true },
    "dir:///p": { scheme: "dir", path: "/p" },
  };
  for (const [url, store] of Object.entries(urls)) {
    assertEquals(parseLocalUrl(url), store as ReturnType<typeof parseLocalUrl>, url);
  }
  const url = new URL("file:/a b?size=1GiB");
  assertEquals(parseLocalUrl(url), { scheme: "file", path: "/a b", size: GIB });
});

Deno.test("URLs of other schemes are left to others", () => {
  for (const url of ["nbd://host/", "telemap://host:1", "files:/p", "/p", "p", ""]) {
    assertEquals(parseLocalUrl(url), undefined);
  }
});

Deno.test("what is wrong with a URL is said", () => {
  const wrong = {
    "memory:": "as a size",
    "memory://1GiB": "as a size",
    "memory:1GiB?size=2GiB": "it may have none",
    "pattern:": "as a size",
    "pattern:1GiB?seed=": "seed is no whole number",
    "pattern:1GiB?seed=-1": "seed is no whole number",
    "pattern:1GiB?seed=9007199254740992": "seed is no whole number",
    "pattern:1GiB?size=1": "it may have seed",
    "file:": "it has no path",
    "file://": "it has no path",
    "file://host/p": "names the host host",
    "dir://data/p": "one slash or three",
    "file:/p?Size=1GiB": "it may have size, readonly",
    "file:/p?size=1GiB&size=2GiB": "it has size twice",
    "file:/p?size=many": "as a size",
    "file:/p?readonly=maybe": "neither true nor false",
    "file:/p#1": "write %23 for #",
    "file:/p%2": "write %25 for %",
    "file:/p%00": "it holds a NUL",
    "dir:/p?chunks=1": "it may have size, chunk, readonly",
    "dir:/p?__proto__=1": "is unknown",
  };
  for (const [url, reason] of Object.entries(wrong)) {
    assertThrows(() => parseLocalUrl(url), UsageError, reason, url);
  }
});

Deno.test("the URL of a file leads back to it, whatever its name", () => {
  const names = fc.string({ unit: fc.constantFrom(..."aZä€😀 ?#%+&=/.\n\\:2"), minLength: 1 });
  fc.assert(fc.property(names, fc.maxSafeNat(), fc.boolean(), (name, size, readOnly) => {
    const path = `/${name}`;
    const expected = { scheme: "file" as const, path, size };
    assertEquals(
      parseLocalUrl(fileUrl({ path, size, readOnly })),
      readOnly ? { ...expected, readOnly } : expected,
    );
  }));
});
