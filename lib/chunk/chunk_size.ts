/**
 * How large the chunks of a cache are.
 *
 * @module
 */

/** Bytes of a chunk unless told. */
export const CHUNK_SIZE: number = 64 << 10;
