/**
 * The timeline of the review panel, as SVG: a bar for every track, dotted lines where it was not seen, marks to click.
 *
 * FiftyOne's own plot view would do, but loads a bundle of 4.6 MB when the first plot is drawn, for which a person
 * waits two seconds; this is there with the rest of the panel. What is drawn comes from `review_timeline.py`; nothing
 * here knows of tracks. Written by hand, for the React that FiftyOne gives to plugins: there is no build step.
 *
 * Frames are 1-based and ranges inclusive, as everywhere in the App; frame n is as wide as [n - 0.5, n + 0.5].
 */
(() => {
  const { createElement: h, useEffect, useLayoutEffect, useRef, useState } = window.React;

  const MIN_ROW_PX = 12;
  const MAX_ROW_PX = 20;
  const ROWS_PX = 240; // shared by all rows; more than fit at their smallest are scrolled
  const AXIS_PX = 34;
  const LEFT_PX = 92;
  const RIGHT_PX = 16;
  const TICK_PX = 80; // at least between two
  const DRAG_PX = 6; // a shorter drag is a click
  const INK = "var(--fo-palette-text-primary, #e2e2e2)";
  const FAINT = "var(--fo-palette-text-secondary, #9a9a9a)";
  const GRID = "var(--fo-palette-divider, #3a3a3a)";
  const PAPER = "var(--fo-palette-background-level1, #1f1f1f)";
  const BAND = "#ffb020";
  const STYLES = {
    "to review": { path: "M0,-7L6,0L0,7L-6,0Z", fill: "#ffb020" },
    repaired: { path: "M0,-6.5L6,5L-6,5Z", fill: "#7bd88f" },
    reviewed: { path: "M-4,0A4,4 0 1,0 4,0A4,4 0 1,0 -4,0Z", fill: "#e8e8e8" },
  };

  /** The width that the panel has, also after somebody has dragged its edge. */
  function useWidth() {
    const ref = useRef(null);
    const [width, setWidth] = useState(0);
    useLayoutEffect(() => {
      const measure = () => setWidth(ref.current ? ref.current.clientWidth : 0);
      const observer = new ResizeObserver(measure);
      observer.observe(ref.current);
      measure();
      return () => observer.disconnect();
    }, []);
    return [ref, width];
  }

  /** Round frame numbers in [from, to], far enough from each other to be read. */
  function ticksOf(from, to, width) {
    const least = ((to - from) * TICK_PX) / Math.max(width, 1);
    const power = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= least);
    const ticks = [];
    for (let tick = Math.max(Math.ceil(from / step) * step, 1); tick <= to; tick += step) ticks.push(tick);
    return ticks;
  }

  function Mark({ mark, x, y, say, onLook }) {
    const style = STYLES[mark.kind];
    return h(
      "g",
      {
        transform: `translate(${x},${y})`,
        role: "button",
        "aria-label": `${mark.kind}: ${mark.about}`,
        style: { cursor: "pointer" },
        onPointerDown: (event) => event.stopPropagation(), // no drag begins on a mark
        onClick: () => onLook(mark.key),
        ...say([`${mark.about}: click to look`]),
      },
      mark.is_chosen && h("circle", { r: 10, fill: "none", stroke: INK, strokeWidth: 1.5 }),
      h("circle", { r: 9, fill: "transparent" }), // easier to hit
      h("path", { d: style.path, fill: style.fill, stroke: "#141414", strokeWidth: 1 })
    );
  }

  function Legend({ marks, rows }) {
    const kinds = Object.keys(STYLES).filter((kind) => marks.some((mark) => mark.kind === kind));
    const entry = (key, sign) =>
      h(
        "span",
        { key, style: { display: "inline-flex", alignItems: "center", gap: 5, marginRight: 16 } },
        h("svg", { width: 18, height: 16, viewBox: "-9 -8 18 16" }, sign),
        key
      );
    return h(
      "div",
      { style: { color: FAINT, fontSize: 12, height: 20, paddingLeft: LEFT_PX, whiteSpace: "nowrap" } },
      rows.some((row) => row.gaps.length) &&
        entry("not seen", h("line", { x1: -9, x2: 9, stroke: FAINT, strokeDasharray: "2 3" })),
      kinds.map((kind) => entry(kind, h("path", { d: STYLES[kind].path, fill: STYLES[kind].fill })))
    );
  }

  function Hint({ hint }) {
    const { x, y, lines, width } = hint;
    const side = x > width / 2 ? { right: width - x + 12 } : { left: x + 12 };
    return h(
      "div",
      {
        style: {
          ...side,
          position: "absolute",
          top: y + 12,
          zIndex: 10,
          pointerEvents: "none",
          padding: "5px 9px",
          borderRadius: 4,
          fontSize: 12,
          lineHeight: 1.45,
          whiteSpace: "nowrap",
          color: INK,
          background: PAPER,
          border: `1px solid ${GRID}`,
        },
      },
      lines.map((line) => h("div", { key: line }, line))
    );
  }

  function Timeline({ schema }) {
    const { first, last, rows, marks, band, on_look: look } = schema.view;
    const trigger = window.__foo__.usePanelEvent();
    const panelId = window.__fosp__.usePanelId();
    const [ref, width] = useWidth();
    const scroller = useRef(null);
    const [hint, setHint] = useState(null);
    const [zoom, setZoom] = useState(null);
    const [drag, setDrag] = useState(null);

    // What was zoomed into holds for the video that it was zoomed into.
    const range = zoom && zoom.last === last && zoom.first === first ? zoom.range : [first - 0.5, last + 0.5];
    const inner = Math.max(width - LEFT_PX - RIGHT_PX, 1);
    const rowPx = Math.min(Math.max(ROWS_PX / Math.max(rows.length, 1), MIN_ROW_PX), MAX_ROW_PX);
    const barPx = Math.round(rowPx * 0.65);
    const xOf = (frame) => LEFT_PX + ((frame - range[0]) / (range[1] - range[0])) * inner;
    const frameAt = (x) => range[0] + ((Math.min(Math.max(x, LEFT_PX), LEFT_PX + inner) - LEFT_PX) / inner) * (range[1] - range[0]);
    const yOf = (row) => rowPx * (row + 0.5);
    const rowsHeight = Math.max(rows.length, 1) * rowPx;
    const placeOf = (event) => {
      const box = ref.current.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const say = (lines) => ({
      onPointerMove: (event) => {
        const [x, y] = placeOf(event);
        setHint({ x, y, lines, width });
      },
      onPointerLeave: () => setHint(null),
    });
    const onLook = (key) => trigger(panelId, { operator: look, params: { id: key } });

    // With more tracks than fit, those of the item that is looked at come into sight.
    const chosen = marks.filter((mark) => mark.is_chosen).map((mark) => mark.row);
    const chosenKey = chosen.join();
    useEffect(() => {
      const box = scroller.current;
      if (!chosen.length || !box) return;
      const [top, bottom] = [rowPx * Math.min(...chosen), rowPx * (Math.max(...chosen) + 1)];
      if (top < box.scrollTop || bottom > box.scrollTop + box.clientHeight) box.scrollTop = top - rowPx;
    }, [chosenKey]);

    const ticks = ticksOf(range[0], range[1], inner);
    const bars = rows.flatMap((row, number) => [
      ...row.gaps.map(([a, b]) =>
        h("line", {
          key: `gap-${number}-${a}`,
          x1: xOf(a - 0.5),
          x2: xOf(b + 0.5),
          y1: yOf(number),
          y2: yOf(number),
          stroke: FAINT,
          strokeDasharray: "2 3",
        })
      ),
      ...row.spans.map((span) =>
        h("rect", {
          key: `span-${number}-${span.first}`,
          x: xOf(span.first - 0.5),
          y: yOf(number) - barPx / 2,
          width: Math.max(xOf(span.last + 0.5) - xOf(span.first - 0.5), 1),
          height: barPx,
          rx: 2,
          fill: row.colour,
          fillOpacity: 0.85,
          ...say(span.about),
        })
      ),
    ]);

    const plot = h(
      "svg",
      {
        width,
        height: rowsHeight,
        style: { display: "block", userSelect: "none", touchAction: "pan-y" },
        onPointerDown: (event) => {
          const [x] = placeOf(event);
          if (event.button === 0 && x > LEFT_PX) setDrag([x, x]);
        },
        onPointerMove: (event) => drag && setDrag([drag[0], placeOf(event)[0]]),
        onPointerLeave: () => setDrag(null),
        onPointerUp: () => {
          if (drag && Math.abs(drag[1] - drag[0]) >= DRAG_PX) {
            const [a, b] = drag.map(frameAt).sort((p, q) => p - q);
            if (b - a >= 1) setZoom({ first, last, range: [a, b] });
          }
          setDrag(null);
        },
        onDoubleClick: () => setZoom(null),
      },
      h("defs", null, h("clipPath", { id: `inside-${panelId}` }, h("rect", { x: LEFT_PX - 10, width: inner + 20, height: rowsHeight }))),
      rows.map((row, number) =>
        h("text", { key: number, x: LEFT_PX - 12, y: yOf(number), fill: INK, fontSize: Math.min(rowPx - 2, 12), textAnchor: "end", dominantBaseline: "central" }, row.name)
      ),
      h(
        "g",
        { clipPath: `url(#inside-${panelId})` },
        ticks.map((tick) => h("line", { key: tick, x1: xOf(tick), x2: xOf(tick), y1: 0, y2: rowsHeight, stroke: GRID })),
        band && h("rect", { x: xOf(band[0] - 0.5), width: Math.max(xOf(band[1] + 0.5) - xOf(band[0] - 0.5), 2), height: rowsHeight, fill: BAND, opacity: 0.18 }),
        bars,
        marks.map((mark) => h(Mark, { key: `${mark.key}@${mark.row}`, mark, x: xOf(mark.at), y: yOf(mark.row), say, onLook }))
      ),
      drag && h("rect", { x: Math.min(...drag), width: Math.abs(drag[1] - drag[0]), height: rowsHeight, fill: INK, opacity: 0.15 })
    );

    const axis = h(
      "svg",
      { width, height: AXIS_PX, style: { display: "block" } },
      h("line", { x1: LEFT_PX, x2: LEFT_PX + inner, y1: 0.5, y2: 0.5, stroke: GRID }),
      ticks.map((tick) => h("text", { key: tick, x: xOf(tick), y: 14, fill: FAINT, fontSize: 11, textAnchor: "middle" }, tick)),
      h("text", { x: LEFT_PX + inner / 2, y: 29, fill: FAINT, fontSize: 11, textAnchor: "middle" }, zoom ? "frame (double-click: whole video)" : "frame")
    );

    return h(
      "div",
      { ref, "data-cy": "shepherd-timeline", style: { position: "relative", width: "100%" } },
      h(Legend, { marks, rows }),
      width > 0 && h("div", { ref: scroller, style: { maxHeight: ROWS_PX + MIN_ROW_PX, overflowY: "auto", overflowX: "hidden" } }, plot),
      width > 0 && axis,
      hint && !drag && h(Hint, { hint })
    );
  }

  window.__fop__.registerComponent({
    name: "ShepherdTimeline",
    label: "Timeline of tracks",
    type: window.__fop__.PluginComponentType.Component,
    component: Timeline,
    activator: () => true,
  });
})();
