import { assertEquals, assertThrows } from "@std/assert";
import { UsageError } from "../backend/errors.ts";
import { splitPartUrl } from "./part_url.ts";

Deno.test("a part's URL holds that of its group, and its name behind the last #", () => {
  const urls = {
    "part:file:/srv/vm#root": { inner: "file:/srv/vm", name: "root" },
    "PART:dir:/srv/vm?size=1GiB#a=b": { inner: "dir:/srv/vm?size=1GiB", name: "a=b" },
    "part:delay:file:/p#rtt=1ms#root": { inner: "delay:file:/p#rtt=1ms", name: "root" },
    "part:file:/p#a%23b%25c%20d%C3%A9": { inner: "file:/p", name: "a#b%c dé" },
  };
  for (const [url, parts] of Object.entries(urls)) assertEquals(splitPartUrl(url), parts);
  for (const url of ["file:/part:x#root", "parts:x#a", "memory:1MiB", ""]) {
    assertEquals(splitPartUrl(url), undefined);
  }
});

Deno.test("a part's URL without a group or a name is refused", () => {
  for (const url of ["part:", "part:file:/srv/vm", "part:file:/srv/vm#", "part:#root"]) {
    assertThrows(() => splitPartUrl(url), UsageError, "names no part");
  }
  assertThrows(() => splitPartUrl("part:file:/p#100%"), UsageError, "well-formed");
});
