// SPDX-License-Identifier: Apache-2.0
// The dialog in which an order about a backend is given.
import { type FormEvent, useEffect, useRef, useState } from "react";

import { type Backend, type Command, type Forecast, type GivenOrder, type Order, path, post } from "./api";
import { count, NotCounted, Notice, plural, When } from "./parts";
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
  recall: {
    done: "gives back what has not begun",
    title: "Recall",
    words: "What it has been given and has not begun comes back, once, and is dispatched anew.",
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
  const needsReason = command !== "resume";

  useEffect(() => {
    dialog.current?.showModal();
  }, []);

  // Only a dialog that is closed gives the focus back to the button that opened it.
  const close = () => {
    dialog.current?.close();
    onClose();
  };

  const send = async (event: FormEvent) => {
    event.preventDefault();
    if (needsReason && !reason.trim()) {
      setError("Give a reason.");
      return;
    }
    setIsSending(true);
    setError(undefined);
    try {
      const order = await post<GivenOrder | null>("orders", {
        backend: backend.name,
        command,
        reason: reason.trim(),
        seconds: stops && seconds ? Number(seconds) : null,
        team: backend.team,
      });
      dialog.current?.close();
      onClose(
        order === null
          ? `No order was in force about ${backend.name}.`
          : `${backend.name} ${done}. ${givenWords(order)}`.trimEnd(),
      );
    } catch (problem) {
      setError(problem instanceof Error ? problem.message : String(problem));
      setIsSending(false);
    }
  };

  return (
    <dialog aria-labelledby="dsp-order-title" className="dsp-dialog" onCancel={close} ref={dialog}>
      <form noValidate onSubmit={(event) => void send(event)}>
        <h2 id="dsp-order-title">
          {title} <span className="dsp-name">{backend.name}</span>
        </h2>
        <p>{words}</p>
        {needsReason ? <Consequence backend={backend} command={command} seconds={Number(seconds)} /> : undefined}
        {error === undefined ? undefined : <Notice tone="bad">{error}</Notice>}
        <label className="dsp-field">
          Reason{needsReason ? "" : " (optional)"}
          <input
            autoFocus
            maxLength={1000}
            onChange={(event) => setReason(event.target.value)}
            required={needsReason}
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
            onClick={close}
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

function givenWords({ replaces, warning }: GivenOrder): string {
  const replaced = replaces === null ? "" : `This replaces ${replaces.command} by ${replaces.by}. `;
  return `${replaced}${warning ?? ""}`;
}

type ConsequenceProps = {
  readonly backend: Backend;
  readonly command: Command;
  /** After which the order would run out; 0: never. */
  readonly seconds: number;
};

/** What the order would do with what the backend has, with what waits for it, and with the order in force. */
function Consequence({ backend, command, seconds }: ConsequenceProps) {
  const { data, error } = useAnswer<Forecast>(path("forecast", { backend: backend.name, team: backend.team }));
  if (data === undefined) {
    return <p aria-live="polite">{error ?? "Looking at what it would do …"}</p>;
  }
  const comesAgain = command === "recall" && !data.is_cordoned && data.problem === null;
  return (
    <div aria-live="polite">
      {data.problem === null ? undefined : <Notice tone="bad">{data.problem}</Notice>}
      <p className="dsp-name">{command === "recall" ? recalled(data) : stopped(data)}</p>
      {comesAgain ? (
        <Notice tone="info">
          The backend takes work, so that what comes back may be given to it again: cordon or drain it first.
        </Notice>
      ) : undefined}
      {command === "recall" || data.order === null ? undefined : (
        <Replaced now={data.now} order={data.order} seconds={seconds} />
      )}
      <NotCounted uncounted={data.uncounted} />
    </div>
  );
}

type ReplacedProps = { readonly now: string; readonly order: Order; readonly seconds: number };

/** The order that another one would replace: a backend has one at a time. */
function Replaced({ now, order, seconds }: ReplacedProps) {
  const ends = seconds > 0 ? Date.parse(now) + seconds * 1000 : Infinity;
  const endsEarlier = ends < (order.until === null ? Infinity : Date.parse(order.until));
  return (
    <Notice tone="info">
      This order replaces {order.command} by {order.by}
      {order.reason ? `: ${order.reason}` : ""} (
      {order.until === null ? (
        "no end"
      ) : (
        <>
          ends <When at={order.until} now={now} />
        </>
      )}
      ).{endsEarlier ? " This one ends earlier: then the backend takes work again." : ""}
    </Notice>
  );
}

function recalled({ has, not_begun: notBegun }: Forecast): string {
  if (notBegun === 0) {
    return "It has nothing that has not begun.";
  }
  return `${plural(notBegun, "task")} of ${count(has)} there ${notBegun === 1 ? "has" : "have"} not begun.`;
}

function stopped(forecast: Forecast): string {
  return `${there(forecast)} ${waiting(forecast)}`;
}

function there({ has, not_begun: notBegun }: Forecast): string {
  const begun = has - notBegun;
  if (has === 0) {
    return "Nothing runs there.";
  }
  const more = notBegun === 0 ? "" : `; ${count(notBegun)} more ${notBegun === 1 ? "has" : "have"} not begun, which recall takes back`;
  return `${plural(begun, "task")} ${begun === 1 ? "runs there and goes" : "run there and go"} on${more}.`;
}

function waiting({ elsewhere, held, stay }: Forecast): string {
  if (held === 0) {
    return "No task waits for it.";
  }
  const targets = Object.entries(elsewhere);
  const moving = targets.reduce((sum, [, tasks]) => sum + tasks, 0);
  const names = targets.map(([name, tasks]) => `${name} ${count(tasks)}`).join(", ");
  const fates = [
    ...(moving > 0 ? [`${count(moving)} ${moving === 1 ? "has" : "have"} another target (${names})`] : []),
    ...(stay > 0 ? [`${count(stay)} ${stay === 1 ? "waits" : "wait"} until it is resumed`] : []),
  ];
  return `${plural(held, "task")} ${held === 1 ? "waits" : "wait"} for it: ${fates.join(", ")}.`;
}
