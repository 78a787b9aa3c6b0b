// SPDX-License-Identifier: Apache-2.0
// The REST API under the API server. Shapes as in operate/model.py, operate/past.py and operate/trying.py; times are ISO 8601.

export type State = "open" | "cordoned" | "drained" | "draining" | "removed" | "failing";
export type Command = "cordon" | "drain" | "resume" | "recall";

export type Order = {
  command: Command;
  backend: string;
  team: string | null;
  by: string;
  reason: string;
  since: string;
  until: string | null;
};

/** The answer to an order. */
export type GivenOrder = Order & { replaces: Order | null; warning: string | null };

export type Minute = { at: string; submitted: number; ended: number };

export type Backend = {
  name: string;
  team: string | null;
  executor: string;
  state: State;
  since: string;
  slots: number;
  used: number;
  ahead: number;
  free: number;
  held: number;
  oldest: string | null;
  submitted_per_minute: number;
  ended_per_minute: number;
  trouble: string | null;
  next_try: string | null;
  order: Order | null;
  dags: Record<string, number>;
  minutes: Minute[];
  returning: number;
  not_recalled: string[];
  not_begun: number;
  not_begun_since: string | null;
  hint: string | null;
};

export type Scheduler = {
  id: string;
  hostname: string;
  team: string | null;
  executor: string;
  lives: boolean;
  written: string;
  heartbeat: string;
  file: string | null;
  refused: string | null;
  api_trouble: string | null;
  other_version: string | null;
};

/** A scheduler whose tasks no number has. */
export type Uncounted = {
  scheduler: string;
  team: string | null;
  words: string;
  had: Record<string, number>;
  held: Record<string, number>;
};

export type Status = {
  now: string;
  schedulers: Scheduler[];
  backends: Backend[];
  problem: string | null;
  other_orders: Order[];
  uncounted: Uncounted[];
  may_act: boolean;
  acts_for: (string | null)[];
};

export type TaskName = { dag_id: string; task_id: string; run_id: string; map_index: number };

export type WaitingTask = TaskName & {
  try_number: number;
  kind: string;
  queue: string | null;
  team: string | null;
  route: string;
  targets: string[];
  reason: string;
  words: string;
  detail: string | null;
  since: string;
  position: number;
  expected: string | null;
  others: boolean;
  scheduler: string;
  usual: number | null;
};

export type WaitingGroup = {
  backend: string;
  team: string | null;
  reason: string;
  words: string;
  detail: string | null;
  held: number;
  oldest: string;
};

export type NotBegun = { backend: string; team: string | null; number: number; since: string };

export type Waiting = {
  now: string;
  total: number;
  groups: WaitingGroup[];
  tasks: WaitingTask[];
  problem: string | null;
  not_begun: NotBegun[];
  uncounted: Uncounted[];
};

export type RunningTask = TaskName & {
  backend: string;
  team: string | null;
  try_number: number;
  kind: string;
  queue: string | null;
  has_begun: boolean | null;
  since: string;
  scheduler: string;
};

export type Running = {
  now: string;
  total: number;
  tasks: RunningTask[];
  problem: string | null;
  uncounted: Uncounted[];
};

export type Forecast = {
  now: string;
  backend: string;
  team: string | null;
  has: number;
  not_begun: number;
  held: number;
  elsewhere: Record<string, number>;
  stay: number;
  problem: string | null;
  order: Order | null;
  is_cordoned: boolean;
  uncounted: Uncounted[];
};

export type Change = {
  at: string;
  event: string;
  words: string;
  by: string | null;
  backend: string | null;
  team: string | null;
  scheduler: string | null;
};

export type Step = { at: string; event: string; words: string; backend: string | null; detail: string | null };

export type Story = TaskName & {
  try_number: number;
  state: string | null;
  steps: Step[];
  waiting: WaitingTask | null;
  given: { backend: string; since: string; hint: string | null } | null;
  unqueued: string | null;
  orphaned: string | null;
};

export type Choice = { backend: string | null; queue: string | null; reason: string; words: string };

export type ExplainedTarget = {
  backend: string;
  queue: string | null;
  share: number | null;
  blocked: string | null;
  problem: string | null;
  uses: { reason: string; words: string; after: number }[];
  state: State | null;
  free: number | null;
  held: number | null;
  trouble: string | null;
};

export type Explained = {
  queue: string | null;
  dag_id: string | null;
  route: string;
  why: string;
  overflow_after: number | "never";
  targets: ExplainedTarget[];
  configured: Choice | null;
  now: Choice | null;
  problem: string | null;
};

export type MovedTask = TaskName & {
  queue: string | null;
  route_before: string;
  route_after: string;
  before: string[];
  after: string[];
};

export type WhatIf = {
  mistakes: { where: string; found: string; remedy: string }[];
  changes: { what: string; kind: string; details: string; effect: string }[];
  moved: MovedTask[];
  moved_total: number;
  looked_at: number;
  waiting: number;
  reads_file: boolean;
  problem: string | null;
};

export type Parameters = Record<string, string | number | null | undefined>;

/** The path of a question, without parameters that are empty. */
export function path(name: string, parameters: Parameters = {}): string {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const query = new URLSearchParams(given.map(([key, value]) => [key, String(value)])).toString();
  return query ? `${name}?${query}` : name;
}

/** The answer to a question. Throws an Error whose message is for people. */
export async function get<T>(question: string, signal?: AbortSignal): Promise<T> {
  return answerOf<T>(await ask(question, { signal }));
}

export async function post<T>(name: string, body: unknown): Promise<T> {
  return answerOf<T>(
    await ask(name, {
      body: JSON.stringify(body),
      headers: { "Content-Type": "application/json" },
      method: "POST",
    }),
  );
}

async function ask(name: string, options: RequestInit): Promise<Response> {
  try {
    return await fetch(address(name), { credentials: "same-origin", ...options });
  } catch {
    throw new Error("The server cannot be reached.");
  }
}

/** Airflow may be below a path of its host. */
function address(question: string): string {
  return new URL(`dispatch/api/${question}`, document.baseURI).href;
}

async function answerOf<T>(response: Response): Promise<T> {
  if (response.ok) {
    try {
      return (await response.json()) as T;
    } catch {
      throw new Error("The answer cannot be read: something in front of the server may have answered, such as a login page.");
    }
  }
  throw new Error(await wordsOf(response));
}

async function wordsOf(response: Response): Promise<string> {
  if (response.status === 401) {
    return "Your session has ended: load the page again.";
  }
  if (response.status === 403) {
    return "You do not have the right to do or see this.";
  }
  try {
    const detail: unknown = ((await response.json()) as { detail?: unknown }).detail;
    if (typeof detail === "string") {
      return detail;
    }
    if (Array.isArray(detail)) {
      return detail.map((each: { msg?: string }) => each.msg ?? "").join("; ");
    }
  } catch {
    // No JSON: a proxy has answered.
  }
  return `The server answers with an error (HTTP ${response.status}).`;
}
