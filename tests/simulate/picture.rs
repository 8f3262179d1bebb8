//! The strategies side by side, as a table and as a picture: how much of its share an endpoint gets while something is
//! wrong with it. `make simulate` runs this.

use super::SOME;
use super::engine::{Outcome, SECOND, Scene};
use super::model::Fault;
use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;
use wayside::service::plan::Strategy;

const SECONDS: u64 = 30;
const STRATEGIES: [(Strategy, &str); 5] = [
    (Strategy::RoundRobin, "#9aa5b1"),
    (Strategy::Random, "#c8a15a"),
    (Strategy::Hash, "#8d6bb8"),
    (Strategy::PeakEwma, "#2f86c4"),
    (Strategy::LeastRequest, "#1f9d63"),
];

/// What is wrong, with how many of twenty, from when to when.
fn cases() -> [(&'static str, Fault, usize, Range<u64>); 6] {
    [
        ("one refuses", Fault::Refuses, 1, 10..SECONDS + 1),
        ("one refuses each other second", Fault::Flaps, 1, 10..SECONDS + 1),
        ("one hangs, then recovers", Fault::Hangs, 1, 10..15),
        ("one takes ten times as long, then recovers", Fault::Slow(10.0), 1, 10..18),
        ("one is cold until it has answered 400", Fault::Cold(10.0, 400), 1, 10..SECONDS + 1),
        ("six refuse", Fault::Refuses, 6, 10..SECONDS + 1),
    ]
}

#[test]
fn side_by_side() {
    let mut table =
        format!("{:<44}{:<22}{:>8}{:>9}{:>9}{:>8}\n", "of 20, 60 % busy", "", "lost %", "p50 ms", "p99 ms", "share");
    let mut svg = Svg::new();
    for (place, (name, fault, ill, when)) in cases().into_iter().enumerate() {
        let mut lines = Vec::new();
        for (at, (strategy, colour)) in STRATEGIES.into_iter().enumerate() {
            let scene = Scene::of(strategy, SOME, 0.6, SECONDS).with(fault, ill, when.clone());
            let outcome = Scene { from: 10 * SECOND, ..scene }.run();
            let (lost, p50, p99) = (100.0 * outcome.lost(), outcome.percentile(0.5), outcome.percentile(0.99));
            let share = outcome.share(0, 13..SECONDS as usize);
            let name = if at == 0 { name } else { "" };
            writeln!(table, "{name:<44}{:<22}{lost:>8.3}{p50:>9.1}{p99:>9.1}{share:>8.3}", strategy.name()).unwrap();
            lines.push((strategy.name(), colour, outcome));
        }
        svg.panel(place, name, &when, &lines);
    }
    let svg = svg.end();
    assert_eq!(svg.matches("<polyline").count(), cases().len() * STRATEGIES.len());
    if let Some(file) = std::env::var_os("WAYSIDE_PICTURE") {
        std::fs::write(file, svg).unwrap();
    }
    std::io::stdout().write_all(table.as_bytes()).unwrap();
}

struct Svg(String);

const WIDTH: usize = 474;
const HEIGHT: usize = 222;
const TOP: usize = 96;

impl Svg {
    fn new() -> Self {
        let (width, height) = (2 * WIDTH + 40, TOP + 3 * HEIGHT + 20);
        let mut svg = format!(
            "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' font-family='system-ui, sans-serif' \
             font-size='12' fill='#334155'>\n<rect width='{width}' height='{height}' rx='12' fill='#fbfcfd'/>\n\
             <text x='32' y='38' font-size='20' font-weight='600' fill='#0f172a'>What an ill endpoint still gets</text>\n\
             <text x='32' y='58'>Traffic to it, as a part of its fair share, second by second; shaded while it is ill. Twenty \
             endpoints, 60 % busy, one attempt, no health check.</text>\n"
        );
        for (at, (strategy, colour)) in STRATEGIES.into_iter().rev().enumerate() {
            let x = 32 + at * 140;
            let _ = writeln!(
                svg,
                "<line x1='{x}' y1='78' x2='{}' y2='78' stroke='{colour}' stroke-width='4' stroke-linecap='round'/>\
                 <text x='{}' y='82'>{}</text>",
                x + 18,
                x + 25,
                strategy.name()
            );
        }
        Svg(svg)
    }

    fn panel(&mut self, place: usize, name: &str, when: &Range<u64>, lines: &[(&str, &str, Outcome)]) {
        let (left, top) = (20 + place % 2 * WIDTH, TOP + place / 2 * HEIGHT);
        let (x0, y0, wide, high) = ((left + 40) as f64, (top + 34) as f64, (WIDTH - 70) as f64, 130.0);
        let x = |second: f64| x0 + wide * second / SECONDS as f64;
        let y = |share: f64| y0 + high * (1.0 - share.min(1.25) / 1.25);
        let svg = &mut self.0;
        let _ = writeln!(
            svg,
            "<text x='{x0}' y='{}' font-size='14' font-weight='600' fill='#0f172a'>{name}</text>",
            top + 22
        );
        let (from, to) = (x(when.start as f64), x(when.end.min(SECONDS) as f64));
        let _ = writeln!(
            svg,
            "<rect x='{from:.1}' y='{y0}' width='{:.1}' height='{high}' fill='#f9dcd7' opacity='0.6'/>",
            to - from
        );
        for (share, label) in [(0.0, "0"), (0.5, "½"), (1.0, "1")] {
            let y = y(share);
            let _ = writeln!(
                svg,
                "<line x1='{x0}' y1='{y:.1}' x2='{:.1}' y2='{y:.1}' stroke='#d5dbe1'/><text x='{}' y='{:.1}' \
                 text-anchor='end' fill='#64748b'>{label}</text>",
                x0 + wide,
                x0 - 6.0,
                y + 4.0
            );
        }
        for second in (0..=SECONDS).step_by(10) {
            let (x, y) = (x(second as f64), y0 + high + 15.0);
            let _ = writeln!(svg, "<text x='{x:.1}' y='{y}' text-anchor='middle' fill='#64748b'>{second} s</text>");
        }
        for (_, colour, outcome) in lines {
            let points = (0..SECONDS as usize)
                .map(|second| format!("{:.1},{:.1}", x(second as f64 + 0.5), y(outcome.share(0, second..second + 1))));
            let points = points.collect::<Vec<_>>().join(" ");
            let _ = writeln!(
                svg,
                "<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='2' stroke-linejoin='round'/>"
            );
        }
        // Of the requests since something is wrong, how many got no good answer.
        let mut at = x0;
        let _ =
            write!(svg, "<text y='{}' font-size='11.5'><tspan x='{at}' fill='#64748b'>lost</tspan>", y0 + high + 36.0);
        at += 34.0;
        for (_, colour, outcome) in lines.iter().rev() {
            let lost = 100.0 * outcome.lost();
            let digits = if lost >= 0.995 { 1 } else { 2 };
            let _ = write!(svg, "<tspan x='{at}' fill='{colour}' font-weight='600'>{lost:.digits$} %</tspan>");
            at += 74.0;
        }
        svg.push_str("</text>\n");
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}
