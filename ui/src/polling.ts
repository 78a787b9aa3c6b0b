// SPDX-License-Identifier: Apache-2.0
// Answers that are asked for again and again, as long as somebody can see them.
import { createContext, useCallback, useContext, useEffect, useRef, useState } from "react";

import { get } from "./api";

const SECONDS = 5;
const MOST_SECONDS = 60;

/** Whether the user has stopped the updates. */
export const Paused = createContext(false);

export type Answer<T> = {
  data: T | undefined;
  /** Why there is no newer answer. */
  error: string | undefined;
  refresh: () => void;
};

/** The answer to a question, asked every so many seconds while the tab is visible; null: nothing is asked. */
export function useAnswer<T>(question: string | null, every = SECONDS): Answer<T> {
  const paused = useContext(Paused);
  const [data, setData] = useState<T>();
  const [error, setError] = useState<string>();
  const [round, setRound] = useState(0);
  const asked = useRef<string | null>(null);

  useEffect(() => {
    if (question === null) {
      return undefined;
    }
    if (asked.current !== question) {
      asked.current = question;
      setData(undefined);
      setError(undefined);
    }
    const stopped = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let seconds = every;
    let isAsking = false;

    const later = () => {
      clearTimeout(timer);
      if (!stopped.signal.aborted && !paused && !document.hidden) {
        timer = setTimeout(ask, seconds * 1000);
      }
    };
    const ask = async () => {
      if (isAsking) {
        return;
      }
      isAsking = true;
      clearTimeout(timer);
      try {
        const answer = await get<T>(question, stopped.signal);
        setData(answer);
        setError(undefined);
        seconds = every;
      } catch (problem) {
        if (!stopped.signal.aborted) {
          setError(problem instanceof Error ? problem.message : String(problem));
          seconds = Math.max(every, Math.min(2 * seconds, MOST_SECONDS));
        }
      }
      isAsking = false;
      later();
    };
    const onVisibility = () => {
      if (document.hidden) {
        clearTimeout(timer);
      } else if (!paused) {
        void ask();
      }
    };
    document.addEventListener("visibilitychange", onVisibility);
    if (!document.hidden) {
      void ask();
    }
    return () => {
      stopped.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", onVisibility);
    };
  }, [question, every, paused, round]);

  const refresh = useCallback(() => setRound((before) => before + 1), []);
  return { data: asked.current === question ? data : undefined, error, refresh };
}
