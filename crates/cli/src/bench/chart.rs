//! Charts as SVG, written by hand: bars in panels, and curves. They follow the reader's choice of light or dark.

use std::fmt::Write as _;

/// Bars of one number of several brokers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) bars: Vec<Bar>,
}

/// One broker's number.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bar {
    pub(super) name: String,
    /// Its number among all brokers of the chart, which decides its colour.
    pub(super) colour: usize,
    pub(super) value: f64,
    /// The value for people.
    pub(super) shown: String,
}

/// A curve through points.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) colour: usize,
    /// A share from 0 to 1 and the nanoseconds that so many stay below, ascending.
    pub(super) points: Vec<(f64, f64)>,
}

/// Panels in two columns, each scaled to its longest bar.
pub(super) fn bars(title: &str, note: &str, panels: &[Panel]) -> String {
    let heights: Vec<_> = panels.iter().map(|panel| PANEL_TITLE + panel.bars.len() as f64 * BAR_STEP + GAP).collect();
    let rows: Vec<f64> = heights.chunks(COLUMNS).map(|row| row.iter().copied().fold(0.0, f64::max)).collect();
    let mut svg = begin(title, note, TOP + rows.iter().sum::<f64>());
    let mut top = TOP;
    for (row, height) in panels.chunks(COLUMNS).zip(rows) {
        for (column, panel) in row.iter().enumerate() {
            add_panel(&mut svg, panel, MARGIN + column as f64 * (PANEL_WIDTH + MARGIN), top);
        }
        top += height;
    }
    svg.push_str("</svg>\n");
    svg
}

fn add_panel(svg: &mut String, panel: &Panel, left: f64, top: f64) {
    let longest = panel.bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let room = PANEL_WIDTH - NAME_WIDTH - VALUE_WIDTH;
    text(svg, left, top + 14.0, "panel", &panel.title);
    for (number, bar) in panel.bars.iter().enumerate() {
        let y = top + PANEL_TITLE + number as f64 * BAR_STEP;
        let width = if longest > 0.0 { (bar.value / longest * room).max(1.0) } else { 1.0 };
        let (x, middle) = (left + NAME_WIDTH, y + BAR_HEIGHT / 2.0 + 4.0);
        text(svg, left, middle, "name", &bar.name);
        put(
            svg,
            format_args!(
                "<rect class=\"c{}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\"/>\n",
                bar.colour % COLOURS.len()
            ),
        );
        text(svg, x + width + 6.0, middle, "value", &bar.shown);
    }
}

/// Latencies by percentile. Both axes are logarithmic: each step to the right is ten times as rare.
pub(super) fn percentiles(title: &str, note: &str, curves: &[Curve]) -> String {
    let mut svg = begin(title, note, TOP + CURVES_HEIGHT + AXIS + LEGEND_STEP);
    let values = || curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.1.max(1.0)));
    let decade = |value: f64, up: bool| if up { value.log10().ceil() } else { value.log10().floor() };
    let low = decade(values().fold(f64::INFINITY, f64::min).min(1e9), false);
    let high = decade(values().fold(1.0, f64::max), true).max(low + 1.0);
    let (left, right, bottom) = (MARGIN + 62.0, WIDTH - 2.0 * MARGIN, TOP + CURVES_HEIGHT);
    let x_of = |share: f64| left + (1.0 / (1.0 - share).max(RAREST)).log10() / -RAREST.log10() * (right - left);
    let y_of = |value: f64| bottom - (value.max(1.0).log10() - low) / (high - low) * CURVES_HEIGHT;
    let mut power = low;
    while power <= high {
        let y = y_of(10f64.powf(power));
        put(
            &mut svg,
            format_args!("<line class=\"grid\" x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\n"),
        );
        text(&mut svg, left - 8.0, y + 4.0, "tick end", &duration(10f64.powf(power)));
        power += 1.0;
    }
    for (share, name) in [(0.0, "0 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")] {
        let x = x_of(share);
        put(
            &mut svg,
            format_args!("<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\"/>\n"),
        );
        text(&mut svg, x, bottom + 18.0, "tick middle", name);
    }
    let mut legend = left;
    for curve in curves {
        let points: Vec<_> =
            curve.points.iter().map(|&(share, ns)| format!("{:.1},{:.1}", x_of(share), y_of(ns))).collect();
        let colour = curve.colour % COLOURS.len();
        put(&mut svg, format_args!("<polyline class=\"l{colour}\" points=\"{}\"/>\n", points.join(" ")));
        let y = bottom + AXIS;
        put(
            &mut svg,
            format_args!(
                "<rect class=\"c{colour}\" x=\"{legend:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" rx=\"2\"/>\n",
                y - 10.0
            ),
        );
        text(&mut svg, legend + 18.0, y, "name", &curve.name);
        legend += 40.0 + curve.name.chars().count() as f64 * 7.0;
    }
    svg.push_str("</svg>\n");
    svg
}

fn begin(title: &str, note: &str, height: f64) -> String {
    let mut svg = String::new();
    put(
        &mut svg,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\">\n"
        ),
    );
    put(&mut svg, format_args!("<title>{}</title>\n<style>\n", escape(title)));
    svg.push_str(
        "text{font:12px system-ui,sans-serif;fill:#57606a}.title{font-size:16px;font-weight:600;fill:#1f2328}\
         .panel{font-weight:600;fill:#1f2328}.value,.tick{font-variant-numeric:tabular-nums}.end{text-anchor:end}\
         .middle{text-anchor:middle}.grid{stroke:#d0d7de;stroke-width:1}polyline{fill:none;stroke-width:2}\n",
    );
    for (number, (light, _)) in COLOURS.iter().enumerate() {
        put(&mut svg, format_args!(".c{number}{{fill:{light}}}.l{number}{{stroke:{light}}}\n"));
    }
    svg.push_str(
        "@media (prefers-color-scheme:dark){text{fill:#9198a1}.title,.panel{fill:#f0f6fc}.grid{stroke:#3d444d}\n",
    );
    for (number, (_, dark)) in COLOURS.iter().enumerate() {
        put(&mut svg, format_args!(".c{number}{{fill:{dark}}}.l{number}{{stroke:{dark}}}\n"));
    }
    svg.push_str("}\n</style>\n");
    text(&mut svg, MARGIN, 26.0, "title", title);
    text(&mut svg, MARGIN, 46.0, "note", note);
    svg
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, text: &str) {
    put(svg, format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>\n", escape(text)));
}

fn put(svg: &mut String, piece: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = svg.write_fmt(piece);
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A power of ten of nanoseconds, with a unit.
fn duration(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.0} µs", ns / 1e3),
        ns if ns < 1e9 => format!("{:.0} ms", ns / 1e6),
        ns => format!("{:.0} s", ns / 1e9),
    }
}

const WIDTH: f64 = 860.0;
const MARGIN: f64 = 20.0;
const TOP: f64 = 64.0;
const COLUMNS: usize = 2;
const PANEL_WIDTH: f64 = 400.0;
const PANEL_TITLE: f64 = 24.0;
const NAME_WIDTH: f64 = 112.0;
const VALUE_WIDTH: f64 = 108.0;
const BAR_HEIGHT: f64 = 16.0;
const BAR_STEP: f64 = 21.0;
const GAP: f64 = 18.0;
const CURVES_HEIGHT: f64 = 280.0;
const AXIS: f64 = 46.0;
const LEGEND_STEP: f64 = 16.0;

/// The share of the rarest latency that is drawn.
const RAREST: f64 = 1e-4;

/// Of each broker, on light and on dark ground.
const COLOURS: [(&str, &str); 6] = [
    ("#0969da", "#4493f8"),
    ("#bf8700", "#d29922"),
    ("#8250df", "#ab7df8"),
    ("#1a7f37", "#3fb950"),
    ("#cf222e", "#f85149"),
    ("#6e7781", "#9198a1"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_its_room_and_names_are_escaped() {
        let bar = |name: &str, value: f64| Bar { name: name.to_owned(), colour: 0, value, shown: format!("{value}/s") };
        let panel = Panel { title: "a < b".to_owned(), bars: vec![bar("one", 50.0), bar("two", 100.0)] };
        let svg = bars("title", "note", &[panel]);
        assert!(svg.contains("width=\"90.0\"") && svg.contains("width=\"180.0\""), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains("100/s") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn nothing_measured_is_no_reason_to_fail() {
        assert!(bars("t", "n", &[]).ends_with("</svg>\n"));
        assert!(!percentiles("t", "n", &[]).contains("NaN"));
        let curve = Curve { name: "x".to_owned(), colour: 9, points: vec![(0.0, 0.0), (1.0, 1e6)] };
        assert!(!percentiles("t", "n", &[curve]).contains("NaN"));
    }

    #[test]
    fn durations_have_the_unit_that_fits() {
        assert_eq!([100.0, 1e4, 1e7, 1e9].map(duration), ["100 ns", "10 µs", "10 ms", "1 s"]);
    }
}
