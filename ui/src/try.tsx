// SPDX-License-Identifier: Apache-2.0
// Where a task would go, and what another routing file would change.
import { type ChangeEvent, type FormEvent, useState } from "react";

import { type Choice, type Explained, get, path, post, type WhatIf } from "./api";
import { Table } from "./backends";
import { count, Notice, plural, StateBadge, TaskCell, TroubleText } from "./parts";

export function TryView({ teams }: { readonly teams: string[] }) {
  const [team, setTeam] = useState("");
  return (
    <>
      {teams.length > 0 ? (
        <label className="dsp-field">
          Team
          <select onChange={(event) => setTeam(event.target.value)} value={team}>
            <option value="">Everybody’s</option>
            {teams.map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
      ) : undefined}
      <ExplainForm key={`explain/${team}`} team={team || null} />
      <FileForm key={`file/${team}`} team={team || null} />
    </>
  );
}

type TeamProps = { readonly team: string | null };

/** One question at a time, asked by a form. */
function useQuestion<T>() {
  const [answer, setAnswer] = useState<T>();
  const [error, setError] = useState<string>();
  const [isAsking, setIsAsking] = useState(false);
  const ask = async (question: () => Promise<T>) => {
    setIsAsking(true);
    setError(undefined);
    try {
      setAnswer(await question());
    } catch (problem) {
      setAnswer(undefined);
      setError(problem instanceof Error ? problem.message : String(problem));
    }
    setIsAsking(false);
  };
  return { answer, ask, error, isAsking };
}

const FIELDS: [string, string, boolean][] = [
  ["queue", "Queue", true],
  ["dag_id", "Dag", false],
  ["run_id", "Run", false],
  ["task_id", "Task", false],
];

function ExplainForm({ team }: TeamProps) {
  const { answer, ask, error, isAsking } = useQuestion<Explained>();
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const given = Object.fromEntries([...new FormData(event.currentTarget)].map(([name, value]) => [name, String(value)]));
    void ask(() => get<Explained>(path("explain", { ...given, team })));
  };
  return (
    <section>
      <h2>Where would a task go?</h2>
      <form aria-label="Where would a task go?" className="dsp-filters" onSubmit={submit}>
        {FIELDS.map(([name, label, required]) => (
          <label className="dsp-field" key={name}>
            {label}
            {required ? "" : " (optional)"}
            <input defaultValue={name === "queue" ? "default" : ""} name={name} required={required} type="text" />
          </label>
        ))}
        <button disabled={isAsking} type="submit">
          Explain
        </button>
      </form>
      <div aria-live="polite">
        {error === undefined ? undefined : <Notice tone="bad">{error}</Notice>}
        {answer === undefined ? undefined : <Explanation found={answer} />}
      </div>
    </section>
  );
}

function Decision({ choice }: { readonly choice: Choice | null }) {
  if (choice === null) {
    return <>depends on its Dag, run, task and map index.</>;
  }
  return (
    <>
      {choice.backend === null ? "it waits" : <strong className="dsp-name">{choice.backend}</strong>}, since{" "}
      {choice.words}. <code>{choice.reason}</code>
    </>
  );
}

function Explanation({ found }: { readonly found: Explained }) {
  return (
    <>
      <p>
        Route <strong className="dsp-name">{found.route}</strong>: <span className="dsp-name">{found.why}</span>.
      </p>
      <p>
        Now: {found.problem === null ? <Decision choice={found.now} /> : found.problem}
        <br />
        With all slots free: <Decision choice={found.configured} />
      </p>
      <Table label="Targets">
        <thead>
          <tr>
            <th scope="col">Target</th>
            <th scope="col">Now</th>
            <th scope="col">Used</th>
          </tr>
        </thead>
        <tbody>
          {found.targets.map((target, index) => (
            <tr key={`${target.backend}/${String(index)}`}>
              <th scope="row">
                <span className="dsp-name">{target.backend}</span>
                <div className="dsp-small">
                  queue <span className="dsp-name">{target.queue ?? "none"}</span>
                  {target.share === null ? "" : `, ${Math.round(100 * target.share)} % have it first`}
                </div>
              </th>
              <td className="dsp-wide">
                {target.state === null ? "unknown" : <StateBadge state={target.state} />}{" "}
                {target.free === null ? undefined : (
                  <span className="dsp-small">
                    {plural(target.free, "free slot")}, {count(target.held ?? 0)} waiting
                  </span>
                )}
                <TroubleText state={target.state} trouble={target.trouble} />
                {target.problem === null ? undefined : <div className="dsp-trouble">{target.problem}</div>}
              </td>
              <td className="dsp-wide">
                {target.uses.length === 0 ? "never" : undefined}
                {target.uses.map((use) => (
                  <div key={use.reason}>
                    {use.words}
                    {use.after > 0 ? `, after ${use.after} s` : ""} <code>{use.reason}</code>
                  </div>
                ))}
              </td>
            </tr>
          ))}
        </tbody>
      </Table>
    </>
  );
}

function FileForm({ team }: TeamProps) {
  const { answer, ask, error, isAsking } = useQuestion<WhatIf>();
  const [file, setFile] = useState("");
  const submit = (event: FormEvent) => {
    event.preventDefault();
    void ask(() => post<WhatIf>("what-if", { file, team }));
  };
  const read = async (event: ChangeEvent<HTMLInputElement>) => {
    const chosen = event.target.files?.[0];
    if (chosen !== undefined) {
      setFile(await chosen.text());
    }
  };
  return (
    <section>
      <h2>What would another routing file change?</h2>
      <form aria-label="What would another routing file change?" onSubmit={submit}>
        <label className="dsp-field">
          Routing file
          <textarea
            onChange={(event) => setFile(event.target.value)}
            placeholder={"backends: ...\nroutes: ...\ndefault: ..."}
            required
            rows={10}
            spellCheck={false}
            value={file}
          />
        </label>
        <label className="dsp-field">
          or take one from your computer
          <input accept=".yaml,.yml" onChange={(event) => void read(event)} type="file" />
        </label>
        <div className="dsp-buttons">
          <button disabled={isAsking} type="submit">
            Compare
          </button>
          <span className="dsp-small">Nothing is changed by this.</span>
        </div>
      </form>
      <div aria-live="polite">
        {error === undefined ? undefined : <Notice tone="bad">{error}</Notice>}
        {answer === undefined ? undefined : <Comparison found={answer} />}
      </div>
    </section>
  );
}

function Comparison({ found }: { readonly found: WhatIf }) {
  if (found.mistakes.length > 0) {
    return (
      <>
        <Notice tone="bad">{plural(found.mistakes.length, "mistake")}: a scheduler would refuse it.</Notice>
        <ul>
          {found.mistakes.map((mistake, index) => (
            <li className="dsp-name" key={`${mistake.where}/${String(index)}`}>
              <strong>{mistake.where}</strong> {mistake.found} {mistake.remedy}
            </li>
          ))}
        </ul>
      </>
    );
  }
  if (found.changes.length === 0) {
    return <Notice tone="info">{found.problem ?? "It says the same as the configuration in use."}</Notice>;
  }
  return (
    <>
      {found.problem === null ? undefined : <Notice tone="bad">{found.problem}</Notice>}
      <Notice tone="info">
        {found.reads_file
          ? "A running scheduler would take it over within seconds, without a restart."
          : "No scheduler would read it before a restart: [dispatch] config_file is not set."}
      </Notice>
      <ul>
        {found.changes.map((change, index) => (
          <li className="dsp-name" key={`${change.what}/${change.kind}/${String(index)}`}>
            <strong>{change.what}</strong> {change.kind}: {change.details}
            {change.effect ? ` (${change.effect})` : ""}
          </li>
        ))}
      </ul>
      <Moved found={found} />
    </>
  );
}

function Moved({ found }: { readonly found: WhatIf }) {
  if (found.looked_at === 0) {
    return <p>No task waits now that could be asked.</p>;
  }
  const first = found.looked_at < found.waiting ? `the first ${count(found.looked_at)} of ` : "";
  return (
    <>
      <p>
        {plural(found.moved_total, "task")} of {first}
        {plural(found.waiting, "waiting task")} would find other targets.
      </p>
      {found.moved.length === 0 ? undefined : (
        <Table label="Tasks with other targets">
          <thead>
            <tr>
              <th scope="col">Task</th>
              <th scope="col">Queue</th>
              <th scope="col">Today</th>
              <th scope="col">With this file</th>
            </tr>
          </thead>
          <tbody>
            {found.moved.map((task) => (
              <tr key={[task.dag_id, task.run_id, task.task_id, task.map_index].join("\n")}>
                <TaskCell task={task} />
                <td className="dsp-name">{task.queue ?? "none"}</td>
                <td className="dsp-name">
                  {task.before.join(", ")}
                  <div className="dsp-small">route {task.route_before}</div>
                </td>
                <td className="dsp-name">
                  {task.after.join(", ")}
                  <div className="dsp-small">route {task.route_after}</div>
                </td>
              </tr>
            ))}
          </tbody>
        </Table>
      )}
      {found.moved.length < found.moved_total ? <p>The first {count(found.moved.length)} are shown.</p> : undefined}
    </>
  );
}
