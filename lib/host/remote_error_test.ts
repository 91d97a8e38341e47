import { assert, assertEquals } from "@std/assert";
import { SystemError } from "../../ffi/errno.ts";
import {
  ChangedError,
  ClosedError,
  ConnectionError,
  DeadlineError,
  errorCode,
  IntegrityError,
  ProtocolError,
  ReadOnlyError,
  RemoteError,
  TelemapError,
  UnsupportedError,
  UsageError,
} from "../backend/errors.ts";
import { packError, unpackError } from "./remote_error.ts";

/** The error as it arrives in another isolate. */
function cross(error: unknown): Error {
  return unpackError(structuredClone(packError(error)));
}

Deno.test("errors that callers tell apart keep their class, text and code", () => {
  const hinted = new UsageError("Cannot use it", { hint: "use another" });
  const classes = [
    ChangedError,
    ClosedError,
    ConnectionError,
    DeadlineError,
    IntegrityError,
    ProtocolError,
    UnsupportedError,
  ];
  const errors = [
    hinted,
    new ReadOnlyError(),
    new RangeError("outside"),
    ...classes.map((kind) => new kind("text")),
  ];
  for (const error of errors) {
    const arrived = cross(error);
    assert(arrived instanceof (error.constructor as typeof TelemapError), error.name);
    assertEquals(arrived.message, error.message);
    assertEquals(arrived.name, error.name);
    assertEquals(errorCode(arrived), errorCode(error));
  }
});

Deno.test("other errors keep their text and code", () => {
  const system = new SystemError({ syscall: "write", errno: 28, subject: "it" });
  const remote = new RemoteError("EDQUOT", "The peer is full");
  for (const error of [system, remote, new Error("plain"), new TypeError("type")]) {
    const arrived = cross(error);
    assertEquals(arrived.message, error.message);
    assertEquals(arrived.name, error.name);
    assertEquals(errorCode(arrived), errorCode(error));
  }
  assertEquals(cross("a text").message, "a text");
  assertEquals(cross(undefined).message, "undefined");
});
