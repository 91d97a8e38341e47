import { assertEquals, assertThrows } from "@std/assert";
import { UsageError } from "../backend/errors.ts";
import type { DelayOptions } from "./delay.ts";
import { parseDelayOptions, splitDelayUrl } from "./delay_url.ts";

function options(fragment: string): DelayOptions {
  const url = `delay:memory:1MiB#${fragment}`;
  return parseDelayOptions(url, splitDelayUrl(url)!);
}

Deno.test("a delayed region's URL holds that of the region, and options behind the last #", () => {
  const urls = {
    "delay:memory:1MiB": { inner: "memory:1MiB", fragment: "" },
    "delay:memory:1MiB#": { inner: "memory:1MiB", fragment: "#" },
    "DELAY:dir:/p?size=1GiB#rtt=1ms": { inner: "dir:/p?size=1GiB", fragment: "#rtt=1ms" },
    "delay:delay:file:/p#rtt=1ms#seed=1": { inner: "delay:file:/p#rtt=1ms", fragment: "#seed=1" },
  };
  for (const [url, parts] of Object.entries(urls)) assertEquals(splitDelayUrl(url), parts);
  for (const url of ["memory:1MiB", "file:/delay:x#rtt=1ms", "delays:x", ""]) {
    assertEquals(splitDelayUrl(url), undefined);
  }
});

Deno.test("the options of a URL are those of the stage", () => {
  assertEquals(options(""), {});
  assertEquals(
    options("rtt=25ms&rate=1GB/s&jitter=500us&errors=0.01&cuts=1.5s/1min&seed=7"),
    {
      rtt: 25,
      rate: 1e9,
      jitter: 0.5,
      errors: 0.01,
      cuts: { silence: 1500, period: 60_000 },
      seed: 7,
    },
  );
  assertEquals(options("rate=64MiB/s&errors=1&rtt=0"), { rate: 64 * 2 ** 20, errors: 1, rtt: 0 });
});

Deno.test("what is wrong with the options is said", () => {
  const wrong = {
    "rtt=25": "as a time",
    "rtt=": "as a time",
    "rtt=1h&rtt=2h": "it has rtt twice",
    "latency=1ms": "it may have rtt, rate, jitter, errors, cuts, seed",
    "rate=1GB": "as a rate",
    "rate=fast/s": "as a size",
    "rate=0/s": "a rate of 0 bytes",
    "errors=2": "errors=0.01",
    "errors=1.5": "0 to 1",
    "errors=1%": "errors=0.01",
    "cuts=1s": "cuts=1s/30s",
    "cuts=1s/2s/3s": "cuts=1s/30s",
    "cuts=2s/1s": "they must be apart",
    "seed=x": "seed is no whole number",
  };
  for (const [fragment, reason] of Object.entries(wrong)) {
    assertThrows(() => options(fragment), UsageError, reason, fragment);
  }
});
