// What the server tells by itself: one stream for the view that is shown. It rests while the tab is hidden.
import { useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { ask, isOver, session, whoAmI, wording } from "./api.js";

/** Whether news come: `live`, `resting` or `lost`; dispatches `change`. */
export const pulse = Object.assign(new EventTarget(), { state: "live" });

function beat(state) {
  if (pulse.state === state) return;
  pulse.state = state;
  pulse.dispatchEvent(new Event("change"));
}

/** What these paths of the API answer, always the latest; `undefined` before it is known. A refusal is `{ refused }`. */
export function useLive(...paths) {
  const [answers, setAnswers] = useState([]);
  const key = paths.join(" ");
  useEffect(() => {
    let source, again;
    const asked = paths.map((path, index) => [path, index]).filter(([path]) => path);
    const close = () => {
      clearTimeout(again);
      source?.close();
      source = undefined;
    };
    const open = () => {
      close();
      if (document.hidden || !asked.length) return beat(document.hidden ? "resting" : "live");
      source = new EventSource("/api/page/events?" + asked.map(([path]) => "get=" + encodeURIComponent(path)).join("&"));
      source.onopen = () => beat("live");
      source.onmessage = (event) => {
        beat("live");
        const news = JSON.parse(event.data);
        setAnswers((old) => {
          const next = [...old];
          for (const [index, status, value] of news) {
            next[asked[index][1]] = status === 200 ? value : { refused: wording(status, value), status };
          }
          return next;
        });
      };
      source.addEventListener("over", () => {
        close();
        session.dispatchEvent(new Event("over"));
      });
      source.onerror = async () => {
        const isClosed = source?.readyState === EventSource.CLOSED;
        beat("lost");
        if (!isClosed) return;
        close();
        again = setTimeout(open, 3000);
        const me = await whoAmI().catch(() => undefined);
        if (me === null) session.dispatchEvent(new Event("over"));
      };
    };
    open();
    document.addEventListener("visibilitychange", open);
    return () => {
      document.removeEventListener("visibilitychange", open);
      close();
    };
  }, [key]);
  return answers;
}

/** What a path answers, asked anew every few seconds and by `refresh`. For what would be too much each second. */
export function usePolled(path, seconds = 5) {
  const [state, setState] = useState({});
  const latest = useRef();
  latest.current = path;
  const look = async () => {
    if (!path) return;
    try {
      const data = await ask("GET", path);
      if (latest.current === path) setState({ data, path, at: Date.now() });
    } catch (refused) {
      if (latest.current === path && !isOver(refused.status)) setState({ refused: refused.message, path });
    }
  };
  useEffect(() => {
    look();
    const timer = seconds && setInterval(() => document.hidden || look(), seconds * 1000);
    return () => clearInterval(timer);
  }, [path, seconds]);
  return { ...(state.path === path || !path ? state : { ...state, isOld: true }), refresh: look };
}

const histories = new Map();

/** Remembers how something was while the page is open: `[{ t, … }]`, one a second, of the last ten minutes. */
export function useHistory(key, sample) {
  // What is not told anew has not changed, while news come at all.
  useClock();
  let points = histories.get(key);
  if (!points) {
    points = [];
    histories.set(key, points);
    if (histories.size > 60) histories.delete(histories.keys().next().value);
  }
  if (sample && pulse.state === "live" && !(points.at(-1)?.t > Date.now() - 800)) {
    points.push({ t: Date.now(), ...sample });
    while (points[0].t < Date.now() - 600_000) points.shift();
  }
  return points;
}

/** Puts what the server remembers before what the page has seen. */
export function seedHistory(key, points) {
  const seen = histories.get(key) ?? [];
  const first = seen[0]?.t ?? Infinity;
  const merged = [...points.filter((point) => point.t < first - 500), ...seen];
  histories.set(key, seen);
  seen.splice(0, seen.length, ...merged);
}

/** Renders every second, for ages that grow. */
export function useClock() {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => document.hidden || setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}
