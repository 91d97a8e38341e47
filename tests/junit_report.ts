/**
 * Reads the JUnit report of `deno test --junit-path`, so that tests can be counted exactly.
 *
 * Deno writes a test case for each test and for each of its steps (named `TEST > STEP`), and
 * one without a time for each test that `--filter` left out.
 *
 * @module
 */
import { SKIP_MARK } from "./requires.ts";

/** A test that was skipped. */
export interface SkippedTest {
  /** Its name without the reason. */
  name: string;
  /** Why, as `withReason` of requires.ts wrote it; empty where the test does not say. */
  reason: string;
}

/** A test that failed. */
export interface FailedTest {
  /** Its name. */
  name: string;
  /** What it and its steps threw, cut off after {@linkcode MOST_OF_REASON} characters a failure. */
  why: string;
}

/** What became of a set of tests. Steps count as part of their test. */
export interface TestCounts {
  /** Tests that passed. */
  passed: number;
  /** The tests that failed. */
  failed: FailedTest[];
  /** The tests that were not run because something is missing here. */
  skipped: SkippedTest[];
}

/** Characters of a failure that are kept: what a test says of itself, not all of its output. */
const MOST_OF_REASON = 4000;

const SUITE = /<testsuite [^>]*>(.*?)<\/testsuite>/gs;
const CASE = /<testcase ([^>]*?)(?:\/>|>(.*?)<\/testcase>)/gs;

const FAILURE = /<(?:failure|error)\b(?:[^>]*?\/>|[^>]*>(.*?)<\/(?:failure|error)>)/s;

/** Counts the tests of a report. */
export function parseReport(xml: string): TestCounts {
  const counts: TestCounts = { passed: 0, failed: [], skipped: [] };
  for (const suite of xml.matchAll(SUITE)) {
    const cases = [...suite[1]!.matchAll(CASE)]
      .map(([, attributes = "", body = ""]) => ({
        name: attribute(attributes, "name") ?? "",
        filteredOut: attribute(attributes, "time") === undefined,
        body,
      }));
    const names = new Set(cases.map(({ name }) => name));
    for (const { name, filteredOut, body } of cases) {
      if (filteredOut || isStep(name, names)) continue;
      if (FAILURE.test(body)) counts.failed.push({ name, why: whyFailed(name, cases) });
      else if (/<skipped\b/.test(body)) counts.skipped.push(takeReason(name));
      else counts.passed++;
    }
  }
  return counts;
}

function isStep(name: string, names: ReadonlySet<string>): boolean {
  for (let end = name.indexOf(" > "); end >= 0; end = name.indexOf(" > ", end + 1)) {
    if (names.has(name.slice(0, end))) return true;
  }
  return false;
}

/** What a test threw, and what its steps did. */
function whyFailed(name: string, cases: readonly { name: string; body: string }[]): string {
  return cases
    .filter((of) => of.name === name || of.name.startsWith(`${name} > `))
    .flatMap((of) => {
      const thrown = FAILURE.exec(of.body);
      if (thrown === null) return [];
      const step = of.name === name ? "" : `${of.name.slice(name.length + 3)}: `;
      return `${step}${unescape(thrown[1] ?? "").slice(0, MOST_OF_REASON)}`;
    }).join("\n");
}

function takeReason(name: string): SkippedTest {
  const [bare = "", reason = ""] = name.split(SKIP_MARK, 2);
  return { name: bare, reason };
}

function attribute(attributes: string, name: string): string | undefined {
  const value = new RegExp(`(?:^| )${name}="([^"]*)"`).exec(attributes)?.[1];
  return value === undefined ? undefined : unescape(value);
}

function unescape(text: string): string {
  return text.replace(/&(lt|gt|quot|apos|amp);/g, (_, entity: string) => ENTITIES[entity]!);
}

const ENTITIES: Record<string, string> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };
