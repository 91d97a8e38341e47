/**
 * The beginnings of the URLs that name regions and addresses, for help and completions.
 *
 * @module
 */

/** A way to begin a URL. */
export interface UrlForm {
  /** What the shell offers. */
  start: string;
  /** The whole form, for people. */
  form: string;
  /** What it names. */
  help: string;
}

/** All forms, stores first. */
export const URL_FORMS: readonly UrlForm[] = [
  { start: "memory:", form: "memory:1GiB", help: "bytes in memory" },
  {
    start: "pattern:",
    form: "pattern:1GiB?seed=7",
    help: "bytes that follow from their offset and a seed; read-only",
  },
  { start: "file:/", form: "file:/PATH?size=1GiB", help: "a file; holes stay holes" },
  {
    start: "dir:/",
    form: "dir:/PATH?size=1GiB&chunk=1MiB",
    help: "a directory with a file for each chunk",
  },
  {
    start: "https://",
    form: "https://HOST/PATH",
    help: "an object of an HTTP server that sends ranges; read-only",
  },
  { start: "nbd://", form: "nbd://HOST:PORT/NAME", help: "an NBD export" },
  {
    start: "nbd+unix:///",
    form: "nbd+unix:///NAME?socket=/PATH",
    help: "an NBD export at a Unix socket",
  },
  { start: "telemap://", form: "telemap://HOST:PORT", help: "a region that telemap serves" },
  {
    start: "telemap+unix:///",
    form: "telemap+unix:///?socket=/PATH",
    help: "the same at a Unix socket",
  },
  { start: "part:", form: "part:URL#NAME", help: "one part of a group that lies there" },
  {
    start: "delay:",
    form: "delay:URL#rtt=25ms&rate=1GB/s",
    help: "a region behind a slow link, for trials",
  },
];
