// SPDX-License-Identifier: Apache-2.0
// The story of one task: every decision in order, and where it is now.
import { type FormEvent, useState } from "react";
import { useSearchParams } from "react-router-dom";

import { path, type Story, type TaskName } from "./api";
import { count, DagLink, duration, Notice, Since, TaskLink, When } from "./parts";
import { useAnswer } from "./polling";

/** In the page: which task it is stands in the address. */
export function TaskView() {
  const [search, setSearch] = useSearchParams();
  const of = (name: string) => search.get(name) ?? "";
  const index = Number.parseInt(of("map_index"), 10);
  const task = {
    dag_id: of("dag_id"),
    map_index: Number.isNaN(index) ? -1 : index,
    run_id: of("run_id"),
    task_id: of("task_id"),
  };
  const ask = (name: Record<string, string>) => setSearch(new URLSearchParams({ ...name, view: "task" }));
  return (
    <>
      <TaskForm ask={ask} key={search.toString()} task={task} />
      {task.dag_id && task.run_id && task.task_id ? (
        <TaskStory task={task} tryNumber={of("try_number")} />
      ) : (
        <p>Give a task instance, or open this tab on its own page in Airflow.</p>
      )}
    </>
  );
}

type FormProps = { readonly ask: (name: Record<string, string>) => void; readonly task: TaskName };

const FIELDS: [keyof TaskName, string, boolean][] = [
  ["dag_id", "Dag", true],
  ["run_id", "Run", true],
  ["task_id", "Task", true],
  ["map_index", "Map index", false],
];

function TaskForm({ ask, task }: FormProps) {
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const given = [...new FormData(event.currentTarget)].map(([name, value]) => [name, String(value).trim()]);
    ask(Object.fromEntries(given.filter(([, value]) => value !== "")) as Record<string, string>);
  };
  return (
    <form aria-label="Task instance" className="dsp-filters" onSubmit={submit}>
      {FIELDS.map(([name, label, required]) => (
        <label className="dsp-field" key={name}>
          {label}
          <input
            defaultValue={name === "map_index" && task.map_index < 0 ? "" : String(task[name])}
            name={name}
            required={required}
            type={required ? "text" : "number"}
          />
        </label>
      ))}
      <button type="submit">Show</button>
    </form>
  );
}

type StoryProps = { readonly task: TaskName; readonly tryNumber?: string };

export function TaskStory({ task, tryNumber }: StoryProps) {
  const [chosen, setChosen] = useState(tryNumber ?? "");
  const { data, error } = useAnswer<Story>(path("story", { ...task, try_number: chosen }));
  if (data === undefined) {
    return error === undefined ? (
      <p>Loading …</p>
    ) : (
      <>
        <Notice tone="bad">{error}</Notice>
        {chosen === "" ? undefined : (
          <button onClick={() => setChosen("")} type="button">
            Show its last try
          </button>
        )}
      </>
    );
  }
  return (
    <section className="dsp-story">
      <h2>
        <TaskLink task={data} /> of <DagLink dagId={data.dag_id} />
      </h2>
      {error === undefined ? undefined : <Notice tone="bad">{error}</Notice>}
      <p>
        Try {data.try_number}, {data.state ?? "no state"}.{" "}
        {data.try_number > 1 ? (
          <label>
            Other tries{" "}
            <select onChange={(event) => setChosen(event.target.value)} value={chosen}>
              <option value="">the last</option>
              {Array.from({ length: data.try_number }, (_, index) => index + 1).map((number) => (
                <option key={number} value={number}>
                  {number}
                </option>
              ))}
            </select>
          </label>
        ) : undefined}
      </p>
      <Place story={data} />
      <Given story={data} />
      <Steps story={data} />
    </section>
  );
}

/** Why it waits, its place and its estimate. */
function Place({ story }: { readonly story: Story }) {
  const { orphaned, unqueued, waiting } = story;
  if (orphaned !== null) {
    return <Notice tone="bad">{orphaned}</Notice>;
  }
  if (waiting === null) {
    return unqueued === null ? undefined : <Notice tone="info">{unqueued}</Notice>;
  }
  const now = new Date().toISOString();
  return (
    <Notice tone="info">
      <strong>It waits: {waiting.words}.</strong>
      {waiting.detail === null ? undefined : <div>{waiting.detail}</div>}
      <div>
        {waiting.position > 0 ? (
          <>
            Place {count(waiting.position)} for <span className="dsp-name">{waiting.targets[0] ?? "no target"}</span>, for{" "}
          </>
        ) : (
          "For "
        )}
        <Since at={waiting.since} now={now} />.{" "}
        {waiting.expected === null ? (
          "Nobody can tell when it may start."
        ) : (
          <>
            It may start <When at={waiting.expected} now={now} />
            {waiting.others ? ", or sooner if another target takes it." : "."}
          </>
        )}
        {waiting.usual === null ? "" : ` In its last runs it started ${duration(waiting.usual)} after it was scheduled.`}
      </div>
      <div className="dsp-small">
        Queue <span className="dsp-name">{waiting.queue ?? "none"}</span>, route{" "}
        <span className="dsp-name">{waiting.route}</span>, targets{" "}
        <span className="dsp-name">{waiting.targets.join(", ")}</span>
      </div>
    </Notice>
  );
}

/** Which backend has it, as long as it has not begun. */
function Given({ story }: { readonly story: Story }) {
  if (story.given === null) {
    return undefined;
  }
  const { backend, hint, since } = story.given;
  return (
    <Notice tone="info">
      <strong>
        <span className="dsp-name">{backend}</span> has had it for <Since at={since} now={new Date().toISOString()} />,
        and it has not begun.
      </strong>
      {hint === null ? undefined : <div>{hint}</div>}
    </Notice>
  );
}

function Steps({ story }: { readonly story: Story }) {
  if (story.steps.length === 0) {
    return <p>Nothing is recorded of this try.</p>;
  }
  return (
    <ol className="dsp-steps">
      {story.steps.map((step, index) => (
        <li key={`${step.at}/${String(index)}`}>
          <time dateTime={step.at}>{new Date(step.at).toLocaleString()}</time>
          <div>
            {step.words} <code>{step.event}</code>
            {step.backend === null ? undefined : (
              <>
                {" "}
                on <span className="dsp-name">{step.backend}</span>
              </>
            )}
            {index === 0 ? undefined : (
              <span className="dsp-small">
                {" "}
                after {duration((Date.parse(step.at) - Date.parse(story.steps[index - 1]?.at ?? step.at)) / 1000)}
              </span>
            )}
            {step.detail === null ? undefined : <div className="dsp-small dsp-name">{step.detail}</div>}
          </div>
        </li>
      ))}
    </ol>
  );
}
