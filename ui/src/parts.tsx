// SPDX-License-Identifier: Apache-2.0
// Small parts that several views use. Names come from Dag authors: they are only ever rendered as text.
import type { ReactNode } from "react";
import { Link } from "react-router-dom";

import type { Backend, Minute, State, TaskName, Uncounted } from "./api";

const STATES: Record<State, { words: string; tone: Tone }> = {
  open: { tone: "good", words: "Open" },
  cordoned: { tone: "held", words: "Cordoned" },
  drained: { tone: "rest", words: "Drained" },
  draining: { tone: "held", words: "Draining" },
  removed: { tone: "held", words: "Removed" },
  failing: { tone: "bad", words: "Failing" },
};

type Tone = "good" | "held" | "rest" | "bad";

/** Why a backend takes no work, or a part of it takes none; no trouble where people have decided so. */
export function TroubleText({ state, trouble }: { readonly state: State | null; readonly trouble: string | null }) {
  if (trouble === null) {
    return undefined;
  }
  const isDecided = state === "cordoned" || state === "drained" || state === "draining";
  return <div className={isDecided ? "dsp-small dsp-name" : "dsp-trouble"}>{trouble}</div>;
}

export function StateBadge({ state }: { readonly state: State }) {
  const { tone, words } = STATES[state];
  return <span className={`dsp-badge dsp-${tone}`}>{words}</span>;
}

export function Notice({ children, tone }: { readonly children: ReactNode; readonly tone: "info" | "bad" }) {
  return (
    <div className={`dsp-notice dsp-notice-${tone}`} role={tone === "bad" ? "alert" : "note"}>
      {children}
    </div>
  );
}

/** Schedulers whose tasks no number has. */
export function NotCounted({ uncounted }: { readonly uncounted: Uncounted[] }) {
  return uncounted.map((each) => (
    <Notice key={`${each.scheduler}/${each.team ?? ""}`} tone="bad">
      {each.words}
    </Notice>
  ));
}

/** Seconds in at most two units. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const parts: [number, string][] = [
    [Math.floor(whole / 86_400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first === -1) {
    return "0 s";
  }
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(" ");
}

/** A point in time, relative to the server's clock. */
export function When({ at, now }: { readonly at: string; readonly now: string }) {
  const seconds = (Date.parse(now) - Date.parse(at)) / 1000;
  return (
    <time dateTime={at} title={new Date(at).toLocaleString()}>
      {seconds >= 0 ? `${duration(seconds)} ago` : `in ${duration(-seconds)}`}
    </time>
  );
}

/** How long something has lasted. */
export function Since({ at, now }: { readonly at: string; readonly now: string }) {
  return (
    <time dateTime={at} title={new Date(at).toLocaleString()}>
      {duration((Date.parse(now) - Date.parse(at)) / 1000)}
    </time>
  );
}

export function count(number: number): string {
  return number.toLocaleString("en");
}

export function plural(number: number, noun: string): string {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** Slots in use, taken ahead, and free. */
export function Slots({ backend }: { readonly backend: Backend }) {
  const { ahead, slots, used } = backend;
  const whole = Math.max(slots, used + ahead, 1);
  const words = `${count(used)} of ${count(slots)} slots in use${ahead ? `, ${count(ahead)} given ahead` : ""}`;
  return (
    <div>
      <div aria-label={words} className="dsp-bar" role="img" title={words}>
        <span className="dsp-used" style={{ width: `${(100 * used) / whole}%` }} />
        <span className="dsp-ahead" style={{ width: `${(100 * ahead) / whole}%` }} />
      </div>
      <span className="dsp-small">
        {count(used)} of {count(slots)} in use{ahead ? `, ${count(ahead)} ahead` : ""}
      </span>
    </div>
  );
}

const WIDTH = 120;
const HEIGHT = 28;

/** What came and went in the last minutes. */
export function Rates({ backend }: { readonly backend: Backend }) {
  const { ended_per_minute: ended, minutes, submitted_per_minute: submitted } = backend;
  const top = Math.max(1, ...minutes.flatMap((minute) => [minute.submitted, minute.ended]));
  const total = (of: (minute: Minute) => number) => minutes.reduce((sum, minute) => sum + of(minute), 0);
  const words =
    `In the last ${plural(minutes.length, "minute")}: ` +
    `${count(total((minute) => minute.submitted))} given, ${count(total((minute) => minute.ended))} ended`;
  const line = (of: (minute: Minute) => number) =>
    minutes
      .map((minute, index) => {
        const x = minutes.length > 1 ? (index * (WIDTH - 2)) / (minutes.length - 1) + 1 : WIDTH / 2;
        return `${x.toFixed(1)},${(HEIGHT - 2 - ((HEIGHT - 4) * of(minute)) / top).toFixed(1)}`;
      })
      .join(" ");
  return (
    <div>
      <svg aria-label={words} height={HEIGHT} role="img" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} width={WIDTH}>
        <title>{words}</title>
        <polyline className="dsp-line-in" fill="none" points={line((minute) => minute.submitted)} />
        <polyline className="dsp-line-out" fill="none" points={line((minute) => minute.ended)} />
      </svg>
      <div className="dsp-small">
        <span className="dsp-key-in">{count(submitted)} in</span>{" "}
        <span className="dsp-key-out">{count(ended)} out</span> a minute
      </div>
    </div>
  );
}

/** A task instance, with a link to its page in Airflow. */
export function TaskLink({ task }: { readonly task: TaskName }) {
  if (!task.dag_id) {
    return <span className="dsp-name">{task.task_id}</span>;
  }
  const part = encodeURIComponent;
  const index = task.map_index >= 0 ? `/mapped/${task.map_index}` : "";
  return (
    <Link
      className="dsp-name"
      to={`/dags/${part(task.dag_id)}/runs/${part(task.run_id)}/tasks/${part(task.task_id)}${index}`}
    >
      {task.task_id}
      {task.map_index >= 0 ? ` [${task.map_index}]` : ""}
    </Link>
  );
}

export function DagLink({ dagId }: { readonly dagId: string }) {
  return (
    <Link className="dsp-name" to={`/dags/${encodeURIComponent(dagId)}`}>
      {dagId}
    </Link>
  );
}

/** The heading of a row about a workload: of a task with its Dag and run, of anything else with its kind. */
export function TaskCell({ task }: { readonly task: TaskName & { kind?: string } }) {
  return (
    <th className="dsp-wide" scope="row">
      <TaskLink task={task} />
      {task.dag_id ? (
        <div className="dsp-small">
          <DagLink dagId={task.dag_id} /> <span className="dsp-name">{task.run_id}</span>
        </div>
      ) : (
        <div className="dsp-small">{task.kind ?? ""}</div>
      )}
    </th>
  );
}

/** A link within the page. */
export function ViewLink({
  children,
  current,
  parameters,
}: {
  readonly children: ReactNode;
  readonly current?: boolean;
  readonly parameters: Record<string, string>;
}) {
  return (
    <Link
      aria-current={current ? "page" : undefined}
      to={{ pathname: "/plugin/dispatch", search: `?${new URLSearchParams(parameters).toString()}` }}
    >
      {children}
    </Link>
  );
}
