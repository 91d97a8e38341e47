/**
 * A TLS certificate for this host, signed by its own key, as X.509 wants it (RFC 5280).
 *
 * @module
 */
import { generateKeyPairSync, sign } from "node:crypto";

/** A certificate and its key, in PEM. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

const DAY_MS = 86_400_000;

/** Makes a certificate for `localhost` and 127.0.0.1 that is good for a day. */
export function makeCertificate(): Certificate {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const algorithm = sequence(ECDSA_SHA256);
  const name = sequence(set(sequence(COMMON_NAME, der(0x0c, text("telemap test")))));
  const now = Date.now();
  const names = sequence(der(0x82, text("localhost")), der(0x87, [127, 0, 0, 1]));
  const signed = sequence(
    der(0xa0, der(0x02, [2])),
    der(0x02, [1]),
    algorithm,
    name,
    sequence(time(now - DAY_MS), time(now + DAY_MS)),
    name,
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, sequence(sequence(ALTERNATIVE_NAMES, der(0x04, names)))),
  );
  const signature = sign("sha256", signed, privateKey);
  const certificate = sequence(signed, algorithm, der(0x03, [0, ...signature]));
  const lines = certificate.toBase64().replace(/.{64}/g, "$&\n");
  return {
    cert: `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ type: "pkcs8", format: "pem" }) as string,
  };
}

/** 1.2.840.10045.4.3.2 */
const ECDSA_SHA256 = der(0x06, [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]);
/** 2.5.4.3 */
const COMMON_NAME = der(0x06, [0x55, 0x04, 0x03]);
/** 2.5.29.17 */
const ALTERNATIVE_NAMES = der(0x06, [0x55, 0x1d, 0x11]);

/** A value in DER, of any length below 2^16. */
function der(tag: number, content: Iterable<number>): Uint8Array<ArrayBuffer> {
  const bytes = [...content];
  const count = bytes.length;
  // The shortest form of the length is the only one.
  const length = count < 0x80
    ? [count]
    : count < 0x100
    ? [0x81, count]
    : [0x82, count >>> 8, count & 0xff];
  return new Uint8Array([tag, ...length, ...bytes]);
}

function sequence(...parts: Iterable<number>[]): Uint8Array<ArrayBuffer> {
  return der(0x30, parts.flatMap((part) => [...part]));
}

function set(part: Iterable<number>): Uint8Array<ArrayBuffer> {
  return der(0x31, part);
}

function text(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}

/** A moment as UTCTime. */
function time(ms: number): Uint8Array {
  const digits = new Date(ms).toISOString().replace(/[^0-9]/g, "");
  return der(0x17, text(`${digits.slice(2, 14)}Z`));
}
