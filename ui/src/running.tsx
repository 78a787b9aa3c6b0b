// SPDX-License-Identifier: Apache-2.0
// The tasks that a backend has, those that it has had for longest first.
import { type Backend, path, type Running, type RunningTask } from "./api";
import { Table } from "./backends";
import { count, DagLink, Notice, plural, Since, TaskCell } from "./parts";
import { useAnswer } from "./polling";

const FIRST = 50;
const MOST = 1000;

export function RunningTasks({ backend }: { readonly backend: Backend }) {
  const { data, error } = useAnswer<Running>(path("running", { backend: backend.name, limit: MOST }));
  if (data === undefined) {
    return error === undefined ? <p>Loading …</p> : <Notice tone="bad">{error}</Notice>;
  }
  const all = backend.used + backend.ahead;
  const tasks = data.tasks.filter((task) => task.team === backend.team).slice(0, FIRST);
  if (tasks.length === 0) {
    const nothing = data.uncounted.length === 0 ? "It has no task." : "No scheduler that is counted has anything there.";
    return <p>{all === 0 ? nothing : "None of its tasks may be named to you."}</p>;
  }
  return (
    <>
      <p>
        {tasks.length < all ? `${count(tasks.length)} of ` : ""}
        {plural(all, "task")}, those that it has had for longest first.
      </p>
      <Dags backend={backend} />
      <Table label={`Tasks on ${backend.name}`}>
        <thead>
          <tr>
            <th scope="col">Task</th>
            <th scope="col">Queue</th>
            <th scope="col">State</th>
            <th scope="col">There for</th>
          </tr>
        </thead>
        <tbody>
          {tasks.map((task) => (
            <tr key={[task.dag_id, task.run_id, task.task_id, task.map_index, task.kind, task.since].join("\n")}>
              <TaskCell task={task} />
              <td className="dsp-name">{task.queue ?? "none"}</td>
              <td>{stateOf(task)}</td>
              <td>
                <Since at={task.since} now={data.now} />
              </td>
            </tr>
          ))}
        </tbody>
      </Table>
    </>
  );
}

/** Dags of its tasks, those with the most first. */
function Dags({ backend }: { readonly backend: Backend }) {
  const dags = Object.entries(backend.dags);
  if (dags.length === 0) {
    return undefined;
  }
  return (
    <ul aria-label="By Dag" className="dsp-users">
      {dags.map(([dagId, tasks]) => (
        <li key={dagId}>
          <DagLink dagId={dagId} /> {count(tasks)}
        </li>
      ))}
    </ul>
  );
}

function stateOf({ has_begun: hasBegun }: RunningTask): string {
  if (hasBegun === null) {
    return "is being taken over";
  }
  return hasBegun ? "runs" : "has not begun";
}
