// SPDX-License-Identifier: Apache-2.0
// What people have changed lately: orders, and versions of the routing file.
import { useEffect, useState } from "react";

import { type Change, path } from "./api";
import { Notice, When } from "./parts";
import { useAnswer } from "./polling";

const SECONDS = 30;
const MOST = 50;
const TIMES: [number, string][] = [
  [86_400, "day"],
  [604_800, "week"],
  [2_592_000, "30 days"],
];

type Props = {
  /** Changes whenever an order has been given here: then they are asked for at once. */
  readonly given: string;
  readonly now: string;
};

export function Changes({ given, now }: Props) {
  const [seconds, setSeconds] = useState(86_400);
  const { data, error, refresh } = useAnswer<Change[]>(path("changes", { seconds }), SECONDS);
  useEffect(() => {
    if (given !== "") {
      refresh();
    }
  }, [given, refresh]);
  return (
    <section aria-label="Changes">
      <h2>Changes</h2>
      <label className="dsp-small">
        In the last{" "}
        <select onChange={(event) => setSeconds(Number(event.target.value))} value={seconds}>
          {TIMES.map(([value, label]) => (
            <option key={value} value={value}>
              {label}
            </option>
          ))}
        </select>
      </label>
      {error === undefined ? undefined : <Notice tone="bad">{error}</Notice>}
      {data === undefined ? undefined : <List changes={data} now={now} />}
    </section>
  );
}

function List({ changes, now }: { readonly changes: Change[]; readonly now: string }) {
  if (changes.length === 0) {
    return <p>Nobody has changed anything.</p>;
  }
  return (
    <>
      <ul className="dsp-changes">
        {changes.slice(0, MOST).map((change, index) => (
          <li key={`${change.at}/${String(index)}`}>
            <span className="dsp-small">
              <When at={change.at} now={now} />
            </span>{" "}
            <span className="dsp-name">{change.words}</span> <code>{change.event}</code>
            <span className="dsp-small dsp-name">
              {change.by === null ? "" : ` by ${change.by}`}
              {change.scheduler === null ? "" : ` on ${change.scheduler}`}
              {change.team === null ? "" : `, team ${change.team}`}
            </span>
          </li>
        ))}
      </ul>
      {changes.length > MOST ? <p>The last {MOST} are shown.</p> : undefined}
    </>
  );
}
