// SPDX-License-Identifier: Apache-2.0
// How the backends and the schedulers are, and orders about them.
import { type ReactNode, useId, useState } from "react";

import type { Backend, Command, Order, Scheduler, Status } from "./api";
import { Changes } from "./changes";
import { OrderDialog, titleOf } from "./order";
import { count, Notice, plural, Rates, Since, Slots, StateBadge, TroubleText, ViewLink, When } from "./parts";
import type { Answer } from "./polling";
import { RunningTasks } from "./running";

export function BackendsView({ answer }: { readonly answer: Answer<Status> }) {
  const [chosen, setChosen] = useState<{ backend: Backend; command: Command }>();
  const [done, setDone] = useState("");
  const status = answer.data;
  if (status === undefined) {
    return undefined;
  }
  const close = (sentence?: string) => {
    setChosen(undefined);
    if (sentence !== undefined) {
      setDone(sentence);
      answer.refresh();
    }
  };
  return (
    <>
      <p aria-live="polite" className="dsp-done" role="status">
        {done}
      </p>
      {status.backends.length === 0 && status.problem === null ? (
        <Notice tone="info">No scheduler has told of a backend yet.</Notice>
      ) : undefined}
      {status.backends.length > 0 ? (
        <Table label="Backends">
          <thead>
            <tr>
              <th scope="col">Backend</th>
              <th scope="col">State</th>
              <th scope="col">Slots</th>
              <th scope="col">Waiting for it</th>
              <th scope="col">Rate</th>
              {status.may_act ? <th scope="col">Orders</th> : undefined}
            </tr>
          </thead>
          <tbody>
            {status.backends.map((backend) => (
              <Rows
                backend={backend}
                key={`${backend.team ?? ""}/${backend.name}`}
                onOrder={(command) => setChosen({ backend, command })}
                status={status}
              />
            ))}
          </tbody>
        </Table>
      ) : undefined}
      {status.other_orders.length > 0 ? <Unheard orders={status.other_orders} /> : undefined}
      {status.schedulers.length > 0 ? <Schedulers now={status.now} schedulers={status.schedulers} /> : undefined}
      <Changes given={done} now={status.now} />
      {chosen === undefined ? undefined : (
        <OrderDialog backend={chosen.backend} command={chosen.command} onClose={close} />
      )}
    </>
  );
}

type TableProps = { readonly children: ReactNode; readonly label: string };

/** A table that scrolls by itself where it is wider than the screen, by keyboard, too. */
export function Table({ children, label }: TableProps) {
  return (
    <div aria-label={`${label}, scrollable`} className="dsp-scroll" role="region" tabIndex={0}>
      <table>
        <caption className="dsp-hidden">{label}</caption>
        {children}
      </table>
    </div>
  );
}

type RowProps = {
  readonly backend: Backend;
  readonly onOrder: (command: Command) => void;
  readonly status: Status;
};

/** A backend, and below it the tasks that it has, if that is wanted. */
function Rows({ backend, onOrder, status }: RowProps) {
  const [isOpen, setIsOpen] = useState(false);
  const below = useId();
  const runs = (
    <button
      aria-controls={below}
      aria-expanded={isOpen}
      aria-label={`What ${backend.name} has`}
      className="dsp-fold"
      onClick={() => setIsOpen(!isOpen)}
      type="button"
    >
      {isOpen ? "▾" : "▸"} What it has
    </button>
  );
  return (
    <>
      <Row backend={backend} onOrder={onOrder} runs={runs} status={status} />
      <tr hidden={!isOpen} id={below}>
        <td colSpan={status.may_act ? 6 : 5}>{isOpen ? <RunningTasks backend={backend} /> : undefined}</td>
      </tr>
    </>
  );
}

function Row({ backend, onOrder, runs, status }: RowProps & { readonly runs: ReactNode }) {
  const { now } = status;
  const mayAct = status.acts_for.includes(backend.team);
  return (
    <tr>
      <th scope="row">
        <span className="dsp-name">{backend.name}</span>
        <div className="dsp-small">
          {backend.executor}
          {backend.team === null ? "" : `, team ${backend.team}`}
        </div>
      </th>
      <td className="dsp-wide">
        <StateBadge state={backend.state} /> <span className="dsp-small">for </span>
        <span className="dsp-small">
          <Since at={backend.since} now={now} />
        </span>
        <Trouble backend={backend} now={now} />
      </td>
      <td>
        <Slots backend={backend} />
        {backend.not_begun_since === null ? undefined : (
          <div className="dsp-small">
            {count(backend.not_begun)} not begun, the oldest for <Since at={backend.not_begun_since} now={now} />
          </div>
        )}
        {runs}
      </td>
      <td>
        {backend.held === 0 ? (
          "none"
        ) : (
          <ViewLink parameters={{ backend: backend.name, view: "waiting" }}>{plural(backend.held, "task")}</ViewLink>
        )}
        {backend.oldest === null ? undefined : (
          <div className="dsp-small">
            the oldest for <Since at={backend.oldest} now={now} />
          </div>
        )}
      </td>
      <td>
        <Rates backend={backend} />
      </td>
      {status.may_act ? (
        <td>
          <div className="dsp-orders">
            {(mayAct ? ordersOf(backend) : []).map((command) => (
              <button
                aria-label={`${titleOf(command)} ${backend.name}`}
                key={command}
                onClick={() => onOrder(command)}
                type="button"
              >
                {titleOf(command)}
              </button>
            ))}
          </div>
        </td>
      ) : undefined}
    </tr>
  );
}

function ordersOf(backend: Backend): Command[] {
  switch (backend.state) {
    case "cordoned":
      return ["resume", "drain", "recall"];
    case "draining":
      return ["resume", "recall"];
    case "drained":
      return ["resume"];
    case "removed":
      return [];
    default: // one that fails may be under an order, too
      if (backend.order === null) {
        return ["cordon", "drain", "recall"];
      }
      return backend.order.command === "drain" ? ["resume", "recall"] : ["resume", "drain", "recall"];
  }
}

function Trouble({ backend, now }: { readonly backend: Backend; readonly now: string }) {
  const { next_try: nextTry, not_recalled: late, order, trouble } = backend;
  return (
    <>
      <TroubleText state={backend.state} trouble={trouble} />
      {nextTry === null ? undefined : (
        <div className="dsp-small">
          Next try <When at={nextTry} now={now} />
        </div>
      )}
      {order === null ? undefined : (
        <div className="dsp-small dsp-name">
          {order.command === "drain" ? "Drain" : "Cordon"} by {order.by}, <When at={order.since} now={now} />
          {order.reason ? `: ${order.reason}` : ""}
          {order.until === null ? undefined : (
            <>
              {" "}
              (ends <When at={order.until} now={now} />)
            </>
          )}
        </div>
      )}
      {late.length === 0 ? undefined : (
        <div className="dsp-trouble">Recall is still to be done by scheduler {late.join(", ")}.</div>
      )}
      {backend.hint === null ? undefined : (
        <div className="dsp-trouble">Nothing that it has has begun. {backend.hint}</div>
      )}
      {backend.returning === 0 ? undefined : (
        <div className="dsp-small">{count(backend.returning)} are being set back to scheduled.</div>
      )}
    </>
  );
}

/** Orders about backends that no scheduler has: one that comes back by that name has it. */
function Unheard({ orders }: { readonly orders: Order[] }) {
  return (
    <Notice tone="info">
      {orders.map(({ backend, by, command, reason, team }) => (
        <div key={`${team ?? ""}/${backend}`}>
          No scheduler tells of {backend}
          {team === null ? "" : ` of team ${team}`}: {command} by {by} is in force about it
          {reason ? ` (${reason})` : ""}.
        </div>
      ))}
    </Notice>
  );
}

function Schedulers({ now, schedulers }: { readonly now: string; readonly schedulers: Scheduler[] }) {
  return (
    <section>
      <h2>Schedulers</h2>
      <Table label="Schedulers">
        <thead>
          <tr>
            <th scope="col">Host</th>
            <th scope="col">State</th>
            <th scope="col">Last heartbeat</th>
            <th scope="col">Routing file</th>
          </tr>
        </thead>
        <tbody>
          {schedulers.map((scheduler) => (
            <tr key={`${scheduler.id}/${scheduler.team ?? ""}/${scheduler.executor}`}>
              <th scope="row">
                <span className="dsp-name">{scheduler.hostname}</span>
                <div className="dsp-small">
                  {`scheduler ${scheduler.id}${scheduler.executor ? `, ${scheduler.executor}` : ""}`}
                  {scheduler.team === null ? "" : `, team ${scheduler.team}`}
                </div>
              </th>
              <td className="dsp-wide">
                <span className={`dsp-badge ${scheduler.lives ? "dsp-good" : "dsp-bad"}`}>
                  {scheduler.lives ? "Lives" : "Silent"}
                </span>
                {scheduler.other_version === null ? undefined : (
                  <div className="dsp-trouble">
                    It runs version {scheduler.other_version} of airflow-dispatch-provider, the API server another one:
                    it is not counted here.
                  </div>
                )}
                {scheduler.api_trouble === null ? undefined : (
                  <div className="dsp-trouble">Nothing is launched: {scheduler.api_trouble}</div>
                )}
              </td>
              <td>
                <When at={scheduler.heartbeat} now={now} />
              </td>
              <td className="dsp-wide">
                <span className="dsp-name">{scheduler.file ?? "none"}</span>
                {scheduler.refused === null ? undefined : (
                  <div className="dsp-trouble">The file on disk is refused: {scheduler.refused}</div>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </Table>
    </section>
  );
}
