// SPDX-License-Identifier: Apache-2.0
// What waits, grouped by reason; the first tasks of each backend with place and estimate.
import { type FormEvent, useState } from "react";
import { useSearchParams } from "react-router-dom";

import { type NotBegun, path, type Status, type Waiting, type WaitingTask } from "./api";
import { Table } from "./backends";
import { count, duration, Notice, plural, Since, TaskCell, ViewLink, When } from "./parts";
import { useAnswer } from "./polling";

const FIRST = 100;
const MOST = 1000;

export function WaitingView({ status }: { readonly status: Status | undefined }) {
  const [search, setSearch] = useSearchParams();
  const [backend, reason, dagId] = ["backend", "reason", "dag_id"].map((name) => search.get(name) ?? "");
  const [limit, setLimit] = useState(FIRST);
  const { data, error } = useAnswer<Waiting>(path("waiting", { backend, dag_id: dagId, limit, reason }));
  const choose = (changes: Record<string, string>) => {
    const next = new URLSearchParams({ backend: backend ?? "", dag_id: dagId ?? "", reason: reason ?? "", ...changes });
    [...next].filter(([, value]) => value === "").forEach(([name]) => next.delete(name));
    next.set("view", "waiting");
    setSearch(next);
  };
  const names = [...new Set((status?.backends ?? []).map((each) => each.name))];
  const reasons = new Map(data?.groups.map((group) => [group.reason, group.words]));
  return (
    <>
      <Filters
        backend={backend ?? ""}
        backends={names}
        choose={choose}
        dagId={dagId ?? ""}
        key={`${backend}/${reason}/${dagId}`}
        reason={reason ?? ""}
        reasons={reasons}
      />
      {error === undefined ? undefined : <Notice tone="bad">{error}</Notice>}
      {data?.problem ? <Notice tone="bad">{data.problem}</Notice> : undefined}
      {data === undefined ? <p>Loading …</p> : <Found dagId={dagId ?? ""} data={data} limit={limit} more={() => setLimit(MOST)} />}
    </>
  );
}

type FilterProps = {
  readonly backend: string;
  readonly backends: string[];
  readonly choose: (changes: Record<string, string>) => void;
  readonly dagId: string;
  readonly reason: string;
  readonly reasons: Map<string, string>;
};

function Filters({ backend, backends, choose, dagId, reason, reasons }: FilterProps) {
  const [dag, setDag] = useState(dagId);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    choose({ dag_id: dag.trim() });
  };
  const known = backend === "" || backends.includes(backend) ? backends : [backend, ...backends];
  const words = new Map(reasons);
  if (reason !== "" && !words.has(reason)) {
    words.set(reason, reason);
  }
  return (
    <form aria-label="Filters" className="dsp-filters" onSubmit={submit}>
      <label className="dsp-field">
        Backend
        <select onChange={(event) => choose({ backend: event.target.value })} value={backend}>
          <option value="">All</option>
          {known.map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <label className="dsp-field">
        Reason
        <select onChange={(event) => choose({ reason: event.target.value })} value={reason}>
          <option value="">All</option>
          {[...words].map(([name, text]) => (
            <option key={name} title={text} value={name}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <label className="dsp-field">
        Dag
        <input onChange={(event) => setDag(event.target.value)} placeholder="dag_id" type="text" value={dag} />
      </label>
      <button type="submit">Filter</button>
      {backend || reason || dagId ? (
        <button onClick={() => choose({ backend: "", dag_id: "", reason: "" })} type="button">
          Clear
        </button>
      ) : undefined}
    </form>
  );
}

type FoundProps = { readonly dagId: string; readonly data: Waiting; readonly limit: number; readonly more: () => void };

function Found({ dagId, data, limit, more }: FoundProps) {
  const held = data.groups.reduce((sum, group) => sum + group.held, 0);
  if (held === 0) {
    const where = data.uncounted.length === 0 ? "" : " with a scheduler that is counted";
    return (
      <>
        <Notice tone="info">Nothing waits{where}.</Notice>
        <WithBackends now={data.now} those={data.not_begun} />
      </>
    );
  }
  return (
    <>
      <p>
        {plural(held, "task")} {held === 1 ? "waits" : "wait"}
        {dagId ? ", of whatever Dag. Below are those of this Dag among the first of each backend" : ""}.
      </p>
      <WithBackends now={data.now} those={data.not_begun} />
      <Groups data={data} />
      <h2>Tasks</h2>
      {data.tasks.length === 0 && dagId ? (
        <p>None of those that are listed and may be named to you is of this Dag.</p>
      ) : data.tasks.length === 0 ? (
        <p>None of these may be named to you: they are of Dags that you do not have the right to read.</p>
      ) : (
        <Tasks now={data.now} tasks={data.tasks} />
      )}
      {data.tasks.length < held && !(dagId && data.tasks.length < limit) ? (
        <p>
          The first {count(data.tasks.length)} of {count(held)}, best first.{" "}
          {limit < MOST ? (
            <button onClick={more} type="button">
              Show up to {count(MOST)}
            </button>
          ) : (
            "Filter to see others."
          )}
        </p>
      ) : undefined}
    </>
  );
}

/** What does not wait here any more, and has not begun either. */
function WithBackends({ now, those }: { readonly now: string; readonly those: NotBegun[] }) {
  return those.map((each) => (
    <p key={`${each.team ?? ""}/${each.backend}`}>
      {count(each.number)} more {each.number === 1 ? "has" : "have"} been given to{" "}
      <ViewLink parameters={{ view: "backends" }}>{each.backend}</ViewLink> and {each.number === 1 ? "has" : "have"} not
      begun, the oldest for <Since at={each.since} now={now} />.
    </p>
  ));
}

function Groups({ data }: { readonly data: Waiting }) {
  return (
    <Table label="Reasons">
      <thead>
        <tr>
          <th scope="col">Why</th>
          <th scope="col">First choice</th>
          <th className="dsp-number" scope="col">
            Tasks
          </th>
          <th scope="col">The oldest for</th>
        </tr>
      </thead>
      <tbody>
        {data.groups.map((group) => (
          <tr key={[group.team, group.backend, group.reason, group.words, group.detail].join("\n")}>
            <th className="dsp-wide" scope="row">
              <ViewLink parameters={{ backend: group.backend, reason: group.reason, view: "waiting" }}>
                {group.words}
              </ViewLink>{" "}
              <code>{group.reason}</code>
              {group.detail === null ? undefined : <div className="dsp-small dsp-name">{group.detail}</div>}
            </th>
            <td>
              <span className="dsp-name">{group.backend}</span>
              {group.team === null ? undefined : <div className="dsp-small">team {group.team}</div>}
            </td>
            <td className="dsp-number">{count(group.held)}</td>
            <td>
              <Since at={group.oldest} now={data.now} />
            </td>
          </tr>
        ))}
      </tbody>
    </Table>
  );
}

function Tasks({ now, tasks }: { readonly now: string; readonly tasks: WaitingTask[] }) {
  return (
    <Table label="Waiting tasks">
      <thead>
        <tr>
          <th scope="col">Task</th>
          <th scope="col">Queue</th>
          <th scope="col">Targets</th>
          <th className="dsp-number" scope="col">
            Place
          </th>
          <th scope="col">Waits for</th>
          <th scope="col">May start</th>
          <th scope="col">Why</th>
        </tr>
      </thead>
      <tbody>
        {tasks.map((task) => (
          <tr key={[task.dag_id, task.run_id, task.task_id, task.map_index, task.kind].join("\n")}>
            <TaskCell task={task} />
            <td className="dsp-name">{task.queue ?? "none"}</td>
            <td className="dsp-name">{task.targets.join(", ")}</td>
            <td className="dsp-number">{task.position > 0 ? count(task.position) : "–"}</td>
            <td>
              <Since at={task.since} now={now} />
            </td>
            <td>
              {task.expected === null ? "unknown" : <When at={task.expected} now={now} />}
              {task.expected !== null && task.others ? <div className="dsp-small">or sooner elsewhere</div> : undefined}
              {task.usual === null ? undefined : <div className="dsp-small">usually after {duration(task.usual)}</div>}
            </td>
            <td>
              {task.dag_id ? <StoryLink task={task} /> : task.reason}
              {task.detail === null ? undefined : <div className="dsp-small">{task.detail}</div>}
            </td>
          </tr>
        ))}
      </tbody>
    </Table>
  );
}

function StoryLink({ task }: { readonly task: WaitingTask }) {
  const parameters = {
    dag_id: task.dag_id,
    map_index: String(task.map_index),
    run_id: task.run_id,
    task_id: task.task_id,
    view: "task",
  };
  return <ViewLink parameters={parameters}>{task.reason}</ViewLink>;
}
