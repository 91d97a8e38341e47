/**
 * The URLs of delayed regions: `delay:URL#rtt=25ms&rate=1GB/s&jitter=2ms&errors=0.01&cuts=1s/30s&seed=7`.
 *
 * What stands between the scheme and the last `#` is the URL of the region that is delayed, of any
 * kind; it may be delayed itself.
 *
 * @module
 */
import { parseDuration } from "../backend/duration.ts";
import { parseRate } from "../backend/rate.ts";
import { parseParameters, parseSeed, unusableUrl } from "../backend/url_parameters.ts";
import { checkDelayOptions, type DelayOptions } from "./delay.ts";

/** The parts of a delayed region's URL. */
export interface DelayUrl {
  /** The URL of the region that is delayed. */
  inner: string;
  /** The options with their `#`; empty where there are none. */
  fragment: string;
}

/** Takes a URL apart; undefined where it is not that of a delayed region. */
export function splitDelayUrl(url: string): DelayUrl | undefined {
  const match = /^delay:(.*?)(#[^#]*)?$/is.exec(url);
  return match === null ? undefined : { inner: match[1]!, fragment: match[2] ?? "" };
}

/**
 * What the fragment of a URL asks for: `rtt`, `jitter` (times), `rate` (bytes a second: `100MB/s`),
 * `errors` (a share), `cuts` (`1s/30s`: a silence of 1 s once in 30 s) and `seed`, as in
 * {@linkcode DelayOptions}. Throws `UsageError` on what is malformed, unknown or makes no sense.
 */
export function parseDelayOptions(url: string, { fragment }: DelayUrl): DelayOptions {
  const names = ["rtt", "rate", "jitter", "errors", "cuts", "seed"] as const;
  const { rtt, rate, jitter, errors, cuts, seed } = parseParameters(url, fragment.slice(1), names);
  const options: DelayOptions = {
    ...(rtt !== undefined && { rtt: parseDuration(rtt) }),
    ...(rate !== undefined && { rate: parseRate(rate) }),
    ...(jitter !== undefined && { jitter: parseDuration(jitter) }),
    ...(errors !== undefined && { errors: parseShare(url, errors) }),
    ...(cuts !== undefined && { cuts: parseCuts(url, cuts) }),
    ...(seed !== undefined && { seed: parseSeed(url, seed) }),
  };
  checkDelayOptions(options);
  return options;
}

function parseShare(url: string, text: string): number {
  if (/^[01](\.\d+)?$/.test(text)) return Number(text);
  throw unusableUrl(url, "errors is no share of calls", "write it as in errors=0.01");
}

function parseCuts(url: string, text: string): { silence: number; period: number } {
  const [silence, period, more] = text.split("/");
  if (silence !== undefined && period !== undefined && more === undefined) {
    return { silence: parseDuration(silence), period: parseDuration(period) };
  }
  throw unusableUrl(url, "cuts are not two times", "write cuts=1s/30s for 1 s once in 30 s");
}
