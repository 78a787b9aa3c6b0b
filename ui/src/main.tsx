// SPDX-License-Identifier: Apache-2.0
// The page in Airflow's UI: in its menu, and as a tab of a task instance.
import { useState } from "react";
import { useSearchParams } from "react-router-dom";

import type { Status } from "./api";
import { BackendsView } from "./backends";
import css from "./page.css?inline";
import { NotCounted, Notice, ViewLink } from "./parts";
import { Paused, useAnswer } from "./polling";
import { TaskStory, TaskView } from "./task";
import { TryView } from "./try";
import { WaitingView } from "./waiting";

/** As Airflow reads them from its own address. */
type Props = {
  readonly dagId?: string;
  readonly mapIndex?: string;
  readonly runId?: string;
  readonly taskId?: string;
};

export default function Dispatch({ dagId, mapIndex, runId, taskId }: Props) {
  const [paused, setPaused] = useState(false);
  const index = Number.parseInt(mapIndex ?? "", 10);
  const task =
    dagId !== undefined && runId !== undefined && taskId !== undefined
      ? { dag_id: dagId, map_index: Number.isNaN(index) ? -1 : index, run_id: runId, task_id: taskId }
      : undefined;
  return (
    <Paused.Provider value={paused}>
      <style>{css}</style>
      <div className="dsp">
        {task === undefined ? <Page pause={() => setPaused(!paused)} paused={paused} /> : <TaskStory task={task} />}
      </div>
    </Paused.Provider>
  );
}

const VIEWS: [string, string][] = [
  ["backends", "Backends"],
  ["waiting", "Waiting"],
  ["task", "Task"],
  ["try", "Try it"],
];

function Page({ pause, paused }: { readonly pause: () => void; readonly paused: boolean }) {
  const [search] = useSearchParams();
  const view = search.get("view") ?? "backends";
  const answer = useAnswer<Status>("status");
  const status = answer.data;
  const teams = [...new Set(status?.backends.map((each) => each.team) ?? [])].filter((each) => each !== null);
  return (
    <>
      <header className="dsp-header">
        <h1>Dispatch</h1>
        <span className="dsp-small">
          {status === undefined ? "" : `As of ${new Date(status.now).toLocaleTimeString()}`}
        </span>
        <button aria-pressed={paused} onClick={pause} type="button">
          {paused ? "Go on updating" : "Pause updates"}
        </button>
      </header>
      <nav aria-label="Views of Dispatch" className="dsp-views">
        {VIEWS.map(([name, label]) => (
          <ViewLink current={name === view} key={name} parameters={{ view: name }}>
            {label}
          </ViewLink>
        ))}
      </nav>
      {answer.error === undefined ? undefined : <Notice tone="bad">{answer.error}</Notice>}
      {status?.problem ? <Notice tone="bad">{status.problem}</Notice> : undefined}
      {status === undefined ? undefined : <NotCounted uncounted={status.uncounted} />}
      {view === "waiting" ? <WaitingView status={status} /> : undefined}
      {view === "task" ? <TaskView /> : undefined}
      {view === "try" ? <TryView teams={teams} /> : undefined}
      {view === "backends" && status === undefined && answer.error === undefined ? <p>Loading …</p> : undefined}
      {view === "backends" ? <BackendsView answer={answer} /> : undefined}
    </>
  );
}
