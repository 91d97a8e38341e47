import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import fc from "fast-check";
import { UsageError } from "../backend/errors.ts";
import { type Address, formatAddress, parseAddress } from "./address.ts";

function address(part: Partial<Address>): Address {
  return {
    protocol: "nbd",
    tls: false,
    transport: { kind: "tcp", host: "localhost", port: 10809 },
    name: "",
    params: new Map(),
    ...part,
  };
}

Deno.test("parseAddress() takes the TCP forms", () => {
  const tcp = (host: string, port: number) => ({ kind: "tcp" as const, host, port });
  assertEquals(
    parseAddress("nbd://example.org"),
    address({ transport: tcp("example.org", 10809) }),
  );
  assertEquals(
    parseAddress("telemap://127.0.0.1:0/"),
    address({ protocol: "telemap", transport: tcp("127.0.0.1", 0) }),
  );
  assertEquals(
    parseAddress("TELEMAPS://h/disk"),
    address({ protocol: "telemap", tls: true, transport: tcp("h", 4100), name: "disk" }),
  );
  assertEquals(
    parseAddress("nbds://[::1]:1/a/b"),
    address({ tls: true, transport: tcp("[::1]", 1), name: "a/b" }),
  );
  assertEquals(parseAddress("nbd:///x"), address({ name: "x" }));
  assertEquals(
    parseAddress(new URL("nbd://h/%C3%BC%20+")),
    address({ transport: tcp("h", 10809), name: "ü +" }),
  );
});

Deno.test("parseAddress() takes the Unix and systemd forms", () => {
  assertEquals(
    parseAddress("nbd+unix:///?socket=/tmp/a+b%20c.sock"),
    address({ transport: { kind: "unix", path: "/tmp/a+b c.sock" } }),
  );
  assertEquals(
    parseAddress("telemap+unix:///..?socket=s"),
    address({ protocol: "telemap", transport: { kind: "unix", path: "s" }, name: ".." }),
  );
  assertEquals(
    parseAddress("nbd+systemd:///"),
    address({ transport: { kind: "systemd", fd: 3 } }),
  );
  assertEquals(
    parseAddress("telemap+systemd:///x?fd=7").transport,
    { kind: "systemd", fd: 7 },
  );
});

Deno.test("parseAddress() takes only the parameters that the caller knows", () => {
  assertEquals(
    parseAddress("nbd://h?connections=4", ["connections"]).params.get("connections"),
    "4",
  );
  const error = assertThrows(() => parseAddress("nbd://h?connections=4"), UsageError);
  assertStringIncludes(error.message, '"connections" is not known');
});

Deno.test("parseAddress() refuses what is not of the forms and says which are", () => {
  const bad = [
    "",
    "/tmp/x.sock",
    "http://h/",
    "nbd:h",
    "nbd+vsock://2/",
    "nbd://h:70000/",
    "nbd://h:x/",
    "nbd://user@h/",
    "nbd://a b/",
    "nbd://[::g]/",
    "nbd://[1.2.3.4]/",
    "nbd://h/#x",
    "nbd://h/%zz",
    "nbd://h/%ff",
    "nbd://h/%00",
    "nbd://h/\ud800",
    `nbd://h/${"n".repeat(4097)}`,
    "nbd+unix:///",
    "nbd+unix:///?socket=",
    "nbd+unix://h/?socket=/s",
    "nbd+unix:///?socket=/a&socket=/b",
    `nbd+unix:///?socket=/${"s".repeat(107)}`,
    "nbd://h?socket=/s",
    "nbd+systemd:///?fd=2",
    "nbd+systemd:///?fd=x",
  ];
  for (const url of bad) {
    const error = assertThrows(() => parseAddress(url), UsageError, undefined, url);
    assertStringIncludes(error.message, "expected nbd://HOST:PORT/NAME");
  }
});

Deno.test("formatAddress() writes what parseAddress() reads", () => {
  const text = fc.string({ unit: "grapheme", maxLength: 60 }).filter((s) => !s.includes("\0"));
  const transport = fc.oneof(
    fc.record({
      kind: fc.constant("tcp" as const),
      host: fc.constantFrom("localhost", "h.example-1.org", "10.0.0.1", "[::1]", "[fe80::1:2]"),
      port: fc.nat(0xffff),
    }, { noNullPrototype: true }),
    fc.record({
      kind: fc.constant("unix" as const),
      path: fc.string({ unit: "binary-ascii", minLength: 1, maxLength: 107 })
        .filter((s) => !s.includes("\0")),
    }, { noNullPrototype: true }),
    fc.record({ kind: fc.constant("systemd" as const), fd: fc.integer({ min: 3, max: 99999 }) }, {
      noNullPrototype: true,
    }),
  );
  const params = fc.uniqueArray(fc.tuple(text.map((s) => `x${s}`), text), {
    selector: ([key]) => key,
    maxLength: 3,
  });
  fc.assert(fc.property(
    fc.constantFrom("nbd" as const, "telemap" as const),
    fc.boolean(),
    transport,
    text,
    params,
    (protocol, tls, transport, name, pairs) => {
      const before: Address = { protocol, tls, transport, name, params: new Map(pairs) };
      const after = parseAddress(formatAddress(before), pairs.map(([key]) => key));
      assertEquals(after, before);
    },
  ));
});

Deno.test("parseAddress() throws nothing but UsageError", () => {
  const shaped = fc.tuple(
    fc.constantFrom("nbd", "telemaps", "nbd+unix", "nbd+systemd", "x"),
    fc.constantFrom(":", "://", ":///"),
    fc.string({ unit: "binary" }),
  ).map((parts) => parts.join(""));
  fc.assert(fc.property(shaped, (url) => {
    try {
      parseAddress(url);
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
    }
  }));
});
