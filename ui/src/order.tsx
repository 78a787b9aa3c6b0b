// SPDX-License-Identifier: Apache-2.0
// The dialog in which an order about a backend is given.
import { type FormEvent, useEffect, useRef, useState } from "react";

import { type Backend, type Command, type Order, path, post, type Waiting } from "./api";
import { count, Notice, plural } from "./parts";
import { useAnswer } from "./polling";

const ORDERS: Record<Command, { title: string; words: string; done: string }> = {
  cordon: {
    done: "is cordoned",
    title: "Cordon",
    words: "It gets no new work. What runs there goes on.",
  },
  drain: {
    done: "is draining",
    title: "Drain",
    words: "It gets no new work, and is drained once nothing runs there any more.",
  },
  resume: {
    done: "takes work again",
    title: "Resume",
    words: "It gets work again.",
  },
};

const TIMES: [string, string][] = [
  ["", "Until somebody resumes it"],
  ["1800", "30 minutes"],
  ["3600", "1 hour"],
  ["7200", "2 hours"],
  ["28800", "8 hours"],
  ["86400", "1 day"],
  ["604800", "1 week"],
];

export function titleOf(command: Command): string {
  return ORDERS[command].title;
}

type Props = {
  readonly backend: Backend;
  readonly command: Command;
  /** Called with a sentence once the order is given; without one where it was not. */
  readonly onClose: (done?: string) => void;
};

export function OrderDialog({ backend, command, onClose }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [reason, setReason] = useState("");
  const [seconds, setSeconds] = useState("");
  const [error, setError] = useState<string>();
  const [isSending, setIsSending] = useState(false);
  const { done, title, words } = ORDERS[command];
  const stops = command === "cordon" || command === "drain";

  useEffect(() => {
    dialog.current?.showModal();
  }, []);

  const send = async (event: FormEvent) => {
    event.preventDefault();
    if (stops && !reason.trim()) {
      setError("Give a reason.");
      return;
    }
    setIsSending(true);
    setError(undefined);
    try {
      const order = await post<Order | null>("orders", {
        backend: backend.name,
        command,
        reason: reason.trim(),
        seconds: stops && seconds ? Number(seconds) : null,
        team: backend.team,
      });
      dialog.current?.close();
      onClose(order === null ? `No order was in force about ${backend.name}.` : `${backend.name} ${done}.`);
    } catch (problem) {
      setError(problem instanceof Error ? problem.message : String(problem));
      setIsSending(false);
    }
  };

  return (
    <dialog aria-labelledby="dsp-order-title" className="dsp-dialog" onCancel={() => onClose()} ref={dialog}>
      <form noValidate onSubmit={(event) => void send(event)}>
        <h2 id="dsp-order-title">
          {title} <span className="dsp-name">{backend.name}</span>
        </h2>
        <p>{words}</p>
        {stops ? <Consequence backend={backend} /> : undefined}
        {error === undefined ? undefined : <Notice tone="bad">{error}</Notice>}
        <label className="dsp-field">
          Reason{stops ? "" : " (optional)"}
          <input
            autoFocus
            maxLength={1000}
            onChange={(event) => setReason(event.target.value)}
            required={stops}
            type="text"
            value={reason}
          />
        </label>
        {stops ? (
          <label className="dsp-field">
            For how long
            <select onChange={(event) => setSeconds(event.target.value)} value={seconds}>
              {TIMES.map(([value, label]) => (
                <option key={value} value={value}>
                  {label}
                </option>
              ))}
            </select>
          </label>
        ) : undefined}
        <div className="dsp-buttons">
          <button
            onClick={() => {
              dialog.current?.close();
              onClose();
            }}
            type="button"
          >
            Cancel
          </button>
          <button className="dsp-primary" disabled={isSending} type="submit">
            {title}
          </button>
        </div>
      </form>
    </dialog>
  );
}

/** Where the tasks would go that wait for this backend. */
function Consequence({ backend }: { readonly backend: Backend }) {
  const { data } = useAnswer<Waiting>(path("waiting", { backend: backend.name, limit: 1000 }));
  if (backend.held === 0) {
    return <p>No task waits with it as first choice.</p>;
  }
  if (data === undefined || data.tasks.length === 0) {
    return <p>{plural(backend.held, "task")} that would go there first will go to another target or wait.</p>;
  }
  const alone = data.tasks.filter((task) => task.targets.every((target) => target === backend.name)).length;
  const some = data.tasks.length < backend.held ? `Of the first ${count(data.tasks.length)}, ` : "Of these, ";
  return (
    <p>
      {plural(backend.held, "task")} {backend.held === 1 ? "waits" : "wait"} with it as first choice. {some}
      {count(data.tasks.length - alone)} may go to another target, and {count(alone)} will wait until it takes work
      again.
    </p>
  );
}
