//! The paper's figures, drawn from our numbers: delay over users, and the improvement beside the
//! published one. As SVG, and as PNG for where SVG is not shown.

use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::report::{Comparison, Gain, Outcome, Side, Typical};

const SIZE: (u32, u32) = (1_080, 460);

const FONT: &str = "sans-serif";

const CENTRAL: RGBColor = RGBColor(0xc0, 0x39, 0x2b);
const SERVICE: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const PUBLISHED: RGBColor = RGBColor(0xb0, 0xb0, 0xb0);

/// One picture of the paper.
struct Figure {
    name: String,
    title: String,
    axis: &'static str,
    central: Vec<(f64, f64)>,
    service: Vec<(f64, f64)>,
    /// By number of users.
    improvements: Vec<(usize, Gain)>,
}

/// Draws what there is to draw; returns the files written.
///
/// # Errors
/// A file cannot be written.
pub(super) fn draw(folder: &Path, outcomes: &[Outcome]) -> Result<Vec<String>, String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    // Built in, so that pictures look alike on machines without fonts.
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::HACK_REGULAR)
        .map_err(|_| "the font cannot be read".to_owned())?;
    let mut files = Vec::new();
    for figure in outcomes.iter().flat_map(figures) {
        let path = |end: &str| folder.join(format!("{}.{end}", figure.name));
        let (svg, png) = (path("svg"), path("png"));
        picture(&SVGBackend::new(&svg, SIZE).into_drawing_area(), &figure)?;
        picture(&BitMapBackend::new(&png, SIZE).into_drawing_area(), &figure)?;
        files.extend([svg, png].map(|path| path.display().to_string()));
    }
    Ok(files)
}

fn figures(outcome: &Outcome) -> Vec<Figure> {
    let compared = outcome.compared();
    let max_load = outcome.series.max_load;
    let figure = |what: &str,
                  axis,
                  delay: fn(&Side) -> Option<Typical>,
                  gain: fn(&Comparison) -> Gain| {
        // Where not everybody is in, the delays of who is say little.
        let line = |side: fn(&Comparison) -> Option<Side>| {
            let steps = compared.steps.iter();
            steps
                .filter_map(|step| {
                    let delay = delay(&side(step).filter(Side::is_whole)?)?;
                    Some((step.users as f64, delay.median_second_ms))
                })
                .collect()
        };
        Figure {
            name: format!("{what}-delay-{max_load}"),
            title: format!("{what} delay, max-load {max_load}: the median of the seconds' means"),
            axis,
            central: line(|step| step.central),
            service: line(|step| step.service),
            improvements: compared
                .steps
                .iter()
                .map(|step| (step.users, gain(step)))
                .collect(),
        }
    };
    let mut figures = vec![
        figure(
            "SIP",
            "SIP message delay, ms",
            |side| side.sip,
            |step| step.sip,
        ),
        figure(
            "media",
            "media stream delay, ms",
            |side| side.media,
            |step| step.media,
        ),
    ];
    figures.retain(|figure| !figure.central.is_empty() || !figure.service.is_empty());
    figures
}

fn picture<B: DrawingBackend>(root: &DrawingArea<B, Shift>, figure: &Figure) -> Result<(), String> {
    let failed = |error: DrawingAreaErrorKind<B::ErrorType>| format!("{}: {error}", figure.name);
    root.fill(&WHITE).map_err(failed)?;
    let root = root.titled(&figure.title, (FONT, 20)).map_err(failed)?;
    let (left, right) = root.split_horizontally(SIZE.0 * 11 / 20);
    delays(&left, figure).map_err(failed)?;
    improvements(&right, figure).map_err(failed)?;
    root.present().map_err(failed)
}

/// The two lines.
fn delays<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    figure: &Figure,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let points = || figure.central.iter().chain(&figure.service);
    let users = points().map(|point| point.0).fold(1.0, f64::max);
    let highest = points().map(|point| point.1).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .x_label_area_size(42)
        .y_label_area_size(62)
        .build_cartesian_2d(0.0..users * 1.05, 0.0..highest * 1.15)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("users")
        .y_desc(figure.axis)
        .x_label_formatter(&|users| format!("{users:.0}"))
        .label_style((FONT, 13))
        .draw()?;
    let lines = [
        ("one server", CENTRAL, &figure.central),
        ("the service", SERVICE, &figure.service),
    ];
    for (name, colour, line) in lines {
        if line.is_empty() {
            continue;
        }
        chart
            .draw_series(
                LineSeries::new(line.iter().copied(), colour.stroke_width(2)).point_size(4),
            )?
            .label(name)
            .legend(move |(x, y)| {
                PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2))
            });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font((FONT, 13))
        .draw()
}

/// Bars: what this run gained, and what the paper did.
fn improvements<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    figure: &Figure,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let values = figure
        .improvements
        .iter()
        .flat_map(|(_, gain)| [gain.here, gain.published])
        .flatten();
    let (lowest, highest) = values.fold((0.0_f64, 10.0_f64), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let count = figure.improvements.len();
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .x_label_area_size(42)
        .y_label_area_size(58)
        .build_cartesian_2d(0.0..count as f64, lowest * 1.15..highest * 1.2)?;
    let users: Vec<usize> = figure
        .improvements
        .iter()
        .map(|&(users, _)| users)
        .collect();
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .y_desc("improvement, % (in brackets: noise)")
        .x_desc("users")
        .x_labels(0)
        .label_style((FONT, 13))
        .draw()?;
    let sides = [("here", SERVICE, 0.12), ("published", PUBLISHED, 0.5)];
    for (name, colour, from) in sides {
        let bars = figure
            .improvements
            .iter()
            .enumerate()
            .filter_map(|(place, (_, gain))| {
                let (value, is_noise) = match name {
                    "here" => (gain.here?, gain.is_noise),
                    _ => (gain.published?, false),
                };
                Some((place as f64 + from, value, is_noise))
            });
        let bars: Vec<(f64, f64, bool)> = bars.collect();
        if bars.is_empty() {
            continue;
        }
        chart
            .draw_series(bars.iter().map(|&(left, value, _)| {
                Rectangle::new([(left, 0.0), (left + 0.36, value)], colour.filled())
            }))?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
        chart.draw_series(bars.iter().map(|&(left, value, is_noise)| {
            let above = value.max(0.0) + (highest - lowest) * 0.05;
            let text = match is_noise {
                true => format!("({value:.1})"),
                false => format!("{value:.1}"),
            };
            Text::new(text, (left + 0.02, above), (FONT, 12))
        }))?;
    }
    // Below each pair of bars, its number of users.
    chart.draw_series(users.iter().enumerate().map(|(place, users)| {
        let below = EmptyElement::at((place as f64 + 0.36, lowest * 1.15));
        below + Text::new(users.to_string(), (0, 8), (FONT, 13))
    }))?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font((FONT, 13))
        .draw()
}

#[cfg(test)]
mod tests;
