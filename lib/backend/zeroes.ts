/**
 * Whether a content is all zeroes, so that it need not travel.
 *
 * @module
 */

/** Bytes that are looked at before the whole is. */
const PROBE = 8;

/** Whether all bytes are 0. Data is told apart by a few bytes at its ends and middle, mostly. */
export function isZero(bytes: Uint8Array): boolean {
  const middle = bytes.length >>> 1;
  return zeroBytes(bytes, 0, Math.min(PROBE, bytes.length)) &&
    zeroBytes(bytes, middle, Math.min(middle + PROBE, bytes.length)) &&
    zeroBytes(bytes, Math.max(bytes.length - PROBE, 0), bytes.length) &&
    zeroThroughout(bytes);
}

function zeroThroughout(bytes: Uint8Array): boolean {
  const head = Math.min(-bytes.byteOffset & 3, bytes.length);
  const words = (bytes.length - head) >>> 2;
  if (words === 0) return zeroBytes(bytes, 0, bytes.length);
  const aligned = new Uint32Array(bytes.buffer, bytes.byteOffset + head, words);
  return zeroBytes(bytes, 0, head) && zeroWords(aligned) &&
    zeroBytes(bytes, head + words * 4, bytes.length);
}

function zeroWords(words: Uint32Array): boolean {
  const blocks = words.length & ~7;
  let at = 0;
  for (; at < blocks; at += 8) {
    const any = words[at]! | words[at + 1]! | words[at + 2]! | words[at + 3]! |
      words[at + 4]! | words[at + 5]! | words[at + 6]! | words[at + 7]!;
    if (any !== 0) return false;
  }
  for (; at < words.length; at++) if (words[at] !== 0) return false;
  return true;
}

function zeroBytes(bytes: Uint8Array, from: number, to: number): boolean {
  for (let at = from; at < to; at++) if (bytes[at] !== 0) return false;
  return true;
}
