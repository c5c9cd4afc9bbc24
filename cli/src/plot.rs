//! The plot of a run: launches per second and latencies over time, with the phases behind both. A person who looks at it sees the
//! cutover, or sees nothing.

mod bins;
mod labels;

use std::ops::Range;
use std::path::Path;

use cutover_formats::Phase;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::coord::types::RangedCoordf64;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use self::bins::Bins;
use crate::failure::NOTHING_MEASURED;
use crate::measure::Measure;
use crate::plan::Way;
use crate::report::{Report, time};

const SIZE: (u32, u32) = (1200, 760);
/// Pixels left of the panels, for their axes.
const LEFT: u32 = 84;
/// Pixels right of them.
const RIGHT: u32 = 28;
/// Pixels of the title.
const TITLE: u32 = 72;
/// Pixels of one row of names of phases.
const ROW: u32 = 19;
/// Pixels of the axis of time.
const AXIS: u32 = 44;
/// Pixels of the legend at the foot.
const FOOT: u32 = 56;
/// Pixels left of everything.
const EDGE: u32 = 12;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 44, 52);
const GRID: RGBColor = RGBColor(205, 209, 215);
const RATE: RGBColor = RGBColor(31, 97, 166);
const P99: RGBColor = RGBColor(20, 110, 85);
const MAX: RGBColor = RGBColor(222, 120, 20);
const CUT: RGBColor = RGBColor(200, 30, 60);
const DOWN: RGBColor = RGBColor(80, 84, 92);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Panel<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;
type Outcome<T = ()> = Result<T, String>;

/// An axis with ticks of our own choice. (The combinator that comes with plotters cannot be labelled for numbers.)
struct Axis {
    inner: RangedCoordf64,
    ticks: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.inner.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.inner.range()
    }
}

/// A phase on the axis of time, in seconds.
struct Band {
    phase: Phase,
    from: f64,
    to: f64,
}

/// Everything that is drawn, in seconds since the start of the load.
struct Scene {
    end: f64,
    bands: Vec<Band>,
    /// The close and the designation of each cutover.
    cuts: Vec<f64>,
    /// While the engine's process was dead.
    down: Vec<(f64, f64)>,
    bins: Bins,
}

/// Draws the plot of a run whose report has been worked out.
pub(crate) fn draw(path: &Path, report: &Report, measure: &Measure) -> Outcome {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        paint(&root, report, &Scene::new(measure))?;
        root.present().map_err(said)?;
    }
    std::fs::write(path, text).map_err(|err| err.to_string())
}

fn said(err: impl std::fmt::Display) -> String {
    format!("drawing failed: {err}")
}

impl Scene {
    fn new(measure: &Measure) -> Self {
        let (began, samples) = (measure.began(), measure.samples(0));
        let seconds = |at: u64| at.saturating_sub(began) as f64 / 1e6;
        let last_phase = measure.phases().last().map_or(0, |(_, at)| *at);
        let last = samples.last().map_or(last_phase, |sample| sample.at.max(last_phase));
        let end = seconds(last).max(0.1);
        let starts: Vec<_> = measure.phases().iter().map(|(phase, at)| (*phase, seconds(*at))).collect();
        let ends = starts.iter().skip(1).map(|(_, at)| *at).chain([end]);
        let band = |((phase, from), to): (&(Phase, f64), f64)| Band { phase: *phase, from: *from, to };
        let bands: Vec<Band> = starts.iter().zip(ends).map(band).collect();
        let cuts = bands.iter().filter(|band| is_cut(band.phase)).map(|band| band.from).collect();
        let shifts = measure.shifts();
        let pauses = shifts.iter().zip(shifts.iter().skip(1));
        let down = pauses.map(|((_, down), (up, _))| (seconds(*down), seconds(*up))).collect();
        Self { end, bands, cuts, down, bins: bins::of(samples, began, last) }
    }
}

/// A cutover goes from the close of a store to the designation of the other.
fn is_cut(phase: Phase) -> bool {
    matches!(phase, Phase::Migration | Phase::PostMigration | Phase::RollingBack | Phase::PostRollback)
}

fn colour(phase: Phase) -> RGBColor {
    match phase {
        Phase::Stable => RGBColor(240, 242, 245),
        Phase::PreMigration => RGBColor(219, 233, 249),
        Phase::Migration => RGBColor(253, 224, 199),
        Phase::PostMigration => RGBColor(219, 242, 222),
        Phase::PreRollback => RGBColor(239, 225, 247),
        Phase::RollingBack => RGBColor(250, 213, 219),
        Phase::PostRollback => RGBColor(248, 240, 200),
    }
}

fn paint<'a>(root: &Area<'a>, report: &Report, scene: &Scene) -> Outcome {
    root.fill(&WHITE).map_err(said)?;
    write(root, &title(report), (24, 14), 21, HPos::Left, &INK)?;
    write(root, &subtitle(report), (24, 43), 15, HPos::Left, &INK)?;
    let width = f64::from(SIZE.0 - LEFT - RIGHT);
    let at = |band: &Band| (f64::from(LEFT) + width * band.from / scene.end, band.phase.name());
    let flags = labels::place(&scene.bands.iter().map(at).collect::<Vec<_>>(), f64::from(SIZE.0));
    let rows = flags.iter().map(|flag| flag.row + 1).max().unwrap_or(1) as u32;
    let top = TITLE + rows * ROW;
    for flag in &flags {
        let y = (top - (flag.row as u32 + 1) * ROW) as i32;
        let pole = vec![(flag.at as i32, y + 2), (flag.at as i32, top as i32)];
        root.draw(&PathElement::new(pole, DOWN.mix(0.7))).map_err(said)?;
        write(root, flag.text, (flag.left as i32 + 4, y + 1), 14, HPos::Left, &INK)?;
    }
    let upper_height = (SIZE.1 - top - FOOT - AXIS) * 45 / 100;
    let (_, rest) = root.split_vertically(top);
    let (upper, rest) = rest.split_vertically(upper_height);
    let (lower, _) = rest.split_vertically(SIZE.1 - top - FOOT - upper_height);
    rates(&upper, scene)?;
    latencies(&lower, scene)?;
    legend(root, scene, report.plan.rate.is_some())
}

fn title(report: &Report) -> String {
    let (from, to) = (&report.stores.initial, &report.stores.target);
    let to = if from == to { format!("another {to}") } else { to.clone() };
    let way = match report.plan.way {
        Way::Forward => format!("{from} to {to}"),
        Way::Back(phase) => format!("{from} to {to}, taken back in {phase}"),
        Way::Cancelled(_) => format!("{from} to {to}, cancelled"),
    };
    let killed = match report.kills {
        0 => String::new(),
        1 => ", killed once".to_owned(),
        kills => format!(", killed {kills} times"),
    };
    let outcome = match report.exit {
        0 => "nothing failed, nothing lost, nothing twice",
        NOTHING_MEASURED => "too little was measured",
        _ => "FAILED",
    };
    format!("{way}, {}{killed}: {outcome}", report.durability)
}

fn subtitle(report: &Report) -> String {
    let gaps = report
        .cutovers
        .iter()
        .map(|cutover| format!("{} around the {} cutover", time(cutover.longest_gap_us), cutover.direction));
    let stable = format!("{} in the stable phase before", time(report.stable_gap_us.max));
    let gaps: Vec<String> = [stable].into_iter().chain(gaps).collect();
    let launches = report.launches.attempted;
    format!("{launches} launches. Longest time without an answered launch: {}", gaps.join(", "))
}

fn rates<'a>(area: &Area<'a>, scene: &Scene) -> Outcome {
    let highest = scene.bins.rates.iter().map(|(_, rate)| *rate).fold(1.0, f64::max);
    let step = nice_step(highest / 4.0);
    let top = (highest * 1.08 / step).ceil() * step;
    let mut panel = panel(area, scene, (0.0, top), round_ticks(top, 6.0), 0)?;
    mesh(&mut panel, "launches per second", None, &|rate| format!("{rate:.0}"))?;
    let steps = scene
        .bins
        .rates
        .iter()
        .flat_map(|(from, rate)| [(*from, *rate), ((*from + scene.bins.width).min(scene.end), *rate)]);
    panel.draw_series(LineSeries::new(steps, RATE.stroke_width(1))).map_err(said)?;
    Ok(())
}

fn latencies<'a>(area: &Area<'a>, scene: &Scene) -> Outcome {
    let (lowest, highest) = scene.bins.range();
    // The axis is one of powers of ten: 0 stands for 1 ms.
    let (bottom, top) = (log_below(lowest * 0.95), -log_below(0.95 / highest));
    let powers = (bottom.floor() as i32..=top as i32).map(f64::from);
    let ticks = powers.flat_map(|power| [power, power + 2f64.log10(), power + 5f64.log10()]);
    let ticks = ticks.filter(|tick| (bottom - 1e-9..=top + 1e-9).contains(tick)).collect();
    let mut panel = panel(area, scene, (bottom, top), ticks, AXIS)?;
    let name = |power: &f64| {
        let ms = 10f64.powf(*power);
        if ms < 0.95 { format!("{ms:.2}").trim_end_matches('0').to_owned() } else { format!("{ms:.0}") }
    };
    mesh(&mut panel, "latency, ms", Some("seconds since the start of the load"), &name)?;
    let dots =
        scene.bins.longest.iter().map(|(at, ms)| Circle::new((*at, ms.log10()), 2, MAX.mix(0.75).filled()));
    panel.draw_series(dots).map_err(said)?;
    for run in &scene.bins.p99 {
        let line = run.iter().map(|(at, ms)| (*at, ms.log10()));
        panel.draw_series(LineSeries::new(line, P99.stroke_width(2))).map_err(said)?;
    }
    Ok(())
}

/// A panel with the phases behind it, the time without a process and the moments of the cutovers.
fn panel<'a>(
    area: &Area<'a>,
    scene: &Scene,
    (bottom, top): (f64, f64),
    ticks: Vec<f64>,
    axis: u32,
) -> Outcome<Panel<'a>> {
    let mut builder = ChartBuilder::on(area);
    builder
        .margin_right(RIGHT)
        .margin_left(EDGE)
        .margin_top(4)
        .y_label_area_size(LEFT - EDGE)
        .x_label_area_size(axis.max(8));
    let x = Axis { inner: (0.0..scene.end).into(), ticks: round_ticks(scene.end, 14.0) };
    let y = Axis { inner: (bottom..top).into(), ticks };
    let mut panel = builder.build_cartesian_2d(x, y).map_err(said)?;
    for band in &scene.bands {
        let shade = Rectangle::new([(band.from, bottom), (band.to, top)], colour(band.phase).filled());
        panel.draw_series([shade]).map_err(said)?;
        let edge = PathElement::new(vec![(band.from, bottom), (band.from, top)], DOWN.mix(0.35));
        panel.draw_series([edge]).map_err(said)?;
    }
    for (from, to) in &scene.down {
        let shade = Rectangle::new([(*from, bottom), (*to, top)], DOWN.mix(0.45).filled());
        panel.draw_series([shade]).map_err(said)?;
    }
    for at in &scene.cuts {
        let line = DashedPathElement::new([(*at, bottom), (*at, top)], 5, 3, CUT.stroke_width(2));
        panel.draw_series([line]).map_err(said)?;
    }
    Ok(panel)
}

fn mesh(panel: &mut Panel<'_>, y: &str, x: Option<&str>, name: &dyn Fn(&f64) -> String) -> Outcome {
    let mut mesh = panel.configure_mesh();
    mesh.disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .label_style((FONT, 14).into_font().color(&INK))
        .axis_desc_style((FONT, 15).into_font().color(&INK))
        .y_desc(y)
        .y_label_formatter(&name);
    match x {
        Some(text) => mesh.x_desc(text).x_label_formatter(&|at| format!("{}", (at * 10.0).round() / 10.0)),
        None => mesh.x_labels(0).x_label_formatter(&|_| String::new()),
    };
    mesh.draw().map_err(said)
}

/// The step of an axis: 1, 2 or 5 times a power of ten, not less than this and not less than 0.1.
fn nice_step(least: f64) -> f64 {
    let power = 10f64.powf(least.max(0.1).log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|step| step * power);
    // What is a hair above a step by rounding is still that step.
    steps.into_iter().find(|step| *step >= least * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

/// At most so many round numbers from 0 to `top`, and one.
fn round_ticks(top: f64, most: f64) -> Vec<f64> {
    let step = nice_step(top / most);
    (0..=(top / step + 1e-9) as u32).map(|n| f64::from(n) * step).collect()
}

/// The logarithm of the greatest of 1, 2 and 5 times a power of ten that is not above this.
fn log_below(value: f64) -> f64 {
    let power = value.log10().floor();
    let steps = [5.0, 2.0, 1.0].map(|step: f64| power + step.log10());
    steps.into_iter().find(|step| *step <= value.log10()).unwrap_or(power)
}

fn legend(root: &Area<'_>, scene: &Scene, paced: bool) -> Outcome {
    let width = scene.bins.width * 1e3;
    let mut entries = vec![
        (format!("launches per second, every {width:.0} ms"), RATE),
        ("p99 of the second around".to_owned(), P99),
        (format!("longest of {width:.0} ms"), MAX),
    ];
    if !scene.cuts.is_empty() {
        entries.push(("cutover: close and designation".to_owned(), CUT));
    }
    if !scene.down.is_empty() {
        entries.push(("killed, opening again".to_owned(), DOWN));
    }
    let y = (SIZE.1 - FOOT + 14) as i32;
    let mut x = LEFT as i32;
    for (text, colour) in entries {
        let mark = Rectangle::new([(x, y - 4), (x + 14, y + 4)], colour.filled());
        root.draw(&mark).map_err(said)?;
        write(root, &text, (x + 20, y - 8), 14, HPos::Left, &INK)?;
        x += 20 + labels::width(&text, 14.0) as i32 + 14;
    }
    if !paced {
        let why = "The launchers slow down by themselves while the workers are far behind: then the rate is low and nothing waits.";
        write(root, why, (LEFT as i32, y + 16), 14, HPos::Left, &DOWN)?;
    }
    Ok(())
}

fn write(root: &Area<'_>, text: &str, at: (i32, i32), size: i32, side: HPos, colour: &RGBColor) -> Outcome {
    let style = (FONT, size).into_text_style(root).color(colour).pos(Pos::new(side, VPos::Top));
    root.draw_text(text, &style, at).map_err(said)
}

#[cfg(test)]
#[path = "plot_tests.rs"]
mod tests;
